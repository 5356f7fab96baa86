//! The signals sent to `lockd run`, one after the other, on a descriptor that can be polled. Knows
//! which signals this process may take; others decide what is done about them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::io::Errno;
use rustix::process::{WaitOptions, getpid, kill_process, wait};

use super::dispositions::was_ignored;

/// The signals that are passed on to the command, and that end a wait.
const ENDING: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
];

/// The signals that stop and continue processes. A terminal sends these to the command itself, and
/// they have their default effect on this process, as on every other one in its group.
const STOPPING: [Signal; 2] = [Signal::SIGTSTP, Signal::SIGCONT];

#[derive(Clone, Copy, Debug)]
pub(super) struct ReceivedSignal {
    pub(super) signal: Signal,
    /// Whether the kernel has sent it, as it does for a terminal. Then every process in the group
    /// has received it.
    pub(super) is_from_kernel: bool,
}

impl ReceivedSignal {
    /// Whether the signal ends a process that does not handle it.
    pub(super) fn is_ending(self) -> bool {
        ENDING.contains(&self.signal)
    }

    /// Whether its sender wants this process to end, and not only to do something: SIGUSR1, for
    /// example, may be a question to the command.
    pub(super) fn asks_to_end(self) -> bool {
        matches!(self.signal, Signal::SIGHUP | Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTERM)
    }
}

/// The signals that have arrived. They are blocked in the thread that creates this, and in all
/// threads that it starts later.
pub(super) struct SignalQueue {
    fd: SignalFd,
    /// The mask before that, which the command gets.
    before: SigSet,
}

impl SignalQueue {
    /// Blocks the signals and begins to queue them. Without a terminal these include the signals
    /// that stop and continue.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn take(has_terminal: bool) -> io::Result<Self> {
        // This process may have been started with SIGCHLD ignored. Then the command's status could
        // not be read.
        signal_hook::flag::register(signal_hook::consts::SIGCHLD, Arc::default())?;
        let mut taken = SigSet::empty();
        let stopping: &[Signal] = if has_terminal { &[] } else { &STOPPING };
        // Signals that are ignored, for example because of nohup(1), are not taken: the command
        // ignores them too.
        for &signal in ENDING.iter().chain(stopping).filter(|&&signal| !was_ignored(signal)) {
            taken.add(signal);
        }
        taken.add(Signal::SIGCHLD);
        let before = SigSet::thread_get_mask()?;
        taken.thread_block()?;
        let fd = SignalFd::with_flags(&taken, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { fd, before })
    }

    /// The next signal that has arrived, if there is one.
    pub(super) fn next(&self) -> Option<ReceivedSignal> {
        let info = self.fd.read_signal().ok().flatten()?;
        let number = i32::try_from(info.ssi_signo).ok()?;
        let signal = Signal::try_from(number).ok()?;
        Some(ReceivedSignal { signal, is_from_kernel: info.ssi_code > 0 })
    }

    /// The next signal that [ends a process](ReceivedSignal::is_ending), if one has arrived. A
    /// signal that stops processes stops this one. Must not be called while a command runs, since
    /// it reaps all children that have ended.
    pub(super) fn next_ending(&self) -> Option<Signal> {
        reap_orphans();
        while let Some(received) = self.next() {
            if received.is_ending() {
                return Some(received.signal);
            }
            if received.signal == Signal::SIGTSTP {
                stop_this_process();
            }
        }
        None
    }

    pub(super) fn mask_before(&self) -> SigSet {
        self.before
    }
}

impl AsFd for SignalQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Reaps all children that have ended, without blocking. Process 1 of a container becomes the
/// parent of orphaned processes, even before there is a command.
fn reap_orphans() {
    while matches!(wait(WaitOptions::NOHANG), Ok(Some(_)) | Err(Errno::INTR)) {}
}

/// Stops this process until it is continued, as an unhandled SIGTSTP would.
pub(super) fn stop_this_process() {
    // It cannot fail: a process may always stop itself.
    let _ = kill_process(getpid(), rustix::process::Signal::STOP);
}

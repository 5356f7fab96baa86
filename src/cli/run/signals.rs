//! The signals sent to `lockd run`, one after the other, on a descriptor that can be polled. Knows
//! which signals this process may take; others decide what is done about them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::sys::signal::{SigSet, Signal, raise};
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

/// The signals that stop processes. A terminal sends the first when Ctrl-Z is typed, and the others
/// to processes in the background that use it. The kernel must not stop this process: it would
/// watch the lock no longer, while a command that has left the group, or ignores the signal, goes
/// on.
const STOPPING: [Signal; 3] = [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU];

#[derive(Clone, Copy, Debug)]
pub(super) struct ReceivedSignal {
    pub(super) signal: Signal,
    /// Whether the kernel has sent it, as it does for a terminal.
    is_from_kernel: bool,
}

impl ReceivedSignal {
    /// Whether the signal ends a process that does not handle it.
    pub(super) fn is_ending(self) -> bool {
        ENDING.contains(&self.signal)
    }

    pub(super) fn is_stopping(self) -> bool {
        STOPPING.contains(&self.signal)
    }

    /// Whether a terminal has sent it to the whole process group. The kernel sends other signals to
    /// this process alone: SIGHUP to the leader of a session whose terminal is gone, SIGALRM to a
    /// process whose timer has run out.
    pub(super) fn is_for_group(self) -> bool {
        self.is_from_kernel && (self.is_stopping() || matches!(self.signal, Signal::SIGINT | Signal::SIGQUIT))
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
    has_terminal: bool,
}

impl SignalQueue {
    /// Blocks the signals and begins to queue them.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn take(has_terminal: bool) -> io::Result<Self> {
        // This process may have been started with SIGCHLD ignored. Then the command's status could
        // not be read.
        signal_hook::flag::register(signal_hook::consts::SIGCHLD, Arc::default())?;
        let mut taken = SigSet::empty();
        // Signals that are ignored, for example because of nohup(1), are not taken: the command
        // ignores them too.
        let all = ENDING.iter().chain(&STOPPING).chain(&[Signal::SIGCONT]);
        for &signal in all.filter(|&&signal| !was_ignored(signal)) {
            taken.add(signal);
        }
        taken.add(Signal::SIGCHLD);
        let before = SigSet::thread_get_mask()?;
        taken.thread_block()?;
        let fd = SignalFd::with_flags(&taken, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { fd, before, has_terminal })
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
            if received.is_stopping() {
                self.stop_this_process(received.signal);
            }
        }
        None
    }

    /// Stops this process until it is continued, as the signal would if it were not handled. In a
    /// terminal the kernel decides: if no shell could continue this process, it is not stopped.
    pub(super) fn stop_this_process(&self, signal: Signal) {
        // Neither can fail: a process may always stop itself, and knows these signals.
        if !self.has_terminal {
            let _ = kill_process(getpid(), rustix::process::Signal::STOP);
            return;
        }
        let mask = SigSet::from(signal);
        if mask.thread_unblock().is_ok() {
            let _ = raise(signal);
            let _ = mask.thread_block();
        }
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

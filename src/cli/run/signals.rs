//! The signals that come to `lockd run`, one after the other, as something to poll. Knows which of them it
//! may take; what is done about them is decided by others.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::io::Errno;
use rustix::process::{WaitOptions, getpid, kill_process, wait};

use super::dispositions::was_ignored;

/// What is passed on to the command, and ends a wait.
const ENDING: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
];

/// What stops and continues. Where there is a terminal, it sends these to the command itself, and they do to
/// this process what they do to every other in its group.
const STOPPING: [Signal; 2] = [Signal::SIGTSTP, Signal::SIGCONT];

/// A signal that has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    pub(super) signal: Signal,
    /// Whether the kernel has sent it, as it does for a terminal: then every process in the group has it.
    pub(super) is_from_kernel: bool,
}

impl Received {
    /// Whether it ends a process that does nothing about it.
    pub(super) fn is_ending(self) -> bool {
        ENDING.contains(&self.signal)
    }
}

/// From when it is made, the signals are blocked in the thread, and in all that it starts later.
pub(super) struct Signals {
    fd: SignalFd,
    /// What was blocked before, and is to be so for the command.
    before: SigSet,
}

impl Signals {
    /// # Errors
    /// If the system does not let them be taken.
    pub(super) fn take(has_terminal: bool) -> io::Result<Self> {
        // Whoever started this process may have it ignored; then there would be no status to be had of the
        // command.
        signal_hook::flag::register(signal_hook::consts::SIGCHLD, Arc::default())?;
        let mut taken = SigSet::empty();
        let stopping: &[Signal] = if has_terminal { &[] } else { &STOPPING };
        // What is ignored, as by nohup(1), the command ignores, too.
        for &signal in ENDING.iter().chain(stopping).filter(|&&signal| !was_ignored(signal)) {
            taken.add(signal);
        }
        taken.add(Signal::SIGCHLD);
        let before = SigSet::thread_get_mask()?;
        taken.thread_block()?;
        let fd = SignalFd::with_flags(&taken, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { fd, before })
    }

    /// The next signal that has come, if there is one.
    pub(super) fn next(&self) -> Option<Received> {
        let info = self.fd.read_signal().ok().flatten()?;
        let number = i32::try_from(info.ssi_signo).ok()?;
        let signal = Signal::try_from(number).ok()?;
        Some(Received { signal, is_from_kernel: info.ssi_code > 0 })
    }

    /// The next one that ends a process that does nothing about it, if one has come. One that stops a process
    /// stops this one. Not while a command runs: it waits for all children that have ended.
    pub(super) fn next_ending(&self) -> Option<Signal> {
        wait_for_orphans();
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

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Waits for all children that have ended, without blocking. Process 1 of a container gets those whose parents have
/// gone, also before there is a command.
fn wait_for_orphans() {
    while matches!(wait(WaitOptions::NOHANG), Ok(Some(_)) | Err(Errno::INTR)) {}
}

/// Stops this process as a signal does that nobody handles, until it is continued.
pub(super) fn stop_this_process() {
    // It cannot fail: a process may always stop itself.
    let _ = kill_process(getpid(), rustix::process::Signal::STOP);
}

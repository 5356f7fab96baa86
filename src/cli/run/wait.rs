//! Waiting for descriptors and for threads, so that a signal ends each wait at once. Knows nothing
//! about locks.
//!
//! Signals arrive on a signalfd, the loss of the lock on the session's descriptor (a socket, or an
//! epoll descriptor with several servers), and the end of a command as SIGCHLD: everything that
//! `lockd run` waits for is a descriptor or a point in time, and one poll(2) in the thread that
//! must act waits for all of it. A `select!` over channels would need a further thread for each
//! descriptor, which would still have to be polled there. So there are no channels here, and the
//! end of a thread is a pipe that closes.

use std::io;
use std::os::fd::AsFd;
use std::thread::Builder;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::signals::SignalQueue;

pub(super) enum WaitOutcome<T> {
    /// The work is done, with this result.
    Done(T),
    /// The time limit has passed.
    Late,
    /// A signal has arrived that ends a process. The thread goes on, and ends with the process.
    Signal(Signal),
}

/// Runs `work` in a thread, and waits until it is done, until `limit` has passed, or until a signal
/// arrives that ends a process. A signal that stops processes stops this one, and the wait goes on
/// when it is continued.
///
/// # Errors
/// If no thread can be started, or if it panics.
pub(super) fn run_within<T: Send + 'static>(
    limit: Option<Duration>,
    signals: Option<&SignalQueue>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<WaitOutcome<T>> {
    // The thread closes its end of the pipe when it ends, also if it panics.
    let (ended, running) = io::pipe()?;
    let work = move || {
        let _running = running;
        work()
    };
    let thread = Builder::new().name(name.to_owned()).spawn(work)?;
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    loop {
        let mut fds = vec![readable(&ended)];
        fds.extend(signals.map(readable));
        wait_for(&mut fds, deadline)?;
        let has_ended = !fds[0].revents().is_empty();
        if let Some(signal) = signals.and_then(SignalQueue::next_ending) {
            return Ok(WaitOutcome::Signal(signal));
        }
        if has_ended {
            let panicked = |_| io::Error::other(format!("the thread {name} has failed"));
            return thread.join().map(WaitOutcome::Done).map_err(panicked);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(WaitOutcome::Late);
        }
    }
}

/// Waits until one of the descriptors is ready, or until the deadline. May return early, so the
/// caller must check again.
///
/// # Errors
/// If the system cannot wait.
pub(super) fn wait_for(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<()> {
    let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let limit = rest.and_then(|rest| Timespec::try_from(rest).ok());
    match poll(fds, limit.as_ref()) {
        Ok(_) => Ok(()),
        Err(rustix::io::Errno::INTR) => {
            fds.iter_mut().for_each(PollFd::clear_revents);
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// A descriptor to be polled for reading.
pub(super) fn readable<Fd: AsFd>(fd: &Fd) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::IN)
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;
    use nix::sys::signal::raise;

    use super::*;

    #[test]
    fn a_wait_ends_with_its_work_its_limit_or_a_signal() {
        // In a thread of its own, since the signals stay blocked in the thread.
        let test = || {
            let signals = SignalQueue::take(true).unwrap();
            let (sender, receiver) = bounded::<()>(0);
            let done = run_within(None, Some(&signals), "done", || 5).unwrap();
            assert!(matches!(done, WaitOutcome::Done(5)));
            let late =
                run_within(Some(Duration::ZERO), Some(&signals), "late", move || receiver.recv()).unwrap();
            assert!(matches!(late, WaitOutcome::Late));
            drop(sender);
            // Sent to this thread alone, and before the wait.
            raise(Signal::SIGUSR1).unwrap();
            let (_sender, receiver) = bounded::<()>(0);
            let ended = run_within(None, Some(&signals), "signal", move || receiver.recv()).unwrap();
            assert!(matches!(ended, WaitOutcome::Signal(Signal::SIGUSR1)));
            assert!(run_within(None, Some(&signals), "panic", || panic!("on purpose")).is_err());
        };
        std::thread::spawn(test).join().unwrap();
    }
}

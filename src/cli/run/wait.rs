//! Waiting for whichever comes first: descriptors, a thread that asks the server, a signal, a time limit. No
//! answer of a server can hold up a signal. Knows nothing about locks.

use std::io;
use std::os::fd::AsFd;
use std::thread::Builder;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::signals::Signals;

/// What ended a wait.
pub(super) enum Waited<T> {
    /// The thread has come back with this.
    Done(T),
    /// The time is over.
    Late,
    /// A signal has come that ends a process. The thread goes on; it ends with the process.
    Signal(Signal),
}

/// Runs `work` in a thread, and waits for it, for `limit`, or for one of the `signals` that end a process. A
/// signal that stops a process stops this one, and the wait goes on afterwards.
///
/// # Errors
/// If no thread can be started, or if it panics.
pub(super) fn within<T: Send + 'static>(
    limit: Option<Duration>,
    signals: Option<&Signals>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Waited<T>> {
    // Closed by the end of the thread, however it ends.
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
        if let Some(signal) = signals.and_then(Signals::next_ending) {
            return Ok(Waited::Signal(signal));
        }
        if has_ended {
            let panicked = |_| io::Error::other(format!("the thread {name} has failed"));
            return thread.join().map(Waited::Done).map_err(panicked);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(Waited::Late);
        }
    }
}

/// Waits until one of these is ready, or until the deadline. May return early; the caller looks again.
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
    use std::sync::mpsc::channel;

    use nix::sys::signal::raise;

    use super::*;

    #[test]
    fn a_wait_ends_with_its_work_its_limit_or_a_signal() {
        // In a thread of its own, since the signals stay blocked in it.
        let test = || {
            let signals = Signals::take(true).unwrap();
            let (tell, told) = channel::<()>();
            let done = within(None, Some(&signals), "done", || 5).unwrap();
            assert!(matches!(done, Waited::Done(5)));
            let late = within(Some(Duration::ZERO), Some(&signals), "late", move || told.recv()).unwrap();
            assert!(matches!(late, Waited::Late));
            drop(tell);
            // To this thread alone, as a signal that has come before the wait.
            raise(Signal::SIGUSR1).unwrap();
            let (_tell, told) = channel::<()>();
            let ended = within(None, Some(&signals), "signal", move || told.recv()).unwrap();
            assert!(matches!(ended, Waited::Signal(Signal::SIGUSR1)));
            assert!(within(None, Some(&signals), "panic", || panic!("on purpose")).is_err());
        };
        std::thread::spawn(test).join().unwrap();
    }
}

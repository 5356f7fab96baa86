//! The maintenance thread: one for each server, for work that no connection's own thread can do. It
//! sends on to slow readers, joins threads that have ended, and does what is to be done
//! [later](Maintenance::run_later). It knows only that there is such work, and neither connections
//! nor locks.

use std::io;
use std::time::Duration;

use super::parking::Parking;
use crate::os::socket::{PollFd, PollFlags, Stream, Waker, wait_for};
use crate::os::sync::{Arc, Mutex};
use crate::os::thread::Thread;

/// A connection with bytes that its socket did not take.
pub(super) trait Flush: Send + Sync {
    fn stream(&self) -> &Stream;

    /// Sends what the socket takes now. True if there is nothing left for the maintenance to send.
    fn flush(self: Arc<Self>) -> bool;
}

/// Work that is tried until it is done. It is told whether the server is stopping, in which case it
/// is not tried again, and returns after what time to try again; `None` when it is done.
type Task = Box<dyn FnMut(bool) -> Option<Duration> + Send>;

pub(super) struct Maintenance {
    work: Mutex<Work>,
    waker: Waker,
}

#[derive(Default)]
struct Work {
    slow: Vec<Arc<dyn Flush>>,
    tasks: Vec<Task>,
    ended: Vec<Thread>,
    is_stopping: bool,
}

impl Maintenance {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { work: Mutex::default(), waker: Waker::new()? })
    }

    /// Sends what the connection has left as soon as its socket takes more.
    pub(super) fn flush_later(&self, connection: Arc<dyn Flush>) {
        self.add(|work| work.slow.push(connection));
    }

    /// Runs `task` soon, and again each time the [`Duration`] that it returned has passed; `None`
    /// means that it is done. It must not block. If the server stops before, it runs once more,
    /// with the argument `true`.
    pub(super) fn run_later(&self, task: impl FnMut(bool) -> Option<Duration> + Send + 'static) {
        self.add(|work| work.tasks.push(Box::new(task)));
    }

    /// Joins the thread, which is about to end.
    pub(super) fn join_later(&self, thread: Thread) {
        self.add(|work| work.ended.push(thread));
    }

    /// Makes [`run`](Self::run) return once it has joined the threads that have ended.
    pub(super) fn stop(&self) {
        self.add(|work| work.is_stopping = true);
    }

    fn add(&self, change: impl FnOnce(&mut Work)) {
        change(&mut self.work.lock());
        self.waker.wake();
    }

    pub(super) fn run(&self, parking: &Parking) {
        let mut slow: Vec<Arc<dyn Flush>> = Vec::new();
        let mut tasks: Vec<Task> = Vec::new();
        loop {
            parking.park_if_requested(|| None);
            self.waker.reset();
            let mut work = self.work.lock();
            for connection in work.slow.drain(..) {
                if !slow.iter().any(|known| Arc::ptr_eq(known, &connection)) {
                    slow.push(connection);
                }
            }
            tasks.append(&mut work.tasks);
            let ended = std::mem::take(&mut work.ended);
            let is_stopping = work.is_stopping;
            drop(work);
            // A thread that panicked has ended like the others, and its session has released its
            // locks as theirs have.
            ended.into_iter().for_each(Thread::join);
            let mut limit: Option<Duration> = None;
            tasks.retain_mut(|task| {
                let next = task(is_stopping);
                limit = limit.into_iter().chain(next).min();
                next.is_some()
            });
            if is_stopping {
                return;
            }
            slow.retain(|connection| !connection.clone().flush());
            let mut fds = vec![self.waker.poll_fd()];
            fds.extend(slow.iter().map(|connection| PollFd::new(connection.stream(), PollFlags::OUT)));
            // Whatever ends the wait, the next round tries everything again.
            let _ = wait_for(&mut fds, limit);
        }
    }
}

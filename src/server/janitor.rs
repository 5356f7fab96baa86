//! The one thread of a server that does what no connection's thread can: it sends on to peers that were
//! slow when somebody else had something for them, wakes the threads of connections that others have closed, joins
//! those of connections that have ended, and logs how often something has happened.

use std::io;
use std::time::{Duration, Instant};

use super::ending::Closing;
use super::outbox::{Outbox, Sent};
use super::seldom::Kind;
use crate::broker::sync::{Arc, Mutex};
use crate::socket::{PollFd, PollFlags, Waker, wait_for};
use crate::thread::Thread;

/// What is left to the janitor.
pub(super) struct Janitor {
    work: Mutex<Work>,
    waker: Waker,
}

#[derive(Default)]
struct Work {
    slow: Vec<Arc<Outbox>>,
    closing: Vec<Closing>,
    ended: Vec<Thread>,
    untold: Vec<Arc<Kind>>,
    stop: bool,
}

impl Janitor {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { work: Mutex::default(), waker: Waker::new()? })
    }

    /// Sends what is left in the outbox as soon as its socket takes more.
    pub(super) fn watch(&self, outbox: Arc<Outbox>) {
        self.work.lock().slow.push(outbox);
        self.waker.wake();
    }

    /// Wakes the connection's own thread when it is time for that.
    pub(super) fn see_off(&self, closing: Closing) {
        self.work.lock().closing.push(closing);
        self.waker.wake();
    }

    /// Joins the thread, which is about to end.
    pub(super) fn bury(&self, thread: Thread) {
        self.work.lock().ended.push(thread);
        self.waker.wake();
    }

    /// Logs how many events of this kind there were when it is time for that.
    pub(super) fn tell_later(&self, kind: Arc<Kind>) {
        self.work.lock().untold.push(kind);
        self.waker.wake();
    }

    /// Lets [`run`](Self::run) end when there is nothing left to join.
    pub(super) fn stop(&self) {
        self.work.lock().stop = true;
        self.waker.wake();
    }

    pub(super) fn run(&self) {
        let (mut slow, mut closing): (Vec<Arc<Outbox>>, Vec<Closing>) = Default::default();
        let mut untold: Vec<Arc<Kind>> = Vec::new();
        loop {
            self.waker.reset();
            let mut work = self.work.lock();
            for outbox in work.slow.drain(..) {
                if !slow.iter().any(|known| Arc::ptr_eq(known, &outbox)) {
                    slow.push(outbox);
                }
            }
            closing.append(&mut work.closing);
            untold.append(&mut work.untold);
            let ended = std::mem::take(&mut work.ended);
            let stop = work.stop;
            drop(work);
            // One that panicked is gone like the others, and its locks are freed like theirs.
            ended.into_iter().for_each(Thread::join);
            let mut limit: Option<Duration> = None;
            let now = Instant::now();
            untold.retain(|kind| {
                let next = kind.tell(now, stop);
                limit = limit.into_iter().chain(next).min();
                next.is_some()
            });
            if stop {
                return;
            }
            slow.retain(|outbox| matches!(outbox.send(), Sent::Full | Sent::More));
            closing.retain(|closing| {
                let next = closing.look();
                limit = limit.into_iter().chain(next).min();
                next.is_some()
            });
            let mut fds = vec![self.waker.poll_fd()];
            fds.extend(slow.iter().map(|outbox| PollFd::new(&outbox.stream, PollFlags::OUT)));
            // Interrupted or not, the next round looks at everything again.
            let _ = wait_for(&mut fds, limit);
        }
    }
}

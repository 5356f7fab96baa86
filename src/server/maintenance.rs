//! The one thread of a server that does what no connection's thread can: it sends on to peers that were
//! slow when somebody else had something for them, wakes the threads of connections that others have closed, joins
//! those of connections that have ended, and logs how often something has happened.

use std::io;
use std::time::{Duration, Instant};

use super::ending::Closing;
use super::log_throttle::Kind;
use super::send_queue::{SendQueue, Sent};
use crate::os::socket::{PollFd, PollFlags, Waker, wait_for};
use crate::os::sync::{Arc, Mutex};
use crate::os::thread::Thread;

/// What is left to the maintenance.
pub(super) struct Maintenance {
    work: Mutex<Work>,
    waker: Waker,
}

#[derive(Default)]
struct Work {
    slow: Vec<Arc<SendQueue>>,
    closing: Vec<Closing>,
    ended: Vec<Thread>,
    untold: Vec<Arc<Kind>>,
    stop: bool,
}

impl Maintenance {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { work: Mutex::default(), waker: Waker::new()? })
    }

    /// Sends what is left in the outbox as soon as its socket takes more.
    pub(super) fn watch(&self, send_queue: Arc<SendQueue>) {
        self.work.lock().slow.push(send_queue);
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
        let (mut slow, mut closing): (Vec<Arc<SendQueue>>, Vec<Closing>) = Default::default();
        let mut untold: Vec<Arc<Kind>> = Vec::new();
        loop {
            self.waker.reset();
            let mut work = self.work.lock();
            for send_queue in work.slow.drain(..) {
                if !slow.iter().any(|known| Arc::ptr_eq(known, &send_queue)) {
                    slow.push(send_queue);
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
            slow.retain(|send_queue| matches!(send_queue.send(), Sent::Full | Sent::More));
            closing.retain(|closing| {
                let next = closing.look();
                limit = limit.into_iter().chain(next).min();
                next.is_some()
            });
            let mut fds = vec![self.waker.poll_fd()];
            fds.extend(slow.iter().map(|send_queue| PollFd::new(&send_queue.stream, PollFlags::OUT)));
            // Interrupted or not, the next round looks at everything again.
            let _ = wait_for(&mut fds, limit);
        }
    }
}

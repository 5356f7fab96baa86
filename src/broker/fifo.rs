//! A mutex that threads get in the order in which they asked for it. Knows nothing of what it
//! guards. All of its state is in the mutex itself: `os/sync.rs` says why.

use std::collections::VecDeque;

use crate::os::sync::{Arc, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering};

/// A thread that locks it again and again, as one that ends a session with a million locks does,
/// queues after every thread that came meanwhile. With an ordinary mutex it would lock
/// again before the threads that it has woken run.
pub(super) struct FifoMutex<T> {
    content: Mutex<T>,
    /// The waiting threads, in order. Only the first waits for `content`; the others wait to become
    /// the first.
    line: Mutex<VecDeque<Arc<Condvar>>>,
    /// The length of `line`, so that no thread needs to lock it while it is empty, as it nearly
    /// always is.
    waiting: AtomicUsize,
}

impl<T> FifoMutex<T> {
    pub(super) fn new(content: T) -> Self {
        Self { content: Mutex::new(content), line: Mutex::default(), waiting: AtomicUsize::new(0) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        if self.waiting.load(Ordering::Relaxed) == 0
            && let Some(content) = self.content.try_lock()
        {
            return content;
        }
        self.wait_in_line()
    }

    #[cold]
    fn wait_in_line(&self) -> MutexGuard<'_, T> {
        let mut line = self.line.lock();
        let me = Arc::new(Condvar::new());
        line.push_back(me.clone());
        self.waiting.store(line.len(), Ordering::Relaxed);
        while !line.front().is_some_and(|first| Arc::ptr_eq(first, &me)) {
            line = me.wait(line);
        }
        drop(line);
        let content = self.content.lock();
        let mut line = self.line.lock();
        line.pop_front();
        self.waiting.store(line.len(), Ordering::Relaxed);
        if let Some(next) = line.front() {
            next.notify_one();
        }
        content
    }
}

#[cfg(test)]
#[cfg(not(any(explore = "loom", explore = "shuttle")))]
mod tests {
    use super::*;

    #[test]
    fn threads_lock_it_in_the_order_in_which_they_asked() {
        const THREADS: usize = 20;
        let order = FifoMutex::new(Vec::new());
        std::thread::scope(|scope| {
            let mut first = order.lock();
            for number in 0..THREADS {
                let order = &order;
                scope.spawn(move || order.lock().push(number));
                while order.waiting.load(Ordering::Relaxed) <= number {
                    std::thread::yield_now();
                }
            }
            first.push(usize::MAX);
        });
        let order = order.lock();
        assert_eq!(order[0], usize::MAX);
        assert!(order[1..].iter().copied().eq(0..THREADS), "{order:?}");
    }

    #[test]
    fn a_thread_that_locks_it_again_at_once_queues_after_those_that_wait() {
        let turns = FifoMutex::new(Vec::new());
        std::thread::scope(|scope| {
            let mut mine = turns.lock();
            let waits = scope.spawn(|| turns.lock().push("the waiter"));
            while turns.waiting.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            mine.push("the first");
            drop(mine);
            turns.lock().push("the first again");
            waits.join().unwrap();
        });
        assert_eq!(*turns.lock(), ["the first", "the waiter", "the first again"]);
    }
}

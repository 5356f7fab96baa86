//! A mutex that threads get in the order in which they came. Knows nothing of what it guards, and must keep all
//! of its state in itself: see `sync.rs`.

use std::collections::VecDeque;

use crate::os::sync::{Arc, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering};

/// A thread that comes again and again, as one does that ends a session with a million locks, finds itself behind
/// all that came meanwhile. With an ordinary mutex it would have it again before those it woke are awake.
pub(in crate::broker) struct FifoMutex<T> {
    content: Mutex<T>,
    /// Who waits, in order. The first waits for `content`, and nobody else does; the others wait to be the first.
    line: Mutex<VecDeque<Arc<Condvar>>>,
    /// How long the line is, so that nobody need lock it when it is empty, as nearly always.
    waiting: AtomicUsize,
}

impl<T> FifoMutex<T> {
    pub(in crate::broker) fn new(content: T) -> Self {
        Self { content: Mutex::new(content), line: Mutex::default(), waiting: AtomicUsize::new(0) }
    }

    pub(in crate::broker) fn lock(&self) -> MutexGuard<'_, T> {
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
    fn threads_get_it_in_the_order_in_which_they_came() {
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
    fn one_that_comes_again_at_once_is_behind_those_that_wait() {
        let turns = FifoMutex::new(Vec::new());
        std::thread::scope(|scope| {
            let mut mine = turns.lock();
            let waits = scope.spawn(|| turns.lock().push("who waited"));
            while turns.waiting.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            mine.push("who was first");
            drop(mine);
            turns.lock().push("who came again");
            waits.join().unwrap();
        });
        assert_eq!(*turns.lock(), ["who was first", "who waited", "who came again"]);
    }
}

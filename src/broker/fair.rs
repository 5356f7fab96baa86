//! A mutex that can be waited for in turn. Knows nothing of what it guards.

use super::sync::{Mutex, MutexGuard};

/// Two mutexes, one after the other: who waits for the second holds the first meanwhile. So a thread that
/// locks [in its turn](Self::lock_in_turn) again and again, as one does that ends a session with a million
/// locks, finds the first one held by whoever came meanwhile, and stands behind it. With the second one alone
/// it would be there again before those it woke.
pub(super) struct FairMutex<T> {
    turn: Mutex<()>,
    content: Mutex<T>,
}

impl<T> FairMutex<T> {
    pub(super) fn new(content: T) -> Self {
        Self { turn: Mutex::new(()), content: Mutex::new(content) }
    }

    /// For who comes once: ahead of those who wait if it is there when nobody has it, which is cheaper for
    /// all than to sleep.
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.content.try_lock().unwrap_or_else(|| self.lock_in_turn())
    }

    /// For who comes again and again: behind those who wait.
    pub(super) fn lock_in_turn(&self) -> MutexGuard<'_, T> {
        let _turn = self.turn.lock();
        self.content.lock()
    }
}

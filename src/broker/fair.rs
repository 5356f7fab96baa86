//! A mutex that whoever waits for gets in its turn, or nearly so. Knows nothing of what it guards.

use super::sync::{Mutex, MutexGuard};

/// Two mutexes, one after the other: who wants the second must hold the first while it waits. So a thread that
/// locks again and again, as one does that ends a session with a million locks, finds the first one held by
/// whoever came meanwhile, and stands behind it. With the second one alone it would be there again before
/// those it woke.
pub(super) struct FairMutex<T> {
    turn: Mutex<()>,
    content: Mutex<T>,
}

impl<T> FairMutex<T> {
    pub(super) const fn new(content: T) -> Self {
        Self { turn: Mutex::new(()), content: Mutex::new(content) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        let _turn = self.turn.lock();
        self.content.lock()
    }
}

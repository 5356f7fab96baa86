//! Fencing tokens: numbers that only rise, one for each grant. Knows nothing of locks.

use crate::os::sync::{AtomicU64, Ordering};

/// Tokens stay below this, so that every JSON reader keeps them exactly.
pub(super) const TOKENS_END: u64 = 1 << 53;

/// The source of fencing tokens.
///
/// Started from the clock in microseconds since 1970, so that tokens rise from one run to the next as
/// long as the clock is not set back and fewer than a million locks a second are granted on average:
/// until the year 2255. Started from what an earlier run has noted, they rise whatever the clock says.
#[derive(Debug)]
pub(super) struct Tokens {
    next: AtomicU64,
    /// None at or above this may be given: it may be given again by the next run.
    end: AtomicU64,
}

impl Tokens {
    pub(super) fn starting_at(first: u64) -> Self {
        Self::between(first, TOKENS_END)
    }

    /// Tokens from `first` on, but none from `end` on until that is [raised](Self::set_end).
    pub(super) fn between(first: u64, end: u64) -> Self {
        Self { next: AtomicU64::new(first), end: AtomicU64::new(end.min(TOKENS_END)) }
    }

    /// A token higher than every one before it, whichever thread got that.
    ///
    /// # Panics
    /// If there are none left: the grant is not made then, and the broker is believed no more. A token that
    /// the next run gives again would fence off nobody.
    pub(super) fn next(&self) -> u64 {
        // Relaxed is enough: a grant that follows another one through a lock's hand-over is ordered
        // by that lock's mutex, and one counter never gives the same or a lower number later.
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(token < self.end.load(Ordering::Relaxed), "there are no fencing tokens left");
        token
    }

    /// What the next token will be at least.
    pub(super) fn peek(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    pub(super) fn set_end(&self, end: u64) {
        self.end.store(end.min(TOKENS_END), Ordering::Relaxed);
    }
}

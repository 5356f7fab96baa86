//! Fencing tokens: numbers that only rise, one for each grant. Knows nothing of locks.

use crate::os::sync::{AtomicU64, Ordering};

/// Tokens stay below 2^53, so that every JSON reader represents them exactly.
pub(super) const TOKENS_END: u64 = 1 << 53;

/// The source of fencing tokens.
///
/// Started from the clock, in microseconds since 1970, tokens rise from one run to the next if the
/// clock is not set back and fewer than a million locks per second are granted on average; this
/// lasts until the year 2255. Started from what an earlier run has written down, they rise whatever
/// the clock says.
#[derive(Debug)]
pub(super) struct Tokens {
    next: AtomicU64,
    /// No token at or above this may be given: the next run might give it again.
    end: AtomicU64,
}

impl Tokens {
    pub(super) fn starting_at(first: u64) -> Self {
        Self::between(first, TOKENS_END)
    }

    /// Tokens from `first` up to, but not including, `end`, which [`set_end`](Self::set_end)
    /// raises.
    pub(super) fn between(first: u64, end: u64) -> Self {
        Self { next: AtomicU64::new(first), end: AtomicU64::new(end.min(TOKENS_END)) }
    }

    /// A token higher than every one that any thread was given before.
    ///
    /// # Panics
    /// If no token is left. The grant is not made then, and the broker has failed: a token that the
    /// next run gives again would fence off nothing.
    pub(super) fn next(&self) -> u64 {
        // Relaxed is enough: when a lock passes from one holder to the next, its mutex orders the
        // two grants, and a single counter never returns the same or a lower number later.
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(token < self.end.load(Ordering::Relaxed), "there are no fencing tokens left");
        token
    }

    /// A lower bound of the next token.
    pub(super) fn peek(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    pub(super) fn set_end(&self, end: u64) {
        self.end.store(end.min(TOKENS_END), Ordering::Relaxed);
    }
}

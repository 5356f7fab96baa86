//! Fencing tokens: numbers of which each grant of a name gets a higher one than every earlier grant
//! of that name. Knows nothing of locks.
//!
//! A name's tokens come from the counter of the lane or of the table, whichever has the name. No
//! counter is shared by all names: it would be one cache line that all processors write. When a
//! name goes from one place to the other, the counter there must be [raised](Tokens::raise_to) to
//! that of the place where the name was.

use crate::os::sync::{Arc, AtomicU64, Ordering};

/// Tokens stay below 2^53, so that every JSON reader represents them exactly.
pub(super) const TOKENS_END: u64 = 1 << 53;

/// The source of the fencing tokens for some of the names. Kept under the mutex of these names.
///
/// All counters of a broker start with the same number. However they are raised, none is ahead of
/// that number by more than the grants that all of them have counted. Started from the clock, in
/// microseconds since 1970, tokens rise from one run to the next if the clock is not set back and
/// fewer than a million locks per second are granted on average; this lasts until the year 2255.
/// Started from what an earlier run has written down, they rise whatever the clock says.
#[derive(Clone, Debug)]
pub(super) struct Tokens {
    next: u64,
    end: Arc<TokensEnd>,
}

/// No token at or above this may be given: the next run might give it again. All counters of a
/// broker have it in common.
#[derive(Debug)]
pub(super) struct TokensEnd(AtomicU64);

impl Tokens {
    pub(super) fn starting_at(first: u64) -> Self {
        Self::between(first, TOKENS_END)
    }

    /// Tokens from `first` up to, but not including, `end`, which [`TokensEnd::set`] raises.
    pub(super) fn between(first: u64, end: u64) -> Self {
        Self { next: first, end: Arc::new(TokensEnd(AtomicU64::new(end.min(TOKENS_END)))) }
    }

    /// A token higher than every one that this counter has given.
    ///
    /// # Panics
    /// If no token is left. The grant is not made then, and the broker has failed: a token that the
    /// next run gives again would fence off nothing.
    pub(super) fn next(&mut self) -> u64 {
        let token = self.next;
        assert!(token < self.end.0.load(Ordering::Relaxed), "there are no fencing tokens left");
        self.next += 1;
        token
    }

    /// The token that [`next`](Self::next) would give.
    pub(super) fn peek(&self) -> u64 {
        self.next
    }

    /// From now on every token is `next` or higher.
    pub(super) fn raise_to(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    pub(super) fn end(&self) -> &Arc<TokensEnd> {
        &self.end
    }
}

impl TokensEnd {
    pub(super) fn set(&self, end: u64) {
        self.0.store(end.min(TOKENS_END), Ordering::Relaxed);
    }
}

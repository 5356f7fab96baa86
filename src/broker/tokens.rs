//! Fencing tokens: numbers that only rise, one for each grant. Knows nothing of locks.

use super::sync::{AtomicU64, Ordering};

/// The source of fencing tokens.
///
/// Started from the clock in microseconds since 1970, so that tokens rise from one run to the next as
/// long as the clock is not set back and fewer than a million locks a second are granted on average.
/// They stay below 2^53, which every JSON reader keeps exactly, until the year 2255.
#[derive(Debug)]
pub(super) struct Tokens(AtomicU64);

impl Tokens {
    pub(super) fn starting_at(first: u64) -> Self {
        Self(AtomicU64::new(first))
    }

    /// A token higher than every one before it, whichever thread got that.
    pub(super) fn next(&self) -> u64 {
        // Relaxed is enough: a grant that follows another one through a lock's hand-over is ordered
        // by that lock's mutex, and one counter never gives the same or a lower number later.
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

//! How long a client that waits for a lock pauses before it asks a server again that was not there.
//! Computes pauses; neither sleeps nor connects.
//!
//! When a server is killed, all its waiters learn of it in the same instant. If all of them came
//! back in the same instant too, they would meet a server that has just started. So each pause is
//! random, from zero up to a longest pause that doubles with each attempt (exponential backoff with
//! full jitter): the attempts of many clients spread evenly over the time, with no second wave.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

/// The longest first pause. A restart takes about a second, so the first attempts fall into it: the
/// average client is back within a second of the server, and not only after the longest pause.
const FIRST_MAX: Duration = Duration::from_millis(500);

/// The longest pause of all: no client is away for longer after its server has started. While the
/// server is gone, ten thousand waiters make 5000 attempts in a second on average, each of which
/// one packet refuses. When it is there again, all of them come back within these four seconds,
/// 2500 in each.
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// A session that lasted at least this long shows that the server works: after it the pauses begin
/// short again. After a shorter one they grow on, or a server that fails right after each start
/// would be asked by everybody all the time.
const STEADY: Duration = Duration::from_secs(10);

/// The pauses of one client.
#[derive(Debug)]
pub(crate) struct RetryPacer {
    longest: Duration,
}

impl RetryPacer {
    pub(crate) fn new() -> Self {
        Self { longest: FIRST_MAX }
    }

    /// The pause before the next attempt. `session` is how long the session lasted that was lost;
    /// zero if there was none.
    pub(crate) fn pause(&mut self, session: Duration) -> Duration {
        if session >= STEADY {
            self.longest = FIRST_MAX;
        }
        let pause = self.longest.mul_f64(random_fraction());
        self.longest = PAUSE_MAX.min(self.longest * 2);
        pause
    }
}

/// A random number from 0 up to 1. The standard library seeds the keys of its hash tables from the
/// system's random numbers in every thread, and gives each table different ones. So the hash of
/// nothing is random, which is good enough to spread clients.
pub(super) fn random_fraction() -> f64 {
    let [first, second, third, fourth, ..] = RandomState::new().hash_one(()).to_ne_bytes();
    f64::from(u32::from_ne_bytes([first, second, third, fourth])) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit_and_begin_short_again_after_a_steady_session() {
        let mut pacer = RetryPacer::new();
        let mut longest = FIRST_MAX;
        for _ in 0..10 {
            assert_eq!(pacer.longest, longest);
            assert!(pacer.pause(Duration::ZERO) <= longest);
            longest = PAUSE_MAX.min(longest * 2);
        }
        assert_eq!(pacer.longest, PAUSE_MAX);
        pacer.pause(STEADY / 2);
        assert_eq!(pacer.longest, PAUSE_MAX, "a server that fails at once is not asked more often");
        assert!(pacer.pause(STEADY) <= FIRST_MAX);
    }

    #[test]
    fn clients_spread_over_the_whole_pause() {
        // Each tenth is missed with a probability of 0.9 to the power of 10 000.
        let drawn: Vec<f64> = (0..10_000).map(|_| random_fraction()).collect();
        for tenth in 0..10 {
            let from = f64::from(tenth) / 10.0;
            assert!(drawn.iter().any(|&drawn| drawn >= from && drawn <= from + 0.1), "{tenth}");
        }
        assert!(drawn.iter().all(|drawn| (0.0..=1.0).contains(drawn)));
    }
}

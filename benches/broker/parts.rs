//! The parts that every acquire and release need, measured separately: the mutex of a lane, a
//! hash, the time. What lockd costs beyond their sum is its own work.

use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};
use rustix_futex_sync::Mutex;
use siphasher::sip::SipHasher13;

use super::PAIRS;
use super::names;
use super::report::Rounds;

const NAME: usize = 7;

pub(crate) fn parts() {
    let mutex = Mutex::new(0_u64);
    let random = RandomState::new();
    let hasher = SipHasher13::new_with_keys(random.hash_one(1), random.hash_one(2));
    let name = names::held(NAME);
    let mut rounds = Rounds::default();
    for _ in 0..51 {
        rounds.add("locks", time(|| (0..2).for_each(|_| *black_box(mutex.lock()) += 1)));
        rounds.add("hashes", time(|| _ = black_box(hasher.hash(black_box(&name)))));
        rounds.add("clock", time(|| _ = black_box(clock_gettime(ClockId::MonotonicCoarse))));
    }
    rounds.report("parts", "1", "ns");
}

/// The nanoseconds that `work` takes on average.
fn time(mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..PAIRS).for_each(|_| work());
    start.elapsed().as_secs_f64() * 1e9 / PAIRS as f64
}

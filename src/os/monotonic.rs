//! Moments as numbers, for what one image of a program tells the image that replaces it: the
//! nanoseconds of the kernel's monotonic clock, which goes on through execve(2). Knows nothing of
//! what happens at these moments.
//!
//! A conversion never makes a moment earlier than it is, and later by less than a microsecond or
//! by the time for which the thread is displaced meanwhile. Locks are kept until a moment has
//! passed, so an earlier one could end that too soon.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// The number of this moment.
pub(crate) fn nanos_of(moment: Instant) -> u64 {
    // In this order, so that the clock's number is not too small for `now`.
    let now = Instant::now();
    let clock = clock_nanos();
    match moment.checked_duration_since(now) {
        Some(ahead) => clock.saturating_add(nanos_in(ahead)),
        None => clock.saturating_sub(nanos_in(now.saturating_duration_since(moment))),
    }
}

/// The moment with this number; `None` if it is too far away.
pub(crate) fn moment_at(nanos: u64) -> Option<Instant> {
    // In this order, so that `now` is not too early for the clock's number.
    let clock = clock_nanos();
    let now = Instant::now();
    match nanos.checked_sub(clock) {
        Some(ahead) => now.checked_add(Duration::from_nanos(ahead)),
        None => now.checked_sub(Duration::from_nanos(clock.saturating_sub(nanos))),
    }
}

/// The nanoseconds in this time, or as many as a number has room for: more than five centuries.
pub(crate) fn nanos_in(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn clock_nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let since_boot = Duration::try_from(now).unwrap_or_default();
    nanos_in(since_boot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_never_becomes_earlier() {
        let now = Instant::now();
        let hour = Duration::from_secs(3600);
        for moment in [now, now + hour, now + hour * 24 * 365 * 30, now - Duration::from_nanos(1)] {
            assert!(moment_at(nanos_of(moment)).unwrap() >= moment);
        }
        let before = clock_nanos();
        let nanos = nanos_of(Instant::now());
        assert!(nanos >= before, "it is the number of the same clock");
        assert!(moment_at(before).unwrap() <= Instant::now() + (Instant::now() - now));
    }

    #[test]
    fn any_number_is_a_moment_or_none() {
        for nanos in [0, 1, u64::MAX / 2, u64::MAX] {
            let moment = moment_at(nanos);
            assert!(moment.is_none_or(|moment| nanos_of(moment) >= nanos));
        }
        assert_eq!(nanos_in(Duration::MAX), u64::MAX);
    }
}

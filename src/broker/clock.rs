//! The broker's clock: the only place in the broker that reads the time. The rules are given a
//! [`Stamp`] and never read it themselves.

use std::time::Duration;

use rustix::time::ClockId;

use crate::os::sync::clock_gettime;

/// A point in time on the monotonic clock of this machine, in nanoseconds. Comparable within one
/// boot only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp(u64);

impl Stamp {
    pub(super) const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub(super) const fn nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The point in time `wait` after this one, or the latest one that can be represented.
    pub(super) fn after(self, wait: Duration) -> Self {
        Self(u64::try_from(wait.as_nanos()).map_or(u64::MAX, |nanos| self.0.saturating_add(nanos)))
    }
}

/// The exact time, for deadlines.
pub(super) fn now() -> Stamp {
    read(ClockId::Monotonic)
}

/// The time of the kernel's last tick, at a fraction of the cost. It may be some milliseconds old,
/// and is never ahead of [`now`]. For "held since" only, since nothing is decided by that.
pub(super) fn now_coarse() -> Stamp {
    read(ClockId::MonotonicCoarse)
}

fn read(clock: ClockId) -> Stamp {
    let time = clock_gettime(clock);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    Stamp(part(time.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(time.tv_nsec)))
}

/// Microseconds since 1970 by the real-time clock; zero if the clock is set to before 1970.
pub(super) fn wall_micros() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    part(time.tv_sec).saturating_mul(1_000_000).saturating_add(part(time.tv_nsec) / 1000)
}

//! The broker's clock: the only place in the broker that asks what time it is. The rules are handed
//! a [`Stamp`]; they never come here.

use std::time::Duration;

use rustix::time::ClockId;

use crate::os::sync::clock_gettime;

/// A moment on the monotonic clock of this machine, in nanoseconds. Comparable within one boot only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp(u64);

impl Stamp {
    /// A stamp of so many nanoseconds: for tests of the rules, which bring their own time.
    #[cfg(test)]
    pub(super) const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// How long `self` is after `earlier`; zero if it is not.
    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment `wait` after this one; the end of time if that is further than can be counted.
    pub(super) fn after(self, wait: Duration) -> Self {
        Self(u64::try_from(wait.as_nanos()).map_or(u64::MAX, |nanos| self.0.saturating_add(nanos)))
    }
}

/// The time as it is, for deadlines.
pub(super) fn now() -> Stamp {
    read(ClockId::Monotonic)
}

/// The time of the kernel's last tick, some milliseconds old at most, at a fraction of the cost: for
/// "held since", which nobody decides by. Never ahead of [`now`].
pub(super) fn now_coarse() -> Stamp {
    read(ClockId::MonotonicCoarse)
}

fn read(clock: ClockId) -> Stamp {
    let time = clock_gettime(clock);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    Stamp(part(time.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(time.tv_nsec)))
}

/// Microseconds since 1970 by the clock on the wall; zero if that is before 1970.
pub(super) fn wall_micros() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    part(time.tv_sec).saturating_mul(1_000_000).saturating_add(part(time.tv_nsec) / 1000)
}

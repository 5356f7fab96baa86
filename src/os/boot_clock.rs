//! The clock that also runs while the machine sleeps (`CLOCK_BOOTTIME`), and a timer by it. For
//! times that another machine counts too, and that machine does not sleep with this one.

use std::io;
use std::ops::Add;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

use crate::os::fork::CloseOnForkFd;

/// A moment by the clock that also runs while the machine sleeps: the time since it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BootTime(Duration);

impl BootTime {
    pub(crate) fn now() -> Self {
        // Never negative.
        Self(Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default())
    }

    /// The time from this moment until `later`; zero if that is earlier.
    pub(crate) fn until(self, later: Self) -> Duration {
        later.0.saturating_sub(self.0)
    }

    /// The time since the start of the machine, in nanoseconds.
    pub(crate) fn nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The moment this long after the start of the machine.
    #[cfg(test)]
    pub(crate) fn at(since_boot: Duration) -> Self {
        Self(since_boot)
    }
}

impl Add<Duration> for BootTime {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

/// A descriptor that becomes readable at a moment.
#[derive(Debug)]
pub(crate) struct BootTimer(CloseOnForkFd);

impl BootTimer {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let make = || Ok(timerfd_create(TimerfdClockId::Boottime, flags)?);
        Ok(Self(CloseOnForkFd::open_anonymous(make)?))
    }

    /// Makes it readable from `at` on, and until then not; for good not without a moment. Does
    /// nothing once another part of the program has closed its descriptor.
    pub(crate) fn set(&self, at: Option<BootTime>) {
        if !self.0.is_intact() {
            return;
        }
        // A time of zero would stop the timer.
        let at = at.map_or(Duration::ZERO, |at| at.0.max(Duration::from_nanos(1)));
        let it_value = Timespec::try_from(at).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        let once = Itimerspec { it_interval: Timespec::default(), it_value };
        // It fails only for a descriptor that is no timer, or a time that is none.
        let _ = timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &once);
    }
}

impl AsFd for BootTimer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec as PollTime, poll};

    use super::*;

    fn is_readable(timer: &BootTimer, limit: Duration) -> bool {
        let limit = PollTime::try_from(limit).unwrap();
        poll(&mut [PollFd::new(timer, PollFlags::IN)], Some(&limit)).unwrap() == 1
    }

    #[test]
    fn moments_are_ordered_and_differences_never_negative() {
        let (now, hour) = (BootTime::now(), Duration::from_secs(3600));
        assert!(now <= BootTime::now() && now + hour > BootTime::now());
        assert_eq!((now.until(now + hour), (now + hour).until(now)), (hour, Duration::ZERO));
        assert!(now + Duration::MAX > now);
    }

    #[test]
    fn a_timer_is_readable_from_its_moment_on_until_it_is_set_anew() {
        let (timer, now) = (BootTimer::new().unwrap(), BootTime::now());
        assert!(!is_readable(&timer, Duration::ZERO));
        for past in [now, BootTime::at(Duration::ZERO)] {
            timer.set(Some(past));
            assert!(is_readable(&timer, Duration::from_secs(20)));
            assert!(is_readable(&timer, Duration::ZERO), "until it is set anew");
        }
        timer.set(Some(now + Duration::from_secs(3600)));
        assert!(!is_readable(&timer, Duration::ZERO));
        timer.set(Some(now));
        timer.set(None);
        assert!(!is_readable(&timer, Duration::ZERO));
    }
}

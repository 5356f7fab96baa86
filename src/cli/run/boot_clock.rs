//! The clock for times that the server counts too: it does not sleep when this machine does.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The time since the machine was started, including the time for which it has slept.
pub(super) fn boot_clock() -> Duration {
    // Never negative.
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

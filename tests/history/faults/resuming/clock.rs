//! The clock of one client, which stops while its machine sleeps. All figures that decide whether a
//! client still believes in its locks are times of such a clock.

use crate::faults::log::now;
use crate::history::Nanos;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    /// For how long it has stood still.
    slept: Nanos,
}

impl Clock {
    pub(super) fn now(&self) -> Nanos {
        self.at(now())
    }

    /// What it showed, or will show if it does not stop, at this time of all processes.
    pub(super) fn at(&self, time: Nanos) -> Nanos {
        time.saturating_sub(self.slept)
    }

    /// When it shows this, if it does not stop, in the time of all processes.
    pub(super) fn when(&self, shown: Nanos) -> Nanos {
        shown.saturating_add(self.slept)
    }

    /// It has stood still since `since`.
    pub(super) fn stopped_since(&mut self, since: Nanos) {
        self.slept += now().saturating_sub(since);
    }
}

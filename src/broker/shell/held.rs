//! How many locks a session holds, for the limit on them.

use crate::broker::shell::core::LANES;
use crate::os::sync::{AtomicU32, Ordering};

/// A count in parts, one for each lane and one for the table. Each changes under the mutex of its own only,
/// so that a load and a store do, where a counter for all would cost an atomic step for each lock.
///
/// What a lane hands over to the table is counted there from then on, see [`hand_over`](Self::hand_over).
pub(in crate::broker) struct HeldCount([AtomicU32; LANES + 1]);

/// Under which mutex a count changes.
#[derive(Clone, Copy)]
pub(in crate::broker) enum Part {
    Lane(usize),
    Table,
}

impl HeldCount {
    pub(in crate::broker) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU32::new(0)))
    }

    pub(in crate::broker) fn add(&self, part: Part, more: u32) {
        self.set(part, |count| count.saturating_add(more));
    }

    pub(in crate::broker) fn subtract(&self, part: Part, fewer: u32) {
        self.set(part, |count| count.saturating_sub(fewer));
    }

    /// A lock has gone from this lane to the table. Takes the mutexes of both.
    pub(in crate::broker) fn hand_over(&self, lane: usize) {
        self.subtract(Part::Lane(lane), 1);
        self.add(Part::Table, 1);
    }

    pub(in crate::broker) fn in_part(&self, part: Part) -> usize {
        self.at(part).load(Ordering::Relaxed) as usize
    }

    fn set(&self, part: Part, change: impl FnOnce(u32) -> u32) {
        let count = self.at(part);
        count.store(change(count.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    /// How many there are. May be behind by what other threads are just doing.
    pub(in crate::broker) fn in_all(&self) -> usize {
        self.0.iter().map(|count| count.load(Ordering::Relaxed) as usize).sum()
    }

    fn at(&self, part: Part) -> &AtomicU32 {
        match part {
            Part::Lane(number) => &self.0[number],
            Part::Table => &self.0[LANES],
        }
    }
}

//! How many locks a session holds, for the limit on them.

use super::core::LANES;
use super::sync::{AtomicU32, Ordering};

/// A count in parts, one for each lane and one for the table. Each changes under the mutex of its own only,
/// so that a load and a store do, where a counter for all would cost an atomic step for each lock.
///
/// A lock that has been handed over to the table was counted in its lane and leaves from the table's part,
/// which may thus be below zero: only the sum, which wraps around, is right.
pub(super) struct HeldCount([AtomicU32; LANES + 1]);

/// Under which mutex a count changes.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Lane(usize),
    Table,
}

impl HeldCount {
    pub(super) fn new() -> Self {
        Self([const { AtomicU32::new(0) }; LANES + 1])
    }

    pub(super) fn add(&self, part: Part, more: u32) {
        let count = self.at(part);
        count.store(count.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    pub(super) fn subtract(&self, part: Part, fewer: u32) {
        self.add(part, fewer.wrapping_neg());
    }

    /// How many were acquired in this part and have not been given up there; zero if that is negative.
    pub(super) fn in_part(&self, part: Part) -> usize {
        usize::try_from(self.at(part).load(Ordering::Relaxed).cast_signed()).unwrap_or(0)
    }

    /// How many there are. May be behind by what other threads are just doing.
    pub(super) fn in_all(&self) -> usize {
        self.0.iter().fold(0_u32, |sum, count| sum.wrapping_add(count.load(Ordering::Relaxed))) as usize
    }

    fn at(&self, part: Part) -> &AtomicU32 {
        match part {
            Part::Lane(number) => &self.0[number],
            Part::Table => &self.0[LANES],
        }
    }
}

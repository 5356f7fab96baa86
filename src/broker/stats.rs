//! Gauges and counters of a broker. Added up only when somebody asks: every part counts for itself,
//! under the mutex it holds anyway.

use super::lane::LaneCounts;
use super::table::Table;

/// What a broker has, and what it has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sessions open now.
    pub sessions: usize,
    /// Names held exclusively now.
    pub locks: usize,
    /// Names held shared now, counted shared locks included.
    pub shared_locks: usize,
    /// Requests waiting now.
    pub waiting: usize,
    /// Requests granted, at once or after waiting. Several names at once count once.
    pub grants: u64,
    /// Requests that had to wait.
    pub waits: u64,
    /// Waits that ended by their time limit.
    pub timeouts: u64,
    /// Waits that were taken back.
    pub cancels: u64,
    /// Requests refused because waiting would have been a deadlock.
    pub deadlocks: u64,
    /// Exclusive locks freed because their session ended without releasing them.
    pub orphans: u64,
    /// Shared locks freed so, each holder counted by itself.
    pub shared_orphans: u64,
}

impl Stats {
    pub(super) fn add_lane(&mut self, lane: LaneCounts) {
        self.locks += lane.held_exclusive;
        self.shared_locks += lane.held_shared;
        self.grants += lane.grants;
        self.orphans += lane.orphans_exclusive;
        self.shared_orphans += lane.orphans_shared;
    }

    pub(super) fn add_table(&mut self, table: &Table) {
        let (exclusive, shared) = table.names_held();
        let counts = table.counts();
        self.locks += exclusive;
        self.shared_locks += shared;
        self.waiting += table.waiting();
        self.grants += counts.grants;
        self.waits += counts.waits;
        self.timeouts += counts.timeouts;
        self.cancels += counts.cancels;
        self.deadlocks += counts.deadlocks;
        self.orphans += counts.orphans_exclusive;
        self.shared_orphans += counts.orphans_shared;
    }
}

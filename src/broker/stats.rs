//! Gauges and counters of a broker. Each lane and the table count for themselves, under the mutex
//! that is held anyway; the counts are added up only when they are asked for.

use std::sync::atomic::Ordering::Relaxed;

use crate::broker::clock::{self, Stamp};
use crate::broker::fast_lane::LaneCounts;
use crate::broker::hasher::LANES;
use crate::broker::histogram::Histogram;
use crate::broker::lifecycle::Intent;
use crate::broker::rules::Table;
use crate::broker::shell::Shell;

/// The state of a broker, and what it has done since its start.
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
    /// Requests granted, at once or after a wait. A request for several names counts once.
    pub grants: u64,
    /// Requests that had to wait.
    pub waits: u64,
    /// Waits that ended by their time limit.
    pub timeouts: u64,
    /// Waits that were cancelled.
    pub cancels: u64,
    /// Requests refused because waiting would have been a deadlock.
    pub deadlocks: u64,
    /// Exclusive locks freed because their session ended without releasing them.
    pub orphans: u64,
    /// Shared locks freed because their session ended without releasing them. Each holder counts.
    pub shared_orphans: u64,
    /// The wait times of requests that were granted after a wait.
    pub wait_times: Histogram,
    /// The hold times of locks that have been given up, to within some milliseconds. Each name and
    /// each holder counts. When a shared lock is made exclusive, a new hold begins. Empty unless
    /// [`measure_holds`](super::Broker::measure_holds) was called.
    pub hold_times: Histogram,
}

impl Stats {
    fn add_lane(&mut self, lane: LaneCounts) {
        self.locks += lane.held_exclusive;
        self.shared_locks += lane.held_shared;
        self.grants += lane.grants;
        self.orphans += lane.orphans_exclusive;
        self.shared_orphans += lane.orphans_shared;
        self.hold_times.merge(&lane.hold_times);
    }

    fn add_table(&mut self, table: &Table) {
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
        self.wait_times.merge(&counts.wait_times);
        self.hold_times.merge(&counts.hold_times);
    }
}

impl Shell {
    pub(super) fn stats(&self) -> Stats {
        let mut stats = Stats { sessions: self.sessions.len(), ..Stats::default() };
        for lane in 0..LANES {
            if let Ok(counts) = self.in_lane(lane, Intent::Broker, |lane| lane.counts()) {
                stats.add_lane(counts);
            }
        }
        stats.add_table(&self.contended.lock().table);
        if !self.measures_holds.load(Relaxed) {
            // The table always measures, since it knows the time anyway. Without the lanes' share
            // the figures would mislead.
            stats.hold_times = Histogram::default();
        }
        stats
    }

    /// The time, if hold times are measured. In a lane, reading the clock is what costs most after
    /// the look-up.
    pub(super) fn end_of_hold(&self) -> Option<Stamp> {
        self.measures_holds.load(Relaxed).then(clock::now_coarse)
    }
}

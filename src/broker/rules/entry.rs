//! One name in the table: who holds it and how, and which requests wait for it. Here is the rule of
//! who may hold it together. Knows nothing of sessions but their slots, and decides nothing about
//! the queue.

use std::collections::BTreeMap;

use crate::broker::blocks::BlockIndex;
use crate::broker::mode::{HolderLimit, Mode};
use crate::broker::rules::step::{HashedKey, Hold, Slot};

/// Where the table keeps a request.
pub(super) type RequestId = BlockIndex;

/// A request's place in a queue: the number of its arrival, after all conversions. A request has
/// the same place in all its queues, so two requests are in the same order wherever they meet.
/// Conversions come first because everybody else in the queue waits for the converting session
/// anyway: it is a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum QueuePlace {
    Conversion(u64),
    Arrival(u64),
}

/// One name: who holds it, and which requests wait for it.
#[derive(Clone)]
pub(super) struct LockEntry {
    pub(super) key: HashedKey,
    holders: BTreeMap<Slot, (Mode, Hold)>,
    /// How many of the holders have each limit.
    limits: BTreeMap<HolderLimit, usize>,
    pub(super) queue: BTreeMap<QueuePlace, RequestId>,
    /// Whether the last exclusive holder vanished without releasing. While the name is held
    /// exclusively: whether the holder before the present one did.
    pub(super) orphaned: bool,
}

impl LockEntry {
    pub(super) fn new(key: HashedKey, orphaned: bool) -> Self {
        Self { key, holders: BTreeMap::new(), limits: BTreeMap::new(), queue: BTreeMap::new(), orphaned }
    }

    pub(super) fn holders(&self) -> &BTreeMap<Slot, (Mode, Hold)> {
        &self.holders
    }

    /// The mode in force: the one that allows the fewest holders of all in which it is held. `None`
    /// if nobody holds it.
    pub(super) fn held_as(&self) -> Option<Mode> {
        self.mode_in_force_without(None)
    }

    /// Whether one session holds it exclusively.
    pub(super) fn is_exclusive(&self) -> bool {
        self.held_as() == Some(Mode::Exclusive)
    }

    /// Whether `slot` can be a holder in `mode` together with all other holders.
    pub(super) fn admits(&self, slot: Slot, mode: Mode) -> bool {
        let others = self.holders.len() - usize::from(self.holders.contains_key(&slot));
        let in_force = self.mode_in_force_without(Some(slot)).unwrap_or(Mode::Shared);
        mode.min(in_force).allows(others + 1)
    }

    /// The mode in force if this session did not hold it. Looks at three holders at most.
    fn mode_in_force_without(&self, without: Option<Slot>) -> Option<Mode> {
        let mut others = self.holders.iter().filter(|(slot, _)| Some(**slot) != without);
        let (_, &(first, _)) = others.next()?;
        if others.next().is_none() {
            return Some(first);
        }
        // One of several holders is not exclusive.
        let own = without.and_then(|slot| self.holders.get(&slot)).map(|(mode, _)| *mode);
        let limits =
            self.limits.iter().filter(|(limit, count)| **count > 1 || own != Some(Mode::Limited(**limit)));
        Some(limits.map(|(limit, _)| Mode::Limited(*limit)).next().unwrap_or(Mode::Shared))
    }

    /// Makes the session a holder, or changes what it holds. Returns what it held before.
    pub(super) fn insert_holder(&mut self, slot: Slot, mode: Mode, hold: Hold) -> Option<Hold> {
        let before = self.remove_holder(slot);
        self.holders.insert(slot, (mode, hold));
        if let Mode::Limited(limit) = mode {
            *self.limits.entry(limit).or_default() += 1;
        }
        debug_assert!(mode.allows(self.holders.len()), "the promise to this holder");
        debug_assert!(
            self.held_as().is_some_and(|mode| mode.allows(self.holders.len())),
            "and to the others"
        );
        before.map(|(_, hold)| hold)
    }

    pub(super) fn remove_holder(&mut self, slot: Slot) -> Option<(Mode, Hold)> {
        let held = self.holders.remove(&slot)?;
        if let Mode::Limited(limit) = held.0
            && let Some(count) = self.limits.get_mut(&limit)
        {
            *count -= 1;
            if *count == 0 {
                self.limits.remove(&limit);
            }
        }
        Some(held)
    }

    /// How many of the holders have each limit, counted anew; for the check of the invariants.
    pub(super) fn check_limits(&self) {
        let mut limits = BTreeMap::new();
        for (mode, _) in self.holders.values() {
            assert!(mode.allows(self.holders.len()), "a holder has more company than it was promised");
            if let Mode::Limited(limit) = mode {
                *limits.entry(*limit).or_default() += 1;
            }
        }
        assert_eq!(self.limits, limits, "the counts of the limits");
    }
}

//! One name in the table: who holds it and how, and which requests wait for it. Here is the rule of
//! who may hold it together. Knows nothing of sessions but their slots, and decides nothing about
//! the queue.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::broker::blocks::BlockIndex;
use crate::broker::mode::{HolderLimit, Mode};
use crate::broker::rules::step::{HashedKey, Hold, Slot};

/// Where the table keeps a request.
pub(super) type RequestId = BlockIndex;

/// A request's place in a queue: the number of its arrival, after all conversions. A request has
/// the same place in all its queues, so two requests are in the same order wherever they meet.
///
/// Conversions come first because everybody else in the queue waits for the converting session
/// anyway: it is a holder. Of two conversions, the one that allows more holders is first, whenever
/// it came. While it must wait, so must the other; and when it is granted, the other has no more
/// holders in its way than before. If it came second, it would wait although enough holders have
/// gone, for a session that waits for more of them to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum QueuePlace {
    Conversion(Reverse<Mode>, u64),
    Arrival(u64),
}

impl QueuePlace {
    /// The number of the arrival. No two requests have the same.
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Conversion(_, number) | Self::Arrival(number) => number,
        }
    }
}

/// One name: who holds it, and which requests wait for it.
#[derive(Clone)]
pub(super) struct LockEntry {
    pub(super) key: HashedKey,
    holders: BTreeMap<Slot, (Mode, Hold)>,
    /// Of the modes of all holders, the one that allows the fewest holders. Means nothing while
    /// there are none.
    in_force: Mode,
    /// How many of the holders have each limit.
    limits: BTreeMap<HolderLimit, usize>,
    pub(super) queue: BTreeMap<QueuePlace, RequestId>,
    /// Whether the last exclusive holder vanished without releasing. While the name is held
    /// exclusively: whether the holder before the present one did.
    pub(super) orphaned: bool,
}

impl LockEntry {
    pub(super) fn new(key: HashedKey, orphaned: bool) -> Self {
        let (holders, limits, queue) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { key, holders, in_force: Mode::Shared, limits, queue, orphaned }
    }

    pub(super) fn holders(&self) -> &BTreeMap<Slot, (Mode, Hold)> {
        &self.holders
    }

    /// The mode in force; `None` if nobody holds it.
    pub(super) fn held_as(&self) -> Option<Mode> {
        (!self.holders.is_empty()).then_some(self.in_force)
    }

    /// Whether one session holds it exclusively.
    pub(super) fn is_exclusive(&self) -> bool {
        self.held_as() == Some(Mode::Exclusive)
    }

    /// Whether `slot` can be a holder in `mode` together with all other holders.
    pub(super) fn admits(&self, slot: Slot, mode: Mode) -> bool {
        let Some(in_force) = self.held_as() else { return true };
        match self.holders.get(&slot) {
            None => mode.min(in_force).allows(self.holders.len() + 1),
            Some(_) if self.holders.len() == 1 => true,
            // It is itself one of them.
            Some(_) => mode.min(self.in_force_without(slot)).allows(self.holders.len()),
        }
    }

    /// The mode in force if this session, which is one of several holders, did not hold it.
    fn in_force_without(&self, slot: Slot) -> Mode {
        let mut others = self.holders.iter().filter(|(other, _)| **other != slot);
        match (others.next(), others.next()) {
            (Some((_, &(only, _))), None) => only,
            _ => {
                let own = self.holders.get(&slot).map(|(mode, _)| *mode);
                let is_of_others = |&(&limit, &count): &(&HolderLimit, &usize)| {
                    count > 1 || own != Some(Mode::Limited(limit))
                };
                let lowest = self.limits.iter().find(is_of_others);
                lowest.map_or(Mode::Shared, |(limit, _)| Mode::Limited(*limit))
            }
        }
    }

    /// Makes the session a holder, or changes what it holds. Returns what it held before.
    pub(super) fn insert_holder(&mut self, slot: Slot, mode: Mode, hold: Hold) -> Option<Hold> {
        let before = self.holders.insert(slot, (mode, hold));
        if let Some((Mode::Limited(limit), _)) = before {
            self.subtract_limit(limit);
        }
        if let Mode::Limited(limit) = mode {
            *self.limits.entry(limit).or_default() += 1;
        }
        self.update_in_force();
        debug_assert!(self.in_force.allows(self.holders.len()), "the promise to each holder");
        before.map(|(_, hold)| hold)
    }

    pub(super) fn remove_holder(&mut self, slot: Slot) -> Option<(Mode, Hold)> {
        let held = self.holders.remove(&slot)?;
        if let Mode::Limited(limit) = held.0 {
            self.subtract_limit(limit);
        }
        self.update_in_force();
        Some(held)
    }

    fn subtract_limit(&mut self, limit: HolderLimit) {
        let Some(count) = self.limits.get_mut(&limit) else { return };
        *count -= 1;
        if *count == 0 {
            self.limits.remove(&limit);
        }
    }

    fn update_in_force(&mut self) {
        self.in_force = match self.holders.first_key_value() {
            Some((_, &(only, _))) if self.holders.len() == 1 => only,
            // One of several holders is not exclusive.
            _ => self.limits.first_key_value().map_or(Mode::Shared, |(limit, _)| Mode::Limited(*limit)),
        };
    }

    /// Counts the limits of the holders anew, for the check of the invariants.
    ///
    /// # Panics
    /// If the counts are wrong, or there are more holders than one of them was promised.
    pub(super) fn check_limits(&self) {
        let mut limits = BTreeMap::new();
        for (mode, _) in self.holders.values() {
            assert!(mode.allows(self.holders.len()), "there are more holders than one of them was promised");
            assert!(self.in_force <= *mode, "the mode in force is that with the fewest holders");
            if let Mode::Limited(limit) = mode {
                *limits.entry(*limit).or_default() += 1;
            }
        }
        assert_eq!(self.limits, limits, "the counts of the limits");
    }
}

//! Looking into the table without changing it: what a name's holders and waiters are, in pages, so
//! that a name with ten thousand of them is not copied while everybody else waits.

use std::ops::Bound;

use crate::broker::clock::Stamp;
use crate::broker::name::Key;
use crate::broker::outcome::{Held, Inspection, Mode};
use crate::broker::rules::{EntryId, HashedKey, Hold, Place, Slot, Table, TableCounts};

/// One holder of a name.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct HolderView {
    pub(in super::super) slot: Slot,
    pub(in super::super) hold: Hold,
}

/// One waiter for a name.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct WaiterView {
    pub(in super::super) slot: Slot,
    pub(in super::super) place: Place,
    pub(in super::super) mode: Mode,
    pub(in super::super) since: Stamp,
}

impl Table {
    /// The name as seen by a session; `None` if the table does not have it.
    pub(in super::super) fn inspect(&self, slot: Slot, key: &HashedKey) -> Option<Inspection> {
        let id = self.find(key)?;
        let entry = &self.entries[id];
        Some(Inspection {
            mode: entry.held_as(),
            holders: entry.holders.len(),
            waiters: entry.queue.len(),
            held: entry.holders.get(&slot).map(|hold| Held { mode: entry.mode, token: hold.token }),
            waiting: self.members.get(slot as usize).is_some_and(|member| member.waits.contains_key(&id)),
            orphaned: entry.orphaned,
        })
    }

    /// Up to `at_most` holders whose slots are above `after`, lowest first.
    pub(in super::super) fn holders_after(
        &self,
        key: &HashedKey,
        after: Option<Slot>,
        at_most: usize,
    ) -> Vec<HolderView> {
        let Some(id) = self.find(key) else { return Vec::new() };
        let entry = &self.entries[id];
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let view = |(&slot, &hold): (&Slot, &Hold)| HolderView { slot, hold };
        entry.holders.range((from, Bound::Unbounded)).take(at_most).map(view).collect()
    }

    /// Up to `at_most` waiters behind the place `after`, in the order in which they will be served.
    pub(in super::super) fn waiters_after(
        &self,
        key: &HashedKey,
        after: Option<Place>,
        at_most: usize,
    ) -> Vec<WaiterView> {
        let Some(id) = self.find(key) else { return Vec::new() };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.entries[id].queue.range((from, Bound::Unbounded)).take(at_most);
        behind
            .map(|(&place, &request)| {
                let request = &self.requests[request];
                let mode =
                    request.wants.iter().find(|want| want.0 == id).map_or(Mode::Exclusive, |want| want.1);
                WaiterView { slot: request.slot, place, mode, since: request.since }
            })
            .collect()
    }

    /// Up to `at_most` names that the session holds, and in which mode, beginning after `after`.
    pub(in super::super) fn held_after(
        &self,
        slot: Slot,
        after: Option<EntryId>,
        at_most: usize,
    ) -> Vec<(EntryId, Key, Mode)> {
        let Some(member) = self.members.get(slot as usize) else { return Vec::new() };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let held = member.holds.range((from, Bound::Unbounded)).take(at_most);
        held.map(|&id| (id, self.entries[id].key.key.clone(), self.entries[id].mode)).collect()
    }

    /// How many names are held exclusively, and how many shared.
    pub(in super::super) fn names_held(&self) -> (usize, usize) {
        self.names_held
    }

    /// How many locks are held, each shared holder counted by itself.
    pub(in super::super) fn holds(&self) -> usize {
        self.holds
    }

    /// How many requests wait.
    pub(in super::super) fn waiting(&self) -> usize {
        self.requests.len()
    }

    pub(in super::super) fn counts(&self) -> TableCounts {
        self.counts
    }
}

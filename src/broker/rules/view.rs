//! Looking into the table without changing it: the holders and waiters of a name, and what a
//! session holds, in pages, so that other threads need not wait while ten thousand of them are
//! copied.

use std::ops::Bound;

use crate::broker::clock::Stamp;
use crate::broker::mode::Mode;
use crate::broker::name::Key;
use crate::broker::outcome::Inspection;
use crate::broker::rules::entry::{QueuePlace, RequestId};
use crate::broker::rules::index::EntryId;
use crate::broker::rules::step::{HashedKey, Hold, Slot};
use crate::broker::rules::table::{Table, TableCounts};

/// One waiter for a name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaiterView {
    pub(crate) slot: Slot,
    pub(crate) place: QueuePlace,
    pub(crate) mode: Mode,
    pub(crate) since: Stamp,
}

/// One holder of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HolderView {
    pub(crate) slot: Slot,
    pub(crate) mode: Mode,
    pub(crate) hold: Hold,
}

impl Table {
    /// The name as this session sees it; `None` if the table does not have it.
    pub(crate) fn inspect(&self, slot: Slot, key: &HashedKey) -> Option<Inspection> {
        let id = self.find(key)?;
        let entry = &self.entries[id];
        Some(Inspection {
            mode: entry.held_as(),
            holders: entry.holders().len(),
            waiters: entry.queue.len(),
            held: self.held_by(id, slot),
            waiting: self.sessions.get(slot as usize).is_some_and(|session| session.waits.contains_key(&id)),
            orphaned: entry.orphaned,
        })
    }

    /// Up to `at_most` holders whose slots are above `after`, lowest first.
    pub(crate) fn holders_after(
        &self,
        key: &HashedKey,
        after: Option<Slot>,
        at_most: usize,
    ) -> Vec<HolderView> {
        let Some(id) = self.find(key) else { return Vec::new() };
        let holders = self.entries[id].holders().range((beyond(after), Bound::Unbounded));
        let view = |(&slot, &(mode, hold)): (&Slot, &(Mode, Hold))| HolderView { slot, mode, hold };
        holders.take(at_most).map(view).collect()
    }

    /// Up to `at_most` waiters after the place `after`, in the order in which they will be served.
    pub(crate) fn waiters_after(
        &self,
        key: &HashedKey,
        after: Option<QueuePlace>,
        at_most: usize,
    ) -> Vec<WaiterView> {
        let Some(id) = self.find(key) else { return Vec::new() };
        let queue = self.entries[id].queue.range((beyond(after), Bound::Unbounded));
        let view = |(&place, &request): (&QueuePlace, &RequestId)| {
            let request = &self.requests[request];
            let wanted = request.wants.iter().find(|want| want.0 == id);
            let mode = wanted.map_or(Mode::Exclusive, |want| want.1);
            WaiterView { slot: request.slot, place, mode, since: request.since }
        };
        queue.take(at_most).map(view).collect()
    }

    /// Up to `at_most` names that the session holds, with their modes, beginning after `after`.
    pub(crate) fn held_after(
        &self,
        slot: Slot,
        after: Option<EntryId>,
        at_most: usize,
    ) -> Vec<(EntryId, Key, Mode)> {
        let Some(session) = self.sessions.get(slot as usize) else { return Vec::new() };
        let held = session.holds.range((beyond(after), Bound::Unbounded)).take(at_most);
        let mode = |id| self.held_by(id, slot).map_or(Mode::Exclusive, |held| held.mode);
        held.map(|&id| (id, self.entries[id].key.key.clone(), mode(id))).collect()
    }

    /// How many names are held exclusively, and how many in other modes.
    pub(crate) fn names_held(&self) -> (usize, usize) {
        self.names_held
    }

    /// How many locks are held, each holder of a name counted.
    pub(crate) fn holds(&self) -> usize {
        self.holds
    }

    /// How many requests wait.
    pub(crate) fn waiting(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn counts(&self) -> TableCounts {
        self.counts
    }
}

fn beyond<T>(after: Option<T>) -> Bound<T> {
    after.map_or(Bound::Unbounded, Bound::Excluded)
}

//! What must hold in the table after every event, as code. The full check looks at everything; it
//! runs after every step of the rules' own tests, and in builds with debug assertions while a table
//! is small. In addition, each function of the rules asserts what it can at little cost.
//!
//! - A lock has no more holders than the mode of each of them allows.
//! - A request waits only while it cannot be granted: at one of its names it is not the head of the
//!   queue, or a holder is in its way. The exceptions: nothing is granted at present, or one of its
//!   names is unsettled.
//! - No sessions wait for each other in a cycle: each has a rank above those that it waits for.
//! - A name that nobody holds and nobody waits for is not in the table, unless it is unsettled.
//! - What entries, requests and sessions say of each other agrees, and so do all counts.

use std::collections::{BTreeSet, HashSet};

use crate::broker::rules::entry::LockEntry;
use crate::broker::rules::index::EntryId;
use crate::broker::rules::step::Slot;
use crate::broker::rules::table::{SlotState, Table};

/// A table with more entries, requests or sessions is not checked in full by
/// [`check_invariants_if_small`](Table::check_invariants_if_small).
const SMALL: usize = 6;

impl Table {
    /// The full check, where it costs little enough to run after every event.
    #[inline]
    pub(super) fn check_invariants_if_small(&self) {
        let is_small = || self.entries.len().max(self.requests.len()).max(self.sessions.len()) <= SMALL;
        if cfg!(debug_assertions) && is_small() {
            self.check_invariants();
        }
    }

    /// Checks everything but [`check_heads`](Self::check_heads).
    ///
    /// # Panics
    /// If an invariant does not hold.
    pub(super) fn check_invariants(&self) {
        let (mut holds, mut exclusive, mut shared) = (0, 0, 0);
        for (id, entry) in self.entries.iter() {
            self.check_entry(id, entry);
            holds += entry.holders().len();
            exclusive += usize::from(entry.is_exclusive());
            shared += usize::from(entry.held_as().is_some() && !entry.is_exclusive());
        }
        assert_eq!(self.holds, holds, "the count of locks");
        assert_eq!(self.names_held, (exclusive, shared), "the counts of names that are held");
        assert_eq!(self.index.len(), self.entries.len(), "the index has the entries and nothing else");
        let mut ranks = HashSet::new();
        for (slot, session) in (0..).zip(&self.sessions) {
            self.check_session(slot, session);
            assert!(
                session.rank == 0 || ranks.insert(session.rank),
                "two sessions have rank {}",
                session.rank
            );
        }
        let waiting: usize = self.sessions.iter().map(|session| session.requests.len()).sum();
        assert_eq!(waiting, self.requests.len(), "every request is known to its session");
    }

    fn check_entry(&self, id: EntryId, entry: &LockEntry) {
        assert_eq!(self.find(&entry.key), Some(id), "the index finds every entry");
        entry.check_limits();
        let is_used = !entry.holders().is_empty() || !entry.queue.is_empty();
        assert!(is_used || self.unsettled.contains(&id), "a name that nobody uses is in the table");
        for slot in entry.holders().keys() {
            assert!(self.sessions[*slot as usize].holds.contains(&id), "a holder does not know of its lock");
        }
        for (&place, &request) in &entry.queue {
            let queued = &self.requests[request];
            assert_eq!(queued.place, place, "a request has the same place in all its queues");
            assert!(
                queued.wants.iter().any(|want| want.0 == id),
                "a request waits for a name it does not want"
            );
        }
    }

    fn check_session(&self, slot: Slot, session: &SlotState) {
        let is_contended = |id: &&EntryId| !self.entries[**id].queue.is_empty();
        let contended: BTreeSet<EntryId> = session.holds.iter().filter(is_contended).copied().collect();
        assert_eq!(session.contended, contended, "the contended locks of session {slot}");
        let last = |id: &EntryId| self.entries[*id].queue.last_key_value().map(|last| *last.1);
        let followed = session.waits.iter().filter(|&(id, request)| last(id) != Some(*request)).count();
        assert_eq!(session.followed, followed, "the requests right after those of session {slot}");
        for &id in &session.holds {
            assert!(self.entries[id].holders().contains_key(&slot), "session {slot} does not hold its lock");
        }
        let (mut waits, mut deadlines) = (0, BTreeSet::new());
        for (&ticket, &request) in &session.requests {
            let queued = &self.requests[request];
            assert_eq!((queued.slot, queued.ticket), (slot, ticket), "a request belongs to one session");
            for (id, _) in &queued.wants {
                assert_eq!(session.waits.get(id), Some(&request));
                assert_eq!(self.entries[*id].queue.get(&queued.place), Some(&request));
            }
            waits += queued.wants.len();
            deadlines.extend(queued.deadline.map(|deadline| (deadline, ticket)));
        }
        assert_eq!(session.waits.len(), waits, "session {slot} waits for what its requests want");
        assert_eq!(session.deadlines, deadlines, "the deadlines of session {slot}");
        for other in self.waits_for(slot) {
            let (own, other) = (session.rank, self.rank(other));
            assert!(
                own > other && other != 0,
                "session {slot} has rank {own} and waits for one with {other}"
            );
        }
    }

    /// Checks that no request waits without need. Holds only while the broker grants: after the
    /// grace, requests may wait until all names have been settled again.
    ///
    /// # Panics
    /// If a request could be granted, and none of its names is unsettled.
    #[cfg(test)]
    pub(super) fn check_heads(&self) {
        for (id, queued) in self.requests.iter() {
            let is_unsettled = queued.wants.iter().any(|(name, _)| self.unsettled.contains(name));
            assert!(is_unsettled || self.obstacle_of(id).is_some(), "a request waits for what it could have");
        }
    }
}

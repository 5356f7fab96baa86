//! The table: its data, and how names are held, converted and freed. Who may hold a name together
//! is in `entry.rs`, waiting in `queue.rs`, the search for cycles in `deadlock.rs`, looking without a
//! change in `view.rs`.
//!
//! The data of one lock. A lock that one session holds and nobody waits for is in its lane only;
//! the table has it from the moment a second session wants it.
//!
//! ```text
//!   name ──hash──► lane, one of 256
//!                    Held by one session · Free (orphaned) · Deferred
//!                                                                  │ the table has it
//!                                                                  ▼
//!                                        NameIndex    hash, name ► EntryId
//!                                                                  │
//!   ┌─ LockEntry ──────────────────────────────────────────────────▼──┐
//!   │ key · orphaned                                                  │
//!   │ holders   slot 3         ► Mode, Hold (token, since)            │  no more than the mode of
//!   │           slot 8         ► Mode, Hold (token, since)            │  each of them allows
//!   │ queue     Conversion(41) ► RequestId                            │  the head is served next
//!   │           Arrival(37)    ► RequestId ────────────────────────┐  │
//!   └──────────────────────────────────────────────────────────────┼──┘
//!   ┌─ QueuedRequest ──────────────────────────────────────────────▼──┐
//!   │ slot 5 · ticket · place · since · deadline                      │
//!   │ wants     EntryId, Mode                                         │  one for each name
//!   │           EntryId, Mode                                         │
//!   └──────┬──────────────────────────────────────────────────────────┘
//!   ┌──────▼ SlotState, by slot ──────────────────────────────────────┐
//!   │ holds, contended                         ► EntryIds             │
//!   │ requests (by ticket), waits (by EntryId) ► RequestIds           │
//!   │ deadlines · followed · rank                                     │
//!   └─────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Entries and requests are kept in [`Blocks`] that never move, so that growing holds nobody up.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::broker::blocks::Blocks;
use crate::broker::clock::Stamp;
use crate::broker::histogram::Histogram;
use crate::broker::mode::Mode;
use crate::broker::outcome::{Attempt, Grant, Held, Outcome, Released};
use crate::broker::rules::entry::{LockEntry, QueuePlace, RequestId};
use crate::broker::rules::index::{EntryId, NameIndex};
use crate::broker::rules::step::{
    FreedName, HashedKey, Hold, NAME_COST, NotGranted, Slot, Step, Ticket, WaitSpec,
};

/// A request that waits: for one name, for several at once, or to convert one.
#[derive(Clone)]
pub(super) struct QueuedRequest {
    pub(super) slot: Slot,
    pub(super) ticket: Ticket,
    pub(super) place: QueuePlace,
    pub(super) wants: Vec<(EntryId, Mode)>,
    pub(super) since: Stamp,
    pub(super) deadline: Option<Stamp>,
    /// Which of `wants` could not be granted at the last attempt. The next attempt begins there, so
    /// that a request for a thousand names is not checked from the start again and again while one
    /// of them is held.
    pub(super) first_unchecked: usize,
}

/// What one session has in the table.
#[derive(Clone, Default)]
pub(super) struct SlotState {
    pub(super) holds: BTreeSet<EntryId>,
    /// Those of `holds` whose queue is not empty.
    pub(super) contended: BTreeSet<EntryId>,
    /// In how many queues one of its requests has another request right after it.
    pub(super) followed: usize,
    /// Its waiting requests by ticket, and by each name that they wait for.
    pub(super) requests: BTreeMap<Ticket, RequestId>,
    pub(super) waits: HashMap<EntryId, RequestId>,
    /// Its requests that have a deadline, in the order of their deadlines.
    pub(super) deadlines: BTreeSet<(Stamp, Ticket)>,
    /// Higher than the rank of every session that this one waits for. No two sessions have the same
    /// rank; a session that has never held or waited for anything here has 0.
    pub(super) rank: i64,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TableCounts {
    pub(crate) grants: u64,
    pub(crate) waits: u64,
    pub(crate) timeouts: u64,
    pub(crate) cancels: u64,
    pub(crate) deadlocks: u64,
    pub(crate) orphans_exclusive: u64,
    pub(crate) orphans_shared: u64,
    pub(crate) wait_times: Histogram,
    pub(crate) hold_times: Histogram,
}

/// All names that several sessions are concerned with, and what sessions hold of them and wait for.
#[derive(Clone, Default)]
pub(crate) struct Table {
    pub(super) index: NameIndex,
    pub(super) entries: Blocks<LockEntry>,
    pub(super) requests: Blocks<QueuedRequest>,
    pub(super) sessions: Vec<SlotState>,
    /// How many requests have come so far: numbers the places in all queues.
    pub(super) arrivals: u64,
    /// The highest and the lowest rank given so far; 0 is never given.
    pub(super) highest_rank: i64,
    pub(super) lowest_rank: i64,
    /// Names whose queues must still be settled, the next one last. A name may be here twice, or
    /// have left the table.
    pub(super) unsettled: Vec<EntryId>,
    /// How many locks are held, each holder of a name counted.
    pub(super) holds: usize,
    /// How many names are held exclusively, and how many in other modes.
    pub(super) names_held: (usize, usize),
    pub(super) counts: TableCounts,
}

impl Table {
    /// Adds a name as its lane had it: free, or held by one session. Does nothing if the table has
    /// it already.
    pub(crate) fn adopt(&mut self, key: &HashedKey, holder: Option<(Slot, Mode, Hold)>, orphaned: bool) {
        if self.find(key).is_some() {
            return;
        }
        let id = self.entries.insert(LockEntry::new(key.clone(), orphaned));
        self.index.insert(key.hash, id);
        if let Some((slot, mode, hold)) = holder {
            self.hold(id, slot, mode, hold);
        }
        debug_assert_eq!(self.find(key), Some(id), "a name that was adopted is found");
        debug_assert_eq!(self.entries[id].holders().len(), usize::from(holder.is_some()));
    }

    /// Acquires all of `wants` or nothing. Every name must have been adopted, and be in `wants`
    /// once.
    pub(crate) fn acquire(
        &mut self,
        step: &mut Step<'_>,
        slot: Slot,
        wants: &[(HashedKey, Mode)],
        wait: Option<WaitSpec>,
    ) -> Result<Attempt, NotGranted> {
        let found: Option<Vec<(EntryId, Mode)>> =
            wants.iter().map(|(key, mode)| Some((self.find(key)?, *mode))).collect();
        debug_assert!(found.is_some(), "every name was adopted in this turn");
        // A name that the table does not know may be held in its lane: then nothing may be granted.
        let Some(wants) = found else { return Err(NotGranted::Busy) };
        let result = if step.spend(wants.len() * NAME_COST) {
            self.grant_or_enqueue(step, slot, &wants, wait)
        } else {
            Err(NotGranted::TooLarge)
        };
        // Nothing that others wait for has changed. Only names that were adopted and not granted
        // must leave.
        wants.iter().for_each(|&(id, _)| self.retire(step, id));
        result
    }

    fn grant_or_enqueue(
        &mut self,
        step: &mut Step<'_>,
        slot: Slot,
        wants: &[(EntryId, Mode)],
        wait: Option<WaitSpec>,
    ) -> Result<Attempt, NotGranted> {
        for &(id, _) in wants {
            if let Some(held) = self.held_by(id, slot) {
                return Err(NotGranted::AlreadyHeld(held));
            }
            if self.session(slot).waits.contains_key(&id) {
                return Err(NotGranted::AlreadyWaiting);
            }
        }
        let is_free = |&(id, mode): &(EntryId, Mode)| {
            let entry = &self.entries[id];
            entry.queue.is_empty() && entry.admits(slot, mode)
        };
        if step.granting && wants.iter().all(is_free) {
            return Ok(Attempt::Granted(self.grant(step, slot, wants)));
        }
        let wait = wait.ok_or(NotGranted::Busy)?;
        let place = QueuePlace::Arrival(self.next_arrival());
        self.enqueue(step, slot, place, wants.to_vec(), wait)
    }

    /// Changes the mode of a lock that the session holds, without letting it go. To a mode that
    /// allows more holders it never waits, and lets waiters in. To one that allows fewer it waits
    /// for other holders to go, ahead of all who do not hold it, and gets a new token.
    pub(crate) fn convert(
        &mut self,
        step: &mut Step<'_>,
        slot: Slot,
        key: &HashedKey,
        mode: Mode,
        wait: Option<WaitSpec>,
    ) -> Result<Attempt, NotGranted> {
        let id = self.find(key).ok_or(NotGranted::NotHeld)?;
        let Some(&(held, hold)) = self.entries[id].holders().get(&slot) else {
            self.retire(step, id);
            return Err(NotGranted::NotHeld);
        };
        if self.session(slot).waits.contains_key(&id) {
            return Err(NotGranted::AlreadyWaiting);
        }
        if mode >= held {
            self.change(id, |entry| {
                // A session that has held it exclusively has had the time to check what was left
                // half done.
                entry.orphaned &= held != Mode::Exclusive || mode == held;
                entry.insert_holder(slot, mode, hold);
            });
            let holders = self.entries[id].holders().len();
            self.unsettled.push(id);
            return Ok(Attempt::Granted(Grant { token: hold.token, orphaned: false, holders }));
        }
        if step.granting && self.entries[id].admits(slot, mode) {
            return self.restrict_at_once(step, slot, (id, mode), (held, hold));
        }
        let wait = wait.ok_or(NotGranted::Busy)?;
        let place = QueuePlace::Conversion(Reverse(mode), self.next_arrival());
        self.enqueue(step, slot, place, vec![(id, mode)], wait)
    }

    /// Gives a holder a mode that allows fewer holders, when there are no more than that. It does
    /// not overtake a conversion that waits: that one wants fewer holders than there are, so its
    /// place is behind this one's.
    ///
    /// If the mode is exclusive, a request may begin to wait for this session: one that is not
    /// exclusive can be at the head of the queue because another of its names is taken. This is the
    /// one way to close a cycle without waiting.
    fn restrict_at_once(
        &mut self,
        step: &mut Step<'_>,
        slot: Slot,
        (id, mode): (EntryId, Mode),
        (before, hold): (Mode, Hold),
    ) -> Result<Attempt, NotGranted> {
        if mode == Mode::Exclusive {
            self.change(id, |entry| entry.insert_holder(slot, mode, hold));
            if let Err(rejected) = self.rank_holder(step.budget, slot, id) {
                self.change(id, |entry| entry.insert_holder(slot, before, hold));
                return Err(self.reject(step, rejected));
            }
        }
        Ok(Attempt::Granted(self.grant(step, slot, &[(id, mode)])))
    }

    /// Gives the lock up, or the place in its queue. A conversion that waits ends together with the
    /// lock. If the session `vanished` as the holder of this name, what it held exclusively is
    /// orphaned.
    pub(crate) fn release(
        &mut self,
        step: &mut Step<'_>,
        slot: Slot,
        key: &HashedKey,
        vanished: bool,
    ) -> Option<Released> {
        let id = self.find(key)?;
        let waiting = self.session(slot).waits.get(&id).copied();
        if !step.spend(waiting.map_or(NAME_COST, |request| self.cost(request))) {
            return None;
        }
        if let Some(request) = waiting {
            self.withdraw(step, request, Outcome::Cancelled);
            self.counts.cancels += 1;
        }
        let held = self.unhold(step.now, id, slot, vanished);
        self.unsettled.push(id);
        debug_assert!(self.held_by(id, slot).is_none() && !self.session(slot).waits.contains_key(&id));
        match (held, waiting) {
            (true, _) => Some(Released::Hold),
            (false, Some(_)) => Some(Released::Place),
            (false, None) => None,
        }
    }

    /// Takes a waiting request back. False if none has this ticket: then the wait has ended
    /// already.
    pub(crate) fn cancel(&mut self, step: &mut Step<'_>, slot: Slot, ticket: Ticket) -> bool {
        let Some(&request) = self.session(slot).requests.get(&ticket) else { return false };
        debug_assert_eq!((self.requests[request].slot, self.requests[request].ticket), (slot, ticket));
        if !step.spend(self.cost(request)) {
            return false;
        }
        self.counts.cancels += 1;
        self.withdraw(step, request, Outcome::Cancelled);
        debug_assert!(!self.session(slot).requests.contains_key(&ticket));
        true
    }

    /// Ends those waits of the session whose deadline has come, as many as the budget allows.
    /// Returns the earliest deadline of those that are left.
    pub(crate) fn expire(&mut self, step: &mut Step<'_>, slot: Slot) -> Option<Stamp> {
        loop {
            let &(deadline, ticket) = self.session(slot).deadlines.first()?;
            // A deadline exists for as long as its request does.
            let request = self.session(slot).requests[&ticket];
            debug_assert_eq!(self.requests[request].deadline, Some(deadline));
            if deadline > step.now || !step.spend(self.cost(request)) {
                return Some(deadline);
            }
            self.counts.timeouts += 1;
            self.withdraw(step, request, Outcome::TimedOut);
        }
    }

    /// Ends the waits of the session, as many as the budget allows: with `Lost` because the session
    /// ends, or with `Stopping` because the broker does.
    pub(crate) fn end_waits(&mut self, step: &mut Step<'_>, slot: Slot, why: Outcome) {
        debug_assert!(matches!(why, Outcome::Lost | Outcome::Stopping));
        while let Some((_, &request)) = self.session(slot).requests.first_key_value() {
            if !step.spend(self.cost(request)) {
                return;
            }
            self.withdraw(step, request, why);
        }
        debug_assert!(self.session(slot).waits.is_empty() && self.session(slot).deadlines.is_empty());
    }

    /// Frees the locks of a session that has ended, as many as the budget allows, and forgets the
    /// session if that was all. If it `vanished`, what it held exclusively is orphaned. Its waits
    /// must have ended.
    pub(crate) fn end_holds(&mut self, step: &mut Step<'_>, slot: Slot, vanished: bool) {
        debug_assert!(self.session(slot).requests.is_empty(), "the waits of a session end first");
        while let Some(&id) = self.session(slot).holds.first() {
            if !step.spend(NAME_COST) {
                return;
            }
            self.unhold(step.now, id, slot, vanished);
            self.unsettled.push(id);
        }
        debug_assert!(self.session(slot).contended.is_empty() && self.session(slot).followed == 0);
        *self.session(slot) = SlotState::default();
    }

    pub(super) fn find(&self, key: &HashedKey) -> Option<EntryId> {
        self.index.find(key.hash, |id| self.entries[id].key.key == key.key)
    }

    pub(super) fn session(&mut self, slot: Slot) -> &mut SlotState {
        let slot = slot as usize;
        if slot >= self.sessions.len() {
            self.sessions.resize_with(slot + 1, SlotState::default);
        }
        &mut self.sessions[slot]
    }

    pub(super) fn next_arrival(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals
    }

    pub(super) fn held_by(&self, id: EntryId, slot: Slot) -> Option<Held> {
        let holder = self.entries[id].holders().get(&slot);
        holder.map(|&(mode, hold)| Held { mode, token: hold.token })
    }

    /// Changes how an entry is held, and keeps `names_held` right.
    fn change<R>(&mut self, id: EntryId, change: impl FnOnce(&mut LockEntry) -> R) -> R {
        let entry = &mut self.entries[id];
        let before = entry.held_as();
        let result = change(entry);
        let after = entry.held_as();
        let mut count = |mode, by: fn(&mut usize)| match mode {
            Some(Mode::Exclusive) => by(&mut self.names_held.0),
            Some(Mode::Limited(_) | Mode::Shared) => by(&mut self.names_held.1),
            None => {}
        };
        count(before, |count| *count -= 1);
        count(after, |count| *count += 1);
        debug_assert!(
            after.is_none_or(|mode| mode.allows(self.entries[id].holders().len())),
            "there are no more holders than the mode in force allows"
        );
        debug_assert!(self.names_held.0 + self.names_held.1 <= self.entries.len());
        result
    }

    pub(super) fn hold(&mut self, id: EntryId, slot: Slot, mode: Mode, hold: Hold) {
        let (before, is_contended) =
            self.change(id, |entry| (entry.insert_holder(slot, mode, hold), !entry.queue.is_empty()));
        if let Some(before) = before {
            debug_assert!(before.token < hold.token, "a new grant has a higher token");
            self.counts.hold_times.add(hold.since.since(before.since));
            return;
        }
        self.holds += 1;
        let rank = if self.session(slot).rank == 0 { self.next_rank() } else { self.session(slot).rank };
        let session = self.session(slot);
        session.rank = rank;
        let is_new = session.holds.insert(id);
        debug_assert!(is_new, "a session holds what the entry says that it holds");
        if is_contended {
            session.contended.insert(id);
        }
    }

    /// Ends one session's hold on the name. Returns whether it had one.
    fn unhold(&mut self, now: Stamp, id: EntryId, slot: Slot, vanished: bool) -> bool {
        let (held, is_contended) = self.change(id, |entry| {
            let held = entry.remove_holder(slot);
            // Only an exclusive holder changes the mark. Any other one leaves it for the next
            // exclusive holder.
            if held.is_some_and(|(mode, _)| mode == Mode::Exclusive) {
                entry.orphaned = vanished;
            }
            (held, !entry.queue.is_empty())
        });
        let Some((mode, hold)) = held else { return false };
        match mode {
            _ if !vanished => {}
            Mode::Exclusive => self.counts.orphans_exclusive += 1,
            Mode::Limited(_) | Mode::Shared => self.counts.orphans_shared += 1,
        }
        self.holds -= 1;
        self.counts.hold_times.add(now.since(hold.since));
        let session = self.session(slot);
        let was_held = session.holds.remove(&id);
        debug_assert!(was_held, "a session holds what the entry says that it holds");
        let was_contended = session.contended.remove(&id);
        debug_assert_eq!(was_contended, is_contended, "a held name with a queue is contended");
        true
    }

    /// Makes the session a holder of each name. The caller has checked that every name admits it.
    pub(super) fn grant(&mut self, step: &mut Step<'_>, slot: Slot, wants: &[(EntryId, Mode)]) -> Grant {
        debug_assert!(!wants.is_empty());
        let token = step.tokens.next();
        let mut grant = Grant { token, orphaned: false, holders: 1 };
        for &(id, mode) in wants {
            let entry = &self.entries[id];
            debug_assert!(entry.admits(slot, mode), "never more holders than one of them was promised");
            grant.orphaned |= entry.orphaned;
            self.hold(id, slot, mode, Hold { token, since: step.now });
            grant.holders = if wants.len() == 1 { self.entries[id].holders().len() } else { 1 };
        }
        self.counts.grants += 1;
        grant
    }

    /// Removes a name that nobody holds and nobody waits for. Does nothing for any other.
    pub(super) fn retire(&mut self, step: &mut Step<'_>, id: EntryId) {
        if self.entries.get(id).is_some_and(|entry| entry.holders().is_empty() && entry.queue.is_empty()) {
            let entry = self.entries.remove(id);
            self.index.remove(entry.key.hash, id);
            step.idle.push(FreedName { key: entry.key, orphaned: entry.orphaned });
        }
    }
}

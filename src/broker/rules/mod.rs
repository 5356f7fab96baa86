//! The rules of a lock, whole, as a state machine: events in, decisions out. It never blocks, spawns,
//! reads a clock or calls anybody; the time and the next fencing token are arguments. Single-threaded
//! by construction: the shell around it ([`super::Broker`]) sees to it that one thread is in here.
//!
//! What must hold after every event:
//! - the holders of a name are one exclusive session, or any number of shared ones;
//! - a request waits only while it cannot be granted: some place of it is not the head of its queue,
//!   or conflicts with a holder there; or because nothing is granted for now; or because a name of it is among
//!   those that are still to be settled;
//! - no circle of sessions wait for each other;
//! - a name that is neither held nor waited for is not in the table.

mod blocks;
mod deadlock;
mod index;
mod queue;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::broker::Limits;
use crate::broker::clock::Stamp;
use crate::broker::histogram::Histogram;
use crate::broker::name::Key;
use crate::broker::outcome::{Grant, Held, Mode, Outcome, Released};
use crate::broker::tokens::Tokens;
use crate::os::sync::IS_EXPLORED;
use blocks::Blocks;
use index::Index;
pub(super) use queue::Place;

/// A session, as the table knows it: a small number, in use again only when the session has wholly gone.
pub(super) type Slot = u32;

/// What a session calls one of its waits by. Unique among the waits of that session.
pub type Ticket = u64;

/// A name and its hash, which the table never computes itself: the shell has done it already.
#[derive(Clone, Debug)]
pub(super) struct HashedKey {
    pub(super) key: Key,
    pub(super) hash: u64,
}

/// What finding, queueing, granting or freeing one name counts for, where one look at a place or a holder in the
/// search for deadlocks counts for 1.
pub(super) const NAME: usize = 8;

/// How much may be done in one step while others are kept waiting: a tenth of a millisecond's worth.
pub(super) const TURN: usize = if IS_EXPLORED { NAME } else { 1_000 };

/// The same for a step that comes only one at a time: a few milliseconds' worth. Enough for the largest request
/// there can be, see [`Table::cost`]; a search for deadlocks that needs more is given up.
pub(super) const BULK: usize = if IS_EXPLORED { 8 * NAME } else { 25_000 };

const _: () = assert!(IS_EXPLORED || crate::broker::NAMES_AT_ONCE_MAX * NAME <= BULK / 2);

/// What every event is given, and where its decisions go.
pub(super) struct Step<'a> {
    pub(super) now: Stamp,
    pub(super) tokens: &'a Tokens,
    pub(super) limits: &'a Limits,
    /// Whether anything may be granted; false until the broker opens, and once it has been shut.
    pub(super) granting: bool,
    /// How much more may be done: see [`NAME`].
    pub(super) room: usize,
    /// There was not room for everything. Then the event has changed nothing, or it is one that goes on when it
    /// comes again: the answer counts for nothing, and the same event must be tried with more room.
    pub(super) is_exhausted: bool,
    /// Waits that ended through this event, in the order in which they did.
    pub(super) decided: &'a mut Vec<Decision>,
    /// Names that left the table through this event.
    pub(super) idle: &'a mut Vec<Idle>,
}

impl Step<'_> {
    /// Takes so much of the room; false, and notes it, if there is not enough left.
    fn spend(&mut self, cost: usize) -> bool {
        let rest = self.room.checked_sub(cost);
        self.room = rest.unwrap_or(self.room);
        self.is_exhausted |= rest.is_none();
        rest.is_some()
    }
}

/// The end of one wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) slot: Slot,
    pub(super) ticket: Ticket,
    pub(super) outcome: Outcome,
    /// How many more names the session holds by it.
    pub(super) acquired: usize,
}

/// A name that nobody holds or waits for any more.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) key: HashedKey,
    /// Whether its last exclusive holder vanished without releasing.
    pub(super) orphaned: bool,
}

/// How long the asker is ready to wait, and under which ticket.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitSpec {
    pub(super) ticket: Ticket,
    /// When the wait is over; `None`: never.
    pub(super) deadline: Option<Stamp>,
}

/// What an acquire or a convert comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Granted(Grant),
    Busy,
    Queued,
    AlreadyHeld(Held),
    AlreadyWaiting,
    NotHeld,
    /// The sessions that wait for each other, the asker first.
    Deadlock(Vec<Slot>),
    TooManyWaits,
    /// It would take more than the step has room for; nothing has changed.
    TooLarge,
}

/// One session's share of one name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub(super) token: u64,
    pub(super) since: Stamp,
}

type EntryId = usize;
type RequestId = usize;

#[derive(Clone)]
struct Entry {
    key: HashedKey,
    /// How it is held; means nothing while `holders` is empty.
    mode: Mode,
    holders: BTreeMap<Slot, Hold>,
    queue: BTreeMap<Place, RequestId>,
    /// The last exclusive holder vanished without releasing; with an exclusive holder, the one before it.
    orphaned: bool,
}

/// A request that waits: for one name, for several at once, or to convert one.
#[derive(Clone)]
struct Request {
    slot: Slot,
    ticket: Ticket,
    place: Place,
    wants: Vec<(EntryId, Mode)>,
    since: Stamp,
    deadline: Option<Stamp>,
    /// Which of `wants` could not be had when last looked at. Looked at first the next time, so that a
    /// request for a thousand names is not gone through again and again while one of them is held.
    obstacle: usize,
}

/// What one session has in the table.
#[derive(Clone, Default)]
struct Member {
    holds: BTreeSet<EntryId>,
    /// Those of these that have a queue.
    contended: BTreeSet<EntryId>,
    /// How many of its places have another one behind them.
    followed: usize,
    /// Its waiting requests by what it calls them, and by each name they wait for.
    requests: BTreeMap<Ticket, RequestId>,
    waits: HashMap<EntryId, RequestId>,
    /// When those of its waits are over that have a limit.
    deadlines: BTreeSet<(Stamp, Ticket)>,
    /// Above the ranks of all whom it waits for; 0 for one that neither holds nor waits. No two have the same.
    rank: u64,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TableCounts {
    pub(super) grants: u64,
    pub(super) waits: u64,
    pub(super) timeouts: u64,
    pub(super) cancels: u64,
    pub(super) deadlocks: u64,
    pub(super) orphans_exclusive: u64,
    pub(super) orphans_shared: u64,
    pub(super) wait_times: Histogram,
    pub(super) hold_times: Histogram,
}

/// All names that several sessions are concerned with, and what sessions hold of them and wait for.
#[derive(Clone, Default)]
pub(super) struct Table {
    index: Index,
    entries: Blocks<Entry>,
    requests: Blocks<Request>,
    members: Vec<Member>,
    /// Arrivals so far: the order in all queues.
    arrivals: u64,
    /// Ranks given so far: see [`deadlock`].
    ranks: u64,
    /// Names whose queues are still to be settled, the next one last.
    unsettled: Vec<EntryId>,
    holds: usize,
    /// Names held exclusively and held shared.
    names_held: (usize, usize),
    counts: TableCounts,
}

impl Table {
    /// Makes the name known, as it stands outside the table: free, or held by one session. Does
    /// nothing for a name the table has already.
    pub(super) fn adopt(&mut self, key: &HashedKey, hold: Option<(Slot, Mode, Hold)>, orphaned: bool) {
        if self.find(key).is_some() {
            return;
        }
        let id = self.entries.insert(Entry {
            key: key.clone(),
            mode: Mode::Shared,
            holders: BTreeMap::new(),
            queue: BTreeMap::new(),
            orphaned,
        });
        self.index.insert(key.hash, id);
        if let Some((slot, mode, hold)) = hold {
            self.hold(id, slot, mode, hold);
        }
    }

    /// Acquires all of `wants` or nothing. Every name must have been adopted, and none stand twice.
    pub(super) fn acquire(
        &mut self,
        step: &mut Step<'_>,
        slot: Slot,
        wants: &[(HashedKey, Mode)],
        patience: Option<WaitSpec>,
    ) -> Answer {
        let found: Option<Vec<(EntryId, Mode)>> =
            wants.iter().map(|(key, mode)| Some((self.find(key)?, *mode))).collect();
        // Of what is not known nothing is granted.
        let Some(wants) = found else { return Answer::Busy };
        if !step.spend(wants.len() * NAME) {
            return Answer::TooLarge;
        }
        let answer = self.decide(step, slot, &wants, patience);
        // Nothing that others wait for has changed: only names that were adopted for nothing must go.
        wants.iter().for_each(|&(id, _)| self.retire(step, id));
        answer
    }

    fn decide(
        &mut self,
        step: &mut Step<'_>,
        slot: Slot,
        wants: &[(EntryId, Mode)],
        patience: Option<WaitSpec>,
    ) -> Answer {
        for &(id, _) in wants {
            if let Some(held) = self.held_at(id, slot) {
                return Answer::AlreadyHeld(held);
            }
            if self.member(slot).waits.contains_key(&id) {
                return Answer::AlreadyWaiting;
            }
        }
        let free = |&(id, mode): &(EntryId, Mode)| {
            let entry = &self.entries[id];
            entry.queue.is_empty() && entry.admits(slot, mode)
        };
        if step.granting && wants.iter().all(free) {
            return Answer::Granted(self.grant(step, slot, wants));
        }
        let Some(patience) = patience else { return Answer::Busy };
        let place = Place::arrival(self.next_arrival());
        self.enqueue(step, slot, place, wants.to_vec(), patience)
    }

    /// Changes the mode of a lock that the session holds, without letting it go. Making it shared never
    /// waits and lets shared waiters in; making it exclusive waits, ahead of all others, for the other
    /// holders to go, and gets a token of its own.
    pub(super) fn convert(
        &mut self,
        step: &mut Step<'_>,
        slot: Slot,
        key: &HashedKey,
        mode: Mode,
        patience: Option<WaitSpec>,
    ) -> Answer {
        let Some(id) = self.find(key) else { return Answer::NotHeld };
        let Some(held) = self.held_at(id, slot) else {
            self.retire(step, id);
            return Answer::NotHeld;
        };
        if self.member(slot).waits.contains_key(&id) {
            return Answer::AlreadyWaiting;
        }
        if held.mode == mode || mode == Mode::Shared {
            self.change(id, |entry| {
                // Whoever held it exclusively has had the time to look after what was left.
                entry.orphaned &= entry.mode == mode;
                entry.mode = mode;
            });
            let holders = self.entries[id].holders.len();
            let grant = Grant { token: held.token, orphaned: false, holders };
            self.unsettled.push(id);
            return Answer::Granted(grant);
        }
        if self.entries[id].admits(slot, mode) {
            return self.upgrade_alone(step, slot, id);
        }
        let Some(patience) = patience else { return Answer::Busy };
        let place = Place::conversion(self.next_arrival());
        self.enqueue(step, slot, place, vec![(id, mode)], patience)
    }

    /// Makes the only holder exclusive. A shared request at the head of the queue, there because it wants
    /// other names too, did not wait for this session and does now: the one way to close a circle
    /// without waiting.
    fn upgrade_alone(&mut self, step: &mut Step<'_>, slot: Slot, id: EntryId) -> Answer {
        self.change(id, |entry| entry.mode = Mode::Exclusive);
        if let Err(tangle) = self.rank_holder(step.room, slot, id) {
            self.change(id, |entry| entry.mode = Mode::Shared);
            return self.refuse(step, tangle);
        }
        Answer::Granted(self.grant(step, slot, &[(id, Mode::Exclusive)]))
    }

    /// Gives the lock up, or the place in its queue; a waiting conversion goes with the lock.
    pub(super) fn release(&mut self, step: &mut Step<'_>, slot: Slot, key: &HashedKey) -> Option<Released> {
        let id = self.find(key)?;
        let waiting = self.member(slot).waits.get(&id).copied();
        if !step.spend(waiting.map_or(NAME, |request| self.cost(request))) {
            return None;
        }
        if let Some(request) = waiting {
            self.withdraw(step, request, Outcome::Cancelled);
            self.counts.cancels += 1;
        }
        let held = self.unhold(step.now, id, slot, false);
        self.unsettled.push(id);
        match (held, waiting) {
            (true, _) => Some(Released::Hold),
            (false, Some(_)) => Some(Released::Place),
            (false, None) => None,
        }
    }

    /// Takes a waiting request back. False if there is none of that ticket: it has ended already.
    pub(super) fn cancel(&mut self, step: &mut Step<'_>, slot: Slot, ticket: Ticket) -> bool {
        let Some(&request) = self.member(slot).requests.get(&ticket) else { return false };
        if !step.spend(self.cost(request)) {
            return false;
        }
        self.counts.cancels += 1;
        self.withdraw(step, request, Outcome::Cancelled);
        true
    }

    /// Ends those of the session's waits whose deadline has come, as far as there is room; returns the next
    /// deadline of those that are left.
    pub(super) fn expire(&mut self, step: &mut Step<'_>, slot: Slot) -> Option<Stamp> {
        loop {
            let &(deadline, ticket) = self.member(slot).deadlines.first()?;
            // A deadline is there for as long as its request is.
            let request = self.member(slot).requests[&ticket];
            if deadline > step.now || !step.spend(self.cost(request)) {
                return Some(deadline);
            }
            self.counts.timeouts += 1;
            self.withdraw(step, request, Outcome::TimedOut);
        }
    }

    /// Ends the session's waits, as far as there is room, because the session is ending (`Lost`) or the broker is
    /// (`Stopping`).
    pub(super) fn end_waits(&mut self, step: &mut Step<'_>, slot: Slot, why: Outcome) {
        while let Some((_, &request)) = self.member(slot).requests.first_key_value() {
            if !step.spend(self.cost(request)) {
                return;
            }
            self.withdraw(step, request, why);
        }
    }

    /// Frees the locks of a session that has ended, as far as there is room, and forgets it if that was all. Those
    /// of one that has `vanished` are orphans.
    pub(super) fn end_holds(&mut self, step: &mut Step<'_>, slot: Slot, vanished: bool) {
        while let Some(&id) = self.member(slot).holds.first() {
            if !step.spend(NAME) {
                return;
            }
            match self.entries[id].mode {
                _ if !vanished => {}
                Mode::Exclusive => self.counts.orphans_exclusive += 1,
                Mode::Shared => self.counts.orphans_shared += 1,
            }
            self.unhold(step.now, id, slot, vanished);
            self.unsettled.push(id);
        }
        *self.member(slot) = Member::default();
    }

    /// Whether the session holds or waits for anything here.
    #[cfg(test)]
    pub(super) fn has_member(&mut self, slot: Slot) -> bool {
        let member = self.member(slot);
        !member.holds.is_empty() || !member.requests.is_empty()
    }

    fn find(&self, key: &HashedKey) -> Option<EntryId> {
        self.index.find(key.hash, |id| self.entries[id].key.key == key.key)
    }

    fn member(&mut self, slot: Slot) -> &mut Member {
        let at = slot as usize;
        if at >= self.members.len() {
            self.members.resize_with(at + 1, Member::default);
        }
        &mut self.members[at]
    }

    fn next_arrival(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals
    }

    fn held_at(&self, id: EntryId, slot: Slot) -> Option<Held> {
        let entry = &self.entries[id];
        entry.holders.get(&slot).map(|hold| Held { mode: entry.mode, token: hold.token })
    }

    /// Changes how an entry is held, and counts it where it then belongs.
    fn change<R>(&mut self, id: EntryId, change: impl FnOnce(&mut Entry) -> R) -> R {
        let entry = &mut self.entries[id];
        let before = entry.held_as();
        let result = change(entry);
        let after = entry.held_as();
        let mut count = |mode, by: fn(&mut usize)| match mode {
            Some(Mode::Exclusive) => by(&mut self.names_held.0),
            Some(Mode::Shared) => by(&mut self.names_held.1),
            None => {}
        };
        count(before, |count| *count -= 1);
        count(after, |count| *count += 1);
        result
    }

    fn hold(&mut self, id: EntryId, slot: Slot, mode: Mode, hold: Hold) {
        let (before, contended) = self.change(id, |entry| {
            entry.mode = mode;
            (entry.holders.insert(slot, hold), !entry.queue.is_empty())
        });
        if let Some(before) = before {
            self.counts.hold_times.add(hold.since.since(before.since));
        } else {
            self.holds += 1;
            let rank = if self.member(slot).rank == 0 { self.next_rank() } else { self.member(slot).rank };
            let member = self.member(slot);
            member.rank = rank;
            member.holds.insert(id);
            if contended {
                member.contended.insert(id);
            }
        }
    }

    fn unhold(&mut self, now: Stamp, id: EntryId, slot: Slot, vanished: bool) -> bool {
        let (held, contended) = self.change(id, |entry| {
            let held = entry.holders.remove(&slot);
            // A shared holder leaves the mark for the next exclusive one.
            if held.is_some() && entry.mode == Mode::Exclusive {
                entry.orphaned = vanished;
            }
            (held, !entry.queue.is_empty())
        });
        if let Some(hold) = held {
            self.holds -= 1;
            self.counts.hold_times.add(now.since(hold.since));
            let member = self.member(slot);
            member.holds.remove(&id);
            if contended {
                member.contended.remove(&id);
            }
        }
        held.is_some()
    }

    /// Makes the session a holder of each: the caller has checked that each admits it.
    fn grant(&mut self, step: &Step<'_>, slot: Slot, wants: &[(EntryId, Mode)]) -> Grant {
        let token = step.tokens.next();
        let mut grant = Grant { token, orphaned: false, holders: 1 };
        for &(id, mode) in wants {
            let entry = &mut self.entries[id];
            debug_assert!(entry.admits(slot, mode));
            grant.orphaned |= entry.orphaned;
            self.hold(id, slot, mode, Hold { token, since: step.now });
            grant.holders = if wants.len() == 1 { self.entries[id].holders.len() } else { 1 };
        }
        self.counts.grants += 1;
        grant
    }
}

impl Entry {
    fn held_as(&self) -> Option<Mode> {
        (!self.holders.is_empty()).then_some(self.mode)
    }

    /// Whether `slot` can be a holder in `mode` beside the holders there are; itself is in nobody's way.
    fn admits(&self, slot: Slot, mode: Mode) -> bool {
        match (mode, self.mode) {
            (Mode::Shared, Mode::Shared) => true,
            _ => self.holders.is_empty() || (self.holders.len() == 1 && self.holders.contains_key(&slot)),
        }
    }
}

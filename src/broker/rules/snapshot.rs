//! The table as data, and a table made from data. What is given is checked, whoever made it: a
//! table in which a lock has more holders than one of them was promised, or in which a request
//! waits for ever, is refused.
//!
//! What could be different without making a difference is left out: where entries and requests
//! are kept, the numbers of arrivals (their order counts), and where an attempt to grant left off.

use std::cmp::Reverse;
use std::collections::HashSet;

use crate::broker::clock::Stamp;
use crate::broker::limits::NAMES_AT_ONCE_MAX;
use crate::broker::mode::Mode;
use crate::broker::rules::entry::QueuePlace;
use crate::broker::rules::index::EntryId;
use crate::broker::rules::step::{HashedKey, Slot, Ticket};
use crate::broker::rules::table::{QueuedRequest, SlotState, Table, TableCounts};
use crate::broker::rules::view::HolderView;

/// Ranks stay between this and its negative, so that there is always a higher one and a lower one.
const RANKS_END: u64 = 1 << 53;

/// The content of a table that has nothing unsettled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TableSnapshot {
    pub(crate) entries: Vec<EntrySnapshot>,
    /// In the order in which they came.
    pub(crate) requests: Vec<RequestSnapshot>,
    /// By slot. A session without one has rank 0.
    pub(crate) ranks: Vec<i64>,
    pub(crate) counts: TableCounts,
}

/// One name: held by several sessions, or waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntrySnapshot {
    pub(crate) key: HashedKey,
    pub(crate) orphaned: bool,
    pub(crate) holders: Vec<HolderView>,
}

/// A request that waits. It is a conversion if its session holds what it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestSnapshot {
    pub(crate) slot: Slot,
    pub(crate) ticket: Ticket,
    /// Indices of entries, and modes.
    pub(crate) wants: Vec<(usize, Mode)>,
    pub(crate) since: Stamp,
    pub(crate) deadline: Option<Stamp>,
}

impl Table {
    /// Everything in the table. To be called when nothing is unsettled.
    pub(crate) fn snapshot(&self) -> TableSnapshot {
        debug_assert!(self.unsettled.is_empty(), "a table is not used while its state is copied");
        let mut index_of = vec![0; self.entries.end() as usize];
        let mut entries = Vec::with_capacity(self.entries.len());
        for (id, entry) in self.entries.iter() {
            index_of[id as usize] = entries.len();
            let holder = |(&slot, &(mode, hold))| HolderView { slot, mode, hold };
            let holders = entry.holders().iter().map(holder).collect();
            entries.push(EntrySnapshot { key: entry.key.clone(), orphaned: entry.orphaned, holders });
        }
        let mut requests: Vec<&QueuedRequest> = self.requests.iter().map(|(_, request)| request).collect();
        requests.sort_unstable_by_key(|request| request.place.number());
        let request = |request: &QueuedRequest| RequestSnapshot {
            slot: request.slot,
            ticket: request.ticket,
            wants: request.wants.iter().map(|&(id, mode)| (index_of[id as usize], mode)).collect(),
            since: request.since,
            deadline: request.deadline,
        };
        TableSnapshot {
            entries,
            requests: requests.into_iter().map(request).collect(),
            ranks: self.sessions.iter().map(|session| session.rank).collect(),
            counts: self.counts,
        }
    }

    /// A table with this content. `granting`: it is not in a grace. No name may be in it twice, and
    /// there must be a session for each slot.
    ///
    /// # Errors
    /// If there can be no such table. The text says why.
    pub(crate) fn restore(snapshot: TableSnapshot, granting: bool) -> Result<Self, String> {
        let TableSnapshot { entries, requests, ranks, counts } = snapshot;
        check_ranks(&ranks)?;
        let highest_rank = ranks.iter().copied().fold(0, i64::max);
        let lowest_rank = ranks.iter().copied().fold(0, i64::min);
        let sessions = ranks.into_iter().map(|rank| SlotState { rank, ..SlotState::default() });
        let sessions = sessions.collect();
        let mut table = Self { sessions, highest_rank, lowest_rank, counts, ..Self::default() };
        let mut ids = Vec::with_capacity(entries.len());
        for entry in entries {
            ids.push(table.restore_entry(entry)?);
        }
        for request in requests {
            table.restore_request(request, &ids)?;
        }
        table.check_restored(granting)?;
        if cfg!(debug_assertions) {
            table.check_invariants();
        }
        Ok(table)
    }

    fn restore_entry(&mut self, entry: EntrySnapshot) -> Result<EntryId, String> {
        let EntrySnapshot { key, orphaned, holders } = entry;
        let name = key.key.name.clone();
        let mut slots = HashSet::new();
        for &HolderView { slot, mode, hold: _ } in &holders {
            if !slots.insert(slot) {
                return Err(format!("one session holds {name:?} twice"));
            }
            if !mode.allows(holders.len()) {
                return Err(format!("{name:?} has {} holders, and one is promised {mode}", holders.len()));
            }
            if self.rank(slot) == 0 {
                return Err(format!("a session that holds {name:?} has no rank"));
            }
        }
        if self.find(&key).is_some() {
            return Err(format!("{name:?} is there twice"));
        }
        self.adopt(&key, None, orphaned);
        let id = self.find(&key).ok_or("a name was not added to the table")?;
        for HolderView { slot, mode, hold } in holders {
            self.hold(id, slot, mode, hold);
        }
        Ok(id)
    }

    fn restore_request(&mut self, request: RequestSnapshot, ids: &[EntryId]) -> Result<(), String> {
        let RequestSnapshot { slot, ticket, wants, since, deadline } = request;
        if wants.is_empty() || wants.len() > NAMES_AT_ONCE_MAX {
            return Err(format!("a request waits for {} names", wants.len()));
        }
        let id = |&(index, mode): &(usize, Mode)| Some((*ids.get(index)?, mode));
        let wants: Option<Vec<(EntryId, Mode)>> = wants.iter().map(id).collect();
        let wants = wants.ok_or("a request waits for a name that is not in the table")?;
        if self.rank(slot) == 0 {
            return Err("a session that waits has no rank".to_owned());
        }
        if self.session(slot).requests.contains_key(&ticket) {
            return Err(format!("a session has two waits with the ticket {ticket}"));
        }
        let mut names = HashSet::new();
        for &(id, _) in &wants {
            if !names.insert(id) || self.session(slot).waits.contains_key(&id) {
                let name = &self.entries[id].key.key.name;
                return Err(format!("a session waits for {name:?} twice"));
            }
        }
        let arrival = self.next_arrival();
        let place = match self.conversion_of(slot, &wants)? {
            Some(mode) => QueuePlace::Conversion(Reverse(mode), arrival),
            None => QueuePlace::Arrival(arrival),
        };
        self.insert_request(QueuedRequest {
            slot,
            ticket,
            place,
            wants,
            since,
            deadline,
            first_unchecked: 0,
        });
        Ok(())
    }

    /// The mode to which a request of this session would convert a lock; `None` if the session holds
    /// nothing of what it wants.
    fn conversion_of(&self, slot: Slot, wants: &[(EntryId, Mode)]) -> Result<Option<Mode>, String> {
        let held = |&(id, mode): &(EntryId, Mode)| Some((id, self.held_by(id, slot)?.mode, mode));
        let Some((id, held, wanted)) = wants.iter().find_map(held) else { return Ok(None) };
        if wants.len() > 1 || wanted >= held {
            let name = &self.entries[id].key.key.name;
            return Err(format!("a session waits for {name:?}, which it holds ({held}), as {wanted}"));
        }
        Ok(Some(wanted))
    }

    /// What is not known of a single entry or request.
    fn check_restored(&self, granting: bool) -> Result<(), String> {
        for (_, entry) in self.entries.iter() {
            if entry.holders().is_empty() && entry.queue.is_empty() {
                return Err(format!("nobody holds {:?} or waits for it", entry.key.key.name));
            }
        }
        for (id, request) in self.requests.iter() {
            if granting && self.obstacle_of(id).is_none() {
                let name = request.wants.first().map(|want| &self.entries[want.0].key.key.name);
                return Err(format!("a request waits for {name:?}, which it could be granted"));
            }
        }
        self.entries.iter().try_for_each(|(id, _)| self.check_ranks_at(id))
    }

    /// Whether each session that waits for this name has a higher rank than those that it waits for
    /// because of this name. Looks at each holder and each place once.
    fn check_ranks_at(&self, id: EntryId) -> Result<(), String> {
        let entry = &self.entries[id];
        // The holder with the highest rank, and the one with the second highest: a session that
        // converts does not wait for itself.
        let mut highest = [(i64::MIN, None); 2];
        for &slot in entry.holders().keys() {
            let rank = self.rank(slot);
            if rank > highest[0].0 {
                highest = [(rank, Some(slot)), highest[0]];
            } else if rank > highest[1].0 {
                highest[1] = (rank, Some(slot));
            }
        }
        let mut ahead = i64::MIN;
        for &request in entry.queue.values() {
            let request = &self.requests[request];
            let rank = self.rank(request.slot);
            let wants_exclusive = request.wants.contains(&(id, Mode::Exclusive));
            if wants_exclusive || entry.is_exclusive() {
                let other = highest.iter().find(|(_, slot)| *slot != Some(request.slot));
                ahead = other.map_or(ahead, |(rank, _)| ahead.max(*rank));
            }
            if rank <= ahead {
                return Err(format!(
                    "a session with rank {rank} waits for {:?} and for a session with rank {ahead}",
                    entry.key.key.name
                ));
            }
            // Those after it wait for it, and so for those that it waits for.
            ahead = rank;
        }
        Ok(())
    }
}

/// No two sessions have the same rank, except that any number have none.
fn check_ranks(ranks: &[i64]) -> Result<(), String> {
    let mut seen = HashSet::new();
    match ranks.iter().find(|&&rank| rank.unsigned_abs() >= RANKS_END || rank != 0 && !seen.insert(rank)) {
        Some(rank) => Err(format!("two sessions have rank {rank}, or it is too far from 0")),
        None => Ok(()),
    }
}

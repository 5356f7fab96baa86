//! Deadlock: whether sessions wait for each other in a circle. Looked for once, when a request is
//! queued or the only holder of a name becomes exclusive, since nothing else lets a session wait for
//! one it did not wait for before.
//!
//! A session waits for those who hold, in a conflicting mode, a name it has a place for; and for the
//! one just ahead of it in that queue, since nobody overtakes. (Those further ahead are reached
//! through that one.) Sessions, not requests: a session with two waits waits for both.
//!
//! Every session has a rank of its own, above those of all whom it waits for: that is how it is known that
//! there is no circle. Nearly every new wait agrees with the ranks as they are. If one does not, a circle can
//! only lead through sessions that are ranked between the two it sets at odds: so those alone are looked at,
//! and if there is no circle, ranked anew among themselves. (The algorithm is Pearce and Kelly's.)

use std::collections::{HashMap, HashSet, VecDeque};

use crate::broker::outcome::Mode;
use crate::broker::rules::{EntryId, Place, Slot, Table};

/// Why a session may not wait.
#[derive(Debug)]
pub(super) enum WaitRejected {
    /// These would wait for each other, the asker first.
    Circle(Vec<Slot>),
    /// More places and holders would have to be looked at than there is room for.
    TooLarge,
}

/// What a session has just begun to wait for, and to be waited for by.
#[derive(Default)]
struct NewEdges {
    ahead: Vec<Slot>,
    behind: Vec<Slot>,
}

impl Table {
    /// Ranks the session above all whom its new request makes it wait for. Only when the request is in its
    /// queues, since a conversion also steps in front of those who wait.
    pub(super) fn rank_waiter(
        &mut self,
        room: usize,
        slot: Slot,
        place: Place,
        wants: &[(EntryId, Mode)],
    ) -> Result<(), WaitRejected> {
        if !self.is_waited_for(slot) {
            // What keeps ten thousand waiters on one name cheap, and is what most waiters are: nobody's
            // rank is above one that nobody waits for.
            self.members[slot as usize].rank = self.next_rank();
            return Ok(());
        }
        let mut search = Search::of(self, room);
        let mut news = NewEdges::default();
        for &want in wants {
            search.add_those_ahead(slot, place, want, &mut news.ahead)?;
            news.behind.extend(search.just_behind(want.0, place));
        }
        let room = search.room;
        self.rank_between(room, slot, &news)
    }

    /// Ranks the session, which holds the name exclusively now, below those who wait for the name.
    pub(super) fn rank_holder(&mut self, room: usize, slot: Slot, id: EntryId) -> Result<(), WaitRejected> {
        let mut search = Search::of(self, room);
        let behind = search.first_obstructed(slot, id)?.into_iter().collect();
        let room = search.room;
        self.rank_between(room, slot, &NewEdges { ahead: Vec::new(), behind })
    }

    fn rank_between(&mut self, room: usize, slot: Slot, news: &NewEdges) -> Result<(), WaitRejected> {
        let own = self.rank(slot);
        let lowest = news.behind.iter().map(|&one| self.rank(one)).fold(own, u64::min);
        let highest = news.ahead.iter().map(|&one| self.rank(one)).fold(own, u64::max);
        if lowest == own && highest == own {
            return Ok(());
        }
        let mut search = Search::of(self, room);
        // What it has waited for all along is ranked below it already.
        let first = if lowest == own { news.ahead.clone() } else { search.waits_for(slot)? };
        let mut below = search.reached(slot, first, lowest)?;
        let mut above = search.reaching(slot, highest)?;
        below.sort_unstable_by_key(|&one| self.rank(one));
        above.sort_unstable_by_key(|&one| self.rank(one));
        let in_order: Vec<Slot> = below.into_iter().chain([slot]).chain(above).collect();
        let mut ranks: Vec<u64> = in_order.iter().map(|&one| self.rank(one)).collect();
        ranks.sort_unstable();
        for (one, rank) in in_order.into_iter().zip(ranks) {
            self.members[one as usize].rank = rank;
        }
        Ok(())
    }

    /// A rank above all others.
    pub(super) fn next_rank(&mut self) -> u64 {
        self.ranks += 1;
        self.ranks
    }

    fn rank(&self, slot: Slot) -> u64 {
        self.members.get(slot as usize).map_or(0, |member| member.rank)
    }

    fn is_waited_for(&self, slot: Slot) -> bool {
        let member = self.members.get(slot as usize);
        member.is_some_and(|member| !member.contended.is_empty() || member.followed > 0)
    }
}

/// Searches along "waits for", each session and each name's holders visited once.
struct Search<'a> {
    table: &'a Table,
    /// How many more places and holders may be looked at.
    room: usize,
    holders_done: HashSet<EntryId>,
}

impl<'a> Search<'a> {
    fn of(table: &'a Table, room: usize) -> Self {
        Self { table, room, holders_done: HashSet::new() }
    }

    fn look(&mut self, times: usize) -> Result<(), WaitRejected> {
        self.room = self.room.checked_sub(times).ok_or(WaitRejected::TooLarge)?;
        Ok(())
    }

    /// Whom `start` waits for, in the end, of those with this rank or a higher one; or the shortest circle.
    fn reached(&mut self, start: Slot, first: Vec<Slot>, lowest: u64) -> Result<Vec<Slot>, WaitRejected> {
        let mut came_from: HashMap<Slot, Slot> = HashMap::new();
        let mut open = VecDeque::new();
        let (mut slot, mut all_next) = (start, first);
        loop {
            for next in all_next {
                if next == start {
                    return Err(WaitRejected::Circle(path(&came_from, start, slot)));
                }
                if self.table.rank(next) >= lowest && !came_from.contains_key(&next) {
                    came_from.insert(next, slot);
                    open.push_back(next);
                }
            }
            let Some(next) = open.pop_front() else { return Ok(came_from.into_keys().collect()) };
            slot = next;
            all_next = self.waits_for(slot)?;
        }
    }

    /// Who waits for `start`, in the end, of those with this rank or a lower one.
    fn reaching(&mut self, start: Slot, highest: u64) -> Result<Vec<Slot>, WaitRejected> {
        let mut found = HashSet::new();
        let mut open = vec![start];
        while let Some(slot) = open.pop() {
            for next in self.waited_for_by(slot)? {
                if self.table.rank(next) <= highest && found.insert(next) {
                    open.push(next);
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    fn waits_for(&mut self, slot: Slot) -> Result<Vec<Slot>, WaitRejected> {
        let table = self.table;
        let mut found = Vec::new();
        let Some(member) = table.members.get(slot as usize) else { return Ok(found) };
        for &request in member.requests.values() {
            let request = &table.requests[request];
            for &want in &request.wants {
                self.add_those_ahead(slot, request.place, want, &mut found)?;
            }
        }
        Ok(found)
    }

    /// Adds whom a place in one queue makes its session wait for.
    fn add_those_ahead(
        &mut self,
        slot: Slot,
        place: Place,
        (id, mode): (EntryId, Mode),
        found: &mut Vec<Slot>,
    ) -> Result<(), WaitRejected> {
        let table = self.table;
        let entry = &table.entries[id];
        self.look(1)?;
        if let Some((_, &ahead)) = entry.queue.range(..place).next_back() {
            found.push(table.requests[ahead].slot);
        }
        let conflict = mode == Mode::Exclusive || entry.mode == Mode::Exclusive;
        // A converting session is a holder and leaves itself out, so the next one must look again.
        let converts = entry.holders.contains_key(&slot);
        if conflict && (converts || self.holders_done.insert(id)) {
            self.look(entry.holders.len())?;
            found.extend(entry.holders.keys().copied().filter(|&holder| holder != slot));
        }
        Ok(())
    }

    fn waited_for_by(&mut self, slot: Slot) -> Result<Vec<Slot>, WaitRejected> {
        let table = self.table;
        let mut found = Vec::new();
        let Some(member) = table.members.get(slot as usize) else { return Ok(found) };
        for &id in &member.contended {
            found.extend(self.first_obstructed(slot, id)?);
        }
        for &request in member.requests.values() {
            let request = &table.requests[request];
            self.look(request.wants.len())?;
            found.extend(request.wants.iter().filter_map(|want| self.just_behind(want.0, request.place)));
        }
        Ok(found)
    }

    fn just_behind(&self, id: EntryId, place: Place) -> Option<Slot> {
        use std::ops::Bound::{Excluded, Unbounded};
        let (_, &behind) = self.table.entries[id].queue.range((Excluded(place), Unbounded)).next()?;
        Some(self.table.requests[behind].slot)
    }

    /// The first in the queue of a name that waits for this holder of it. Those behind that one wait for it,
    /// and so for the holder.
    fn first_obstructed(&mut self, holder: Slot, id: EntryId) -> Result<Option<Slot>, WaitRejected> {
        let table = self.table;
        let entry = &table.entries[id];
        for &request in entry.queue.values() {
            let request = &table.requests[request];
            let wants_exclusive = |want: &(EntryId, Mode)| want.0 == id && want.1 == Mode::Exclusive;
            self.look(if entry.mode == Mode::Exclusive { 1 } else { request.wants.len() })?;
            let conflict = entry.mode == Mode::Exclusive || request.wants.iter().any(wants_exclusive);
            if conflict && request.slot != holder {
                return Ok(Some(request.slot));
            }
        }
        Ok(None)
    }
}

/// How `last` was reached, from `start`.
fn path(came_from: &HashMap<Slot, Slot>, start: Slot, last: Slot) -> Vec<Slot> {
    let mut path = vec![last];
    let mut at = last;
    while let Some(&before) = came_from.get(&at).filter(|_| at != start) {
        path.push(before);
        at = before;
    }
    path.reverse();
    path
}

//! Deadlock: whether sessions wait for each other in a cycle. Checked once, when a request is
//! queued or the only holder of a name becomes exclusive. One other event makes sessions start to
//! wait for another one: in the grace a session becomes a holder of a name for which others wait
//! already. It waits for nobody then, so that cannot close a cycle.
//!
//! A session waits for each holder that must go before its queued request can be granted: for all
//! holders if it wants the name exclusively, and for an exclusive holder. And it waits for the
//! session right before it in the queue, since no request overtakes. (Requests further ahead count
//! as well: each waits for the one before it.) Sessions wait, not requests: a session with two
//! requests waits for what both of them wait for.
//!
//! A request that waits because a limit is reached needs *some* holders to go, and any of them will
//! do. So it waits for none of them in particular, and a cycle through such a name is not found,
//! even if all its holders wait for the session. So there is no false alarm among sessions that make
//! one request at a time. (With two, one may be what others wait for, and the other what it waits
//! for itself.)
//!
//! Every session has a *rank*, higher than the ranks of all sessions that it waits for. While there
//! are such ranks, there is no cycle. Nearly every new wait agrees with the ranks as they are. If
//! one does not, a cycle can only lead through sessions whose ranks are between the two that are in
//! the wrong order: only those are visited. If there is no cycle, they get new ranks among
//! themselves. This is the algorithm of Pearce and Kelly (*A dynamic topological sort algorithm for
//! directed acyclic graphs*, 2006).

use std::collections::{HashMap, HashSet, VecDeque};

use crate::broker::mode::Mode;
use crate::broker::rules::entry::QueuePlace;
use crate::broker::rules::index::EntryId;
use crate::broker::rules::step::Slot;
use crate::broker::rules::table::Table;

/// Why a session may not wait.
#[derive(Debug)]
pub(super) enum WaitRejected {
    /// These sessions would wait for each other, the asking one first.
    Cycle(Vec<Slot>),
    /// The search would have to visit more places and holders than the budget allows.
    TooLarge,
}

/// What has just begun: sessions that this one waits for, and sessions that wait for this one.
#[derive(Default)]
struct NewEdges {
    ahead: Vec<Slot>,
    behind: Vec<Slot>,
}

impl Table {
    /// Ranks the session above all sessions that its new request makes it wait for, and below those
    /// that now wait for it. The request must be in its queues.
    pub(super) fn rank_waiter(
        &mut self,
        budget: usize,
        slot: Slot,
        place: QueuePlace,
        wants: &[(EntryId, Mode)],
    ) -> Result<(), WaitRejected> {
        if !self.is_waited_for(slot) {
            // Nobody's rank must be above that of a session that nobody waits for, so it can get
            // the highest. Most waiters are like this, and it is what keeps ten thousand waiters on
            // one name cheap.
            self.sessions[slot as usize].rank = self.next_rank();
            return Ok(());
        }
        let mut search = Search::new(self, budget);
        let mut edges = NewEdges::default();
        for &want in wants {
            search.add_those_ahead(slot, place, want, &mut edges.ahead)?;
            edges.behind.extend(search.right_after(want.0, place));
        }
        let budget = search.budget;
        self.rank_between(budget, slot, &edges)
    }

    /// Ranks the session, which holds the name exclusively now, below those that wait for the name.
    pub(super) fn rank_holder(&mut self, budget: usize, slot: Slot, id: EntryId) -> Result<(), WaitRejected> {
        debug_assert!(self.entries[id].is_exclusive() && self.entries[id].holders().contains_key(&slot));
        let mut search = Search::new(self, budget);
        let behind = search.first_obstructed(slot, id)?.into_iter().collect();
        let budget = search.budget;
        self.rank_between(budget, slot, &NewEdges { ahead: Vec::new(), behind })
    }

    fn rank_between(&mut self, budget: usize, slot: Slot, edges: &NewEdges) -> Result<(), WaitRejected> {
        let own = self.rank(slot);
        let lowest = edges.behind.iter().map(|&one| self.rank(one)).fold(own, i64::min);
        let highest = edges.ahead.iter().map(|&one| self.rank(one)).fold(own, i64::max);
        debug_assert!(
            own != 0 && edges.behind.iter().all(|&one| self.rank(one) != 0),
            "a session that holds or waits has a rank"
        );
        if lowest == own && highest == own {
            return Ok(());
        }
        let mut search = Search::new(self, budget);
        // Sessions that it has waited for before are ranked below it already.
        let first = if lowest == own { edges.ahead.clone() } else { search.waits_for(slot)? };
        let mut below = search.reached_from(slot, first, lowest)?;
        let mut above = search.reaching(slot, highest)?;
        below.sort_unstable_by_key(|&one| self.rank(one));
        above.sort_unstable_by_key(|&one| self.rank(one));
        // The same ranks as before, in the new order.
        let in_order: Vec<Slot> = below.into_iter().chain([slot]).chain(above).collect();
        let mut ranks: Vec<i64> = in_order.iter().map(|&one| self.rank(one)).collect();
        ranks.sort_unstable();
        debug_assert!(ranks.windows(2).all(|pair| pair[0] < pair[1]), "no two sessions have the same rank");
        for (one, rank) in in_order.into_iter().zip(ranks) {
            self.sessions[one as usize].rank = rank;
        }
        debug_assert!(edges.ahead.iter().all(|&one| self.rank(one) < self.rank(slot)));
        debug_assert!(edges.behind.iter().all(|&one| self.rank(one) > self.rank(slot)));
        Ok(())
    }

    /// A rank above all others.
    pub(super) fn next_rank(&mut self) -> i64 {
        self.highest_rank += 1;
        self.highest_rank
    }

    /// Ranks the session, which waits for nobody, below all others.
    pub(super) fn rank_lowest(&mut self, slot: Slot) {
        debug_assert!(self.session(slot).requests.is_empty(), "it waits for nobody");
        self.lowest_rank -= 1;
        self.session(slot).rank = self.lowest_rank;
    }

    pub(super) fn rank(&self, slot: Slot) -> i64 {
        self.sessions.get(slot as usize).map_or(0, |session| session.rank)
    }

    fn is_waited_for(&self, slot: Slot) -> bool {
        let session = self.sessions.get(slot as usize);
        session.is_some_and(|session| !session.contended.is_empty() || session.followed > 0)
    }

    /// The sessions that this one waits for, some perhaps twice. Looks at every holder of the
    /// names.
    pub(super) fn waits_for(&self, slot: Slot) -> Vec<Slot> {
        Search::new(self, usize::MAX).waits_for(slot).unwrap_or_default()
    }
}

/// A search along "waits for" that visits each session, and the holders of each name, once.
struct Search<'a> {
    table: &'a Table,
    /// How many more places and holders may be looked at.
    budget: usize,
    holders_visited: HashSet<EntryId>,
}

impl<'a> Search<'a> {
    fn new(table: &'a Table, budget: usize) -> Self {
        Self { table, budget, holders_visited: HashSet::new() }
    }

    fn spend(&mut self, cost: usize) -> Result<(), WaitRejected> {
        self.budget = self.budget.checked_sub(cost).ok_or(WaitRejected::TooLarge)?;
        Ok(())
    }

    /// The sessions that `start` waits for, directly or through others, with a rank of at least
    /// `lowest`; `first` are those that it waits for directly. If `start` is among them, the
    /// shortest cycle.
    fn reached_from(
        &mut self,
        start: Slot,
        first: Vec<Slot>,
        lowest: i64,
    ) -> Result<Vec<Slot>, WaitRejected> {
        let mut came_from: HashMap<Slot, Slot> = HashMap::new();
        let mut to_visit = VecDeque::new();
        let (mut slot, mut all_next) = (start, first);
        loop {
            for next in all_next {
                if next == start {
                    return Err(WaitRejected::Cycle(path(&came_from, start, slot)));
                }
                if self.table.rank(next) >= lowest && !came_from.contains_key(&next) {
                    came_from.insert(next, slot);
                    to_visit.push_back(next);
                }
            }
            let Some(next) = to_visit.pop_front() else { return Ok(came_from.into_keys().collect()) };
            slot = next;
            all_next = self.waits_for(slot)?;
        }
    }

    /// The sessions that wait for `start`, directly or through others, with a rank of at most
    /// `highest`.
    fn reaching(&mut self, start: Slot, highest: i64) -> Result<Vec<Slot>, WaitRejected> {
        let mut found = HashSet::new();
        let mut to_visit = vec![start];
        while let Some(slot) = to_visit.pop() {
            for next in self.waited_for_by(slot)? {
                if self.table.rank(next) <= highest && found.insert(next) {
                    to_visit.push(next);
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    /// The sessions that `slot` waits for directly.
    fn waits_for(&mut self, slot: Slot) -> Result<Vec<Slot>, WaitRejected> {
        let table = self.table;
        let mut found = Vec::new();
        let Some(session) = table.sessions.get(slot as usize) else { return Ok(found) };
        for &request in session.requests.values() {
            let request = &table.requests[request];
            for &want in &request.wants {
                self.add_those_ahead(slot, request.place, want, &mut found)?;
            }
        }
        Ok(found)
    }

    /// Adds the sessions that a place in one queue makes its session wait for.
    fn add_those_ahead(
        &mut self,
        slot: Slot,
        place: QueuePlace,
        (id, mode): (EntryId, Mode),
        found: &mut Vec<Slot>,
    ) -> Result<(), WaitRejected> {
        let table = self.table;
        let entry = &table.entries[id];
        self.spend(1)?;
        if let Some((_, &ahead)) = entry.queue.range(..place).next_back() {
            found.push(table.requests[ahead].slot);
        }
        let conflicts = mode == Mode::Exclusive || entry.is_exclusive();
        // A converting session is a holder and skips itself, so this visit is incomplete: the name
        // does not count as visited.
        let converts = entry.holders().contains_key(&slot);
        if conflicts && (converts || self.holders_visited.insert(id)) {
            self.spend(entry.holders().len())?;
            found.extend(entry.holders().keys().copied().filter(|&holder| holder != slot));
        }
        Ok(())
    }

    /// The sessions that wait for `slot` directly.
    fn waited_for_by(&mut self, slot: Slot) -> Result<Vec<Slot>, WaitRejected> {
        let table = self.table;
        let mut found = Vec::new();
        let Some(session) = table.sessions.get(slot as usize) else { return Ok(found) };
        for &id in &session.contended {
            found.extend(self.first_obstructed(slot, id)?);
        }
        for &request in session.requests.values() {
            let request = &table.requests[request];
            self.spend(request.wants.len())?;
            found.extend(request.wants.iter().filter_map(|want| self.right_after(want.0, request.place)));
        }
        Ok(found)
    }

    /// The session whose request is right after that place.
    fn right_after(&self, id: EntryId, place: QueuePlace) -> Option<Slot> {
        use std::ops::Bound::{Excluded, Unbounded};
        let (_, &next) = self.table.entries[id].queue.range((Excluded(place), Unbounded)).next()?;
        Some(self.table.requests[next].slot)
    }

    /// The first session in the queue of a name that waits for this holder of it. Those after it
    /// wait for it, and so for the holder.
    fn first_obstructed(&mut self, holder: Slot, id: EntryId) -> Result<Option<Slot>, WaitRejected> {
        let table = self.table;
        let entry = &table.entries[id];
        let is_exclusive = entry.is_exclusive();
        for &request in entry.queue.values() {
            let request = &table.requests[request];
            let wants_exclusive = |want: &(EntryId, Mode)| want.0 == id && want.1 == Mode::Exclusive;
            self.spend(if is_exclusive { 1 } else { request.wants.len() })?;
            let conflicts = is_exclusive || request.wants.iter().any(wants_exclusive);
            if conflicts && request.slot != holder {
                return Ok(Some(request.slot));
            }
        }
        Ok(None)
    }
}

/// The sessions from `start` to `last`, in the order in which the search came to them.
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

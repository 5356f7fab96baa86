//! Deadlock: whether sessions wait for each other in a circle. Looked for once, when a request is
//! queued or the only holder of a name becomes exclusive, since nothing else lets a session wait for
//! one it did not wait for before.
//!
//! A session waits for those who hold, in a conflicting mode, a name it has a place for; and for the
//! one just ahead of it in that queue, since nobody overtakes. (Those further ahead are reached
//! through that one.) Sessions, not requests: a session with two waits waits for both.

use std::collections::{HashMap, HashSet, VecDeque};

use super::super::outcome::Mode;
use super::{EntryId, Slot, Table};

impl Table {
    /// The shortest circle through `start`, `start` first; `None` if there is none.
    pub(super) fn circle(&self, start: Slot) -> Option<Vec<Slot>> {
        if !self.is_waited_for(start) {
            // What keeps ten thousand waiters on one name cheap: a session that nobody waits for
            // cannot be part of a circle, and most waiters are that.
            return None;
        }
        let mut search = Search { table: self, came_from: HashMap::new(), holders_done: HashSet::new() };
        search.run(start)
    }

    fn is_waited_for(&self, slot: Slot) -> bool {
        self.members.get(slot as usize).is_some_and(|member| member.contended > 0 || member.followed > 0)
    }
}

/// A breadth-first search along "waits for", each session and each name's holders visited once.
struct Search<'a> {
    table: &'a Table,
    came_from: HashMap<Slot, Slot>,
    holders_done: HashSet<EntryId>,
}

impl Search<'_> {
    fn run(&mut self, start: Slot) -> Option<Vec<Slot>> {
        let mut open = VecDeque::from([start]);
        while let Some(slot) = open.pop_front() {
            for next in self.waits_for(slot) {
                if next == start {
                    return Some(self.path_to(slot, start));
                }
                if let std::collections::hash_map::Entry::Vacant(vacant) = self.came_from.entry(next) {
                    vacant.insert(slot);
                    open.push_back(next);
                }
            }
        }
        None
    }

    fn path_to(&self, last: Slot, start: Slot) -> Vec<Slot> {
        let mut path = vec![last];
        let mut at = last;
        while let Some(&before) = self.came_from.get(&at).filter(|_| at != start) {
            path.push(before);
            at = before;
        }
        path.reverse();
        path
    }

    fn waits_for(&mut self, slot: Slot) -> Vec<Slot> {
        let table = self.table;
        let mut found = Vec::new();
        let Some(member) = table.members.get(slot as usize) else { return found };
        for &request in member.requests.values() {
            let request = &table.requests[request];
            for &(id, mode) in &request.wants {
                let entry = &table.entries[id];
                if let Some((_, &ahead)) = entry.queue.range(..request.place).next_back() {
                    found.push(table.requests[ahead].slot);
                }
                let conflict = mode == Mode::Exclusive || entry.mode == Mode::Exclusive;
                // A converting session is a holder and leaves itself out, so the next one must look again.
                let converts = entry.holders.contains_key(&slot);
                if conflict && (converts || self.holders_done.insert(id)) {
                    found.extend(entry.holders.keys().copied().filter(|&holder| holder != slot));
                }
            }
        }
        found
    }
}

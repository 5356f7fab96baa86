//! The fast lane: names that one session holds and nobody waits for, which is nearly all of them nearly
//! always. A lane grants and frees such names by one look-up and decides nothing else; a name that a
//! second session is concerned with is *deferred* to the [table](super::table), which has the rules,
//! until nobody is concerned with it any more. Plain data: no mutex, no clock, no session but its slot.
//!
//! Lanes also keep the marks of names whose last exclusive holder vanished, a bounded number of them.

mod nodes;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::broker::clock::Stamp;
use crate::broker::histogram::Histogram;
use crate::broker::name::{Key, LockName, Space};
use crate::broker::outcome::{Grant, Held, Inspection, Mode};
use crate::broker::rules::{HashedKey, Hold, Slot};
use nodes::{At, List, NONE, Node, Nodes, State};

/// An index of no more than this is left as it is.
const INDEX_MIN: usize = 1024;

/// Should it ever be otherwise, nothing here is to be believed any more: the panic breaks the broker.
const VACANT: &str = "what the index finds is no vacant node";

/// A name to look up, and its hash.
#[derive(Clone, Copy)]
pub(super) struct KeyRef<'a> {
    pub(super) space: Space,
    pub(super) name: &'a [u8],
    pub(super) hash: u64,
}

impl KeyRef<'_> {
    pub(super) fn to_owned(self) -> HashedKey {
        HashedKey { key: Key { space: self.space, name: LockName::new(self.name) }, hash: self.hash }
    }

    /// What the index knows it by; the rest of the hash has chosen the lane.
    fn short_hash(self) -> u32 {
        let [a, b, c, d, ..] = self.hash.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    fn is_of(self, node: &Node) -> bool {
        node.name.as_bytes() == self.name && node.space == self.space
    }
}

impl HashedKey {
    pub(super) fn as_ref(&self) -> KeyRef<'_> {
        KeyRef { space: self.key.space, name: self.key.name.as_bytes(), hash: self.hash }
    }
}

/// What the index knows of a node: as much of its hash as the index itself needs, so that it can grow
/// without looking at the nodes.
struct Known {
    hash: u32,
    at: At,
}

/// What a lane says to an acquire.
pub(super) enum Fast {
    Granted(Grant),
    AlreadyHeld(Held),
    /// Held by another session in a way that `mode` cannot share. True while the lane is locked only.
    Busy,
    /// Not for a lane to decide.
    Defer,
}

/// What a lane says to a release.
pub(super) enum FastRelease {
    Released,
    NotHeld,
    Defer,
}

/// Who holds a name, to whoever looks.
pub(super) enum LaneView {
    Nobody { orphaned: bool },
    One { slot: Slot, mode: Mode, hold: Hold, orphaned: bool },
    Deferred,
}

impl LaneView {
    /// The name as `slot` sees it; `None` if the table must be asked.
    pub(super) fn inspect(&self, asker: Slot) -> Option<Inspection> {
        match *self {
            Self::Nobody { orphaned } => Some(Inspection { orphaned, ..Inspection::default() }),
            Self::One { slot, mode, hold, orphaned } => Some(Inspection {
                mode: Some(mode),
                holders: 1,
                waiters: 0,
                held: (asker == slot).then_some(Held { mode, token: hold.token }),
                waiting: false,
                orphaned,
            }),
            Self::Deferred => None,
        }
    }
}

/// Where somebody who looks at what a session holds is to go on: after this name, as it was held with this token.
#[derive(Clone, Copy)]
pub(super) struct HeldPlace {
    at: At,
    token: u64,
}

/// Counts of one lane.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LaneCounts {
    pub(super) held_exclusive: usize,
    pub(super) held_shared: usize,
    pub(super) grants: u64,
    pub(super) orphans_exclusive: u64,
    pub(super) orphans_shared: u64,
    pub(super) hold_times: Histogram,
}

pub(super) struct Lane {
    index: HashTable<Known>,
    nodes: Nodes,
    /// What each session holds here, by slot.
    sessions: Vec<List>,
    /// Orphaned names that nobody holds, oldest first.
    marks: List,
    marks_held: usize,
    marks_max: usize,
    counts: LaneCounts,
}

impl Lane {
    pub(super) fn new(marks_max: usize) -> Self {
        Self {
            index: HashTable::new(),
            nodes: Nodes::default(),
            sessions: Vec::new(),
            marks: List::EMPTY,
            marks_held: 0,
            marks_max,
            counts: LaneCounts::default(),
        }
    }

    /// Grants a free name; `token` is called only then.
    pub(super) fn acquire(
        &mut self,
        key: KeyRef<'_>,
        slot: Slot,
        mode: Mode,
        now: Stamp,
        token: impl FnOnce() -> u64,
    ) -> Fast {
        let (at, is_new) = self.find_or_insert(key, State::Marked);
        if !is_new {
            match self.nodes[at].state {
                State::Held { slot: holder, mode, hold } if holder == slot => {
                    return Fast::AlreadyHeld(Held { mode, token: hold.token });
                }
                State::Held { mode: Mode::Shared, .. } if mode == Mode::Shared => return Fast::Defer,
                State::Held { .. } => return Fast::Busy,
                State::Deferred => return Fast::Defer,
                State::Vacant => unreachable!("{VACANT}"),
                State::Marked => self.unmark(at),
            }
        }
        let hold = Hold { token: token(), since: now };
        let node = &mut self.nodes[at];
        node.state = State::Held { slot, mode, hold };
        let orphaned = node.orphaned;
        self.link_to_session(at, slot);
        *self.held(mode) += 1;
        self.counts.grants += 1;
        Fast::Granted(Grant { token: hold.token, orphaned, holders: 1 })
    }

    /// Frees a name that this session holds. If it is told the time, it counts how long that was.
    pub(super) fn release(&mut self, key: KeyRef<'_>, slot: Slot, now: Option<Stamp>) -> FastRelease {
        let hash = key.short_hash();
        let nodes = &self.nodes;
        let is_it = |known: &Known| known.hash == hash && key.is_of(&nodes[known.at]);
        let Ok(found) = self.index.find_entry(spread(hash), is_it) else { return FastRelease::NotHeld };
        let at = found.get().at;
        let node = &self.nodes[at];
        match node.state {
            // Nothing is left of it: most names come and go so, and are found once for that.
            State::Held { slot: holder, mode, hold }
                if holder == slot && (mode == Mode::Exclusive || !node.orphaned) =>
            {
                found.remove();
                self.sessions[slot as usize].unlink(&mut self.nodes, at);
                self.nodes.remove(at);
                *self.held(mode) -= 1;
                self.count_time(hold, now);
                self.shrink_if_empty();
                FastRelease::Released
            }
            State::Held { slot: holder, mode, hold } if holder == slot => {
                self.count_time(hold, now);
                self.unhold(at, slot, mode, false);
                FastRelease::Released
            }
            State::Deferred => FastRelease::Defer,
            State::Held { .. } | State::Marked => FastRelease::NotHeld,
            State::Vacant => unreachable!("{VACANT}"),
        }
    }

    /// Hands the name over to the table: its holder, if it has one, and its mark. The table must adopt
    /// that before anyone else can look. `None` if the table has the name already.
    #[expect(clippy::type_complexity, reason = "taken apart at the one place that calls this")]
    pub(super) fn defer(&mut self, key: KeyRef<'_>) -> Option<(Option<(Slot, Mode, Hold)>, bool)> {
        let (at, is_new) = self.find_or_insert(key, State::Deferred);
        if is_new {
            return Some((None, false));
        }
        let node = &mut self.nodes[at];
        let orphaned = std::mem::take(&mut node.orphaned);
        match std::mem::replace(&mut node.state, State::Deferred) {
            State::Deferred => None,
            State::Vacant => unreachable!("{VACANT}"),
            State::Held { slot, mode, hold } => {
                self.sessions[slot as usize].unlink(&mut self.nodes, at);
                *self.held(mode) -= 1;
                Some((Some((slot, mode, hold)), orphaned))
            }
            State::Marked => {
                self.unmark(at);
                Some((None, orphaned))
            }
        }
    }

    /// Takes a name back from the table when nobody holds it or waits for it any more.
    pub(super) fn take_back(&mut self, key: KeyRef<'_>, orphaned: bool) {
        if let Some(at) = self.find(key) {
            self.nodes[at].orphaned = orphaned;
            self.mark_or_forget(at);
        }
    }

    /// Frees up to `at_most` names of a session that has ended; says how many there were. Those of one that has
    /// `vanished` are orphans.
    pub(super) fn end_session(
        &mut self,
        slot: Slot,
        at_most: usize,
        now: Option<Stamp>,
        vanished: bool,
    ) -> usize {
        for freed in 0..at_most {
            let Some(head) = self.sessions.get(slot as usize).map(|list| list.head).filter(|&at| at != NONE)
            else {
                return freed;
            };
            let State::Held { mode, hold, .. } = self.nodes[head].state else { return freed };
            self.count_time(hold, now);
            match mode {
                _ if !vanished => {}
                Mode::Exclusive => self.counts.orphans_exclusive += 1,
                Mode::Shared => self.counts.orphans_shared += 1,
            }
            self.unhold(head, slot, mode, vanished);
        }
        at_most
    }

    /// Who holds the name.
    pub(super) fn view(&self, key: KeyRef<'_>) -> LaneView {
        self.find(key).map_or(LaneView::Nobody { orphaned: false }, |at| view(&self.nodes[at]))
    }

    /// The names that are held or deferred, in no order but a fixed one: up to `at_most` steps from
    /// `from` on, and where to go on; `None` after the last. A name that is there from the first call
    /// to the last is seen exactly once.
    pub(super) fn scan(
        &self,
        from: usize,
        at_most: usize,
        mut each: impl FnMut(Space, &LockName, LaneView),
    ) -> Option<usize> {
        let end = self.nodes.end().min(from.saturating_add(at_most));
        for node in (from..end).filter_map(|at| self.nodes.get(at)) {
            if !matches!(node.state, State::Marked) {
                each(node.space, &node.name, view(node));
            }
        }
        (end < self.nodes.end()).then_some(end)
    }

    /// Shows up to `at_most` names that the session holds here to `each`, in the order in which it got them; says
    /// where to go on, `None` after the last. `after` is where it went on before.
    pub(super) fn held_after(
        &self,
        slot: Slot,
        after: Option<HeldPlace>,
        at_most: usize,
        mut each: impl FnMut(Space, &LockName, Mode),
    ) -> Option<HeldPlace> {
        let mut at = self.sessions.get(slot as usize).map_or(NONE, |list| list.head);
        if let Some(after) = after {
            let is_there = self.nodes.get(after.at as usize).is_some_and(|node| {
                matches!(node.state, State::Held { slot: holder, hold, .. } if holder == slot && hold.token == after.token)
            });
            if is_there {
                at = self.nodes[after.at].next;
            } else {
                // It was released meanwhile. Those got before it have lower tokens.
                while let Some((token, next)) = self.held_at(at)
                    && token < after.token
                {
                    at = next;
                }
            }
        }
        let mut last = None;
        for _ in 0..at_most {
            let (token, next) = self.held_at(at)?;
            let node = &self.nodes[at];
            if let State::Held { mode, .. } = node.state {
                each(node.space, &node.name, mode);
            }
            last = Some(HeldPlace { at, token });
            at = next;
        }
        last
    }

    /// The token of the node in a session's list, and the next one in it.
    fn held_at(&self, at: At) -> Option<(u64, At)> {
        let node = (at != NONE).then(|| &self.nodes[at])?;
        if let State::Held { hold, .. } = node.state { Some((hold.token, node.next)) } else { None }
    }

    pub(super) fn counts(&self) -> LaneCounts {
        self.counts
    }

    /// How many locks are held here, in either mode.
    pub(super) fn held_in_all(&self) -> usize {
        self.counts.held_exclusive + self.counts.held_shared
    }

    fn find(&self, key: KeyRef<'_>) -> Option<At> {
        let hash = key.short_hash();
        let is_it = |known: &Known| known.hash == hash && key.is_of(&self.nodes[known.at]);
        self.index.find(spread(hash), is_it).map(|known| known.at)
    }

    /// The node of that name. If there was none, it is new and in the given state.
    fn find_or_insert(&mut self, key: KeyRef<'_>, state: State) -> (At, bool) {
        let hash = key.short_hash();
        let nodes = &mut self.nodes;
        let is_it = |known: &Known| known.hash == hash && key.is_of(&nodes[known.at]);
        match self.index.entry(spread(hash), is_it, |known| spread(known.hash)) {
            Entry::Occupied(found) => (found.get().at, false),
            Entry::Vacant(vacant) => {
                let name = LockName::new(key.name);
                let (previous, next) = (NONE, NONE);
                let node = Node { name, state, hash, previous, next, space: key.space, orphaned: false };
                let at = nodes.insert(node);
                vacant.insert(Known { hash, at });
                (at, true)
            }
        }
    }

    fn held(&mut self, mode: Mode) -> &mut usize {
        match mode {
            Mode::Exclusive => &mut self.counts.held_exclusive,
            Mode::Shared => &mut self.counts.held_shared,
        }
    }

    fn link_to_session(&mut self, at: At, slot: Slot) {
        if slot as usize >= self.sessions.len() {
            self.sessions.resize(slot as usize + 1, List::EMPTY);
        }
        self.sessions[slot as usize].link(&mut self.nodes, at);
    }

    fn count_time(&mut self, hold: Hold, now: Option<Stamp>) {
        if let Some(now) = now {
            self.counts.hold_times.add(now.since(hold.since));
        }
    }

    fn unhold(&mut self, at: At, slot: Slot, mode: Mode, vanished: bool) {
        // A shared holder leaves the mark for the next exclusive one.
        if mode == Mode::Exclusive {
            self.nodes[at].orphaned = vanished;
        }
        self.sessions[slot as usize].unlink(&mut self.nodes, at);
        *self.held(mode) -= 1;
        self.mark_or_forget(at);
    }

    /// What becomes of a node that nobody holds and that is in no list.
    fn mark_or_forget(&mut self, at: At) {
        if !self.nodes[at].orphaned {
            return self.forget(at);
        }
        self.nodes[at].state = State::Marked;
        self.marks.link(&mut self.nodes, at);
        self.marks_held += 1;
        if self.marks_held > self.marks_max {
            let oldest = self.marks.head;
            self.unmark(oldest);
            self.forget(oldest);
        }
    }

    fn unmark(&mut self, at: At) {
        self.marks.unlink(&mut self.nodes, at);
        self.marks_held -= 1;
    }

    fn forget(&mut self, at: At) {
        let hash = spread(self.nodes[at].hash);
        if let Ok(found) = self.index.find_entry(hash, |known| known.at == at) {
            found.remove();
        }
        self.nodes.remove(at);
        self.shrink_if_empty();
    }

    /// Gives back the index's memory when most of it is for names that have gone: a look at the few that are
    /// left, after seven times as many.
    fn shrink_if_empty(&mut self) {
        if self.index.capacity() > INDEX_MIN && self.index.len() < self.index.capacity() / 8 {
            self.index.shrink_to(2 * self.index.len(), |known| spread(known.hash));
        }
    }
}

/// A hash as the index wants it: it takes the lowest and the seven highest bits.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

fn view(node: &Node) -> LaneView {
    match node.state {
        State::Held { slot, mode, hold } => LaneView::One { slot, mode, hold, orphaned: node.orphaned },
        State::Deferred => LaneView::Deferred,
        State::Marked | State::Vacant => LaneView::Nobody { orphaned: node.orphaned },
    }
}

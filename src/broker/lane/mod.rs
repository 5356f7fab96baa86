//! The fast lane: names that one session holds and nobody waits for, which is nearly all of them nearly
//! always. A lane grants and frees such names by one look-up and decides nothing else; a name that a
//! second session is concerned with is *deferred* to the [table](super::table), which has the rules,
//! until nobody is concerned with it any more. Plain data: no mutex, no clock, no session but its slot.
//!
//! Lanes also keep the marks of names whose last exclusive holder vanished, a bounded number of them.

use hashbrown::HashTable;
use slab::Slab;

use super::clock::Stamp;
use super::name::{Key, LockName, Space};
use super::outcome::{Grant, Held, Inspection, Mode};
use super::table::{HashedKey, Hold, Slot};

const NONE: u32 = u32::MAX;

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
}

impl HashedKey {
    pub(super) fn as_ref(&self) -> KeyRef<'_> {
        KeyRef { space: self.key.space, name: self.key.name.as_bytes(), hash: self.hash }
    }
}

/// Who decides about a name, and what there is to know.
///
/// | state      | holders         | waiters | node is in the list of      |
/// |------------|-----------------|---------|-----------------------------|
/// | `Held`     | one, this one   | none    | its session                 |
/// | `Deferred` | the table knows | ditto   | none                        |
/// | `Marked`   | none            | none    | marks; `orphaned` is set    |
///
/// A name that would be neither has no node.
#[derive(Clone, Copy)]
enum State {
    Held { slot: Slot, mode: Mode, hold: Hold },
    Deferred,
    Marked,
}

struct Node {
    key: HashedKey,
    state: State,
    /// The last exclusive holder vanished; with an exclusive holder, the one before it. With `Deferred` the
    /// table knows, and this says nothing.
    orphaned: bool,
    previous: u32,
    next: u32,
}

#[derive(Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
}

const EMPTY: List = List { head: NONE, tail: NONE };

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

/// Counts of one lane.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LaneCounts {
    pub(super) held_exclusive: usize,
    pub(super) held_shared: usize,
    pub(super) grants: u64,
    pub(super) orphans_exclusive: u64,
    pub(super) orphans_shared: u64,
}

pub(super) struct Lane {
    index: HashTable<u32>,
    nodes: Slab<Node>,
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
            nodes: Slab::new(),
            sessions: Vec::new(),
            marks: EMPTY,
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
        let found = self.find(key);
        if let Some(at) = found {
            match self.nodes[at as usize].state {
                State::Held { slot: holder, mode, hold } if holder == slot => {
                    return Fast::AlreadyHeld(Held { mode, token: hold.token });
                }
                State::Held { mode: Mode::Shared, .. } if mode == Mode::Shared => return Fast::Defer,
                State::Held { .. } => return Fast::Busy,
                State::Deferred => return Fast::Defer,
                State::Marked => self.unmark(at),
            }
        }
        let hold = Hold { token: token(), since: now };
        let state = State::Held { slot, mode, hold };
        let at = found.unwrap_or_else(|| self.insert(key, state));
        let node = &mut self.nodes[at as usize];
        node.state = state;
        let orphaned = node.orphaned;
        self.link_to_session(at, slot);
        *self.held(mode) += 1;
        self.counts.grants += 1;
        Fast::Granted(Grant { token: hold.token, orphaned, holders: 1 })
    }

    /// Frees a name that this session holds.
    pub(super) fn release(&mut self, key: KeyRef<'_>, slot: Slot) -> FastRelease {
        let Some(at) = self.find(key) else { return FastRelease::NotHeld };
        match self.nodes[at as usize].state {
            State::Held { slot: holder, mode, .. } if holder == slot => {
                self.unhold(at, slot, mode, false);
                FastRelease::Released
            }
            State::Deferred => FastRelease::Defer,
            State::Held { .. } | State::Marked => FastRelease::NotHeld,
        }
    }

    /// Hands the name over to the table: its holder, if it has one, and its mark. The table must adopt
    /// that before anyone else can look. `None` if the table has the name already.
    #[expect(clippy::type_complexity, reason = "taken apart at the one place that calls this")]
    pub(super) fn defer(&mut self, key: KeyRef<'_>) -> Option<(Option<(Slot, Mode, Hold)>, bool)> {
        let Some(at) = self.find(key) else {
            self.insert(key, State::Deferred);
            return Some((None, false));
        };
        let node = &mut self.nodes[at as usize];
        let orphaned = std::mem::take(&mut node.orphaned);
        match std::mem::replace(&mut node.state, State::Deferred) {
            State::Deferred => None,
            State::Held { slot, mode, hold } => {
                unlink(&mut self.nodes, &mut self.sessions[slot as usize], at);
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
            self.nodes[at as usize].orphaned = orphaned;
            self.mark_or_forget(at);
        }
    }

    /// Frees up to `at_most` names of a session that has vanished; says how many there were.
    pub(super) fn end_session(&mut self, slot: Slot, at_most: usize) -> usize {
        for freed in 0..at_most {
            let Some(head) = self.sessions.get(slot as usize).map(|list| list.head).filter(|&at| at != NONE)
            else {
                return freed;
            };
            let State::Held { mode, .. } = self.nodes[head as usize].state else { return freed };
            match mode {
                Mode::Exclusive => self.counts.orphans_exclusive += 1,
                Mode::Shared => self.counts.orphans_shared += 1,
            }
            self.unhold(head, slot, mode, true);
        }
        at_most
    }

    /// Who holds the name.
    pub(super) fn view(&self, key: KeyRef<'_>) -> LaneView {
        self.find(key).map_or(LaneView::Nobody { orphaned: false }, |at| self.view_at(at as usize))
    }

    /// The names that are held or deferred, in no order but a fixed one: up to `at_most` steps from
    /// `from` on, and where to go on; `None` after the last. A name that is there from the first call
    /// to the last is seen exactly once.
    pub(super) fn scan(
        &self,
        from: usize,
        at_most: usize,
        mut each: impl FnMut(&HashedKey, LaneView),
    ) -> Option<usize> {
        let end = self.nodes.capacity().min(from.saturating_add(at_most));
        for at in from..end {
            match self.nodes.get(at) {
                Some(Node { state: State::Marked, .. }) | None => {}
                Some(node) => each(&node.key, self.view_at(at)),
            }
        }
        (end < self.nodes.capacity()).then_some(end)
    }

    pub(super) fn counts(&self) -> LaneCounts {
        self.counts
    }

    /// How many locks are held here, in either mode.
    pub(super) fn held_in_all(&self) -> usize {
        self.counts.held_exclusive + self.counts.held_shared
    }

    fn view_at(&self, at: usize) -> LaneView {
        let node = &self.nodes[at];
        match node.state {
            State::Held { slot, mode, hold } => LaneView::One { slot, mode, hold, orphaned: node.orphaned },
            State::Deferred => LaneView::Deferred,
            State::Marked => LaneView::Nobody { orphaned: node.orphaned },
        }
    }

    fn find(&self, key: KeyRef<'_>) -> Option<u32> {
        let is_it = |&at: &u32| {
            let known = &self.nodes[at as usize].key;
            known.hash == key.hash && known.key.space == key.space && known.key.name.as_bytes() == key.name
        };
        self.index.find(key.hash, is_it).copied()
    }

    #[expect(clippy::expect_used, reason = "four billion names in one lane would need 300 GiB")]
    fn insert(&mut self, key: KeyRef<'_>, state: State) -> u32 {
        let node = Node { key: key.to_owned(), state, orphaned: false, previous: NONE, next: NONE };
        let at = u32::try_from(self.nodes.insert(node)).expect("a lane has fewer than 2^32 names");
        let nodes = &self.nodes;
        self.index.insert_unique(key.hash, at, |&at| nodes[at as usize].key.hash);
        at
    }

    fn held(&mut self, mode: Mode) -> &mut usize {
        match mode {
            Mode::Exclusive => &mut self.counts.held_exclusive,
            Mode::Shared => &mut self.counts.held_shared,
        }
    }

    fn link_to_session(&mut self, at: u32, slot: Slot) {
        if slot as usize >= self.sessions.len() {
            self.sessions.resize(slot as usize + 1, EMPTY);
        }
        link(&mut self.nodes, &mut self.sessions[slot as usize], at);
    }

    fn unhold(&mut self, at: u32, slot: Slot, mode: Mode, vanished: bool) {
        // A shared holder leaves the mark for the next exclusive one.
        if mode == Mode::Exclusive {
            self.nodes[at as usize].orphaned = vanished;
        }
        unlink(&mut self.nodes, &mut self.sessions[slot as usize], at);
        *self.held(mode) -= 1;
        self.mark_or_forget(at);
    }

    /// What becomes of a node that nobody holds and that is in no list.
    fn mark_or_forget(&mut self, at: u32) {
        if !self.nodes[at as usize].orphaned {
            return self.forget(at);
        }
        self.nodes[at as usize].state = State::Marked;
        link(&mut self.nodes, &mut self.marks, at);
        self.marks_held += 1;
        if self.marks_held > self.marks_max {
            let oldest = self.marks.head;
            self.unmark(oldest);
            self.forget(oldest);
        }
    }

    fn unmark(&mut self, at: u32) {
        unlink(&mut self.nodes, &mut self.marks, at);
        self.marks_held -= 1;
    }

    fn forget(&mut self, at: u32) {
        let node = self.nodes.remove(at as usize);
        if let Ok(found) = self.index.find_entry(node.key.hash, |&other| other == at) {
            found.remove();
        }
    }
}

/// Appends a node that is in no list.
fn link(nodes: &mut Slab<Node>, list: &mut List, at: u32) {
    nodes[at as usize].previous = list.tail;
    nodes[at as usize].next = NONE;
    match list.tail {
        NONE => list.head = at,
        tail => nodes[tail as usize].next = at,
    }
    list.tail = at;
}

/// Takes a node out of the list it is in.
fn unlink(nodes: &mut Slab<Node>, list: &mut List, at: u32) {
    let Node { previous, next, .. } = nodes[at as usize];
    match previous {
        NONE => list.head = next,
        before => nodes[before as usize].next = next,
    }
    match next {
        NONE => list.tail = previous,
        behind => nodes[behind as usize].previous = previous,
    }
}

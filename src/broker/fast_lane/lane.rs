//! One lane: granting, freeing, deferring and taking back names, and the marks of orphaned ones. It
//! has three rules of its own: grant what is free, free what the asking session holds, and leave
//! everything else to the table.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::broker::clock::Stamp;
use crate::broker::fast_lane::node::{NONE, Node, NodeIndex, NodeList, NodeState, Nodes};
use crate::broker::histogram::Histogram;
use crate::broker::name::{Key, LockName, Space};
use crate::broker::outcome::{Grant, Held, Mode};
use crate::broker::rules::{HashedKey, Hold, Slot};
use crate::broker::tokens::Tokens;

/// If this is ever untrue, nothing in this lane can be believed: the panic breaks the broker.
const VACANT: &str = "the index has found a vacant node";

/// An index with no more capacity than this never shrinks.
const INDEX_MIN: usize = 1024;

/// A name to look up, and its hash.
#[derive(Clone, Copy)]
pub(crate) struct KeyRef<'a> {
    pub(crate) space: Space,
    pub(crate) name: &'a [u8],
    pub(crate) hash: u64,
}

impl KeyRef<'_> {
    pub(crate) fn to_owned(self) -> HashedKey {
        HashedKey { key: Key { space: self.space, name: LockName::new(self.name) }, hash: self.hash }
    }

    /// The part of the hash that the index uses. The other half has chosen the lane.
    fn short_hash(self) -> u32 {
        let [a, b, c, d, ..] = self.hash.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    fn is_name_of(self, node: &Node) -> bool {
        node.name.as_bytes() == self.name && node.space == self.space
    }
}

impl HashedKey {
    pub(crate) fn as_ref(&self) -> KeyRef<'_> {
        KeyRef { space: self.key.space, name: self.key.name.as_bytes(), hash: self.hash }
    }
}

/// What an acquire comes to in a lane.
pub(crate) enum LaneAcquire {
    Granted(Grant),
    AlreadyHeld(Held),
    /// Another session holds the name in a mode that conflicts. True only while the lane is locked.
    Busy,
    /// The table must decide.
    Defer,
}

/// What a release comes to in a lane.
pub(crate) enum LaneRelease {
    Released,
    NotHeld,
    /// The table must decide.
    Defer,
}

/// A name as a lane hands it to the table.
pub(crate) struct DeferredName {
    /// Its only holder, if it has one.
    pub(crate) holder: Option<(Slot, Mode, Hold)>,
    pub(crate) orphaned: bool,
    /// Every token of the name has been lower than this.
    pub(crate) next_token: u64,
}

/// Gauges and counters of one lane.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LaneCounts {
    pub(crate) held_exclusive: usize,
    pub(crate) held_shared: usize,
    pub(crate) grants: u64,
    pub(crate) orphans_exclusive: u64,
    pub(crate) orphans_shared: u64,
    pub(crate) hold_times: Histogram,
}

/// What the index stores for a name: as much of its hash as the index itself needs, so that it can
/// grow without reading the nodes.
struct IndexEntry {
    hash: u32,
    node: NodeIndex,
}

/// The names of one part of all hashes.
pub(crate) struct Lane {
    index: HashTable<IndexEntry>,
    pub(super) nodes: Nodes,
    /// The names that each session holds here, by slot, in the order in which it acquired them.
    sessions: Vec<NodeList>,
    /// Orphaned names that nobody holds, oldest first.
    marks: NodeList,
    marks_len: usize,
    marks_max: usize,
    tokens: Tokens,
    counts: LaneCounts,
}

impl Lane {
    pub(crate) fn new(marks_max: usize, tokens: Tokens) -> Self {
        Self {
            index: HashTable::new(),
            nodes: Nodes::default(),
            sessions: Vec::new(),
            marks: NodeList::EMPTY,
            marks_len: 0,
            marks_max,
            tokens,
            counts: LaneCounts::default(),
        }
    }

    /// Grants the name if it is free.
    pub(crate) fn acquire(&mut self, key: KeyRef<'_>, slot: Slot, mode: Mode, now: Stamp) -> LaneAcquire {
        let (index, is_new) = self.find_or_insert(key, NodeState::Marked);
        if !is_new {
            match self.nodes[index].state {
                NodeState::Held { slot: holder, mode, hold } if holder == slot => {
                    return LaneAcquire::AlreadyHeld(Held { mode, token: hold.token });
                }
                NodeState::Held { mode: Mode::Shared, .. } if mode == Mode::Shared => {
                    return LaneAcquire::Defer;
                }
                NodeState::Held { .. } => return LaneAcquire::Busy,
                NodeState::Deferred => return LaneAcquire::Defer,
                NodeState::Vacant => unreachable!("{VACANT}"),
                NodeState::Marked => self.unmark(index),
            }
        }
        let hold = Hold { token: self.tokens.next(), since: now };
        let node = &mut self.nodes[index];
        node.state = NodeState::Held { slot, mode, hold };
        let orphaned = node.orphaned;
        self.link_to_session(index, slot, hold);
        *self.held(mode) += 1;
        self.counts.grants += 1;
        self.debug_check();
        LaneAcquire::Granted(Grant { token: hold.token, orphaned, holders: 1 })
    }

    /// Frees a name that this session holds. With `now`, counts for how long it was held.
    pub(crate) fn release(&mut self, key: KeyRef<'_>, slot: Slot, now: Option<Stamp>) -> LaneRelease {
        let hash = key.short_hash();
        let nodes = &self.nodes;
        let is_it = |entry: &IndexEntry| entry.hash == hash && key.is_name_of(&nodes[entry.node]);
        let Ok(found) = self.index.find_entry(spread(hash), is_it) else { return LaneRelease::NotHeld };
        let index = found.get().node;
        let node = &self.nodes[index];
        match node.state {
            // The name goes without a mark, as most names do: then one look-up is enough for all of
            // it.
            NodeState::Held { slot: holder, mode, hold }
                if holder == slot && (mode == Mode::Exclusive || !node.orphaned) =>
            {
                found.remove();
                self.sessions[slot as usize].unlink(&mut self.nodes, index);
                self.nodes.remove(index);
                *self.held(mode) -= 1;
                self.count_hold_time(hold, now);
                self.shrink_index_if_sparse();
                self.debug_check();
                LaneRelease::Released
            }
            NodeState::Held { slot: holder, mode, hold } if holder == slot => {
                self.count_hold_time(hold, now);
                self.unhold(index, slot, mode, false);
                LaneRelease::Released
            }
            NodeState::Deferred => LaneRelease::Defer,
            NodeState::Held { .. } | NodeState::Marked => LaneRelease::NotHeld,
            NodeState::Vacant => unreachable!("{VACANT}"),
        }
    }

    /// Hands the name over to the table, which must adopt what this returns before any other thread
    /// can look. `None` if the table has the name already.
    pub(crate) fn defer(&mut self, key: KeyRef<'_>) -> Option<DeferredName> {
        // Also for a name without a node: it may have been granted here before it was forgotten.
        let next_token = self.tokens.peek();
        let (index, is_new) = self.find_or_insert(key, NodeState::Deferred);
        if is_new {
            return Some(DeferredName { holder: None, orphaned: false, next_token });
        }
        let node = &mut self.nodes[index];
        let orphaned = std::mem::take(&mut node.orphaned);
        let holder = match std::mem::replace(&mut node.state, NodeState::Deferred) {
            NodeState::Deferred => return None,
            NodeState::Vacant => unreachable!("{VACANT}"),
            NodeState::Held { slot, mode, hold } => {
                self.sessions[slot as usize].unlink(&mut self.nodes, index);
                *self.held(mode) -= 1;
                Some((slot, mode, hold))
            }
            NodeState::Marked => {
                self.unmark(index);
                None
            }
        };
        self.debug_check();
        Some(DeferredName { holder, orphaned, next_token })
    }

    /// Takes a name back from the table, where nobody holds it or waits for it any more. The name's
    /// next token is `next_token` or higher.
    pub(crate) fn take_back(&mut self, key: KeyRef<'_>, orphaned: bool, next_token: u64) {
        self.tokens.raise_to(next_token);
        let found = self.find(key);
        debug_assert!(
            found.is_some_and(|index| matches!(self.nodes[index].state, NodeState::Deferred)),
            "a name comes back from the table only after it was deferred"
        );
        if let Some(index) = found {
            self.nodes[index].orphaned = orphaned;
            self.mark_or_forget(index);
        }
    }

    /// Frees up to `at_most` names of a session that has ended, and returns how many it has freed.
    /// The names that a session held exclusively when it `vanished` are orphaned.
    pub(crate) fn end_session(
        &mut self,
        slot: Slot,
        at_most: usize,
        now: Option<Stamp>,
        vanished: bool,
    ) -> usize {
        for freed in 0..at_most {
            let head = self.first_held(slot);
            if head == NONE {
                return freed;
            }
            let NodeState::Held { mode, hold, .. } = self.nodes[head].state else { return freed };
            self.count_hold_time(hold, now);
            match mode {
                _ if !vanished => {}
                Mode::Exclusive => self.counts.orphans_exclusive += 1,
                Mode::Shared => self.counts.orphans_shared += 1,
            }
            self.unhold(head, slot, mode, vanished);
        }
        at_most
    }

    /// No grant here has had this token or a higher one.
    pub(crate) fn next_token(&self) -> u64 {
        self.tokens.peek()
    }

    pub(crate) fn counts(&self) -> LaneCounts {
        self.counts
    }

    /// How many locks are held here, in either mode.
    pub(crate) fn held_in_all(&self) -> usize {
        self.counts.held_exclusive + self.counts.held_shared
    }

    /// The first node in the list of a session, or `NONE`.
    pub(super) fn first_held(&self, slot: Slot) -> NodeIndex {
        self.sessions.get(slot as usize).map_or(NONE, |list| list.head)
    }

    pub(super) fn find(&self, key: KeyRef<'_>) -> Option<NodeIndex> {
        let hash = key.short_hash();
        let is_it = |entry: &IndexEntry| entry.hash == hash && key.is_name_of(&self.nodes[entry.node]);
        self.index.find(spread(hash), is_it).map(|entry| entry.node)
    }

    /// The node of the name, and whether it was made just now, in the given state and in no list.
    fn find_or_insert(&mut self, key: KeyRef<'_>, state: NodeState) -> (NodeIndex, bool) {
        let hash = key.short_hash();
        let nodes = &mut self.nodes;
        let is_it = |entry: &IndexEntry| entry.hash == hash && key.is_name_of(&nodes[entry.node]);
        match self.index.entry(spread(hash), is_it, |entry| spread(entry.hash)) {
            Entry::Occupied(found) => (found.get().node, false),
            Entry::Vacant(vacant) => {
                let node = nodes.insert(Node::new(key.space, key.name, hash, state));
                vacant.insert(IndexEntry { hash, node });
                (node, true)
            }
        }
    }

    fn held(&mut self, mode: Mode) -> &mut usize {
        match mode {
            Mode::Exclusive => &mut self.counts.held_exclusive,
            Mode::Shared => &mut self.counts.held_shared,
        }
    }

    fn link_to_session(&mut self, index: NodeIndex, slot: Slot, hold: Hold) {
        if slot as usize >= self.sessions.len() {
            self.sessions.resize(slot as usize + 1, NodeList::EMPTY);
        }
        self.sessions[slot as usize].link(&mut self.nodes, index);
        debug_assert!(
            self.nodes.get(self.nodes[index].previous).is_none_or(|previous| {
                matches!(previous.state, NodeState::Held { slot: holder, hold: earlier, .. }
                    if holder == slot && earlier.token < hold.token)
            }),
            "the tokens in a session's list rise"
        );
    }

    fn count_hold_time(&mut self, hold: Hold, now: Option<Stamp>) {
        if let Some(now) = now {
            self.counts.hold_times.add(now.since(hold.since));
        }
    }

    fn unhold(&mut self, index: NodeIndex, slot: Slot, mode: Mode, vanished: bool) {
        debug_assert!(
            matches!(self.nodes[index].state, NodeState::Held { slot: holder, .. } if holder == slot)
        );
        // A shared holder leaves the mark as it is, for the next exclusive one.
        if mode == Mode::Exclusive {
            self.nodes[index].orphaned = vanished;
        }
        self.sessions[slot as usize].unlink(&mut self.nodes, index);
        *self.held(mode) -= 1;
        self.mark_or_forget(index);
    }

    /// Keeps a node that nobody holds and that is in no list if it is orphaned, and removes it
    /// otherwise.
    fn mark_or_forget(&mut self, index: NodeIndex) {
        if self.nodes[index].orphaned {
            self.nodes[index].state = NodeState::Marked;
            self.marks.link(&mut self.nodes, index);
            self.marks_len += 1;
            if self.marks_len > self.marks_max {
                let oldest = self.marks.head;
                self.unmark(oldest);
                self.forget(oldest);
            }
        } else {
            self.forget(index);
        }
        self.debug_check();
    }

    fn unmark(&mut self, index: NodeIndex) {
        debug_assert!(self.marks_len > 0, "a marked node is in the list of marks");
        self.marks.unlink(&mut self.nodes, index);
        self.marks_len -= 1;
    }

    fn forget(&mut self, index: NodeIndex) {
        let hash = spread(self.nodes[index].hash);
        if let Ok(found) = self.index.find_entry(hash, |entry| entry.node == index) {
            found.remove();
        }
        self.nodes.remove(index);
        self.shrink_index_if_sparse();
    }

    /// Gives the index's memory back when most of it belongs to names that have gone. That reads
    /// every remaining entry, which pays because seven times as many have been removed.
    fn shrink_index_if_sparse(&mut self) {
        if self.index.capacity() > INDEX_MIN && self.index.len() < self.index.capacity() / 8 {
            self.index.shrink_to(2 * self.index.len(), |entry| spread(entry.hash));
        }
    }

    /// Called after every change, in builds with debug assertions. Constant time in a large lane.
    #[inline]
    fn debug_check(&self) {
        debug_assert_eq!(self.index.len(), self.nodes.len(), "every node is in the index");
        debug_assert!(self.marks_len <= self.marks_max, "the number of marks is bounded");
        debug_assert!(
            self.held_in_all() + self.marks_len <= self.nodes.len(),
            "every node is held, marked or deferred, and only one of these"
        );
        if cfg!(debug_assertions) && self.index.len() <= 8 && self.sessions.len() <= 8 {
            self.check_invariants();
        }
    }

    /// What must hold between two calls, in full: a look at every node.
    ///
    /// # Panics
    /// If one of the invariants does not hold.
    fn check_invariants(&self) {
        let (mut exclusive, mut shared, mut marked, mut deferred) = (0, 0, 0, 0);
        for (slot, list) in (0..).zip(&self.sessions) {
            let mut index = list.head;
            while index != NONE {
                let node = &self.nodes[index];
                match node.state {
                    NodeState::Held { slot: holder, mode: Mode::Exclusive, .. } if holder == slot => {
                        exclusive += 1
                    }
                    NodeState::Held { slot: holder, mode: Mode::Shared, .. } if holder == slot => shared += 1,
                    _ => panic!("the list of session {slot} has a name that the session does not hold"),
                }
                index = node.next;
            }
        }
        let mut index = self.marks.head;
        while index != NONE {
            let node = &self.nodes[index];
            assert!(matches!(node.state, NodeState::Marked) && node.orphaned, "a mark is an orphaned name");
            (marked, index) = (marked + 1, node.next);
        }
        for (index, node) in (0..self.nodes.end()).filter_map(|index| Some((index, self.nodes.get(index)?))) {
            let is_it = |entry: &IndexEntry| entry.node == index;
            assert!(self.index.find(spread(node.hash), is_it).is_some(), "a node is not in the index");
            if matches!(node.state, NodeState::Deferred) {
                assert!(!node.orphaned, "the table knows whether a deferred name is orphaned");
                deferred += 1;
            }
        }
        assert_eq!((exclusive, shared), (self.counts.held_exclusive, self.counts.held_shared));
        assert_eq!(marked, self.marks_len);
        assert_eq!(exclusive + shared + marked + deferred, self.nodes.len(), "a node is in no list");
    }
}

/// A hash as the index wants it: `hashbrown` uses the lowest bits and the seven highest.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

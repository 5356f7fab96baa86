//! One lane: granting, freeing, deferring and taking back names, and remembering free ones. It
//! has three rules of its own: grant what is free, free what the asking session holds, and leave
//! everything else to the table.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::broker::clock::Stamp;
use crate::broker::fast_lane::lane_holdings::LaneHoldings;
use crate::broker::fast_lane::node::{NONE, Node, NodeIndex, NodeState, Nodes, Orphans};
use crate::broker::fast_lane::recent::RecentNodes;
use crate::broker::histogram::Histogram;
use crate::broker::mode::Mode;
use crate::broker::name::{Key, LockName, Space};
use crate::broker::outcome::{Grant, Held};
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
        node.is_named((self.space, self.name))
    }
}

impl HashedKey {
    pub(crate) fn as_ref(&self) -> KeyRef<'_> {
        KeyRef { space: self.key.space, name: self.key.name.as_bytes(), hash: self.hash }
    }
}

/// A session that asks, and what it holds in the lane.
#[derive(Clone, Copy)]
pub(crate) struct Holder<'a> {
    pub(crate) slot: Slot,
    pub(crate) holdings: &'a LaneHoldings,
}

/// What an acquire comes to in a lane.
pub(crate) enum LaneAcquire {
    /// With the node, for [`Lane::release_at`] and [`Lane::acquire_at`].
    Granted(Grant, NodeIndex),
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
///
/// What every acquire and release reads or writes comes first, so that it is on two cache lines:
/// each line more is one more that moves between the caches of two processors.
#[repr(C)]
pub(crate) struct Lane {
    index: HashTable<IndexEntry>,
    tokens: Tokens,
    recent: RecentNodes,
    held_exclusive: u32,
    held_shared: u32,
    grants: u64,
    pub(super) nodes: Nodes,
    pub(super) orphans: Orphans,
    orphans_exclusive: u64,
    orphans_shared: u64,
    hold_times: Histogram,
}

impl Lane {
    pub(crate) fn new(orphans_max: usize, tokens: Tokens) -> Self {
        Self {
            index: HashTable::new(),
            nodes: Nodes::default(),
            tokens,
            recent: RecentNodes::new(),
            held_exclusive: 0,
            held_shared: 0,
            grants: 0,
            orphans: Orphans::new(orphans_max),
            orphans_exclusive: 0,
            orphans_shared: 0,
            hold_times: Histogram::default(),
        }
    }

    /// Grants the name if it is free.
    pub(crate) fn acquire(&mut self, key: KeyRef<'_>, by: Holder<'_>, mode: Mode, now: Stamp) -> LaneAcquire {
        let (index, is_new) = self.find_or_insert(key, NodeState::Free);
        if !is_new {
            match self.nodes[index].state {
                NodeState::Held { slot, mode, hold } if slot == by.slot => {
                    return LaneAcquire::AlreadyHeld(Held { mode, token: hold.token });
                }
                NodeState::Held { mode: held, .. } if held.is_compatible_with(mode) => {
                    return LaneAcquire::Defer;
                }
                NodeState::Held { .. } => return LaneAcquire::Busy,
                NodeState::Deferred => return LaneAcquire::Defer,
                NodeState::Vacant => unreachable!("{VACANT}"),
                NodeState::Free => self.take_free(index),
            }
        }
        LaneAcquire::Granted(self.grant(index, by, mode, now), index)
    }

    /// Grants the name if it is free and still at `index`, where an earlier grant has found it.
    /// `None`, and nothing has changed, if not: anything may be there by now.
    pub(crate) fn acquire_at(
        &mut self,
        index: NodeIndex,
        key: (Space, &[u8]),
        by: Holder<'_>,
        mode: Mode,
        now: Stamp,
    ) -> Option<Grant> {
        let node = self.nodes.get(index)?;
        (matches!(node.state, NodeState::Free) && node.is_named(key)).then(|| {
            self.take_free(index);
            self.grant(index, by, mode, now)
        })
    }

    /// Grants the name of a node that nobody holds and that is in no list.
    fn grant(&mut self, index: NodeIndex, by: Holder<'_>, mode: Mode, now: Stamp) -> Grant {
        let hold = Hold { token: self.tokens.next(), since: now };
        let node = &mut self.nodes[index];
        node.state = NodeState::Held { slot: by.slot, mode, hold };
        let orphaned = node.orphaned;
        by.holdings.add(&mut self.nodes, index);
        *self.held(mode) += 1;
        self.grants += 1;
        self.debug_check_list(index, by.slot, hold);
        self.debug_check();
        Grant { token: hold.token, orphaned, holders: 1 }
    }

    /// Frees a name that this session holds. With `now`, counts for how long it was held. If the
    /// session `vanished` as its holder, and held it exclusively, the name is orphaned.
    pub(crate) fn release(
        &mut self,
        key: KeyRef<'_>,
        by: Holder<'_>,
        now: Option<Stamp>,
        vanished: bool,
    ) -> LaneRelease {
        let Some(index) = self.find(key) else { return LaneRelease::NotHeld };
        match self.nodes[index].state {
            NodeState::Held { slot, mode, hold } if slot == by.slot => {
                self.end_hold(index, by, (mode, hold), now, vanished);
                LaneRelease::Released
            }
            NodeState::Deferred => LaneRelease::Defer,
            NodeState::Held { .. } | NodeState::Free => LaneRelease::NotHeld,
            NodeState::Vacant => unreachable!("{VACANT}"),
        }
    }

    /// Frees the name if this session holds it and it is at `index`, where an earlier grant has
    /// found it. Returns false, and changes nothing, if not: anything may be there by now.
    pub(crate) fn release_at(
        &mut self,
        index: NodeIndex,
        key: (Space, &[u8]),
        by: Holder<'_>,
        now: Option<Stamp>,
    ) -> bool {
        let Some(node) = self.nodes.get(index) else { return false };
        match node.state {
            NodeState::Held { slot, mode, hold } if slot == by.slot && node.is_named(key) => {
                self.count_hold_time(hold, now);
                self.unhold(index, by, mode, false);
                true
            }
            _ => false,
        }
    }

    /// The slot of the session that holds the name here.
    pub(crate) fn holder(&self, key: KeyRef<'_>) -> Option<Slot> {
        match self.nodes[self.find(key)?].state {
            NodeState::Held { slot, .. } => Some(slot),
            NodeState::Deferred | NodeState::Free | NodeState::Vacant => None,
        }
    }

    /// Hands the name over to the table, which must adopt what this returns before any other thread
    /// can look. `None` if the table has the name already. `holdings` are those of its
    /// [`holder`](Self::holder).
    pub(crate) fn defer(&mut self, key: KeyRef<'_>, holdings: Option<&LaneHoldings>) -> Option<DeferredName> {
        // Also for a name without a node: it may have been granted here before it was forgotten.
        let next_token = self.tokens.peek();
        let (index, is_new) = self.find_or_insert(key, NodeState::Deferred);
        if is_new {
            return Some(DeferredName { holder: None, orphaned: false, next_token });
        }
        let holder = match self.nodes[index].state {
            NodeState::Deferred => return None,
            NodeState::Vacant => unreachable!("{VACANT}"),
            NodeState::Held { slot, mode, hold } => {
                let Some(holdings) = holdings else { unreachable!("a holder has an open session") };
                holdings.remove(&mut self.nodes, index);
                *self.held(mode) -= 1;
                Some((slot, mode, hold))
            }
            NodeState::Free => {
                self.take_free(index);
                None
            }
        };
        let node = &mut self.nodes[index];
        node.state = NodeState::Deferred;
        let orphaned = std::mem::take(&mut node.orphaned);
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
            self.add_free(index);
        }
    }

    /// Frees up to `at_most` names of a session that has ended, and returns how many it has freed.
    /// The names that a session held exclusively when it `vanished` are orphaned.
    pub(crate) fn end_session(
        &mut self,
        by: Holder<'_>,
        at_most: usize,
        now: Option<Stamp>,
        vanished: bool,
    ) -> usize {
        for freed in 0..at_most {
            let head = by.holdings.first();
            if head == NONE {
                return freed;
            }
            let NodeState::Held { mode, hold, .. } = self.nodes[head].state else { return freed };
            self.end_hold(head, by, (mode, hold), now, vanished);
        }
        at_most
    }

    /// Frees a name because its holder has ended, or has `vanished`.
    fn end_hold(
        &mut self,
        index: NodeIndex,
        by: Holder<'_>,
        (mode, hold): (Mode, Hold),
        now: Option<Stamp>,
        vanished: bool,
    ) {
        self.count_hold_time(hold, now);
        match mode {
            _ if !vanished => {}
            Mode::Exclusive => self.orphans_exclusive += 1,
            Mode::Limited(_) | Mode::Shared => self.orphans_shared += 1,
        }
        self.unhold(index, by, mode, vanished);
    }

    /// No grant here has had this token or a higher one.
    pub(crate) fn next_token(&self) -> u64 {
        self.tokens.peek()
    }

    /// From now on every token of the lane is `next` or higher.
    pub(crate) fn raise_tokens(&mut self, next: u64) {
        self.tokens.raise_to(next);
    }

    pub(crate) fn counts(&self) -> LaneCounts {
        LaneCounts {
            held_exclusive: self.held_exclusive as usize,
            held_shared: self.held_shared as usize,
            grants: self.grants,
            orphans_exclusive: self.orphans_exclusive,
            orphans_shared: self.orphans_shared,
            hold_times: self.hold_times,
        }
    }

    /// How many locks are held here, in any mode.
    pub(crate) fn held_in_all(&self) -> usize {
        self.held_exclusive as usize + self.held_shared as usize
    }

    pub(super) fn find(&self, key: KeyRef<'_>) -> Option<NodeIndex> {
        let hash = key.short_hash();
        let is_it = |entry: &IndexEntry| entry.hash == hash && key.is_name_of(&self.nodes[entry.node]);
        self.index.find(spread(hash), is_it).map(|entry| entry.node)
    }

    /// The node of the name, and whether it was made just now, in the given state and in no list.
    pub(super) fn find_or_insert(&mut self, key: KeyRef<'_>, state: NodeState) -> (NodeIndex, bool) {
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

    pub(super) fn held(&mut self, mode: Mode) -> &mut u32 {
        match mode {
            Mode::Exclusive => &mut self.held_exclusive,
            Mode::Limited(_) | Mode::Shared => &mut self.held_shared,
        }
    }

    #[inline]
    fn debug_check_list(&self, index: NodeIndex, slot: Slot, hold: Hold) {
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
            self.hold_times.add(now.since(hold.since));
        }
    }

    fn unhold(&mut self, index: NodeIndex, by: Holder<'_>, mode: Mode, vanished: bool) {
        debug_assert!(matches!(self.nodes[index].state, NodeState::Held { slot, .. } if slot == by.slot));
        // Any other holder leaves the mark as it is, for the next exclusive one.
        if mode == Mode::Exclusive {
            self.nodes[index].orphaned = vanished;
        }
        by.holdings.remove(&mut self.nodes, index);
        *self.held(mode) -= 1;
        self.add_free(index);
    }

    /// Frees a node. If too many free ones are kept now, the oldest one is forgotten.
    pub(super) fn add_free(&mut self, index: NodeIndex) {
        let node = &mut self.nodes[index];
        node.state = NodeState::Free;
        let displaced = if node.orphaned {
            let oldest = self.orphans.add(&mut self.nodes, index);
            oldest.inspect(|&oldest| self.nodes[oldest].orphaned = false)
        } else if !node.is_recent {
            node.is_recent = true;
            let oldest = self.recent.add(index);
            oldest.inspect(|&oldest| self.nodes[oldest].is_recent = false)
        } else {
            None
        };
        if let Some(displaced) = displaced {
            self.forget_unless_kept(displaced);
        }
        self.debug_check();
    }

    /// A free node is about to be held or deferred. It stays among the recent ones.
    fn take_free(&mut self, index: NodeIndex) {
        if self.nodes[index].orphaned {
            self.orphans.take(&mut self.nodes, index);
        }
    }

    fn forget_unless_kept(&mut self, index: NodeIndex) {
        let node = &self.nodes[index];
        if matches!(node.state, NodeState::Free) && !node.orphaned && !node.is_recent {
            self.forget(index);
        }
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
    pub(super) fn debug_check(&self) {
        debug_assert_eq!(self.index.len(), self.nodes.len(), "every node is in the index");
        debug_assert!(self.orphans.len() <= self.orphans.max(), "the number of orphaned names is bounded");
        debug_assert!(
            self.held_in_all() + self.orphans.len() <= self.nodes.len(),
            "every node is held, free or deferred, and only one of these"
        );
        if cfg!(debug_assertions) && self.index.len() <= 8 {
            self.check_invariants();
        }
    }

    /// What must hold between two calls, in full: a look at every node.
    ///
    /// # Panics
    /// If one of the invariants does not hold.
    pub(crate) fn check_invariants(&self) {
        let (mut exclusive, mut shared) = (0, 0);
        let (mut index, mut orphans) = (self.orphans.oldest(), 0);
        while index != NONE {
            let node = &self.nodes[index];
            assert!(matches!(node.state, NodeState::Free) && node.orphaned);
            (orphans, index) = (orphans + 1, node.next);
        }
        assert_eq!(orphans, self.orphans.len());
        let mut recent = 0;
        for (index, node) in (0..self.nodes.end()).filter_map(|index| Some((index, self.nodes.get(index)?))) {
            let is_it = |entry: &IndexEntry| entry.node == index;
            assert!(self.index.find(spread(node.hash), is_it).is_some(), "a node is not in the index");
            match node.state {
                NodeState::Held { slot, mode, .. } => {
                    *(if mode == Mode::Exclusive { &mut exclusive } else { &mut shared }) += 1;
                    if node.next != NONE {
                        let next = &self.nodes[node.next];
                        let is_held = matches!(next.state, NodeState::Held { slot: of, .. } if of == slot);
                        assert!(is_held && next.previous == index, "the list of session {slot} is broken");
                    }
                }
                NodeState::Deferred => {
                    assert!(!node.orphaned, "the table knows whether a deferred name is orphaned");
                }
                NodeState::Free => {
                    assert!(node.orphaned || node.is_recent, "a free name is kept for nothing")
                }
                NodeState::Vacant => {}
            }
            recent += usize::from(node.is_recent);
        }
        assert!(recent <= RecentNodes::MAX, "the number of recent names is bounded");
        assert_eq!((exclusive, shared), (self.held_exclusive, self.held_shared));
    }
}

/// A hash as the index wants it: `hashbrown` uses the lowest bits and the seven highest.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

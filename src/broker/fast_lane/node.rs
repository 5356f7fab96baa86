//! What a lane knows of one name, and the lists that such nodes are in. Knows what a node looks
//! like, not what may become of it.

use std::ops::{Index, IndexMut};

use crate::broker::mode::Mode;
use crate::broker::name::{LockName, Space};
use crate::broker::rules::{Hold, Slot};

/// Where a node is. 32 bits, so that a node with its two neighbours fits into a cache line.
pub(crate) type NodeIndex = u32;

/// What a list ends with: no node has this index.
pub(super) const NONE: NodeIndex = u32::MAX;

/// Where a name is decided about, and what the lane knows of it.
///
/// | state      | holders         | waiters         | node is in the list of | `orphaned`       |
/// |------------|-----------------|-----------------|------------------------|------------------|
/// | `Held`     | one session     | none            | its holder             | see [`Node`]     |
/// | `Deferred` | the table knows | the table knows | nothing                | false            |
/// | `Free`     | none            | none            | `Lane::orphans`        | if it is in there |
/// | `Vacant`   | no name here    | –               | vacant ones of a block | false            |
///
/// A name without holder and waiter has a node only while it is orphaned or recent. Of both there is
/// a bounded number.
#[derive(Clone, Copy)]
pub(super) enum NodeState {
    Held { slot: Slot, mode: Mode, hold: Hold },
    Deferred,
    Free,
    Vacant,
}

/// One name. Exactly one cache line, since a name that is acquired again after a while is read from
/// memory.
#[repr(align(64))]
pub(super) struct Node {
    pub(super) name: LockName,
    pub(super) state: NodeState,
    /// The part of the name's hash that the lane's index uses.
    pub(super) hash: u32,
    pub(super) previous: NodeIndex,
    pub(super) next: NodeIndex,
    pub(super) space: Space,
    /// Whether the last exclusive holder vanished without releasing. While the name is held
    /// exclusively: whether the holder before the present one did.
    pub(super) orphaned: bool,
    /// Whether it is one of the lane's [`RecentNodes`](super::recent::RecentNodes).
    pub(super) is_recent: bool,
}

impl Node {
    /// A node that is in no list.
    pub(super) fn new(space: Space, name: &[u8], hash: u32, state: NodeState) -> Self {
        let name = LockName::new(name);
        Self { name, state, hash, previous: NONE, next: NONE, space, orphaned: false, is_recent: false }
    }

    pub(super) fn is_named(&self, (space, name): (Space, &[u8])) -> bool {
        self.name.as_bytes() == name && self.space == space
    }

    fn vacant(next: NodeIndex) -> Self {
        Self { next, ..Self::new(Space::Main, b"", 0, NodeState::Vacant) }
    }
}

/// How many nodes a block has: 2 KiB of them. Every lane that is used has a block.
const BLOCK_LEN: u32 = 32;

struct Block {
    /// `BLOCK_LEN` of them, or none while all are vacant and the memory is given back.
    nodes: Box<[Node]>,
    /// The node that became vacant last; each leads to the next one.
    vacant: NodeIndex,
    occupied: u32,
}

/// Where a lane keeps its nodes: in blocks that never move and are given back when they are empty,
/// as [`Blocks`](crate::broker::blocks::Blocks) are. The node itself says that it is vacant, so
/// access by an index from the lane's own lists checks nothing. Tried with `Blocks` instead: an
/// uncontended acquire and release took 105 ns together, and 97.5 ns with this.
#[derive(Default)]
#[repr(C)]
pub(super) struct Nodes {
    blocks: Vec<Block>,
    /// The blocks that are not full, each once. The last one is filled first, and kept when it is
    /// empty.
    not_full: Vec<u32>,
}

impl Nodes {
    /// Stores a node. Places that have become vacant are used again, the latest one first.
    #[inline]
    pub(super) fn insert(&mut self, node: Node) -> NodeIndex {
        let number = self.not_full.last().copied().unwrap_or_else(|| self.add_block());
        let block = &mut self.blocks[number as usize];
        if block.nodes.is_empty() {
            block.fill(number);
        }
        let index = block.vacant;
        let place = &mut block.nodes[(index % BLOCK_LEN) as usize];
        debug_assert!(matches!(place.state, NodeState::Vacant), "a node is put where there is none");
        block.vacant = place.next;
        block.occupied += 1;
        *place = node;
        if block.occupied == BLOCK_LEN {
            self.not_full.pop();
        }
        index
    }

    #[inline]
    pub(super) fn remove(&mut self, index: NodeIndex) {
        let number = index / BLOCK_LEN;
        let block = &mut self.blocks[number as usize];
        let place = &mut block.nodes[(index % BLOCK_LEN) as usize];
        debug_assert!(!matches!(place.state, NodeState::Vacant), "a node is removed once");
        *place = Node::vacant(block.vacant);
        block.vacant = index;
        block.occupied -= 1;
        let (was_full, is_empty) = (block.occupied == BLOCK_LEN - 1, block.occupied == 0);
        if was_full {
            let before = self.not_full.last().copied();
            self.not_full.push(number);
            // That one may have been kept empty because it was the one to be filled first.
            before.into_iter().for_each(|before| self.blocks[before as usize].give_back_if_empty());
        } else if is_empty && self.not_full.last() != Some(&number) {
            self.blocks[number as usize].give_back_if_empty();
        }
    }

    /// How many nodes there are. Looks at every block.
    pub(super) fn len(&self) -> usize {
        self.blocks.iter().map(|block| block.occupied as usize).sum()
    }

    /// One more than the highest index that a node can have now.
    pub(super) fn end(&self) -> NodeIndex {
        NodeIndex::try_from(self.blocks.len()).map_or(NONE, |blocks| blocks * BLOCK_LEN)
    }

    pub(super) fn get(&self, index: NodeIndex) -> Option<&Node> {
        let block = self.blocks.get((index / BLOCK_LEN) as usize)?;
        let node = block.nodes.get((index % BLOCK_LEN) as usize);
        node.filter(|node| !matches!(node.state, NodeState::Vacant))
    }

    #[cold]
    #[expect(clippy::expect_used, reason = "four billion names in one lane would need 300 GiB")]
    fn add_block(&mut self) -> u32 {
        let number = u32::try_from(self.blocks.len()).ok().filter(|&number| number < NONE / BLOCK_LEN);
        let number = number.expect("a lane has fewer than 2^32 names");
        self.blocks.push(Block { nodes: Box::default(), vacant: NONE, occupied: 0 });
        self.not_full.push(number);
        number
    }
}

impl Block {
    fn give_back_if_empty(&mut self) {
        if self.occupied == 0 {
            self.nodes = Box::default();
        }
    }

    #[cold]
    fn fill(&mut self, number: u32) {
        let first = number * BLOCK_LEN;
        let next = |index| if index + 1 < first + BLOCK_LEN { index + 1 } else { NONE };
        self.nodes = (first..first + BLOCK_LEN).map(|index| Node::vacant(next(index))).collect();
        self.vacant = first;
    }
}

impl Index<NodeIndex> for Nodes {
    type Output = Node;

    fn index(&self, index: NodeIndex) -> &Node {
        &self.blocks[(index / BLOCK_LEN) as usize].nodes[(index % BLOCK_LEN) as usize]
    }
}

impl IndexMut<NodeIndex> for Nodes {
    fn index_mut(&mut self, index: NodeIndex) -> &mut Node {
        &mut self.blocks[(index / BLOCK_LEN) as usize].nodes[(index % BLOCK_LEN) as usize]
    }
}

/// The free nodes that are orphaned, oldest first, of which there are at most `max`.
pub(super) struct Orphans {
    list: NodeList,
    len: usize,
    max: usize,
}

impl Orphans {
    pub(super) fn new(max: usize) -> Self {
        Self { list: NodeList::EMPTY, len: 0, max }
    }

    /// Adds a node that is in no list. If there are too many now, takes out the oldest one and
    /// returns it.
    #[inline]
    pub(super) fn add(&mut self, nodes: &mut Nodes, index: NodeIndex) -> Option<NodeIndex> {
        self.list.link(nodes, index);
        self.len += 1;
        let oldest = self.list.head;
        (self.len > self.max).then(|| {
            self.take(nodes, oldest);
            oldest
        })
    }

    /// Takes out a node that is in this list.
    #[inline]
    pub(super) fn take(&mut self, nodes: &mut Nodes, index: NodeIndex) {
        debug_assert!(self.len > 0, "an orphaned node is in the list of them");
        self.list.unlink(nodes, index);
        self.len -= 1;
    }

    pub(super) fn oldest(&self) -> NodeIndex {
        self.list.head
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }
}

/// A list that leads through nodes. A node is in one list at most.
#[derive(Clone, Copy)]
pub(super) struct NodeList {
    pub(super) head: NodeIndex,
    pub(super) tail: NodeIndex,
}

impl NodeList {
    pub(super) const EMPTY: Self = Self { head: NONE, tail: NONE };

    /// Appends a node that is in no list.
    #[inline]
    pub(super) fn link(&mut self, nodes: &mut Nodes, index: NodeIndex) {
        debug_assert!(self.head != index && self.tail != index, "the node is in this list already");
        let node = &mut nodes[index];
        (node.previous, node.next) = (self.tail, NONE);
        match self.tail {
            NONE => self.head = index,
            tail => nodes[tail].next = index,
        }
        self.tail = index;
    }

    /// Takes out a node that is in this list.
    #[inline]
    pub(super) fn unlink(&mut self, nodes: &mut Nodes, index: NodeIndex) {
        let Node { previous, next, .. } = nodes[index];
        debug_assert!((previous == NONE) == (self.head == index), "only the head has no previous node");
        debug_assert!((next == NONE) == (self.tail == index), "only the tail has no next node");
        match previous {
            NONE => self.head = next,
            previous => nodes[previous].next = next,
        }
        match next {
            NONE => self.tail = previous,
            next => nodes[next].previous = previous,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_one_cache_line() {
        assert_eq!(size_of::<Node>(), 64);
    }

    fn node(hash: u32) -> Node {
        Node::new(Space::Main, b"", hash, NodeState::Deferred)
    }

    #[test]
    fn nodes_stay_where_they_are_and_their_places_are_used_again() {
        let mut nodes = Nodes::default();
        let places: Vec<NodeIndex> = (0..5 * BLOCK_LEN).map(|hash| nodes.insert(node(hash))).collect();
        let stays = |place: NodeIndex| place.is_multiple_of(7) || place / BLOCK_LEN == 3;
        for &place in places.iter().filter(|place| !stays(**place)) {
            nodes.remove(place);
        }
        for (hash, &place) in (0..).zip(&places) {
            assert_eq!(nodes.get(place).map(|node| node.hash), stays(place).then_some(hash));
        }
        for &place in places.iter().filter(|place| stays(**place)) {
            nodes.remove(place);
        }
        let kept = nodes.blocks.iter().filter(|block| !block.nodes.is_empty()).count();
        assert!(kept <= 2, "{kept}");
        let mut again: Vec<NodeIndex> = (0..5 * BLOCK_LEN).map(|hash| nodes.insert(node(hash))).collect();
        again.sort_unstable();
        assert_eq!(again, places);
        assert_eq!((nodes.end() as usize, nodes.len()), (again.len(), again.len()));
    }

    #[test]
    fn one_block_is_kept_at_most_in_whichever_order_nodes_go() {
        let count = 20 * BLOCK_LEN;
        let orders: [fn(u32, u32) -> u32; 3] =
            [|_, at| at, |count, at| count - 1 - at, |count, at| (at * 7919) % count];
        for order in orders {
            let mut nodes = Nodes::default();
            let places: Vec<NodeIndex> = (0..count).map(|hash| nodes.insert(node(hash))).collect();
            for at in 0..count {
                nodes.remove(places[order(count, at) as usize]);
            }
            let kept = nodes.blocks.iter().filter(|block| !block.nodes.is_empty()).count();
            assert!(kept <= 1, "{kept}");
        }
    }

    #[test]
    fn a_node_leaves_its_list_from_any_position() {
        let mut nodes = Nodes::default();
        let mut list = NodeList::EMPTY;
        let indices: Vec<NodeIndex> = (0..5)
            .map(|hash| {
                let index = nodes.insert(node(hash));
                list.link(&mut nodes, index);
                index
            })
            .collect();
        for (gone, left) in
            [(2, vec![0, 1, 3, 4]), (0, vec![1, 3, 4]), (4, vec![1, 3]), (3, vec![1]), (1, vec![])]
        {
            list.unlink(&mut nodes, indices[gone]);
            let mut found = Vec::new();
            let mut index = list.head;
            while index != NONE {
                found.push(nodes[index].hash as usize);
                index = nodes[index].next;
            }
            assert_eq!(found, left);
        }
        assert_eq!(list.tail, NONE);
    }
}

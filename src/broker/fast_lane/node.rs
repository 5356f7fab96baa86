//! What a lane knows of one name, and the lists that such nodes are in. Knows what a node looks
//! like, not what may become of it.

use crate::broker::blocks::{BlockIndex, Blocks};
use crate::broker::name::{LockName, Space};
use crate::broker::outcome::Mode;
use crate::broker::rules::{Hold, Slot};

/// Where a lane keeps its nodes. The index of a node stays the same for as long as the node exists.
pub(super) type Nodes = Blocks<Node>;

/// Where a node is. 32 bits, so that a node with its two neighbours fits into a cache line.
pub(super) type NodeIndex = BlockIndex;

/// What a list ends with: no node has this index.
pub(super) const NONE: NodeIndex = u32::MAX;

/// Where a name is decided about, and what the lane knows of it.
///
/// | state      | holders         | waiters         | node is in the list of | `orphaned`       |
/// |------------|-----------------|-----------------|------------------------|------------------|
/// | `Held`     | this session    | none            | its holder             | see [`Node`]     |
/// | `Deferred` | the table knows | the table knows | nothing                | false            |
/// | `Marked`   | none            | none            | `Lane::marks`          | true             |
///
/// A name that fits no row (nobody holds it, nobody waits for it, and it is not orphaned) has no
/// node.
#[derive(Clone, Copy)]
pub(super) enum NodeState {
    Held { slot: Slot, mode: Mode, hold: Hold },
    Deferred,
    Marked,
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
    /// Whether the last exclusive holder vanished without releasing. If the name is held
    /// exclusively: whether the holder before this one did.
    pub(super) orphaned: bool,
}

impl Node {
    /// A node that is in no list.
    pub(super) fn new(space: Space, name: &[u8], hash: u32, state: NodeState) -> Self {
        let name = LockName::new(name);
        Self { name, state, hash, previous: NONE, next: NONE, space, orphaned: false }
    }
}

/// A list that leads through nodes. A node is in one list at most.
#[derive(Clone, Copy)]
pub(super) struct NodeList {
    pub(super) head: NodeIndex,
    tail: NodeIndex,
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
    fn a_node_is_one_cache_line_also_where_it_is_kept() {
        assert_eq!(size_of::<Node>(), 64);
        // `Blocks` keeps it as an enum like this one, whose tag must fit into the node.
        enum Kept {
            #[expect(dead_code, reason = "only its size counts")]
            Vacant(usize),
            #[expect(dead_code, reason = "only its size counts")]
            Occupied(Node),
        }
        assert_eq!(size_of::<Kept>(), 64);
    }

    #[test]
    fn a_node_leaves_its_list_from_any_position() {
        let mut nodes = Nodes::default();
        let mut list = NodeList::EMPTY;
        let indices: Vec<NodeIndex> = (0..5)
            .map(|hash| {
                let index = nodes.insert(Node::new(Space::Main, b"", hash, NodeState::Deferred));
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

//! Where a lane keeps its nodes: in blocks that never move, so that growing copies nothing while others
//! wait, and that are given back when everything in them has gone. Knows what a node looks like, not what
//! it means.

use std::ops::{Index, IndexMut};

use crate::broker::name::{LockName, Space};
use crate::broker::outcome::Mode;
use crate::broker::rules::{Hold, Slot};

/// What `At`s lists end with.
pub(super) const NONE: At = u32::MAX;

/// Nodes in a block: 16 KiB.
const BLOCK: u32 = 256;

/// Where a node is.
pub(super) type At = u32;

/// Who decides about a name, and what there is to know.
///
/// | state      | holders         | waiters | node is in the list of      |
/// |------------|-----------------|---------|-----------------------------|
/// | `Held`     | one, this one   | none    | its session                 |
/// | `Deferred` | the table knows | ditto   | none                        |
/// | `Marked`   | none            | none    | marks; `orphaned` is set    |
/// | `Vacant`   | no name here    | –       | vacant nodes of its block   |
///
/// A name that would be neither of the first three has no node.
#[derive(Clone, Copy)]
pub(super) enum State {
    Held { slot: Slot, mode: Mode, hold: Hold },
    Deferred,
    Marked,
    Vacant,
}

/// One cache line, since a name that is acquired again after a while is read from memory.
#[repr(align(64))]
pub(super) struct Node {
    pub(super) name: LockName,
    pub(super) state: State,
    /// What the index knows it by.
    pub(super) hash: u32,
    pub(super) previous: At,
    pub(super) next: At,
    pub(super) space: Space,
    /// The last exclusive holder vanished; with an exclusive holder, the one before it. With `Deferred` the
    /// table knows, and this says nothing.
    pub(super) orphaned: bool,
}

impl Node {
    fn vacant(next: At) -> Self {
        let (name, state, space) = (LockName::new(b""), State::Vacant, Space::Main);
        Self { name, state, hash: 0, previous: NONE, next, space, orphaned: false }
    }
}

struct Block {
    /// `BLOCK` of them, or none while all are vacant and the memory is given back.
    nodes: Box<[Node]>,
    vacant: At,
    occupied: u32,
}

#[derive(Default)]
pub(super) struct Nodes {
    blocks: Vec<Block>,
    /// The blocks with room, each once. The last one is filled first.
    roomy: Vec<u32>,
}

impl Nodes {
    /// Puts the node somewhere. Places that have become vacant are used again, the latest first.
    #[inline]
    pub(super) fn insert(&mut self, node: Node) -> At {
        let number = self.roomy.last().copied().unwrap_or_else(|| self.add_block());
        let block = &mut self.blocks[number as usize];
        if block.nodes.is_empty() {
            block.fill(number);
        }
        let at = block.vacant;
        let place = &mut block.nodes[(at % BLOCK) as usize];
        block.vacant = place.next;
        block.occupied += 1;
        *place = node;
        if block.occupied == BLOCK {
            self.roomy.pop();
        }
        at
    }

    #[inline]
    pub(super) fn remove(&mut self, at: At) {
        let number = at / BLOCK;
        let block = &mut self.blocks[number as usize];
        block.nodes[(at % BLOCK) as usize] = Node::vacant(block.vacant);
        block.vacant = at;
        block.occupied -= 1;
        let (was_full, is_empty) = (block.occupied == BLOCK - 1, block.occupied == 0);
        if was_full {
            let before = self.roomy.last().copied();
            self.roomy.push(number);
            // It may have been kept empty for being the one in use, which it is no more.
            before.into_iter().for_each(|before| self.blocks[before as usize].give_back_if_empty());
        } else if is_empty && self.roomy.last() != Some(&number) {
            self.blocks[number as usize].give_back_if_empty();
        }
    }

    /// The highest place there may be a node at, and one.
    pub(super) fn end(&self) -> usize {
        self.blocks.len() * BLOCK as usize
    }

    /// The node at this place, if there is one.
    pub(super) fn get(&self, at: usize) -> Option<&Node> {
        let block = self.blocks.get(at / BLOCK as usize)?;
        block.nodes.get(at % BLOCK as usize).filter(|node| !matches!(node.state, State::Vacant))
    }

    #[cold]
    #[expect(clippy::expect_used, reason = "four billion names in one lane would need 300 GiB")]
    fn add_block(&mut self) -> u32 {
        let number = u32::try_from(self.blocks.len()).ok().filter(|&number| number < NONE / BLOCK);
        let number = number.expect("a lane has fewer than 2^32 names");
        self.blocks.push(Block { nodes: Box::default(), vacant: NONE, occupied: 0 });
        self.roomy.push(number);
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
        let first = number * BLOCK;
        let next = |at: At| if at + 1 < first + BLOCK { at + 1 } else { NONE };
        self.nodes = (first..first + BLOCK).map(|at| Node::vacant(next(at))).collect();
        self.vacant = first;
    }
}

impl Index<At> for Nodes {
    type Output = Node;

    fn index(&self, at: At) -> &Node {
        &self.blocks[(at / BLOCK) as usize].nodes[(at % BLOCK) as usize]
    }
}

impl IndexMut<At> for Nodes {
    fn index_mut(&mut self, at: At) -> &mut Node {
        &mut self.blocks[(at / BLOCK) as usize].nodes[(at % BLOCK) as usize]
    }
}

/// A list through nodes, of which each is in one at most.
#[derive(Clone, Copy)]
pub(super) struct List {
    pub(super) head: At,
    tail: At,
}

impl List {
    pub(super) const EMPTY: Self = Self { head: NONE, tail: NONE };

    /// Appends a node that is in no list.
    #[inline]
    pub(super) fn link(&mut self, nodes: &mut Nodes, at: At) {
        let node = &mut nodes[at];
        (node.previous, node.next) = (self.tail, NONE);
        match self.tail {
            NONE => self.head = at,
            tail => nodes[tail].next = at,
        }
        self.tail = at;
    }

    /// Takes out a node that is in this list.
    #[inline]
    pub(super) fn unlink(&mut self, nodes: &mut Nodes, at: At) {
        let Node { previous, next, .. } = nodes[at];
        match previous {
            NONE => self.head = next,
            before => nodes[before].next = next,
        }
        match next {
            NONE => self.tail = previous,
            behind => nodes[behind].previous = previous,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(hash: u32) -> Node {
        Node { state: State::Deferred, hash, ..Node::vacant(NONE) }
    }

    #[test]
    fn a_node_is_one_cache_line() {
        assert_eq!(size_of::<Node>(), 64);
    }

    #[test]
    fn nodes_stay_where_they_are_and_blocks_go_when_they_are_empty() {
        let mut nodes = Nodes::default();
        let places: Vec<At> = (0..5 * BLOCK).map(|hash| nodes.insert(node(hash))).collect();
        for &at in places.iter().filter(|&at| at % 7 != 0 && at / BLOCK != 3) {
            nodes.remove(at);
        }
        for (hash, &at) in (0..).zip(&places) {
            let stays = at % 7 == 0 || at / BLOCK == 3;
            assert_eq!(nodes.get(at as usize).map(|node| node.hash), stays.then_some(hash));
        }
        for &at in places.iter().filter(|&at| at % 7 == 0 || at / BLOCK == 3) {
            nodes.remove(at);
        }
        let kept = nodes.blocks.iter().filter(|block| !block.nodes.is_empty()).count();
        assert!(kept <= 2, "{kept}");
        let mut again: Vec<At> = (0..5 * BLOCK).map(|hash| nodes.insert(node(hash))).collect();
        again.sort_unstable();
        assert_eq!(again, places);
        assert_eq!(nodes.end(), again.len());
    }

    #[test]
    fn hardly_anything_is_kept_in_whichever_order_nodes_go() {
        let count = 20 * BLOCK;
        let orders: [fn(u32, u32) -> u32; 3] =
            [|_, at| at, |count, at| count - 1 - at, |count, at| (at * 7919) % count];
        for order in orders {
            let mut nodes = Nodes::default();
            let places: Vec<At> = (0..count).map(|hash| nodes.insert(node(hash))).collect();
            for at in 0..count {
                nodes.remove(places[order(count, at) as usize]);
            }
            let kept = nodes.blocks.iter().filter(|block| !block.nodes.is_empty()).count();
            assert!(kept <= 1, "{kept}");
        }
    }
}

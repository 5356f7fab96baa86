//! What one session holds in one lane: a list of its names there, and how many they are. Belongs to
//! the session, and is read and written under the mutex of the lane, so that plain loads and stores
//! suffice: a change needs the nodes, so only a thread that has locked the lane can make one. The
//! count alone may be read without the mutex.

use crate::broker::fast_lane::node::{NONE, NodeIndex, NodeList, Nodes};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The names that a session holds in a lane, in the order in which it acquired them.
pub(crate) struct LaneHoldings {
    head: AtomicU32,
    tail: AtomicU32,
    count: AtomicU32,
}

impl LaneHoldings {
    pub(crate) fn new() -> Self {
        Self { head: AtomicU32::new(NONE), tail: AtomicU32::new(NONE), count: AtomicU32::new(0) }
    }

    /// How many names these are. A change that another thread makes at this moment may be missing.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Relaxed) as usize
    }

    /// The name that was acquired first, or [`NONE`].
    pub(super) fn first(&self) -> NodeIndex {
        self.head.load(Relaxed)
    }

    /// Appends a node that is in no list.
    #[inline]
    pub(super) fn add(&self, nodes: &mut Nodes, index: NodeIndex) {
        self.change(|list| list.link(nodes, index));
        self.count.store(self.count.load(Relaxed) + 1, Relaxed);
    }

    /// Takes out a node that is in this list.
    #[inline]
    pub(super) fn remove(&self, nodes: &mut Nodes, index: NodeIndex) {
        debug_assert!(self.count() > 0, "a lock that was never counted is given up");
        self.change(|list| list.unlink(nodes, index));
        self.count.store(self.count.load(Relaxed) - 1, Relaxed);
    }

    fn change(&self, change: impl FnOnce(&mut NodeList)) {
        let mut list = NodeList { head: self.head.load(Relaxed), tail: self.tail.load(Relaxed) };
        change(&mut list);
        self.head.store(list.head, Relaxed);
        self.tail.store(list.tail, Relaxed);
        debug_assert_eq!(list.head == NONE, list.tail == NONE, "an empty list has no ends");
    }
}

//! The names that a lane keeps in its index when they are free, because they were acquired lately.
//! A name that is acquired again and again is then found by one look-up, and nothing is inserted or
//! removed. Knows the places of nodes, not what is in them.

use crate::broker::fast_lane::node::{NONE, NodeIndex};
use crate::os::sync::IS_MODEL_CHECKED;

/// Few, because each of them is memory that nobody uses.
const RECENT_MAX: usize = if IS_MODEL_CHECKED { 1 } else { 4 };

/// The nodes that were added last. A node stays here when it is held again.
pub(super) struct RecentNodes {
    nodes: [NodeIndex; RECENT_MAX],
    oldest: u32,
}

impl RecentNodes {
    pub(super) const MAX: usize = RECENT_MAX;

    pub(super) fn new() -> Self {
        Self { nodes: [NONE; RECENT_MAX], oldest: 0 }
    }

    /// Adds a node, and returns the one that has to go for it.
    pub(super) fn add(&mut self, index: NodeIndex) -> Option<NodeIndex> {
        let oldest = self.oldest as usize % RECENT_MAX;
        self.oldest = self.oldest.wrapping_add(1);
        let displaced = std::mem::replace(&mut self.nodes[oldest], index);
        (displaced != NONE).then_some(displaced)
    }
}

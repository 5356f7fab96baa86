//! What a snapshot takes from a lane besides what [`Lane::scan`] shows, and how a lane is filled
//! from one. The lanes of the new broker have other names than those of the old one, since names are
//! hashed differently there.

use crate::broker::fast_lane::lane::{Holder, KeyRef, Lane};
use crate::broker::fast_lane::node::{NONE, NodeState};
use crate::broker::mode::Mode;
use crate::broker::name::{LockName, Space};
use crate::broker::rules::Hold;

impl Lane {
    /// The orphaned names that are free, oldest first.
    pub(crate) fn orphaned_names(&self) -> impl Iterator<Item = (Space, &LockName)> {
        let mut index = self.orphans.oldest();
        std::iter::from_fn(move || {
            let node = (index != NONE).then(|| &self.nodes[index])?;
            index = node.next;
            Some((node.space, &node.name))
        })
    }

    /// Makes a session the holder of a name, as in the lane that the snapshot was taken of. The
    /// names of one session must come in the order of their tokens. Returns false, and changes
    /// nothing, if the lane has the name already.
    pub(crate) fn restore_hold(
        &mut self,
        key: KeyRef<'_>,
        by: Holder<'_>,
        mode: Mode,
        hold: Hold,
        orphaned: bool,
    ) -> bool {
        let state = NodeState::Held { slot: by.slot, mode, hold };
        let (index, is_new) = self.find_or_insert(key, state);
        if is_new {
            self.nodes[index].orphaned = orphaned;
            by.holdings.add(&mut self.nodes, index);
            *self.held(mode) += 1;
            self.debug_check();
        }
        is_new
    }

    /// Remembers a free name as orphaned, and forgets the oldest one if there are too many. Returns
    /// false, and changes nothing, if the lane has the name already.
    pub(crate) fn restore_orphan(&mut self, key: KeyRef<'_>) -> bool {
        let (index, is_new) = self.find_or_insert(key, NodeState::Free);
        if is_new {
            self.nodes[index].orphaned = true;
            self.add_free(index);
        }
        is_new
    }
}

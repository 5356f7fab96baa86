//! Looking into a lane without changing it: one name, all names in pieces, or what one session
//! holds.

use crate::broker::fast_lane::lane::{Holder, KeyRef, Lane};
use crate::broker::fast_lane::node::{NONE, Node, NodeIndex, NodeState};
use crate::broker::mode::Mode;
use crate::broker::name::{LockName, Space};
use crate::broker::outcome::{Held, Inspection};
use crate::broker::rules::{Hold, Slot};

/// A name as its lane sees it.
pub(crate) enum LaneView {
    Nobody { orphaned: bool },
    One { slot: Slot, mode: Mode, hold: Hold, orphaned: bool },
    Deferred,
}

impl LaneView {
    /// The name as `asker` sees it; `None` if the table must be asked.
    pub(crate) fn inspect(&self, asker: Slot) -> Option<Inspection> {
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

    fn of(node: &Node) -> Self {
        match node.state {
            NodeState::Held { slot, mode, hold } => Self::One { slot, mode, hold, orphaned: node.orphaned },
            NodeState::Deferred => Self::Deferred,
            NodeState::Free | NodeState::Vacant => Self::Nobody { orphaned: node.orphaned },
        }
    }
}

/// Where a listing of what a session holds goes on: after this node, if it is still held with this
/// token.
#[derive(Clone, Copy)]
pub(crate) struct HeldCursor {
    index: NodeIndex,
    token: u64,
}

impl Lane {
    /// How the name is held.
    pub(crate) fn view(&self, key: KeyRef<'_>) -> LaneView {
        self.find(key).map_or(LaneView::Nobody { orphaned: false }, |index| LaneView::of(&self.nodes[index]))
    }

    /// Shows the names that are held or deferred to `each`: looks at up to `steps` places from
    /// `from` on, and returns where to go on, or `None` after the last one. The order means nothing
    /// but is fixed, so that a name that is here from the first call to the last is shown exactly
    /// once.
    pub(crate) fn scan(
        &self,
        from: NodeIndex,
        steps: usize,
        mut each: impl FnMut(Space, &LockName, LaneView),
    ) -> Option<NodeIndex> {
        let end = self.nodes.end().min(from.saturating_add(u32::try_from(steps).unwrap_or(u32::MAX)));
        for node in (from..end).filter_map(|index| self.nodes.get(index)) {
            if !matches!(node.state, NodeState::Free) {
                each(node.space, &node.name, LaneView::of(node));
            }
        }
        (end < self.nodes.end()).then_some(end)
    }

    /// Shows up to `at_most` names that the session holds here to `each`, in the order in which it
    /// acquired them, beginning after `after`. Returns where to go on, or `None` after the last
    /// one.
    pub(crate) fn held_after(
        &self,
        by: Holder<'_>,
        after: Option<HeldCursor>,
        at_most: usize,
        mut each: impl FnMut(Space, &LockName, Mode),
    ) -> Option<HeldCursor> {
        let mut index = by.holdings.first();
        if let Some(after) = after {
            let is_still_held = self.nodes.get(after.index).is_some_and(|node| {
                matches!(node.state, NodeState::Held { slot, hold, .. }
                    if slot == by.slot && hold.token == after.token)
            });
            if is_still_held {
                index = self.nodes[after.index].next;
            } else {
                // It was released in the meantime. Names acquired before it have lower tokens.
                while let Some((_, hold, next)) = self.held_at(index)
                    && hold.token < after.token
                {
                    index = next;
                }
            }
        }
        let mut last = None;
        for _ in 0..at_most {
            let (mode, hold, next) = self.held_at(index)?;
            let node = &self.nodes[index];
            each(node.space, &node.name, mode);
            last = Some(HeldCursor { index, token: hold.token });
            index = next;
        }
        last
    }

    /// How a node in a session's list is held, and the next node in that list.
    fn held_at(&self, index: NodeIndex) -> Option<(Mode, Hold, NodeIndex)> {
        let node = (index != NONE).then(|| &self.nodes[index])?;
        match node.state {
            NodeState::Held { mode, hold, .. } => Some((mode, hold, node.next)),
            NodeState::Deferred | NodeState::Free | NodeState::Vacant => None,
        }
    }
}

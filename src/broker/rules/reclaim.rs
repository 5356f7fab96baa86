//! In the grace: a session gets back what it held in an earlier run of the server. Part of the
//! table. Knows nothing of how a session proves that.

use crate::broker::mode::Mode;
use crate::broker::rules::index::EntryId;
use crate::broker::rules::step::{HashedKey, Hold, NotReclaimed, Slot, Step};
use crate::broker::rules::table::Table;

impl Table {
    /// Makes the session a holder of the name again, with the token that it had, if all other
    /// holders allow that. The name must have been adopted. To be called only while nothing is
    /// granted, so requests that wait are not overtaken: the session held the name before they came.
    pub(crate) fn reclaim(
        &mut self,
        step: &mut Step<'_>,
        slot: Slot,
        key: &HashedKey,
        mode: Mode,
        token: u64,
    ) -> Result<(), NotReclaimed> {
        let found = self.find(key);
        debug_assert!(found.is_some(), "the name was adopted in this turn");
        // A name that the table does not know may be held in its lane.
        let Some(id) = found else { return Err(NotReclaimed::Conflict) };
        let result = self.check_reclaim(step, slot, id, mode, token);
        if result.is_ok() {
            if !self.entries[id].queue.is_empty() {
                // Those that wait for the name may wait for this session now, and must rank higher.
                self.rank_lowest(slot);
            }
            self.hold(id, slot, mode, Hold { token, since: step.now });
        }
        // If it was adopted, and not reclaimed, it must leave.
        self.retire(step, id);
        result
    }

    fn check_reclaim(
        &mut self,
        step: &Step<'_>,
        slot: Slot,
        id: EntryId,
        mode: Mode,
        token: u64,
    ) -> Result<(), NotReclaimed> {
        if let Some(held) = self.held_by(id, slot) {
            return Err(NotReclaimed::AlreadyHeld(held));
        }
        if !self.session(slot).requests.is_empty() {
            return Err(NotReclaimed::Waiting);
        }
        if token >= step.tokens.peek() {
            return Err(NotReclaimed::TokenNotGivenYet);
        }
        if !self.entries[id].admits(slot, mode) {
            return Err(NotReclaimed::Conflict);
        }
        Ok(())
    }
}

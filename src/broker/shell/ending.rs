//! The end of a session: its waits leave their queues and its locks are freed, wherever they are, some at a
//! time so that others are let in between. Decides nothing; knows in what order nothing is overlooked.

use std::sync::atomic::Ordering::Release;

use crate::broker::fast_lane::Lane;
use crate::broker::outcome::Outcome;
use crate::broker::rules::Slot;
use crate::broker::session::SessionInfo;
use crate::broker::shell::core::Inner;
use crate::broker::shell::lifecycle::Intent;
use crate::os::sync::IS_EXPLORED;

/// How many locks of a session that ends are freed in one go, while others wait for the lane's mutex.
const END_AT_ONCE: usize = if IS_EXPLORED { 1 } else { 256 };

impl Inner {
    /// `vanished`: the next holder of what it held exclusively is told that its work may be half done.
    pub(in crate::broker) fn end_session(&self, info: &SessionInfo, vanished: bool) {
        if info.ended.swap(true, Release) {
            return;
        }
        let slot = info.slot;
        // Every call looks at `ended` with the lane or the table locked: whatever another thread of
        // this session got before is found below, and nothing can come after. First the waits, so that
        // nothing more is granted; then the lanes, from which names only go to the table; so when the
        // table has been emptied last, there is nothing left anywhere.
        self.end_waits(slot, Outcome::Lost);
        // What others wait for comes before the lanes, which may take a while with what nobody waits for.
        self.end_holds(slot, vanished);
        // In turns: who waits for a lane's mutex would find it locked again if that lane came next once more.
        let now = self.end_of_hold();
        let some = |lane: &mut Lane| lane.end_session(slot, END_AT_ONCE, now, vanished);
        let mut lanes: Vec<_> = self.lanes.iter().collect();
        while !lanes.is_empty() {
            lanes.retain(|cell| self.in_cell(cell, Intent::Broker, some) == Ok(END_AT_ONCE));
        }
        self.end_holds(slot, vanished);
        // Only now may another session have the slot.
        self.sessions.remove(slot);
    }

    fn end_holds(&self, slot: Slot, vanished: bool) {
        // Of a broker that has failed nothing is left to free; nor below.
        let _ = self.until_done(Intent::Broker, |table, step| table.end_holds(step, slot, vanished));
    }

    /// Ends all waits of a session, as if it had ended; for another thread than its own, which may end it meanwhile.
    pub(in crate::broker) fn end_waits_of(&self, info: &SessionInfo) {
        // Once it has ended this is refused, before another session can have its slot.
        let _ = self.until_done(Intent::Releasing(info), |table, step| {
            table.end_waits(step, info.slot, Outcome::Lost);
        });
    }

    pub(in crate::broker) fn end_waits(&self, slot: Slot, why: Outcome) {
        let _ = self.until_done(Intent::Broker, |table, step| table.end_waits(step, slot, why));
    }
}

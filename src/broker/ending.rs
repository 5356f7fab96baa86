//! What ends: a session, with its waits and locks; the grace after an unclean stop; and all
//! granting, when the broker is shut. Each works in small steps, so that other threads get in
//! between. Decides nothing; knows in which order the steps must be taken so that nothing is
//! overlooked.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering::{Release, SeqCst};

use crate::broker::clock::Stamp;
use crate::broker::fast_lane::{Lane, LaneRelease};
use crate::broker::hasher::lane_of;
use crate::broker::lifecycle::{CallRefused, Intent};
use crate::broker::name::Key;
use crate::broker::outcome::{Outcome, Released};
use crate::broker::rules::{HashedKey, Slot};
use crate::broker::session_info::SessionInfo;
use crate::broker::shell::Shell;
use crate::os::sync::{IS_MODEL_CHECKED, fence};

/// How many locks of an ending session are freed in one lane before its mutex is released for
/// others.
const RELEASE_BATCH: usize = if IS_MODEL_CHECKED { 1 } else { 256 };

impl Shell {
    /// Ends a session, once. If it has `vanished`, the next holder of each lock it held exclusively
    /// is told that the work under that lock may be half done.
    pub(super) fn end_session(&self, info: &SessionInfo, vanished: bool) {
        if info.ended.swap(true, Release) {
            return;
        }
        // For `Holdings::lanes`.
        fence(SeqCst);
        let slot = info.slot;
        // From here on every call of this session is refused, because each checks `ended` with the
        // lane or the table locked. Everything acquired before is found below. The order
        // matters: first the waits, so that nothing more is granted. Then the lanes, since names go
        // from there to the table and, while the session holds them, never back. The table last.
        self.end_waits(slot, Outcome::Lost);
        // Once before the lanes, too: other sessions wait for what is in the table, and emptying
        // the lanes may take a while.
        self.end_holds(slot, vanished);
        // One batch from each lane in turn, so that threads that wait for the mutex of a lane get
        // in between.
        let now = self.end_of_hold();
        let mut lanes: Vec<_> = info.holdings.lanes().collect();
        while !lanes.is_empty() {
            lanes.retain(|&lane| {
                let of = info.holder(lane);
                let batch = |content: &mut Lane| content.end_session(of, RELEASE_BATCH, now, vanished);
                self.in_lane(lane, Intent::Broker, batch) == Ok(RELEASE_BATCH)
            });
        }
        self.end_holds(slot, vanished);
        // Nothing refers to the slot any more, so another session may have it.
        self.sessions.remove(slot);
    }

    fn end_holds(&self, slot: Slot, vanished: bool) {
        // Refused only if the broker has failed. Then no lock is left to free; the same below.
        let _ = self.until_done(Intent::Broker, |table, step| table.end_holds(step, slot, vanished));
    }

    /// Ends all waits of the session that has this slot now, if any.
    fn end_waits(&self, slot: Slot, why: Outcome) {
        let _ = self.until_done(Intent::Broker, |table, step| table.end_waits(step, slot, why));
    }

    /// Ends all waits of a session, as if it had ended. For a thread that does not own the session:
    /// it may end meanwhile.
    pub(super) fn end_waits_of(&self, info: &SessionInfo) {
        // Refused once the session has ended, which is before another session can have its slot.
        let _ = self.until_done(Intent::Releasing(info), |table, step| {
            table.end_waits(step, info.slot, Outcome::Lost);
        });
    }

    /// Ends all waits of a session, and frees its locks, except those for which `keep` is true, as if
    /// it had vanished.
    pub(super) fn forsake(&self, info: &SessionInfo, mut keep: impl FnMut(&Key) -> bool) {
        self.end_waits_of(info);
        let mut forsaken = Vec::new();
        let _ = self.for_each_held(info, |key, _| {
            if !keep(key) {
                forsaken.push(key.clone());
            }
            ControlFlow::<()>::Continue(())
        });
        let now = self.end_of_hold();
        // The first refusal ends this: the session has ended, and holds nothing, or the broker has
        // failed.
        let _ = forsaken.iter().try_for_each(|key| self.forsake_one(info, key, now));
    }

    fn forsake_one(&self, info: &SessionInfo, key: &Key, now: Option<Stamp>) -> Result<(), CallRefused> {
        let key = self.key(key.space, key.name.as_bytes());
        let lane = lane_of(key.hash);
        let of = info.holder(lane);
        let freed =
            self.in_lane(lane, Intent::Releasing(info), |content| content.release(key, of, now, true))?;
        if matches!(freed, LaneRelease::Defer) {
            self.release_in_table(info, &key.to_owned(), true)?;
        }
        Ok(())
    }

    /// Gives up the lock, or the wait for it, of a name that its lane defers to the table. `None` if
    /// the session has neither.
    pub(super) fn release_in_table(
        &self,
        info: &SessionInfo,
        key: &HashedKey,
        vanished: bool,
    ) -> Result<Option<Released>, CallRefused> {
        self.with_table(&[], Intent::Releasing(info), |table, step| {
            let released = table.release(step, info.slot, key, vanished);
            if released == Some(Released::Hold) {
                info.holdings.subtract_one_in_table();
                debug_assert!(info.holdings.in_table() <= table.holds());
                debug_assert!(table.inspect(info.slot, key).is_none_or(|seen| seen.held.is_none()));
            }
            released
        })
    }

    /// Grants from now on, first of all to the requests that wait.
    pub(super) fn end_grace(&self) {
        if !self.lifecycle.open() {
            return;
        }
        // Every request that waits already is in the table when this locks it for the first time.
        // Requests that come later are granted what is free, as at any other time.
        let mut next = Some(0);
        let _ = self.until_done(Intent::Broker, |table, step| {
            next = next.and_then(|first| table.unsettle_from(step, first))
        });
    }

    /// Grants nothing any more, and ends every wait with [`Outcome::Stopping`].
    pub(super) fn shut(&self) {
        if self.lifecycle.shut() {
            // A thread that passed the check in a lane before this has left the lane, and its grant
            // is counted, when this has locked the lane once.
            self.lanes.iter().for_each(|cell| drop(cell.lane.lock()));
            for session in self.sessions.infos() {
                self.end_waits(session.slot, Outcome::Stopping);
            }
        }
    }
}

//! Requests that are refused whichever session holds the locks: because a name is too long, or
//! because the limits leave no room for more locks. Changes nothing.

use std::sync::atomic::Ordering::Relaxed;

use crate::broker::hasher::LANES;
use crate::broker::outcome::AcquireError;
use crate::broker::session_info::SessionInfo;
use crate::broker::shell::Shell;

impl Shell {
    pub(super) fn check_names<'a>(
        &self,
        names: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), AcquireError> {
        let longest = self.limits.name_bytes_max();
        if names.into_iter().any(|name| name.len() > longest) {
            return Err(AcquireError::Invalid(format!("a name is longer than {longest} bytes")));
        }
        Ok(())
    }

    /// Whether the limits leave room for `wanted` more locks, of which one is in `lane`. Changes
    /// that other threads make at this moment, and grants to waiters, are not counted: a limit can
    /// be exceeded by that many locks.
    pub(super) fn check_room(
        &self,
        info: &SessionInfo,
        wanted: usize,
        lane: usize,
    ) -> Result<(), AcquireError> {
        if !self.limits.limits_locks() {
            return Ok(());
        }
        self.check_limited_room(info, wanted, lane)
    }

    fn check_limited_room(&self, info: &SessionInfo, wanted: usize, lane: usize) -> Result<(), AcquireError> {
        let refused = |text: &str| Err(AcquireError::Refused(text.to_owned()));
        let (in_table, in_lane) = (info.holdings.in_table(), info.holdings.in_lane(lane).count());
        let limit = self.limits.locks_per_session_max();
        if !is_far_off(limit, in_table, in_lane) && info.holdings.total().saturating_add(wanted) > limit {
            return refused("this session holds as many locks as it may");
        }
        let in_table = self.table_held.load(Relaxed);
        let limit = self.limits.locks_max();
        if !is_far_off(limit, in_table, self.lanes[lane].held.load(Relaxed)) {
            let in_lanes: usize = self.lanes.iter().map(|cell| cell.held.load(Relaxed)).sum();
            if in_lanes.saturating_add(in_table).saturating_add(wanted) > limit {
                return refused("as many locks are held as may be");
            }
        }
        Ok(())
    }
}

/// Whether a limit on locks is so far off that the counts of all lanes need not be added up. Names
/// are spread evenly, so when there are many, one lane is a sample of all.
fn is_far_off(limit: usize, in_table: usize, in_lane: usize) -> bool {
    let fair_share = limit.saturating_sub(in_table) / LANES;
    fair_share > 1_000 && in_lane < fair_share / 2
}

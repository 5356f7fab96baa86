//! What is refused by itself, before anybody looks who holds what: names that are too long, sets that make no
//! sense, and locks beyond the limits. Changes nothing.

use std::sync::atomic::Ordering::Relaxed;

use crate::broker::fast_lane::KeyRef;
use crate::broker::name::LockName;
use crate::broker::outcome::AcquireError;
use crate::broker::session::SessionInfo;
use crate::broker::shell::core::{Inner, LANES};
use crate::broker::shell::held::Part;
use crate::broker::{NAMES_AT_ONCE_MAX, NAMES_BYTES_MAX};

impl Inner {
    pub(in crate::broker) fn check_names<'a>(
        &self,
        names: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), AcquireError> {
        let longest = self.limits.name_bytes_max();
        if names.into_iter().any(|name| name.len() > longest) {
            return Err(AcquireError::Invalid(format!("a name is longer than {longest} bytes")));
        }
        Ok(())
    }

    /// Whether the limits leave room for `wanted` more locks, of which `key` is one: its lane is the sample that
    /// is looked at. May miss what other threads are just doing, and what is granted to waiters: a limit can be
    /// overshot by that many.
    pub(in crate::broker) fn check_room(
        &self,
        info: &SessionInfo,
        key: KeyRef<'_>,
        wanted: usize,
    ) -> Result<(), AcquireError> {
        self.check_limits(info, self.lane_of(key.hash), wanted).or_else(|refusal| {
            // A lock already held is reported as held even over the limit.
            let is_alone = wanted == 1;
            let held = if is_alone { self.inspect(info, key.space, key.name)?.held } else { None };
            Err(held.map_or(refusal, AcquireError::AlreadyHeld))
        })
    }

    fn check_limits(&self, info: &SessionInfo, lane: usize, wanted: usize) -> Result<(), AcquireError> {
        let refused = |text: &str| Err(AcquireError::Refused(text.to_owned()));
        let (in_table, in_lane) = (info.held.in_part(Part::Table), info.held.in_part(Part::Lane(lane)));
        let most = self.limits.locks_per_session_max();
        if !is_far(most, in_table, in_lane) && info.held.in_all().saturating_add(wanted) > most {
            return refused("this session holds as many locks as it may");
        }
        let in_table = self.table_held.load(Relaxed);
        let most = self.limits.locks_max();
        if !is_far(most, in_table, self.lanes[lane].held.load(Relaxed)) {
            let in_lanes: usize = self.lanes.iter().map(|cell| cell.held.load(Relaxed)).sum();
            if in_lanes.saturating_add(in_table).saturating_add(wanted) > most {
                return refused("as many locks are held as may be");
            }
        }
        Ok(())
    }
}

/// Whether a limit on locks is far off. Names are spread evenly, so with many of them one lane tells about
/// all: adding up is for limits that are low or near.
fn is_far(most: usize, in_table: usize, in_lane: usize) -> bool {
    let fair_share = most.saturating_sub(in_table) / LANES;
    fair_share > 10_000 && in_lane < fair_share / 2
}

/// Whether these names may be asked for at once: few enough, not too long together, and none of them twice. The
/// limits are the same for a session on a server, which refuses what its server would.
pub(crate) fn check_set<'a, S: Ord>(
    names: impl IntoIterator<Item = (S, &'a LockName)>,
) -> Result<(), AcquireError> {
    let invalid = |text: &str| Err(AcquireError::Invalid(text.to_owned()));
    let mut names: Vec<(S, &LockName)> = names.into_iter().collect();
    if names.len() > NAMES_AT_ONCE_MAX {
        return invalid(&format!("more than {NAMES_AT_ONCE_MAX} names at once"));
    }
    if names.iter().map(|(_, name)| name.as_bytes().len()).sum::<usize>() > NAMES_BYTES_MAX {
        return invalid(&format!("the names have more than {NAMES_BYTES_MAX} bytes together"));
    }
    names.sort_unstable();
    match names.windows(2).any(|pair| pair[0] == pair[1]) {
        _ if names.is_empty() => invalid("no name is given"),
        true => invalid("the same name is given twice"),
        false => Ok(()),
    }
}

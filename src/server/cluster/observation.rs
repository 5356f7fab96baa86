//! How long a standby has seen the leader's key unchanged. Pure: it is given the time.

use std::time::Duration;

use crate::os::boot_clock::BootTime;

/// The revisions of the keys that say who is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The leader's key has this revision.
    Leader(i64),
    /// There is no leader's key, and the term's key has this revision; 0 if there is none.
    NoLeader { term: i64 },
}

/// How long a standby has seen the same. If there is no leader's key, that of the term counts: between
/// two looks, another server may have become active, and the leader's key be gone again.
///
/// The active server has sent a write before etcd had it, and etcd had it before it was read here.
/// So the time since a revision was first read here is never longer than the time since the active
/// server has sent it.
#[derive(Debug, Default)]
pub(super) struct Observation {
    seen: Option<(Seen, BootTime)>,
}

impl Observation {
    /// The keys were read, and `now` the answer is here. Returns for how long they have had these
    /// revisions, as far as this server has seen.
    pub(super) fn see(&mut self, seen: Seen, now: BootTime) -> Duration {
        match self.seen {
            Some((before, since)) if before == seen => since.until(now),
            _ => {
                self.seen = Some((seen, now));
                Duration::ZERO
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_begins_anew_with_each_revision_and_with_none() {
        let at = |seconds| BootTime::at(Duration::from_secs(seconds));
        let mut seen = Observation::default();
        let (five, six) = (Seen::Leader(5), Seen::Leader(6));
        let (none, none_again) = (Seen::NoLeader { term: 5 }, Seen::NoLeader { term: 7 });
        let ages =
            [(five, 100), (five, 103), (none, 104), (none, 109), (none_again, 110), (five, 111), (six, 200)];
        let ages = ages.map(|(revisions, now)| seen.see(revisions, at(now)).as_secs());
        assert_eq!(ages, [0, 3, 0, 5, 0, 0, 0]);
    }
}

//! How long a standby has seen the leader's key unchanged. Pure: it is given the time.

use std::time::Duration;

use crate::os::boot_clock::BootTime;

/// What a standby has seen of the leader's key, by its revision; 0 if there is none.
///
/// The active server has sent a write before etcd had it, and etcd had it before it was read here.
/// So the time since a revision was first read here is never longer than the time since the active
/// server has sent it.
#[derive(Debug, Default)]
pub(super) struct Observation {
    seen: Option<(i64, BootTime)>,
}

impl Observation {
    /// The key was read, and `now` the answer is here. Returns since when it has had this revision,
    /// as far as this server has seen.
    pub(super) fn see(&mut self, revision: i64, now: BootTime) -> Duration {
        match self.seen {
            Some((seen, since)) if seen == revision => since.until(now),
            _ => {
                self.seen = Some((revision, now));
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
        let ages = [(5, 100), (5, 103), (0, 104), (0, 109), (5, 110), (5, 111), (6, 200)];
        let ages = ages.map(|(revision, now)| seen.see(revision, at(now)).as_secs());
        assert_eq!(ages, [0, 3, 0, 5, 0, 1, 0]);
    }
}

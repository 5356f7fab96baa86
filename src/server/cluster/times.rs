//! The times of a cluster, all derived from two: the dead-peer timeout, within which a client finds
//! out that its server has gone, and the leader timeout, within which the other servers find out
//! that the active one has. Pure.

use std::time::Duration;

use crate::os::Keepalive;

/// How long a request to etcd may take, as a part of the leader timeout: four attempts fit into the
/// time that the active server has.
const REQUESTS_IN_TIMEOUT: u32 = 4;
/// How often the active server says that it is still there, as a part of the leader timeout.
const RENEWALS_IN_TIMEOUT: u32 = 5;
/// How often a standby looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The times of a cluster.
///
/// Clocks of the machines may go differently fast, by a hundredth in sum. So the active server
/// counts on less than the leader timeout, and its standbys wait for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterTimes {
    pub(super) dead_peer_timeout: Duration,
    pub(super) leader_timeout: Duration,
}

impl ClusterTimes {
    /// The default leader timeout.
    pub const LEADER_TIMEOUT: Duration = Duration::from_secs(5);
    /// The shortest leader timeout.
    pub const LEADER_TIMEOUT_MIN: Duration = Duration::from_secs(1);
    /// The longest leader timeout.
    pub const LEADER_TIMEOUT_MAX: Duration = Duration::from_secs(60);

    /// Checks that the two fit together, both in whole seconds.
    ///
    /// # Errors
    /// If a holder could not resume its session in time after a take-over, or could still believe
    /// in its lock when the next server gives it away. The message has the inequality.
    pub fn new(dead_peer_timeout: Duration, leader_timeout: Duration) -> Result<Self, String> {
        let keepalive = Keepalive::client(dead_peer_timeout);
        let (t, l) = (keepalive.dead_peer_timeout.as_secs_f64(), leader_timeout.as_secs_f64());
        // Our clients count with B in whole seconds, see `Keepalive`; others may count more exactly.
        let (b, exact) = (keepalive.user_timeout.as_secs_f64(), t * 7.0 / 25.0);
        let doubt = 2.0 * exact + 2.5;
        let refused = |what: &str, left: f64, right: f64| {
            Err(format!(
                "a leader timeout of {l} s does not fit a dead-peer timeout of {t} s: {what}, so \
                 {left:.2} must not be less than {right:.2}; shorten the one or lengthen the other"
            ))
        };
        let (rest, take_over) = (1.5 * b + 1.5, 1.01 * l + 1.0);
        if rest < take_over {
            return refused("a holder must outlive a take-over (1.5·B + 1.5 ≥ 1.01·L + 1)", rest, take_over);
        }
        let (waits, believes) = (0.99 * t, 1.01 * doubt + 0.91 * l);
        if waits < believes {
            let what = "nothing may be granted while a holder still believes (0.99·T ≥ 1.01·D + 0.91·L)";
            return refused(what, waits, believes);
        }
        Ok(Self { dead_peer_timeout: keepalive.dead_peer_timeout, leader_timeout })
    }

    /// How long after it has sent the last write that succeeded the active server may speak.
    pub(super) fn speak(&self) -> Duration {
        self.leader_timeout * 9 / 10
    }

    /// After this time a server that has not been able to write ends by itself, and can still say
    /// why.
    pub(super) fn give_up(&self) -> Duration {
        self.leader_timeout * 17 / 20
    }

    /// How long a standby must have seen the same revision of the leader's key, if the server there
    /// goes by this leader timeout.
    pub(super) fn take_over_after(&self, of_leader: Duration) -> Duration {
        self.leader_timeout.max(of_leader) * 101 / 100
    }

    pub(super) fn renew_interval(&self) -> Duration {
        self.leader_timeout / RENEWALS_IN_TIMEOUT
    }

    pub(super) fn request_limit(&self) -> Duration {
        self.leader_timeout / REQUESTS_IN_TIMEOUT
    }

    pub(super) fn look_interval(&self) -> Duration {
        LOOK_INTERVAL.min(self.leader_timeout / 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(t: u64, l: u64) -> Result<ClusterTimes, String> {
        ClusterTimes::new(Duration::from_secs(t), Duration::from_secs(l))
    }

    #[test]
    fn times_that_do_not_fit_together_are_refused_with_the_inequality() {
        for (t, longest) in [(12, 2), (15, 4), (25, 8)] {
            of(t, longest).unwrap();
            assert!(of(t, longest + 1).unwrap_err().contains("D + 0.91"), "{t}");
        }
        of(60, 24).unwrap();
        assert!(of(60, 25).unwrap_err().contains("1.01·L + 1"));
        // A shorter one is raised to the minimum, as everywhere.
        assert_eq!(of(5, 2), of(12, 2));
        of(32_767, 60).unwrap();
    }

    #[test]
    fn an_active_server_is_silent_before_any_standby_takes_over() {
        let times = of(25, 5).unwrap();
        let (fast, slow) = (1.005, 0.995);
        let silent_at = times.speak().as_secs_f64() / slow;
        assert!(
            times.give_up() < times.speak()
                && silent_at < times.take_over_after(Duration::ZERO).as_secs_f64() / fast
        );
        assert!(4 * times.request_limit() <= times.leader_timeout);
        assert!(3 * times.renew_interval() < times.give_up());
        let longer = Duration::from_secs(7);
        assert_eq!(times.take_over_after(longer), of(25, 7).unwrap().take_over_after(Duration::ZERO));
    }
}

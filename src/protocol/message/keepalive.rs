//! By which figures either side finds out that the other one's host is gone. All of them come from one,
//! the server's dead-peer timeout, so that a client always finds out before the server gives its locks
//! to somebody else. Knows no socket; the figures are set on one elsewhere.
//!
//! What must hold, if the network is cut at some moment: the server counts from what it received last,
//! which may be its idle time before that moment, so it may free locks its timeout *less its idle time*
//! after it. The client's kernel stops probing while data is unacknowledged, and counts anew from
//! there: if it sends just before its last probe would have told, it finds out only after its probes'
//! time *and* its user timeout. The second sum must be less than the first.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::values::seconds;

/// The keepalive of a connection, in whole seconds. On the wire it is the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Keepalive {
    /// The idle time before the first probe.
    #[serde(with = "seconds")]
    pub idle: Duration,
    /// The time between two probes.
    #[serde(with = "seconds")]
    pub interval: Duration,
    /// The unanswered probes that end the connection.
    pub probes: u32,
    /// How long sent data may stay unacknowledged.
    #[serde(with = "seconds")]
    pub user_timeout: Duration,
    /// After what time without a sign of life a peer's locks are given away: what the others add up to.
    #[serde(with = "seconds")]
    pub dead_peer_timeout: Duration,
}

impl Keepalive {
    /// The dead-peer timeout of a server that was not told another one.
    pub const DEAD_PEER_TIMEOUT: Duration = Duration::from_secs(25);
    /// The shortest dead-peer timeout: below it, whole seconds leave no room between client and server.
    pub const DEAD_PEER_TIMEOUT_MIN: Duration = Duration::from_secs(5);
    /// The longest: the kernel counts idle seconds in 15 bits.
    pub const DEAD_PEER_TIMEOUT_MAX: Duration = Duration::from_secs(32_767);

    /// What a server sets: by default 5 s idle, then every 5 s, dead after 25 s. Locks are then freed 20 s
    /// after the network is cut at the earliest.
    #[must_use]
    pub fn of_server(dead_peer_timeout: Duration) -> Self {
        let whole = Self::clamped(dead_peer_timeout);
        Self::within(whole, whole / 5, whole / 5, whole)
    }

    /// What a client of such a server sets: by default 3 s idle, then every 3 s, dead after 9 s, and 9 s for
    /// unacknowledged data. It knows 18 s after the network is cut at the latest.
    #[must_use]
    pub fn of_client(dead_peer_timeout: Duration) -> Self {
        let whole = Self::clamped(dead_peer_timeout);
        let budget = whole * 9 / 25;
        // The last probe is not to come after the budget is over.
        let step = (budget / 3).max(1);
        Self::within(budget / step * step, step, step, whole)
    }

    fn clamped(dead_peer_timeout: Duration) -> u32 {
        let clamped = dead_peer_timeout.clamp(Self::DEAD_PEER_TIMEOUT_MIN, Self::DEAD_PEER_TIMEOUT_MAX);
        u32::try_from(clamped.as_secs()).unwrap_or(u32::MAX)
    }

    /// Idle time, then probes until `budget` seconds are over. With a user timeout set, the kernel gives up
    /// at the first probe at or after it, whatever the number of probes; so the two are made to agree.
    fn within(budget: u32, idle: u32, interval: u32, dead_peer_timeout: u32) -> Self {
        let (idle, interval) = (idle.max(1), interval.max(1));
        let seconds = |n: u32| Duration::from_secs(n.into());
        Self {
            idle: seconds(idle),
            interval: seconds(interval),
            probes: budget.saturating_sub(idle).div_ceil(interval).max(1),
            user_timeout: seconds(budget),
            dead_peer_timeout: seconds(dead_peer_timeout),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(keepalive: Keepalive) -> (u64, u64, u32, u64) {
        let Keepalive { idle, interval, probes, user_timeout, .. } = keepalive;
        (idle.as_secs(), interval.as_secs(), probes, user_timeout.as_secs())
    }

    #[test]
    fn the_defaults_are_those_documented() {
        let timeout = Keepalive::DEAD_PEER_TIMEOUT;
        assert_eq!(figures(Keepalive::of_server(timeout)), (5, 5, 4, 25));
        assert_eq!(figures(Keepalive::of_client(timeout)), (3, 3, 2, 9));
    }

    /// The moments counted from the one at which the network is cut.
    #[test]
    fn a_client_always_finds_out_first() {
        for seconds in 5..=3600 {
            let timeout = Duration::from_secs(seconds);
            let probing = |k: Keepalive| k.interval * k.probes;
            let (server, client) = (Keepalive::of_server(timeout), Keepalive::of_client(timeout));
            let freed_at_the_earliest = probing(server).min(server.user_timeout);
            let known_at_the_latest = client.idle + probing(client) + client.user_timeout;
            assert!(known_at_the_latest < freed_at_the_earliest, "{seconds}");
            let freed_at_the_latest = server.idle + probing(server);
            assert!(freed_at_the_latest < timeout + server.interval, "{seconds}");
            assert!(freed_at_the_latest >= timeout && server.user_timeout == timeout, "{seconds}");
        }
    }
}

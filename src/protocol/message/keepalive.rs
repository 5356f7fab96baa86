//! By which figures either side finds out that the other one's host is gone. All of them come from one,
//! the server's dead-peer timeout, so that a client always finds out before the server gives its locks
//! to somebody else. Knows no socket; the figures are set on one elsewhere.

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

    /// What a server sets: by default 10 s idle, then every 5 s, dead after 25 s.
    #[must_use]
    pub fn of_server(dead_peer_timeout: Duration) -> Self {
        let whole = Self::clamped(dead_peer_timeout);
        Self::within(whole, whole * 2 / 5, whole / 5, whole)
    }

    /// What a client of such a server sets: by default 5 s idle, then every 3 s, dead after 14 s.
    #[must_use]
    pub fn of_client(dead_peer_timeout: Duration) -> Self {
        let whole = Self::clamped(dead_peer_timeout);
        Self::within(whole * 14 / 25, whole / 5, whole * 3 / 25, whole)
    }

    fn clamped(dead_peer_timeout: Duration) -> u32 {
        let clamped = dead_peer_timeout.clamp(Self::DEAD_PEER_TIMEOUT_MIN, Self::DEAD_PEER_TIMEOUT_MAX);
        u32::try_from(clamped.as_secs()).unwrap_or(u32::MAX)
    }

    /// Idle time, then probes, all within `budget` seconds.
    fn within(budget: u32, idle: u32, interval: u32, dead_peer_timeout: u32) -> Self {
        let (idle, interval) = (idle.max(1), interval.max(1));
        let seconds = |n: u32| Duration::from_secs(n.into());
        Self {
            idle: seconds(idle),
            interval: seconds(interval),
            probes: ((budget - idle) / interval).max(1),
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
    fn the_defaults_are_those_of_the_design() {
        let timeout = Keepalive::DEAD_PEER_TIMEOUT;
        assert_eq!(figures(Keepalive::of_server(timeout)), (10, 5, 3, 25));
        assert_eq!(figures(Keepalive::of_client(timeout)), (5, 3, 3, 14));
    }

    #[test]
    fn a_client_always_finds_out_first() {
        for seconds in 5..=3600 {
            let timeout = Duration::from_secs(seconds);
            let last_probe = |k: Keepalive| k.idle + k.interval * k.probes;
            let (server, client) = (Keepalive::of_server(timeout), Keepalive::of_client(timeout));
            assert!(last_probe(server) <= timeout && server.user_timeout == timeout, "{seconds}");
            assert!(last_probe(client) < last_probe(server), "{seconds}");
            assert!(client.user_timeout < last_probe(server), "{seconds}");
        }
    }
}

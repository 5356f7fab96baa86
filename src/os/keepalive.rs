//! By which figures either side finds out that the other one's host is gone. All of them come from one,
//! the server's dead-peer timeout, so that a client always finds out before the server gives its locks
//! to somebody else. Knows no socket; the figures are set on one elsewhere.
//!
//! A server's kernel takes nothing but data and answers to its own probes for a sign of life, and a client's
//! likewise; so when packets are lost now and then, one may go on hearing what it counts while the other
//! does not. What must hold is therefore said of one moment, that at which the server's kernel gives a
//! client up. From then on nothing but a reset can reach that client: its own time without a sign of life
//! has begun by then, whatever was lost before. The server keeps its locks for the
//! [release delay](Keepalive::release_delay) of the timeout.
//!
//! The client's kernel stops probing while data is unacknowledged, and counts anew from its first
//! retransmission. If it sends just before its last probe would have told, it finds out only after its
//! probes' time, [the time to retransmit](RETRANSMITTING), *and* its user timeout. These three together
//! are the [longest silence](Keepalive::silence_max) of a client that does not know, and must be less than
//! the rest.

use std::time::Duration;

/// The longest that a kernel takes to send data again for the first time, with a retransmission timeout of
/// at most a second, the same again for a tail loss probe before it, and timers that are late.
const RETRANSMITTING: Duration = Duration::from_millis(2500);

/// The same in whole seconds, and something to spare.
const RETRANSMITTING_SECONDS: u32 = 3;

/// The keepalive of a connection, in whole seconds. On the wire it is the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// The idle time before the first probe.
    pub idle: Duration,
    /// The time between two probes.
    pub interval: Duration,
    /// The unanswered probes that end the connection.
    pub probes: u32,
    /// How long sent data may stay unacknowledged.
    pub user_timeout: Duration,
    /// After what time without a sign of life a peer's locks are given away.
    pub dead_peer_timeout: Duration,
}

impl Keepalive {
    /// The dead-peer timeout of a server that was not told another one.
    pub const DEAD_PEER_TIMEOUT: Duration = Duration::from_secs(25);
    /// The shortest dead-peer timeout: below it, in whole seconds, one lost probe would end a connection.
    pub const DEAD_PEER_TIMEOUT_MIN: Duration = Duration::from_secs(12);
    /// The longest: the kernel counts idle seconds in 15 bits.
    pub const DEAD_PEER_TIMEOUT_MAX: Duration = Duration::from_secs(32_767);

    /// What a server sets for a client that does not know of the timeout: by default 5 s idle, then every
    /// 5 s, dead after 25 s. Its locks are freed then.
    #[must_use]
    pub fn server_before_hello(dead_peer_timeout: Duration) -> Self {
        let whole = Self::clamped(dead_peer_timeout);
        Self::within(whole, whole / 5, whole / 5, whole)
    }

    /// What a server sets for a client that has been told the timeout, and may be trusted to do as
    /// [`client`](Self::client) says: by default 4 s idle, then every second, dead after 8 s.
    #[must_use]
    pub fn server_after_hello(dead_peer_timeout: Duration) -> Self {
        let whole = Self::clamped(dead_peer_timeout);
        let of_client = Self::budget_of_client(whole);
        // The two ends measure with clocks of their own: a sixteenth makes up for a hundredth between them.
        let budget = whole.saturating_sub(2 * of_client + of_client / 16 + RETRANSMITTING_SECONDS);
        let interval = (budget / 8).max(1);
        Self::within(budget, budget - budget.div_ceil(2) / interval * interval, interval, whole)
    }

    /// How much longer a server keeps the locks of a client that it has given up: until that one knows.
    #[must_use]
    pub fn release_delay(&self) -> Duration {
        self.dead_peer_timeout.saturating_sub(self.user_timeout)
    }

    /// What a client of such a server sets: by default 3 s idle, then every second, dead after 7 s, and 7 s
    /// for unacknowledged data. It knows 16.5 s after the last sign of life at the latest.
    #[must_use]
    pub fn client(dead_peer_timeout: Duration) -> Self {
        let whole = Self::clamped(dead_peer_timeout);
        let budget = Self::budget_of_client(whole);
        let interval = (budget / 7).max(1);
        Self::within(budget, budget - (budget * 4).div_ceil(7) / interval * interval, interval, whole)
    }

    /// After what time without a sign of life a client that set these must take its session for lost,
    /// even if its kernel has not said so.
    #[must_use]
    pub fn silence_max(&self) -> Duration {
        self.user_timeout * 2 + RETRANSMITTING
    }

    fn budget_of_client(dead_peer_timeout: u32) -> u32 {
        dead_peer_timeout * 7 / 25
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
        assert_eq!(figures(Keepalive::server_before_hello(timeout)), (5, 5, 4, 25));
        assert_eq!(figures(Keepalive::server_after_hello(timeout)), (4, 1, 4, 8));
        assert_eq!(figures(Keepalive::client(timeout)), (3, 1, 4, 7));
    }

    /// The moments counted from the last sign of life.
    #[test]
    fn a_client_always_finds_out_first() {
        for seconds in (12..=3600).chain([32_767]) {
            let timeout = Duration::from_secs(seconds);
            let silence = |k: Keepalive| k.idle + k.interval * k.probes;
            let (told, client) = (Keepalive::server_after_hello(timeout), Keepalive::client(timeout));
            assert_eq!(silence(client), client.user_timeout, "{seconds}");
            assert!(client.probes.min(told.probes) > 1, "{seconds}");
            // By a hundredth, at least, though their clocks do not run at the same rate.
            assert!(client.silence_max().mul_f64(1.01) < told.release_delay(), "{seconds}");
            for server in [told, Keepalive::server_before_hello(timeout)] {
                let freed = silence(server) + server.release_delay();
                assert!(freed >= timeout && freed < timeout + server.interval, "{seconds}");
                assert!(server.user_timeout + server.release_delay() == timeout, "{seconds}");
            }
        }
    }
}

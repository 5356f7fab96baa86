//! The keepalive figures by which server and client each find out that the other's host is dead.
//! All of them are derived from the server's dead-peer timeout, so that a client always finds out
//! before the server gives its locks to another session. Knows no socket; `socket` sets the
//! figures.
//!
//! To the server's kernel only data and answers to its own probes are signs of life; to the
//! client's kernel likewise. When some packets are lost, one side may still hear what it counts
//! while the other does not. So time is counted from the moment at which the server's kernel gives
//! a client up. From then on only a reset can reach that client, and the client's own silence has
//! begun by then, whatever was lost before. The server resets the connection, and keeps the
//! client's locks for the [release delay](Keepalive::release_delay) from that reset on.
//!
//! While data is unacknowledged, the client's kernel sends no probes, and it counts anew from its
//! first retransmission. If the client sends just before its last probe would have failed, it finds
//! out only after the time of its probes, [the time to retransmit](RETRANSMITTING), *and* its user
//! timeout. The sum of the three is the [longest silence](Keepalive::silence_max) of a client that
//! does not know yet. It must be less than the release delay.

use std::time::Duration;

/// The longest time until a kernel sends data again for the first time: a retransmission timeout of
/// at most a second, as much again for a tail loss probe before it, and late timers.
const RETRANSMITTING: Duration = Duration::from_millis(2500);

/// The same in whole seconds, rounded up.
const RETRANSMITTING_SECONDS: u32 = 3;

/// The keepalive figures of a connection, in whole seconds. In messages they are the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// The idle time before the first probe.
    pub idle: Duration,
    /// The time between two probes.
    pub interval: Duration,
    /// The number of unanswered probes that end the connection.
    pub probes: u32,
    /// The longest time that sent data may stay unacknowledged.
    pub user_timeout: Duration,
    /// The time without a sign of life after which a peer's locks are given to others.
    pub dead_peer_timeout: Duration,
}

impl Keepalive {
    /// The default dead-peer timeout.
    pub const DEAD_PEER_TIMEOUT: Duration = Duration::from_secs(25);
    /// The shortest dead-peer timeout. With a shorter one, in whole seconds, one lost probe would
    /// end a connection.
    pub const DEAD_PEER_TIMEOUT_MIN: Duration = Duration::from_secs(12);
    /// The longest dead-peer timeout. The kernel counts idle seconds in 15 bits.
    pub const DEAD_PEER_TIMEOUT_MAX: Duration = Duration::from_secs(32_767);

    /// What a server sets for a client that has not been told the timeout. By default it probes
    /// after 5 s idle and then every 5 s; the client is dead after 25 s, and its locks are freed
    /// then.
    #[must_use]
    pub fn server_before_hello(dead_peer_timeout: Duration) -> Self {
        let whole = Self::clamped(dead_peer_timeout);
        Self::within(whole, whole / 5, whole / 5, whole)
    }

    /// What a server sets for a client that has been told the timeout, and is trusted to set what
    /// [`client`](Self::client) says. By default it probes after 4 s idle and then every second;
    /// the client is given up after 8 s.
    #[must_use]
    pub fn server_after_hello(dead_peer_timeout: Duration) -> Self {
        let whole = Self::clamped(dead_peer_timeout);
        let of_client = Self::budget_of_client(whole);
        // The two sides have clocks of their own. The sixteenth makes up for clocks that differ by
        // a hundredth.
        let budget = whole.saturating_sub(2 * of_client + of_client / 16 + RETRANSMITTING_SECONDS);
        let interval = (budget / 8).max(1);
        Self::within(budget, budget - budget.div_ceil(2) / interval * interval, interval, whole)
    }

    /// The time for which a server still keeps the locks of a client that it has given up: until
    /// the client knows.
    #[must_use]
    pub fn release_delay(&self) -> Duration {
        self.dead_peer_timeout.saturating_sub(self.user_timeout)
    }

    /// What a client of such a server sets. By default it probes after 3 s idle and then every
    /// second; the server is given up after 7 s, and after 7 s with unacknowledged data. The client
    /// knows at the latest 16.5 s after the last sign of life.
    #[must_use]
    pub fn client(dead_peer_timeout: Duration) -> Self {
        let whole = Self::clamped(dead_peer_timeout);
        let budget = Self::budget_of_client(whole);
        let interval = (budget / 7).max(1);
        Self::within(budget, budget - (budget * 4).div_ceil(7) / interval * interval, interval, whole)
    }

    /// The time without a sign of life after which a client with these figures must take its
    /// session for lost, even if its kernel has reported nothing.
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

    /// Idle time, then probes until `budget` seconds are over. With a user timeout, the kernel
    /// gives up at the first probe at or after that timeout, however many probes are set. So the
    /// two are made to agree.
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

    /// All times count from the last sign of life.
    #[test]
    fn a_client_always_finds_out_first() {
        for seconds in (12..=3600).chain([32_767]) {
            let timeout = Duration::from_secs(seconds);
            let silence = |k: Keepalive| k.idle + k.interval * k.probes;
            let (told, client) = (Keepalive::server_after_hello(timeout), Keepalive::client(timeout));
            assert_eq!(silence(client), client.user_timeout, "{seconds}");
            assert!(client.probes.min(told.probes) > 1, "{seconds}");
            // By at least a hundredth, since the two clocks may run at different rates.
            assert!(client.silence_max().mul_f64(1.01) < told.release_delay(), "{seconds}");
            for server in [told, Keepalive::server_before_hello(timeout)] {
                let freed = silence(server) + server.release_delay();
                assert!(freed >= timeout && freed < timeout + server.interval, "{seconds}");
                assert!(server.user_timeout + server.release_delay() == timeout, "{seconds}");
            }
        }
    }
}

//! The statistics of a server: what is counted, and the one table that says what each number is.
//! Everything that shows them is made from the table: the `stats` of the protocol `message`, `lockd
//! stats` in all its formats, and the pages for browsers and Prometheus. Knows no protocol.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::server_state::ServerState;
use crate::broker::Stats;
use crate::os::sync::Arc;

/// The numbers of a server at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// How long the server has run.
    pub uptime: Duration,
    /// How long it is until the broker grants anything, as
    /// [`Broker::grace`](crate::broker::Broker::grace).
    pub grace: Duration,
    /// Connections open now.
    pub connections: usize,
    /// Connections turned away since the start: not on the access list, too many, out of resources.
    pub connections_refused: u64,
    /// Messages of the protocol `message` received since the start.
    pub messages: u64,
    /// Upgrades in place since the start.
    pub upgrades: u64,
    /// How long ago the last upgrade in place was; zero if there was none.
    pub since_upgrade: Duration,
    /// For how long nobody was served in the last upgrade in place.
    pub upgrade_pause: Duration,
    /// Sessions that have lost their connection, and may resume.
    pub in_doubt: usize,
    /// Sessions that have resumed since the start.
    pub resumed: u64,
    /// Sessions that wanted to resume since the start, and were told that they have ended.
    pub resumes_refused: u64,
    /// What the broker counts.
    pub broker: Stats,
}

/// Reads the numbers of one server, also after that has stopped.
#[derive(Clone)]
pub struct StatsReader {
    server: Arc<ServerState>,
}

impl StatsReader {
    pub(super) fn of(server: &Arc<ServerState>) -> Self {
        Self { server: server.clone() }
    }

    /// The numbers as they are now.
    #[must_use]
    pub fn read(&self) -> ServerStats {
        self.server.stats()
    }
}

impl ServerState {
    pub(super) fn stats(&self) -> ServerStats {
        let upgrades = *self.upgrades.lock();
        let (since_upgrade, upgrade_pause) =
            upgrades.last.map(|(done, pause)| (done.elapsed(), pause)).unwrap_or_default();
        ServerStats {
            upgrades: upgrades.count,
            since_upgrade,
            upgrade_pause,
            // Clients judge by this how long earlier holders have had to end their work. A standby
            // has had none.
            uptime: self.cluster_run().map_or(self.started, |run| run.since).elapsed(),
            grace: self.broker.grace(),
            connections: self.connections(),
            connections_refused: self.refused.load(Relaxed),
            messages: self.messages.load(Relaxed),
            in_doubt: self.resumable.in_doubt(),
            resumed: self.resumable.resumed.load(Relaxed),
            resumes_refused: self.resumable.refused.load(Relaxed),
            broker: self.broker.stats(),
        }
    }
}

/// How a number changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatisticKind {
    /// The state now.
    Gauge,
    /// A count since the server was started, which only rises.
    Counter,
}

/// What one number is.
#[derive(Clone, Copy, Debug)]
pub struct Statistic {
    /// Its key in the result of `stats`.
    pub key: &'static str,
    /// Whether it counts, or tells a state.
    pub kind: StatisticKind,
    /// Its name for Prometheus. Two numbers that differ only in the mode of the locks have the same
    /// one.
    pub metric: &'static str,
    /// If another number has the same [`metric`](Self::metric): the mode of this one, and what both
    /// are.
    pub mode: Option<(&'static str, &'static str)>,
    /// What it is, for people: a phrase that begins with a small letter and has no full stop.
    pub help: &'static str,
    get: Get,
}

impl Statistic {
    /// The number itself. Times are in whole seconds, rounded as [`STATISTICS`] says.
    #[must_use]
    pub fn value(&self, stats: &ServerStats) -> u64 {
        (self.get)(stats)
    }

    const fn of_mode(self, mode: &'static str, both: &'static str) -> Self {
        Self { mode: Some((mode, both)), ..self }
    }
}

type Get = fn(&ServerStats) -> u64;

const fn gauge(key: &'static str, metric: &'static str, help: &'static str, get: Get) -> Statistic {
    Statistic { key, kind: StatisticKind::Gauge, metric, mode: None, help, get }
}

const fn counter(key: &'static str, metric: &'static str, help: &'static str, get: Get) -> Statistic {
    Statistic { key, kind: StatisticKind::Counter, metric, mode: None, help, get }
}

/// Every number, in the order in which they are shown. `uptime` is rounded down, and `grace` up, so
/// that a time that is not over is never shown as zero.
pub const STATISTICS: [Statistic; 22] = [
    gauge(
        "uptime",
        "lockd_uptime_seconds",
        "seconds since the server was started, or became the active one of its cluster",
        |s| s.uptime.as_secs(),
    ),
    gauge("grace", "lockd_grace_seconds", "seconds until the server grants anything", |s| {
        s.grace.as_secs() + u64::from(s.grace.subsec_nanos() > 0)
    }),
    gauge("connections", "lockd_connections", "connections of clients open", |s| s.connections as u64),
    counter("connectionsRefused", "lockd_connections_refused_total", "connections turned away", |s| {
        s.connections_refused
    }),
    counter("messages", "lockd_messages_total", "messages of the protocol message received", |s| s.messages),
    gauge("sessions", "lockd_sessions", "sessions open, also in the server's own process", |s| {
        s.broker.sessions as u64
    }),
    gauge("locks", "lockd_locks", "names held exclusively", |s| s.broker.locks as u64)
        .of_mode("exclusive", "names held"),
    gauge("sharedLocks", "lockd_locks", "names held shared", |s| s.broker.shared_locks as u64)
        .of_mode("shared", "names held"),
    gauge("waiting", "lockd_waiters", "requests that wait", |s| s.broker.waiting as u64),
    counter("grants", "lockd_grants_total", "requests granted, at once or after waiting", |s| {
        s.broker.grants
    }),
    counter("waits", "lockd_waits_total", "requests that had to wait", |s| s.broker.waits),
    counter("timeouts", "lockd_timeouts_total", "waits ended by their time limit", |s| s.broker.timeouts),
    counter("cancels", "lockd_cancels_total", "waits cancelled", |s| s.broker.cancels),
    counter("deadlocks", "lockd_deadlocks_total", "requests refused as a deadlock", |s| s.broker.deadlocks),
    counter("orphans", "lockd_orphans_total", "exclusive locks whose holder vanished", |s| s.broker.orphans)
        .of_mode("exclusive", "locks whose holder vanished"),
    counter("sharedOrphans", "lockd_orphans_total", "shared locks whose holder vanished", |s| {
        s.broker.shared_orphans
    })
    .of_mode("shared", "locks whose holder vanished"),
    counter("upgrades", "lockd_upgrades_total", "upgrades in place since the start", |s| s.upgrades),
    gauge(
        "sinceUpgrade",
        "lockd_since_upgrade_seconds",
        "seconds since the last upgrade in place, 0 if there was none",
        |s| s.since_upgrade.as_secs(),
    ),
    gauge(
        "upgradePause",
        "lockd_upgrade_pause_milliseconds",
        "milliseconds for which nobody was served in the last upgrade in place",
        |s| u64::try_from(s.upgrade_pause.as_millis()).unwrap_or(u64::MAX),
    ),
    gauge("inDoubt", "lockd_sessions_in_doubt", "sessions without a connection that may resume", |s| {
        s.in_doubt as u64
    }),
    counter("resumed", "lockd_resumed_total", "sessions that have resumed on another connection", |s| {
        s.resumed
    }),
    counter(
        "resumesRefused",
        "lockd_resumes_refused_total",
        "sessions that wanted to resume and were told that they have ended",
        |s| s.resumes_refused,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Histogram;

    /// A field that is added to either struct does not compile here until it has a value, and then
    /// fails the test until the table has it. Only the histograms are no single numbers, and not in
    /// the table.
    #[test]
    fn every_number_is_in_the_table_once() {
        let stats = ServerStats {
            uptime: Duration::from_secs(1),
            grace: Duration::from_secs(2),
            connections: 3,
            connections_refused: 4,
            messages: 5,
            upgrades: 17,
            since_upgrade: Duration::from_secs(18),
            upgrade_pause: Duration::from_millis(19),
            in_doubt: 20,
            resumed: 21,
            resumes_refused: 22,
            broker: Stats {
                sessions: 6,
                locks: 7,
                shared_locks: 8,
                waiting: 9,
                grants: 10,
                waits: 11,
                timeouts: 12,
                cancels: 13,
                deadlocks: 14,
                orphans: 15,
                shared_orphans: 16,
                wait_times: Histogram::default(),
                hold_times: Histogram::default(),
            },
        };
        let values = STATISTICS.map(|statistic| statistic.value(&stats));
        assert_eq!(values.to_vec(), (1..=22).collect::<Vec<u64>>());
    }

    #[test]
    fn a_grace_that_is_not_over_is_not_shown_as_zero() {
        let grace = STATISTICS.iter().find(|statistic| statistic.key == "grace").unwrap();
        for (millis, seconds) in [(0, 0), (1, 1), (1000, 1), (1001, 2)] {
            let stats = ServerStats { grace: Duration::from_millis(millis), ..ServerStats::default() };
            assert_eq!(grace.value(&stats), seconds, "{millis} ms");
        }
    }

    #[test]
    fn keys_are_unique_and_metrics_are_named_as_prometheus_wants_it() {
        for (index, statistic) in STATISTICS.iter().enumerate() {
            let Statistic { key, kind, metric, .. } = *statistic;
            assert!(STATISTICS[..index].iter().all(|before| before.key != key), "{key}");
            assert_eq!(kind == StatisticKind::Counter, metric.ends_with("_total"), "{metric}");
        }
    }
}

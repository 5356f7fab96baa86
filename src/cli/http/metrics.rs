//! `/metrics`: figures in the text format of Prometheus, version 0.0.4, with its conventions for names and
//! units. Pure.

use std::fmt::{Display, Write};
use std::time::{Duration, SystemTime};

use lockd::broker::{Histogram, Stats};

/// All there is to tell.
pub(super) struct Figures {
    pub(super) stats: Stats,
    pub(super) grace: Duration,
    pub(super) connections: usize,
    pub(super) connections_refused: u64,
    pub(super) messages: u64,
    pub(super) http_connections: usize,
    pub(super) http_connections_refused: u64,
    pub(super) http_connections_displaced: u64,
    pub(super) started: SystemTime,
}

pub(super) fn text(figures: &Figures) -> String {
    let stats = &figures.stats;
    let mut out = Text::default();
    let build = concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}");
    out.gauges("lockd_build_info", "The version that runs; always 1.", [(build, 1)]);
    let started = figures.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    out.gauge(
        "process_start_time_seconds",
        "When the server was started, since 1970.",
        started.as_secs_f64(),
    );
    out.gauge(
        "lockd_grace_seconds",
        "How long it is until anything is granted.",
        figures.grace.as_secs_f64(),
    );

    out.gauge("lockd_connections", "Connections of clients open.", figures.connections);
    out.counter("lockd_connections_refused_total", "Connections turned away.", figures.connections_refused);
    out.gauge("lockd_http_connections", "Connections open to these pages.", figures.http_connections);
    out.counter(
        "lockd_http_connections_refused_total",
        "Connections to these pages turned away.",
        figures.http_connections_refused,
    );
    out.counter(
        "lockd_http_connections_displaced_total",
        "Idle connections to these pages closed to make room for others.",
        figures.http_connections_displaced,
    );
    out.counter("lockd_messages_total", "Messages of the protocol of that name received.", figures.messages);

    out.gauge("lockd_sessions", "Sessions open.", stats.sessions);
    out.gauges("lockd_locks", "Names held.", modes(stats.locks, stats.shared_locks));
    out.gauge("lockd_waiters", "Requests waiting.", stats.waiting);
    out.counter("lockd_grants_total", "Requests granted, at once or after waiting.", stats.grants);
    out.counter("lockd_waits_total", "Requests that had to wait.", stats.waits);
    out.counter("lockd_timeouts_total", "Waits ended by their time limit.", stats.timeouts);
    out.counter("lockd_cancels_total", "Waits taken back.", stats.cancels);
    out.counter("lockd_deadlocks_total", "Requests refused for a deadlock.", stats.deadlocks);
    let orphans = modes(stats.orphans, stats.shared_orphans);
    out.counters("lockd_orphans_total", "Locks freed because their holder vanished.", orphans);
    out.histogram(
        "lockd_wait_seconds",
        "How long requests that had to wait waited until they were granted.",
        &stats.wait_times,
    );
    out.histogram("lockd_hold_seconds", "How long locks were held until they were freed.", &stats.hold_times);
    out.0
}

/// A value for each mode, with its label.
fn modes<T>(exclusive: T, shared: T) -> [(&'static str, T); 2] {
    [("{mode=\"exclusive\"}", exclusive), ("{mode=\"shared\"}", shared)]
}

#[derive(Default)]
struct Text(String);

// Writing to a string cannot fail.
impl Text {
    fn begin(&mut self, name: &str, help: &str, kind: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn value(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.gauges(name, help, [("", value)]);
    }

    fn gauges<const N: usize>(&mut self, name: &str, help: &str, values: [(&str, impl Display); N]) {
        self.begin(name, help, "gauge");
        values.into_iter().for_each(|(labels, value)| self.value(name, labels, value));
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.counters(name, help, [("", value)]);
    }

    fn counters<const N: usize>(&mut self, name: &str, help: &str, values: [(&str, u64); N]) {
        self.begin(name, help, "counter");
        values.into_iter().for_each(|(labels, value)| self.value(name, labels, value));
    }

    fn histogram(&mut self, name: &str, help: &str, times: &Histogram) {
        self.begin(name, help, "histogram");
        for (end, count) in times.up_to() {
            self.value(name, &format!("_bucket{{le=\"{}\"}}", end.as_secs_f64()), count);
        }
        self.value(name, "_bucket{le=\"+Inf\"}", times.count());
        self.value(name, "_sum", times.sum().as_secs_f64());
        self.value(name, "_count", times.count());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told_with_what_they_are() {
        let figures = Figures {
            stats: Stats { locks: 2, shared_locks: 3, grants: 7, ..Stats::default() },
            grace: Duration::from_millis(1500),
            connections: 4,
            connections_refused: 0,
            messages: 5,
            http_connections: 1,
            http_connections_refused: 0,
            http_connections_displaced: 0,
            started: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250),
        };
        let text = text(&figures);
        for part in [
            "# HELP lockd_locks Names held.\n# TYPE lockd_locks gauge\nlockd_locks{mode=\"exclusive\"} 2\nlockd_locks{mode=\"shared\"} 3\n",
            "# TYPE lockd_grants_total counter\nlockd_grants_total 7\n",
            "\nlockd_grace_seconds 1.5\n",
            "\nprocess_start_time_seconds 1700000000.25\n",
            "# TYPE lockd_wait_seconds histogram\nlockd_wait_seconds_bucket{le=\"0.001\"} 0\n",
            "lockd_hold_seconds_bucket{le=\"3600\"} 0\nlockd_hold_seconds_bucket{le=\"+Inf\"} 0\nlockd_hold_seconds_sum 0\nlockd_hold_seconds_count 0\n",
        ] {
            assert!(text.contains(part), "{part}\nin\n{text}");
        }
    }
}

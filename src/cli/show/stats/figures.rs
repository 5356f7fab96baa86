//! The figures that a server tells with `stats`, and what they mean.

use serde_json::{Map, Value};

/// What kind of figure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What is so now.
    Gauge,
    /// How often something was done since the server was started.
    Counter,
}

/// One figure.
#[derive(Debug)]
pub(super) struct Figure {
    /// Its key in the server's answer.
    pub(super) key: &'static str,
    pub(super) kind: Kind,
    /// Its name for Prometheus: the one that the server's own page of metrics has for it.
    pub(super) metric: &'static str,
    /// The mode that tells it from the other one of that name, and what both are.
    pub(super) mode: Option<(&'static str, &'static str)>,
    /// What it is, for people.
    pub(super) what: &'static str,
}

impl Figure {
    const fn of_mode(self, mode: &'static str, both: &'static str) -> Self {
        Self { mode: Some((mode, both)), ..self }
    }
}

const fn gauge(key: &'static str, metric: &'static str, what: &'static str) -> Figure {
    Figure { key, kind: Kind::Gauge, metric, mode: None, what }
}

const fn counter(key: &'static str, metric: &'static str, what: &'static str) -> Figure {
    Figure { key, kind: Kind::Counter, metric, mode: None, what }
}

/// All that are numbers and change.
pub(super) const FIGURES: [Figure; 16] = [
    gauge("uptime", "lockd_uptime_seconds", "seconds since the server was started"),
    gauge("grace", "lockd_grace_seconds", "seconds until the server grants anything"),
    gauge("connections", "lockd_connections", "connections open"),
    counter("connectionsRefused", "lockd_connections_refused_total", "connections turned away"),
    counter("messages", "lockd_messages_total", "messages received"),
    gauge("sessions", "lockd_sessions", "owners of locks, those in the server itself too"),
    gauge("locks", "lockd_locks", "names held exclusively").of_mode("exclusive", "names held"),
    gauge("sharedLocks", "lockd_locks", "names held shared").of_mode("shared", "names held"),
    gauge("waiting", "lockd_waiters", "requests that wait"),
    counter("grants", "lockd_grants_total", "requests granted"),
    counter("waits", "lockd_waits_total", "requests that had to wait"),
    counter("timeouts", "lockd_timeouts_total", "waits ended by their time limit"),
    counter("cancels", "lockd_cancels_total", "waits taken back"),
    counter("deadlocks", "lockd_deadlocks_total", "requests refused as a deadlock"),
    counter("orphans", "lockd_orphans_total", "exclusive locks whose holder vanished")
        .of_mode("exclusive", "locks whose holder vanished"),
    counter("sharedOrphans", "lockd_orphans_total", "shared locks whose holder vanished")
        .of_mode("shared", "locks whose holder vanished"),
];

/// What a server has told.
#[derive(Clone, Debug)]
pub(super) struct Figures(pub(super) Map<String, Value>);

impl Figures {
    /// Reads the result of `stats`.
    ///
    /// # Errors
    /// If it is none.
    pub(super) fn read(result: &str) -> Result<Self, String> {
        let senseless = |why: String| format!("the server's answer makes no sense: {why}");
        let mut all: Map<String, Value> =
            serde_json::from_str(result).map_err(|error| senseless(error.to_string()))?;
        if all.remove("status") != Some("ok".into()) {
            return Err(senseless("its status is not ok".to_owned()));
        }
        Ok(Self(all))
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.0.get(key)?.as_u64()
    }

    pub(super) fn version(&self) -> &str {
        self.0.get("version").and_then(Value::as_str).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in ["", "[]", r#"{"status":"refused"}"#, r#"{"locks":1}"#] {
            assert!(Figures::read(text).is_err(), "{text}");
        }
        let figures = Figures::read(r#"{"status":"ok","locks":7,"version":"1"}"#).unwrap();
        assert_eq!(
            (figures.number("locks"), figures.number("version"), figures.version()),
            (Some(7), None, "1")
        );
    }

    #[test]
    fn metrics_are_named_as_prometheus_wants_it() {
        for figure in FIGURES {
            assert_eq!(figure.kind == Kind::Counter, figure.metric.ends_with("_total"), "{}", figure.metric);
        }
    }
}

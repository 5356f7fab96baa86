//! `/metrics`: the server's statistics, and those of these pages, for Prometheus. Pure.

use std::time::SystemTime;

use lockd::server::ServerStats;
use lockd::server::cluster::ClusterView;

use crate::cli::prometheus::Exposition;

/// What `/metrics` shows.
pub(super) struct Metrics {
    pub(super) server: ServerStats,
    /// Of a member of a cluster.
    pub(super) cluster: Option<ClusterView>,
    pub(super) http_connections: usize,
    pub(super) http_connections_refused: u64,
    pub(super) http_connections_displaced: u64,
    pub(super) started: SystemTime,
}

impl Metrics {
    pub(super) fn into_text(self) -> String {
        let mut out = Exposition::default();
        out.build_info(env!("CARGO_PKG_VERSION"));
        // Prometheus wants the start as a point in time instead of the uptime, and fractions of
        // seconds.
        let started = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        out.gauge(
            "process_start_time_seconds",
            "when the server was started, in seconds since 1970",
            started.as_secs_f64(),
        );
        out.gauge(
            "lockd_grace_seconds",
            "seconds until the server grants anything",
            self.server.grace.as_secs_f64(),
        );
        out.statistics(|statistic| {
            let is_here_already = ["uptime", "grace"].contains(&statistic.key);
            (!is_here_already).then(|| statistic.value(&self.server))
        });
        if let Some(cluster) = &self.cluster {
            push_cluster(&mut out, cluster);
        }
        out.gauge("lockd_http_connections", "connections to these pages open", self.http_connections);
        out.counter(
            "lockd_http_connections_refused_total",
            "connections to these pages turned away",
            self.http_connections_refused,
        );
        out.counter(
            "lockd_http_connections_displaced_total",
            "idle connections to these pages closed to make room for others",
            self.http_connections_displaced,
        );
        out.histogram(
            "lockd_wait_seconds",
            "how long requests that had to wait waited until they were granted",
            &self.server.broker.wait_times,
        );
        out.histogram(
            "lockd_hold_seconds",
            "how long locks were held until they were freed",
            &self.server.broker.hold_times,
        );
        out.into_text()
    }
}

fn push_cluster(out: &mut Exposition, view: &ClusterView) {
    let active = u8::from(view.is_active);
    out.gauge("lockd_cluster_active", "whether this server is the active one of its cluster", active);
    out.gauge(
        "lockd_cluster_epoch",
        "the number of the active server's run, as far as it is known",
        view.epoch,
    );
    if let Some(left) = view.left {
        let help = "how long this server may go on if etcd confirms no more that it is active";
        out.gauge("lockd_cluster_seconds_left", help, left.as_secs_f64());
    }
    out.counter(
        "lockd_cluster_leader_changes_total",
        "how often another server has become active, as far as this one has seen",
        view.leader_changes,
    );
    let fails = u8::from(view.etcd_error.is_some());
    out.gauge("lockd_cluster_etcd_failing", "whether the last request to etcd has failed", fails);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lockd::broker::Stats;

    use super::*;

    #[test]
    fn each_metric_has_its_help_its_type_and_its_values() {
        let metrics = Metrics {
            server: ServerStats {
                grace: Duration::from_millis(1500),
                connections: 4,
                messages: 5,
                broker: Stats { locks: 2, shared_locks: 3, grants: 7, ..Stats::default() },
                ..ServerStats::default()
            },
            cluster: Some(ClusterView {
                cluster: "main".to_owned(),
                is_active: true,
                epoch: 7,
                active: None,
                left: Some(Duration::from_millis(4500)),
                leader_changes: 2,
                etcd_error: None,
            }),
            http_connections: 1,
            http_connections_refused: 0,
            http_connections_displaced: 0,
            started: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250),
        };
        let text = metrics.into_text();
        for part in [
            "# HELP lockd_locks Names held.\n# TYPE lockd_locks gauge\nlockd_locks{mode=\"exclusive\"} 2\nlockd_locks{mode=\"shared\"} 3\n",
            "# TYPE lockd_grants_total counter\nlockd_grants_total 7\n",
            "\nlockd_grace_seconds 1.5\n",
            "\nlockd_cluster_active 1\n",
            "\nlockd_cluster_epoch 7\n",
            "\nlockd_cluster_seconds_left 4.5\n",
            "\nlockd_cluster_leader_changes_total 2\n",
            "\nprocess_start_time_seconds 1700000000.25\n",
            "# TYPE lockd_wait_seconds histogram\nlockd_wait_seconds_bucket{le=\"0.001\"} 0\n",
            "lockd_hold_seconds_bucket{le=\"3600\"} 0\nlockd_hold_seconds_bucket{le=\"+Inf\"} 0\nlockd_hold_seconds_sum 0\nlockd_hold_seconds_count 0\n",
        ] {
            assert!(text.contains(part), "{part}\nin\n{text}");
        }
    }
}

//! Writes statistics in each format but Nagios'. Pure.

use std::fmt::Write as _;

use lockd::server::{STATISTICS, StatisticKind};
use lockd::wire::message::{ClusterMembership, ClusterRole};
use serde_json::Value;

use crate::cli::prometheus::Exposition;
use crate::cli::show::ShowError;
use crate::cli::show::stats::reply::StatsReply;
use crate::cli::text::{harmless, printable};
use crate::cli::text_table::TextTable;

/// The two graphs of Munin: name, title, unit, kind, and the numbers that each shows.
const GRAPHS: [(&str, &str, &str, StatisticKind, &[&str]); 2] = [
    (
        "lockd",
        "lockd: state",
        "number",
        StatisticKind::Gauge,
        &["connections", "locks", "sharedLocks", "waiting"],
    ),
    (
        "lockd_requests",
        "lockd: requests",
        "per ${graph_period}",
        StatisticKind::Counter,
        &["grants", "waits", "timeouts", "deadlocks", "orphans", "connectionsRefused"],
    ),
];

/// A line for each value, also for values that this program does not know.
pub(super) fn text(reply: &StatsReply) -> String {
    let mut table = TextTable::default();
    for (key, value) in &reply.0 {
        let (value, help) = match cluster_in_words(key, value) {
            Some(words) => (words, "the cluster, and what this server is in it"),
            None => (
                value.as_str().map_or_else(|| value.to_string(), str::to_owned),
                STATISTICS.iter().find(|statistic| statistic.key == key).map_or("", |known| known.help),
            ),
        };
        table.add(vec![printable(key.as_bytes()), printable(value.as_bytes()), help.to_owned()]);
    }
    table.take_lines().into_iter().map(|line| line + "\n").collect()
}

/// The one value that is not a number or a text: what a server is in its cluster.
fn cluster_in_words(key: &str, value: &Value) -> Option<String> {
    if key != "cluster" {
        return None;
    }
    let ClusterMembership { name, epoch, role } = serde_json::from_value(value.clone()).ok()?;
    (role == ClusterRole::Active).then(|| format!("{name}, active, run {epoch}"))
}

pub(super) fn json(reply: &StatsReply) -> String {
    format!("{}\n", harmless(&Value::Object(reply.0.clone()).to_string()))
}

/// As [`text`], each after the address of its server.
pub(super) fn text_of_several(all: &[(String, StatsReply)]) -> String {
    let one = |(server, reply): &(String, StatsReply)| {
        format!("{}:\n{}", printable(server.as_bytes()), text(reply))
    };
    all.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// One object that has those of the servers by their addresses.
pub(super) fn json_of_several(all: &[(String, StatsReply)]) -> String {
    let all = all.iter().map(|(server, reply)| (server.clone(), Value::Object(reply.0.clone())));
    format!("{}\n", harmless(&Value::Object(all.collect()).to_string()))
}

pub(super) fn prometheus(reply: &StatsReply) -> String {
    let mut out = Exposition::default();
    out.build_info(reply.version());
    out.statistics(|statistic| reply.number(statistic.key));
    out.into_text()
}

/// Whether this server can be watched, as munin-node-configure asks it: `yes`, or `no` with the
/// reason.
pub(super) fn munin_autoconf(reply: Result<StatsReply, ShowError>) -> String {
    match reply {
        Ok(_) => "yes\n".to_owned(),
        Err(ShowError::NoReader) => "no\n".to_owned(),
        Err(ShowError::Failed(why)) => format!("no ({})\n", harmless(&why.replace('\n', " "))),
    }
}

/// The description of the graphs, in Munin's format.
pub(super) fn munin_config() -> String {
    let mut text = String::new();
    for (graph, title, unit, kind, keys) in GRAPHS {
        let _ = write!(
            text,
            "multigraph {graph}\ngraph_title {title}\ngraph_vlabel {unit}\ngraph_category lockd\n\
             graph_args --lower-limit 0\n"
        );
        for statistic in STATISTICS.iter().filter(|statistic| keys.contains(&statistic.key)) {
            let _ = writeln!(text, "{}.label {}", statistic.key, statistic.help);
            // With DERIVE and a minimum, a counter that a restart has set to zero makes no negative
            // rate.
            if kind == StatisticKind::Counter {
                let _ = write!(text, "{0}.type DERIVE\n{0}.min 0\n", statistic.key);
            }
        }
    }
    text
}

/// The values of the graphs, in Munin's format.
pub(super) fn munin(reply: &StatsReply) -> String {
    let mut text = String::new();
    for (graph, .., keys) in GRAPHS {
        let _ = writeln!(text, "multigraph {graph}");
        for key in keys {
            // In Munin's format, U is an unknown value.
            let value = reply.number(key).map_or_else(|| "U".to_owned(), |number| number.to_string());
            let _ = writeln!(text, "{key}.value {value}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply() -> StatsReply {
        let result =
            r#"{"status":"ok","version":"0\n\"1","locks":3,"waiting":1,"grants":40,"mist\u001b":{"a":1}}"#;
        StatsReply::read(result).unwrap()
    }

    #[test]
    fn the_text_has_every_value_and_no_control_character() {
        let text = text(&reply());
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(lines.contains(&vec!["locks", "3", "names", "held", "exclusively"]), "{text}");
        assert!(lines.contains(&vec!["waiting", "1", "requests", "that", "wait"]), "{text}");
        assert!(text.lines().count() == 5 && text.contains(r"mist\u{1b}") && text.contains(r"0\n"), "{text}");
    }

    #[test]
    fn the_text_names_the_cluster_in_words() {
        let shown = |cluster: &str| {
            text(&StatsReply::read(&format!(r#"{{"status":"ok","cluster":{cluster}}}"#)).unwrap())
        };
        let words = shown(r#"{"name":"main","epoch":7,"role":"active"}"#);
        assert!(words.starts_with("cluster  main, active, run 7  the cluster"), "{words}");
        let other = r#"{"name":"main","epoch":7,"role":"witness"}"#;
        assert!(shown(other).contains("witness"));
    }

    #[test]
    fn prometheus_gets_kinds_and_values() {
        let text = prometheus(&reply());
        assert!(text.contains("lockd_build_info{version=\"0\\n\\\"1\"} 1\n"), "{text}");
        assert!(text.contains("# TYPE lockd_locks gauge\nlockd_locks{mode=\"exclusive\"} 3\n"), "{text}");
        assert!(text.contains("# TYPE lockd_grants_total counter\nlockd_grants_total 40\n"), "{text}");
        assert!(!text.contains("lockd_deadlocks_total"), "a number that the server has not sent");
    }

    #[test]
    fn munin_gets_a_value_for_each_label() {
        let (config, values) = (munin_config(), munin(&reply()));
        let fields = |text: &str, suffix: &str| {
            let mut fields: Vec<String> = text
                .lines()
                .filter_map(|line| line.split_once(suffix).map(|(field, _)| field.to_owned()))
                .collect();
            fields.sort();
            fields
        };
        assert_eq!(fields(&config, ".label "), fields(&values, ".value "));
        assert!(values.contains("locks.value 3\n") && values.contains("deadlocks.value U\n"), "{values}");
        assert!(
            config.contains("grants.type DERIVE\n") && !config.contains("\nlocks.type DERIVE\n"),
            "{config}"
        );
    }
}

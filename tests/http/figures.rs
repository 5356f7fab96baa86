//! `/metrics` and `/history`: both are well formed and show what has happened.

use std::collections::BTreeMap;

use serde_json::json;

use crate::client::{get, start};
use crate::support::eventually;
use crate::support::server::Server;

/// Asserts that Prometheus accepts the name.
fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Splits a sample into its name and its labels.
fn labels(series: &str) -> (&str, Vec<(&str, &str)>) {
    let Some((name, rest)) = series.split_once('{') else { return (series, vec![]) };
    let pairs = rest.strip_suffix('}').expect("an end of the labels").split(',');
    let pairs = pairs.map(|pair| {
        let (label, value) = pair.split_once('=').expect("a label and its value");
        (label, value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect("quotes"))
    });
    (name, pairs.collect())
}

/// Parses every line, and panics at one that Prometheus would not accept.
fn parsed(text: &str) -> BTreeMap<String, f64> {
    let (mut helped, mut kinds, mut values) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("a text");
            assert!(is_name(name) && !help.is_empty() && !helped.contains(&name), "{line}");
            helped.push(name);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert!(helped.last() == Some(&name) && kinds.insert(name, kind).is_none(), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = labels(series);
            assert!(is_name(name) && labels.iter().all(|(label, _)| is_name(label)), "{line}");
            let family = *helped.last().expect("help");
            let part = name.strip_prefix(family).expect("samples stand with their help");
            match kinds[family] {
                "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&part), "{line}"),
                "counter" => assert!(part.is_empty() && family.ends_with("_total"), "{line}"),
                "gauge" => assert!(part.is_empty() && !family.ends_with("_total"), "{line}"),
                other => panic!("{other} is no type"),
            }
            assert!(values.insert(series.to_owned(), value.parse().unwrap()).is_none(), "{line}");
        }
    }
    values
}

fn figures(server: &Server) -> BTreeMap<String, f64> {
    let answer = get(server, "/metrics");
    assert_eq!(answer.status, 200);
    parsed(&answer.body)
}

/// Asserts that a histogram's buckets rise to its count.
fn assert_histogram(figures: &BTreeMap<String, f64>, name: &str, count: f64) {
    let prefix = format!("{name}_bucket{{le=\"");
    let mut buckets: Vec<(f64, f64)> = figures
        .iter()
        .filter_map(|(series, value)| {
            let end = series.strip_prefix(&prefix)?.strip_suffix("\"}")?;
            Some((end.replace('+', "").to_lowercase().parse().unwrap(), *value))
        })
        .collect();
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    assert!(buckets.len() > 10 && buckets.is_sorted_by(|one, other| one.1 <= other.1), "{buckets:?}");
    assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{name}");
    assert_eq!(figures[&format!("{name}_count")], count);
    assert_eq!(figures[&format!("{name}_sum")] > 0.0, count > 0.0, "{name}");
}

#[test]
fn figures_rise_with_what_happens() {
    let server = start();
    let before = figures(&server);
    for (series, value) in &before {
        let is_zero = *value == 0.0;
        let starts = ["lockd_build_info", "process_start_time", "lockd_http_connections"];
        let is_one_at_the_start =
            starts.iter().any(|start| series.starts_with(start)) && !series.ends_with("_total");
        assert_eq!(is_zero, !is_one_at_the_start, "{series}");
    }
    assert_histogram(&before, "lockd_wait_seconds", 0.0);
    assert_histogram(&before, "lockd_hold_seconds", 0.0);

    let (mut one, mut two) = (server.message(), server.message());
    one.try_lock("x");
    let waits = two.request_lock("x");
    assert_eq!(two.call("lock", json!({"lockName": "x", "timeLimit": 0}))["status"], "refused");
    server.await_waiters("x", 1);
    // The client that checked for a waiter counts as a connection until the server has noticed its
    // end.
    eventually("these two are left", || {
        let now = figures(&server);
        (now["lockd_connections"], now["lockd_sessions"]) == (2.0, 2.0)
    });
    let now = figures(&server);
    assert_eq!(now["lockd_locks{mode=\"exclusive\"}"], 1.0);
    assert_eq!((now["lockd_waiters"], now["lockd_waits_total"]), (1.0, 1.0));
    // So that the times are longer than the clock's resolution.
    std::thread::sleep(std::time::Duration::from_millis(30));
    one.unlock("x");
    assert_eq!(two.result(waits)["status"], "ok");
    let now = figures(&server);
    assert_histogram(&now, "lockd_wait_seconds", 1.0);
    assert_histogram(&now, "lockd_hold_seconds", 1.0);
    assert!(now["lockd_wait_seconds_sum"] > 0.02, "{now:?}");

    // Freed in a lane, from a shared lock, and by a client that vanishes.
    one.try_lock("y");
    one.unlock("y");
    one.call("lock", json!({"lockName": "s", "mode": "shared"}));
    two.call("lock", json!({"lockName": "s", "mode": "shared"}));
    one.call("unlock", json!({"lockName": "s"}));
    assert_eq!(one.call("lock", json!({"lockName": "x", "timeLimit": 0.01}))["status"], "timeout");
    assert_histogram(&figures(&server), "lockd_hold_seconds", 3.0);
    drop(two);
    server.await_free("x");
    eventually("the vanished one is counted", || {
        figures(&server)["lockd_orphans_total{mode=\"shared\"}"] == 1.0
    });
    let now = figures(&server);
    assert_eq!(now["lockd_orphans_total{mode=\"exclusive\"}"], 1.0);
    assert_eq!((now["lockd_grants_total"], now["lockd_timeouts_total"]), (5.0, 1.0));
    assert_histogram(&now, "lockd_hold_seconds", 5.0);
    assert_histogram(&now, "lockd_wait_seconds", 1.0);
    for (series, value) in before {
        let only_rises = ["_total", "_bucket", "_count", "_sum"].iter().any(|part| series.contains(part));
        assert!(!only_rises || now[&series] >= value, "{series}");
    }
}

#[test]
fn a_deadlock_is_counted() {
    let server = start();
    let (mut one, mut two) = (server.message(), server.message());
    one.try_lock("x");
    two.try_lock("y");
    one.request_lock("y");
    server.await_waiters("y", 1);
    assert_eq!(two.lock("x")["status"], "deadlock");
    assert_eq!(figures(&server)["lockd_deadlocks_total"], 1.0);
}

#[test]
fn a_later_client_gets_the_history() {
    let server = start();
    let mut client = server.message();
    client.try_lock("x");
    let mut waiter = server.message();
    waiter.request_lock("x");
    server.await_waiters("x", 1);
    let samples = |query: &str| get(&server, &format!("/history{query}")).json()["samples"].clone();
    eventually("a second with a lock and a waiter", || {
        let all = samples("");
        all.as_array().unwrap().iter().any(|sample| sample["locks"] == 1 && sample["waiting"] == 1)
    });
    let all = samples("");
    let all = all.as_array().unwrap();
    let sum = |key: &str| all.iter().map(|sample| sample[key].as_f64().unwrap()).sum::<f64>();
    assert!(sum("grantsPerSecond") > 0.0 && sum("waitsPerSecond") > 0.0, "{all:?}");
    assert_eq!(sum("orphansPerSecond"), 0.0);
    let newest = all.last().unwrap()["number"].as_u64().unwrap();
    let later = samples(&format!("?after={newest}"));
    assert!(
        later.as_array().unwrap().iter().all(|sample| sample["number"].as_u64() > Some(newest)),
        "{later}"
    );
}

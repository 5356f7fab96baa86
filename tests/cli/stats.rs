//! `lockd stats`: the server's figures in every format.

use serde_json::{Value, json};

use crate::tool::Site;

/// A server with three locks and a waiter.
fn site() -> (Site, impl Sized) {
    let site = Site::start();
    let (mut holder, mut waiter) = (site.server.message(), site.server.message());
    holder.call("lock", json!({"lockNames": ["a", "b", "c"]}));
    waiter.request_lock("a");
    site.server.await_waiters("a", 1);
    (site, [holder, waiter])
}

fn stats(site: &Site, arguments: &[&str]) -> (i32, String) {
    let (code, out, errors) = site.said(&[&["stats"], arguments].concat());
    (code, out + &errors)
}

#[test]
fn every_format_has_the_same_figures() {
    let (site, _clients) = site();
    let (_, json) = stats(&site, &["--format", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["locks"], &json["waiting"], &json["status"]), (&json!(3), &json!(1), &Value::Null));
    let (_, text) = stats(&site, &[]);
    let words = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    assert!(text.lines().any(|line| words(line) == "locks 3"), "{text}");
    let (_, prometheus) = stats(&site, &["-f", "prometheus"]);
    assert!(
        prometheus.contains("\nlockd_locks{mode=\"exclusive\"} 3\n")
            && prometheus.contains("\nlockd_waiters 1\n"),
        "{prometheus}"
    );
    // Each figure that is a number is a sample, and so is the version; the process id is neither.
    let figures = json.as_object().unwrap().keys().filter(|key| *key != "pid").count();
    assert_eq!(prometheus.lines().filter(|line| !line.starts_with('#')).count(), figures, "{prometheus}");
}

#[test]
fn munin_gets_graphs_and_values() {
    let (site, _clients) = site();
    let (code, config) = stats(&site, &["--format", "munin", "config"]);
    assert!(
        code == 0 && config.starts_with("multigraph lockd\n") && config.contains("\nlocks.label "),
        "{config}"
    );
    let (code, values) = stats(&site, &["--format", "munin"]);
    assert!(code == 0 && values.contains("\nlocks.value 3\n"), "{values}");
    assert_eq!(stats(&site, &["config"]).0, 1);
}

#[test]
fn nagios_gets_a_status_and_a_line() {
    let (site, _clients) = site();
    for (arguments, code, word) in [
        (&[][..], 0, "OK"),
        (&["--warning", "waiting=1", "--critical", "locks=3"], 0, "OK"),
        (&["--warning", "waiting=0"], 1, "WARNING"),
        (&["--warning", "waiting=0", "--critical", "locks=2"], 2, "CRITICAL"),
        (&["--critical", "nonsense=2"], 3, "UNKNOWN"),
        (&["--server", "unix:/nonexistent/lockd.sock"], 2, "CRITICAL"),
    ] {
        let (is, line) = stats(&site, &[&["--format", "nagios"], arguments].concat());
        assert_eq!(is, code, "{line}");
        assert!(line.starts_with(&format!("LOCKD {word}: ")) && line.lines().count() == 1, "{line}");
    }
}

#[test]
fn a_server_is_asked_by_itself() {
    let (site, _clients) = site();
    let two = format!("{},unix:/nonexistent/lockd.sock", site.url());
    let (code, words) = stats(&site, &["--server", &two]);
    assert!(code == 1 && words.contains("one server at a time"), "{words}");
}

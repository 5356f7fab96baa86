//! `lockd stats`: the server's statistics in every format.

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
    // Every numeric statistic is a sample, and so is the version; the process id is not.
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
}

#[test]
fn arguments_of_another_format_are_a_mistake() {
    let site = Site::start();
    let two = format!("{},unix:/nonexistent/lockd.sock", site.url());
    for (arguments, said) in [
        (&["config"][..], "--format munin"),
        (&["-f", "json", "autoconf"], "--format munin"),
        (&["-w", "waiting=3"], "--format nagios"),
        (&["-f", "json", "-c", "waiting=3"], "--format nagios"),
        (&["-f", "munin", "-t", "3"], "--format nagios"),
        (&["-f", "prometheus", "--server", &two], "one server"),
        (&["-f", "munin", "--server", &two], "one server"),
    ] {
        let (code, words) = stats(&site, arguments);
        assert!(code == 2 && words.contains(said), "{arguments:?}: {code}: {words}");
    }
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
        (&["-w", "connections=1:", "-c", "waiting=@1:5"], 2, "CRITICAL"),
        (&["-w", "locks=~:3", "-c", "waiting=@2:"], 0, "OK"),
        (&["--warning", "waiting"], 3, "UNKNOWN"),
        (&["--warning", "waiting=9:1"], 3, "UNKNOWN"),
        (&["--no-such-option"], 3, "UNKNOWN"),
        (&["--timeout", "soon"], 3, "UNKNOWN"),
        (&["--server", "nonsense:"], 3, "UNKNOWN"),
        (&["config"], 3, "UNKNOWN"),
        (&["--timeout", "0"], 3, "UNKNOWN"),
        (&["--server", "unix:/nonexistent/a,unix:/nonexistent/b"], 3, "UNKNOWN"),
        (&["-w", "waiting=9", "-w", "waiting=8"], 3, "UNKNOWN"),
        (&["-c", "waiting=9", "-w", "waiting=8"], 0, "OK"),
        (&["--server", "unix:/nonexistent/lockd.sock"], 2, "CRITICAL"),
    ] {
        let (is, line) = stats(&site, &[&["--format", "nagios"], arguments].concat());
        assert_eq!(is, code, "{line}");
        assert!(line.starts_with(&format!("LOCKD {word}: ")) && line.lines().count() == 1, "{line}");
    }
}

#[test]
fn nagios_is_told_in_time_of_a_server_that_does_not_answer() {
    let site = Site::start();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", silent.local_addr().unwrap());
    let (code, line) = stats(&site, &["-f", "nagios", "-t", "0.2", "--server", &url]);
    assert!(code == 2 && line.starts_with("LOCKD CRITICAL: no answer within 0.2 s"), "{code}: {line}");
}

#[test]
fn munin_is_told_whether_there_is_a_server() {
    let site = Site::start();
    assert_eq!(stats(&site, &["--format", "munin", "autoconf"]), (0, "yes\n".to_owned()));
    let nowhere = ["--format", "munin", "autoconf", "--server", "unix:/nonexistent/lockd.sock"];
    let (code, line) = stats(&site, &nowhere);
    assert!(code == 0 && line.starts_with("no (") && line.ends_with(")\n"), "{code}: {line}");
    assert!(line.lines().count() == 1 && line.contains("/nonexistent/lockd.sock"), "{line}");
}

#[test]
fn several_servers_are_shown_and_one_that_is_gone_is_named() {
    let (site, _clients) = site();
    let two = format!("{},unix:/nonexistent/lockd.sock", site.url());
    let (code, words) = stats(&site, &["--server", &two]);
    assert!(code == 1 && words.starts_with(&format!("{}:\n", site.url())), "{words}");
    assert!(words.contains("names held exclusively") && words.contains("/nonexistent/lockd.sock"), "{words}");
    let (code, json, errors) = site.said(&["stats", "-f", "json", "--server", &two]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(code == 1 && json[site.url()]["locks"] == json!(3), "{json}");
    assert!(errors.contains("/nonexistent/lockd.sock"), "{errors}");
}

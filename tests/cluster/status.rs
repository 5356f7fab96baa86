//! What each server is in its cluster: `lockd cluster status`, `lockd stats`, and the pages.

use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::chromium::{chromium, look, say_skipped};
use crate::client::get;
use crate::etcd::EtcdCluster;
use crate::support::environment::without_options;
use crate::support::eventually;
use crate::support::server::{Launch, Server, program};
use crate::support::socket::Endpoint;

/// A place where nothing listens.
const NOWHERE: &str = "127.0.7.4:1";

/// A server with the page.
fn launch(options: &[&str]) -> Launch {
    let launch = Launch::new().listen("message://127.0.0.1:0").option("--http", "127.0.0.1:0").expecting(1);
    launch.args(options.iter().copied())
}

/// A member of a cluster of this name.
fn member(etcd: &EtcdCluster, cluster: &str, options: &[&str]) -> Server {
    let times = ["--dead-peer-timeout", "12", "--leader-timeout", "2", "--first-start"];
    launch(&times).option("--cluster", &etcd.url(cluster)).args(options.iter().copied()).start()
}

fn place(server: &Server) -> String {
    match server.tcp_endpoint("message") {
        Endpoint::Tcp(address) => address.to_string(),
        Endpoint::Unix(_) => unreachable!("it was asked for over TCP"),
    }
}

fn shown(server: &Server) -> Value {
    get(server, "/cluster").json()["cluster"].clone()
}

fn await_active(server: &Server) {
    eventually("the server is active", || get(server, "/healthz").status == 200);
}

fn await_standby_of(server: &Server, active: &str) {
    eventually("the standby knows the active server", || {
        let shown = shown(server);
        (&shown["active"], &shown["epoch"]) == (&json!(active), &json!(1))
    });
}

/// The exit status of `lockd` with these arguments, its standard output, and its standard error.
fn said(arguments: &[&str]) -> (i32, String, String) {
    let output = without_options(Command::new(program()).args(arguments)).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn status(url: &str) -> (i32, String, String) {
    said(&["cluster", "status", "--server", url])
}

fn roles(url: &str) -> Value {
    let (_, json, _) = said(&["cluster", "status", "--json", "--server", url]);
    let all: Value = serde_json::from_str(&json).unwrap();
    let groups = all["servers"].as_array().unwrap();
    groups.iter().map(|group| group["places"].as_array().unwrap().clone()).collect()
}

#[test]
fn each_place_is_shown_and_exactly_one_is_active() {
    let (etcd, directory) = (EtcdCluster::start(1), TempDir::new().unwrap());
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "a secret of some length\n").unwrap();
    let secret = secret.to_str().unwrap();
    let options = ["--auth-token-file", secret];
    let active = member(&etcd, "main", &options);
    await_active(&active);
    let standby = member(&etcd, "main", &options);
    let (a, b) = (place(&active), place(&standby));
    await_standby_of(&standby, &a);

    let url = format!("tcp://{b},{a},{NOWHERE}?auth-token-file={secret}");
    let (code, text, errors) = status(&url);
    assert_eq!((code, errors.as_str()), (0, ""), "{text}");
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["PLACE", "ROLE", "CLUSTER", "RUN", "DETAIL"]);
    assert_eq!(lines[1], [&b, "standby", "-", "-", "the", "active", "server", "is", &a]);
    assert_eq!(lines[2], [&a, "active", "main", "1"]);
    assert_eq!(lines[3][..5], [NOWHERE, "unreachable", "-", "-", "Connection"]);
    assert_eq!(
        roles(&url),
        json!([[
            {"place": b, "role": "standby", "active": a},
            {"place": a, "role": "active", "cluster": "main", "epoch": 1},
            {"place": NOWHERE, "role": "unreachable", "reason": "Connection refused (os error 111)"},
        ]])
    );

    // Without the secret, none says what it is.
    let (code, text, errors) = status(&format!("tcp://{a},{b}"));
    assert!(code == 1 && text.matches("unknown").count() == 2 && text.contains("secret"), "{text}");
    assert!(errors.contains("no server of the group says that it is active"), "{errors}");
    let (code, _, errors) = status(&format!("tcp://{b}?auth-token-file={secret}"));
    assert!(code == 1 && errors.contains("no server of the group says that it is active"), "{errors}");
    let (code, _, errors) = status(&format!("tcp://{NOWHERE}"));
    assert!(code == 69 && errors.contains("no place answers"), "{code}: {errors}");
    let (code, text, _) = status(&format!("tcp://{a}?auth-token-file={secret},tcp://{NOWHERE}"));
    assert!(code == 1 && text.contains(&format!("\n\ntcp://{NOWHERE}:\nPLACE")), "{code}: {text}");
    assert_eq!(status("ftp://a").0, 2);

    let (code, text, errors) = said(&["stats", "--server", &url]);
    assert_eq!((code, errors.as_str()), (0, ""));
    assert!(text.lines().any(|line| line.contains("main, active, run 1")), "{text}");
}

#[test]
fn a_second_active_server_and_one_without_a_cluster_are_dangers() {
    let etcd = EtcdCluster::start(1);
    let (one, other) = (member(&etcd, "one", &[]), member(&etcd, "other", &[]));
    [&one, &other].into_iter().for_each(await_active);
    let (a, b) = (place(&one), place(&other));
    let (code, text, errors) = status(&format!("tcp://{a},{b}"));
    assert!(code == 1 && text.lines().filter(|line| line.contains("active")).count() == 2, "{text}");
    assert!(errors.contains("DANGER: 2 SERVERS") && errors.contains(&format!("{a}, {b}")), "{errors}");

    let alone = launch(&[]).start();
    let c = place(&alone);
    let (code, text, errors) = status(&format!("tcp://{a},{c}"));
    assert!(code == 1 && text.contains("alone") && errors.contains("DANGER: not a member"), "{text}{errors}");
    let (code, _, errors) = status(&format!("tcp://{c}"));
    assert!(code == 1 && errors.contains("is not a member of a cluster"), "{errors}");
    assert_eq!(shown(&alone), Value::Null);
    assert_eq!(alone.message().call("stats", json!({}))["cluster"], Value::Null);
}

#[test]
fn the_number_of_the_next_run_is_told_once_it_is_known() {
    let etcd = EtcdCluster::start(1);
    let first = member(&etcd, "main", &[]);
    await_active(&first);
    let others = [member(&etcd, "main", &[]), member(&etcd, "main", &[])];
    others.iter().for_each(|other| await_standby_of(other, &place(&first)));
    first.signal(Signal::KILL);
    eventually("another one is active, and both know its run", || {
        let shown = [&others[0], &others[1]].map(shown);
        let active = shown.iter().filter(|shown| shown["role"] == "active").count();
        active == 1 && shown.iter().all(|shown| shown["epoch"] == 2)
    });
    for server in &others {
        let log = server.log().join("\n");
        assert!(!log.contains("run 0") && log.contains("(run 1)"), "{log}");
    }
    let url = format!("tcp://{},{},{}", place(&first), place(&others[0]), place(&others[1]));
    let (code, text, _) = status(&url);
    assert!(code == 0 && text.lines().any(|line| line.ends_with("main     2")), "{text}");
}

#[test]
fn the_pages_say_what_the_server_is() {
    let etcd = EtcdCluster::start(1);
    let active = member(&etcd, "main", &[]);
    await_active(&active);
    let standby = member(&etcd, "main", &[]);
    let a = place(&active);
    await_standby_of(&standby, &a);
    let expected = json!({"name": "main", "role": "standby", "epoch": 1, "active": a, "etcdFails": false});
    assert_eq!(shown(&standby), expected);
    let mut member = shown(&active);
    assert!(member["secondsLeft"].take().as_f64().unwrap() <= 2.0);
    let expected = json!({"name": "main", "role": "active", "epoch": 1, "active": a, "secondsLeft": null, "etcdFails": false});
    assert_eq!(member, expected);

    let (locks, words) =
        (get(&standby, "/locks"), format!("standby of the cluster main; the active server is {a}"));
    assert_eq!((locks.status, locks.body.trim_end()), (503, words.as_str()));
    assert_eq!(get(&standby, "/healthz").body, locks.body);
    assert_eq!((get(&standby, "/livez").status, get(&active, "/locks").status), (200, 200));

    let Some(browser) = chromium() else { return say_skipped("the pages of a cluster in a browser") };
    let mut holder = active.message();
    holder.try_lock("report/1");
    let arguments = ["--dump-dom", "--enable-logging=stderr"];
    let seen = look(browser, &active, &arguments, 3000);
    assert!(seen.contains(">Active server of the cluster main (run 1). It may go on for "), "{seen}");
    assert!(seen.contains(">live<") && seen.contains(">report/1<"), "{seen}");
    let seen = look(chromium().unwrap(), &standby, &arguments, 3000);
    let words = format!(">Standby of the cluster main: it has no locks. The active server is {a} (run 1).<");
    assert!(seen.contains(&words), "{seen}");
    assert!(seen.contains(">standby<") && seen.contains(">A standby has no locks.<"), "{seen}");
}

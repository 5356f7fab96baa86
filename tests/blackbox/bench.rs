//! `lockd bench`: it measures in every protocol, and reports a server that answers what it
//! should not. Tests do not check how fast anything is.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::environment::without_options;
use crate::support::eventually;
use crate::support::server::Launch;

fn lockd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockd"));
    without_options(&mut command);
    command
}

fn bench(arguments: &[&str]) -> Output {
    let briefly = ["bench", "--seconds", "0.1", "--rounds", "1"];
    lockd().args(briefly).args(arguments).output().unwrap()
}

/// The figures of each server by its name.
fn figures(arguments: &[&str]) -> Vec<(String, Value)> {
    let output = bench(&[&["--json"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let servers = report["servers"].as_array().unwrap();
    servers.iter().map(|s| (s["name"].as_str().unwrap().to_owned(), s["median"].clone())).collect()
}

fn positive(figures: &Value, what: &str) -> bool {
    figures[what].as_f64().is_some_and(|figure| figure > 0.0)
}

#[test]
fn a_lockd_of_its_own_is_measured_together_with_an_echo_server() {
    for protocol in ["lockd", "glockd", "message"] {
        let measured = figures(&["--protocol", protocol, "--connections", "5", "--depth", "4"]);
        assert_eq!(measured.len(), 2);
        assert_eq!((&*measured[0].0, &*measured[1].0), ("lockd", "echo"));
        for (name, figures) in measured {
            assert!(positive(&figures, "requestsPerSecond"), "{name}: {figures}");
            assert!(positive(&figures["latency"], "p99"), "{name}: {figures}");
            assert!(positive(&figures, "resident"), "{name}: {figures}");
        }
    }
}

#[test]
fn a_server_whose_log_is_not_read_is_measured_to_the_end() {
    // `lockd bench` reads only the beginning of its own server's log. This is more than a pipe
    // holds.
    let arguments = ["--connections", "1500", "--", "--log-level", "trace"];
    assert!(positive(&figures(&arguments)[0].1, "requestsPerSecond"));
}

#[test]
fn a_hand_over_is_measured_where_there_is_a_queue() {
    for protocol in ["glockd", "message"] {
        let measured = figures(&["--protocol", protocol, "--connections", "20", "--contended"]);
        let names: Vec<&str> = measured.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["lockd", "echo", "baton"]);
        for (name, figures) in &measured {
            assert!(positive(figures, "handOversPerSecond"), "{name}: {figures}");
            assert!(positive(&figures["handOver"], "p50"), "{name}: {figures}");
        }
    }
    let output = bench(&["--protocol", "lockd", "--contended"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("one cannot wait"));
}

#[test]
fn the_processors_can_be_kept_awake_meanwhile() {
    let measured = figures(&["--awake", "--connections", "3"]);
    assert!(positive(&measured[0].1, "requestsPerSecond"), "{}", measured[0].1);
}

#[test]
fn one_name_is_tried_for_until_it_is_free() {
    let measured = figures(&["--connections", "8", "--one-name", "--hold", "1"]);
    assert!(positive(&measured[0].1, "refusedShare"), "{}", measured[0].1);
}

#[test]
fn a_running_server_is_measured_over_a_unix_socket_and_left_as_it_was() {
    let launch = Launch::new();
    let socket = launch.path("s.sock");
    let address = format!("message+unix:{}", socket.display());
    let server = launch.listen(&address).listen("glockd://127.0.0.1:0").start();
    let pid = server.pid().to_string();
    let measured = figures(&["--server", &address, "--pid", &pid, "--idle", "3", "--held", "1000"]);
    assert_eq!(measured[0].0, "message");
    assert!(positive(&measured[0].1, "resident"));
    server.await_no_locks();
}

/// A server that answers every line of every connection with the result of `reply`.
fn fake_server(reply: fn(&str) -> String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("glockd://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut writer = stream.try_clone().unwrap();
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    // The client may have disconnected.
                    let _ = writer.write_all(reply(&line).as_bytes());
                }
            });
        }
    });
    address
}

/// The replies of a glockd that says yes to every `g`, `gw` and `r` of the one name.
fn yes_to_all(line: &str) -> String {
    let what = if line.starts_with('r') { "Release" } else { "Get" };
    format!("1 Lock {what} Success: lock:0\r\n")
}

#[test]
fn a_server_with_two_holders_of_one_name_is_detected() {
    let address = fake_server(yes_to_all);
    for mode in ["--contended", "--one-name"] {
        for hold in ["0", "5"] {
            let output = bench(&["--server", &address, "--connections", "8", mode, "--hold", hold]);
            assert_eq!(output.status.code(), Some(1));
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(error.contains("two holders at once"), "{error}");
        }
    }
    // With a single connection that server's replies are correct.
    assert!(bench(&["--server", &address, "--connections", "1", "--contended"]).status.success());
}

#[test]
fn a_wait_without_a_time_limit_must_not_be_refused() {
    let address = fake_server(|_| "0 Lock Get Failure: lock:0\r\n".to_owned());
    let output = bench(&["--server", &address, "--contended"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("unexpected reply"), "{output:?}");
}

#[test]
fn a_wrong_reply_is_shown() {
    let address = fake_server(|_| "2 What?\r\n".to_owned());
    let output = bench(&["--server", &address]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains(r#"unexpected reply: "2 What?\r\n""#), "{error}");
}

/// The processes that were started by this one.
fn children(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

#[test]
fn a_killed_bench_leaves_nothing_running() {
    let mut bench = lockd().args(["bench", "-t", "60"]).spawn().unwrap();
    let mut servers = Vec::new();
    eventually("it has started its two servers", || {
        servers = children(bench.id());
        servers.len() == 2
    });
    bench.kill().unwrap();
    bench.wait().unwrap();
    let is_there = |pid: &u32| std::fs::exists(format!("/proc/{pid}/exe")).unwrap_or(false);
    eventually("they have ended, too", || !servers.iter().any(is_there));
}

#[test]
fn invalid_arguments_are_refused() {
    for arguments in [
        &["--connections", "0"][..],
        &["--server", "http://127.0.0.1:80"],
        &["--hold", "-1"],
        &["--seconds", "0"],
        &["--depth", "2", "--contended"],
        &["--protocol", "redis"],
    ] {
        let output = bench(arguments);
        assert!(!output.status.success() && !output.stderr.is_empty(), "{arguments:?}");
    }
    let output = bench(&["--", "--locks-max", "many"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("--locks-max"), "{output:?}");
}

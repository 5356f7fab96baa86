//! What the log says of clients that are refused, leave while holding locks, or reach limits; and
//! of the log itself.

use serde_json::json;

use crate::support::eventually;
use crate::support::server::{Launch, Server};
use crate::support::socket::connect;

#[track_caller]
fn assert_logs(server: &Server, parts: &[&str]) -> String {
    let line = || server.log().into_iter().find(|line| parts.iter().all(|part| line.contains(part)));
    eventually(&format!("a line of the log with {parts:?}"), || line().is_some());
    line().unwrap()
}

#[test]
fn a_client_that_is_not_on_the_access_list_is_logged() {
    let server = Launch::new().listen("glockd://127.0.0.1:0").args(["--allow", "10.0.0.0/8"]).start();
    let stranger = connect(&server.tcp_endpoint("glockd"));
    assert_logs(&server, &["WARN", "refused 127.0.0.1", "access list", "glockd://127.0.0.1:"]);
    drop(stranger);
}

#[test]
fn a_client_that_ends_with_locks_is_logged_with_address_name_and_number() {
    let server = Server::start();
    let mut client = server.glockd();
    assert!(client.ask("iam nightly\u{7} \u{1b}[31m\"backup\"").starts_with('1'));
    assert!(client.ask("g foo").starts_with('1') && client.ask("sg bar").starts_with('1'));
    let address = client.socket().local_addr().unwrap().as_socket().unwrap().to_string();
    drop(client);
    let line = assert_logs(&server, &["INFO", &address, "ended its connection", "now free: 2"]);
    assert!(line.contains(r#""nightly\u{7} \u{1b}[31m\"backup\"""#), "{line}");
    assert!(!line.contains('\u{1b}') && !line.contains('\u{7}'), "{line}");
}

#[test]
fn a_client_that_releases_its_locks_is_not_logged() {
    let server = Server::start();
    let mut tidy = server.glockd();
    assert!(tidy.ask("g foo").starts_with('1') && tidy.ask("r foo").starts_with('1'));
    drop(tidy);
    // Clients that come later are logged after it.
    let mut other = server.glockd();
    assert!(other.ask("g bar").starts_with('1'));
    drop(other);
    assert_logs(&server, &["now free: 1"]);
    assert_eq!(server.log().iter().filter(|line| line.contains("now free")).count(), 1);
}

#[test]
fn a_reached_limit_is_logged_with_the_client() {
    let server = Server::with(&["--locks-per-connection-max", "1"]);
    let mut text = server.lockd();
    assert!(text.ask("g foo").starts_with('1') && text.ask("g bar").starts_with('0'));
    let address = text.socket().local_addr().unwrap().as_socket().unwrap().to_string();
    assert_logs(&server, &["WARN", &address, "as many locks as it may"]);

    let server = Server::with(&["--locks-per-connection-max", "1"]);
    let mut client = server.message();
    assert_eq!(client.call("identify", json!({"name": "worker"}))["status"], "ok");
    assert_eq!(client.call("lock", json!({"lockName": "foo"}))["status"], "ok");
    assert_eq!(client.call("lock", json!({"lockName": "bar"}))["status"], "refused");
    assert_logs(&server, &["WARN", "\"worker\"", "as many locks as it may"]);
}

#[test]
fn a_thousand_refusals_make_a_line_or_two() {
    let server = Server::with(&["--locks-max", "1"]);
    let mut holder = server.glockd();
    assert!(holder.ask("g held").starts_with('1'));
    let mut client = server.glockd();
    let begun = std::time::Instant::now();
    for _ in 0..1000 {
        assert!(client.ask("g foo").starts_with('0'));
    }
    assert_logs(&server, &["WARN", "as many locks are held as may be"]);
    let lines = server.log().iter().filter(|line| line.contains("as many locks")).count();
    assert!(lines as u64 <= begun.elapsed().as_secs() + 1, "{lines} lines");
}

#[test]
fn lost_log_lines_are_counted_when_there_is_room_again() {
    let server = Server::with(&["--log-level", "debug"]);
    server.leave_log_unread();
    // Two lines each, and more than the queue holds.
    for _ in 0..10_000 {
        let mut client = server.glockd();
        assert!(client.ask("i foo").starts_with('0'));
    }
    server.read_log_again();
    eventually("lost lines are counted", || server.log().iter().any(|line| line.contains("were lost")));
    let log = server.log();
    let notice = log.iter().find(|line| line.contains("were lost")).unwrap();
    let number: u64 = notice.split(' ').find_map(|word| word.parse().ok()).unwrap();
    assert!(notice.contains("WARN") && number > 0, "{notice}");
    let kept = log.iter().filter(|line| line.contains("speaks") || line.contains("has gone")).count() as u64;
    assert!(kept > 0 && number + kept <= 2 * 10_000, "{number} lost, {kept} kept");
}

#[test]
fn the_lines_about_many_clients_that_end_with_locks_add_up() {
    const CROWD: u64 = 300;
    let server = Server::start();
    let mut crowd: Vec<_> = (0..CROWD).map(|_| server.glockd()).collect();
    for (number, client) in crowd.iter_mut().enumerate() {
        assert!(client.ask(&format!("g {number}")).starts_with('1'));
    }
    drop(crowd);
    let told = || -> Vec<u64> {
        let log = server.log();
        log.iter().filter_map(|line| line.split_once("now free: ")?.1.parse().ok()).collect()
    };
    // No later client causes it to be logged.
    eventually("all are counted", || told().iter().sum::<u64>() == CROWD);
    assert!(told().len() < 50, "{:?}", told());
}

#[test]
fn suppressed_messages_are_summed_up_at_the_stop() {
    let mut server = Server::with(&["--locks-max", "1"]);
    let mut holder = server.glockd();
    assert!(holder.ask("g held").starts_with('1'));
    let mut client = server.glockd();
    for _ in 0..5 {
        assert!(client.ask("g foo").starts_with('0'));
    }
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    let log = server.log();
    let by_itself = log.iter().filter(|line| line.contains("as many locks")).count() as u64;
    let together = log.iter().filter_map(|line| {
        let words: Vec<&str> = line.split("more requests were refused").collect();
        words.get(1).and(words[0].split_whitespace().last()?.parse::<u64>().ok())
    });
    assert_eq!(by_itself + together.sum::<u64>(), 5, "{log:?}");
}

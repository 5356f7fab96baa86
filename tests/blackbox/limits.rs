//! A client that reaches a limit gets a clear refusal, and no other client notices.

use crate::support::eventually;
use crate::support::frame_client::FrameClient;
use crate::support::line_client::LineClient;
use crate::support::server::Server;
use crate::support::socket::connect;
use serde_json::{Value, json};

#[track_caller]
fn assert_refused(result: &Value) {
    assert_explained(result, "refused");
}

/// A name that is too long can never be locked; that is not the same as a lock that is busy.
#[track_caller]
fn assert_invalid(result: &Value) {
    assert_explained(result, "invalid");
}

#[track_caller]
fn assert_explained(result: &Value, status: &str) {
    assert_eq!(result["status"], status, "{result}");
    assert!(result["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{result}");
}

#[track_caller]
fn assert_refusal(line: &str) {
    assert!(line.starts_with("0 ") && line.ends_with("\r\n"), "{line:?}");
}

/// Whether a new connection is served.
fn one_more_is_served(server: &Server, protocol: &str) -> bool {
    let mut client = LineClient::new(server.tcp(protocol));
    // The server may refuse the client before or after it has written.
    let _ = client.socket().send(b"i nobody's\n");
    client.read_line_or_end().is_some_and(|line| line.contains("Not Locked"))
}

#[test]
fn connections_over_the_limit_are_closed_and_the_others_served() {
    let server = Server::with(&["--connections-max", "3"]);
    let mut text = server.glockd();
    let mut old = LineClient::new(server.unix("lockd"));
    let mut message = server.message();
    assert!(text.ask("g foo").starts_with('1'));
    assert!(old.ask("i foo").starts_with('1'));
    assert!(message.is_served());
    for protocol in ["lockd", "glockd", "message"] {
        for endpoint in [server.tcp_endpoint(protocol), server.unix_endpoint(protocol)] {
            // It may be told why; what counts is that the connection ends.
            FrameClient::new(connect(&endpoint)).read_to_end();
        }
    }
    assert!(text.ask("i foo").starts_with('1'));
    assert!(message.is_served());
    drop(old);
    eventually("there is room again", || one_more_is_served(&server, "glockd"));
}

#[test]
fn connections_that_come_and_go_do_not_use_the_limit_up() {
    let server = Server::with(&["--connections-max", "5"]);
    for _ in 0..100 {
        eventually("there is room", || one_more_is_served(&server, "lockd"));
    }
}

#[test]
fn locks_of_one_connection_are_limited() {
    let server = Server::with(&["--locks-per-connection-max", "3"]);
    let mut text = server.glockd();
    for name in ["a", "b", "c"] {
        assert!(text.ask(&format!("g {name}")).starts_with('1'));
    }
    assert_refusal(&text.ask("g d"));
    assert!(text.ask("i d").starts_with('0'));
    assert!(text.ask("g a").starts_with('1'), "what it has it has");
    let mut old = server.lockd();
    assert_eq!(old.ask("g d"), "1 Got Lock\r\n", "others have limits of their own");
    assert_eq!(old.ask("r d"), "1 Released Lock\r\n");
    assert!(text.ask("r a").starts_with('1'));
    assert!(text.ask("g d").starts_with('1'), "there is room again");

    let mut message = server.message();
    for name in ["x", "y", "z"] {
        assert_eq!(message.lock(name)["status"], "ok");
    }
    assert_refused(&message.lock("d"));
    assert_refused(&message.call("lock", json!({"lockNames": ["v", "w"]})));
    let again = message.lock("x");
    assert_eq!([&again["status"], &again["already"]], [&json!("ok"), &json!(true)], "what it has it has");
    assert_eq!(message.unlock("x")["result"], "ok");
    assert_eq!(message.lock("x")["status"], "ok");
}

#[test]
fn shared_locks_count_as_locks_of_a_connection() {
    let server = Server::with(&["--locks-per-connection-max", "2"]);
    let mut client = server.lockd();
    assert_eq!(client.ask("sg a"), "1 Got Lock\r\n");
    assert_eq!(client.ask("sg b"), "1 Got Lock\r\n");
    assert_refusal(&client.ask("sg c"));
    assert_eq!(client.ask("si c"), "0 Not Locked\r\n");
    assert_eq!(client.ask("sg a"), "1 Got Lock\r\n");
}

#[test]
fn locks_in_all_are_limited() {
    let server = Server::with(&["--locks-max", "4"]);
    let (mut a, mut b, mut c) = (server.lockd(), server.glockd(), server.message());
    assert!(a.ask("g a").starts_with('1'));
    assert!(a.ask("g b").starts_with('1'));
    assert!(b.ask("g c").starts_with('1'));
    assert_eq!(c.lock("d")["status"], "ok");
    assert_refusal(&a.ask("g e"));
    assert_refusal(&b.ask("g e"));
    assert_refused(&c.lock("e"));
    assert_eq!(a.ask("i e"), "0 Not Locked\r\n");
    drop(b);
    eventually("there is room again", || a.ask("g e") == "1 Got Lock\r\n");
}

#[test]
fn waits_of_one_connection_are_limited() {
    let server = Server::with(&["--waits-per-connection-max", "2"]);
    let (mut holder, mut client, mut other) = (server.message(), server.message(), server.message());
    for name in ["a", "b", "c"] {
        assert_eq!(holder.lock(name)["status"], "ok");
    }
    let a = client.request_lock("a");
    let b = client.request_lock("b");
    assert_refused(&client.lock("c"));
    assert_eq!(client.lock("free")["status"], "ok", "what need not wait is no wait");
    other.request_lock("c");
    server.await_waiters("c", 1);
    holder.unlock("a");
    assert_eq!(client.result(a)["status"], "ok");
    client.request_lock("c");
    server.await_waiters("c", 2);
    holder.unlock("b");
    assert_eq!(client.result(b)["status"], "ok");
}

#[test]
fn names_are_limited() {
    let server = Server::with(&["--name-max", "10"]);
    let (fits, exceeds) = ("0123456789", "01234567890");
    let (mut old, mut text, mut message) = (server.lockd(), server.glockd(), server.message());
    assert_eq!(old.ask(&format!("g {fits}")), "1 Got Lock\r\n");
    assert_eq!(old.ask(&format!("r {fits}")), "1 Released Lock\r\n");
    for command in ["g", "sg"] {
        assert_refusal(&old.ask(&format!("{command} {exceeds}")));
        assert_refusal(&text.ask(&format!("{command} {exceeds}")));
    }
    assert_refusal(&text.ask(&format!("gw 1 {exceeds}")));
    for command in ["r", "i", "sr", "si"] {
        assert_refusal(&old.ask(&format!("{command} {exceeds}")));
        assert_refusal(&text.ask(&format!("{command} {exceeds}")));
    }
    assert_eq!(message.lock(fits)["status"], "ok");
    assert_invalid(&message.lock(exceeds));
    assert_invalid(&message.call("lock", json!({"lockNames": ["a", exceeds]})));
    assert_eq!(message.try_lock("a")["status"], "ok");
    assert_eq!(message.unlock(exceeds)["result"], "notFound");
}

#[test]
fn by_default_names_have_up_to_1024_bytes() {
    let server = Server::start();
    let (mut text, mut message) = (server.lockd(), server.message());
    let (fits, exceeds) = ("n".repeat(1024), "n".repeat(1025));
    assert_eq!(text.ask(&format!("g {fits}")), "1 Got Lock\r\n");
    assert_refusal(&text.ask(&format!("g {exceeds}")));
    assert_eq!(message.try_lock(&fits)["status"], "timeout");
    assert_invalid(&message.try_lock(&exceeds));
    // Bytes are counted, not characters.
    assert_eq!(message.lock(&"\u{df}".repeat(512))["status"], "ok");
    assert_invalid(&message.lock(&"\u{df}".repeat(513)));
}

#[test]
fn registered_names_have_up_to_256_bytes() {
    let server = Server::start();
    let (mut text, mut message) = (server.glockd(), server.message());
    // Bytes are counted, not characters.
    let (fits, exceeds) = ("\u{df}".repeat(128), format!("{}n", "\u{df}".repeat(128)));
    assert_eq!(message.call("identify", json!({"name": fits}))["status"], "ok");
    assert_invalid(&message.call("identify", json!({"name": exceeds})));
    assert_eq!(text.ask(&format!("who {fits}")), format!("{}: {fits}\n", message.address()), "it is kept");
    assert_eq!(text.ask(&format!("iam {fits}")), "1 ok\r\n");
    assert_eq!(text.ask(&format!("iam {exceeds}")), "0 name too long\r\n");
    assert_eq!(text.ask("me"), format!("1 {} {fits}\r\n", text.address()));
}

#[test]
fn the_names_of_a_set_have_up_to_128_kib_together() {
    let server = Server::start();
    let mut client = server.message();
    // However they are written in JSON: these take six bytes for each byte of the name.
    let mut names: Vec<String> = (0..1024).map(|n| format!("{}{n:04}", "\u{1}".repeat(124))).collect();
    assert_eq!(client.call("lock", json!({"lockNames": names, "timeLimit": 0}))["status"], "ok");
    assert_eq!(client.call("unlock", json!({"lockNames": names}))["status"], "ok");
    names[0].push('n');
    assert_invalid(&client.call("lock", json!({"lockNames": names, "timeLimit": 0})));
}

//! The `message` protocol as a client sees it: modes, tokens, conversion, several names at once.

use std::net::Shutdown;

use crate::support::frame_client::{FrameClient, frame};
use crate::support::server::Server;
use serde_json::{Value, json};

fn shared(name: &str) -> Value {
    json!({"lockName": name, "mode": "shared"})
}

fn try_shared(client: &mut FrameClient, name: &str) -> Value {
    client.call("lock", json!({"lockName": name, "mode": "shared", "timeLimit": 0}))
}

fn convert(name: &str, mode: &str) -> Value {
    json!({"lockName": name, "mode": mode})
}

fn token(result: &Value) -> u64 {
    result["token"].as_u64().unwrap_or_else(|| panic!("no token in {result}"))
}

#[test]
fn shared_and_exclusive_exclude_each_other() {
    let server = Server::start();
    let (mut a, mut b) = (server.message(), server.message());
    assert_eq!(a.call("lock", shared("foo"))["holders"], 1);
    assert_eq!(b.call("lock", shared("foo"))["holders"], 2);
    assert_eq!(server.message().try_lock("foo")["status"], "timeout");
    assert_eq!(a.unlock("foo")["result"], "ok");
    assert_eq!(b.unlock("foo")["result"], "ok");
    assert_eq!(a.call("lock", json!({"lockName": "foo", "mode": "exclusive"}))["status"], "ok");
    assert_eq!(try_shared(&mut b, "foo")["status"], "timeout");
}

#[test]
fn shared_requests_queue_after_an_exclusive_one_and_are_granted_together() {
    let server = Server::start();
    let (mut reader, mut writer) = (server.message(), server.message());
    let mut late = [server.message(), server.message()];
    reader.call("lock", shared("foo"));
    let exclusive = writer.request_lock("foo");
    server.await_waiters("foo", 1);
    assert_eq!(try_shared(&mut late[0], "foo")["status"], "timeout", "a reader must not overtake a writer");
    let ids = late.each_mut().map(|client| client.request("lock", shared("foo")));
    server.await_waiters("foo", 3);
    reader.unlock("foo");
    assert_eq!(writer.result(exclusive)["status"], "ok");
    writer.unlock("foo");
    for (client, id) in late.iter_mut().zip(ids) {
        assert_eq!(client.result(id)["status"], "ok");
    }
}

#[test]
fn a_second_request_by_the_holder_is_already_held() {
    let server = Server::start();
    let (mut a, mut b) = (server.message(), server.message());
    assert_eq!(a.lock("foo").get("already"), None);
    let again = a.lock("foo");
    assert_eq!([&again["status"], &again["already"]], [&json!("ok"), &json!(true)]);
    assert_eq!(a.unlock("foo")["result"], "ok", "one unlock is enough");
    assert_eq!(b.try_lock("foo")["status"], "ok");
}

#[test]
fn a_lock_whose_holder_vanished_is_orphaned_once() {
    let server = Server::start();
    let mut holder = server.message();
    assert_eq!(holder.lock("foo").get("orphaned"), None);
    drop(holder);
    let (mut a, mut b) = (server.message(), server.message());
    let granted = a.lock("foo");
    assert_eq!([&granted["status"], &granted["orphaned"]], [&json!("ok"), &json!(true)]);
    a.unlock("foo");
    assert_eq!(b.lock("foo").get("orphaned"), None, "it was released in between");
}

#[test]
fn a_client_that_says_bye_has_not_vanished() {
    let server = Server::start();
    let (mut leaving, mut waiter) = (server.message(), server.message());
    leaving.lock("foo");
    leaving.lock("bar");
    let id = waiter.request_lock("foo");
    server.await_waiters("foo", 1);
    // The client keeps its end of the connection open; the locks are free nevertheless.
    assert_eq!(leaving.call("bye", json!({}))["status"], "ok");
    assert_eq!(waiter.result(id).get("orphaned"), None);
    assert_eq!(waiter.try_lock("bar").get("orphaned"), None);
    assert!(leaving.read_to_end().is_empty());
    let stats = waiter.call("stats", json!({}));
    assert_eq!([&stats["orphans"], &stats["locks"]], [0, 2]);
}

#[test]
fn a_bye_is_read_after_a_request_that_can_no_longer_be_answered() {
    let server = Server::start();
    let mut leaving = FrameClient::new(server.unix("message"));
    leaving.lock("foo");
    // From now on every send of the server fails.
    leaving.socket().shutdown(Shutdown::Read).unwrap();
    // There is more data between the request and the goodbye than the server reads at once.
    let much = json!({"command": "nothing", "parameters": "x".repeat(100_000)}).to_string();
    let ping = r#"{"command":"ping","parameters":{},"id":1}"#;
    let all = [ping, &much, r#"{"command":"bye"}"#].map(frame).concat();
    leaving.send_bytes(all);
    let granted = server.message().lock("foo");
    assert_eq!((&granted["status"], granted.get("orphaned")), (&json!("ok"), None));
}

#[test]
fn requests_after_a_bye_are_not_handled() {
    let server = Server::start();
    let mut leaving = server.message();
    leaving.send(&json!({"command": "bye"}));
    leaving.request_lock("foo");
    assert!(leaving.read_to_end().is_empty(), "a bye without an id gets no reply");
    assert_eq!(server.message().try_lock("foo")["status"], "ok");
}

#[test]
fn a_waiter_is_told_that_the_holder_vanished() {
    let server = Server::start();
    let (mut holder, mut waiter) = (server.message(), server.message());
    holder.lock("foo");
    let id = waiter.request_lock("foo");
    server.await_waiters("foo", 1);
    drop(holder);
    assert_eq!(waiter.result(id)["orphaned"], true);
}

#[test]
fn a_shared_holder_that_vanishes_leaves_no_orphan() {
    let server = Server::start();
    let mut reader = server.message();
    reader.call("lock", shared("foo"));
    drop(reader);
    let granted = server.message().lock("foo");
    assert_eq!(granted["status"], "ok");
    assert_ne!(granted["orphaned"], true);
}

#[test]
fn the_tokens_of_a_name_rise_over_connections_protocols_and_sets() {
    let server = Server::start();
    let (mut a, mut b) = (server.message(), FrameClient::new(server.unix("message")));
    let mut text = server.glockd();
    let mut last = 0;
    for round in 0..10 {
        // In its lane: alone, and shared by one.
        let first = token(&a.lock("x"));
        a.unlock("x");
        let second = token(&b.call("lock", shared("x")));
        // In the table: shared by two, in a set whose other name has seen fewer grants, and passed
        // on to a waiter.
        let third = token(&a.call("lock", shared("x")));
        a.unlock("x");
        b.unlock("x");
        let names = json!({"lockNames": ["x", format!("y{round}")]});
        let fourth = token(&b.call("lock", names.clone()));
        let waiting = a.request_lock("x");
        server.await_waiters("x", 1);
        b.call("unlock", names);
        let fifth = token(&a.result(waiting));
        a.unlock("x");
        // And in its lane again.
        text.ask("g x");
        let sixth: u64 = text.ask("t x").trim_end().parse().unwrap();
        text.ask("r x");
        let tokens = [last, first, second, third, fourth, fifth, sixth];
        assert!(tokens.is_sorted_by(|one, next| one < next), "{tokens:?}");
        last = sixth;
    }
    assert!(last < 1 << 53, "every JSON reader keeps it");
}

#[test]
fn a_handed_over_lock_has_a_higher_token() {
    let server = Server::start();
    let (mut holder, mut waiter) = (server.message(), server.message());
    let first = token(&holder.lock("foo"));
    let id = waiter.request_lock("foo");
    server.await_waiters("foo", 1);
    holder.unlock("foo");
    assert!(token(&waiter.result(id)) > first);
}

#[test]
fn unlock_with_an_id_is_answered_by_that_id() {
    let server = Server::start();
    let mut client = server.message();
    client.lock("foo");
    assert_eq!(client.call("unlock", json!({"lockName": "foo"}))["status"], "ok");
    assert_eq!(client.call("unlock", json!({"lockName": "foo"}))["status"], "notFound");
    assert_eq!(server.lockd().ask("i foo"), "0 Not Locked\r\n");
}

#[test]
fn only_the_holder_can_unlock() {
    let server = Server::start();
    let (mut holder, mut other) = (server.message(), server.message());
    holder.lock("foo");
    assert_eq!(other.unlock("foo")["result"], "notFound");
    assert_eq!(other.call("unlock", json!({"lockName": "foo"}))["status"], "notFound");
    assert_eq!(other.try_lock("foo")["status"], "timeout");
}

#[test]
fn a_downgrade_lets_waiting_readers_in() {
    let server = Server::start();
    let (mut holder, mut reader) = (server.message(), server.message());
    holder.lock("foo");
    let id = reader.request("lock", shared("foo"));
    server.await_waiters("foo", 1);
    assert_eq!(holder.call("convert", convert("foo", "shared"))["status"], "ok");
    assert_eq!(reader.result(id)["status"], "ok");
    assert_eq!(server.message().try_lock("foo")["status"], "timeout");
}

#[test]
fn an_upgrade_waits_for_the_other_readers() {
    let server = Server::start();
    let (mut a, mut b) = (server.message(), server.message());
    a.call("lock", shared("foo"));
    assert_eq!(a.call("convert", convert("foo", "exclusive"))["status"], "ok", "alone it need not wait");
    assert_eq!(a.call("convert", convert("foo", "shared"))["status"], "ok");
    b.call("lock", shared("foo"));
    let hasty = json!({"lockName": "foo", "mode": "exclusive", "timeLimit": 0});
    assert_eq!(a.call("convert", hasty)["status"], "timeout");
    assert_eq!(a.call("inspect", json!({"lockName": "foo"}))["holders"], 2, "the shared lock stays");
    let id = a.request("convert", convert("foo", "exclusive"));
    server.await_waiters("foo", 1);
    b.unlock("foo");
    assert_eq!(a.result(id)["status"], "ok");
    assert_eq!(try_shared(&mut b, "foo")["status"], "timeout");
}

#[test]
fn two_that_upgrade_the_same_lock_are_a_deadlock() {
    let server = Server::start();
    let (mut a, mut b) = (server.message(), server.message());
    a.call("lock", shared("foo"));
    b.call("lock", shared("foo"));
    let id = a.request("convert", convert("foo", "exclusive"));
    server.await_waiters("foo", 1);
    assert_eq!(b.call("convert", convert("foo", "exclusive"))["status"], "deadlock");
    b.unlock("foo");
    assert_eq!(a.result(id)["status"], "ok");
}

#[test]
fn a_lock_that_is_not_held_cannot_be_converted() {
    let server = Server::start();
    let (mut holder, mut other) = (server.message(), server.message());
    holder.lock("foo");
    for name in ["foo", "bar"] {
        assert_eq!(other.call("convert", convert(name, "shared"))["status"], "notFound", "{name}");
    }
    assert_eq!(try_shared(&mut other, "foo")["status"], "timeout");
}

#[test]
fn a_shared_lock_held_already_tells_how_many_hold_it() {
    let server = Server::start();
    let (mut a, mut b) = (server.message(), server.message());
    let shared = json!({"lockName": "foo", "mode": "shared"});
    assert_eq!(a.call("lock", shared.clone())["holders"], 1);
    assert_eq!(b.call("lock", shared.clone())["holders"], 2);
    let again = a.call("lock", shared);
    assert_eq!([&again["already"], &again["holders"]], [&json!(true), &json!(2)]);
}

//! The `message` protocol as a client sees it: waiting in the queue, and giving up.

use std::time::{Duration, Instant};

use crate::support::frame_client::FrameClient;
use crate::support::server::Server;
use serde_json::{Value, json};

fn holder_of_foo(server: &Server) -> FrameClient {
    let mut holder = server.message();
    assert_eq!(holder.lock("foo")["status"], "ok");
    holder
}

/// A client whose request is the `place`th in the queue for foo, and its id.
fn waiter(server: &Server, place: usize) -> (FrameClient, u64) {
    let mut waiter = server.message();
    let id = waiter.request_lock("foo");
    server.await_waiters("foo", place);
    (waiter, id)
}

fn lock_within(client: &mut FrameClient, time_limit: Value) -> Value {
    client.call("lock", json!({"lockName": "foo", "timeLimit": time_limit}))["status"].clone()
}

#[test]
fn an_unlock_grants_to_the_longest_waiter() {
    let server = Server::start();
    let mut holder = holder_of_foo(&server);
    let mut outsider = server.message();
    for (mut waiter, id) in (1..=5).map(|place| waiter(&server, place)).collect::<Vec<_>>() {
        waiter.hears_nothing();
        assert_eq!(holder.unlock("foo")["result"], "ok");
        assert_eq!(waiter.result(id)["status"], "ok");
        assert_eq!(outsider.try_lock("foo")["status"], "timeout", "no other session gets it in between");
        holder = waiter;
    }
    assert_eq!(holder.unlock("foo")["result"], "ok");
    assert_eq!(outsider.try_lock("foo")["status"], "ok");
}

#[test]
fn a_wait_does_not_delay_later_requests() {
    let server = Server::start();
    let mut holder = holder_of_foo(&server);
    let (mut client, id) = waiter(&server, 1);
    assert!(client.is_served());
    assert_eq!(client.lock("bar")["status"], "ok");
    assert_eq!(client.unlock("bar")["result"], "ok");
    assert_eq!(holder.unlock("foo")["result"], "ok");
    assert_eq!(client.result(id)["status"], "ok");
}

#[test]
fn one_connection_waits_for_many_names_at_once() {
    let server = Server::start();
    let (mut holder, mut client) = (server.message(), server.message());
    for n in 0..50 {
        assert_eq!(holder.lock(&format!("k{n}"))["status"], "ok");
    }
    let ids: Vec<u64> = (0..50).map(|n| client.request_lock(&format!("k{n}"))).collect();
    server.await_waiters("k49", 1);
    for n in (0..50).rev() {
        assert_eq!(holder.unlock(&format!("k{n}"))["result"], "ok");
        let reply = client.receive();
        assert_eq!([&reply["id"], &reply["result"]["status"]], [&json!(ids[n]), &json!("ok")]);
    }
}

#[test]
fn without_time_to_wait_a_held_lock_times_out_at_once() {
    let server = Server::start();
    let _holder = holder_of_foo(&server);
    let mut client = server.message();
    assert_eq!(lock_within(&mut client, json!(0)), "timeout");
    assert_eq!(lock_within(&mut client, json!(0.0)), "timeout");
    server.await_waiters("foo", 0);
}

#[test]
fn a_wait_ends_with_its_time_limit() {
    let server = Server::start();
    let _holder = holder_of_foo(&server);
    let mut client = server.message();
    let start = Instant::now();
    assert_eq!(lock_within(&mut client, json!(0.3)), "timeout");
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    server.await_waiters("foo", 0);
    client.hears_nothing();
}

#[test]
fn time_limits_run_each_for_itself() {
    let server = Server::start();
    let _holder = holder_of_foo(&server);
    let mut client = server.message();
    let mut other = server.message();
    let request = |limit: f64| json!({"lockName": "foo", "timeLimit": limit});
    let (late, soon) = (client.request("lock", request(0.6)), other.request("lock", request(0.2)));
    assert_eq!(other.result(soon)["status"], "timeout");
    server.await_waiters("foo", 1);
    assert_eq!(client.result(late)["status"], "timeout");
}

#[test]
fn false_is_no_time_limit() {
    let server = Server::start();
    let mut holder = holder_of_foo(&server);
    let mut client = server.message();
    let id = client.request("lock", json!({"lockName": "foo", "timeLimit": false}));
    server.await_waiters("foo", 1);
    assert_eq!(holder.unlock("foo")["result"], "ok");
    assert_eq!(client.result(id)["status"], "ok");
}

#[test]
fn a_grant_within_the_time_limit_is_kept() {
    let server = Server::start();
    for limit in [json!(60), json!(1e15), json!(1e300)] {
        let mut holder = holder_of_foo(&server);
        let mut client = server.message();
        let id = client.request("lock", json!({"lockName": "foo", "timeLimit": limit}));
        server.await_waiters("foo", 1);
        assert_eq!(holder.unlock("foo")["result"], "ok");
        assert_eq!(client.result(id)["status"], "ok");
        assert_eq!(holder.try_lock("foo")["status"], "timeout");
        assert_eq!(client.unlock("foo")["result"], "ok");
    }
}

#[test]
fn an_unlock_gives_up_a_wait_which_then_gets_no_reply() {
    let server = Server::start();
    let mut holder = holder_of_foo(&server);
    let (mut gives_up, _) = waiter(&server, 1);
    let (mut next, id) = waiter(&server, 2);
    let reply = gives_up.unlock("foo");
    assert_eq!(reply, json!({"attempted": "unlock", "result": "ok", "lockName": "foo"}));
    server.await_waiters("foo", 1);
    assert_eq!(holder.unlock("foo")["result"], "ok");
    assert_eq!(next.result(id)["status"], "ok");
    gives_up.hears_nothing();
    assert_eq!(gives_up.unlock("foo")["result"], "notFound");
}

#[test]
fn a_wait_given_up_can_be_begun_again() {
    let server = Server::start();
    let mut holder = holder_of_foo(&server);
    let (mut client, _) = waiter(&server, 1);
    assert_eq!(client.unlock("foo")["result"], "ok");
    let id = client.request_lock("foo");
    server.await_waiters("foo", 1);
    assert_eq!(holder.unlock("foo")["result"], "ok");
    assert_eq!(client.receive()["id"], json!(id));
}

#[test]
fn an_unlock_with_an_id_gives_up_a_wait_too() {
    let server = Server::start();
    let _holder = holder_of_foo(&server);
    let (mut client, _) = waiter(&server, 1);
    assert_eq!(client.call("unlock", json!({"lockName": "foo"}))["status"], "ok");
    server.await_waiters("foo", 0);
    client.hears_nothing();
}

#[test]
fn a_client_that_disconnects_leaves_the_queue() {
    let server = Server::start();
    let mut holder = holder_of_foo(&server);
    let (gone, _) = waiter(&server, 1);
    let (mut next, id) = waiter(&server, 2);
    drop(gone);
    server.await_waiters("foo", 1);
    assert_eq!(holder.unlock("foo")["result"], "ok");
    assert_eq!(next.result(id)["status"], "ok");
}

#[test]
fn the_end_of_the_holder_grants_to_the_next() {
    let server = Server::start();
    let holder = holder_of_foo(&server);
    let (mut next, id) = waiter(&server, 1);
    drop(holder);
    assert_eq!(next.result(id)["status"], "ok");
}

#[test]
fn a_wait_that_would_close_a_cycle_is_a_deadlock() {
    let server = Server::start();
    let (mut a, mut b) = (server.message(), server.message());
    a.call("identify", json!({"name": "anna"}));
    b.call("identify", json!({"name": "bert"}));
    assert_eq!(a.lock("foo")["status"], "ok");
    assert_eq!(b.lock("bar")["status"], "ok");
    let waits = a.request_lock("bar");
    server.await_waiters("bar", 1);
    let refused = b.lock("foo");
    assert_eq!(refused["status"], "deadlock");
    let circle = refused["circle"].as_array().unwrap();
    assert_eq!(circle.len(), 2, "{refused}");
    let text = refused["circle"].to_string();
    for (name, address) in [("anna", a.address()), ("bert", b.address())] {
        assert!(text.contains(name) || text.contains(&address), "{name} ({address}) is not in {text}");
    }
    // No other session is affected, and the refused one keeps its locks.
    a.hears_nothing();
    assert_eq!(b.unlock("bar")["result"], "ok");
    assert_eq!(a.result(waits)["status"], "ok");
}

#[test]
fn a_try_is_never_a_deadlock() {
    let server = Server::start();
    let (mut a, mut b) = (server.message(), server.message());
    a.lock("foo");
    b.lock("bar");
    a.request_lock("bar");
    server.await_waiters("bar", 1);
    assert_eq!(b.try_lock("foo")["status"], "timeout");
}

#[test]
fn a_cycle_of_three_is_found() {
    let server = Server::start();
    let mut clients = [server.message(), server.message(), server.message()];
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.lock(&format!("k{n}"))["status"], "ok");
    }
    clients[0].request_lock("k1");
    clients[1].request_lock("k2");
    server.await_waiters("k1", 1);
    server.await_waiters("k2", 1);
    let refused = clients[2].lock("k0");
    assert_eq!(refused["status"], "deadlock");
    assert_eq!(refused["circle"].as_array().unwrap().len(), 3, "{refused}");
}

/// The refusal of a wait that would close a cycle of `size` sessions, all with long registered
/// names.
fn refused_in_a_circle_of(server: &Server, size: usize) -> Value {
    let mut clients: Vec<FrameClient> = (0..size).map(|_| server.message()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.call("identify", json!({"name": format!("{n} {}", "\u{1}".repeat(200))}));
        assert_eq!(client.lock(&format!("k{n}"))["status"], "ok");
    }
    for (n, client) in clients.iter_mut().enumerate().take(size - 1) {
        client.request_lock(&format!("k{}", n + 1));
    }
    for n in 1..size {
        server.await_waiters(&format!("k{n}"), 1);
    }
    let last = clients.last_mut().unwrap();
    last.send(&json!({"command": "lock", "parameters": {"lockName": "k0"}, "id": "last"}));
    let text = last.receive_text();
    assert!(text.len() < 32 << 10, "{} bytes", text.len());
    let mut reply: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(reply["result"]["status"], "deadlock");
    reply["result"].take()
}

#[test]
fn a_long_cycle_is_shortened_and_counted() {
    let refused = refused_in_a_circle_of(&Server::start(), 40);
    let circle = refused["circle"].as_array().unwrap();
    assert_eq!((circle.len(), &refused["circleSize"]), (16, &json!(40)));
    // The requesting session first, then those that it would wait for.
    let names: Vec<&str> = circle.iter().map(|name| name.as_str().unwrap()).collect();
    assert!(names[0].starts_with("39 ") && names[1].starts_with("0 ") && names[15].starts_with("14 "));
    let short = refused_in_a_circle_of(&Server::start(), 16);
    assert_eq!((short["circle"].as_array().unwrap().len(), &short["circleSize"]), (16, &Value::Null));
}

#[test]
fn without_listings_a_cycle_names_no_session() {
    let refused = refused_in_a_circle_of(&Server::with(&["--no-dump"]), 3);
    assert_eq!(refused, json!({"status": "deadlock", "circleSize": 3}));
}

#[test]
fn without_a_registry_a_cycle_has_addresses() {
    let refused = refused_in_a_circle_of(&Server::with(&["--no-registry"]), 3);
    let circle = refused["circle"].as_array().unwrap();
    assert!(circle.iter().all(|one| one.as_str().unwrap().starts_with("127.0.0.1:")), "{refused}");
}

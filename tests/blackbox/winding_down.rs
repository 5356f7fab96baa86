//! A client that asked for time to end its work (`windDown`) keeps its locks after the server has
//! ended its connection, until the client ends the connection too, or that time is over.

use serde_json::json;

use crate::support::eventually;
use crate::support::frame_client::FrameClient;
use crate::support::server::Server;

fn server() -> Server {
    Server::with(&["--allow-kick"])
}

/// A client that holds `a` and asked for `seconds`, over TCP or a Unix socket, and its address for
/// the server.
fn holder(mut client: FrameClient, seconds: f64) -> (FrameClient, String) {
    let hello = client.call("hello", json!({"windDown": seconds}));
    assert!(hello["features"].as_array().unwrap().contains(&json!("windDown")), "{hello}");
    assert_eq!(client.lock("a")["status"], "ok");
    let page = client.call("list", json!({"prefix": "a"}));
    let address = page["locks"][0]["holders"][0]["address"].as_str().unwrap().to_owned();
    (client, address)
}

fn kick(server: &Server, address: &str) {
    assert_eq!(server.message().call("kick", json!({"address": address}))["status"], "ok");
}

/// Whether the lock stays with its holder, checked now and then.
#[track_caller]
fn assert_stays(server: &Server, waiters: u64) {
    let mut observer = server.message();
    for _ in 0..100 {
        let seen = observer.call("inspect", json!({"lockName": "a"}));
        assert_eq!((&seen["holders"], &seen["waiters"]), (&json!(1), &json!(waiters)));
    }
}

#[test]
fn a_kicked_client_keeps_its_locks_until_it_leaves() {
    let server = server();
    for client in [server.message(), FrameClient::new(server.unix("message"))] {
        let (mut holder, address) = holder(client, 3600.0);
        let mut waiter = server.message();
        let asked = waiter.request_lock("a");
        server.await_waiters("a", 1);
        kick(&server, &address);
        assert_eq!(holder.read_to_end(), b"", "it is told at once");
        assert_stays(&server, 1);
        // The server reads what the client sends, to notice its end, and does nothing with it.
        for _ in 0..100 {
            holder.request("unlock", json!({"lockName": "a"}));
        }
        assert_stays(&server, 1);
        drop(holder);
        assert_eq!(waiter.result(asked)["status"], "ok");
    }
}

#[test]
fn the_waits_of_a_kicked_client_leave_their_queues_at_once() {
    let server = server();
    let (mut holder, address) = holder(server.message(), 3600.0);
    let mut other = server.message();
    assert_eq!(other.lock("b")["status"], "ok");
    holder.request_lock("b");
    server.await_waiters("b", 1);
    kick(&server, &address);
    server.await_waiters("b", 0);
    assert_eq!(other.unlock("b")["result"], "ok");
    assert_eq!(other.call("inspect", json!({"lockName": "b"}))["holders"], 0);
    assert_stays(&server, 0);
}

#[test]
fn a_kicked_client_that_takes_longer_than_it_asked_for_is_not_waited_for() {
    let server = server();
    for client in [server.message(), FrameClient::new(server.unix("message"))] {
        let (mut holder, address) = holder(client, 0.4);
        let mut waiter = server.message();
        let asked = waiter.request_lock("a");
        server.await_waiters("a", 1);
        kick(&server, &address);
        assert_eq!(waiter.result(asked)["status"], "ok");
        assert_eq!(holder.read_to_end(), b"");
    }
}

#[test]
fn a_second_kick_does_not_wait_for_the_client() {
    let server = server();
    for client in [server.message(), FrameClient::new(server.unix("message"))] {
        let (_holder, address) = holder(client, 3600.0);
        let mut waiter = server.message();
        let asked = waiter.request_lock("a");
        server.await_waiters("a", 1);
        kick(&server, &address);
        assert_stays(&server, 1);
        kick(&server, &address);
        assert_eq!(waiter.result(asked)["status"], "ok");
    }
}

#[test]
fn a_client_that_ends_by_itself_is_not_waited_for() {
    let server = server();
    let (holder, _) = holder(server.message(), 3600.0);
    let mut waiter = server.message();
    let asked = waiter.request_lock("a");
    server.await_waiters("a", 1);
    drop(holder);
    assert_eq!(waiter.result(asked)["status"], "ok");
}

#[test]
fn an_invalid_or_too_long_time_is_refused() {
    let server = server();
    let mut client = server.message();
    for time in [json!(-1), json!(3601), json!("5")] {
        assert_eq!(client.call("hello", json!({"windDown": time}))["status"], "invalid", "{time}");
    }
    assert!(client.is_served());
}

#[test]
fn a_kicked_client_that_holds_nothing_makes_room_at_once() {
    let server = Server::with(&["--allow-kick", "--connections-max", "3"]);
    let (mut one, mut other) = (server.message(), server.message());
    let addresses = [one.address(), other.address()];
    for client in [&mut one, &mut other] {
        assert_eq!(client.call("hello", json!({"windDown": 3600}))["status"], "ok");
    }
    let mut operator = server.message();
    for address in addresses {
        assert_eq!(operator.call("kick", json!({"address": address}))["status"], "ok");
    }
    eventually("there is room", || operator.call("stats", json!({}))["connections"] == 1);
    drop((one, other));
}

//! The `message` protocol as a client sees it: several names at once, all or none.

use crate::support::server::Server;
use serde_json::{Value, json};

fn all_of(names: &Value) -> Value {
    json!({"lockNames": names})
}

fn all_of_at_once(names: &Value) -> Value {
    json!({"lockNames": names, "timeLimit": 0})
}

#[test]
fn a_set_is_locked_and_unlocked_as_one() {
    let server = Server::start();
    let (mut client, mut other) = (server.message(), server.message());
    let names = json!(["a", "b", "c"]);
    let granted = client.call("lock", all_of(&names));
    assert_eq!(granted["status"], "ok");
    assert!(granted["token"].is_u64(), "one token for the set: {granted}");
    for name in ["a", "b", "c"] {
        assert_eq!(other.try_lock(name)["status"], "timeout", "{name}");
    }
    assert_eq!(client.call("unlock", all_of(&names))["status"], "ok");
    for name in ["a", "b", "c"] {
        assert_eq!(other.try_lock(name)["status"], "ok", "{name}");
    }
}

#[test]
fn the_original_unlock_takes_a_set_too() {
    let server = Server::start();
    let mut client = server.message();
    client.call("lock", all_of(&json!(["a", "b"])));
    client.send(&json!({"command": "unlock", "lockNames": ["a", "b"]}));
    let reply = client.receive();
    assert_eq!([&reply["attempted"], &reply["result"]], ["unlock", "ok"]);
    assert_eq!(server.message().call("lock", all_of_at_once(&json!(["a", "b"])))["status"], "ok");
}

#[test]
fn if_one_name_is_held_none_is_taken() {
    let server = Server::start();
    let (mut holder, mut client) = (server.message(), server.message());
    holder.lock("b");
    assert_eq!(client.call("lock", all_of_at_once(&json!(["a", "b", "c"])))["status"], "timeout");
    assert_eq!(holder.try_lock("a")["status"], "ok");
    assert_eq!(holder.try_lock("c")["status"], "ok");
}

#[test]
fn a_set_that_waits_holds_nothing_and_is_granted_as_a_whole() {
    let server = Server::start();
    let (mut holder, mut client) = (server.message(), server.message());
    holder.call("lock", all_of(&json!(["b", "c"])));
    let id = client.request("lock", all_of(&json!(["a", "b", "c"])));
    server.await_waiters("b", 1);
    let free = holder.call("inspect", json!({"lockName": "a"}));
    assert_eq!([&free["mode"], &free["holders"]], [&json!(null), &json!(0)]);
    assert_eq!(holder.unlock("b")["result"], "ok");
    client.hears_nothing();
    assert_eq!(holder.unlock("c")["result"], "ok");
    assert_eq!(client.result(id)["status"], "ok");
    for name in ["a", "b", "c"] {
        assert_eq!(holder.try_lock(name)["status"], "timeout", "{name}");
    }
}

#[test]
fn a_set_that_times_out_leaves_every_queue() {
    let server = Server::start();
    let (mut holder, mut client) = (server.message(), server.message());
    holder.lock("b");
    let request = json!({"lockNames": ["a", "b"], "timeLimit": 0.2});
    assert_eq!(client.call("lock", request)["status"], "timeout");
    server.await_waiters("a", 0);
    server.await_waiters("b", 0);
    assert_eq!(holder.try_lock("a")["status"], "ok");
}

#[test]
fn a_set_that_waits_can_be_given_up() {
    let server = Server::start();
    let (mut holder, mut client) = (server.message(), server.message());
    holder.lock("b");
    client.request("lock", all_of(&json!(["a", "b"])));
    server.await_waiters("a", 1);
    assert_eq!(client.call("unlock", all_of(&json!(["a", "b"])))["status"], "ok");
    server.await_waiters("a", 0);
    server.await_waiters("b", 0);
    holder.unlock("b");
    client.hears_nothing();
}

#[test]
fn each_name_of_a_set_has_its_mode() {
    let server = Server::start();
    let (mut reader, mut client) = (server.message(), server.message());
    assert_eq!(reader.call("lock", json!({"lockName": "a", "mode": "shared"}))["status"], "ok");
    let names = json!([{"lockName": "a", "mode": "shared"}, {"lockName": "b"}, "c"]);
    assert_eq!(client.call("lock", all_of_at_once(&names))["status"], "ok");
    let mode = |client: &mut crate::support::frame_client::FrameClient, name: &str| {
        client.call("inspect", json!({"lockName": name}))["mode"].clone()
    };
    assert_eq!(mode(&mut reader, "a"), "shared");
    assert_eq!(mode(&mut reader, "b"), "exclusive");
    assert_eq!(mode(&mut reader, "c"), "exclusive");
}

#[test]
fn crossing_sets_never_deadlock() {
    let server = Server::start();
    let orders = [json!(["a", "b", "c"]), json!(["c", "b", "a"]), json!(["b", "c"]), json!(["a", "c"])];
    std::thread::scope(|scope| {
        for names in &orders {
            let mut client = server.message();
            scope.spawn(move || {
                for round in 0..100 {
                    assert_eq!(
                        client.call("lock", all_of(names))["status"],
                        "ok",
                        "round {round} of {names}"
                    );
                    assert_eq!(
                        client.call("unlock", all_of(names))["status"],
                        "ok",
                        "round {round} of {names}"
                    );
                }
            });
        }
    });
    for name in ["a", "b", "c"] {
        server.await_free(name);
    }
}

#[test]
fn the_end_of_the_connection_frees_the_whole_set() {
    let server = Server::start();
    let (mut holder, mut client) = (server.message(), server.message());
    holder.call("lock", all_of(&json!(["a", "b"])));
    let id = client.request("lock", all_of(&json!(["b", "a"])));
    server.await_waiters("a", 1);
    drop(holder);
    assert_eq!(client.result(id)["status"], "ok");
}

#[test]
fn unlocking_a_set_says_ok_only_if_every_name_was_held_or_waited_for() {
    let server = Server::start();
    let (mut holder, mut client) = (server.message(), server.message());
    for names in [["p", "q", "never"], ["never", "p", "q"], ["q", "never", "p"]] {
        assert_eq!(holder.lock("p")["status"], "ok");
        client.request("lock", all_of(&json!(["p", "q"])));
        server.await_waiters("p", 1);
        assert_eq!(client.call("unlock", all_of(&json!(names)))["status"], "notFound", "{names:?}");
        assert_eq!(holder.unlock("p")["result"], "ok");
        server.await_free("p");

        client.request("lock", all_of(&json!(["p", "q"])));
        assert_eq!(client.call("unlock", all_of(&json!(["q", "p"])))["status"], "ok");
        server.await_free("q");
    }
}

//! The `message` protocol as a client sees it: inspecting and listing locks.

use crate::support::frame_client::FrameClient;
use crate::support::server::Server;
use serde_json::{Value, json};

fn names(listing: &Value) -> Vec<&str> {
    listing["locks"].as_array().unwrap().iter().map(|lock| lock["lockName"].as_str().unwrap()).collect()
}

#[test]
fn inspect_counts_holders_and_waiters() {
    let server = Server::start();
    let (mut a, mut b) = (server.message(), server.message());
    let inspect = |client: &mut FrameClient| client.call("inspect", json!({"lockName": "foo"}));
    let expected = |mode: Value, holders: u64, waiters: u64| json!({"status": "ok", "mode": mode, "holders": holders, "waiters": waiters});
    assert_eq!(inspect(&mut b), expected(Value::Null, 0, 0));
    a.lock("foo");
    assert_eq!(inspect(&mut b), expected(json!("exclusive"), 1, 0));
    let mut waiting = server.message();
    waiting.request_lock("foo");
    server.await_waiters("foo", 1);
    assert_eq!(inspect(&mut b), expected(json!("exclusive"), 1, 1));
    drop(waiting);
    server.await_waiters("foo", 0);
    a.unlock("foo");
    for client in [&mut a, &mut b] {
        client.call("lock", json!({"lockName": "foo", "mode": "shared"}));
    }
    assert_eq!(inspect(&mut a), expected(json!("shared"), 2, 0));
}

#[test]
fn list_tells_who_holds_and_who_waits() {
    let server = Server::start();
    let (mut a, mut b) = (server.message(), server.message());
    assert_eq!(a.call("list", json!({})), json!({"status": "ok", "locks": [], "more": false}));
    assert_eq!(a.call("identify", json!({"name": "anna"}))["status"], "ok");
    let granted = a.lock("foo");
    b.request_lock("foo");
    server.await_waiters("foo", 1);
    let listing = a.call("list", json!({}));
    assert_eq!(listing["more"], false);
    assert_eq!(names(&listing), ["foo"]);
    let lock = &listing["locks"][0];
    assert_eq!(lock["mode"], "exclusive");
    assert_eq!(lock["holders"].as_array().unwrap().len(), 1);
    let holder = &lock["holders"][0];
    assert_eq!(holder["address"], json!(a.address()));
    assert_eq!(holder["name"], "anna");
    assert_eq!(holder["token"], granted["token"]);
    assert!(holder["heldFor"].as_f64().unwrap() >= 0.0);
    let waiters = lock["waiters"].as_array().unwrap();
    assert_eq!(waiters.len(), 1);
    assert!(waiters[0].to_string().contains(&b.address()), "{waiters:?}");
}

#[test]
fn list_takes_a_prefix() {
    let server = Server::start();
    let mut client = server.message();
    for name in ["job/1", "job/2", "jobs", "task/1"] {
        client.lock(name);
    }
    assert_eq!(names(&client.call("list", json!({"prefix": "job/"}))), ["job/1", "job/2"]);
    assert_eq!(names(&client.call("list", json!({"prefix": "none"}))), [""; 0]);
    assert_eq!(names(&client.call("list", json!({"prefix": ""}))).len(), 4);
}

#[test]
fn list_goes_page_by_page_in_the_order_of_names() {
    let server = Server::start();
    let mut client = server.message();
    let mut expected: Vec<String> = (0..250).map(|n| format!("k{n}")).collect();
    for name in &expected {
        client.request_lock(name);
    }
    client.lock("another");
    expected.sort();
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let mut parameters = json!({"prefix": "k", "limit": 40});
        if let Some(name) = after {
            parameters["after"] = name;
        }
        let page = client.call("list", parameters);
        let page_names = names(&page);
        seen.extend(page_names.iter().map(|name| (*name).to_owned()));
        after = Some(json!(page_names.last()));
        if page["more"] == false {
            break;
        }
        assert_eq!(page_names.len(), 40);
    }
    assert_eq!(seen, expected);
}

#[test]
fn a_name_is_registered_for_every_protocol() {
    let server = Server::start();
    let (mut client, mut text) = (server.message(), server.glockd());
    assert_eq!(client.call("identify", json!({"name": "anna"}))["status"], "ok");
    client.lock("foo");
    assert_eq!(text.ask_all("who anna"), [format!("{}: anna\n", client.address())]);
    assert_eq!(text.ask_all("d foo"), ["foo: anna\n"]);
}

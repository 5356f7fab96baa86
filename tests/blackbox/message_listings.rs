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
fn list_shows_holders_and_waiters() {
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
fn list_shows_only_locks_with_waiters_if_asked_to() {
    let server = Server::start();
    let (mut a, mut b) = (server.message(), server.message());
    for name in ["c", "a", "b"] {
        a.lock(name);
    }
    for name in ["c", "a"] {
        b.request_lock(name);
        server.await_waiters(name, 1);
    }
    assert_eq!(names(&a.call("list", json!({"waiting": true}))), ["a", "c"]);
    assert_eq!(names(&a.call("list", json!({"waiting": false}))), ["a", "b", "c"]);
    let page = a.call("list", json!({"waiting": true, "limit": 1}));
    assert_eq!((names(&page), &page["more"]), (vec!["a"], &json!(true)));
    let page = a.call("list", json!({"waiting": true, "limit": 1, "after": "a"}));
    assert_eq!((names(&page), &page["more"]), (vec!["c"], &json!(false)));
    let told = a.call("list", json!({"waiting": "yes"}));
    assert_eq!(
        (&told["status"], &told["reason"]),
        (&json!("invalid"), &json!("waiting is neither true nor false"))
    );
}

#[test]
fn a_session_has_one_number_wherever_it_is_listed() {
    let server = Server::start();
    let (mut a, mut b) = (server.message(), server.message());
    a.lock("a");
    b.lock("b");
    a.request_lock("b");
    server.await_waiters("b", 1);
    let listing = b.call("list", json!({}));
    let number = |lock: usize, parties: &str| listing["locks"][lock][parties][0]["session"].as_u64().unwrap();
    assert_eq!(number(0, "holders"), number(1, "waiters"));
    assert_ne!(number(0, "holders"), number(1, "holders"));
    let features = b.call("hello", json!({}))["features"].as_array().unwrap().clone();
    assert!(["session", "waiting"].iter().all(|feature| features.contains(&json!(feature))), "{features:?}");
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

/// The maximum size of a page in bytes, and some more for what surrounds the locks.
const PAGE_BYTES: usize = (256 << 10) + 100;

/// A page of locks; asserts that it is not too long.
fn page(client: &mut FrameClient, parameters: &Value) -> Value {
    client.send(&json!({"command": "list", "parameters": parameters, "id": "page"}));
    let text = client.receive_text();
    assert!(text.len() <= PAGE_BYTES, "{} bytes", text.len());
    serde_json::from_str::<Value>(&text).unwrap()["result"].take()
}

#[test]
fn a_page_ends_when_it_has_become_long() {
    let server = Server::start();
    let mut client = server.message();
    assert_eq!(client.call("identify", json!({"name": "\u{1}".repeat(256)}))["status"], "ok");
    let expected: Vec<String> = (0..300).map(|n| format!("{n:03}{}", "\u{1}".repeat(1000))).collect();
    for name in &expected {
        assert_eq!(client.lock(name)["status"], "ok");
    }
    let (mut seen, mut pages) = (Vec::new(), 0);
    let mut parameters = json!({"limit": 1000});
    loop {
        let page = page(&mut client, &parameters);
        let page_names = names(&page);
        seen.extend(page_names.iter().map(|name| (*name).to_owned()));
        parameters["after"] = json!(page_names.last().expect("a page has a lock"));
        pages += 1;
        if page["more"] == false {
            break;
        }
    }
    assert_eq!(seen, expected);
    assert!(pages >= 8, "{pages} pages of 2.3 MB in all");
}

#[test]
fn a_lock_with_too_many_waiters_for_a_page_says_how_many_are_left_out() {
    const WAITERS: u64 = 300;
    let server = Server::start();
    let mut clients: Vec<FrameClient> = (0..=WAITERS).map(|_| server.message()).collect();
    for client in &mut clients {
        assert_eq!(client.call("identify", json!({"name": "\u{1}".repeat(256)}))["status"], "ok");
        client.request_lock("crowded");
    }
    let mut observer = server.message();
    assert_eq!(observer.lock("quiet")["status"], "ok");
    server.await_waiters("crowded", usize::try_from(WAITERS).unwrap());
    let first = page(&mut observer, &json!({}));
    let lock = &first["locks"][0];
    let shown = lock["waiters"].as_array().unwrap().len() as u64;
    assert!(shown > 100, "{shown}");
    assert_eq!(lock["moreWaiters"], WAITERS - shown);
    assert_eq!(lock["moreHolders"], Value::Null);
    // However much room is left on the page, the next lock is wholly on this page or on the next.
    let rest = page(&mut observer, &json!({"after": "crowded"}));
    assert_eq!((names(&rest), &rest["more"]), (vec!["quiet"], &json!(false)));
    assert_eq!(first["more"], names(&first).len() == 1);
    assert_eq!(rest["locks"][0]["moreWaiters"], Value::Null);
}

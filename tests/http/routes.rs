//! The paths, and that each shows what the server's clients hold and wait for.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::client::{get, launch, receive, send, start, tell};
use crate::support::server::{Launch, Server};

fn names(page: &Value) -> Vec<&str> {
    page["locks"].as_array().unwrap().iter().map(|lock| lock["lockName"].as_str().unwrap()).collect()
}

/// The content without what changes from moment to moment.
fn timeless(mut page: Value) -> Value {
    for lock in page["locks"].as_array_mut().unwrap() {
        for (parties, time) in [("holders", "heldFor"), ("waiters", "waitingFor")] {
            for party in lock[parties].as_array_mut().unwrap() {
                assert!(party[time].take().as_f64().unwrap() >= 0.0);
            }
        }
    }
    page
}

#[test]
fn every_path_has_the_right_content() {
    let server = start();
    for (path, status, content_type) in [
        ("/", 200, "text/html; charset=utf-8"),
        ("/?x", 200, "text/html; charset=utf-8"),
        ("/locks", 200, "application/json"),
        ("/history", 200, "application/json"),
        ("/cluster", 200, "application/json"),
        ("/history?after=5", 200, "application/json"),
        ("/metrics", 200, "text/plain; version=0.0.4; charset=utf-8"),
        ("/healthz", 200, "text/plain; charset=utf-8"),
        ("/locks/", 404, "text/plain; charset=utf-8"),
        ("//", 404, "text/plain; charset=utf-8"),
        ("/../etc/passwd", 404, "text/plain; charset=utf-8"),
        ("/locks?limit=0", 400, "text/plain; charset=utf-8"),
        ("/locks?prefix=%", 400, "text/plain; charset=utf-8"),
        ("/locks?name=x", 400, "text/plain; charset=utf-8"),
        ("/history?after=x", 400, "text/plain; charset=utf-8"),
    ] {
        let answer = get(&server, path);
        assert_eq!((answer.status, answer.header("content-type")), (status, Some(content_type)), "{path}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{path}");
        assert!(!policy.contains("unsafe"), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), None, "{path}");
    }
    assert_eq!(get(&server, "/healthz").body, "ok\n");
    assert_eq!(get(&server, "/cluster").body, r#"{"cluster":null}"#);
}

#[test]
fn a_head_request_gets_the_same_head_as_a_get() {
    let server = start();
    let mut socket = server.tcp("http");
    for path in ["/locks", "/healthz", "/nowhere"] {
        send(&mut socket, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let whole = receive(&mut socket, true).unwrap();
        send(&mut socket, format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(receive(&mut socket, false).unwrap().head, whole.head, "{path}");
    }
}

#[test]
fn only_reading_is_possible() {
    let server = start();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"] {
        let answer = tell(
            &server,
            format!("{method} /locks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"),
        );
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
}

#[test]
fn several_requests_come_on_one_connection_also_at_once() {
    let server = start();
    let mut socket = server.tcp("http");
    let one = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    send(&mut socket, one.repeat(50));
    for _ in 0..50 {
        assert_eq!(receive(&mut socket, true).unwrap().body, "ok\n");
    }
    send(&mut socket, one.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").repeat(2));
    assert_eq!(receive(&mut socket, true).unwrap().header("connection"), Some("close"));
    assert!(receive(&mut socket, true).is_none());
}

#[test]
fn the_locks_that_are_held_are_shown() {
    let server = start();
    let (mut holder, mut waiter, mut shared) = (server.message(), server.message(), server.message());
    holder.call("identify", json!({"name": "<b>bob</b>"}));
    for name in ["a", "b/1", "b/2", "b/3", "<script>alert(1)</script>"] {
        holder.try_lock(name);
    }
    holder.call("lock", json!({"lockNameHex": "ff00"}));
    shared.call("lock", json!({"lockName": "s", "mode": "shared"}));
    waiter.call("lock", json!({"lockName": "s", "mode": "shared"}));
    waiter.request_lock("b/2");
    server.await_waiters("b/2", 1);

    let mut listed = holder.call("list", json!({}));
    listed.as_object_mut().unwrap().remove("status");
    let seen = get(&server, "/locks").json();
    assert_eq!(seen["locks"].as_array().unwrap().len(), 7);
    assert_eq!(timeless(seen), timeless(listed));

    let page = |query: &str| get(&server, &format!("/locks?{query}")).json();
    assert_eq!(names(&page("prefix=b%2F&limit=2")), ["b/1", "b/2"]);
    assert_eq!(page("prefix=b%2F&limit=2")["more"], true);
    assert_eq!(names(&page("prefix=b%2F&limit=2&after=b/2")), ["b/3"]);
    assert_eq!(names(&page("prefix=%ff")), ["\u{fffd}\0"]);
    let waited_for = page("waiting=1");
    assert_eq!(names(&waited_for), ["b/2"]);
    assert_eq!(waited_for["locks"][0]["waiters"][0]["address"], waiter.address());
    assert_eq!(waited_for["locks"][0]["holders"][0]["name"], "<b>bob</b>");

    let mut text = server.glockd();
    text.ask("sg counted");
    assert_eq!(names(&page("space=counted")), ["counted"]);
    holder.unlock("a");
    assert_eq!(names(&page("prefix=a")), Vec::<&str>::new());
}

#[test]
fn without_listing_no_names_are_shown() {
    let server = launch().args(["--no-dump"]).start();
    server.message().try_lock("secret");
    for path in ["/locks", "/locks?waiting=1"] {
        let answer = get(&server, path);
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (403, "listing is disabled on this server (no-dump)\n")
        );
    }
    assert_eq!(get(&server, "/metrics").status, 200);
}

#[test]
fn a_server_in_its_grace_reports_it_and_is_healthy() {
    let state = tempfile::tempdir().unwrap();
    let launch = || launch().option("--state-dir", state.path().to_str().unwrap()).args(["--first-start"]);
    let mut server = launch().start();
    assert_eq!(get(&server, "/healthz").body, "ok\n");
    server.signal(Signal::KILL);
    server.wait();
    let server = launch().start();
    let answer = get(&server, "/healthz");
    assert_eq!(answer.status, 200);
    assert!(answer.body.starts_with("ok, but nothing is granted for another "), "{}", answer.body);
    assert!(!get(&server, "/metrics").body.contains("\nlockd_grace_seconds 0\n"));
}

#[test]
fn a_stop_does_not_wait_for_viewers() {
    let mut server = start();
    let (mut idle, mut slow) = (server.tcp("http"), server.tcp("http"));
    send(&mut idle, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    receive(&mut idle, true).unwrap();
    send(&mut slow, "GET / HT");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    assert!(receive(&mut idle, true).is_none());
}

#[test]
fn addresses_come_from_a_file_or_the_environment_too() {
    let listen = || Launch::new().listen("glockd://127.0.0.1:0").expecting(2);
    let launch = listen();
    let path = launch.path("lockd.toml");
    std::fs::write(&path, "http = ['127.0.0.1:0', '[::1]:0']\nhttp-host = ['locks.example']").unwrap();
    let from_file = launch.option("--config", path.to_str().unwrap()).start();
    let from_environment = listen()
        .env("LOCKD_HTTP", "127.0.0.1:0,localhost:0")
        .env("LOCKD_HTTP_HOST", "a.example,locks.example")
        .start();
    for server in [from_file, from_environment] {
        let https =
            |server: &Server| server.endpoints().iter().filter(|(scheme, _)| scheme == "http").count();
        assert_eq!(https(&server), 2);
        let answer = crate::client::ask(&server, "/healthz", "Host: locks.example\n");
        assert_eq!(answer.status, 200);
    }
}

#[test]
fn an_address_that_is_taken_is_named() {
    let server = start();
    let taken = server.endpoints().iter().find(|(scheme, _)| scheme == "http").unwrap().1.clone();
    let crate::support::socket::Endpoint::Tcp(taken) = taken else { panic!("{taken:?}") };
    let launch = Launch::new().option("--listen", "glockd://127.0.0.1:0");
    let (status, log) = launch.option("--http", &taken.to_string()).run();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains(&format!("http://{taken}: ")), "{log}");
}

//! What one client could make the server keep, or write at once, if there were no limit: each is
//! refused with a reason, or is sent in parts.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::hoards::hold;
use crate::support::eventually;
use crate::support::frame_client::FrameClient;
use crate::support::line_client::LineClient;
use crate::support::server::{Launch, Server};
use crate::vitals::{Vitals, forget_peak, peak_kib};
use rustix::process::geteuid;
use serde_json::{Value, json};

#[test]
fn ids_of_waiting_requests_are_limited() {
    let server = Server::start();
    let (mut holder, mut client) = (server.message(), server.message());
    assert_eq!(holder.lock("foo")["status"], "ok");
    let long = "i".repeat(100_000);
    for parameters in [
        json!({"lockName": "foo"}),
        json!({"lockName": "foo", "timeLimit": 5}),
        json!({"lockNames": ["foo", "bar"]}),
    ] {
        client.send(&json!({"command": "lock", "parameters": parameters, "id": long}));
        let reply = client.receive();
        assert_eq!(
            (&reply["id"], &reply["result"]["status"]),
            (&json!(long), &json!("refused")),
            "{parameters}"
        );
        assert!(reply["result"]["reason"].as_str().is_some_and(|reason| reason.contains("id")));
    }
    server.await_waiters("foo", 0);
    // A request that does not wait is not kept.
    client.send(&json!({"command": "lock", "parameters": {"lockName": "free"}, "id": long}));
    assert_eq!(client.receive()["result"]["status"], "ok");
    let id = "i".repeat(4000);
    client.send(&json!({"command": "lock", "parameters": {"lockName": "foo"}, "id": id}));
    server.await_waiters("foo", 1);
    assert_eq!(holder.unlock("foo")["result"], "ok");
    assert_eq!(client.receive()["id"], json!(id));
}

#[test]
fn a_page_ends_after_many_holders() {
    const HOLDERS: usize = 100;
    const NAMES: usize = 200;
    let server = Server::start();
    let names: Vec<String> = (0..NAMES).map(|name| format!("page {name:03}")).collect();
    let wants: Vec<Value> = names.iter().map(|name| json!({"lockName": name, "mode": "shared"})).collect();
    let mut holders: Vec<FrameClient> = (0..HOLDERS).map(|_| server.message()).collect();
    for holder in &mut holders {
        assert_eq!(holder.call("lock", json!({ "lockNames": wants }))["status"], "ok");
    }
    let (mut observer, mut listed, mut pages) = (server.message(), Vec::new(), 0);
    loop {
        let after = listed.last().cloned().unwrap_or_default();
        let page = observer.call("list", json!({"prefix": "page", "limit": 1000, "after": after}));
        let locks = page["locks"].as_array().unwrap();
        assert!(locks.iter().all(|lock| lock["holders"].as_array().unwrap().len() == HOLDERS));
        let shown: usize = locks.len() * HOLDERS;
        assert!(shown <= 10_000, "{shown} holders on one page");
        listed.extend(locks.iter().map(|lock| lock["lockName"].as_str().unwrap().to_owned()));
        pages += 1;
        if page["more"] == false {
            break;
        }
    }
    assert_eq!(listed, names);
    assert!(pages > 1);
}

#[test]
fn full_statistics_are_sent_in_parts_as_they_are_made() {
    const LOCKS: usize = 100_000;
    let server = Server::start();
    let mut holder = server.lockd();
    hold(&mut holder, LOCKS);
    forget_peak(&server);
    let before = Vitals::of(&server).resident_kib;
    // More than fits into the sockets' buffers, and the client does not read.
    let deaf: Vec<_> = (0..8)
        .map(|_| {
            let socket = server.unix("lockd");
            (&socket).write_all(b"q full\n").unwrap();
            socket
        })
        .collect();
    eventually("all have something to read", || {
        deaf.iter()
            .all(|socket| socket.peek(&mut [std::mem::MaybeUninit::uninit(); 1000]).is_ok_and(|n| n > 900))
    });
    for socket in deaf.iter().skip(1) {
        // Long enough for the whole reply to be made, if the server makes it at once.
        socket.shutdown(std::net::Shutdown::Write).unwrap();
    }
    let mut reader = LineClient::new(server.lockd().into_socket());
    let lines = reader.ask_all("q full");
    assert!(lines.len() > LOCKS, "{}", lines.len());
    let growth = peak_kib(&server).saturating_sub(before);
    assert!(growth < 10 << 10, "{growth} KiB more for nine listings of {LOCKS} locks");
}

/// The user that a server started by root runs as, because the limit on threads does not apply to
/// root.
const NOBODY: &str = "nobody";

/// Sets how many threads the server's user may have for the server to start one more. Runs as that
/// user, who may not have the right to do so for others.
fn limit_threads(server: &Server, limit: &str) {
    let mut command = Command::new("prlimit");
    command.args(["--pid", &server.pid().to_string(), &format!("--nproc={limit}:")]);
    if geteuid().is_root() {
        let id = |option: &str| {
            let output = Command::new("id").args([option, NOBODY]).output().unwrap().stdout;
            String::from_utf8(output).unwrap().trim().parse().unwrap()
        };
        command.uid(id("-u")).gid(id("-g"));
    }
    assert!(command.status().unwrap().success());
}

/// The answer to a new client, or nothing if there is none.
fn try_to_be_served(server: &Server) -> Option<String> {
    let mut client = server.lockd();
    // The server may refuse the client before or after it has written.
    let _ = client.socket().send(b"i nobody's\n");
    client.read_line_or_end()
}

#[test]
fn without_threads_new_clients_are_refused_and_connected_ones_served() {
    let mut launch = Launch::everywhere();
    if geteuid().is_root() {
        launch = launch.option("--user", NOBODY);
    }
    let server = launch.start();
    let (mut text, mut message) = (server.glockd(), server.message());
    assert!(text.ask("g foo").starts_with('1') && message.is_served());
    limit_threads(&server, "1");
    for _ in 0..50 {
        let told = try_to_be_served(&server);
        assert!(told.is_none_or(|told| told == "0 Refused: out of resources\r\n"));
    }
    assert!(text.ask("i foo").starts_with('1') && message.is_served());
    let descriptors = server.descriptors();
    limit_threads(&server, "10000");
    eventually("others are served again", || {
        try_to_be_served(&server).is_some_and(|told| told == "0 Not Locked\r\n")
    });
    eventually("nothing is left of those turned away", || server.descriptors() <= descriptors);
}

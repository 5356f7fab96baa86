//! Clients that are slow, silent, many, never read, or send no valid request: each gets an answer
//! or is closed, and delays no other.

use std::io::{Read, Write};

use serde_json::json;
use socket2::Socket;

use crate::client::{get, receive, send, start, tell};
use crate::support::server::Server;
use crate::support::{eventually, socket};

/// The number of connections that are served at once.
const CONNECTIONS_MAX: usize = 64;

/// Asserts that other clients are served meanwhile.
fn assert_calm(server: &Server) {
    assert_eq!(get(server, "/healthz").status, 200);
    let mut client = server.message();
    assert_eq!(client.try_lock("calm")["status"], "ok");
    client.unlock("calm");
}

/// Waits until only the asking client is connected.
fn await_the_end_of_others(server: &Server) {
    eventually("they are gone", || get(server, "/metrics").body.contains("\nlockd_http_connections 1\n"));
}

#[test]
fn malformed_requests_are_refused() {
    let server = start();
    for garbage in [
        &b"\0\xff\xfe garbage\r\n\r\n"[..],
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /locks HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"{\"command\":\"lock\"}\r\n\r\n",
    ] {
        let answer = tell(&server, garbage);
        let shown = garbage.escape_ascii();
        assert_eq!((answer.status, answer.header("connection")), (400, Some("close")), "{shown}");
    }
    assert_calm(&server);
}

#[test]
fn a_request_that_is_too_large_is_refused_and_the_reply_arrives() {
    let server = start();
    let start = "GET / HTTP/1.1\r\nHost: localhost\r\n";
    for large in [
        format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(100_000)),
        format!("{start}X: {}\r\n\r\n", "x".repeat(100_000)),
        format!("{start}{}\r\n", "X: x\r\n".repeat(100)),
        "x".repeat(100_000),
    ] {
        assert_eq!(tell(&server, large).status, 431);
    }
    assert_calm(&server);
}

#[test]
fn a_slow_or_silent_client_delays_no_other_and_is_disconnected() {
    let server = start();
    let silent: Vec<Socket> = (0..20).map(|_| server.tcp("http")).collect();
    let mut slow: Vec<Socket> = (0..20).map(|_| server.tcp("http")).collect();
    slow.iter_mut().for_each(|socket| send(socket, "GET / HTTP/1.1\r\nHo"));
    assert_calm(&server);
    for mut socket in slow {
        let answer = receive(&mut socket, true).expect("a word of why");
        assert_eq!(answer.status, 408);
    }
    for mut socket in silent {
        assert!(receive(&mut socket, true).is_none());
    }
    await_the_end_of_others(&server);
}

#[test]
fn a_byte_now_and_then_does_not_extend_the_deadline() {
    let server = start();
    let mut slow = server.tcp("http");
    send(&mut slow, "GET / HTTP/1.1\r\nX: ");
    slow.set_nonblocking(true).unwrap();
    let mut byte = [0];
    eventually("it is told that it is late", || {
        // This fails if the server has ended the connection; then there is an answer to read.
        let _ = slow.write(b"x");
        slow.read(&mut byte).is_ok_and(|read| read == 1)
    });
    assert_eq!(&byte, b"H");
}

#[test]
fn a_client_that_does_not_read_delays_no_other_and_is_disconnected() {
    let server = start();
    let mut holder = server.message();
    for number in 0..1000 {
        let name = format!("{number:01000}");
        assert_eq!(holder.call("lock", json!({"lockName": name}))["status"], "ok");
    }
    let deaf: Vec<Socket> = (0..10)
        .map(|_| {
            let mut socket = server.tcp("http");
            let request = "GET /locks?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
            send(&mut socket, request.repeat(20));
            socket
        })
        .collect();
    assert_calm(&server);
    await_the_end_of_others(&server);
    drop(deaf);
}

/// Opens connections at once, each of which has been answered and then stays silent.
fn idle_guests(server: &Server) -> Vec<Socket> {
    let mut guests: Vec<Socket> = (0..CONNECTIONS_MAX).map(|_| server.tcp("http")).collect();
    for guest in &mut guests {
        send(guest, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(receive(guest, true).expect("there is room").status, 200);
    }
    guests
}

#[test]
fn a_newcomer_is_answered_in_place_of_the_one_that_has_been_idle_longest() {
    let server = start();
    let mut guests = idle_guests(&server);
    let mut newcomer = server.tcp("http");
    send(&mut newcomer, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(receive(&mut newcomer, true).expect("an answer").status, 200);
    assert!(receive(&mut guests[0], true).is_none(), "it has made room");
    drop((guests, newcomer));
    await_the_end_of_others(&server);
    assert_calm(&server);
}

#[test]
fn health_is_reported_whatever_else_is_connected() {
    let server = start();
    // Some are idle, some send half a request, and some do not read the answer.
    let mut holder = server.message();
    for number in 0..1000 {
        assert_eq!(holder.call("lock", json!({"lockName": format!("{number:01000}")}))["status"], "ok");
    }
    let words = ["", "GET /lo", "GET /locks?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n"];
    let others: Vec<Socket> = (0..3 * CONNECTIONS_MAX)
        .map(|number| {
            let mut socket = server.tcp("http");
            // Older connections may have been displaced.
            let _ = socket.write_all(words[number % words.len()].repeat(20).as_bytes());
            socket
        })
        .collect();
    for _ in 0..10 {
        assert_eq!(get(&server, "/healthz").status, 200);
    }
    drop(others);
    await_the_end_of_others(&server);
}

#[test]
fn many_come_and_go() {
    let server = start();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for round in 0..50 {
                    let mut socket = server.tcp("http");
                    if round % 3 == 0 {
                        send(&mut socket, "GET /lo");
                        socket::reset(socket);
                        continue;
                    }
                    send(&mut socket, "GET /locks HTTP/1.1\r\nHost: localhost\r\n\r\n");
                    assert_eq!(receive(&mut socket, true).unwrap().status, 200);
                }
            });
        }
    });
    await_the_end_of_others(&server);
    assert_calm(&server);
}

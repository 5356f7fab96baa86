//! glockd in WebSocket.

use std::io::{Read, Write};
use std::time::Duration;

use socket2::Socket;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message};

use crate::authority::Authority;
use crate::clients::{GOT, HOST, RELEASED, WsLines, address};
use crate::support::eventually;
use crate::support::server::{Launch, Server};

fn serve(more: &[&str]) -> Server {
    ["glockd+ws", "glockd", "message"]
        .into_iter()
        .fold(Launch::new(), |launch, protocol| launch.listen(&format!("{protocol}://127.0.0.1:0")))
        .args(more.iter().copied())
        .start()
}

#[test]
fn lines_come_and_go_as_messages() {
    let server = serve(&[]);
    let mut client = WsLines::new(&server);
    assert_eq!(client.ask("g x"), GOT);
    assert_eq!(client.ask("g x\n"), GOT);
    // Several in one message, and one in several frames' worth of bytes.
    client.send("i x\r\nr x\ng y");
    assert_eq!(client.line(), "1 Lock Is Locked: x\r\n");
    assert_eq!(client.line(), RELEASED);
    assert_eq!(client.line(), "1 Lock Get Success: y\r\n");
    client.send("");
    client.0.send(Message::binary(&b"g \xff"[..])).unwrap();
    assert_eq!(client.0.read().unwrap(), Message::binary(&b"1 Lock Get Success: \xff\r\n"[..]));
    // A reply of many lines is as many messages.
    client.send("q");
    let counters: Vec<String> = (0..19).map(|_| client.line()).collect();
    assert!(
        counters.iter().all(|line| line.contains(": ") && line.matches('\n').count() == 1),
        "{counters:?}"
    );
    let long = "x".repeat(5000);
    assert_eq!(client.ask(&format!("g {long}")), "0 Line Too Long\r\n");
    assert_eq!(client.ask("g z"), "1 Lock Get Success: z\r\n");
}

#[test]
fn what_comes_with_the_request_for_a_websocket_counts_also_if_it_is_the_end() {
    let server = serve(&[]);
    let mut socket = server.tcp("glockd+ws");
    let mut bytes = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .to_vec();
    // A text and a close, each with a mask of zeros.
    bytes.extend(b"\x81\x87\0\0\0\0g early\x88\x80\0\0\0\0");
    socket.write_all(&bytes).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("1 Lock Get Success: early"), "{answer:?}");
    server.await_free("early");
}

#[test]
fn a_grant_comes_from_whoever_releases() {
    let server = serve(&[]);
    let (mut waiter, mut holder) = (WsLines::new(&server), server.glockd());
    for _ in 0..50 {
        assert_eq!(holder.ask("g x"), GOT);
        waiter.send("gw - x");
        // What stands behind the wait comes after it.
        waiter.send("r x");
        server.await_waiters("x", 1);
        assert_eq!(holder.ask("r x"), RELEASED);
        assert_eq!(waiter.line(), GOT);
        assert_eq!(waiter.line(), RELEASED);
    }
}

#[test]
fn pings_are_answered_also_while_a_request_waits() {
    let server = serve(&[]);
    let (mut client, mut holder) = (WsLines::new(&server), server.glockd());
    let ping = |client: &mut WsLines<Socket>| {
        client.0.send(Message::Ping(b"are you there?"[..].into())).unwrap();
        assert_eq!(client.0.read().unwrap(), Message::Pong(b"are you there?"[..].into()));
    };
    ping(&mut client);
    assert_eq!(holder.ask("g x"), GOT);
    client.send("gw - x");
    client.send("i x");
    server.await_waiters("x", 1);
    ping(&mut client);
    client.0.send(Message::Pong(b"unasked"[..].into())).unwrap();
    assert_eq!(holder.ask("r x"), RELEASED);
    assert_eq!(client.line(), GOT);
    assert_eq!(client.line(), "1 Lock Is Locked: x\r\n");
}

#[test]
fn an_end_is_answered_and_frees_the_locks_whatever_kind_it_is() {
    let server = serve(&[]);
    let mut polite = WsLines::new(&server);
    assert_eq!(polite.ask("g x"), GOT);
    let frame = CloseFrame { code: CloseCode::Away, reason: "bye".into() };
    polite.0.close(Some(frame)).unwrap();
    match polite.0.read() {
        Ok(Message::Close(Some(frame))) => assert_eq!(frame.code, CloseCode::Away),
        other => panic!("{other:?}"),
    }
    assert!(matches!(polite.0.read(), Err(Error::ConnectionClosed)));
    server.await_free("x");
    let mut abrupt = WsLines::new(&server);
    assert_eq!(abrupt.ask("g x"), GOT);
    abrupt.0.get_ref().set_linger(Some(Duration::ZERO)).unwrap();
    drop(abrupt);
    server.await_free("x");
}

#[test]
fn who_breaks_the_rules_is_told_and_loses_its_locks() {
    let server = serve(&[]);
    let text_of_no_characters = b"\x81\x82\0\0\0\0\xff\xff";
    let without_mask = b"\x81\x03g y";
    for (bytes, code) in [(&text_of_no_characters[..], 1007_u16), (without_mask, 1002)] {
        let mut client = WsLines::new(&server);
        assert_eq!(client.ask("g x"), GOT);
        client.0.get_mut().write_all(bytes).unwrap();
        match client.0.read() {
            Ok(Message::Close(Some(frame))) => assert_eq!(u16::from(frame.code), code),
            other => panic!("{other:?}"),
        }
        server.await_free("x");
    }
    assert_eq!(WsLines::new(&server).ask("g x"), GOT);
}

/// The status of the answer to such a request.
fn status(server: &Server, host: &str, more: &str) -> String {
    let mut socket = server.tcp("glockd+ws");
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    );
    socket.write_all(request.as_bytes()).unwrap();
    let mut head = [0; 12];
    socket.read_exact(&mut head).unwrap();
    String::from_utf8(head[9..].to_vec()).unwrap()
}

#[test]
fn pages_from_elsewhere_are_kept_out() {
    let server = serve(&["--ws-origin", "https://locks.example"]);
    let host = address(&server, "glockd+ws").to_string();
    assert_eq!(status(&server, &host, ""), "101");
    assert_eq!(status(&server, &host, &format!("Origin: http://{host}\r\n")), "101");
    assert_eq!(status(&server, &host, "Origin: https://locks.example\r\n"), "101");
    assert_eq!(status(&server, "locks.example", ""), "101");
    assert_eq!(status(&server, &host, "Origin: https://evil.example\r\n"), "403");
    eventually("it is logged", || {
        let log = server.log();
        log.iter().any(|line| {
            line.contains("WARN") && line.contains("evil.example") && line.contains("--ws-origin")
        })
    });
    assert_eq!(status(&server, &host, "Origin: null\r\n"), "403");
    assert_eq!(status(&server, "evil.example", "Origin: https://evil.example\r\n"), "403");
    let mut observer = server.message();
    // Those that were let in have hung up, which the server may see later.
    eventually("nobody else has a session", || {
        observer.call("stats", serde_json::json!({}))["sessions"] == 1
    });
    let (status, log) = Launch::new().option("--ws-origin", "locks.example").run();
    assert!(status.code() == Some(2) && log.contains("ws-origin"), "{log}");
}

#[test]
fn what_is_no_websocket_is_answered_in_http() {
    let server = serve(&[]);
    for (request, status) in [("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "426"), ("g x\r\n\r\n", "400")] {
        let mut socket = server.tcp("glockd+ws");
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    assert_eq!(WsLines::new(&server).ask("g x"), GOT);
}

#[test]
fn too_many_are_told_so_in_http() {
    let server = serve(&["--connections-max", "1"]);
    let _one = WsLines::new(&server);
    let mut socket = server.tcp("glockd+ws");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("too many connections"), "{answer}");
}

#[test]
fn a_flood_of_pings_is_not_gathered() {
    let server = serve(&[]);
    let (client, mut holder) = (WsLines::new(&server), server.glockd());
    assert_eq!(holder.ask("g x"), GOT);
    let mut socket = client.0.get_ref();
    // A request that waits and one behind it: then nothing that comes waits for an answer to be read.
    let masked = |first: u8, payload: &[u8]| {
        let length = 0x80 | u8::try_from(payload.len()).unwrap();
        [&[first, length, 0, 0, 0, 0][..], payload].concat()
    };
    socket.write_all(&masked(0x81, b"gw - x\ni x\n")).unwrap();
    server.await_waiters("x", 1);
    let before = server.resident_kib();
    let pings = masked(0x89, &[b'p'; 125]).repeat(1000);
    for _ in 0..200 {
        socket.write_all(&pings).unwrap();
    }
    let growth = server.resident_kib().saturating_sub(before);
    assert!(growth < 16 * 1024, "{growth} KiB more");
    assert_eq!(holder.ask("r x"), RELEASED);
    // It is still served, once it reads what it asked for.
    let mut client = client;
    loop {
        match client.0.read().unwrap() {
            Message::Pong(_) => {}
            other => break assert_eq!(other, Message::text(GOT)),
        }
    }
}

#[test]
fn websocket_goes_through_tls() {
    let authority = Authority::new();
    let server = Launch::new()
        .listen("glockd+ws+tls://127.0.0.1:0")
        .listen("glockd://127.0.0.1:0")
        .listen("message://127.0.0.1:0")
        .certified(&authority.issue(HOST))
        .start();
    let (mut client, mut holder) = (WsLines::new_in_tls(&server, &authority.ca()), server.glockd());
    assert_eq!(holder.ask("g x"), GOT);
    client.send("gw - x");
    server.await_waiters("x", 1);
    assert_eq!(holder.ask("r x"), RELEASED);
    assert_eq!(client.line(), GOT);
    client.0.send(Message::Ping(b"?"[..].into())).unwrap();
    assert_eq!(client.0.read().unwrap(), Message::Pong(b"?"[..].into()));
    client.0.close(None).unwrap();
    assert!(matches!(client.0.read(), Ok(Message::Close(_))));
    server.await_free("x");
}

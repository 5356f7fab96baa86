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
fn each_message_is_answered_by_one() {
    let server = serve(&[]);
    let mut client = WsLines::new(&server);
    assert_eq!(client.ask("g x"), GOT);
    assert_eq!(client.ask("g x\n"), GOT);
    // The replies to several requests in one message come in one.
    assert_eq!(
        client.ask("i x\r\nr x\n\nnonsense\ng y"),
        "1 Lock Is Locked: x\r\n1 Lock Release Success: x\r\n1 Lock Get Success: y\r\n"
    );
    client.0.send(Message::binary(&b"g \xff"[..])).unwrap();
    assert_eq!(client.0.read().unwrap(), Message::binary(&b"1 Lock Get Success: \xff\r\n"[..]));
    let long = "x".repeat(5000);
    assert_eq!(client.ask(&format!("g {long}")), "0 Line Too Long\r\n");
    assert_eq!(client.ask(&format!("xx\ng {long}\n\ng z")), "0 Line Too Long\r\n1 Lock Get Success: z\r\n");
    let counters = client.ask("q");
    assert_eq!(counters.lines().count(), 19, "{counters}");
    assert!(counters.contains("\ninvalid_commands: 4\n"), "{counters}");
}

/// Otherwise a client that reads one message for each that it sends would take a line of a listing,
/// which may begin with any number, for the reply to its next request.
#[test]
fn a_message_without_a_reply_is_answered_by_an_empty_message() {
    let server = serve(&[]);
    let (mut holder, mut client) = (WsLines::new(&server), WsLines::new(&server));
    for silent in ["xx", "", "\n", "\r\n \n", "d", "d nix", "sd", "who", "who nobody"] {
        assert_eq!(client.ask(silent), "", "{silent:?}");
    }
    assert_eq!(holder.ask("g 42"), "1 Lock Get Success: 42\r\n");
    assert_eq!(holder.ask("g 43"), "1 Lock Get Success: 43\r\n");
    let listing = client.ask("d");
    assert_eq!(client.ask("g 42"), "0 Lock Get Failure: 42\r\n");
    let mut lines: Vec<&str> = listing.lines().collect();
    lines.sort_unstable();
    assert!(matches!(lines[..], [first, second] if first.starts_with("42: ") && second.starts_with("43: ")));
    // Pipelined: as many replies as messages, in order.
    for message in ["g 42", "d 43", "nonsense", "i 44", "", "me"] {
        client.send(message);
    }
    assert_eq!(client.line(), "0 Lock Get Failure: 42\r\n");
    assert!(client.line().starts_with("43: "));
    assert_eq!(client.line(), "");
    assert_eq!(client.line(), "0 Lock Not Locked: 44\r\n");
    assert_eq!(client.line(), "");
    assert!(client.line().starts_with("1 "));
}

/// The reply to a request that waits belongs to the message that contained the request.
#[test]
fn a_late_reply_is_in_the_reply_to_its_message() {
    let server = serve(&[]);
    let (mut waiter, mut holder) = (WsLines::new(&server), server.glockd());
    for _ in 0..20 {
        assert_eq!(holder.ask("g x"), GOT);
        waiter.send("i x\nxx\ngw - x\nr x\ngw 0 y");
        waiter.send("d x");
        waiter.send("r y");
        server.await_waiters("x", 1);
        assert_eq!(holder.ask("r x"), RELEASED);
        assert_eq!(waiter.line(), format!("1 Lock Is Locked: x\r\n{GOT}{RELEASED}1 Lock Get Success: y\r\n"));
        assert_eq!(waiter.line(), "");
        assert_eq!(waiter.line(), "1 Lock Release Success: y\r\n");
        // A request that times out, as the last one in its message.
        assert_eq!(holder.ask("g x"), GOT);
        assert_eq!(waiter.ask("i x\ngw 0.01 x"), "1 Lock Is Locked: x\r\n0 Lock Get Failure: x\r\n");
        // The end of the message comes while the request in it waits.
        waiter.send_frame(0x01, b"gw - x\n");
        server.await_waiters("x", 1);
        waiter.send_frame(0x80, b"");
        assert_eq!(holder.ask("r x"), RELEASED);
        assert_eq!(waiter.line(), GOT);
        // The reply comes when the wait is over, and not before.
        waiter.send_frame(0x01, b"gw 5 x\ni x\n");
        waiter.send_frame(0x00, b"r x");
        waiter.send_frame(0x80, b"\nxx");
        assert_eq!(waiter.line(), format!("{GOT}1 Lock Is Locked: x\r\n{RELEASED}"));
    }
}

/// The server keeps no more than this, however much there is to list; a client still sees one
/// message.
#[test]
fn a_long_reply_is_one_message_in_several_frames() {
    let server = serve(&[]);
    let (mut client, mut holder) = (WsLines::new(&server), server.glockd());
    let name = |number: u32| format!("{number:04}{}", "n".repeat(500));
    for number in 0..2000 {
        assert!(holder.ask(&format!("g {}", name(number))).starts_with('1'));
    }
    client.send("me\nd\ni x");
    client.send("dump");
    let listing = client.line();
    assert_eq!(listing.lines().count(), 2002);
    assert!(listing.starts_with("1 127.0.0.1:") && listing.ends_with("\n0 Lock Not Locked: x\r\n"));
    let mut locks: Vec<&str> = listing.lines().skip(1).take(2000).map(|line| &line[..4]).collect();
    locks.sort_unstable();
    assert!(locks.iter().map(|lock| lock.parse::<u32>().unwrap()).eq(0..2000));
    let dump = client.line();
    assert!(dump.starts_with("map[") && dump.ends_with("]\r\n") && dump.len() > 1_000_000);
    assert_eq!(client.ask("i x"), "0 Lock Not Locked: x\r\n");
}

#[test]
fn data_sent_with_the_websocket_request_counts_even_if_the_end_follows() {
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
fn a_release_in_another_transport_grants_to_a_websocket_waiter() {
    let server = serve(&[]);
    let (mut waiter, mut holder) = (WsLines::new(&server), server.glockd());
    for _ in 0..50 {
        assert_eq!(holder.ask("g x"), GOT);
        waiter.send("gw - x");
        // The requests after the waiting one are answered after it.
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
fn a_client_that_breaks_the_protocol_is_told_and_loses_its_locks() {
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

/// The HTTP status of the answer to such a request.
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
fn pages_of_other_sites_are_refused() {
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
    // The accepted clients have disconnected, which the server may notice later.
    eventually("nobody else has a session", || {
        observer.call("stats", serde_json::json!({}))["sessions"] == 1
    });
    let (status, log) = Launch::new().option("--ws-origin", "locks.example").run();
    assert!(status.code() == Some(2) && log.contains("ws-origin"), "{log}");
}

#[test]
fn requests_for_no_websocket_are_answered_in_http() {
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
fn connections_over_the_limit_are_refused_in_http() {
    let server = serve(&["--connections-max", "1"]);
    let _one = WsLines::new(&server);
    let mut socket = server.tcp("glockd+ws");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("too many connections"), "{answer}");
}

#[test]
fn a_flood_of_pings_is_not_buffered() {
    let server = serve(&[]);
    let (client, mut holder) = (WsLines::new(&server), server.glockd());
    assert_eq!(holder.ask("g x"), GOT);
    let mut socket = client.0.get_ref();
    // A request that waits and one after it: then no incoming message depends on answers being
    // read.
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
    // The client is still served once it reads its answers.
    let mut client = client;
    loop {
        match client.0.read().unwrap() {
            Message::Pong(_) => {}
            other => break assert_eq!(other, Message::text(format!("{GOT}1 Lock Is Locked: x\r\n"))),
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

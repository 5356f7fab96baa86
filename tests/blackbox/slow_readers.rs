//! Clients that send and never read: only they stall or are cut off, and memory is bounded.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::eventually;
use crate::support::frame_client::{FrameClient, frame};
use crate::support::line_client::LineClient;
use crate::support::server::Server;
use crate::support::socket::Endpoint;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use serde_json::json;
use socket2::{Domain, Socket, Type};

/// Writes until the server takes no more for a while, ends the connection, or has taken everything.
fn send_without_reading(socket: &Socket, request: &[u8], times: usize) {
    socket.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut writer = socket;
    for _ in 0..times {
        if writer.write_all(request).is_err() {
            break;
        }
    }
}

fn assert_others_are_served(server: &Server) {
    let (mut text, mut message) = (server.glockd(), server.message());
    for n in 0..50 {
        assert_eq!(text.ask("g others"), "1 Lock Get Success: others\r\n", "round {n}");
        assert_eq!(message.try_lock("others")["status"], "timeout");
        assert_eq!(text.ask("r others"), "1 Lock Release Success: others\r\n");
    }
}

#[track_caller]
fn assert_memory_is_bounded(server: &Server, before_kib: u64) {
    // A sanitizer keeps freed memory for a while and pads allocations; that is not the server's
    // memory use.
    if std::env::var_os("SANITIZED_PROGRAM").is_some() {
        return;
    }
    let growth = server.resident_kib().saturating_sub(before_kib);
    assert!(growth < 16 * 1024, "{growth} KiB more");
}

/// A client that holds a thousand locks, so that their listing is long.
fn holder_of_a_thousand(server: &Server) -> LineClient {
    let mut holder = server.lockd();
    holder.send((0..1000).map(|n| format!("g a name of some length, number {n}\n")).collect::<String>());
    for _ in 0..1000 {
        assert_eq!(holder.line(), "1 Got Lock\r\n");
    }
    holder
}

#[test]
fn a_client_that_never_reads_long_listings_delays_no_other() {
    let server = Server::start();
    let mut holder = holder_of_a_thousand(&server);
    let before = server.resident_kib();
    let greedy: Vec<Socket> = ["d\n", "dump\n", "q\nd\n"]
        .iter()
        .flat_map(|request| {
            [server.tcp("glockd"), server.unix("glockd")].map(|socket| {
                send_without_reading(&socket, request.as_bytes(), 1000);
                socket
            })
        })
        .collect();
    assert_others_are_served(&server);
    assert_eq!(holder.ask("r a name of some length, number 0"), "1 Released Lock\r\n");
    assert_memory_is_bounded(&server, before);
    drop(greedy);
}

#[test]
fn a_client_that_never_reads_the_full_statistics_delays_no_other() {
    let server = Server::start();
    let _holder = holder_of_a_thousand(&server);
    let before = server.resident_kib();
    let greedy = server.unix("lockd");
    send_without_reading(&greedy, b"q full\n", 500);
    assert_others_are_served(&server);
    assert_memory_is_bounded(&server, before);
}

#[test]
fn a_client_that_never_reads_long_messages_delays_no_other() {
    let server = Server::start();
    let _holder = holder_of_a_thousand(&server);
    let before = server.resident_kib();
    let list = frame(r#"{"command":"list","parameters":{"limit":1000},"id":1}"#);
    let ping = frame(json!({"command": "ping", "parameters": "x".repeat(100_000), "id": 1}).to_string());
    let greedy: Vec<Socket> = [list, ping]
        .iter()
        .flat_map(|request| {
            [server.tcp("message"), server.unix("message")].map(|socket| {
                send_without_reading(&socket, request, 300);
                socket
            })
        })
        .collect();
    assert_others_are_served(&server);
    assert_memory_is_bounded(&server, before);
    drop(greedy);
}

#[test]
fn a_client_that_reads_late_still_gets_short_replies_in_order() {
    let server = Server::start();
    let mut client = LineClient::new(server.unix("glockd"));
    // A thousand replies fit into any socket's buffers.
    client.send((0..1000).map(|n| format!("g k{n}\n")).collect::<String>());
    assert_others_are_served(&server);
    for n in 0..1000 {
        assert_eq!(client.line(), format!("1 Lock Get Success: k{n}\r\n"));
    }
}

#[test]
fn grants_to_a_client_that_never_reads_delay_neither_the_releaser_nor_the_next() {
    const NAMES: usize = 2000;
    let server = Server::with(&["--waits-per-connection-max", "2000", "--outbox-max", "262144"]);
    let mut holder = server.message();
    for n in 0..NAMES {
        assert_eq!(holder.lock(&format!("k{n}"))["status"], "ok");
    }
    // The grants repeat these ids, which are far more bytes than the socket and the send queue can
    // take.
    let greedy = server.unix("message");
    let mut writer = &greedy;
    for n in 0..NAMES {
        let id = format!("{n} {}", "i".repeat(2000));
        let request = json!({"command": "lock", "parameters": {"lockName": format!("k{n}")}, "id": id});
        writer.write_all(&frame(request.to_string())).unwrap();
    }
    server.await_waiters(&format!("k{}", NAMES - 1), 1);
    let before = server.resident_kib();
    for n in 0..NAMES {
        assert_eq!(holder.unlock(&format!("k{n}"))["result"], "ok");
    }
    assert_others_are_served(&server);
    assert_memory_is_bounded(&server, before);
    // If it was cut off it has ended already, otherwise it ends now. Either way its locks are free.
    drop(greedy);
    for n in [0, NAMES / 2, NAMES - 1] {
        server.await_free(&format!("k{n}"));
    }
}

#[test]
fn a_client_that_is_cut_off_frees_its_locks() {
    let server = Server::with(&["--outbox-max", "65536"]);
    let mut greedy = FrameClient::new(server.unix("message"));
    assert_eq!(greedy.lock("foo")["status"], "ok");
    let (mut holder, mut next) = (server.message(), server.message());
    let id = next.request_lock("foo");
    server.await_waiters("foo", 1);
    let ping = frame(json!({"command": "ping", "parameters": "x".repeat(30_000), "id": 1}).to_string());
    send_without_reading(greedy.socket(), &ping, 200);
    assert_eq!(holder.lock("bar")["status"], "ok");
    // Stalled or cut off: in the end it is gone, and the next waiter gets the lock.
    drop(greedy);
    assert_eq!(next.result(id)["status"], "ok");
}

/// A client that has said `hello`: a FIN after data that it does not read would tell it nothing.
#[test]
fn a_client_that_is_cut_off_is_reset_before_another_gets_its_lock() {
    const NAMES: usize = 3000;
    let waits = NAMES.to_string();
    let server = Server::with(&[
        "--waits-per-connection-max",
        &waits,
        "--outbox-max",
        "65536",
        "--dead-peer-timeout",
        "12",
    ]);
    let (mut holder, mut next) = (server.message(), server.message());
    let mut greedy = server.message();
    assert_eq!(greedy.call("hello", json!({"client": "greedy"}))["status"], "ok");
    assert_eq!(greedy.lock("foo")["status"], "ok");
    for n in 0..NAMES {
        assert_eq!(holder.lock(&format!("k{n}"))["status"], "ok");
    }
    let greedy = greedy.into_socket();
    let mut writer = &greedy;
    for n in 0..NAMES {
        let id = format!("{n} {}", "i".repeat(4000));
        let request = json!({"command": "lock", "parameters": {"lockName": format!("k{n}")}, "id": id});
        writer.write_all(&frame(request.to_string())).unwrap();
    }
    server.await_waiters(&format!("k{}", NAMES - 1), 1);
    let id = next.request_lock("foo");
    server.await_waiters("foo", 1);
    for n in 0..NAMES {
        assert_eq!(holder.unlock(&format!("k{n}"))["result"], "ok");
    }
    assert_eq!(next.result(id)["status"], "ok");
    eventually("it is logged", || server.log().iter().any(|line| line.contains("cut off")));
    let mut polled = [PollFd::new(&greedy, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default())).unwrap();
    assert!(polled[0].revents().contains(PollFlags::ERR), "{:?}", polled[0].revents());
}

#[test]
fn requests_sent_after_a_wait_do_not_pile_up() {
    let server = Server::start();
    let mut holder = server.glockd();
    assert!(holder.ask("g foo").starts_with('1'));
    for socket in [server.tcp("glockd"), server.unix("glockd")] {
        let before = server.resident_kib();
        socket.send(b"gw - foo\n").unwrap();
        server.await_waiters("foo", 1);
        send_without_reading(&socket, &b"i bar\n".repeat(10_000), 1000);
        assert_others_are_served(&server);
        assert_memory_is_bounded(&server, before);
        drop(socket);
        // Over TCP its end may come after data that the server does not read while the request
        // waits. Then it is noticed when the request's turn has come.
        assert!(holder.ask("r foo").starts_with('1'));
        assert_eq!(holder.ask("gw 15 foo"), "1 Lock Get Success: foo\r\n");
    }
}

#[test]
fn a_client_that_vanishes_after_much_unread_data_leaves_the_queue() {
    let server = Server::start();
    let mut holder = server.glockd();
    assert!(holder.ask("g foo").starts_with('1'));
    let vanishing = server.unix("glockd");
    vanishing.send(b"gw - foo\n").unwrap();
    server.await_waiters("foo", 1);
    send_without_reading(&vanishing, &b"i bar\n".repeat(10_000), 1000);
    drop(vanishing);
    server.await_waiters("foo", 0);
}

#[test]
fn the_waits_of_a_client_that_never_reads_end_in_time() {
    let server = Server::start();
    let (mut holder, mut next) = (server.message(), server.message());
    assert_eq!(holder.lock("foo")["status"], "ok");
    let mut stalled = FrameClient::new(server.unix("message"));
    stalled.request("lock", json!({"lockName": "foo", "timeLimit": 2}));
    server.await_waiters("foo", 1);
    let ping = frame(json!({"command": "ping", "parameters": "x".repeat(100_000), "id": 1}).to_string());
    send_without_reading(stalled.socket(), &ping, 300);
    assert_eq!(next.call("identify", json!({"name": "next"}))["status"], "ok");
    let id = next.request_lock("foo");
    // The waiters after it must not have to wait for it.
    let mut observer = server.message();
    eventually("only the next one waits", || {
        let waiters = &observer.call("list", json!({"prefix": "foo"}))["locks"][0]["waiters"];
        waiters.as_array().is_some_and(|all| all.len() == 1 && all[0]["name"] == "next")
    });
    assert_eq!(holder.unlock("foo")["result"], "ok");
    assert_eq!(next.result(id)["status"], "ok");
}

#[test]
fn a_stop_does_not_wait_for_a_client_that_never_reads() {
    let mut server = Server::start();
    let ping = frame(json!({"command": "ping", "parameters": "x".repeat(100_000), "id": 1}).to_string());
    let stalled = [server.unix("message"), server.tcp("message")];
    stalled.iter().for_each(|socket| send_without_reading(socket, &ping, 300));
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_grant_during_a_large_reply_disconnects_no_client() {
    let server = Server::with(&["--outbox-max", "65536"]);
    let mut holder = server.message();
    assert_eq!(holder.lock("foo")["status"], "ok");
    // A Unix socket, because its buffers hold less.
    let mut client = FrameClient::new(server.unix("message"));
    assert_eq!(client.lock("mine")["status"], "ok");
    let waiting = client.request_lock("foo");
    server.await_waiters("foo", 1);
    let large = json!("x".repeat(1_000_000));
    let ping = client.request("ping", large.clone());
    // A part of the reply has been sent, and the rest is much larger than what a client may leave
    // unread of messages from other connections.
    assert!(client.socket().peek(&mut [std::mem::MaybeUninit::uninit()]).is_ok_and(|peeked| peeked > 0));
    assert_eq!(holder.unlock("foo")["result"], "ok");
    assert_eq!(client.result(ping)["parameters"], large);
    assert_eq!(client.result(waiting)["status"], "ok");
    assert_eq!(server.message().try_lock("mine")["status"], "timeout");
}

/// Only data that the client has not yet taken counts towards cutting it off.
#[test]
fn a_client_that_reads_steadily_is_not_cut_off_whatever_it_is_granted() {
    const NAMES: usize = 400;
    /// Far more than a Unix socket holds, and less than the socket and the send queue together.
    const AHEAD: usize = 80;
    let server = Server::with(&["--outbox-max", "262144"]);
    let mut holder = server.message();
    let mut client = FrameClient::new(server.unix("message"));
    for n in 0..NAMES {
        assert_eq!(holder.lock(&format!("k{n}"))["status"], "ok");
        let id = format!("{n} {}", "i".repeat(4000));
        client.send(&json!({"command": "lock", "parameters": {"lockName": format!("k{n}")}, "id": id}));
    }
    server.await_waiters(&format!("k{}", NAMES - 1), 1);
    for n in 0..NAMES + AHEAD {
        if n < NAMES {
            assert_eq!(holder.unlock(&format!("k{n}"))["result"], "ok");
        }
        if n >= AHEAD {
            let reply = client.receive();
            assert_eq!(reply["result"]["status"], "ok", "{reply}");
        }
    }
    assert!(client.is_served());
}

/// A peer with a small buffer that repeatedly reads a little of a long reply, for longer than a
/// kernel may leave data unacknowledged.
#[test]
fn a_client_that_reads_little_at_a_time_is_not_taken_for_dead() {
    const LONGEST: Duration = Duration::from_secs(10);
    let server = Server::with(&["--dead-peer-timeout", "12"]);
    let mut holder = server.lockd();
    for n in 0..1000 {
        assert_eq!(holder.ask(&format!("g {n:0>200}")), "1 Got Lock\r\n");
    }
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16_384).unwrap();
    let Endpoint::Tcp(address) = server.tcp_endpoint("message") else { unreachable!("a TCP endpoint") };
    socket.connect(&address.into()).unwrap();
    // From then on the server's kernel gives it up after four seconds.
    let hello = json!({"command": "hello", "parameters": {}, "id": 0}).to_string();
    let list = json!({"command": "list", "parameters": {"limit": 1000}, "id": 1}).to_string();
    let mut stream = TcpStream::from(socket);
    stream.write_all(&frame(hello)).unwrap();
    (0..40).for_each(|_| stream.write_all(&frame(list.clone())).unwrap());
    let end = Instant::now() + LONGEST;
    while Instant::now() < end {
        let read = stream.read(&mut [0; 8192]).expect("the connection lives");
        assert!(read > 0, "the server has ended the connection");
        std::thread::sleep(Duration::from_millis(200));
    }
}

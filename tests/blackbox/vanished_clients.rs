//! Clients that end in every possible way: their locks go to the next waiter at once, their
//! waits leave the queues, and a client that is only silent keeps its locks.

use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};

use crate::support::frame_client::frame;
use crate::support::line_client::LineClient;
use crate::support::server::Server;
use crate::support::socket::reset;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use socket2::Socket;

/// A process that has a connection and does nothing with it. Dropping this kills the process.
struct Process(Child);

impl Process {
    /// Gives this end of the connection to a process, and closes it here.
    fn take_over(socket: Socket) -> Self {
        Process(Command::new("sleep").arg("600").stdin(OwnedFd::from(socket)).spawn().expect("sleep(1)"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A connection of each kind that holds foo.
fn holders(server: &Server) -> Vec<Box<dyn Fn() -> Socket + '_>> {
    let lines = |socket: Socket| {
        let mut client = LineClient::new(socket);
        assert!(client.ask("g foo").starts_with('1'));
        client.into_socket()
    };
    vec![
        Box::new(move || lines(server.tcp("lockd"))),
        Box::new(move || lines(server.unix("lockd"))),
        Box::new(move || lines(server.tcp("glockd"))),
        Box::new(move || lines(server.unix("glockd"))),
        Box::new(move || {
            let mut client = server.message();
            assert_eq!(client.lock("foo")["status"], "ok");
            client.into_socket()
        }),
    ]
}

#[test]
fn the_lock_of_a_killed_process_goes_to_the_next_waiter() {
    let server = Server::start();
    for holder in holders(&server) {
        let process = Process::take_over(holder());
        let mut waiter = server.message();
        let id = waiter.request_lock("foo");
        server.await_waiters("foo", 1);
        drop(process);
        let granted = waiter.result(id);
        assert_eq!([&granted["status"], &granted["orphaned"]], [&json!("ok"), &json!(true)]);
        assert_eq!(waiter.unlock("foo")["result"], "ok");
    }
}

#[test]
fn the_lock_of_a_reset_connection_goes_to_the_next_waiter() {
    let server = Server::start();
    for holder in holders(&server) {
        let holder = holder();
        let mut waiter = server.glockd();
        waiter.send("gw - foo\n");
        server.await_waiters("foo", 1);
        reset(holder);
        assert_eq!(waiter.line(), "1 Lock Get Success: foo\r\n");
        assert_eq!(waiter.ask("r foo"), "1 Lock Release Success: foo\r\n");
    }
}

#[test]
fn a_killed_process_leaves_the_queue() {
    let server = Server::start();
    let mut holder = server.message();
    holder.lock("foo");
    for protocol in ["glockd", "message"] {
        for socket in [server.tcp(protocol), server.unix(protocol)] {
            let request = if protocol == "glockd" {
                b"gw - foo\n".to_vec()
            } else {
                frame(r#"{"command":"lock","parameters":{"lockName":"foo"},"id":0}"#)
            };
            socket.send(&request).unwrap();
            server.await_waiters("foo", 1);
            let process = Process::take_over(socket);
            drop(process);
            server.await_waiters("foo", 0);
        }
    }
    assert_eq!(holder.unlock("foo")["result"], "ok");
    server.await_free("foo");
}

#[test]
fn a_reset_connection_leaves_the_queue_and_the_next_is_granted() {
    let server = Server::start();
    let (mut holder, mut gone, mut next) = (server.message(), server.message(), server.message());
    holder.lock("foo");
    gone.request_lock("foo");
    server.await_waiters("foo", 1);
    let id = next.request_lock("foo");
    server.await_waiters("foo", 2);
    reset(gone.into_socket());
    server.await_waiters("foo", 1);
    holder.unlock("foo");
    assert_eq!(next.result(id)["status"], "ok");
}

#[test]
fn holder_and_first_waiter_end_together() {
    let server = Server::start();
    for _ in 0..50 {
        let (mut holder, mut gone, mut next) = (server.glockd(), server.glockd(), server.message());
        assert!(holder.ask("gw - foo").starts_with('1'));
        gone.send("gw - foo\n");
        server.await_waiters("foo", 1);
        let id = next.request_lock("foo");
        server.await_waiters("foo", 2);
        reset(holder.into_socket());
        reset(gone.into_socket());
        assert_eq!(next.result(id)["status"], "ok");
    }
}

/// It has ended by itself, even if a late reply was answered with a reset. Only a client that
/// the server has given up might not know yet.
#[test]
fn the_lock_of_a_client_that_ends_without_its_last_reply_is_free_at_once() {
    let server = Server::with(&["--dead-peer-timeout", "3600"]);
    for _ in 0..100 {
        let mut holder = server.message();
        assert_eq!(holder.call("hello", json!({"client": "short of time"}))["status"], "ok");
        assert_eq!(holder.lock("foo")["status"], "ok");
        let mut waiter = server.glockd();
        waiter.send("gw - foo\n");
        server.await_waiters("foo", 1);
        holder.send(&json!({"command": "ping", "parameters": {}, "id": 7}));
        drop(holder);
        assert_eq!(waiter.line(), "1 Lock Get Success: foo\r\n");
        assert_eq!(waiter.ask("r foo"), "1 Lock Release Success: foo\r\n");
    }
}

#[test]
fn a_stopped_process_keeps_its_lock() {
    let server = Server::with(&["--dead-peer-timeout", "12"]);
    let mut holder = server.glockd();
    assert!(holder.ask("g foo").starts_with('1'));
    let process = Process::take_over(holder.into_socket());
    kill_process(Pid::from_child(&process.0), Signal::STOP).unwrap();
    // Longer than the dead-peer timeout.
    assert_eq!(server.glockd().ask("gw 15 foo"), "0 Lock Get Failure: foo\r\n");
    drop(process);
    assert_eq!(server.glockd().ask("gw 10 foo"), "1 Lock Get Success: foo\r\n");
}

#[test]
fn a_client_that_has_closed_its_sending_side_still_gets_its_replies() {
    let server = Server::start();
    for socket in [server.tcp("glockd"), server.unix("glockd")] {
        let mut client = LineClient::new(socket);
        client.send("g foo\r\ni foo\r\nq\r\n");
        client.socket().shutdown(Shutdown::Write).unwrap();
        let replies = String::from_utf8(client.read_to_end()).unwrap();
        assert!(replies.starts_with("1 Lock Get Success: foo\r\n1 Lock Is Locked: foo\r\n"), "{replies:?}");
        assert!(replies.contains("\nlocks: 1\n"), "{replies:?}");
        assert!(replies.contains("\nshared_orphans: "), "{replies:?}");
        server.await_free("foo");
    }
    let mut client = server.message();
    client.request("lock", json!({"lockName": "foo"}));
    client.request("ping", json!({}));
    client.socket().shutdown(Shutdown::Write).unwrap();
    assert_eq!([client.result(0)["status"].take(), client.result(1)["status"].take()], ["ok", "ok"]);
    server.await_free("foo");
}

#[test]
fn a_client_that_has_closed_its_sending_side_gets_many_replies() {
    let server = Server::start();
    let mut client = server.lockd();
    client.send("g foo\nr foo\n".repeat(5000));
    client.socket().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read_to_end().len(), 5000 * "1 Got Lock\r\n1 Released Lock\r\n".len());
}

#[test]
fn the_end_of_a_client_is_noticed_after_the_lines_that_follow_a_waiting_one() {
    let server = Server::start();
    let mut holder = server.glockd();
    assert!(holder.ask("g busy").starts_with('1'));
    // More data than the server's buffers take would hide the end from it if it did not read on.
    // More than it is willing to keep costs the client its connection, and so frees its locks at
    // once.
    for bytes in [100 << 10, 8 << 20] {
        let mut client = server.glockd();
        assert!(client.ask("g held").starts_with('1'));
        client.send("gw - busy\n");
        server.await_waiters("busy", 1);
        let lines = "i busy\n".repeat(bytes / 7);
        // A server that cuts the connection off does not take all of it.
        let sent = client.socket().send(lines.as_bytes());
        assert!(sent.is_ok_and(|sent| sent > 0));
        drop(client);
        server.await_free("held");
        assert!(holder.ask("i busy").starts_with('1'));
    }
}

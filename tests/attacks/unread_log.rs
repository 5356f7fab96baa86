//! The log is not read: the server's standard error is a full pipe, as if a log reader or a
//! terminal had been stopped. Whatever is to be logged, no client may have to wait for it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use crate::support::DEADLINE;
use crate::support::line_client::LineClient;
use crate::support::server::{Launch, Server, raise_descriptor_limit};
use crate::support::socket::Endpoint;

/// How many threads the clients share.
const THREADS: usize = 8;

/// `clients` clients work for the given time, while others die holding a lock and further ones are
/// refused. Then the server is told to read its configuration again and to stop.
fn serve_with_unread_log(level: &str, clients: usize, duration: Duration) {
    raise_descriptor_limit();
    let launch = Launch::everywhere().args(["--log-level", level, "--allow", "127.0.0.1"]);
    let mut server = launch.start();
    server.leave_log_unread();
    let end = Instant::now() + duration;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let server = &server;
            scope.spawn(move || work_until(end, server, thread, clients / THREADS));
        }
        loop {
            die_with_a_lock(&server);
            be_a_stranger(&server);
            if Instant::now() >= end {
                break;
            }
        }
    });
    server.signal(Signal::HUP);
    die_with_a_lock(&server);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{level}");
}

/// Each of the clients repeatedly acquires and releases a lock of its own.
fn work_until(end: Instant, server: &Server, thread: usize, clients: usize) {
    let mut clients: Vec<_> = (0..clients).map(|_| server.glockd()).collect();
    loop {
        for (number, client) in clients.iter_mut().enumerate() {
            let name = format!("{thread}.{number}");
            assert_eq!(client.ask(&format!("g {name}")), format!("1 Lock Get Success: {name}\r\n"));
            assert_eq!(client.ask(&format!("r {name}")), format!("1 Lock Release Success: {name}\r\n"));
        }
        if Instant::now() >= end {
            return;
        }
    }
}

/// A client that holds a lock is killed; another client gets the lock.
fn die_with_a_lock(server: &Server) {
    let (mut holder, mut waiter) = (server.glockd(), server.glockd());
    assert_eq!(holder.ask("g deadly"), "1 Lock Get Success: deadly\r\n");
    waiter.send("gw - deadly\n");
    server.await_waiters("deadly", 1);
    drop(holder);
    assert_eq!(waiter.line(), "1 Lock Get Success: deadly\r\n");
    assert_eq!(waiter.ask("r deadly"), "1 Lock Release Success: deadly\r\n");
}

/// A client that is not on the access list is refused.
fn be_a_stranger(server: &Server) {
    let Endpoint::Tcp(address) = server.tcp_endpoint("glockd") else { unreachable!("a TCP address") };
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(LineClient::new(socket).read_line_or_end(), None);
}

#[test]
fn clients_are_served_and_it_stops_at_every_level() {
    for level in ["info", "debug", "trace"] {
        serve_with_unread_log(level, 4 * THREADS, Duration::ZERO);
    }
}

#[test]
#[ignore = "takes minutes: make check-deep"]
fn a_thousand_clients_are_served_for_a_minute() {
    for level in ["info", "debug"] {
        serve_with_unread_log(level, 1000, Duration::from_secs(60));
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = Launch::everywhere().args(["--log-level", "trace"]).start();
    server.leave_log_unread();
    // By the time of the second signal it may have stopped cleanly.
    for _ in 0..2 {
        server.signal(Signal::TERM);
    }
    assert!(server.wait().code().is_some());
}

//! Many clients at once: a burst of connects, a long queue, a stop while all are connected.

use std::collections::VecDeque;
use std::time::Duration;

use crate::support::DEADLINE;
use crate::support::line_client::LineClient;
use crate::support::server::{Server, raise_descriptor_limit};
use crate::support::socket::Endpoint;
use rustix::process::Signal;
use socket2::{Domain, SockAddr, Socket, Type};

const BURST: usize = 1000;

/// Starts a connection without waiting for it to be established.
fn begin_connect(endpoint: &Endpoint) -> Socket {
    let Endpoint::Tcp(address) = endpoint else { panic!("not a TCP endpoint: {endpoint:?}") };
    let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    // "In progress" is reported as an error.
    let _ = socket.connect(&SockAddr::from(*address));
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
    socket
}

#[test]
fn a_burst_of_a_thousand_connects_is_served() {
    raise_descriptor_limit();
    let server = Server::start();
    let endpoint = server.tcp_endpoint("glockd");
    let sockets: Vec<Socket> = (0..BURST).map(|_| begin_connect(&endpoint)).collect();
    let mut clients: Vec<LineClient> = sockets.into_iter().map(LineClient::new).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(format!("g k{n}\n"));
    }
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.line(), format!("1 Lock Get Success: k{n}\r\n"));
    }
    let held = server.glockd().ask_all("q");
    assert!(held.contains(&format!("locks: {BURST}\n")), "{held:?}");
}

#[test]
fn a_thousand_that_wait_are_granted_one_after_another() {
    raise_descriptor_limit();
    let server = Server::start();
    let mut idle: Vec<LineClient> = (0..BURST).map(|_| server.glockd()).collect();
    let mut holder = server.glockd();
    assert_eq!(holder.ask("g one"), "1 Lock Get Success: one\r\n");
    let mut watcher = server.glockd();
    let mut queue = VecDeque::new();
    for place in 1..=BURST {
        let mut waiter = server.glockd();
        waiter.send("gw - one\n");
        // In the order of the queue, because the next one is sent when this one is queued.
        server.await_waiters("one", place);
        queue.push_back(waiter);
    }
    while let Some(mut next) = queue.pop_front() {
        assert_eq!(holder.ask("r one"), "1 Lock Release Success: one\r\n");
        assert_eq!(next.line(), "1 Lock Get Success: one\r\n");
        holder = next;
        if queue.len() % 50 == 0 {
            assert!(watcher.ask_all("q").contains(&"locks: 1\n".to_owned()));
            let place = queue.len() / 50;
            assert_eq!(idle[place].ask("i one"), "1 Lock Is Locked: one\r\n");
        }
    }
    assert_eq!(holder.ask("r one"), "1 Lock Release Success: one\r\n");
    assert_eq!(holder.ask("i one"), "0 Lock Not Locked: one\r\n");
}

#[test]
fn a_queue_dissolves_when_all_its_members_hang_up() {
    raise_descriptor_limit();
    let server = Server::start();
    let mut holder = server.glockd();
    assert_eq!(holder.ask("g one"), "1 Lock Get Success: one\r\n");
    let mut waiters: Vec<LineClient> = (0..BURST).map(|_| server.glockd()).collect();
    for waiter in &mut waiters {
        waiter.send("gw - one\n");
    }
    server.await_waiters("one", BURST);
    drop(waiters);
    server.await_waiters("one", 0);
    assert_eq!(holder.ask("r one"), "1 Lock Release Success: one\r\n");
    server.await_free("one");
}

#[test]
fn the_end_of_a_connection_with_many_locks_frees_them_all() {
    const LOCKS: usize = 50_000;
    let server = Server::with(&["--locks-per-connection-max", "60000", "--locks-max", "60000"]);
    let mut holder = server.lockd();
    for thousand in 0..LOCKS / 1000 {
        holder.send((0..1000).map(|n| format!("g {thousand} {n}\n")).collect::<String>());
        for _ in 0..1000 {
            assert_eq!(holder.line(), "1 Got Lock\r\n");
        }
    }
    drop(holder);
    let mut watcher = server.glockd();
    crate::support::eventually("all are freed", || {
        let counters = watcher.ask_all("q");
        counters.contains(&"locks: 0\n".to_owned()) && counters.contains(&format!("orphans: {LOCKS}\n"))
    });
}

#[test]
fn a_stop_with_a_thousand_connections_is_clean() {
    raise_descriptor_limit();
    let mut server = Server::start();
    let mut clients: Vec<LineClient> = (0..BURST).map(|_| server.glockd()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        // Some hold a lock, some wait, some are idle.
        match n % 3 {
            0 => assert!(client.ask(&format!("g k{n}")).starts_with('1')),
            1 => client.send("gw - k0\n"),
            _ => {}
        }
    }
    server.await_waiters("k0", BURST / 3);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    // Every connection has ended.
    for client in &mut clients {
        client.read_to_end();
    }
}

#[test]
fn a_thousand_idle_connections_take_little_memory() {
    raise_descriptor_limit();
    let server = Server::start();
    let before_kib = server.resident_kib();
    let mut lines = Vec::new();
    let mut messages = Vec::new();
    for n in 0..BURST {
        match n % 3 {
            0 => lines.push(server.lockd()),
            1 => lines.push(server.glockd()),
            _ => messages.push(server.message()),
        }
    }
    for (n, client) in lines.iter_mut().enumerate() {
        assert!(client.ask(&format!("g line {n}")).starts_with('1'));
    }
    for (n, client) in messages.iter_mut().enumerate() {
        let name = format!("message {n}");
        assert_eq!(client.call("lock", serde_json::json!({"lockName": name}))["status"], "ok");
    }
    // Unoptimized, a thread touches three pages of its stack, the last of them for the standard
    // library alone. Optimized it touches two, and 13 KiB would be too much.
    let each_kib = (server.resident_kib() - before_kib) / BURST as u64;
    assert!(each_kib <= 17, "{each_kib} KiB for each");
}

#[test]
fn a_pause_after_much_input_costs_nothing() {
    const NAMES: usize = 5000;
    let server = Server::start();
    for mut client in [LineClient::new(server.tcp("glockd")), LineClient::new(server.unix("glockd"))] {
        let lines = |command: char| (0..NAMES).map(|n| format!("{command} {n}\n")).collect::<String>();
        client.send(lines('g') + "i the first ha");
        (0..NAMES).for_each(|n| assert_eq!(client.line(), format!("1 Lock Get Success: {n}\r\n")));
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(300));
            client.send("lf");
        }
        assert_eq!(client.ask(""), "0 Lock Not Locked: the first halflf\r\n");
        client.send(lines('r'));
        (0..NAMES).for_each(|n| assert_eq!(client.line(), format!("1 Lock Release Success: {n}\r\n")));
    }
}

#[test]
fn a_lack_of_descriptors_is_survived_without_spinning() {
    let server = Server::start();
    let mut first = server.glockd();
    assert_eq!(first.ask("g foo"), "1 Lock Get Success: foo\r\n");
    let mut observer = server.message();
    assert!(observer.is_served());
    let room = 5;
    server.limit_descriptors(u64::try_from(server.descriptors() + room).unwrap());
    let crowd: Vec<LineClient> = (0..room + 20).map(|_| server.glockd()).collect();
    let before = server.processor_ticks();
    let mut waiter = observer;
    // For a second there are connections that the server cannot accept.
    let result = waiter.call("lock", serde_json::json!({"lockName": "foo", "timeLimit": 1}));
    assert_eq!(result["status"], "timeout");
    let used = server.processor_ticks() - before;
    assert!(used < 50, "{used} hundredths of a second of processor time in a second");
    assert_eq!(first.ask("i foo"), "1 Lock Is Locked: foo\r\n");
    drop(crowd);
    crate::support::eventually("others are served again", || {
        let mut client = server.glockd();
        let _ = client.socket().send(b"i foo\n");
        client.read_line_or_end() == Some("1 Lock Is Locked: foo\r\n".to_owned())
    });
}

#[test]
fn a_lack_of_descriptors_costs_no_client_its_lock() {
    let server = Server::start();
    let mut clients: Vec<LineClient> = (0..10).map(|_| server.glockd()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        assert!(client.ask(&format!("g own {n}")).starts_with('1'));
    }
    let mut observer = server.glockd();
    assert!(observer.ask("g busy").starts_with('1'));
    server.limit_descriptors(u64::try_from(server.descriptors()).unwrap());
    for client in &mut clients {
        // The server must handle the line after the waiting one when the wait is over.
        client.send("gw - busy\nr busy\n");
    }
    crate::support::eventually("all wait", || {
        (0..10).all(|n| observer.ask(&format!("i own {n}")).starts_with('1'))
    });
    assert!(observer.ask("r busy").starts_with('1'));
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.line(), "1 Lock Get Success: busy\r\n", "{n}");
        assert_eq!(client.line(), "1 Lock Release Success: busy\r\n", "{n}");
    }
}

//! Conversations that go on in a restored server.

use super::*;
use crate::server::ParkedServer;
use crate::server::snapshot::types::{LossReason, StateSnapshot};
use crate::server::statistics::StatsReader;

const MESSAGE: usize = 0;
const GLOCKD: usize = 1;
const LOCKD: usize = 2;
const LISTEN: [&str; 3] = ["message://127.0.0.1:0", "glockd://127.0.0.1:0", "lockd://127.0.0.1:0"];

fn lock(name: &str, id: u32) -> String {
    format!(r#"{{"command":"lock","parameters":{{"lockName":"{name}"}},"id":{id}}}"#)
}

fn unlock(name: &str, id: u32) -> String {
    format!(r#"{{"command":"unlock","parameters":{{"lockName":"{name}"}},"id":{id}}}"#)
}

fn hello(wind_down: u32) -> String {
    format!(r#"{{"command":"hello","parameters":{{"windDown":{wind_down}}},"id":"hello"}}"#)
}

fn waiting(server: &Server) -> usize {
    server.state.broker.stats().waiting
}

#[test]
fn locks_waits_and_half_requests_go_on() {
    let server = start(&LISTEN);
    let (mut holder, mut waiter) = (connect(&server, MESSAGE), connect(&server, MESSAGE));
    let mut third = connect(&server, MESSAGE);
    let (mut text_holder, mut text_waiter) = (connect(&server, GLOCKD), connect(&server, GLOCKD));
    let mut long_line = connect(&server, LOCKD);
    holder.call(&hello(0));
    let token = holder.call(&lock("a", 1));
    waiter.request(&lock("a", 7));
    third.request(r#"{"command":"lock","parameters":{"lockName":"a","timeLimit":0.5},"id":3}"#);
    assert!(text_holder.ask("g b\n").starts_with('1'));
    text_waiter.send("gw 600 b\nr b\n");
    wait_until("all three wait", || waiting(&server) == 3);
    text_holder.send("r ");
    long_line.send([b'x'; 5000]);
    assert!(!long_line.line().is_empty());
    let request = Client::framed(&lock("new", 8));
    holder.send(&request[..20]);
    replaced(&server, |server| {
        assert_eq!((server.connections(), waiting(&server)), (6, 3));
        assert!(third.reply().contains("timeout"), "its time limit goes on");
        holder.send(&request[20..]);
        assert!(holder.reply().contains(r#""id":8,"result":{"status":"ok""#));
        assert_eq!(holder.call(&lock("a", 1)).replace(r#","already":true"#, ""), token);
        assert!(holder.call(&unlock("a", 2)).contains("ok"));
        assert!(waiter.reply().contains(r#""id":7,"result":{"status":"ok""#));
        text_holder.send("b\n");
        assert!(text_holder.line().starts_with("1 Lock Release"));
        assert!(text_waiter.line().starts_with("1 Lock Get Success"));
        assert!(text_waiter.line().starts_with("1 Lock Release Success"));
        long_line.send("the rest\ng c\n");
        assert!(long_line.line().starts_with('1'));
        let mut new = connect(&server, GLOCKD);
        assert!(new.ask("g a\n").starts_with('0'));
        assert!(waiter.call(&unlock("a", 9)).contains("ok"));
        assert!(new.ask("g a\n").starts_with('1'));
        stop(server);
    });
    stop(server);
}

#[test]
fn a_restored_server_has_the_same_state_through_any_number_of_images() {
    fn images(server: &Server, left: usize, expected: Option<ServerSnapshot>) {
        let parked = server.while_parked(LIMIT, |parked| {
            let snapshot = parked.snapshot().unwrap();
            let now = comparable(snapshot.clone());
            if let Some(expected) = expected {
                assert_eq!(now, expected);
            }
            if left > 0 {
                let next = restore(&snapshot);
                images(&next, left - 1, Some(now));
                stop(next);
            }
        });
        parked.unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let unix = format!("message+unix:{}/socket", directory.path().display());
    let server = start(&[LISTEN[0], LISTEN[1], LISTEN[2], &unix]);
    let mut clients: Vec<_> = [0, 0, 1, 1, 2, 3].into_iter().map(|index| connect(&server, index)).collect();
    clients[0].call(&hello(5));
    clients[0].call(&lock("a", 1));
    clients[1].request(&lock("a", 2));
    clients[2].ask("g b\n");
    clients[3].send("gw - b\nr b\n");
    clients[4].ask("g c\n");
    clients[5].call(&lock("d", 1));
    wait_until("both wait", || waiting(&server) == 2);
    images(&server, 3, None);
    stop(server);
}

#[test]
fn connections_without_a_thread_end_as_others_do() {
    let server = start(&LISTEN);
    let mut clients: Vec<_> = (0..4).map(|_| connect(&server, MESSAGE)).collect();
    let mut silent = connect(&server, GLOCKD);
    for (id, client) in (0..).zip(&mut clients) {
        client.call(&hello(0));
        client.call(&format!(r#"{{"command":"identify","parameters":{{"name":"client {id}"}},"id":1}}"#));
        client.call(&lock(&format!("lock {id}"), 2));
    }
    assert!(silent.ask("g text\n").starts_with('1'));
    replaced(&server, |server| {
        let mut other = connect(&server, MESSAGE);
        // The client ends its side.
        clients[0].end();
        assert!(other.call(&lock("lock 0", 1)).contains("ok"));
        // An operator ends it.
        let kicked = other.call(r#"{"command":"kick","parameters":{"name":"client 1"},"id":2}"#);
        assert!(kicked.contains("ok"), "{kicked}");
        assert!(clients[1].rest().is_empty());
        assert!(other.call(&lock("lock 1", 3)).contains("ok"));
        silent.end();
        let mut glockd = connect(&server, GLOCKD);
        assert!(glockd.ask("gw 600 text\n").starts_with('1'));
        // Closed with something unread, it is reset.
        clients[2].request(r#"{"command":"ping","id":9}"#);
        wait_until("it is answered", || server.state.stats().messages == 16);
        drop(clients.remove(2));
        assert!(other.call(&lock("lock 2", 4)).contains("ok"));
        // The last one still has none when the server stops.
        wait_until("the others are gone", || server.connections() == 3);
        stop(server);
        assert!(clients[2].rest().is_empty());
    });
    stop(server);
}

/// Over a Unix socket, which takes less than the listings have.
#[test]
fn a_slow_reader_gets_everything_in_order() {
    const NAMES: usize = 3000;
    const LISTINGS: usize = 20;
    let directory = tempfile::tempdir().unwrap();
    let server = start(&[&format!("glockd+unix:{}/socket", directory.path().display())]);
    let mut holder = connect(&server, 0);
    for name in 0..NAMES {
        assert!(holder.ask(&format!("g a-name-of-some-length-{name}\n")).starts_with('1'));
    }
    let mut slow = connect(&server, 0);
    (0..LISTINGS).for_each(|_| slow.send("d\n"));
    slow.send("g last\n");
    assert!(slow.line().contains("a-name-of-some-length"));
    let has_unsent = |snapshot: &ServerSnapshot| {
        snapshot.connections.iter().any(|one| !one.send_queue.buffer.bytes.is_empty())
    };
    let has_more = |parked: ParkedServer<'_>| has_unsent(&parked.snapshot().unwrap());
    wait_until("a listing is made that the socket does not take", || {
        server.while_parked(LIMIT, has_more).unwrap()
    });
    let work = |parked: ParkedServer<'_>| {
        let snapshot = parked.snapshot().unwrap();
        assert!(has_unsent(&snapshot), "nothing has been read since");
        let server = restore(&snapshot);
        let mut lines = 1;
        while !slow.line().starts_with("1 Lock") {
            lines += 1;
        }
        assert_eq!(lines, NAMES * LISTINGS);
        stop(server);
    };
    server.while_parked(LIMIT, work).unwrap();
    stop(server);
}

#[test]
fn a_connection_that_cannot_go_on_is_ended_and_keeps_its_locks_until_its_client_knows() {
    let server = start(&LISTEN);
    let (mut client, mut waiter) = (connect(&server, MESSAGE), connect(&server, MESSAGE));
    client.call(&hello(30));
    client.call(&lock("a", 1));
    waiter.request(&lock("a", 1));
    wait_until("it waits", || waiting(&server) == 1);
    server
        .while_parked(LIMIT, |parked| {
            let mut snapshot = parked.snapshot().unwrap();
            snapshot.connections[0].state = StateSnapshot::Lost { reason: LossReason::Tls };
            assert_eq!(snapshot.lost_connections().count(), 1);
            let server = restore(&snapshot);
            assert!(client.rest().is_empty());
            // Its work may go on, so that nobody else has the lock yet.
            assert_eq!((waiting(&server), server.state.broker.stats().locks), (1, 1));
            client.end();
            assert!(waiter.reply().contains("ok"));
            stop(server);
        })
        .unwrap();
    stop(server);
}

#[cfg(feature = "websocket")]
#[test]
fn a_websocket_goes_on_amid_a_frame_and_its_handshake_does_not() {
    use super::clients::text_frame;
    let server = start(&["glockd+ws://127.0.0.1:0", "glockd://127.0.0.1:0"]);
    let (mut client, mut beginning) = (connect(&server, 0), connect(&server, 0));
    let mut holder = connect(&server, 1);
    assert!(holder.ask("g b\n").starts_with('1'));
    client.begin_websocket();
    client.send(text_frame("g a\n"));
    let got = b"\x81\x171 Lock Get Success: a\r\n";
    assert_eq!(client.bytes(got.len()), got);
    client.send(text_frame("gw 600 b\n"));
    client.send(&text_frame("r a\n")[..8]);
    wait_until("it waits", || waiting(&server) == 1);
    beginning.send("GET / HTTP/1.1\r\nHo");
    replaced(&server, |server| {
        assert!(beginning.rest().is_empty());
        client.send(&text_frame("r a\n")[8..]);
        assert!(holder.ask("r b\n").starts_with('1'));
        let all = b"\x81\x171 Lock Get Success: b\r\n\x81\x1b1 Lock Release Success: a\r\n";
        assert_eq!(client.bytes(all.len()), all);
        stop(server);
    });
    stop(server);
}

#[test]
fn a_client_that_is_still_to_show_the_secret_can_show_it() {
    let secret = crate::server::AuthToken::new("a secret of enough bytes").unwrap();
    let config = Config { auth_token: Some(secret), ..config(&LISTEN[..1]) };
    allow_parking().unwrap();
    let server = Server::start(&Broker::default(), config.clone(), Service::locks()).unwrap();
    let (mut client, mut wrong) = (connect(&server, MESSAGE), connect(&server, MESSAGE));
    assert!(client.call(&lock("a", 1)).contains("refused"));
    assert!(wrong.call(&lock("a", 1)).contains("refused"));
    let hello = |secret| format!(r#"{{"command":"hello","parameters":{{"authToken":"{secret}"}},"id":2}}"#);
    let request = Client::framed(&hello("a secret of enough bytes"));
    client.send(&request[..30]);
    server
        .while_parked(LIMIT, |parked| {
            let snapshot = handed_over(&parked.snapshot().unwrap());
            let restored = RestoredServer::new(snapshot, config, Limits::default(), u64::MAX).unwrap();
            let server = restored.serve(Service::locks(), None).unwrap();
            client.send(&request[30..]);
            assert!(client.reply().contains(r#""id":2,"result":{"status":"ok""#));
            assert!(client.call(&lock("a", 3)).contains("ok"));
            assert!(wrong.call(&lock("a", 3)).contains("refused"));
            assert!(wrong.call(&hello("another of enough bytes")).contains("refused"));
            assert!(wrong.rest().is_empty());
            stop(server);
        })
        .unwrap();
    stop(server);
}

#[test]
fn an_end_goes_on() {
    let server = start(&LISTEN);
    let (mut client, mut waiter) = (connect(&server, MESSAGE), connect(&server, MESSAGE));
    client.call(&hello(30));
    client.call(&lock("a", 1));
    client.call(r#"{"command":"identify","parameters":{"name":"client"},"id":1}"#);
    waiter.request(&lock("a", 1));
    wait_until("it waits", || waiting(&server) == 1);
    let mut operator = connect(&server, MESSAGE);
    operator.call(r#"{"command":"kick","parameters":{"name":"client"},"id":2}"#);
    assert!(client.rest().is_empty());
    replaced(&server, |server| {
        assert_eq!((waiting(&server), server.state.broker.stats().locks), (1, 1));
        client.end();
        assert!(waiter.reply().contains("ok"));
        stop(server);
    });
    stop(server);
}

#[test]
fn a_server_that_is_restored_and_not_served_grants_nothing() {
    let server = start(&LISTEN);
    let (mut holder, mut waiter) = (connect(&server, MESSAGE), connect(&server, MESSAGE));
    holder.call(&hello(0));
    holder.call(&lock("a", 1));
    waiter.request(&lock("a", 1));
    wait_until("it waits", || waiting(&server) == 1);
    server
        .while_parked(LIMIT, |parked| {
            let copy = handed_over(&parked.snapshot().unwrap());
            let restored = RestoredServer::new(copy, config(&[]), Limits::default(), u64::MAX).unwrap();
            let broker = restored.broker().clone();
            assert_eq!(restored.addresses().len(), LISTEN.len());
            drop(restored);
            assert!(broker.is_shut());
            assert_eq!(broker.stats().grants, 1, "only the holder's own");
        })
        .unwrap();
    stop(server);
}

#[test]
fn a_stop_that_frees_the_locks_ends_connections_without_a_thread() {
    let server = start(&LISTEN);
    let mut clients: Vec<_> = (0..20).map(|_| connect(&server, MESSAGE)).collect();
    for (id, client) in (0..).zip(&mut clients) {
        client.call(&hello(0));
        client.call(&lock(&format!("lock {id}"), 2));
    }
    replaced(&server, |server| {
        let broker = server.state.broker.clone();
        assert_eq!((server.connections(), broker.stats().locks), (20, 20));
        server.stop();
        assert_eq!((broker.stats().locks, broker.stats().sessions), (0, 0));
        clients.iter_mut().for_each(|client| assert!(client.rest().is_empty()));
    });
    stop(server);
}

#[test]
fn what_was_counted_goes_on() {
    let server = start(&LISTEN);
    let mut client = connect(&server, MESSAGE);
    let mut text = connect(&server, LOCKD);
    (0..5).for_each(|id| drop(client.call(&lock("a", id))));
    assert!(text.ask("g b\n").starts_with('1'));
    let before = StatsReader::of(&server.state).read();
    replaced(&server, |server| {
        let after = StatsReader::of(&server.state).read();
        assert!(after.uptime >= before.uptime);
        assert_eq!((after.messages, after.connections), (5, 2));
        assert_eq!(after.broker.grants, before.broker.grants);
        assert_eq!(server.state.lockd_commands.all(), server.state.counters().lockd_commands);
        assert_eq!(server.state.lockd_commands.all().iter().sum::<u64>(), 1);
        stop(server);
    });
    stop(server);
}

#[test]
fn a_unix_socket_is_removed_by_the_image_that_stops() {
    let directory = tempfile::tempdir().unwrap();
    let unix = format!("message+unix:{}/socket", directory.path().display());
    let server = start(&[&unix]);
    let path = directory.path().join("socket");
    let mut client = connect(&server, 0);
    client.call(&lock("a", 1));
    replaced(&server, |server| {
        assert!(client.call(&unlock("a", 2)).contains("ok"));
        assert!(Client::connect(&server.addresses()[0].address).call(&lock("a", 1)).contains("ok"));
        assert!(path.exists());
        stop(server);
        assert!(!path.exists() && !directory.path().join("socket.lock").exists());
    });
    stop(server);
}

#[test]
fn what_is_no_such_socket_is_refused_by_name() {
    let server = start(&LISTEN);
    let mut client = connect(&server, MESSAGE);
    client.call(&lock("a", 1));
    server
        .while_parked(LIMIT, |parked| {
            let snapshot = parked.snapshot().unwrap();
            let refused = |change: &dyn Fn(&mut ServerSnapshot)| {
                let mut copy = handed_over(&snapshot);
                change(&mut copy);
                let restored = RestoredServer::new(copy, config(&[]), Limits::default(), u64::MAX);
                restored.err().unwrap().to_string()
            };
            let address = &snapshot.connections[0].address;
            let error = refused(&|copy| copy.connections[0].fd = 1_000_000);
            assert!(error.contains(address), "{error}");
            // Not handed over: this process has it itself.
            let error = refused(&|copy| copy.connections[0].fd = snapshot.connections[0].fd);
            assert!(error.contains(address) && error.contains("not handed over"), "{error}");
            // The sockets of a listener and a connection.
            let swap = |copy: &mut ServerSnapshot| {
                let (fd, listener) = (copy.connections[0].fd, &mut copy.listeners[0]);
                copy.connections[0].fd = std::mem::replace(&mut listener.fd, fd);
            };
            let error = refused(&swap);
            assert!(error.contains("message://"), "{error}");
        })
        .unwrap();
    stop(server);
}

//! Scenarios for the model checkers (`os/sync.rs`), which run a server's threads in every order, or
//! in very many: a connection's send queue, to which several threads append and on which several
//! send; and whole conversations. The sockets are those of `os/socket/fake.rs`.

use std::ops::ControlFlow;

use super::config::{Config, Protocol};
use super::handshake::AcceptedConnection;
use super::maintenance::Maintenance;
use super::message::Service;
use super::parking::Parking;
use super::send_queue::{SendOutcome, SendQueue};
use super::serve::serve;
use super::server_state::ServerState;
use super::state_dir::resume_without_thread;
use crate::broker::Broker;
use crate::os::socket::Peer;
use crate::os::sync::explore::{explore, explore_large};
use crate::os::sync::{Arc, ProcessMutex, thread};
use crate::wire::frame;

/// More than any scenario sends.
const MUCH: usize = 1 << 20;

/// A send queue, and what was appended to it, in this order.
struct Sending {
    send_queue: Arc<SendQueue>,
    maintenance: Arc<Maintenance>,
    appended: ProcessMutex<String>,
    peer: Peer,
}

impl Sending {
    fn new(room: usize, bytes_max: usize) -> Arc<Self> {
        let (stream, peer) = Peer::new(room);
        let maintenance = Arc::new(Maintenance::new().unwrap());
        let send_queue = Arc::new(SendQueue::new(stream, bytes_max, maintenance.clone(), None));
        Arc::new(Self { send_queue, maintenance, appended: ProcessMutex::new(String::new()), peer })
    }

    /// Records what is appended in the same step.
    fn write(&self, text: &'static str) -> impl FnOnce(&mut Vec<u8>) {
        move |out| {
            out.extend(text.as_bytes());
            self.appended.lock().push_str(text);
        }
    }

    /// What a thread does that releases a lock.
    fn push(&self, text: &'static str) {
        self.send_queue.push(self.write(text));
        self.send_queue.deliver();
    }

    /// What the connection's own thread does.
    fn reply(&self, text: &'static str) -> bool {
        self.send_queue.append(self.write(text));
        self.send_queue.send_all(|| ControlFlow::Continue(None))
    }

    /// Everything has been sent, in the order in which it was appended.
    fn all_sent(&self) {
        assert_eq!(self.peer.heard(), *self.appended.lock());
        assert_eq!(self.send_queue.send(), SendOutcome::AllSent);
    }
}

fn spawn<R: Send + 'static>(
    sending: &Arc<Sending>,
    work: impl FnOnce(&Sending) -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    let sending = sending.clone();
    thread::spawn(move || work(&sending))
}

#[test]
fn what_several_threads_append_is_sent_once_and_in_order() {
    explore(|| {
        let sending = Sending::new(MUCH, MUCH);
        let maintenance = spawn(&sending, |sending| sending.maintenance.run(&Parking::default()));
        let other = spawn(&sending, |sending| sending.push("ab"));
        assert!(sending.reply("cd"));
        other.join().unwrap();
        sending.peer.await_bytes(4);
        sending.maintenance.stop();
        maintenance.join().unwrap();
        sending.all_sent();
    });
}

#[test]
fn two_threads_that_deliver_at_once_leave_nothing_unsent() {
    explore(|| {
        let sending = Sending::new(MUCH, MUCH);
        let maintenance = spawn(&sending, |sending| sending.maintenance.run(&Parking::default()));
        let others =
            [spawn(&sending, |sending| sending.push("ab")), spawn(&sending, |sending| sending.push("cd"))];
        sending.peer.await_bytes(4);
        others.into_iter().for_each(|other| other.join().unwrap());
        sending.maintenance.stop();
        maintenance.join().unwrap();
        sending.all_sent();
    });
}

#[test]
fn the_maintenance_sends_on_to_a_slow_reader() {
    explore(|| {
        let sending = Sending::new(1, MUCH);
        let maintenance = spawn(&sending, |sending| sending.maintenance.run(&Parking::default()));
        let other = spawn(&sending, |sending| sending.push("abc"));
        sending.peer.take(1);
        sending.peer.await_bytes(2);
        sending.peer.take(1);
        sending.peer.await_bytes(3);
        other.join().unwrap();
        sending.maintenance.stop();
        maintenance.join().unwrap();
        sending.all_sent();
    });
}

#[test]
fn a_slow_reader_of_replies_also_gets_what_other_threads_append() {
    explore(|| {
        let sending = Sending::new(1, MUCH);
        let maintenance = spawn(&sending, |sending| sending.maintenance.run(&Parking::default()));
        let own = spawn(&sending, |sending| assert!(sending.reply("abc")));
        let other = spawn(&sending, |sending| sending.push("de"));
        sending.peer.take(MUCH);
        sending.peer.await_bytes(5);
        own.join().unwrap();
        other.join().unwrap();
        sending.maintenance.stop();
        maintenance.join().unwrap();
        sending.all_sent();
    });
}

#[test]
fn after_a_close_no_thread_waits_and_nothing_is_sent() {
    explore(|| {
        let sending = Sending::new(1, MUCH);
        let maintenance = spawn(&sending, |sending| sending.maintenance.run(&Parking::default()));
        let own = spawn(&sending, |sending| sending.reply("abc"));
        let other = spawn(&sending, |sending| sending.push("de"));
        sending.send_queue.close();
        let sent = sending.peer.heard();
        own.join().unwrap();
        other.join().unwrap();
        sending.maintenance.stop();
        maintenance.join().unwrap();
        assert_eq!((sending.peer.heard(), sending.send_queue.send()), (sent.clone(), SendOutcome::Closed));
        assert!(sent.is_empty() || sending.appended.lock().starts_with(&sent));
    });
}

#[test]
fn a_client_that_reads_nothing_is_cut_off_and_blocks_no_thread() {
    explore(|| {
        let sending = Sending::new(0, 2);
        let maintenance = spawn(&sending, |sending| sending.maintenance.run(&Parking::default()));
        let other =
            spawn(&sending, |sending| ["abc", "d", "e"].into_iter().for_each(|text| sending.push(text)));
        sending.peer.await_end();
        other.join().unwrap();
        sending.maintenance.stop();
        maintenance.join().unwrap();
        assert_eq!(sending.send_queue.send(), SendOutcome::Closed);
    });
}

/// A client that speaks `glockd`, and the thread that serves it.
fn connect(server: &Arc<ServerState>, service: &Arc<Service>) -> (Peer, thread::JoinHandle<()>) {
    connect_by(Protocol::Glockd, server, service)
}

fn connect_by(
    protocol: Protocol,
    server: &Arc<ServerState>,
    service: &Arc<Service>,
) -> (Peer, thread::JoinHandle<()>) {
    let (stream, peer) = Peer::new(MUCH);
    let config = server.config();
    let Ok((id, send_queue)) = server.admit(stream, &config, None, (protocol, "client")) else {
        panic!("there is room")
    };
    let (server, service) = (server.clone(), service.clone());
    let address = format!("client {id}");
    let accepted = AcceptedConnection {
        id,
        server,
        send_queue,
        config,
        protocol,
        websocket: false,
        secret: None,
        address,
    };
    (peer, thread::spawn(move || serve(&accepted, service)))
}

fn start_server() -> (Arc<ServerState>, Arc<Service>, thread::JoinHandle<()>) {
    start_server_with(&Broker::default())
}

fn start_server_with(broker: &Broker) -> (Arc<ServerState>, Arc<Service>, thread::JoinHandle<()>) {
    let server = Arc::new(ServerState::new(broker.clone(), Config::default()).unwrap());
    let maintenance = thread::spawn({
        let maintenance = server.maintenance.clone();
        move || maintenance.run(&Parking::default())
    });
    (server, Arc::new(Service::locks()), maintenance)
}

const GOT: &str = "1 Lock Get Success: x\r\n";
const RELEASED: &str = "1 Lock Release Success: x\r\n";

/// Ends both connections, and checks that nothing is left.
fn end(
    server: &ServerState,
    maintenance: thread::JoinHandle<()>,
    clients: [(Peer, thread::JoinHandle<()>); 2],
) {
    for (peer, thread) in clients {
        peer.hang_up();
        thread.join().unwrap();
    }
    let stats = server.broker.stats();
    assert_eq!((stats.sessions, stats.locks, stats.waiting, server.connections()), (0, 0, 0, 0));
    server.maintenance.stop();
    maintenance.join().unwrap();
}

#[test]
fn a_waiter_gets_the_lock_when_the_other_client_releases_it() {
    explore_large(|| {
        let (server, service, maintenance) = start_server();
        let one = connect(&server, &service);
        one.0.send_text(b"g x\r\n");
        one.0.await_bytes(GOT.len());
        let two = connect(&server, &service);
        // The second line comes after the wait, and must not be answered before that has ended.
        two.0.send_text(b"gw - x\r\nr x\r\n");
        one.0.send_text(b"r x\r\n");
        let all = format!("{GOT}{RELEASED}");
        two.0.await_bytes(all.len());
        one.0.await_bytes(all.len());
        assert_eq!((one.0.heard(), two.0.heard()), (all.clone(), all));
        end(&server, maintenance, [one, two]);
    });
}

#[test]
fn a_holder_that_hangs_up_frees_its_lock_for_the_waiter() {
    explore_large(|| {
        let (server, service, maintenance) = start_server();
        let one = connect(&server, &service);
        one.0.send_text(b"g x\r\n");
        one.0.await_bytes(GOT.len());
        let two = connect(&server, &service);
        two.0.send_text(b"gw - x\r\n");
        one.0.hang_up();
        two.0.await_bytes(GOT.len());
        assert!(one.0.has_ended(), "it still looks like a holder to its client");
        assert_eq!(two.0.heard(), GOT);
        end(&server, maintenance, [one, two]);
    });
}

#[test]
fn a_waiter_that_hangs_up_keeps_no_lock() {
    explore_large(|| {
        let (server, service, maintenance) = start_server();
        let one = connect(&server, &service);
        one.0.send_text(b"g x\r\n");
        one.0.await_bytes(GOT.len());
        let two = connect(&server, &service);
        two.0.send_text(b"gw - x\r\n");
        two.0.hang_up();
        one.0.send_text(b"r x\r\n");
        one.0.await_bytes(GOT.len() + RELEASED.len());
        assert!(["", GOT].contains(&two.0.heard().as_str()));
        end(&server, maintenance, [one, two]);
    });
}

fn message(text: &str) -> Vec<u8> {
    let mut sent = Vec::new();
    frame::encode(&mut sent, |body| body.extend(text.as_bytes()));
    sent
}

/// The reply of the wait tells the client that it holds the lock, so it must not come after the
/// reply to `cancel` that says that nothing waits.
#[test]
fn a_cancel_is_answered_after_the_grant_that_it_came_too_late_for() {
    explore_large(|| {
        let (server, service, maintenance) = start_server();
        let one = connect(&server, &service);
        one.0.send_text(b"g x\r\n");
        one.0.await_bytes(GOT.len());
        let two = connect_by(Protocol::Message, &server, &service);
        two.0.send_text(&message(r#"{"id":1,"command":"lock","parameters":{"lockName":"x"}}"#));
        one.0.send_text(b"r x\r\n");
        two.0.send_text(&message(r#"{"id":2,"command":"cancel","parameters":{"id":1}}"#));
        // The two shortest replies that there may be; of longer ones, more than the first.
        let shortest =
            [r#"{"id":1,"result":{"status":"cancelled"}}"#, r#"{"id":2,"result":{"status":"ok"}}"#];
        two.0.await_bytes(shortest.map(|text| message(text).len()).iter().sum());
        one.0.await_bytes(GOT.len() + RELEASED.len());
        let heard = two.0.heard();
        let [wait, cancel] = [1, 2].map(|id| heard.find(&format!("{{\"id\":{id},")));
        assert!(wait < cancel || heard.contains("cancelled"), "{heard}");
        end(&server, maintenance, [one, two]);
    });
}

/// The value of this key in what a client has heard.
fn heard_value<'a>(heard: &'a str, key: &str) -> &'a str {
    let value = heard.split_once(&format!("\"{key}\":")).unwrap().1;
    value.trim_start_matches('"').split(['"', ',', '}']).next().unwrap()
}

const HELLO: &str = r#"{"id":0,"command":"hello","parameters":{"resumable":true}}"#;
const LOCK: &str = r#"{"id":1,"command":"lock","parameters":{"lockName":"x"}}"#;
const UNLOCK: &str = r#"{"id":2,"command":"unlock","parameters":{"lockName":"x"}}"#;

/// The server is told to resume a session, while the session's first connection still has a request
/// that would give the lock up, and another client waits for it.
fn resume_amid(last_word: impl Fn(&Peer) + Send + Sync + 'static) {
    explore_large(move || {
        let directory = tempfile::tempdir().unwrap();
        let (broker, resumption) = resume_without_thread(directory.path()).unwrap();
        let (server, service, maintenance) = start_server_with(&broker);
        server.resumable.set_resumption(Some(resumption));
        let first = connect_by(Protocol::Message, &server, &service);
        first.0.send_text(&[message(HELLO), message(LOCK)].concat());
        while !first.0.heard().contains("\"token\":") {
            first.0.await_bytes(first.0.heard().len() + 1);
        }
        let heard = first.0.heard();
        let waiter = connect(&server, &service);
        waiter.0.send_text(b"gw - x\r\n");
        last_word(&first.0);
        let second = connect_by(Protocol::Message, &server, &service);
        let [session, secret, epoch] = ["session", "secret", "epoch"].map(|key| heard_value(&heard, key));
        let token = heard_value(heard.rsplit_once("\"id\":1").unwrap().1, "token");
        second.0.send_text(&message(&format!(
            r#"{{"id":0,"command":"resume","parameters":{{"session":"{session}","secret":"{secret}","epoch":{epoch},"deadPeerTimeout":25,"attempt":1,"locks":[{{"lockName":"x","mode":"exclusive","token":{token}}}]}}}}"#
        )));
        second.0.await_bytes(1);
        while !second.0.heard().contains("\"status\"") {
            second.0.await_bytes(second.0.heard().len() + 1);
        }
        // If it has resumed, nothing that was said on the first connection is carried out any more.
        first.1.join().unwrap();
        let is_resumed = second.0.heard().contains("\"status\":\"ok\"");
        assert!(is_resumed || second.0.heard().contains("ended"), "{}", second.0.heard());
        if is_resumed {
            assert_eq!(waiter.0.heard(), "", "two holders");
            assert_eq!(broker.stats().locks, 1);
        }
        second.0.hang_up();
        second.1.join().unwrap();
        waiter.0.await_bytes(GOT.len());
        assert_eq!(waiter.0.heard(), GOT);
        waiter.0.hang_up();
        waiter.1.join().unwrap();
        assert_eq!((broker.stats().sessions, broker.stats().locks, server.connections()), (0, 0, 0));
        server.maintenance.stop();
        maintenance.join().unwrap();
    });
}

#[test]
fn a_session_that_resumes_does_not_carry_out_what_its_first_connection_still_says() {
    resume_amid(|first| first.send_text(&message(UNLOCK)));
}

#[test]
fn a_session_resumes_or_ends_when_its_first_connection_hangs_up_meanwhile() {
    resume_amid(Peer::hang_up);
}

//! Whole servers: parked, taken as data, and restored in the same process with copies of their
//! descriptors. And the recorded state of a server, which every later version must be able to read.

mod clients;
mod going_on;
mod recorded;

use std::time::{Duration, Instant};

use clients::Client;
pub(super) use recorded::example;

use super::types::{AddressSnapshot, ServerSnapshot};
use super::{RestoredServer, decode, encode};
use crate::broker::{Broker, Limits};
use crate::os::fork::copy_to_hand_over;
use crate::server::{Config, Server, Service, allow_parking};

const LIMIT: Duration = Duration::from_secs(20);

/// Waits until `condition` holds.
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn config(listen: &[&str]) -> Config {
    let listen = listen.iter().map(|text| text.parse().unwrap()).collect();
    Config { listen, kick: true, ..Config::default() }
}

/// A server at free ports of these protocols.
fn start(listen: &[&str]) -> Server {
    allow_parking().unwrap();
    Server::start(&Broker::default(), config(listen), Service::locks()).unwrap()
}

fn connect(server: &Server, index: usize) -> Client {
    Client::connect(&server.addresses()[index].address)
}

/// The snapshot with copies of all descriptors, as another image would have them.
fn handed_over(snapshot: &ServerSnapshot) -> ServerSnapshot {
    let mut copy = decode(&encode(snapshot).unwrap()).unwrap();
    let hand_over = |number: &mut i32| *number = copy_to_hand_over(*number).unwrap();
    for listener in &mut copy.listeners {
        hand_over(&mut listener.fd);
        if let Some(file) = &mut listener.file {
            hand_over(&mut file.fd);
            hand_over(&mut file.lock_fd);
        }
    }
    copy.connections.iter_mut().for_each(|connection| hand_over(&mut connection.fd));
    copy
}

fn restore(snapshot: &ServerSnapshot) -> Server {
    let snapshot = handed_over(snapshot);
    let config = config(&[]);
    snapshot.check(&config, Limits::default()).unwrap();
    let restored = RestoredServer::new(snapshot, config, Limits::default(), u64::MAX).unwrap();
    restored.serve(Service::locks(), None).unwrap()
}

/// Parks the server, and runs `scenario` with one that goes on with its connections. The first one
/// stays parked meanwhile, as if it had been replaced.
fn replaced<R>(server: &Server, scenario: impl FnOnce(Server) -> R) -> R {
    let work = |parked: crate::server::ParkedServer<'_>| scenario(restore(&parked.snapshot().unwrap()));
    server.while_parked(LIMIT, work).unwrap()
}

/// Stops the restored server, and then the one that it was made of.
fn stop(server: Server) {
    server.state.broker.shut();
    server.stop();
}

/// What must be the same in a server and in one that is restored from it: not the descriptors, and
/// the moments by which nothing is decided.
fn comparable(mut snapshot: ServerSnapshot) -> ServerSnapshot {
    snapshot.started_nanos = 0;
    for listener in &mut snapshot.listeners {
        listener.fd = 0;
        listener.file = None;
    }
    snapshot.connections.iter_mut().for_each(|connection| connection.fd = 0);
    let broker = &mut snapshot.broker;
    let name_of = |index: usize| broker.locks[index].name.clone();
    let mut order: Vec<usize> = (0..broker.locks.len()).collect();
    order.sort_by_key(|&index| name_of(index));
    broker.locks = order.iter().map(|&index| broker.locks[index].clone()).collect();
    for want in broker.waits.iter_mut().flat_map(|wait| &mut wait.wants) {
        want.lock = order.iter().position(|&index| index == want.lock).unwrap();
    }
    // It may be raised.
    broker.next_token = 0;
    snapshot
}

/// The path of the server's Unix socket.
fn path_of(snapshot: &ServerSnapshot) -> Option<Vec<u8>> {
    snapshot.listeners.iter().find_map(|listener| match &listener.address {
        AddressSnapshot::Unix(path) => Some(path.clone()),
        AddressSnapshot::Tcp(_) => None,
    })
}

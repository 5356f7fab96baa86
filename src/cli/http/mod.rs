//! What there is to see of a server in a browser, and for Prometheus: a small HTTP/1.1 server of its own,
//! which can look and change nothing. Behind the feature `cli`, as all of the binary.
//!
//! - `listener`: who is let in, and a thread for each; `connections`: how many there may be, and who makes room;
//!   `connection`: its thread, with its time limits;
//! - `request`, `query`: what is asked, pure; `trust`: from which page, pure; `response`: what is said;
//! - `routes`: what is where; `locks`, `metrics`, `history`: what there is to see; `room`: how many may be at something.
//!
//! Knows the broker by what it lists and counts, and the server by its numbers and its access list. No client
//! of these pages, whatever it does, holds up anything but them. Its threads end with the process.

mod connection;
mod connections;
mod history;
mod listener;
mod locks;
mod metrics;
mod query;
mod request;
mod response;
mod room;
mod routes;
mod trust;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use lockd::broker::Broker;
use lockd::server::{Config, Traffic, bind_every};
use parking_lot::{Mutex, RwLock};

use connections::Connections;
use history::History;
use room::Room;

/// What of the configuration is for these pages, too.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// The access list, and whether locks may be listed.
    config: Config,
    /// The host names that are this server's, beside its addresses and localhost.
    hosts: Vec<String>,
}

impl Rules {
    pub(crate) fn new(config: &Config, hosts: &[String]) -> Self {
        Self { config: config.clone(), hosts: hosts.to_vec() }
    }
}

/// What all connections share.
struct Shared {
    broker: Broker,
    traffic: Traffic,
    rules: RwLock<Arc<Rules>>,
    history: History,
    started: SystemTime,
    /// Connections open now, and those turned away since the start.
    connections: Arc<Connections>,
    refused: AtomicU64,
    /// Held while locks are listed, which costs a look at every name there is: however many ask, it costs the
    /// broker no more than one who asks all the time. And how many are at it or wait for it.
    listing: Mutex<()>,
    listers: Room,
}

impl Shared {
    fn rules(&self) -> Arc<Rules> {
        self.rules.read().clone()
    }
}

/// Binds addresses that are to be served, and of a host name every one: before privileges are given up.
///
/// # Errors
/// If one cannot be bound; the message names it.
pub(crate) fn bind(addresses: &[String]) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in addresses {
        let in_context =
            |error: io::Error| io::Error::new(error.kind(), format!("http://{address}: {error}"));
        let bind = |address: SocketAddr| {
            let listener = TcpListener::bind(address)?;
            let bound = listener.local_addr()?;
            Ok((listener, bound))
        };
        let bound = bind_every(address, bind).map_err(in_context)?;
        listeners.extend(bound.into_iter().map(|(listener, _)| listener));
    }
    Ok(listeners)
}

/// The pages of a server.
pub(crate) struct Http {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
}

impl Http {
    /// Serves them at all of `listeners`, from threads that end with the process.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub(crate) fn serve(
        listeners: Vec<TcpListener>,
        broker: &Broker,
        traffic: Traffic,
        rules: Rules,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            broker: broker.clone(),
            traffic,
            rules: RwLock::new(Arc::new(rules)),
            history: History::default(),
            started: SystemTime::now(),
            connections: Connections::for_at_most(listener::CONNECTIONS_MAX),
            refused: AtomicU64::new(0),
            listing: Mutex::new(()),
            listers: Room::for_at_most(routes::LISTERS_MAX),
        });
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
        if !listeners.is_empty() {
            broker.measure_holds();
            let shared = shared.clone();
            spawn("lockd-history", move || shared.history.keep(&shared.broker, &shared.traffic))?;
        }
        for listener in listeners {
            let shared = shared.clone();
            spawn("lockd-http", move || listener::run(&listener, &shared))?;
        }
        Ok(Self { shared, addresses })
    }

    /// The addresses served, with the ports that were taken for port 0.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Other rules, for requests from now on.
    pub(crate) fn set_rules(&self, rules: Rules) {
        *self.shared.rules.write() = Arc::new(rules);
    }
}

/// Starts a thread: few things are called in it, and none recursively.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    const STACK_BYTES: usize = 512 << 10;
    std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(work).map(drop)
}

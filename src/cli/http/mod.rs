//! The pages for browsers and for Prometheus: a small HTTP/1.1 server of its own, which shows a
//! running server and changes nothing. Behind the feature `cli`, as all of the binary.
//!
//! - `listener` accepts connections and starts a thread for each; `connections` limits their
//!   number, and decides which one makes room for a new one; `connection` is the thread of one
//!   connection, with its time limits;
//! - `request` and `query` parse what is asked, `trust` decides whether the page that asks may;
//!   these are pure. `response` makes the bytes of a response;
//! - `routes` answers each path with what `locks`, `metrics`, `history` and `cluster` make;
//! - `state` is what all connections share, `semaphore` limits how many do the same thing at once.
//!
//! Knows the broker by what it lists and counts, and the server by its statistics and its access
//! list. A client of these pages, whatever it does, delays nothing but these pages. Their threads
//! end with the process.

mod cluster;
mod connection;
mod connections;
mod history;
mod listener;
mod locks;
mod metrics;
mod query;
mod request;
mod response;
mod routes;
mod semaphore;
mod state;
mod trust;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::SystemTime;

use lockd::server::bind_every;

use listener::spawn;
use state::HttpState;
pub(crate) use state::{Rules, Shown};

/// Binds addresses, and all addresses of a host name. To be called before privileges are given up.
///
/// # Errors
/// If an address cannot be bound; the message names it.
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
    state: Arc<HttpState>,
    addresses: Vec<SocketAddr>,
    /// The listeners, which stay open as long as the process.
    descriptors: Vec<RawFd>,
}

impl Http {
    /// Serves the pages on all of `listeners`, from threads that end with the process. `started` is
    /// when the process was.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub(crate) fn serve(
        listeners: Vec<TcpListener>,
        shown: Shown,
        rules: Rules,
        started: SystemTime,
    ) -> io::Result<Self> {
        let state = Arc::new(HttpState::new(shown, rules, started));
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
        let descriptors = listeners.iter().map(AsRawFd::as_raw_fd).collect();
        if !listeners.is_empty() {
            state.broker.measure_holds();
            let state = state.clone();
            spawn("lockd-history", move || state.history.keep(&state.stats))?;
        }
        for listener in listeners {
            let state = state.clone();
            spawn("lockd-http", move || listener::run(&listener, &state))?;
        }
        Ok(Self { state, addresses, descriptors })
    }

    /// When the process was started.
    pub(crate) fn started(&self) -> SystemTime {
        self.state.started
    }

    /// The numbers of the listeners' descriptors.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        self.descriptors.clone()
    }

    /// The addresses served. Where port 0 was asked for, they have the port that was taken.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Replaces the rules, for requests from now on.
    pub(crate) fn set_rules(&self, rules: Rules) {
        self.state.set_rules(rules);
    }
}

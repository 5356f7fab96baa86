//! The server: where sockets and the broker meet. Listeners, a thread for each connection, the
//! protocols' conversations, the access list, limits and counters.
//!
//! - `listener`: binds, accepts, turns away; `reception`: what a connection begins and ends with; `opening`:
//!   TLS, WebSocket and the secret, where they are asked for; `framing`: how bytes are then on the wire;
//! - `connection`: its thread's loop; `send_queue`: what is to be sent, whoever has it to send; `noted`: how much of
//!   that may cut a client off; `ending`: how a connection ends; `peer`: whether its client knows that, as far as is known;
//! - `text` and `message`: what each protocol's requests do at the broker;
//! - `config`: what a server is told; `options`: the same by the names of options, as text;
//! - `server`: what all connections share; `maintenance`: the thread for what no connection's thread can do.

mod acquire;
mod auth_token;
mod config;
mod connection;
mod ending;
mod framing;
mod handshake;
#[cfg(all(test, any(explore = "loom", explore = "shuttle")))]
mod interleavings;
mod listener;
mod log_throttle;
mod maintenance;
mod message;
mod noted;
mod options;
mod peer;
mod send_queue;
mod serve;
mod server_state;
pub mod state_dir;
mod text;
mod traffic;
mod wrong_protocol;

use std::ffi::CStr;
use std::io;
use std::sync::atomic::Ordering::Release;
use std::time::{Duration, Instant};

pub use auth_token::AuthToken;
pub use config::{Config, Inherited, Listen, ListenAddress, Protocol, Scheduling, parse_allow, parse_origin};
#[cfg(fuzzing)]
pub use connection::fuzz_driver;
use listener::Listener;
pub use listener::bind_every;
pub use message::{Call, Responder, Service};
pub use options::{OptionError, Options};
use send_queue::SendQueue;
use server_state::ServerState;
pub use traffic::Traffic;

use crate::broker::Broker;
use crate::os::sync::{Arc, AtomicU64};
use crate::os::thread::{SignalsBlocked, Thread};
pub use crate::os::tls::ServerTls;

/// The stack of a thread that is not a connection's: reserved, not used.
const STACK_BYTES: usize = 1 << 20;
/// How often it is looked whether clients have been told of the end.
const DELIVERY_LOOK: Duration = Duration::from_millis(1);

/// Addresses that are bound and not yet served: the moment to give up privileges.
pub struct Bound {
    config: Config,
    listeners: Vec<Listener>,
    addresses: Vec<Listen>,
}

impl Bound {
    /// Binds all of `config.listen`.
    ///
    /// # Errors
    /// If an address cannot be bound, or [what is wanted of it](Config::check) cannot be; the message names it.
    pub fn new(config: Config) -> io::Result<Self> {
        Self::with_inherited(config, Vec::new())
    }

    /// The same, and takes over sockets that listen already; their addresses come behind the others.
    ///
    /// # Errors
    /// If an address cannot be bound, or an inherited socket is none that can be served.
    pub fn with_inherited(config: Config, inherited: Vec<Inherited>) -> io::Result<Self> {
        let refused = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        config.check().map_err(refused)?;
        let unix_peers = Arc::new(AtomicU64::new(0));
        let mut listeners = Vec::new();
        for listen in &config.listen {
            listeners.extend(Listener::bind(listen, &config, &unix_peers)?);
        }
        for inherited in inherited {
            listeners.push(Listener::adopt(inherited, &unix_peers)?);
        }
        let addresses: Vec<Listen> = listeners.iter().map(|listener| listener.address.clone()).collect();
        // Those that are taken over have been seen by nobody yet.
        addresses.iter().try_for_each(|address| config.check_listener(address)).map_err(refused)?;
        Ok(Self { config, listeners, addresses })
    }

    /// The addresses bound, in the order of `config.listen`, with the ports that were taken for port 0. A host name
    /// that has several addresses makes as many of them.
    #[must_use]
    pub fn addresses(&self) -> &[Listen] {
        &self.addresses
    }

    /// Gives the files of the Unix sockets bound here, and their locks, to this user and group: before this process
    /// becomes that user. No link that somebody has put in the place of such a file is followed.
    ///
    /// # Errors
    /// If this process may not do that; the message names the address.
    pub fn give_to(&self, uid: u32, gid: u32) -> io::Result<()> {
        self.listeners.iter().try_for_each(|listener| listener.give_to(uid, gid))
    }

    /// Serves `broker`; connections that speak `message` are given `service`, usually
    /// [`Service::locks`]. Starts a thread for each listener, one for chores, and then one for each
    /// connection; signals are blocked in all of them.
    ///
    /// # Errors
    /// If a thread cannot be started; then nothing is served.
    pub fn serve(self, broker: &Broker, service: Service) -> io::Result<Server> {
        let state = Arc::new(ServerState::new(broker.clone(), self.config)?);
        // Dropped on the way out of an error, it stops what has been started.
        let mut server = Server { state: state.clone(), addresses: self.addresses, threads: Vec::new() };
        let maintenance = state.maintenance.clone();
        let _blocked = SignalsBlocked::new()?;
        server.spawn(c"lockd-maint", move || maintenance.run())?;
        let service = Arc::new(service);
        let config = state.config();
        server.addresses.iter().for_each(|address| config.log_exposure(address));
        config.log_objection(&server.addresses);
        for listener in self.listeners {
            let (state, service) = (state.clone(), service.clone());
            server.spawn(c"lockd-listen", move || listener.run(&state, &service))?;
        }
        Ok(server)
    }
}

/// A broker served to the network, until it is stopped or dropped.
pub struct Server {
    state: Arc<ServerState>,
    addresses: Vec<Listen>,
    threads: Vec<Thread>,
}

impl Server {
    /// Binds all of `config.listen` and serves `broker` there: [`Bound::new`] and [`Bound::serve`].
    ///
    /// # Errors
    /// If an address cannot be bound, or a thread not started; then nothing is served.
    pub fn start(broker: &Broker, config: Config, service: Service) -> io::Result<Self> {
        Bound::new(config)?.serve(broker, service)
    }

    fn spawn(&mut self, name: &'static CStr, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(Thread::start(name, STACK_BYTES, work)?);
        Ok(())
    }

    /// The addresses served, as [`Bound::addresses`].
    #[must_use]
    pub fn addresses(&self) -> &[Listen] {
        &self.addresses
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state.connections()
    }

    /// The numbers of what comes and goes here.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        Traffic::of(&self.state)
    }

    /// Whether [`reconfigure`](Self::reconfigure) can be: what is bound stays, and must go with what is wanted.
    ///
    /// # Errors
    /// What is in the way, such as a listener by which one could get around a secret.
    pub fn check(&self, config: &Config) -> Result<(), String> {
        self.addresses.iter().try_for_each(|address| config.check_listener(address))
    }

    /// Sets up the server anew. The access list and the limits hold for connections that come from now
    /// on; names that are disabled are forgotten at once. What is bound, the mode of Unix sockets, and whether
    /// shared excludes exclusive stay.
    ///
    /// # Errors
    /// As [`check`](Self::check); then nothing changes.
    pub fn reconfigure(&self, config: Config) -> Result<(), String> {
        self.check(&config)?;
        config.log_objection(&self.addresses);
        self.state.set_config(config);
        Ok(())
    }

    /// Calls `report`, once, should the broker fail: a bug has left its state in doubt. The server accepts
    /// and answers nothing any more then, and is best stopped.
    pub fn on_failure(&self, report: impl FnOnce() + Send + 'static) {
        *self.state.on_failure.lock() = Some(Box::new(report));
    }

    /// Closes listeners and connections, and joins every thread. The locks of the connections are freed
    /// and go to waiters of other sessions of the broker, if it has any and has not been
    /// [shut](Broker::shut) before. In that case it may take as long as the dead-peer timeout: a session of
    /// this library that is cut off from the network keeps its locks until it knows, and one that asked for
    /// time to end its work until it has, for as long again at most.
    pub fn stop(mut self) {
        self.stop_all(None);
    }

    /// The same, and sees to it that everyone who held a lock knows, unless that takes longer than `limit`:
    /// the kernel of each has acknowledged that its connection has ended. Returns how many have not. To be
    /// called when the broker has been [shut](Broker::shut), so that there are no new holders.
    pub fn stop_and_tell(mut self, limit: Duration) -> usize {
        self.stop_all(Some(limit))
    }

    fn stop_all(&mut self, limit: Option<Duration>) -> usize {
        // Before anything ends because of the stop: who held a lock when it began must be told.
        let holders = self.state.holders();
        self.state.stopping.store(true, Release);
        self.state.stop.wake();
        let mut threads = std::mem::take(&mut self.threads).into_iter();
        let maintenance = threads.next();
        // The listeners first: then no more connections come.
        threads.for_each(Thread::join);
        self.state.hang_up_all();
        let untold = await_knowledge(&holders, limit.unwrap_or(Duration::ZERO));
        self.state.close_all().into_iter().for_each(Thread::join);
        self.state.maintenance.stop();
        maintenance.into_iter().for_each(Thread::join);
        untold
    }
}

/// Waits until the clients of these connections know of their end, but not longer than `limit`; returns how many
/// may not know.
fn await_knowledge(outboxes: &[Arc<SendQueue>], limit: Duration) -> usize {
    let deadline = Instant::now() + limit;
    loop {
        let untold = outboxes.iter().filter(|send_queue| !send_queue.look().is_known()).count();
        if untold == 0 || Instant::now() >= deadline {
            return untold;
        }
        std::thread::sleep(DELIVERY_LOOK);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_all(None);
    }
}

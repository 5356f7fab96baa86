//! The server: where sockets and the broker meet. It has listeners, a thread for each connection,
//! the conversations of the three protocols, the access list, limits and counters. It decides
//! nothing about locks.
//!
//! - The way of a connection: `listener` binds, accepts and refuses; `handshake` is TLS, WebSocket
//!   and the secret (`auth_token`); `serve` picks the protocol; `connection` is the loop of its
//!   thread, over an `input` buffer; `text` and `message` do at the broker what their requests ask
//!   for. `wrong_protocol` answers clients of other protocols.
//! - What it has to send: `send_queue`, encoded by its `framing`; `maintenance` is the thread that
//!   sends on to slow readers.
//! - How it ends: **`client_knows` is the rule about when a client knows that it has lost its
//!   locks**; `hold_locks` keeps them until then.
//! - `server_state` is what all connections share; `config` how a server is set up, and `options`
//!   the same as text; `log_throttle` logs what clients can cause often; `keeper` has what a
//!   server must know after a restart, and `state_dir` is where that is kept; `control_socket` is
//!   for the orders of its administrator.
//! - How it is replaced by another image of the program: `parking` stops every thread at a safe
//!   point; `snapshot` is the state as data, and a server made from it; `starter` starts the threads
//!   of its connections when they have something to do.

mod access_list;
mod acquire;
mod auth_token;
mod client_knows;
#[cfg(feature = "cluster")]
pub mod cluster;
mod config;
mod connection;
mod control_socket;
mod framing;
#[cfg(fuzzing)]
pub mod fuzz_driver;
mod handshake;
mod hold_locks;
mod input;
#[cfg(all(test, any(explore = "loom", explore = "shuttle")))]
mod interleavings;
pub mod keeper;
mod listener;
mod log_throttle;
mod maintenance;
mod message;
mod options;
mod parking;
mod resume;
mod send_queue;
mod serve;
mod server_state;
pub mod snapshot;
mod starter;
pub mod state_dir;
mod statistics;
mod text;
mod upgrades;
mod wrong_protocol;

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::sync::atomic::Ordering::Release;
use std::time::{Duration, Instant};

pub use access_list::parse_allow;
pub use auth_token::AuthToken;
pub use config::{Config, Inherited, Listen, ListenAddress, Protocol, Scheduling, parse_origin};
pub use control_socket::ControlSocket;
use keeper::Resumption;
use listener::Listener;
pub use listener::bind_every;
pub use message::{Call, Responder, Service};
pub use options::{OptionError, Options};
pub use parking::allow_parking;
use parking::{NotParked, ParkedState};
use send_queue::SendQueue;
use serve::RestoredConnection;
use server_state::{ClusterPart, ServerState, Standby};
use snapshot::{RestoredServer, ServerSnapshot};
use starter::Starter;
pub use statistics::{STATISTICS, ServerStats, Statistic, StatisticKind, StatsReader};
pub use upgrades::Upgrades;

use crate::broker::Broker;
use crate::os::sync::{Arc, AtomicU64, Weak};
use crate::os::thread::{SignalsBlocked, Thread};
pub use crate::os::tls::ServerTls;

/// The stack of a listener's thread and of the maintenance: reserved address space.
const STACK_BYTES: usize = 1 << 20;
/// How often a stopping server checks whether its clients know of the end.
const STOP_POLL: Duration = Duration::from_millis(1);

/// Addresses that are bound and not yet served. Now a program can give up its privileges.
pub struct Bound {
    config: Config,
    listeners: Vec<Listener>,
    addresses: Vec<Listen>,
}

impl Bound {
    /// Binds all of `config.listen`.
    ///
    /// # Errors
    /// If an address cannot be bound, or the configuration [contradicts itself](Config::check); the
    /// message names the address.
    pub fn new(config: Config) -> io::Result<Self> {
        Self::with_inherited(config, Vec::new())
    }

    /// The same, and takes over sockets that listen already. Their addresses follow the others.
    ///
    /// # Errors
    /// As [`new`](Self::new); also if an inherited socket cannot be served.
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
        // `config.check` does not know the inherited ones.
        addresses.iter().try_for_each(|address| config.check_listener(address)).map_err(refused)?;
        Ok(Self { config, listeners, addresses })
    }

    /// The bound addresses in the order of `config.listen`, with the ports that were taken for port
    /// 0. A host name with several addresses stands for all of them.
    #[must_use]
    pub fn addresses(&self) -> &[Listen] {
        &self.addresses
    }

    /// Makes this user and group the owners of the files of the Unix sockets bound here, and of
    /// their lock files. To be called before this process becomes that user. If such a file was
    /// replaced by a link, the link is not followed.
    ///
    /// # Errors
    /// If this process may not do that; the message names the address.
    pub fn give_to(&self, uid: u32, gid: u32) -> io::Result<()> {
        self.listeners.iter().try_for_each(|listener| listener.give_to(uid, gid))
    }

    /// Serves `broker`. `service` handles the commands of connections that speak `message`; it
    /// usually is [`Service::locks`]. Starts a thread for each listener, one for maintenance, and
    /// later one for each connection. All signals are blocked in these threads.
    ///
    /// # Errors
    /// If a thread cannot be started. Then nothing is served.
    pub fn serve(self, broker: &Broker, service: Service) -> io::Result<Server> {
        self.serve_resumable(broker, service, None)
    }

    /// As [`serve`](Self::serve), but as a standby of the cluster of this name: no client gets a
    /// session until this becomes the active server. Those that speak `message` are told so.
    ///
    /// # Errors
    /// As [`serve`](Self::serve).
    pub fn serve_as_standby(self, broker: &Broker, service: Service, cluster: &str) -> io::Result<Server> {
        let state = Arc::new(ServerState::new(broker.clone(), self.config)?);
        let standby = Standby { cluster: cluster.to_owned(), active: None };
        *state.cluster.lock() = Some(ClusterPart::Standby(standby));
        Server::start_threads(state, self.listeners, self.addresses, service, Vec::new())
    }

    /// As [`serve`](Self::serve). With a `resumption`, which must be that of the broker's state
    /// directory, clients can [resume](keeper::Resumption) their sessions.
    ///
    /// # Errors
    /// As [`serve`](Self::serve).
    pub fn serve_resumable(
        self,
        broker: &Broker,
        service: Service,
        resumption: Option<Resumption>,
    ) -> io::Result<Server> {
        let state = Arc::new(ServerState::new(broker.clone(), self.config)?);
        state.resumable.set_resumption(resumption);
        Server::start_threads(state, self.listeners, self.addresses, service, Vec::new())
    }
}

impl RestoredServer {
    /// Serves its broker and goes on with its connections, as [`Bound::serve_resumable`].
    ///
    /// # Errors
    /// If a thread cannot be started. Then nothing is served.
    pub fn serve(self, service: Service, resumption: Option<Resumption>) -> io::Result<Server> {
        let Self { state, listeners, addresses, connections } = self;
        state.resumable.set_resumption(resumption);
        Server::start_threads(state, listeners, addresses, service, connections)
    }
}

/// A broker that is served to the network, until this is stopped or dropped.
pub struct Server {
    state: Arc<ServerState>,
    addresses: Vec<Listen>,
    /// The maintenance first.
    threads: Vec<Thread>,
    /// Each is kept by its thread.
    listeners: Vec<Weak<Listener>>,
    /// Of a server with connections from an earlier image of the program.
    starter: Option<Arc<Starter>>,
}

impl Server {
    /// Binds all of `config.listen` and serves `broker` there: [`Bound::new`] and [`Bound::serve`].
    ///
    /// # Errors
    /// If an address cannot be bound or a thread cannot be started. Then nothing is served.
    pub fn start(broker: &Broker, config: Config, service: Service) -> io::Result<Self> {
        Bound::new(config)?.serve(broker, service)
    }

    fn start_threads(
        state: Arc<ServerState>,
        listeners: Vec<Listener>,
        addresses: Vec<Listen>,
        service: Service,
        connections: Vec<RestoredConnection>,
    ) -> io::Result<Self> {
        // If a later step fails, its drop stops the threads that have been started.
        let (threads, waiting) = (Vec::new(), Vec::new());
        let mut server = Self { state: state.clone(), addresses, threads, listeners: waiting, starter: None };
        let maintenance = state.maintenance.clone();
        let _blocked = SignalsBlocked::new()?;
        let parking = state.parking.clone();
        server.spawn(c"lockd-maint", move || maintenance.run(&parking))?;
        let service = Arc::new(service);
        let config = state.config();
        server.addresses.iter().for_each(|address| config.log_exposure(address));
        config.log_objection(&server.addresses);
        for listener in listeners {
            let (listener, state, service) = (Arc::new(listener), state.clone(), service.clone());
            server.listeners.push(Arc::downgrade(&listener));
            server.spawn(c"lockd-listen", move || listener.run(&state, &service))?;
        }
        if !connections.is_empty() {
            connections.iter().for_each(|connection| connection.accepted.send_queue.go_on());
            let starter = Arc::new(Starter::new(state, service, connections)?);
            server.starter = Some(starter.clone());
            server.spawn(c"lockd-starter", move || starter.run())?;
        }
        Ok(server)
    }

    fn spawn(&mut self, name: &'static CStr, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let starting = self.state.parking.expect_thread();
        let work = move || {
            let _parkable = starting.join();
            work();
        };
        self.threads.push(Thread::start(name, STACK_BYTES, work)?);
        Ok(())
    }

    /// The served addresses, as [`Bound::addresses`].
    #[must_use]
    pub fn addresses(&self) -> &[Listen] {
        &self.addresses
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state.connections()
    }

    /// The dead-peer timeout that clients are told.
    #[must_use]
    pub fn dead_peer_timeout(&self) -> Duration {
        self.state.config().dead_peer_timeout
    }

    /// Reads this server's statistics, also after it has stopped.
    #[must_use]
    pub fn stats_reader(&self) -> StatsReader {
        StatsReader::of(&self.state)
    }

    /// Sets what the statistics say of upgrades in place. For a program that has taken this server
    /// over from an earlier image of its process.
    pub fn set_upgrades(&self, upgrades: Upgrades) {
        *self.state.upgrades.lock() = upgrades;
    }

    /// Checks whether [`reconfigure`](Self::reconfigure) would accept this configuration. The
    /// listeners stay as they are, so it must suit them.
    ///
    /// # Errors
    /// The reason why not, such as a listener through which a client could avoid the secret.
    pub fn check(&self, config: &Config) -> Result<(), String> {
        self.addresses.iter().try_for_each(|address| config.check_listener(address))
    }

    /// Checks whether a server with the present configuration could be made from a snapshot of this
    /// one.
    ///
    /// # Errors
    /// The reason why not: a bug.
    pub fn check_snapshot(&self, snapshot: &ServerSnapshot) -> Result<(), String> {
        snapshot.check(&self.state.config(), self.state.broker.limits())
    }

    /// Replaces the configuration. The access list and the limits apply to connections that are
    /// accepted from now on. If registered names are disabled, they are removed at once. The
    /// listeners, the mode of Unix sockets, and whether shared locks exclude exclusive ones stay as
    /// they are.
    ///
    /// # Errors
    /// As [`check`](Self::check). Then nothing changes.
    pub fn reconfigure(&self, config: Config) -> Result<(), String> {
        self.check(&config)?;
        config.log_objection(&self.addresses);
        self.state.set_config(config);
        Ok(())
    }

    /// Calls `report` once if the broker fails, which means that a bug has left its state in doubt.
    /// From then on the server accepts no connection and answers no request, and should be stopped.
    pub fn on_failure(&self, report: impl FnOnce() + Send + 'static) {
        *self.state.on_failure.lock() = Some(Box::new(report));
    }

    /// Stops all threads at a safe point for as long as `work` runs: no request is being handled,
    /// no call of the broker is going on, and nothing is read or sent. Then all go on as if nothing
    /// had happened. Needs [`allow_parking`]. Not to be called while it runs already, or while the
    /// server stops.
    ///
    /// # Errors
    /// If they could not all be stopped within `limit`: mostly because a client does not read a
    /// long reply. They go on.
    pub fn while_parked<R>(
        &self,
        limit: Duration,
        work: impl FnOnce(ParkedServer<'_>) -> R,
    ) -> io::Result<R> {
        let parked = self.state.parking.park_all(limit, |told| work(ParkedServer { server: self, told }));
        parked.map_err(|error| io::Error::new(io::ErrorKind::TimedOut, self.explain(error, limit)))
    }

    /// Why not all threads could be stopped.
    fn explain(&self, NotParked { threads, mut parked }: NotParked, limit: Duration) -> String {
        parked.extend(self.starter.iter().flat_map(|starter| starter.parked_states()).map(|(id, _)| id));
        let connections = self.state.listed_connections().into_iter();
        let busy: Vec<_> =
            connections.filter(|(id, _)| !parked.contains(id)).map(|(_, one)| one.address).collect();
        let who = match &busy[..] {
            [] if threads == 1 => "a thread was".to_owned(),
            [] => format!("{threads} threads were"),
            [one] => format!("the connection of {one} was"),
            [one, others @ ..] => format!("the connections of {one} and {} more were", others.len()),
        };
        format!("{who} busy for longer than {} s, in which nobody was served", limit.as_secs_f64())
    }

    /// Closes all listeners and connections, and joins every thread. The connections' locks are
    /// released, and go to waiters of the broker's other sessions.
    ///
    /// If the broker has been [shut](Broker::shut) before, it grants nothing any more, and this
    /// returns soon. Otherwise it may take as long as the dead-peer timeout, since a client that is
    /// cut off from the network keeps its locks until it knows that it has lost them; and as long
    /// again if a client asked for time to end its work.
    pub fn stop(mut self) {
        self.stop_all(None);
    }

    /// The same, but first waits until all clients that hold a lock know of the end, for `limit` at
    /// most: each client's kernel has acknowledged it. Returns how many have not. To be called
    /// after the broker has been [shut](Broker::shut), so that there are no new holders.
    pub fn stop_and_tell(mut self, limit: Duration) -> usize {
        self.stop_all(Some(limit))
    }

    fn stop_all(&mut self, limit: Option<Duration>) -> usize {
        // Before any connection ends because of the stop: the clients that hold a lock now must be
        // told.
        let holders = self.state.holders();
        let resumable = self.state.resumable.holders();
        self.state.stopping.store(true, Release);
        self.state.stop.wake();
        let mut threads = std::mem::take(&mut self.threads).into_iter();
        let maintenance = threads.next();
        // The listeners first, so that no more connections are accepted.
        threads.for_each(Thread::join);
        self.state.hang_up_all();
        let unaware = wait_until_clients_know(&holders, limit.unwrap_or(Duration::ZERO));
        self.state.resumable.note_held(&resumable);
        self.state.close_all().into_iter().for_each(Thread::join);
        self.state.maintenance.stop();
        maintenance.into_iter().for_each(Thread::join);
        unaware
    }
}

/// A server whose threads are all parked.
pub struct ParkedServer<'a> {
    server: &'a Server,
    /// What the connections' threads have told, by the connections' numbers.
    told: BTreeMap<u64, ParkedState>,
}

impl ParkedServer<'_> {
    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        debug_assert!(self.told.len() <= self.server.connections());
        self.server.connections()
    }

    /// The state of the server and of its broker, for the image that replaces this one.
    ///
    /// # Errors
    /// If it cannot be handed over. The text says why.
    pub fn snapshot(&self) -> Result<ServerSnapshot, String> {
        let Server { state, listeners, starter, .. } = self.server;
        let mut told = self.told.clone();
        told.extend(starter.iter().flat_map(|starter| starter.parked_states()));
        snapshot::collect::collect(state, listeners, told)
    }
}

/// Waits until the clients of these connections know of their end, for `limit` at most. Returns how
/// many may not know.
fn wait_until_clients_know(connections: &[Arc<SendQueue>], limit: Duration) -> usize {
    let deadline = Instant::now() + limit;
    loop {
        let unaware = connections.iter().filter(|connection| !connection.client_state().is_settled()).count();
        if unaware == 0 || Instant::now() >= deadline {
            return unaware;
        }
        std::thread::sleep(STOP_POLL);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_all(None);
    }
}

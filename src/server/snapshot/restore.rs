//! A server from a snapshot, in the image that the descriptors were handed over to.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use super::types::{ConnectionSnapshot, ResumableSnapshot, ServerSnapshot, StateSnapshot, WaitsSnapshot};
use crate::broker::{Broker, Limits, ObservedSession};
use crate::os::monotonic::moment_at;
use crate::os::socket::Stream;
use crate::os::sync::{Arc, AtomicU64};
use crate::server::client_knows::TELL_LIMIT;
use crate::server::config::{Config, Listen, Protocol};
use crate::server::handshake::AcceptedConnection;
use crate::server::listener::Listener;
use crate::server::maintenance::Maintenance;
use crate::server::parking::ParkedState;
use crate::server::send_queue::SendQueue;
use crate::server::serve::{ConnectionWaits, RestoredConnection, RestoredSession};
use crate::server::server_state::{ListedConnection, ServerState};

/// A server from a snapshot, not served yet. If it is dropped, its connections end, and its broker
/// grants nothing any more.
pub struct RestoredServer {
    pub(in crate::server) state: Arc<ServerState>,
    pub(in crate::server) listeners: Vec<Listener>,
    pub(in crate::server) addresses: Vec<Listen>,
    pub(in crate::server) connections: Vec<RestoredConnection>,
}

/// A connection whose session does not exist yet.
struct TakenConnection {
    id: u64,
    is_tcp: bool,
    protocol: Protocol,
    address: String,
    config: Arc<Config>,
    session: Option<u64>,
    resumable: Option<ResumableSnapshot>,
    send_queue: Arc<SendQueue>,
    waits: ConnectionWaits,
    /// None if the connection has ended before its session has begun.
    state: Option<ParkedState>,
}

impl RestoredServer {
    /// Takes over the descriptors of the snapshot, and makes a server of it. The configuration is
    /// that of the new image, as after a [reconfiguration](crate::server::Server::reconfigure):
    /// listeners stay as they are, connections keep what they have begun with, and whether shared
    /// locks exclude exclusive ones does not change. Fencing tokens stay below `tokens_end`.
    ///
    /// # Errors
    /// If the snapshot or a descriptor is not as it must be. The message names what it is about.
    pub fn new(
        snapshot: ServerSnapshot,
        config: Config,
        limits: Limits,
        tokens_end: u64,
    ) -> io::Result<Self> {
        snapshot.check_parts(&config).map_err(invalid)?;
        if config.shared_excludes != snapshot.shared_excludes {
            log::warn!("shared-excludes stays as it was: it needs a restart to change");
        }
        let config = Config { shared_excludes: snapshot.shared_excludes, ..config };
        let unix_peers = Arc::new(AtomicU64::new(snapshot.unix_peers));
        let listeners = snapshot.listeners.into_iter().map(|one| Listener::restore(one, &unix_peers));
        let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
        let maintenance = Arc::new(Maintenance::new()?);
        let configs: Vec<Arc<Config>> =
            snapshot.configs.into_iter().map(|one| Arc::new(one.with(&config))).collect();
        let open = |one: ConnectionSnapshot| TakenConnection::new(one, &configs, &maintenance);
        let connections = snapshot.connections.into_iter().map(open).collect::<io::Result<Vec<_>>>()?;
        let waits: BTreeMap<u64, &ConnectionWaits> =
            connections.iter().filter_map(|one| Some((one.session?, &one.waits))).collect();
        let restored =
            Broker::restore(&snapshot.broker, limits, tokens_end, |session| match waits.get(&session.id) {
                Some(waits) => waits.observer(),
                // `check_parts` has found a connection of each session.
                None => unreachable!("a session without a connection"),
            });
        let (broker, sessions) = restored.map_err(invalid)?;
        let started = moment_at(snapshot.started_nanos).unwrap_or_else(Instant::now);
        let state = ServerState::with_maintenance(broker.clone(), config, maintenance);
        let resumed = state.and_then(|mut state| {
            state.resume_counters(&snapshot.counters, started).map_err(invalid)?;
            Ok(state)
        });
        // Before the sessions are dropped: their clients have not been told, so that nobody else may
        // get their locks.
        let state = resumed.inspect_err(|_| broker.shut())?;
        let state = Arc::new(state);
        let mut sessions: BTreeMap<u64, ObservedSession> =
            sessions.into_iter().map(|session| (session.info().id(), session)).collect();
        let connections = connections.into_iter().filter_map(|one| {
            let session = one.session.and_then(|id| sessions.remove(&id));
            one.admit(&state, session)
        });
        let connections = connections.collect();
        if !state.config().registry {
            state.forget_names();
        }
        let addresses = listeners.iter().map(|listener| listener.address.clone()).collect();
        Ok(Self { state, listeners, addresses, connections })
    }

    /// Its broker, with the locks of its connections.
    #[must_use]
    pub fn broker(&self) -> &Broker {
        &self.state.broker
    }

    /// The addresses of its listeners.
    #[must_use]
    pub fn addresses(&self) -> &[Listen] {
        &self.addresses
    }
}

fn invalid(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

impl TakenConnection {
    fn new(
        snapshot: ConnectionSnapshot,
        configs: &[Arc<Config>],
        maintenance: &Arc<Maintenance>,
    ) -> io::Result<Self> {
        let ConnectionSnapshot { id, fd, config, is_tcp, protocol, address, session, resumable, .. } =
            snapshot;
        let (send_queue, state) = (snapshot.send_queue, snapshot.state);
        let in_context = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
        let stream = Stream::take_over(fd, is_tcp).map_err(in_context)?;
        let config = configs.get(config).ok_or_else(|| in_context(invalid("no configuration")))?.clone();
        let send_queue = SendQueue::restore(stream, config.outbox_bytes_max, maintenance.clone(), send_queue);
        let send_queue = Arc::new(send_queue.map_err(|what| in_context(invalid(what)))?);
        let waits = |waits: Option<WaitsSnapshot>| match waits {
            None => Ok(ConnectionWaits::new(protocol, send_queue.clone())),
            Some(waits) => ConnectionWaits::restore(protocol, send_queue.clone(), waits),
        };
        let moment = |nanos| moment_at(nanos).ok_or("no moment");
        let restored = match state {
            StateSnapshot::Handshake { early, deadline_nanos } => moment(deadline_nanos)
                .and_then(|deadline| Ok((waits(None)?, Some(ParkedState::Handshake { early, deadline })))),
            StateSnapshot::Conversation { input, is_new, tickets, handler, waits: owed } => waits(Some(owed))
                .map(|waits| (waits, Some(ParkedState::Conversation { input, is_new, tickets, handler }))),
            StateSnapshot::Ending { tell_deadline_nanos } => moment(tell_deadline_nanos)
                .and_then(|tell_deadline| Ok((waits(None)?, Some(ParkedState::Ending { tell_deadline })))),
            StateSnapshot::Lost { .. } => {
                let tell_deadline = Instant::now() + TELL_LIMIT;
                let state = session.is_some().then_some(ParkedState::Ending { tell_deadline });
                waits(None).map(|waits| (waits, state))
            }
        };
        let (waits, state) = restored.map_err(|what| in_context(invalid(what)))?;
        Ok(Self { id, is_tcp, protocol, address, config, session, resumable, send_queue, waits, state })
    }

    /// Adds it to the server's list. `None` if it has ended, which its client learns from its end of
    /// stream.
    fn admit(
        self,
        server: &Arc<ServerState>,
        session: Option<ObservedSession>,
    ) -> Option<RestoredConnection> {
        let Self { id, is_tcp, protocol, address, config, session: _, resumable, send_queue, waits, state } =
            self;
        let Some(state) = state else {
            send_queue.hang_up();
            return None;
        };
        let session = session.map(Arc::new);
        let resumable = resumable.zip(session.as_ref()).map(
            |(ResumableSnapshot { id: own, attempt, is_over }, session)| {
                server.resumable.restore(own, (id, &send_queue, session), attempt, is_over)
            },
        );
        let info = session.as_ref().map(|session| session.info().clone());
        let pending = info.is_some().then(|| waits.pending());
        let listed = ListedConnection {
            protocol,
            address: address.as_str().into(),
            send_queue: send_queue.clone(),
            config: config.clone(),
            info,
            waits: pending,
            resumable: resumable.clone(),
        };
        server.readmit(id, listed);
        let secret = config.auth_token.clone().filter(|_| protocol == Protocol::Message && is_tcp);
        let accepted = AcceptedConnection {
            id,
            server: server.clone(),
            send_queue,
            config,
            protocol,
            // Its handshake is over.
            websocket: false,
            secret,
            address,
        };
        let session = session.map(|session| RestoredSession { session, resumable, waits });
        Some(RestoredConnection { accepted, session, state })
    }
}

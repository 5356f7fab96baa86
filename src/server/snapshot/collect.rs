//! The snapshot of a server whose threads are parked. Changes nothing: the server can go on
//! afterwards.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::RawFd;

use super::types::{
    ConfigSnapshot, ConnectionSnapshot, LossReason, ResumableSnapshot, ServerSnapshot, StateSnapshot,
};
use crate::os::monotonic::nanos_of;
use crate::os::sync::{Arc, Weak};
use crate::server::config::Config;
use crate::server::listener::Listener;
use crate::server::parking::ParkedState;
use crate::server::server_state::{ListedConnection, ServerState};

/// `told` is what the parked threads have told of their connections.
///
/// # Errors
/// If the state cannot be handed over. The text says why.
pub(in crate::server) fn collect(
    server: &ServerState,
    listeners: &[Weak<Listener>],
    mut told: BTreeMap<u64, ParkedState>,
) -> Result<ServerSnapshot, String> {
    let broker = server.broker.snapshot().map_err(|error| error.to_string())?;
    let of_listener = |listener: &Weak<Listener>| listener.upgrade().ok_or("a listener has ended");
    let listeners = listeners.iter().map(of_listener).collect::<Result<Vec<_>, _>>()?;
    let mut configs = DistinctConfigs::default();
    let mut connections = Vec::new();
    for (id, connection) in server.listed_connections() {
        let state = told.remove(&id).ok_or("its thread has told nothing");
        let is_served = matches!(&state, Ok(ParkedState::Conversation { .. } | ParkedState::Ending { .. }));
        if is_served && connection.info.is_none() {
            // Its session has another connection, and it is about to end.
            continue;
        }
        let collected = state.and_then(|state| {
            collect_connection(id, &connection, configs.index_of(&connection.config), state)
        });
        connections.push(collected.map_err(|what| format!("{}: {what}", connection.address))?);
    }
    Ok(ServerSnapshot {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        broker,
        unix_peers: listeners.first().map_or(0, |listener| listener.unix_peers()),
        listeners: listeners.iter().map(|listener| listener.snapshot()).collect(),
        shared_excludes: server.config().shared_excludes,
        started_nanos: nanos_of(server.started),
        counters: server.counters(),
        configs: configs.all,
        connections,
    })
}

/// The configurations of all connections: with each reload there may be one more.
#[derive(Default)]
struct DistinctConfigs {
    all: Vec<ConfigSnapshot>,
    /// By the address of the configuration.
    indexes: HashMap<*const Config, usize>,
}

impl DistinctConfigs {
    fn index_of(&mut self, config: &Arc<Config>) -> usize {
        *self.indexes.entry(std::ptr::from_ref(&**config)).or_insert_with(|| {
            self.all.push(ConfigSnapshot::of(config));
            self.all.len() - 1
        })
    }
}

fn collect_connection(
    id: u64,
    connection: &ListedConnection,
    config: usize,
    state: ParkedState,
) -> Result<ConnectionSnapshot, &'static str> {
    let ListedConnection { protocol, address, send_queue, info, waits, resumable, config: _ } = connection;
    let (send_queue_snapshot, loss) = send_queue.snapshot()?;
    let state = match (state, loss) {
        (ParkedState::Ending { tell_deadline }, _) => {
            StateSnapshot::Ending { tell_deadline_nanos: nanos_of(tell_deadline) }
        }
        (_, Some(reason)) => StateSnapshot::Lost { reason },
        (ParkedState::Handshake { early, deadline }, None) => {
            StateSnapshot::Handshake { early, deadline_nanos: nanos_of(deadline) }
        }
        (ParkedState::Conversation { input, is_new, tickets, handler }, None) => {
            let waits = waits.as_ref().ok_or("it has no session")?.snapshot();
            StateSnapshot::Conversation { input, is_new, tickets, handler, waits }
        }
    };
    Ok(ConnectionSnapshot {
        id,
        fd: send_queue.stream.number(),
        config,
        is_tcp: send_queue.stream.is_tcp(),
        protocol: *protocol,
        address: address.to_string(),
        session: info.as_ref().map(|info| info.id()),
        resumable: resumable.as_ref().map(|resumable| ResumableSnapshot {
            id: resumable.id,
            attempt: resumable.attempt(),
            is_over: resumable.is_over(),
        }),
        send_queue: send_queue_snapshot,
        state,
    })
}

impl ServerSnapshot {
    /// The version of the lockd that wrote it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Every descriptor that it needs. They must stay open through execve(2), with these numbers.
    #[must_use]
    pub fn descriptors(&self) -> Vec<RawFd> {
        let mut descriptors: Vec<RawFd> = self.connections.iter().map(|connection| connection.fd).collect();
        for listener in &self.listeners {
            descriptors.push(listener.fd);
            descriptors.extend(listener.file.iter().flat_map(|file| [file.fd, file.lock_fd]));
        }
        descriptors
    }

    /// How many connections it has.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// The connections that cannot go on in another image, each as an address and why.
    pub fn lost_connections(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.connections.iter().filter_map(|connection| match connection.state {
            StateSnapshot::Lost { reason: LossReason::Tls } => Some((&*connection.address, "it is in TLS")),
            StateSnapshot::Lost { reason: LossReason::Handshake } => {
                Some((&*connection.address, "it is amid its handshake"))
            }
            _ => None,
        })
    }
}

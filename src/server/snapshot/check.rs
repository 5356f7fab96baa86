//! Whether a server can be made from a snapshot, as far as that can be said without its descriptors:
//! the parts are made, and thrown away, and what they say of each other is compared. For a process
//! that is to find out before it is too late, and before a server is restored.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::types::{ConnectionSnapshot, HandlerSnapshot, ServerSnapshot, StateSnapshot, WaitsSnapshot};
use crate::broker::{Broker, Limits, Observer, Outcome, Ticket};
use crate::os::monotonic::moment_at;
use crate::os::sync::Arc;
use crate::server::config::{Config, Protocol};
use crate::server::listener::listen_of;
use crate::server::message::MessageWaits;
use crate::server::send_queue::SendQueue;
use crate::server::server_state::CommandCounts;

/// Is told nothing, since its broker is thrown away at once.
struct NoObserver;

impl Observer for NoObserver {
    fn decided(&self, _: Ticket, _: Outcome) {}

    fn deliver(&self) {}
}

impl ServerSnapshot {
    /// Checks that a server with this configuration can be made from it.
    ///
    /// # Errors
    /// The reason why not.
    pub fn check(&self, config: &Config, limits: Limits) -> Result<(), String> {
        self.check_parts(config)?;
        let restored = Broker::restore(&self.broker, limits, u64::MAX, |_| Arc::new(NoObserver));
        restored.map(drop).map_err(|error| error.to_string())
    }

    /// The same without the broker.
    pub(super) fn check_parts(&self, config: &Config) -> Result<(), String> {
        for listener in &self.listeners {
            config.check_listener(&listen_of(listener))?;
        }
        for counts in [&self.counters.lockd_commands, &self.counters.glockd_commands] {
            CommandCounts::restore(counts)?;
        }
        moment_at(self.started_nanos).ok_or("it was started at no moment")?;
        let mut descriptors = HashSet::new();
        if !self.descriptors().into_iter().all(|number| number >= 0 && descriptors.insert(number)) {
            return Err("a descriptor is used twice".to_owned());
        }
        let mut tickets = self.tickets_by_session()?;
        let (mut last, mut resumable_ids) = (None, HashSet::new());
        for connection in &self.connections {
            let ConnectionSnapshot { id, session, resumable, .. } = connection;
            let in_context = |what| format!("{}: {what}", connection.address);
            if *id >= self.counters.next_id || last.replace(*id).is_some_and(|last| last >= *id) {
                return Err(in_context("its number is another connection's"));
            }
            if resumable.is_some_and(|resumable| !resumable_ids.insert(resumable.id)) {
                return Err(in_context("two sessions resume by one id"));
            }
            if connection.config >= self.configs.len() {
                return Err(in_context("its configuration does not exist"));
            }
            let tickets = match session.map(|session| tickets.remove(&session)) {
                None => None,
                Some(Some(tickets)) => Some(tickets),
                Some(None) => return Err(in_context("its session does not exist, or is another's")),
            };
            check_connection(connection, tickets.as_ref()).map_err(in_context)?;
        }
        match tickets.first_key_value() {
            Some((session, _)) => Err(format!("session {session} has no connection")),
            None => Ok(()),
        }
    }

    /// The tickets of the requests that wait, of each session.
    fn tickets_by_session(&self) -> Result<BTreeMap<u64, BTreeSet<Ticket>>, &'static str> {
        let sessions = &self.broker.sessions;
        let mut tickets: BTreeMap<u64, BTreeSet<Ticket>> =
            sessions.iter().map(|session| (session.id, BTreeSet::new())).collect();
        if tickets.len() != sessions.len() {
            return Err("two sessions have one number");
        }
        for wait in &self.broker.waits {
            let session = sessions.get(wait.session).ok_or("a session that waits does not exist")?;
            tickets.entry(session.id).or_default().insert(wait.ticket);
        }
        Ok(tickets)
    }
}

/// `tickets` are of the requests that wait, if the connection has a session.
fn check_connection(
    connection: &ConnectionSnapshot,
    tickets: Option<&BTreeSet<Ticket>>,
) -> Result<(), &'static str> {
    SendQueue::check(connection.send_queue.clone())?;
    if connection.send_queue.end.is_local == connection.is_tcp {
        return Err("it is local, or over a network, unlike its socket");
    }
    let can_resume = connection.send_queue.end.terms.is_some_and(|terms| terms.can_resume);
    if can_resume && connection.resumable.is_none() || connection.resumable.is_some() && tickets.is_none() {
        return Err("its session can resume, and is not there");
    }
    match (&connection.state, tickets) {
        (StateSnapshot::Handshake { deadline_nanos, .. }, None) => {
            moment_at(*deadline_nanos).map(drop).ok_or("its handshake ends at no moment")
        }
        (StateSnapshot::Ending { tell_deadline_nanos }, Some(_)) => {
            moment_at(*tell_deadline_nanos).map(drop).ok_or("it is told of its end until no moment")
        }
        (StateSnapshot::Lost { .. }, _) => Ok(()),
        (StateSnapshot::Conversation { tickets: last, handler, waits, .. }, Some(tickets)) => {
            let is_message = connection.protocol == Protocol::Message;
            if is_message != matches!(handler, HandlerSnapshot::Message {}) {
                return Err("its handler is of another protocol");
            }
            if tickets.last().is_some_and(|ticket| ticket > last) {
                return Err("a wait has a number that is still to be given");
            }
            check_waits(waits, is_message, tickets)
        }
        (StateSnapshot::Handshake { .. }, Some(_)) => Err("it has a session before it has begun"),
        (StateSnapshot::Ending { .. } | StateSnapshot::Conversation { .. }, None) => Err("it has no session"),
    }
}

/// Whether each request that waits is owed a reply, and no other.
fn check_waits(
    waits: &WaitsSnapshot,
    is_message: bool,
    tickets: &BTreeSet<Ticket>,
) -> Result<(), &'static str> {
    let is_same = match waits {
        WaitsSnapshot::Messages { .. } if !is_message => return Err("its waits are of another protocol"),
        WaitsSnapshot::Line { .. } if is_message => return Err("its waits are of another protocol"),
        WaitsSnapshot::Messages { pending } => {
            MessageWaits::check(pending)?;
            pending.iter().map(|pending| pending.ticket).eq(tickets.iter().copied())
        }
        WaitsSnapshot::Line { wanted } => tickets.len() == usize::from(wanted.is_some()),
    };
    if is_same { Ok(()) } else { Err("it waits for something else than it is owed replies for") }
}

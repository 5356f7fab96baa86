//! The first and the last moments of a connection's thread: the handshake, which protocol handler
//! and session the connection gets, and what is cleaned up however it ends. The same for a
//! connection that has begun in an earlier image of the program.

use std::io;

use super::config::{Protocol, Scheduling};
use super::connection::{Connection, ProtocolHandler};
use super::handshake::AcceptedConnection;
use super::message::{MessageHandler, MessageWaits, Service};
use super::parking::ParkedState;
use super::resume::sessions::ResumableSession;
use super::send_queue::SendQueue;
use super::server_state::{PendingWaits, ServerState};
use super::snapshot::types::{HandlerSnapshot, WaitsSnapshot};
use super::text::{LineWait, TextHandler};
use crate::broker::{ObservedSession, Observer};
use crate::os::Keepalive;
use crate::os::sync::Arc;
use crate::os::thread::{self, Thread};

/// The stack of a connection's thread: reserved address space, of which a few KiB are used.
const STACK_BYTES: usize = 128 << 10;

/// The observer of a connection's session.
#[derive(Clone)]
pub(super) enum ConnectionWaits {
    Line(Arc<LineWait>),
    Messages(Arc<MessageWaits>),
}

impl ConnectionWaits {
    pub(super) fn new(protocol: Protocol, send_queue: Arc<SendQueue>) -> Self {
        match protocol {
            Protocol::Lockd | Protocol::Glockd => Self::Line(Arc::new(LineWait::new(send_queue))),
            Protocol::Message => Self::Messages(Arc::new(MessageWaits::new(send_queue))),
        }
    }

    /// Waits that go on.
    ///
    /// # Errors
    /// If they are not waits of this protocol.
    pub(super) fn restore(
        protocol: Protocol,
        send_queue: Arc<SendQueue>,
        snapshot: WaitsSnapshot,
    ) -> Result<Self, &'static str> {
        match protocol {
            Protocol::Lockd | Protocol::Glockd => {
                Ok(Self::Line(Arc::new(LineWait::restore(send_queue, snapshot)?)))
            }
            Protocol::Message => Ok(Self::Messages(Arc::new(MessageWaits::restore(send_queue, snapshot)?))),
        }
    }

    pub(super) fn observer(&self) -> Arc<dyn Observer> {
        match self {
            Self::Line(wait) => wait.clone(),
            Self::Messages(waits) => waits.clone(),
        }
    }

    pub(super) fn pending(&self) -> Arc<dyn PendingWaits> {
        match self {
            Self::Line(wait) => wait.clone(),
            Self::Messages(waits) => waits.clone(),
        }
    }
}

/// A connection that has begun in an earlier image of the program. It is in the server's list.
///
/// If it is dropped without being served, something has gone wrong, and its client has not been
/// told that it has lost its locks. So nothing is granted any more then.
pub(super) struct RestoredConnection {
    pub(super) accepted: AcceptedConnection,
    /// None in a handshake, and once it is served.
    pub(super) session: Option<RestoredSession>,
    pub(super) state: ParkedState,
}

/// The session of such a connection.
pub(super) struct RestoredSession {
    pub(super) session: Arc<ObservedSession>,
    /// The same, if it can continue on another connection.
    pub(super) resumable: Option<Arc<ResumableSession>>,
    pub(super) waits: ConnectionWaits,
}

impl Drop for RestoredConnection {
    fn drop(&mut self) {
        if self.session.is_some() {
            self.accepted.server.broker.shut();
        }
    }
}

/// Removes a connection from the server's list when it has ended, also if its thread panics.
struct RemoveWhenDropped<'a>(&'a AcceptedConnection);

impl Drop for RemoveWhenDropped<'_> {
    fn drop(&mut self) {
        log::debug!("{} has gone", self.0.address);
        self.0.send_queue.hang_up();
        // If the broker failed in this thread, there may be no other thread to find that out.
        self.0.server.has_failed();
        self.0.server.remove(self.0.id);
    }
}

/// Starts the thread of a connection in the server's list. To be called by a thread that does not
/// park meanwhile.
///
/// # Errors
/// If the operating system cannot start one. `work` is dropped then.
pub(super) fn start_thread(
    server: &ServerState,
    id: u64,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let starting = server.parking.expect_thread();
    let work = move || {
        let _parkable = starting.join();
        work();
    };
    let thread = Thread::start(c"lockd-conn", STACK_BYTES, work)?;
    server.set_thread(id, thread);
    Ok(())
}

/// Serves the connection until it ends.
pub(super) fn serve(accepted: &AcceptedConnection, service: Arc<Service>) {
    let _removed = RemoveWhenDropped(accepted);
    log::debug!("{} speaks {}", accepted.address, accepted.protocol);
    set_scheduling(accepted);
    let keepalive = Keepalive::server_before_hello(accepted.config.dead_peer_timeout);
    let stream = &accepted.send_queue.stream;
    if let Err(error) = stream.set_nodelay().and_then(|()| stream.set_keepalive(&keepalive)) {
        // Without keepalive, a client that vanishes would hold its locks for ever.
        return log::debug!("{}: {error}", accepted.address);
    }
    let standby = accepted.server.standby();
    if standby.is_some() && accepted.is_speechless() {
        return;
    }
    let Some(early) = accepted.handshake() else { return };
    match standby {
        Some(standby) => accepted.answer_as_standby(early, &standby),
        None => begin(accepted, service, early),
    }
}

/// Serves a connection that has begun in an earlier image of the program until it ends. What was
/// set for its socket is still set.
pub(super) fn serve_restored(mut restored: RestoredConnection, service: Arc<Service>) {
    let session = restored.session.take();
    let (accepted, state) = (&restored.accepted, restored.state.clone());
    let _removed = RemoveWhenDropped(accepted);
    set_scheduling(accepted);
    let resume = |RestoredSession { session, resumable, waits }| {
        let connection = Connection::with_session(
            accepted.id,
            accepted.server.clone(),
            accepted.config.clone(),
            accepted.send_queue.clone(),
            session,
            resumable,
        );
        (connection, waits)
    };
    match (state, session.map(resume)) {
        (ParkedState::Handshake { early, deadline }, None) => {
            if let Some(early) = accepted.resume_handshake(early, deadline) {
                begin(accepted, service, early);
            }
        }
        (ParkedState::Conversation { input, is_new, tickets, handler }, Some((mut connection, waits))) => {
            connection.resume(is_new, tickets);
            let is_skipping = matches!(handler, HandlerSnapshot::Text { is_skipping: true });
            converse(accepted, connection, waits, service, (input, is_skipping));
        }
        (ParkedState::Ending { tell_deadline }, Some((mut connection, _))) => {
            // Its end goes on when it is dropped.
            connection.resume_end(tell_deadline);
        }
        // There is none of these. Dropped, the connection ends as any other.
        (ParkedState::Handshake { .. }, Some(_)) => {}
        (ParkedState::Conversation { .. } | ParkedState::Ending { .. }, None) => {}
    }
}

fn set_scheduling(accepted: &AcceptedConnection) {
    if accepted.config.scheduling == Scheduling::Batch
        && let Err(error) = thread::schedule_as_batch()
    {
        // That only costs more, so the connection is served all the same.
        log::debug!("{}: not scheduled as batch: {error}", accepted.address);
    }
}

/// Begins the session, after the handshake.
fn begin(accepted: &AcceptedConnection, service: Arc<Service>, early: Vec<u8>) {
    let waits = ConnectionWaits::new(accepted.protocol, accepted.send_queue.clone());
    let connection = Connection::new(
        accepted.id,
        accepted.server.clone(),
        accepted.config.clone(),
        accepted.send_queue.clone(),
        &accepted.address,
        waits.observer(),
    );
    accepted.server.set_session(accepted.id, connection.session.info().clone(), waits.pending());
    converse(accepted, connection, waits, service, (early, false));
}

/// `is_skipping`: the input begins within a line that was too long.
fn converse(
    accepted: &AcceptedConnection,
    connection: Connection,
    waits: ConnectionWaits,
    service: Arc<Service>,
    (input, is_skipping): (Vec<u8>, bool),
) {
    match waits {
        ConnectionWaits::Messages(waits) => {
            converse_with(accepted, connection, MessageHandler::new(service, waits), input);
        }
        ConnectionWaits::Line(wait) => {
            let mut handler = match accepted.protocol {
                Protocol::Lockd => TextHandler::lockd(&connection, wait),
                Protocol::Glockd | Protocol::Message => TextHandler::glockd(&connection, wait),
            };
            handler.resume(&connection, is_skipping);
            converse_with(accepted, connection, handler, input);
        }
    }
}

fn converse_with(
    accepted: &AcceptedConnection,
    mut connection: Connection,
    mut handler: impl ProtocolHandler,
    input: Vec<u8>,
) {
    connection.serve(&mut handler, accepted.protocol, input);
}

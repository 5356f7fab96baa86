//! The first and the last moments of a connection's thread: the handshake, which protocol handler
//! and session the connection gets, and what is cleaned up however it ends.

use super::config::{Protocol, Scheduling};
use super::connection::{Connection, ProtocolHandler};
use super::handshake::AcceptedConnection;
use super::message::{MessageHandler, MessageWaits, Service};
use super::text::{LineWait, TextHandler};
use crate::broker::Observer;
use crate::os::Keepalive;
use crate::os::sync::Arc;
use crate::os::thread;

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

/// Serves the connection until it ends.
pub(super) fn serve(accepted: &AcceptedConnection, service: Arc<Service>) {
    let _removed = RemoveWhenDropped(accepted);
    log::debug!("{} speaks {}", accepted.address, accepted.protocol);
    if accepted.config.scheduling == Scheduling::Batch
        && let Err(error) = thread::schedule_as_batch()
    {
        // That only costs more, so the connection is served all the same.
        log::debug!("{}: not scheduled as batch: {error}", accepted.address);
    }
    let keepalive = Keepalive::server_before_hello(accepted.config.dead_peer_timeout);
    let stream = &accepted.send_queue.stream;
    if let Err(error) = stream.set_nodelay().and_then(|()| stream.set_keepalive(&keepalive)) {
        // Without keepalive, a client that vanishes would hold its locks for ever.
        return log::debug!("{}: {error}", accepted.address);
    }
    let Some(early) = accepted.handshake() else { return };
    let connect = |observer: Arc<dyn Observer>| {
        Connection::new(
            accepted.server.clone(),
            accepted.config.clone(),
            accepted.send_queue.clone(),
            &accepted.address,
            observer,
        )
    };
    match accepted.protocol {
        Protocol::Lockd => {
            let wait = Arc::new(LineWait::new(accepted.send_queue.clone()));
            let connection = connect(wait.clone());
            let handler = TextHandler::lockd(&connection, wait);
            converse(accepted, connection, handler, early);
        }
        Protocol::Glockd => {
            let wait = Arc::new(LineWait::new(accepted.send_queue.clone()));
            let connection = connect(wait.clone());
            let handler = TextHandler::glockd(&connection, wait);
            converse(accepted, connection, handler, early);
        }
        Protocol::Message => {
            let waits = Arc::new(MessageWaits::new(accepted.send_queue.clone()));
            converse(accepted, connect(waits.clone()), MessageHandler::new(service, waits), early);
        }
    }
}

fn converse(
    accepted: &AcceptedConnection,
    mut connection: Connection,
    mut handler: impl ProtocolHandler,
    early: Vec<u8>,
) {
    accepted.server.set_info(accepted.id, connection.session.info().clone());
    connection.serve(&mut handler, accepted.protocol, early);
}

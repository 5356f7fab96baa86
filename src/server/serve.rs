//! The first and the last moments of a connection's thread: which protocol it speaks, who it is to the
//! broker, and what is cleaned up however it ends.

use super::auth_token::AuthToken;
use super::config::{Config, Protocol, Scheduling};
use super::connection::{Connection, ProtocolHandler};
use super::message::{MessageHandler, MessageWaits, Service};
use super::send_queue::SendQueue;
use super::server_state::ServerState;
use super::text::{LineWait, TextHandler};
use crate::broker::Observer;
use crate::os::Keepalive;
use crate::os::sync::Arc;
use crate::os::thread;

/// Someone who has been let in and is about to be served.
pub(super) struct AcceptedConnection {
    pub(super) id: u64,
    pub(super) server: Arc<ServerState>,
    pub(super) service: Arc<Service>,
    pub(super) send_queue: Arc<SendQueue>,
    pub(super) config: Arc<Config>,
    pub(super) protocol: Protocol,
    /// Whether it speaks it in WebSocket.
    pub(super) websocket: bool,
    /// The secret that it must know.
    pub(super) secret: Option<AuthToken>,
    pub(super) address: String,
}

/// Sees to it that a connection leaves, also if its thread panics.
struct Leave<'a>(&'a AcceptedConnection);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        log::debug!("{} has gone", self.0.address);
        self.0.send_queue.hang_up();
        // Should the broker have failed in this thread, nobody else may be there to find out.
        self.0.server.has_failed();
        self.0.server.leave(self.0.id);
    }
}

impl AcceptedConnection {
    /// Serves the connection until it ends.
    pub(super) fn serve(self) {
        let _leave = Leave(&self);
        log::debug!("{} speaks {}", self.address, self.protocol);
        if self.config.scheduling == Scheduling::Batch
            && let Err(error) = thread::schedule_as_batch()
        {
            // It is served as well, if not as cheaply.
            log::debug!("{}: not scheduled as batch: {error}", self.address);
        }
        let keepalive = Keepalive::server_before_hello(self.config.dead_peer_timeout);
        let stream = &self.send_queue.stream;
        if let Err(error) = stream.set_nodelay().and_then(|()| stream.set_keepalive(&keepalive)) {
            // Without keepalive a lock could be held by nobody for ever.
            return log::debug!("{}: {error}", self.address);
        }
        let Some(early) = self.open() else { return };
        match self.protocol {
            Protocol::Lockd => {
                let wait = Arc::new(LineWait::new(self.send_queue.clone()));
                let connection = self.connect(wait.clone());
                let speaker = TextHandler::lockd(&connection, wait);
                self.converse(connection, speaker, early);
            }
            Protocol::Glockd => {
                let wait = Arc::new(LineWait::new(self.send_queue.clone()));
                let connection = self.connect(wait.clone());
                let speaker = TextHandler::glockd(&connection, wait);
                self.converse(connection, speaker, early);
            }
            Protocol::Message => {
                let waits = Arc::new(MessageWaits::new(self.send_queue.clone()));
                let connection = self.connect(waits.clone());
                self.converse(connection, MessageHandler::new(self.service.clone(), waits), early);
            }
        }
    }

    fn connect(&self, observer: Arc<dyn Observer>) -> Connection {
        let (server, config, send_queue) =
            (self.server.clone(), self.config.clone(), self.send_queue.clone());
        Connection::new(server, config, send_queue, &self.address, observer)
    }

    fn converse(&self, mut connection: Connection, mut speaker: impl ProtocolHandler, early: Vec<u8>) {
        self.server.set_info(self.id, connection.session.info().clone());
        connection.serve(&mut speaker, self.protocol, early);
    }
}

//! Conversations for fuzzing, driven by calls. Protocol handler, session, input buffer and send
//! queue are the real ones, but what comes is passed in by a call instead of being read by a thread
//! of the connection's own. So one thread can drive any number of conversations, and the same calls
//! always have the same result. Built with `--cfg fuzzing` only; the rest of the server does not
//! use it.

use std::io;
use std::path::Path;

use socket2::{Domain, SockAddr};

use super::config::{Config, Protocol};
use super::connection::{Connection, Flow, ProtocolHandler, WAITING_INPUT_BYTES_MAX};
use super::input::InputBuffer;
use super::message::{MessageHandler, Service};
use super::serve::ConnectionWaits;
use super::server_state::ServerState;
use super::text::TextHandler;
use crate::broker::{Broker, SessionInfo};
use crate::os::socket::Stream;
use crate::os::sync::Arc;

/// A server without listeners and threads.
pub struct FuzzServer {
    server: Arc<ServerState>,
    service: Arc<Service>,
}

impl FuzzServer {
    /// A server of `broker`.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn new(broker: &Broker, config: Config) -> io::Result<Self> {
        let server = Arc::new(ServerState::new(broker.clone(), config)?);
        Ok(Self { server, service: Arc::new(Service::locks()) })
    }

    /// Begins a conversation with the listener of the Unix socket at `peer`. `address` is what the
    /// server calls it.
    ///
    /// # Errors
    /// If nothing listens there, or the server has too many connections.
    pub fn connect(&self, protocol: Protocol, address: &str, peer: &Path) -> io::Result<Conversation> {
        let stream = Stream::connect(Domain::UNIX, |socket| socket.connect(&SockAddr::unix(peer)?))?;
        let (server, config) = (self.server.clone(), self.server.config());
        let (id, send_queue) = server
            .admit(stream, &config, None, (protocol, address))
            .map_err(|_| io::ErrorKind::QuotaExceeded)?;
        let attach = |observer| Connection::new(id, server, config, send_queue.clone(), address, observer);
        let waits = ConnectionWaits::new(protocol, send_queue.clone());
        let connection = attach(waits.observer());
        self.server.set_session(id, connection.session.info().clone(), waits.pending());
        let handler: Box<dyn ProtocolHandler> = match waits {
            ConnectionWaits::Messages(waits) => Box::new(MessageHandler::new(self.service.clone(), waits)),
            ConnectionWaits::Line(wait) if protocol == Protocol::Lockd => {
                Box::new(TextHandler::lockd(&connection, wait))
            }
            ConnectionWaits::Line(wait) => Box::new(TextHandler::glockd(&connection, wait)),
        };
        let input = InputBuffer::default();
        let entry = ConnectionEntryGuard { server: self.server.clone(), id };
        Ok(Conversation { connection, handler, input, flow: Flow::Read, is_open: true, _entry: entry })
    }
}

/// The server's side of one connection. Dropped, it ends as it would if the client hung up.
pub struct Conversation {
    connection: Connection,
    handler: Box<dyn ProtocolHandler>,
    input: InputBuffer,
    flow: Flow,
    is_open: bool,
    /// Dropped last, when the session has ended.
    _entry: ConnectionEntryGuard,
}

impl Drop for Conversation {
    fn drop(&mut self) {
        // As if the client had ended it: it need not be told, and its locks are not kept.
        self.connection.send_queue.note_goodbye();
    }
}

struct ConnectionEntryGuard {
    server: Arc<ServerState>,
    id: u64,
}

impl Drop for ConnectionEntryGuard {
    fn drop(&mut self) {
        self.server.remove(self.id);
    }
}

impl Conversation {
    /// The client's session.
    #[must_use]
    pub fn info(&self) -> &Arc<SessionInfo> {
        self.connection.session.info()
    }

    /// False once the server has hung up.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// How many bytes have come and have not been handled.
    #[must_use]
    pub fn unhandled(&self) -> usize {
        self.input.bytes().len()
    }

    /// Whether a wait has ended and input that came after it can be handled.
    #[must_use]
    pub fn can_go_on(&self) -> bool {
        self.is_open
            && self.flow == Flow::Wait
            && !self.handler.is_waiting()
            && !self.input.bytes().is_empty()
    }

    /// The client sends these bytes. They are handled in as many steps as the input buffer makes of
    /// them.
    pub fn receive(&mut self, mut bytes: &[u8]) {
        while self.is_open && !bytes.is_empty() {
            let filled = self.input.fill(|into| {
                let room = into.capacity() - into.len();
                let (now, later) = bytes.split_at(room.min(bytes.len()));
                into.extend_from_slice(now);
                bytes = later;
                Ok(now.len())
            });
            self.is_open = filled.is_ok_and(|more| more);
            self.proceed();
        }
    }

    /// Does what the connection's thread does when it wakes up: ends the waits whose time limit has
    /// passed, and handles input that need not wait any longer.
    pub fn proceed(&mut self) {
        let _ = self.connection.expire();
        while self.is_open {
            if self.flow == Flow::Wait && self.handler.is_waiting() {
                self.is_open = self.input.bytes().len() <= WAITING_INPUT_BYTES_MAX;
                return;
            }
            let (done, flow) = self.handler.handle(&mut self.connection, self.input.bytes());
            self.input.consume(done);
            self.flow = flow;
            self.is_open =
                !self.connection.server.has_failed() && self.connection.flush() && flow != Flow::Close;
            if flow == Flow::Read {
                return;
            }
        }
    }

    /// Whether the broker has failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.connection.server.has_failed()
    }
}

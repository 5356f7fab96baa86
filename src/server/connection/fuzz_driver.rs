//! Conversations led by hand, for fuzzing: speaker, session, input buffer and outbox are the real ones, and
//! what comes is given to them by calls instead of being read by a thread of the connection's own. So one
//! thread leads any number of them, and the same calls always come to the same. Built with
//! `--cfg fuzzing` only; nothing of the server knows of it.

use std::io;
use std::path::Path;

use socket2::{Domain, SockAddr};

use super::{Connection, Flow, INPUT_BYTES_WAITING, Input, ProtocolHandler};
use crate::broker::{Broker, SessionInfo};
use crate::os::socket::Stream;
use crate::os::sync::Arc;
use crate::server::config::{Config, Protocol};
use crate::server::message::{MessageHandler, MessageWaits, Service};
use crate::server::server_state::ServerState;
use crate::server::text::{LineWait, TextHandler};

/// A server without listeners and threads.
pub struct Room {
    server: Arc<ServerState>,
    service: Arc<Service>,
}

impl Room {
    /// A server of `broker`.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn new(broker: &Broker, config: Config) -> io::Result<Self> {
        let server = Arc::new(ServerState::new(broker.clone(), config)?);
        Ok(Self { server, service: Arc::new(Service::locks()) })
    }

    /// Begins a conversation with whoever listens on the Unix socket at `peer`, who is called `address`.
    ///
    /// # Errors
    /// If nobody does, or there is no room.
    pub fn enter(&self, protocol: Protocol, address: &str, peer: &Path) -> io::Result<Conversation> {
        let stream = Stream::connect(Domain::UNIX, |socket| socket.connect(&SockAddr::unix(peer)?))?;
        let (server, config) = (self.server.clone(), self.server.config());
        let (id, send_queue) =
            server.admit(stream, &config, None).map_err(|_| io::ErrorKind::QuotaExceeded)?;
        let connect = |observer| Connection::new(server, config, send_queue.clone(), address, observer);
        let (connection, speaker): (_, Box<dyn ProtocolHandler>) = match protocol {
            Protocol::Lockd => {
                let wait = Arc::new(LineWait::new(send_queue.clone()));
                let connection = connect(wait.clone());
                let speaker = TextHandler::lockd(&connection, wait);
                (connection, Box::new(speaker))
            }
            Protocol::Glockd => {
                let wait = Arc::new(LineWait::new(send_queue.clone()));
                let connection = connect(wait.clone());
                let speaker = TextHandler::glockd(&connection, wait);
                (connection, Box::new(speaker))
            }
            Protocol::Message => {
                let waits = Arc::new(MessageWaits::new(send_queue.clone()));
                (connect(waits.clone()), Box::new(MessageHandler::new(self.service.clone(), waits)))
            }
        };
        self.server.set_info(id, connection.session.info().clone());
        let input = Input::default();
        let leave = Leave { server: self.server.clone(), id };
        Ok(Conversation { connection, speaker, input, next: Flow::Read, is_open: true, _leave: leave })
    }
}

/// The server's side of one connection. Dropped, it ends as it would if the client hung up.
pub struct Conversation {
    connection: Connection,
    speaker: Box<dyn ProtocolHandler>,
    input: Input,
    next: Flow,
    is_open: bool,
    /// Dropped last, when the session has ended.
    _leave: Leave,
}

impl Drop for Conversation {
    fn drop(&mut self) {
        // The client has ended it: nobody is to be told of the end or waited for.
        self.connection.send_queue.note_goodbye();
    }
}

struct Leave {
    server: Arc<ServerState>,
    id: u64,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.server.leave(self.id);
    }
}

impl Conversation {
    /// Who the client is to the broker.
    #[must_use]
    pub fn info(&self) -> &Arc<SessionInfo> {
        self.connection.session.info()
    }

    /// False once the server has hung up.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// How many bytes have come and not been handled.
    #[must_use]
    pub fn unhandled(&self) -> usize {
        self.input.bytes().len()
    }

    /// Whether a wait has ended behind which there is something to be handled.
    #[must_use]
    pub fn can_go_on(&self) -> bool {
        self.is_open
            && self.next == Flow::Wait
            && !self.speaker.is_waiting()
            && !self.input.bytes().is_empty()
    }

    /// These bytes come from the client, in as many steps as the input buffer makes of them.
    pub fn hear(&mut self, mut bytes: &[u8]) {
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

    /// Does what the connection's thread does when it wakes up: ends the waits whose time has come, and
    /// handles what need not wait any longer.
    pub fn proceed(&mut self) {
        let _ = self.connection.expire();
        while self.is_open {
            if self.next == Flow::Wait && self.speaker.is_waiting() {
                self.is_open = self.input.bytes().len() <= INPUT_BYTES_WAITING;
                return;
            }
            let (done, next) = self.speaker.handle(&mut self.connection, self.input.bytes());
            self.input.consume(done);
            self.next = next;
            self.is_open =
                !self.connection.server.has_failed() && self.connection.flush() && next != Flow::Close;
            if next == Flow::Read {
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

//! The handshake, for listeners that have one: client and server agree on TLS and on WebSocket, and
//! the client shows the secret. Its session begins only afterwards. So a client whose handshake
//! fails gets nothing, and one that does nothing costs little memory, for [`LIMIT`] at most.

mod standby;

use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::auth_token::AuthToken;
use super::config::{Config, Protocol};
use super::connection::ignore_interruption;
use super::parking::ParkedState;
use super::send_queue::SendQueue;
use super::server_state::ServerState;
use super::wrong_protocol::WrongProtocol;
use crate::os::socket::{PollFd, PollFlags, wait_for};
use crate::os::sync::Arc;
use crate::wire::frame::{self, Frame};
use crate::wire::message::{
    LockResult, OldUnlockReply, RequestEnvelope, encode_error, encode_result, parse, parse_hello,
    parse_old_unlock, parse_resume,
};
use crate::wire::websocket::{Upgrade, upgrade};

/// How long the handshake may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a refused client has to read why.
const REFUSAL_LIMIT: Duration = Duration::from_secs(1);
/// How much is read at once, at least.
const CHUNK_BYTES: usize = 512;
/// The longest message before the client has shown the secret.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// The refusal of a client that has not shown the secret.
const SECRET_MISSING: &str = "this server asks for a secret: say hello with the authToken first";

/// A connection that was accepted, and has no session yet.
pub(super) struct AcceptedConnection {
    pub(super) id: u64,
    pub(super) server: Arc<ServerState>,
    pub(super) send_queue: Arc<SendQueue>,
    pub(super) config: Arc<Config>,
    pub(super) protocol: Protocol,
    /// Whether it speaks that in WebSocket.
    pub(super) websocket: bool,
    /// The secret that its client must show.
    pub(super) secret: Option<AuthToken>,
    pub(super) address: String,
}

/// A handshake that is going on.
struct Handshake<'a> {
    accepted: &'a AcceptedConnection,
    deadline: Instant,
    /// Decoded input that has not been handled.
    early: Vec<u8>,
    /// The client has sent messages without having shown the secret.
    has_skipped_secret: bool,
}

impl AcceptedConnection {
    /// Performs the handshake. Returns what the client has sent after it; `None` if the handshake
    /// failed, which has been logged.
    pub(super) fn handshake(&self) -> Option<Vec<u8>> {
        if self.secret.is_none() && self.send_queue.framing().is_none() {
            return Some(Vec::new());
        }
        self.perform_handshake()
    }

    /// Goes on with a handshake that began in an earlier image of the program: all of it but the
    /// secret was done there. `early` has been decoded, and must be handled until the deadline.
    pub(super) fn resume_handshake(&self, early: Vec<u8>, deadline: Instant) -> Option<Vec<u8>> {
        let Some(secret) = &self.secret else { return Some(early) };
        let mut handshake = Handshake { accepted: self, deadline, early, has_skipped_secret: false };
        handshake.await_secret(secret).map_err(|error| self.refuse(&error)).ok().map(|()| handshake.early)
    }

    /// Not inlined: its stack would be kept in use for as long as the connection lasts.
    #[cold]
    #[inline(never)]
    fn perform_handshake(&self) -> Option<Vec<u8>> {
        let deadline = Instant::now() + LIMIT;
        let mut handshake =
            Handshake { accepted: self, deadline, early: Vec::new(), has_skipped_secret: false };
        let performed = handshake.perform().map_err(|error| {
            match handshake.has_skipped_secret && is_hang_up(&error) {
                // An attempt without the secret is worth a line in the log, however it ends.
                true => io::Error::other("it has not shown the secret"),
                false => error,
            }
        });
        performed.map_err(|error| self.refuse(&error)).ok().map(|()| handshake.early)
    }

    fn refuse(&self, error: &io::Error) {
        if is_hang_up(error) {
            return log::debug!("{}: {error}", self.address);
        }
        self.server.refused.fetch_add(1, Relaxed);
        let wrong = self
            .send_queue
            .framing()
            .and_then(|framing| WrongProtocol::find_outside_tls(framing.first_bytes(), self.protocol));
        if let Some(wrong) = wrong {
            // Outside of TLS, as the client speaks. If the socket does not take the reply at once,
            // it is dropped.
            let _ = self.send_queue.stream.send_now(&wrong.reply());
        }
        self.send_queue.hang_up();
        self.server.refused_early.warn(|| match wrong {
            Some(wrong) => format!("refused {}: {}: {error}", self.address, wrong.in_words()),
            None => format!("refused {}: {error}", self.address),
        });
        self.drain_input();
    }

    /// Reads what the refused client still sends. If the socket were closed with unread input, the
    /// kernel would reset the connection, and the client might never read why it was refused.
    fn drain_input(&self) {
        let deadline = Instant::now() + REFUSAL_LIMIT;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.send_queue.stream, PollFlags::IN)];
            let _ = wait_for(&mut fds, Some(rest));
            let is_over = rest.is_zero() || self.server.parking.is_requested();
            if is_over || fds[0].revents().is_empty() || !self.send_queue.discard_input() {
                return;
            }
        }
    }
}

/// Whether the client, or its kernel, has ended the connection.
fn is_hang_up(error: &io::Error) -> bool {
    error.raw_os_error().is_some() || error.kind() == io::ErrorKind::UnexpectedEof
}

impl Handshake<'_> {
    fn perform(&mut self) -> io::Result<()> {
        let send_queue = &self.accepted.send_queue;
        while send_queue.framing().is_some_and(|framing| framing.is_handshaking()) {
            self.receive("TLS")?;
        }
        if self.accepted.websocket {
            self.begin_websocket()?;
        }
        match &self.accepted.secret {
            Some(secret) => self.await_secret(secret),
            None => Ok(()),
        }
    }

    /// Waits for more input. `what` is what it should be, for the error.
    fn receive(&mut self, what: &str) -> io::Result<()> {
        let Self { accepted: AcceptedConnection { id, server, send_queue, .. }, deadline, early, .. } =
            &*self;
        let state = || ParkedState::Handshake { early: early.clone(), deadline: *deadline };
        server.parking.park_if_requested(|| Some((*id, state())));
        let rest = self.rest();
        if rest.is_zero() {
            let text = format!("nothing of {what} has come within {} s", LIMIT.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        let mut fds = [PollFd::new(&send_queue.stream, PollFlags::IN)];
        ignore_interruption(wait_for(&mut fds, Some(rest)))?;
        if !fds[0].revents().is_empty() {
            self.early.reserve(CHUNK_BYTES);
            if send_queue.receive(&mut self.early)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Sends a reply. An error if the client does not read it before the deadline, or before the
    /// thread is to park: a client that asks on and reads nothing must not put that off.
    fn reply(&self, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let send_queue = &self.accepted.send_queue;
        send_queue.append(write);
        let until_deadline = || match self.rest() {
            rest if rest.is_zero() || self.accepted.server.parking.is_requested() => ControlFlow::Break(()),
            rest => ControlFlow::Continue(Some(rest)),
        };
        if send_queue.send_all(until_deadline) {
            return Ok(());
        }
        if self.rest().is_zero() {
            let text = format!("it has not read its answers within {} s", LIMIT.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// How long the handshake may still take.
    fn rest(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn begin_websocket(&mut self) -> io::Result<()> {
        loop {
            match upgrade(&self.early, &self.accepted.config.ws_origins) {
                Upgrade::Incomplete => self.receive("a request for a WebSocket")?,
                Upgrade::Accepted { response, consumed } => {
                    self.reply(|out| out.extend_from_slice(&response))?;
                    let mut early = std::mem::take(&mut self.early);
                    early.drain(..consumed);
                    return self.accepted.send_queue.begin_websocket(&early, &mut self.early);
                }
                Upgrade::Refused { response, reason } => {
                    self.reply(|out| out.extend_from_slice(&response))?;
                    return Err(io::Error::other(reason));
                }
            }
        }
    }

    /// Refuses every message until a `hello` with the secret comes. That one stays in `early`, for
    /// the session to answer.
    fn await_secret(&mut self, secret: &AuthToken) -> io::Result<()> {
        let bytes_max = self.accepted.config.message_bytes_max.min(MESSAGE_BYTES_MAX);
        loop {
            let (taken, found) = frame::decode(&self.early, bytes_max);
            match found {
                Frame::Incomplete => self.receive("the secret")?,
                Frame::Body(body) => match parse(body) {
                    Ok(envelope) if self.is_hello_with(secret, &envelope)? => return Ok(()),
                    Ok(_) => {
                        self.has_skipped_secret = true;
                        self.early.drain(..taken);
                    }
                    Err(bad) => {
                        self.has_skipped_secret = true;
                        let text = bad.to_string();
                        self.reply(|out| frame::encode(out, |body| encode_error(body, &text)))?;
                        self.early.drain(..taken);
                    }
                },
                Frame::TooLong { announced } => {
                    let protocol = self.accepted.protocol;
                    if let Some(wrong) = WrongProtocol::find(&self.early, protocol, bytes_max) {
                        self.reply(|out| out.extend_from_slice(&wrong.reply()))?;
                        return Err(io::Error::other(wrong.in_words()));
                    }
                    let text = format!("a message of {announced} bytes before the secret");
                    self.reply(|out| frame::encode(out, |body| encode_error(body, &text)))?;
                    return Err(io::Error::other(text));
                }
            }
        }
    }

    /// Whether the message is a `hello` with the secret. Any other message is answered. A wrong
    /// secret is an error.
    fn is_hello_with(&self, secret: &AuthToken, envelope: &RequestEnvelope<'_>) -> io::Result<bool> {
        let command = envelope.command.as_deref();
        let is_old_unlock = || {
            command == Some("unlock")
                && (envelope.id.is_none() || !matches!(parse_old_unlock(envelope.body), Ok(None)))
        };
        let refuse = |result: &LockResult| match envelope.id {
            _ if is_old_unlock() => {
                self.reply(|out| frame::encode(out, |body| OldUnlockReply::Refused.encode(body)))
            }
            Some(id) => self.reply(|out| frame::encode(out, |body| encode_result(body, id, result))),
            None => Ok(()),
        };
        let token = match (command, envelope.parameters) {
            (Some("hello"), Some(parameters)) => parse_hello(parameters).map(|hello| hello.auth_token),
            (Some("resume"), Some(parameters)) => {
                parse_resume(parameters).map(|resume| resume.hello.auth_token)
            }
            _ => Ok(None),
        };
        match token {
            Ok(Some(token)) if secret.is(&token) => Ok(true),
            Ok(Some(_)) => {
                refuse(&LockResult::refused("that authToken is not this server's"))?;
                Err(io::Error::other("it has a wrong authToken"))
            }
            Ok(None) => refuse(&LockResult::refused(SECRET_MISSING)).map(|()| false),
            Err(malformed) => refuse(&LockResult::from(malformed)).map(|()| false),
        }
    }
}

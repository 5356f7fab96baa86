//! What comes before a conversation, where anything does: the two sides agree on TLS, on WebSocket, and the
//! client shows that it knows the secret. There is no session until then, so whoever does not get through gets
//! nothing; and it takes little of the server, and not for long.

use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::auth_token::AuthToken;
use super::connection::ignore_interruption;
use super::serve::AcceptedConnection;
use super::wrong_protocol::Misdirected;
use crate::os::socket::{PollFd, PollFlags, wait_for};
use crate::wire::frame::{self, Frame};
use crate::wire::message::{
    Envelope, LockResult, OldUnlockReply, encode_error, encode_result, parse, parse_hello, parse_old_unlock,
};
use crate::wire::websocket::{Upgrade, upgrade};

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a client that is refused is given to read why.
const REFUSAL_LIMIT: Duration = Duration::from_secs(1);
/// How much is read at once, at least.
const CHUNK_BYTES: usize = 512;
/// The longest message before the secret is known.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

const WANTED: &str = "this server asks for a secret: say hello with the authToken first";

/// A conversation that has not begun.
struct Opening<'a> {
    accepted: &'a AcceptedConnection,
    deadline: Instant,
    /// What has come of the client and has not been handled.
    early: Vec<u8>,
    /// Whether it has been refused something because it had not shown the secret.
    wants_secret: bool,
}

impl AcceptedConnection {
    /// Does what comes before the conversation. Returns what has come of the client behind that; `None` if
    /// there is to be none, which has been logged.
    pub(super) fn open(&self) -> Option<Vec<u8>> {
        if self.secret.is_none() && self.send_queue.framing().is_none() {
            return Some(Vec::new());
        }
        self.open_wrapped()
    }

    /// Apart, since what it takes of the stack would be there for as long as the connection is.
    #[cold]
    #[inline(never)]
    fn open_wrapped(&self) -> Option<Vec<u8>> {
        let mut opening = Opening {
            accepted: self,
            deadline: Instant::now() + LIMIT,
            early: Vec::new(),
            wants_secret: false,
        };
        let opened = opening.open().map_err(|error| match opening.wants_secret && is_hang_up(&error) {
            // Somebody who tries without is worth a line, however the attempt ends.
            true => io::Error::other("it has not shown the secret"),
            false => error,
        });
        opened.map_err(|error| self.refuse(&error)).ok().map(|()| opening.early)
    }

    fn refuse(&self, error: &io::Error) {
        if is_hang_up(error) {
            // It has gone by itself.
            return log::debug!("{}: {error}", self.address);
        }
        self.server.refused.fetch_add(1, Relaxed);
        let stranger = self
            .send_queue
            .framing()
            .and_then(|framing| Misdirected::find_outside_tls(framing.stranger(), self.protocol));
        if let Some(stranger) = stranger {
            // Outside of TLS, as it has come. Nobody is owed more than the attempt.
            let _ = self.send_queue.stream.send_now(&stranger.reply());
        }
        self.send_queue.hang_up();
        self.server.strangers.warn(|| match stranger {
            Some(stranger) => format!("refused {}: {}: {error}", self.address, stranger.in_words()),
            None => format!("refused {}: {error}", self.address),
        });
        // Closed with unread input the connection would be reset, and the client might never read why.
        let end = Instant::now() + REFUSAL_LIMIT;
        let stream = &self.send_queue.stream;
        loop {
            let rest = end.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(stream, PollFlags::IN)];
            let _ = wait_for(&mut fds, Some(rest));
            let is_silent = fds[0].revents().is_empty();
            if rest.is_zero() || is_silent || !matches!(stream.receive_now(&mut [0; 4096]), Ok(Some(1..))) {
                return;
            }
            self.send_queue.discard_input();
        }
    }
}

/// Whether the connection has ended by itself.
fn is_hang_up(error: &io::Error) -> bool {
    error.raw_os_error().is_some() || error.kind() == io::ErrorKind::UnexpectedEof
}

impl Opening<'_> {
    fn open(&mut self) -> io::Result<()> {
        let send_queue = &self.accepted.send_queue;
        while send_queue.framing().is_some_and(|framing| framing.is_handshaking()) {
            self.hear("TLS")?;
        }
        if self.accepted.websocket {
            self.begin_websocket()?;
        }
        match &self.accepted.secret {
            Some(secret) => self.await_secret(secret),
            None => Ok(()),
        }
    }

    /// Waits until more has come; `what` is waited for.
    fn hear(&mut self, what: &str) -> io::Result<()> {
        let send_queue = &self.accepted.send_queue;
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

    /// Sends this, as far as the client reads.
    fn reply_or_close(&self, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let send_queue = &self.accepted.send_queue;
        send_queue.append(write);
        let until_the_end = || match self.rest() {
            Duration::ZERO => ControlFlow::Break(()),
            rest => ControlFlow::Continue(Some(rest)),
        };
        if send_queue.send_all(until_the_end) {
            return Ok(());
        }
        if self.rest().is_zero() {
            let text = format!("it has not read its answers within {} s", LIMIT.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// How long it may still take.
    fn rest(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn begin_websocket(&mut self) -> io::Result<()> {
        loop {
            match upgrade(&self.early, &self.accepted.config.ws_origins) {
                Upgrade::Incomplete => self.hear("a request for a WebSocket")?,
                Upgrade::Accepted { response, consumed } => {
                    self.reply_or_close(|out| out.extend_from_slice(&response))?;
                    let mut early = std::mem::take(&mut self.early);
                    early.drain(..consumed);
                    return self.accepted.send_queue.begin_websocket(&early, &mut self.early);
                }
                Upgrade::Refused { response, reason } => {
                    self.reply_or_close(|out| out.extend_from_slice(&response))?;
                    return Err(io::Error::other(reason));
                }
            }
        }
    }

    /// Refuses everything until a `hello` with the secret comes, which is left to the conversation.
    fn await_secret(&mut self, secret: &AuthToken) -> io::Result<()> {
        let bytes_max = self.accepted.config.message_bytes_max.min(MESSAGE_BYTES_MAX);
        loop {
            let (taken, found) = frame::decode(&self.early, bytes_max);
            match found {
                Frame::Incomplete => self.hear("the secret")?,
                Frame::Body(body) => match parse(body) {
                    Ok(envelope) if self.is_hello_with(secret, &envelope)? => return Ok(()),
                    Ok(_) => {
                        self.wants_secret = true;
                        self.early.drain(..taken);
                    }
                    Err(bad) => {
                        self.wants_secret = true;
                        let text = bad.to_string();
                        self.reply_or_close(|out| frame::encode(out, |body| encode_error(body, &text)))?;
                        self.early.drain(..taken);
                    }
                },
                Frame::TooLong { announced } => {
                    if let Some(stranger) = Misdirected::find(&self.early, self.accepted.protocol, bytes_max)
                    {
                        self.reply_or_close(|out| out.extend_from_slice(&stranger.reply()))?;
                        return Err(io::Error::other(stranger.in_words()));
                    }
                    let text = format!("a message of {announced} bytes before the secret");
                    self.reply_or_close(|out| frame::encode(out, |body| encode_error(body, &text)))?;
                    return Err(io::Error::other(text));
                }
            }
        }
    }

    /// Answers a message, unless it is the `hello` that is waited for.
    fn is_hello_with(&self, secret: &AuthToken, envelope: &Envelope<'_>) -> io::Result<bool> {
        let command = envelope.command.as_deref();
        let is_old_unlock = || {
            command == Some("unlock")
                && (envelope.id.is_none() || !matches!(parse_old_unlock(envelope.body), Ok(None)))
        };
        let refuse = |result: &LockResult| match envelope.id {
            _ if is_old_unlock() => {
                self.reply_or_close(|out| frame::encode(out, |body| OldUnlockReply::Refused.encode(body)))
            }
            Some(id) => self.reply_or_close(|out| frame::encode(out, |body| encode_result(body, id, result))),
            None => Ok(()),
        };
        if command != Some("hello") {
            return refuse(&LockResult::refused(WANTED)).map(|()| false);
        }
        let Some(parameters) = envelope.parameters else {
            return refuse(&LockResult::refused(WANTED)).map(|()| false);
        };
        match parse_hello(parameters).map(|hello| hello.auth_token) {
            Ok(Some(token)) if secret.is(&token) => Ok(true),
            Ok(Some(_)) => {
                refuse(&LockResult::refused("that authToken is not this server's"))?;
                Err(io::Error::other("it has a wrong authToken"))
            }
            Ok(None) => refuse(&LockResult::refused(WANTED)).map(|()| false),
            Err(malformed) => refuse(&LockResult::from(malformed)).map(|()| false),
        }
    }
}

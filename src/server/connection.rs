//! The life of one connection: its thread reads, lets the protocol handle what has come, sends the
//! replies, and reads again. Knows no protocol; those are [`ProtocolHandler`]s.
//!
//! The thread also sits in `read` while requests of the connection wait for locks, so a client that
//! hangs up is noticed at once. A grant does not need this thread: the thread that releases the
//! lock sends it. The connection's thread does enforce the time limits of its own waits.

use std::cell::Cell;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant};

use super::config::{Config, Protocol};
use super::hold_locks::{AfterHold, EndedConnection};
use super::input::InputBuffer;
use super::parking::ParkedState;
use super::resume::sessions::ResumableSession;
use super::send_queue::{Appended, SendQueue};
use super::server_state::{PendingWaits, ServerState};
use super::snapshot::types::HandlerSnapshot;
use super::wrong_protocol::WrongProtocol;
use crate::broker::{AcquireError, ObservedSession, Observer, SessionInfo};
use crate::os::Keepalive;
use crate::os::socket::{PollFd, PollFlags, wait_for};
use crate::os::sync::Arc;

/// How long a client must send nothing before an input buffer that grew is given back.
const GIVE_BACK_AFTER: Duration = Duration::from_millis(100);
/// How many bytes a client may send after a request that waits. They are read so that the end of
/// the connection is noticed, which follows them. So what is kept of them needs a limit.
pub(super) const WAITING_INPUT_BYTES_MAX: usize = 256 << 10;
/// How many bytes may be unsent when the thread parks. A thread that has more to send waits for its
/// client to read, and does not park before.
const PARKED_BYTES_MAX: usize = 16 << 20;
/// How often to check whether a wait has ended if there is no waker that could signal it.
const POLL_WITHOUT_WAKER: Duration = Duration::from_millis(50);
/// How many bytes are read at once, and how many such reads there are, in search of a goodbye.
const GOODBYE_READ_BYTES: usize = 4096;
const GOODBYE_READS_MAX: usize = 64;
/// How many characters of a registered name are logged.
const NAME_CHARACTERS_MAX: usize = 64;

/// What happens next, after a protocol has handled what it could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// It needs more input.
    Read,
    /// It handles nothing more before one of its lock waits has ended.
    Wait,
    /// The connection is to be closed.
    Close,
    /// The session is another one now: the rest of the input is to be handled as its.
    Again,
}

/// The server's side of a conversation in one protocol.
pub(super) trait ProtocolHandler {
    /// Handles the requests at the beginning of `input`. Returns how many bytes it is done with.
    fn handle(&mut self, connection: &mut Connection, input: &[u8]) -> (usize, Flow);

    /// Whether the lock wait that keeps it from handling more is still going on.
    fn is_waiting(&self) -> bool;

    /// What only the handler knows, between two calls of [`handle`](Self::handle).
    fn snapshot(&self) -> HandlerSnapshot;

    /// Whether the client says goodbye in input that will not be handled any more. Removes what it
    /// has looked at.
    fn is_goodbye(&self, _unhandled: &mut Vec<u8>) -> bool {
        false
    }
}

/// What a connection has, whatever its protocol. Its session ends when it is dropped.
pub(super) struct Connection {
    id: u64,
    pub(super) server: Arc<ServerState>,
    pub(super) config: Arc<Config>,
    pub(super) send_queue: Arc<SendQueue>,
    pub(super) session: Arc<ObservedSession>,
    /// The same session, if it can continue on another connection.
    pub(super) resumable: Option<Arc<ResumableSession>>,
    /// When the next of its waits ends, or a moment before that.
    next_expiry: Cell<Option<Instant>>,
    tickets: u64,
    /// Nothing has been handled yet, so this may be a client of another protocol.
    is_new: bool,
    /// If it had ended in an earlier image of the program: until when its client was to acknowledge
    /// that.
    tell_deadline: Option<Instant>,
    /// The error that ended the connection, if one did.
    error: Option<io::Error>,
}

/// For protocols.
impl Connection {
    pub(super) fn new(
        id: u64,
        server: Arc<ServerState>,
        config: Arc<Config>,
        send_queue: Arc<SendQueue>,
        address: &str,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let session = Arc::new(server.broker.attach(address, observer));
        Self::with_session(id, server, config, send_queue, session, None)
    }

    /// A connection whose session has begun already.
    pub(super) fn with_session(
        id: u64,
        server: Arc<ServerState>,
        config: Arc<Config>,
        send_queue: Arc<SendQueue>,
        session: Arc<ObservedSession>,
        resumable: Option<Arc<ResumableSession>>,
    ) -> Self {
        Self {
            id,
            server,
            config,
            send_queue,
            session,
            resumable,
            next_expiry: Cell::new(None),
            tickets: 0,
            is_new: true,
            tell_deadline: None,
            error: None,
        }
    }

    /// The connection has been going on in an earlier image of the program.
    pub(super) fn resume(&mut self, is_new: bool, tickets: u64) {
        (self.is_new, self.tickets) = (is_new, tickets);
        // The broker knows how long its waits last, and is asked before this thread sleeps.
        self.next_expiry.set(Some(Instant::now()));
    }

    /// The connection had ended in an earlier image of the program. Its client was to acknowledge
    /// that until then.
    pub(super) fn resume_end(&mut self, tell_deadline: Instant) {
        self.tell_deadline = Some(tell_deadline);
    }

    /// The client has said `hello`: it uses its side of these figures, and may need `wind_down` to
    /// end its work once it knows that its connection has ended.
    pub(super) fn set_terms(&mut self, keepalive: &Keepalive, wind_down: Duration) {
        let can_resume = self.resumable.is_some();
        self.send_queue.with_end(|end| end.set_terms(keepalive, wind_down, can_resume));
    }

    /// Makes the session one that can continue on another connection, if the server offers that. To
    /// be called before its keepalive is set.
    pub(super) fn make_resumable(&mut self) {
        if self.resumable.is_none() {
            self.resumable = self.server.resumable.begin(self.id, &self.send_queue, &self.session);
            self.server.set_resumable(self.id, self.resumable.clone());
        }
    }

    /// The session of this connection is this one now; its own has ended. Its client relies on the
    /// session's locks from now on, whatever becomes of this connection: by the figures that it was
    /// told before, until it has heard the new ones.
    pub(super) fn continue_session(
        &mut self,
        (resumable, session): (Arc<ResumableSession>, Arc<ObservedSession>),
        waits: Arc<dyn PendingWaits>,
        [told, new]: [&Keepalive; 2],
        wind_down: Duration,
    ) {
        self.send_queue.with_end(|end| {
            end.set_terms(new, wind_down, true);
            end.keep_terms_of(told);
        });
        self.server.set_session(self.id, session.info().clone(), waits);
        self.server.set_resumable(self.id, Some(resumable.clone()));
        (self.session, self.resumable) = (session, Some(resumable));
    }

    /// The number of this connection.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Whether its client has done nothing with the session yet.
    pub(super) fn is_unused(&self) -> bool {
        self.resumable.is_none() && self.tickets == 0 && self.session.info().locks_held() == 0
    }

    /// A ticket for the next wait.
    pub(super) fn next_ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// A wait with this time limit has begun: this thread must not sleep past its deadline.
    pub(super) fn expect_expiry(&mut self, limit: Option<Duration>) {
        let Some(at) = limit.and_then(|limit| Instant::now().checked_add(limit)) else { return };
        self.next_expiry.set(Some(self.next_expiry.get().map_or(at, |next| next.min(at))));
    }

    /// Appends a reply, and sends if enough has gathered. False if the connection is gone.
    pub(super) fn reply(&self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        match self.send_queue.append(write) {
            Appended::Buffered => true,
            Appended::FlushDue => self.flush(),
            Appended::Closed => false,
        }
    }

    /// Sends everything, waiting for the peer to read, and enforces the time limits of the waits
    /// meanwhile. False if the connection is gone. If the thread is to park, it does not wait: what
    /// the peer has not read is sent later, and a request that is being handled can be finished.
    pub(super) fn flush(&self) -> bool {
        let is_put_off = Cell::new(false);
        let limit = || {
            is_put_off.set(self.is_to_park_with_unsent_bytes());
            if is_put_off.get() { ControlFlow::Break(()) } else { ControlFlow::Continue(self.expire()) }
        };
        self.send_queue.send_all(limit) || is_put_off.get()
    }

    fn is_to_park_with_unsent_bytes(&self) -> bool {
        self.server.parking.is_requested() && self.send_queue.unsent_bytes() <= PARKED_BYTES_MAX
    }

    /// Returns the broker's answer unchanged, and logs it if a limit was the reason.
    pub(super) fn with_limits_logged<T>(&self, answer: Result<T, AcquireError>) -> Result<T, AcquireError> {
        if let Err(AcquireError::Refused(reason)) = &answer
            && !self.server.broker.is_shut()
        {
            self.log_limit_exceeded(reason);
        }
        answer
    }

    /// Logs that a request of the client exceeded a limit.
    #[cold]
    #[inline(never)]
    pub(super) fn log_limit_exceeded(&self, what: &str) {
        let info = self.session.info();
        self.server.limit_exceeded.warn(|| format!("refused a request of {}: {what}", describe(info)));
    }

    /// Ends the waits whose time limit has passed. Returns the time until the next one.
    pub(super) fn expire(&self) -> Option<Duration> {
        let now = Instant::now;
        if self.next_expiry.get()? <= now() {
            let next = self.session.expire();
            self.next_expiry.set(next.and_then(|rest| now().checked_add(rest)));
        }
        self.next_expiry.get().map(|at| at.saturating_duration_since(now()))
    }
}

/// The loop.
impl Connection {
    /// Serves the connection until it ends. Its listener speaks `protocol`; `early` has been read
    /// already.
    pub(super) fn serve(&mut self, handler: &mut impl ProtocolHandler, protocol: Protocol, early: Vec<u8>) {
        let mut input = InputBuffer::with(early);
        if let Err(error) = self.converse(handler, protocol, &mut input) {
            self.error = Some(error);
        }
        self.look_for_goodbye(handler, input.bytes());
    }

    /// Handles what comes until the connection ends. An error is the connection's.
    fn converse(
        &mut self,
        handler: &mut impl ProtocolHandler,
        protocol: Protocol,
        input: &mut InputBuffer,
    ) -> io::Result<()> {
        loop {
            let wrong = self.is_new.then(|| self.find_wrong_protocol(protocol, input.bytes())).flatten();
            let (done, flow) = match wrong {
                Some(wrong) => self.turn_away(wrong),
                None => match self.handle_in_turn(handler, input.bytes()) {
                    Some(handled) => handled,
                    // Its session goes on with another connection.
                    None => return Ok(()),
                },
            };
            self.is_new &= done == 0;
            input.consume(done);
            // Replies of a broker that has failed may be wrong: they are not sent.
            if self.server.has_failed() || !self.flush() {
                return Ok(());
            }
            if flow == Flow::Close {
                self.send_queue.discard_input();
                self.send_queue.hang_up();
                return Ok(());
            }
            if flow == Flow::Again {
                continue;
            }
            if self.server.parking.is_requested() {
                self.park(input, handler);
                // Something may be left to handle or to send.
                continue;
            }
            if !self.get_input(input, flow, handler)? || self.send_queue.is_closing() {
                return Ok(());
            }
        }
    }

    /// Handles input, unless the session belongs to another connection by now; that one cannot get
    /// it meanwhile.
    fn handle_in_turn(&mut self, handler: &mut impl ProtocolHandler, input: &[u8]) -> Option<(usize, Flow)> {
        let Some(resumable) = self.resumable.clone() else { return Some(handler.handle(self, input)) };
        let _turn = resumable.turn_of(self.id)?;
        Some(handler.handle(self, input))
    }

    #[cold]
    #[inline(never)]
    fn find_wrong_protocol(&self, protocol: Protocol, first: &[u8]) -> Option<WrongProtocol> {
        let bytes_max = match protocol {
            Protocol::Lockd | Protocol::Glockd => self.config.line_bytes_max,
            Protocol::Message => self.config.message_bytes_max,
        };
        WrongProtocol::find(first, protocol, bytes_max)
    }

    /// Tells a client of another protocol what this listener speaks, and handles nothing.
    #[cold]
    #[inline(never)]
    fn turn_away(&self, wrong: WrongProtocol) -> (usize, Flow) {
        self.server.refused.fetch_add(1, Relaxed);
        self.reply(|out| out.extend_from_slice(&wrong.reply()));
        let address = self.session.info().address();
        self.server.refused_early.warn(|| format!("refused {address}: {}", wrong.in_words()));
        (0, Flow::Close)
    }

    /// Waits until the handler can go on, or the thread is to park. False if the connection has
    /// ended.
    fn get_input(
        &self,
        input: &mut InputBuffer,
        flow: Flow,
        handler: &impl ProtocolHandler,
    ) -> io::Result<bool> {
        let stream = &self.send_queue.stream;
        while !self.server.parking.is_requested() {
            let limit = self.expire();
            if flow == Flow::Wait && !input.bytes().is_empty() {
                match self.await_wait_or_input(input, limit, handler)? {
                    ControlFlow::Continue(()) => continue,
                    ControlFlow::Break(goes_on) => return Ok(goes_on),
                }
            }
            if limit.is_some() {
                let mut fds = [PollFd::new(stream, PollFlags::IN)];
                ignore_interruption(wait_for(&mut fds, limit))?;
                if fds[0].revents().is_empty() {
                    continue;
                }
            }
            return self.receive(input);
        }
        Ok(true)
    }

    /// There is input, but it may be handled only after a lock wait of the connection has ended.
    /// Waits for that, for more input, or for `limit`. Breaks with true when the wait has ended,
    /// and with false when the connection has.
    fn await_wait_or_input(
        &self,
        input: &mut InputBuffer,
        limit: Option<Duration>,
        handler: &impl ProtocolHandler,
    ) -> io::Result<ControlFlow<bool>> {
        // The waker must exist before the conditions are checked, or their signal could be missed.
        let waker = self.send_queue.waker();
        if self.send_queue.is_closing() {
            return Ok(ControlFlow::Break(false));
        }
        if !handler.is_waiting() {
            return Ok(ControlFlow::Break(true));
        }
        let mut fds = vec![PollFd::new(&self.send_queue.stream, PollFlags::IN)];
        let limit = match waker {
            Ok(waker) => {
                fds.push(waker.poll_fd());
                limit
            }
            // No descriptors are left. That must not cost the client its locks, so poll instead.
            Err(_) => Some(limit.map_or(POLL_WITHOUT_WAKER, |limit| limit.min(POLL_WITHOUT_WAKER))),
        };
        ignore_interruption(wait_for(&mut fds, limit))?;
        if let Ok(waker) = waker {
            waker.reset();
        }
        if fds[0].revents().is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        if !self.receive(input)? {
            return Ok(ControlFlow::Break(false));
        }
        if input.bytes().len() > WAITING_INPUT_BYTES_MAX {
            return Err(io::Error::other("too much input after a request that waits"));
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Waits for more input and reads it. False if the connection has ended. While the buffer is
    /// large it waits no longer than [`GIVE_BACK_AFTER`]; then it may return without new input, and
    /// the buffer has been given back.
    fn receive(&self, input: &mut InputBuffer) -> io::Result<bool> {
        let stream = &self.send_queue.stream;
        match input.fill(|into| self.send_queue.receive(into)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                stream.set_receive_limit(None)?;
                input.give_back();
                Ok(true)
            }
            Ok(true) if input.check_grown() => stream.set_receive_limit(Some(GIVE_BACK_AFTER)).map(|()| true),
            // The thread is to park.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            received => received,
        }
    }

    /// Parks. Nothing is being handled, and what was answered is in the send queue.
    #[cold]
    #[inline(never)]
    fn park(&self, input: &InputBuffer, handler: &impl ProtocolHandler) {
        let conversation = || ParkedState::Conversation {
            input: input.bytes().to_vec(),
            is_new: self.is_new,
            tickets: self.tickets,
            handler: handler.snapshot(),
        };
        self.server.parking.park_if_requested(|| Some((self.id, conversation())));
    }
}

/// The end.
impl Connection {
    /// Ends the session in order if the client says goodbye in input that was not handled. It may
    /// have said so and hung up, and then a reply to an earlier request could not be sent, which
    /// ended the conversation.
    fn look_for_goodbye(&self, handler: &impl ProtocolHandler, unhandled: &[u8]) {
        let resumable = self.resumable.clone();
        let is_another_ones = || resumable.as_ref().is_some_and(|resumable| !resumable.belongs_to(self.id));
        if self.session.info().locks_held() == 0 || is_another_ones() {
            return;
        }
        let mut input = unhandled.to_vec();
        for _ in 0..GOODBYE_READS_MAX {
            if handler.is_goodbye(&mut input) {
                let turn = resumable.as_ref().map(|resumable| resumable.turn_of(self.id));
                if !matches!(turn, Some(None)) {
                    self.send_queue.note_goodbye();
                    self.session.close();
                }
                return;
            }
            let mut fds = [PollFd::new(&self.send_queue.stream, PollFlags::IN)];
            // Reads only what has come already, and waits for nothing.
            let waited = wait_for(&mut fds, Some(Duration::ZERO));
            if waited.is_err() || fds[0].revents().is_empty() {
                return;
            }
            input.reserve(GOODBYE_READ_BYTES);
            if !matches!(self.send_queue.receive(&mut input), Ok(1..)) {
                return;
            }
        }
    }

    /// Ends the session, and logs how it ended: afterwards, since logging may wait for a slow
    /// reader of the log.
    #[cold]
    #[inline(never)]
    fn end(&self) {
        let ended = EndedConnection {
            id: self.id,
            send_queue: &self.send_queue,
            session: &self.session,
            resumable: self.resumable.as_deref(),
            server: &self.server,
        };
        if ended.hold_locks_until_client_knows(self.tell_deadline) == AfterHold::MovedOn {
            return;
        }
        // Asked for before this side hangs up, which would count as an end by the server.
        let end = self.send_queue.with_end(|end| end.cause().in_words());
        // Hang up before the session ends. Otherwise the client could see a live connection while
        // its locks are free already.
        self.send_queue.hang_up();
        let info = self.session.info();
        // Its client may have ended the session in order.
        let locks = if info.has_ended() { 0 } else { info.locks_held() };
        self.session.abandon();
        if let Some(error) = &self.error {
            log::debug!("{}: {error}", info.address());
        }
        if self.send_queue.has_overflowed() {
            let most = self.config.outbox_bytes_max;
            self.server
                .cut_off
                .warn(|| format!("{} is cut off: it has left more than {most} bytes unread", describe(info)));
        }
        // Once the server is stopping, it ends all connections itself.
        if locks > 0 && !self.server.stopping.load(Acquire) {
            let text = || format!("{} {end}; locks it held, now free: {locks}", describe(info));
            self.server.orphaned.info(locks as u64, text);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end();
    }
}

pub(super) fn ignore_interruption(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        other => other,
    }
}

/// A client in a log line: its address, and the name that it has registered.
fn describe(info: &SessionInfo) -> String {
    match info.name() {
        None => info.address().to_string(),
        Some(name) => format!("{} \"{}\"", info.address(), escape_name(&name)),
    }
}

/// Clients choose their names. So a name is shortened, and escaped so that it can neither begin
/// another line nor control a terminal.
fn escape_name(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let mut shown: String = text.chars().take(NAME_CHARACTERS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(NAME_CHARACTERS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_the_log_can_neither_end_its_line_nor_its_quotes_nor_be_long() {
        let shown = escape_name(b"a\r\n\x1b[2J\"\xff\xe2\x80\xae\0");
        assert!(!shown.chars().any(char::is_control) && !shown.contains('\u{202e}'), "{shown}");
        assert_eq!(shown.replace("\\\"", "").matches('"').count(), 0, "{shown}");
        assert_eq!(escape_name("ä".as_bytes()), "ä");
        assert_eq!(escape_name("ä".repeat(1000).as_bytes()).chars().count(), NAME_CHARACTERS_MAX + 1);
    }
}

//! The life of one connection: its thread reads, lets the protocol handle what has come, sends the replies,
//! and reads again. Knows no protocol; those are [`ProtocolHandler`]s.
//!
//! The thread sits in `read` also while requests of the connection wait for locks: so a client that
//! hangs up is noticed at once, whatever it waits for. Grants come past it, straight from the thread
//! that releases to the socket. It also looks after the time limits of its own waits.

#[cfg(fuzzing)]
pub mod fuzz_driver;

use std::cell::Cell;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant};

use super::config::{Config, Protocol};
use super::ending::Promise;
use super::log_throttle::who;
use super::send_queue::{Appended, SendQueue};
use super::server_state::ServerState;
use super::wrong_protocol::Misdirected;
use crate::broker::{AcquireError, ObservedSession, Observer};
use crate::os::Keepalive;
use crate::os::socket::{PollFd, PollFlags, wait_for};
use crate::os::sync::Arc;

/// What the input buffer has while the connection is idle: enough for nearly any request by itself, and
/// little enough for ten thousand connections that send none.
const INPUT_BYTES: usize = 512;
/// What it grows to while the client sends much at once.
const INPUT_BYTES_MUCH: usize = 64 << 10;
/// How long a client must send nothing for a buffer that grew to be given back.
const CALM: Duration = Duration::from_millis(100);
/// What may stand behind a request that waits. All of it is read, since behind what is not read the end
/// of the connection would not be seen; so it must have a limit.
const INPUT_BYTES_WAITING: usize = 256 << 10;

/// How often to look whether a wait is over where nothing can tell.
const WITHOUT_WAKER: Duration = Duration::from_millis(50);

/// What a speaker says after it has handled what it could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// It needs more input.
    Read,
    /// It handles nothing more before one of its waits has ended.
    Wait,
    /// The connection is to be closed.
    Close,
}

/// One side of a conversation in one protocol.
pub(super) trait ProtocolHandler {
    /// Handles the requests at the beginning of `input`; says how many bytes it is done with.
    fn handle(&mut self, connection: &mut Connection, input: &[u8]) -> (usize, Flow);

    /// Whether the wait that kept it from handling more is still going on.
    fn is_waiting(&self) -> bool;

    /// Whether the client says goodbye in what will not be handled any more. Takes away what it has looked at.
    fn is_goodbye(&self, _unhandled: &mut Vec<u8>) -> bool {
        false
    }
}

/// What a connection has, whatever it speaks.
pub(super) struct Connection {
    pub(super) server: Arc<ServerState>,
    pub(super) config: Arc<Config>,
    pub(super) send_queue: Arc<SendQueue>,
    pub(super) session: ObservedSession,
    next_expiry: Cell<Option<Instant>>,
    tickets: u64,
    /// What the connection has failed with, if it has.
    error: Option<io::Error>,
}

impl Connection {
    pub(super) fn new(
        server: Arc<ServerState>,
        config: Arc<Config>,
        send_queue: Arc<SendQueue>,
        address: &str,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let session = server.broker.attach(address, observer);
        Self { server, config, send_queue, session, next_expiry: Cell::new(None), tickets: 0, error: None }
    }

    /// From now on a client that is gone is found out by these figures, goes by them itself, and may need this
    /// long to end its work once it knows.
    pub(super) fn set_keepalive(&mut self, keepalive: &Keepalive, wind_down: Duration) -> io::Result<()> {
        self.send_queue.stream.set_keepalive(keepalive)?;
        self.send_queue.promise(Promise::new(keepalive, wind_down));
        Ok(())
    }

    /// A ticket for the next wait.
    pub(super) fn next_ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// A wait with this limit has begun: its end must not be slept through.
    pub(super) fn expect_expiry(&mut self, limit: Option<Duration>) {
        let Some(at) = limit.and_then(|limit| Instant::now().checked_add(limit)) else { return };
        self.next_expiry.set(Some(self.next_expiry.get().map_or(at, |next| next.min(at))));
    }

    /// Appends a reply; sends if much has gathered. False if there is nobody to read it.
    pub(super) fn reply(&self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        match self.send_queue.append(write) {
            Appended::Little => true,
            Appended::Much => self.flush(),
            Appended::ToNobody => false,
        }
    }

    /// Sends everything, waiting for the peer to read, and looks after the limits of the waits meanwhile.
    /// False if the connection is gone.
    pub(super) fn flush(&self) -> bool {
        self.send_queue.send_all(|| ControlFlow::Continue(self.expire()))
    }

    /// Serves the connection, whose listener speaks `protocol`, until it ends; `early` has come already. The session
    /// ends when this is dropped.
    pub(super) fn serve(&mut self, speaker: &mut impl ProtocolHandler, protocol: Protocol, early: Vec<u8>) {
        let mut input = Input { buffer: early, ..Input::default() };
        if let Err(error) = self.converse(speaker, protocol, &mut input) {
            self.error = Some(error);
        }
        self.hear_goodbye(speaker, input.bytes());
    }

    /// An answer of the broker, unchanged; that a limit was met with is logged.
    pub(super) fn noting_limits<T>(&self, answer: Result<T, AcquireError>) -> Result<T, AcquireError> {
        if let Err(AcquireError::Refused(reason)) = &answer
            && !self.server.broker.is_shut()
        {
            self.note_limit(reason);
        }
        answer
    }

    /// Logs that the client has met with a limit.
    #[cold]
    #[inline(never)]
    pub(super) fn note_limit(&self, what: &str) {
        self.server.limited.warn(|| format!("refused a request of {}: {what}", who(self.session.info())));
    }

    /// Ends the session, and says in the log what there is to say of that: afterwards, since whoever reads the log
    /// may be slow.
    #[cold]
    #[inline(never)]
    fn end(&self) {
        // A client must not take itself for a holder on a connection that still looks alive.
        self.hold_locks_until_client_knows();
        let end = self.send_queue.end_in_words();
        self.send_queue.hang_up();
        let info = self.session.info();
        let locks = info.locks_held();
        self.session.end();
        if let Some(error) = &self.error {
            log::debug!("{}: {error}", info.address());
        }
        if self.send_queue.has_overflowed() {
            let most = self.config.outbox_bytes_max;
            self.server
                .deaf
                .warn(|| format!("{} is cut off: it has left more than {most} bytes unread", who(info)));
        }
        // Once the server stops, everybody's end is its doing.
        if locks > 0 && !self.server.stopping.load(Acquire) {
            let text = || format!("{} {end}; locks it held, now free: {locks}", who(info));
            self.server.orphaned.info(locks as u64, text);
        }
    }

    /// Handles what comes until the connection ends. An error is one of the connection.
    fn converse(
        &mut self,
        speaker: &mut impl ProtocolHandler,
        protocol: Protocol,
        input: &mut Input,
    ) -> io::Result<()> {
        // Until something has been handled, this may be a client of another protocol.
        let mut is_new = true;
        loop {
            let stranger = is_new.then(|| self.misdirected(protocol, input.bytes())).flatten();
            let (done, next) = match stranger {
                Some(stranger) => self.turn_away(stranger),
                None => speaker.handle(self, input.bytes()),
            };
            is_new &= done == 0;
            input.consume(done);
            // A reply of a broker that has failed is worth nothing: it is not even sent.
            if self.server.has_failed() || !self.flush() {
                return Ok(());
            }
            if next == Flow::Close {
                self.send_queue.discard_input();
                self.send_queue.hang_up();
                return Ok(());
            }
            if !self.get_input(input, next, speaker)? || self.send_queue.is_closing() {
                return Ok(());
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn misdirected(&self, protocol: Protocol, first: &[u8]) -> Option<Misdirected> {
        Misdirected::find(first, protocol, self.config.message_bytes_max)
    }

    /// Tells a client of another protocol what is spoken here, and handles nothing.
    #[cold]
    #[inline(never)]
    fn turn_away(&self, stranger: Misdirected) -> (usize, Flow) {
        self.server.refused.fetch_add(1, Relaxed);
        self.reply(|out| out.extend_from_slice(&stranger.reply()));
        let address = self.session.info().address();
        self.server.strangers.warn(|| format!("refused {address}: {}", stranger.in_words()));
        (0, Flow::Close)
    }

    /// Waits until there is something for the speaker to do. False if the connection has ended.
    fn get_input(&self, input: &mut Input, next: Flow, speaker: &impl ProtocolHandler) -> io::Result<bool> {
        let stream = &self.send_queue.stream;
        loop {
            let limit = self.expire();
            if next == Flow::Wait && !input.bytes().is_empty() {
                // There is input, but nothing may be done with it before the wait ends. The waker must be
                // there before the wait is looked at.
                let waker = self.send_queue.waker();
                if self.send_queue.is_closing() {
                    return Ok(false);
                }
                if !speaker.is_waiting() {
                    return Ok(true);
                }
                let mut fds = vec![PollFd::new(stream, PollFlags::IN)];
                let limit = match waker {
                    Ok(waker) => {
                        fds.push(waker.poll_fd());
                        limit
                    }
                    // No descriptors are left. That must not cost the client its locks: look now and then.
                    Err(_) => Some(limit.map_or(WITHOUT_WAKER, |limit| limit.min(WITHOUT_WAKER))),
                };
                ignore_interruption(wait_for(&mut fds, limit))?;
                if let Ok(waker) = waker {
                    waker.reset();
                }
                if !fds[0].revents().is_empty() {
                    if !self.receive(input)? {
                        return Ok(false);
                    }
                    if input.bytes().len() > INPUT_BYTES_WAITING {
                        return Err(io::Error::other("too much stands behind a request that waits"));
                    }
                }
                continue;
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
    }

    /// Waits for more input and reads it. False if the connection has ended. While the buffer is large it
    /// waits no longer than [`CALM`]; there is nothing new then, and the buffer has been given back.
    fn receive(&self, input: &mut Input) -> io::Result<bool> {
        let stream = &self.send_queue.stream;
        match input.fill(|into| self.send_queue.receive(into)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                stream.set_receive_limit(None)?;
                input.give_back();
                Ok(true)
            }
            Ok(true) if input.has_grown() => stream.set_receive_limit(Some(CALM)).map(|()| true),
            received => received,
        }
    }

    /// Ends the waits whose time has come; returns how long it is to the next one.
    fn expire(&self) -> Option<Duration> {
        let now = Instant::now;
        if self.next_expiry.get()? <= now() {
            let next = self.session.expire();
            self.next_expiry.set(next.and_then(|rest| now().checked_add(rest)));
        }
        self.next_expiry.get().map(|at| at.saturating_duration_since(now()))
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

/// What has been read and not yet handled. Grows with what has arrived, and is given back after.
#[derive(Default)]
struct Input {
    buffer: Vec<u8>,
    /// How much at its beginning has been handled.
    start: usize,
    /// Whether it is known to have more than an idle connection keeps.
    grown: bool,
}

impl Input {
    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
    }

    /// Reads more behind what there is. False at the end of the input.
    fn fill(&mut self, read: impl FnOnce(&mut Vec<u8>) -> io::Result<usize>) -> io::Result<bool> {
        self.buffer.drain(..std::mem::take(&mut self.start));
        if self.buffer.len() == self.buffer.capacity() {
            let more = self.buffer.len().clamp(INPUT_BYTES, INPUT_BYTES_MUCH);
            self.buffer.reserve_exact(more);
        }
        let read = read(&mut self.buffer)?;
        let is_full = self.buffer.len() == self.buffer.capacity();
        if is_full && self.buffer.len() < INPUT_BYTES_MUCH {
            // A client that fills the buffer sends many requests at once: read them at once, too. What is
            // never written to takes no memory.
            self.buffer.reserve_exact(INPUT_BYTES_MUCH - self.buffer.len());
        }
        Ok(read > 0)
    }

    /// Whether it has grown since it was last asked or [given back](Self::give_back).
    fn has_grown(&mut self) -> bool {
        let known = std::mem::replace(&mut self.grown, self.buffer.capacity() > INPUT_BYTES);
        self.grown && !known
    }

    /// Gives back what it has grown by, as far as there is nothing in it.
    fn give_back(&mut self) {
        self.grown = false;
        self.buffer.shrink_to(INPUT_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_kept_in_order_whatever_is_read_and_consumed() {
        let mut input = Input::default();
        let (mut sent, mut received) = (0_u8, 0_u8);
        for round in 0..2000_usize {
            let arriving = round * 37 % 5000;
            input
                .fill(|into| {
                    let count = arriving.min(into.capacity() - into.len());
                    for _ in 0..count {
                        into.push(sent);
                        sent = sent.wrapping_add(1);
                    }
                    Ok(count)
                })
                .unwrap();
            let done = input.bytes().len() * (round % 4) / 3;
            for &byte in &input.bytes()[..done.min(input.bytes().len())] {
                assert_eq!(byte, received);
                received = received.wrapping_add(1);
            }
            input.consume(done.min(input.bytes().len()));
        }
    }

    #[test]
    fn a_buffer_that_grew_is_given_back() {
        let mut input = Input::default();
        let fill = |into: &mut Vec<u8>| {
            let (before, all) = (into.len(), into.capacity());
            into.resize(all, 0);
            Ok(all - before)
        };
        assert!(input.fill(|_| Ok(3)).unwrap() && !input.has_grown());
        for round in 0..40 {
            input.fill(fill).unwrap();
            assert_eq!(input.has_grown(), round == 0);
        }
        assert!(input.buffer.capacity() > 1 << 20);
        input.consume((1 << 20) - 1);
        input.give_back();
        assert!(input.buffer.capacity() > 1 << 20, "there is something in it");
        assert!(input.fill(fill).unwrap() && input.has_grown());
        input.consume(input.bytes().len());
        input.give_back();
        assert!(input.buffer.capacity() <= INPUT_BYTES);
    }
}

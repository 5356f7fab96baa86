//! What a connection has still to send. Anyone appends: the connection's own thread its replies, and
//! whoever releases a lock the grant to the next waiter; the order of appending is the order on the
//! wire. Anyone may send too, one at a time; nobody but the connection's own thread ever waits for
//! the peer to read.

use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::ending::Promise;
use super::framing::Framing;
use super::maintenance::Maintenance;
use super::noted::Noted;
use super::peer::Evidence;
use crate::os::socket::{PollFd, PollFlags, Stream, Waker, wait_for};
use crate::os::sync::{Arc, AtomicBool, Mutex, MutexGuard, OnceLock};
use crate::wire::websocket::{ReplyAssembler, Violation};

/// How much a connection's own thread lets gather before it sends.
const GATHER_BYTES: usize = 64 << 10;
/// How large a buffer is kept while there is nothing to send.
const KEEP_BYTES: usize = 4096;
/// How much is read at once of what is wrapped.
const WIRE_BYTES: usize = 4096;

/// The sending side of a connection, shared between all who send on it.
pub(super) struct SendQueue {
    pub(super) stream: Stream,
    pub(super) state: Mutex<State>,
    /// Another thread than the connection's own has closed it: nothing that comes is handled any more.
    pub(super) is_closing: AtomicBool,
    bytes_max: usize,
    pub(super) maintenance: Arc<Maintenance>,
    /// What the bytes are wrapped in on the wire, if in anything. Those appended are wrapped by whoever sends
    /// them, one at a time, so that they are in order; the thread that reads unwraps with the same. `state` may
    /// be taken within this lock, never the other way.
    framing: Option<Box<Mutex<Framing>>>,
    /// Wakes the connection's own thread where it waits for the end of a wait rather than for input.
    pub(super) waker: OnceLock<Waker>,
}

/// Where the connection is wrapped, read `bytes` as all of `bytes`, `wire` and what `has_control_frames` stands for.
///
/// | `sending` | `bytes`   | who sees to `bytes`                                                |
/// |-----------|-----------|--------------------------------------------------------------------|
/// | yes       | any       | the thread that sends: it looks again when it is done, and sees to the rest or hands it to the maintenance |
/// | no        | empty     | nobody needs to                                                    |
/// | no        | not empty | whoever appended and is about to send; or, if the socket is full, the maintenance or the connection's own thread, waiting until it is not |
#[derive(Default)]
pub(super) struct State {
    pub(super) bytes: Vec<u8>,
    /// What has been wrapped and not been sent, before all of `bytes`.
    pub(super) wire: Vec<u8>,
    /// Which replies go into which message, if the connection is in WebSocket. What it makes of them is in `bytes`.
    exchange: Option<ReplyAssembler>,
    /// The wrapping has something to say by itself.
    has_control_frames: bool,
    /// How many bytes have been appended and are not in `bytes` any more: where those begin in the stream of all.
    begun: u64,
    /// What of all that is due was noted by other threads than the connection's own, which waits when there is too
    /// much of its own.
    noted: Noted,
    pub(super) sending: bool,
    /// More was due to the peer than it may leave unread: it must be cut off.
    overflowed: bool,
    /// Nothing is sent any more.
    pub(super) closed: bool,
    /// An operator has ended the connection.
    pub(super) is_kicked: bool,
    /// What is known of how the connection has ended.
    pub(super) evidence: Evidence,
    /// When the client was first seen to know that the server has ended the connection.
    pub(super) told: Option<Instant>,
    /// What the client relies on, if it has said `hello`.
    pub(super) promise: Option<Promise>,
}

impl State {
    /// Appends a reply.
    fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        match &mut self.exchange {
            None => write(&mut self.bytes),
            Some(exchange) => exchange.reply(&mut self.bytes, write),
        }
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.wire.is_empty() && !self.has_control_frames
    }

    /// Takes all bytes for whoever sends them. What has been wrapped goes first, and nothing is added to it: what
    /// is said beside replies would pile up there for a peer that does not read.
    fn take_batch(&mut self) -> (Vec<u8>, bool) {
        if !self.wire.is_empty() {
            return (std::mem::take(&mut self.wire), true);
        }
        self.begun += self.bytes.len() as u64;
        (std::mem::take(&mut self.bytes), false)
    }

    /// Puts back what of a batch the socket has not taken.
    fn put_back(&mut self, mut batch: Vec<u8>, sent: usize, is_wrapped: bool) {
        batch.drain(..sent);
        if batch.capacity() > GATHER_BYTES && batch.capacity() / 2 > batch.len() {
            batch.shrink_to_fit();
        }
        if is_wrapped {
            // Nothing of what is in it counts as taken before all of it is.
            self.wire = batch;
            return;
        }
        self.begun -= batch.len() as u64;
        self.noted.taken_until(self.begun);
        batch.append(&mut self.bytes);
        self.bytes = batch;
    }
}

/// How much there is to send after a reply was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Appended {
    /// So little that more can gather.
    Little,
    /// So much that it should be sent.
    Much,
    /// The connection is gone.
    ToNobody,
}

/// How an attempt to send everything ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// Everything is with the kernel.
    All,
    /// Another thread is at it and will see to everything.
    Busy,
    /// More has been appended meanwhile.
    More,
    /// The socket takes no more for now.
    Full,
    /// The connection is gone.
    Gone,
}

impl SendQueue {
    pub(super) fn new(
        stream: Stream,
        bytes_max: usize,
        maintenance: Arc<Maintenance>,
        framing: Option<Framing>,
    ) -> Self {
        let framing = framing.map(|framing| Box::new(Mutex::new(framing)));
        Self {
            stream,
            state: Mutex::default(),
            is_closing: AtomicBool::new(false),
            bytes_max,
            maintenance,
            framing,
            waker: OnceLock::new(),
        }
    }

    /// Appends a reply of the connection's own thread, which sends when [`Appended::Much`] has gathered, so
    /// that a reply may be of any length.
    pub(super) fn append(&self, write: impl FnOnce(&mut Vec<u8>)) -> Appended {
        let mut state = self.state.lock();
        state.write(write);
        match (state.closed, state.bytes.len() >= GATHER_BYTES) {
            (true, _) => Appended::ToNobody,
            (_, true) => Appended::Much,
            _ => Appended::Little,
        }
    }

    /// Appends what another thread has to tell the peer. Sends nothing: may be called with any lock held.
    pub(super) fn note(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state.lock();
        if state.noted.bytes() > self.bytes_max as u64 {
            state.overflowed = true;
        } else if !state.closed {
            let start = state.begun + state.bytes.len() as u64;
            state.write(write);
            let end = state.begun + state.bytes.len() as u64;
            state.noted.add(start..end);
        }
    }

    /// Sends what there is without waiting; what the socket does not take is left to the maintenance.
    pub(super) fn deliver(self: &Arc<Self>) {
        if matches!(self.send(), Sent::Full | Sent::More) {
            self.maintenance.watch(self.clone());
        }
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    /// Sends everything, waiting for the peer to read, for no longer at a time than `limit` says, and only as
    /// long as that says so: for the connection's own thread. False if the connection is gone, or that breaks off.
    pub(super) fn send_all(self: &Arc<Self>, limit: impl Fn() -> ControlFlow<(), Option<Duration>>) -> bool {
        loop {
            match self.send() {
                Sent::All | Sent::Busy => return true,
                Sent::More => {}
                Sent::Gone => return false,
                Sent::Full => {
                    let ControlFlow::Continue(limit) = limit() else { return false };
                    let mut fds = [PollFd::new(&self.stream, PollFlags::OUT)];
                    // Whatever ends the wait, sending tells what is the matter.
                    let _ = wait_for(&mut fds, limit);
                }
            }
        }
    }

    /// Sends what there is now, as far as the socket takes it. Once: who sends for another must not be
    /// kept at it by one that appends as fast.
    pub(super) fn send(self: &Arc<Self>) -> Sent {
        let mut state = self.state.lock();
        if state.overflowed && !state.closed {
            drop(state);
            self.close();
            return Sent::Gone;
        }
        match (state.closed, state.sending, state.is_empty()) {
            (true, ..) => return Sent::Gone,
            (_, true, _) => return Sent::Busy,
            (_, _, true) => return Sent::All,
            _ => state.sending = true,
        }
        let (mut batch, is_wrapped) = state.take_batch();
        match &self.framing {
            Some(framing) if !is_wrapped => {
                state.has_control_frames = false;
                drop(state);
                let mut wire = Vec::new();
                framing.lock().encode(&batch, &mut wire);
                batch = wire;
            }
            _ => drop(state),
        }
        let sent = self.send_batch(&batch);
        let mut state = self.state.lock();
        state.sending = false;
        let sent = match sent {
            Ok(sent) => sent,
            Err(error) => {
                state.closed = true;
                state.evidence.note_send_error(&error);
                return Sent::Gone;
            }
        };
        if sent < batch.len() {
            state.put_back(batch, sent, self.framing.is_some());
            return Sent::Full;
        }
        let begun = state.begun;
        state.noted.taken_until(begun);
        if !state.is_empty() {
            return Sent::More;
        }
        if batch.capacity() <= KEEP_BYTES {
            batch.clear();
            state.bytes = batch;
        }
        Sent::All
    }

    /// How many bytes the socket took.
    fn send_batch(&self, batch: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < batch.len() {
            match self.stream.send_now(&batch[sent..])? {
                Some(more) => sent += more,
                None => break,
            }
        }
        Ok(sent)
    }

    /// Waits for bytes and appends what they say, which may be nothing yet; 0 means that the client will send no
    /// more. For the connection's own thread.
    pub(super) fn receive(self: &Arc<Self>, into: &mut Vec<u8>) -> io::Result<usize> {
        match &self.framing {
            None => {
                let read = self.stream.receive(into);
                if !matches!(read, Ok(1..)) {
                    self.note_read(&read);
                }
                read
            }
            Some(framing) => self.receive_wrapped(framing, into),
        }
    }

    #[cold]
    #[inline(never)]
    fn receive_wrapped(self: &Arc<Self>, framing: &Mutex<Framing>, into: &mut Vec<u8>) -> io::Result<usize> {
        let mut wire = Vec::with_capacity(WIRE_BYTES);
        let read = self.stream.receive(&mut wire);
        self.note_read(&read);
        let read = read?;
        let mut framing = framing.lock();
        if read == 0 || framing.is_over() {
            return Ok(0);
        }
        let taken = framing.decode(&wire, into);
        self.have_taken_in(framing, taken).map(|()| read)
    }

    /// Sees to what taking in has come to: the client's end, and what there is to say beside replies.
    fn have_taken_in(
        self: &Arc<Self>,
        mut framing: MutexGuard<'_, Framing>,
        taken: io::Result<()>,
    ) -> io::Result<()> {
        if taken.is_ok() && framing.is_over() {
            self.note_goodbye();
            // What came before the end is handled first. Then the socket is at its end, too, whatever the client
            // does with the connection.
            self.end_input();
        }
        let has_control_frames = framing.control_pending();
        let message_ends = framing.message_ends();
        let mut state = self.state.lock();
        state.has_control_frames |= has_control_frames;
        let State { exchange, bytes, .. } = &mut *state;
        let ended = exchange.as_mut().map_or(Ok(()), |exchange| exchange.have_ended(message_ends, bytes));
        drop(state);
        drop(framing);
        taken?;
        ended.map_err(|Violation(what)| io::Error::other(what))?;
        if has_control_frames {
            self.deliver();
        }
        Ok(())
    }

    /// From now on the connection is in WebSocket, and so is `early`; what that says is appended to `into`.
    pub(super) fn begin_websocket(self: &Arc<Self>, early: &[u8], into: &mut Vec<u8>) -> io::Result<()> {
        let Some(mut framing) = self.framing() else { return Ok(()) };
        self.state.lock().exchange = ReplyAssembler::new();
        let taken = framing.begin_websocket(early, into);
        self.have_taken_in(framing, taken)
    }

    /// Whether replies go into messages, which [`have_handled`](Self::have_handled) and
    /// [`set_waiting`](Self::set_waiting) must then be told about.
    pub(super) fn has_messages(&self) -> bool {
        self.state.lock().exchange.is_some()
    }

    /// `bytes` more bytes of requests have been handled, and their replies appended, except for one that waits.
    pub(super) fn have_handled(&self, bytes: usize) {
        let State { exchange, bytes: wire, .. } = &mut *self.state.lock();
        if let Some(exchange) = exchange {
            exchange.have_handled(bytes, wire);
        }
    }

    /// Whether the reply to a request is still to come. To be said before the request can be answered, and again
    /// once its reply has been noted.
    pub(super) fn set_waiting(&self, is_waiting: bool) {
        let State { exchange, bytes, .. } = &mut *self.state.lock();
        if let Some(exchange) = exchange {
            exchange.set_waiting(is_waiting, bytes);
        }
    }

    /// What the connection is wrapped in, if in anything; nobody sends meanwhile.
    pub(super) fn framing(&self) -> Option<MutexGuard<'_, Framing>> {
        self.framing.as_deref().map(Mutex::lock)
    }

    /// Says to the client in the words of what the connection is wrapped in that nothing more will be sent. Only
    /// where nobody sends: it must not stand within what another thread is about to send, and where something is
    /// left to be sent it would not be understood.
    pub(super) fn end_wrapping(&self) -> io::Result<()> {
        match &self.framing {
            Some(framing) => self.end_wrapping_in(framing),
            None => Ok(()),
        }
    }

    #[cold]
    #[inline(never)]
    fn end_wrapping_in(&self, framing: &Mutex<Framing>) -> io::Result<()> {
        let mut framing = framing.lock();
        let mut wire = Vec::new();
        framing.end(&mut wire);
        // Within the lock, so that no other thread ends the output before. It does not wait.
        self.stream.send_now(&wire).map(|_| ())
    }

    /// Whether more was due to the client than it may leave unread, and so it was cut off.
    pub(super) fn has_overflowed(&self) -> bool {
        self.state.lock().overflowed
    }

    /// Whether another thread has closed the connection.
    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.load(Relaxed)
    }

    /// The waker of the connection's own thread, made when first asked for: most connections never
    /// need one. Must be asked for before what it wakes for is looked at.
    pub(super) fn waker(&self) -> io::Result<&Waker> {
        if let Some(waker) = self.waker.get() {
            return Ok(waker);
        }
        let waker = Waker::new()?;
        Ok(self.waker.get_or_init(|| waker))
    }
}

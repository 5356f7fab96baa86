//! What a connection has still to send. Any thread may append: the connection's own thread appends
//! replies, and a thread that releases a lock appends the grant for the next waiter. The order of
//! appending is the order on the wire. Any thread may also send, one at a time, but only the
//! connection's own thread ever waits for the peer to read.
//!
//! `buffer` holds the bytes. `receiving` reads, since the peer's end and the control frames of its
//! framing concern what is sent. `closing` ends the connection. What an end means for the client's
//! locks is decided in `client_knows`, not here.

mod buffer;
mod closing;
mod pushed;
mod receiving;
mod snapshot;

use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use buffer::SendBuffer;

use super::client_knows::ConnectionEnd;
use super::framing::Framing;
use super::maintenance::{Flush, Maintenance};
use crate::os::process_limit;
use crate::os::socket::{PollFd, PollFlags, Stream, Waker, wait_for};
use crate::os::sync::{Arc, AtomicBool, Mutex, MutexGuard, OnceLock};

/// What all threads share that send on a connection or may end it.
pub(super) struct SendQueue {
    pub(super) stream: Stream,
    state: Mutex<SendState>,
    /// Another thread than the connection's own has closed it: nothing more is handled.
    is_closing: AtomicBool,
    /// How many bytes that other threads appended a client may leave unread.
    bytes_max: usize,
    maintenance: Arc<Maintenance>,
    /// How bytes are encoded on the wire, if not as they are. The thread that sends a batch encodes
    /// it, one at a time, so that batches stay in order; the thread that reads decodes with the
    /// same. `state` may be locked while this is, never the other way.
    framing: Option<Box<Mutex<Framing>>>,
    /// Wakes the connection's own thread while it waits for the end of a lock wait rather than for
    /// input.
    waker: OnceLock<Waker>,
}

/// Which thread is responsible for sending the buffer:
///
/// | `is_sending` | `buffer`  | responsible                                                    |
/// |--------------|-----------|----------------------------------------------------------------|
/// | yes          | any       | the thread that sends                                          |
/// | no           | empty     | no thread                                                      |
/// | no           | not empty | the thread that appended; if the socket is full, see below     |
///
/// When a thread has sent a batch, it looks at the buffer again, and sends the rest or leaves it to
/// the maintenance. While the socket is full, either the maintenance or the connection's own thread
/// waits for room in it.
#[derive(Default)]
struct SendState {
    buffer: SendBuffer,
    is_sending: bool,
    /// The client has left more than `bytes_max` unread: it must be cut off.
    has_overflowed: bool,
    /// Nothing is sent any more.
    is_closed: bool,
    /// In the same mutex as `is_sending`: a thread that sends may have taken the connection's error
    /// from the socket without having reported it here.
    end: ConnectionEnd,
}

/// What is to be done after a reply was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Appended {
    /// Nothing: more replies may gather.
    Buffered,
    /// Enough has gathered that it should be sent.
    FlushDue,
    /// The connection is gone.
    Closed,
}

/// How an attempt to send everything ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendOutcome {
    AllSent,
    /// Another thread is sending, and will send everything or leave it to the maintenance.
    OtherThreadSends,
    /// More has been appended meanwhile.
    MoreAppended,
    /// The socket takes no more for now.
    SocketFull,
    /// The connection is gone.
    Closed,
}

impl SendQueue {
    pub(super) fn new(
        stream: Stream,
        bytes_max: usize,
        maintenance: Arc<Maintenance>,
        framing: Option<Framing>,
    ) -> Self {
        let framing = framing.map(|framing| Box::new(Mutex::new(framing)));
        let mut state = SendState::default();
        if !stream.is_tcp() {
            state.end.set_local();
        }
        Self {
            stream,
            state: Mutex::new(state),
            is_closing: AtomicBool::new(false),
            bytes_max,
            maintenance,
            framing,
            waker: OnceLock::new(),
        }
    }

    /// Appends a reply of the connection's own thread. That thread sends when
    /// [`Appended::FlushDue`] tells it to, so a reply may be of any length.
    pub(super) fn append(&self, write: impl FnOnce(&mut Vec<u8>)) -> Appended {
        let mut state = self.state.lock();
        state.buffer.append(write);
        match (state.is_closed, state.buffer.is_flush_due()) {
            (true, _) => Appended::Closed,
            (_, true) => Appended::FlushDue,
            _ => Appended::Buffered,
        }
    }

    /// Appends what another thread has for the client. Sends nothing, so it may be called with any
    /// lock held; [`deliver`](Self::deliver) sends it.
    pub(super) fn push(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state.lock();
        if state.buffer.pushed_bytes() > self.bytes_max as u64 {
            state.has_overflowed = true;
        } else if !state.is_closed {
            state.buffer.push(write);
        }
    }

    /// Sends the buffer without waiting. What the socket does not take is left to the maintenance.
    pub(super) fn deliver(self: &Arc<Self>) {
        if matches!(self.send(), SendOutcome::SocketFull | SendOutcome::MoreAppended) {
            self.maintenance.flush_later(self.clone());
        }
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    /// Sends everything, and waits for the peer to read: for the connection's own thread. Before
    /// each wait it asks `limit` how long that may last, or whether to break off. False if it broke
    /// off or the connection is gone.
    pub(super) fn send_all(self: &Arc<Self>, limit: impl Fn() -> ControlFlow<(), Option<Duration>>) -> bool {
        loop {
            match self.send() {
                SendOutcome::AllSent | SendOutcome::OtherThreadSends => return true,
                SendOutcome::MoreAppended => {}
                SendOutcome::Closed => return false,
                SendOutcome::SocketFull => {
                    let ControlFlow::Continue(limit) = limit() else { return false };
                    let mut fds = [PollFd::new(&self.stream, PollFlags::OUT)];
                    // Whatever ends the wait, the next attempt to send finds out.
                    let _ = wait_for(&mut fds, limit);
                }
            }
        }
    }

    /// Sends one batch, as far as the socket takes it. Only one: a thread that sends for another
    /// connection must not be kept busy by a third that appends as fast.
    pub(super) fn send(self: &Arc<Self>) -> SendOutcome {
        let mut state = self.state.lock();
        if state.has_overflowed && !state.is_closed {
            drop(state);
            self.close();
            return SendOutcome::Closed;
        }
        match (state.is_closed, state.is_sending, state.buffer.is_empty()) {
            (true, ..) => return SendOutcome::Closed,
            (_, true, _) => return SendOutcome::OtherThreadSends,
            (_, _, true) => return SendOutcome::AllSent,
            _ => state.is_sending = true,
        }
        let (mut batch, is_encoded) = state.buffer.take_batch();
        drop(state);
        if let (Some(framing), false) = (&self.framing, is_encoded) {
            let mut wire = Vec::new();
            framing.lock().encode(&batch, &mut wire);
            batch = wire;
        }
        let sent = self.send_batch(&batch);
        let mut state = self.state.lock();
        debug_assert!(state.is_sending, "no other thread sends meanwhile");
        state.is_sending = false;
        let sent = match sent {
            Ok(sent) => sent,
            Err(error) => {
                state.is_closed = true;
                state.end.note_send_error(&error);
                return SendOutcome::Closed;
            }
        };
        if sent < batch.len() {
            state.buffer.put_back(batch, sent, self.framing.is_some());
            return SendOutcome::SocketFull;
        }
        state.buffer.batch_sent(batch);
        if state.buffer.is_empty() { SendOutcome::AllSent } else { SendOutcome::MoreAppended }
    }

    /// Returns how many bytes the socket took. Nothing is sent once the time of this process to
    /// speak is over: by then another may have given its locks away.
    fn send_batch(&self, batch: &[u8]) -> io::Result<usize> {
        if !process_limit::is_within() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the time of this server is over"));
        }
        let mut sent = 0;
        while sent < batch.len() {
            match self.stream.send_now(&batch[sent..])? {
                Some(more) => sent += more,
                None => break,
            }
        }
        Ok(sent)
    }

    /// Whether replies go into WebSocket messages. Then [`lines_handled`](Self::lines_handled) and
    /// [`set_waiting`](Self::set_waiting) must be called.
    pub(super) fn has_messages(&self) -> bool {
        self.state.lock().buffer.messages().is_some()
    }

    /// `bytes` more bytes of requests have been handled, and their replies appended, except for one
    /// that waits.
    pub(super) fn lines_handled(&self, bytes: usize) {
        if let Some((exchange, out)) = self.state.lock().buffer.messages() {
            exchange.lines_handled(bytes, out);
        }
    }

    /// Whether the reply to a request is still to come. To be called before the request can be
    /// answered, and again once its reply has been appended.
    pub(super) fn set_waiting(&self, is_waiting: bool) {
        if let Some((exchange, out)) = self.state.lock().buffer.messages() {
            exchange.set_waiting(is_waiting, out);
        }
    }

    /// The connection's framing, locked: no other thread encodes or decodes meanwhile. `None` if it
    /// has none.
    pub(super) fn framing(&self) -> Option<MutexGuard<'_, Framing>> {
        self.framing.as_deref().map(Mutex::lock)
    }

    /// How many bytes are still to be sent, as far as they are encoded.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.state.lock().buffer.unsent_bytes()
    }

    /// Whether the client left too much unread, and so was cut off.
    pub(super) fn has_overflowed(&self) -> bool {
        self.state.lock().has_overflowed
    }

    /// Whether another thread has closed the connection.
    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.load(Relaxed)
    }

    /// The waker of the connection's own thread. It is made when it is first asked for, since most
    /// connections never need one. To be asked for before the condition that it signals is checked,
    /// so that no signal is missed.
    pub(super) fn waker(&self) -> io::Result<&Waker> {
        if let Some(waker) = self.waker.get() {
            return Ok(waker);
        }
        let waker = Waker::new()?;
        Ok(self.waker.get_or_init(|| waker))
    }
}

impl Flush for SendQueue {
    fn stream(&self) -> &Stream {
        &self.stream
    }

    fn flush(self: Arc<Self>) -> bool {
        !matches!(self.send(), SendOutcome::SocketFull | SendOutcome::MoreAppended)
    }
}

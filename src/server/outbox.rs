//! What a connection has still to send. Anyone appends: the connection's own thread its replies, and
//! whoever releases a lock the grant to the next waiter; the order of appending is the order on the
//! wire. Anyone may send too, one at a time; nobody but the connection's own thread ever waits for
//! the peer to read.

use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use super::janitor::Janitor;
use super::wrapping::Wrapping;
use crate::broker::sync::{Arc, Mutex, MutexGuard, OnceLock};
use crate::socket::{PollFd, PollFlags, Stream, Waker, is_word_of_the_peer, wait_for};

/// How much a connection's own thread lets gather before it sends.
const GATHER_BYTES: usize = 64 << 10;
/// How large a buffer is kept while there is nothing to send.
const KEEP_BYTES: usize = 4096;
/// How much is read at once of what is wrapped.
const WIRE_BYTES: usize = 4096;

/// The sending side of a connection, shared between all who send on it.
pub(super) struct Outbox {
    pub(super) stream: Stream,
    state: Mutex<State>,
    bytes_max: usize,
    janitor: Arc<Janitor>,
    /// What the bytes are wrapped in on the wire, if in anything. Those appended are wrapped by whoever sends
    /// them, one at a time, so that they are in order; the thread that reads unwraps with the same. `state` may
    /// be taken within this lock, never the other way.
    wrapping: Option<Box<Mutex<Wrapping>>>,
    /// Wakes the connection's own thread where it waits for the end of a wait rather than for input.
    waker: OnceLock<Waker>,
}

/// Where the connection is wrapped, read `bytes` as all of `bytes`, `wire` and what `has_aside` stands for.
///
/// | `sending` | `bytes`   | who sees to `bytes`                                                |
/// |-----------|-----------|--------------------------------------------------------------------|
/// | yes       | any       | the thread that sends: it looks again when it is done, and sees to the rest or hands it to the janitor |
/// | no        | empty     | nobody needs to                                                    |
/// | no        | not empty | whoever appended and is about to send; or, if the socket is full, the janitor or the connection's own thread, waiting until it is not |
#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    /// What has been wrapped and not been sent, before all of `bytes`.
    wire: Vec<u8>,
    /// The wrapping has something to say by itself.
    has_aside: bool,
    /// How many of these were noted by others than the connection's own thread, which waits when there is
    /// too much of its own.
    noted: usize,
    sending: bool,
    /// More was due to the peer than it may leave unread: it must be cut off.
    overflowed: bool,
    /// Nothing is sent any more.
    closed: bool,
    /// Why not, if that is known.
    end: Option<End>,
}

/// What ended a connection. The kernel tells one thread what it was; others that meet with the end see a
/// broken pipe, which looks like the client's doing. So of several ends, the last in this order counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// The client's kernel did.
    There,
    /// The server did.
    Here,
    /// Nothing was heard of the client for too long.
    Silence,
}

impl State {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.wire.is_empty() && !self.has_aside
    }

    fn close(&mut self, end: End) {
        self.closed = true;
        self.end = self.end.max(Some(end));
    }
}

impl From<&io::Error> for End {
    fn from(error: &io::Error) -> Self {
        match error.raw_os_error() {
            None => Self::Here,
            Some(_) if is_word_of_the_peer(error) => Self::There,
            Some(_) => Self::Silence,
        }
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

impl Outbox {
    pub(super) fn new(
        stream: Stream,
        bytes_max: usize,
        janitor: Arc<Janitor>,
        wrapping: Option<Wrapping>,
    ) -> Self {
        let wrapping = wrapping.map(|wrapping| Box::new(Mutex::new(wrapping)));
        Self { stream, state: Mutex::default(), bytes_max, janitor, wrapping, waker: OnceLock::new() }
    }

    /// Appends a reply of the connection's own thread, which sends when [`Appended::Much`] has gathered, so
    /// that a reply may be of any length.
    pub(super) fn append(&self, write: impl FnOnce(&mut Vec<u8>)) -> Appended {
        let mut state = self.state.lock();
        write(&mut state.bytes);
        match (state.closed, state.bytes.len() >= GATHER_BYTES) {
            (true, _) => Appended::ToNobody,
            (_, true) => Appended::Much,
            _ => Appended::Little,
        }
    }

    /// Appends what another thread has to tell the peer. Sends nothing: may be called with any lock held.
    pub(super) fn note(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state.lock();
        if state.noted > self.bytes_max {
            state.overflowed = true;
        } else if !state.closed {
            let before = state.bytes.len();
            write(&mut state.bytes);
            state.noted += state.bytes.len() - before;
        }
    }

    /// Sends what there is without waiting; what the socket does not take is left to the janitor.
    pub(super) fn deliver(self: &Arc<Self>) {
        if matches!(self.send(), Sent::Full | Sent::More) {
            self.janitor.watch(self.clone());
        }
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    /// Sends everything, waiting for the peer to read, for no longer at a time than `limit` says, and only as
    /// long as that says so: for the connection's own thread. False if the connection is gone, or that breaks off.
    pub(super) fn send_all(&self, limit: impl Fn() -> ControlFlow<(), Option<Duration>>) -> bool {
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
    pub(super) fn send(&self) -> Sent {
        let mut state = self.state.lock();
        if state.overflowed && !state.closed {
            state.close(End::Here);
            self.stream.shutdown();
        }
        match (state.closed, state.sending, state.is_empty()) {
            (true, ..) => return Sent::Gone,
            (_, true, _) => return Sent::Busy,
            (_, _, true) => return Sent::All,
            _ => state.sending = true,
        }
        // What has been wrapped goes first, and nothing is added to it: what is said beside replies would pile up
        // there for a peer that does not read.
        let is_wrapped = !state.wire.is_empty();
        let mut batch = std::mem::take(if is_wrapped { &mut state.wire } else { &mut state.bytes });
        match &self.wrapping {
            Some(wrapping) if !is_wrapped => {
                state.has_aside = false;
                drop(state);
                let mut wire = Vec::new();
                wrapping.lock().put_out(&batch, &mut wire);
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
                state.close(End::from(&error));
                return Sent::Gone;
            }
        };
        if sent < batch.len() {
            batch.drain(..sent);
            if self.wrapping.is_some() {
                state.wire = batch;
                return Sent::Full;
            }
            batch.append(&mut state.bytes);
            state.bytes = batch;
            return Sent::Full;
        }
        if !state.is_empty() {
            return Sent::More;
        }
        state.noted = 0;
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

    /// The connection's own thread has met with an error of the connection.
    pub(super) fn note_end(&self, error: &io::Error) {
        self.state.lock().close(End::from(error));
    }

    /// The connection's own thread has met with the end of its input. Behind the client's own end there may be
    /// an error by now: a reply that came too late was answered by a reset.
    pub(super) fn note_end_of_input(&self) {
        if let Some(error) = self.stream.take_error() {
            self.note_end(&error);
        }
    }

    /// Whether the connection ended because nothing was heard of the client any more. Only one thread is told
    /// that by the kernel, which may not have come to say so: then, too.
    pub(super) fn is_given_up(&self) -> bool {
        let end = self.state.lock().end;
        if end.is_some() || self.stream.has_peer() {
            return end == Some(End::Silence);
        }
        // A reset may have come since the end of the input was read.
        self.note_end_of_input();
        matches!(self.state.lock().end, None | Some(End::Silence))
    }

    /// Waits for bytes and appends what they say, which may be nothing yet; 0 means that the client will send no
    /// more. For the connection's own thread.
    pub(super) fn receive(self: &Arc<Self>, into: &mut Vec<u8>) -> io::Result<usize> {
        match &self.wrapping {
            None => self.stream.receive(into),
            Some(wrapping) => self.receive_wrapped(wrapping, into),
        }
    }

    #[cold]
    #[inline(never)]
    fn receive_wrapped(
        self: &Arc<Self>,
        wrapping: &Mutex<Wrapping>,
        into: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let mut wire = Vec::with_capacity(WIRE_BYTES);
        let read = self.stream.receive(&mut wire)?;
        let mut wrapping = wrapping.lock();
        if read == 0 || wrapping.is_over() {
            return Ok(0);
        }
        let taken = wrapping.take_in(&wire, into);
        self.have_taken_in(wrapping, taken).map(|()| read)
    }

    /// Sees to what taking in has come to: the client's end, and what there is to say beside replies.
    fn have_taken_in(
        self: &Arc<Self>,
        wrapping: MutexGuard<'_, Wrapping>,
        taken: io::Result<()>,
    ) -> io::Result<()> {
        if taken.is_ok() && wrapping.is_over() {
            // What came before the end is handled first. Then the socket is at its end, too, whatever the client
            // does with the connection.
            self.stream.end_input();
        }
        let has_aside = wrapping.has_to_say();
        self.state.lock().has_aside |= has_aside;
        drop(wrapping);
        taken?;
        if has_aside {
            self.deliver();
        }
        Ok(())
    }

    /// From now on the connection is in WebSocket, and so is `early`; what that says is appended to `into`.
    pub(super) fn begin_websocket(self: &Arc<Self>, early: &[u8], into: &mut Vec<u8>) -> io::Result<()> {
        let Some(mut wrapping) = self.wrapping() else { return Ok(()) };
        let taken = wrapping.begin_websocket(early, into);
        self.have_taken_in(wrapping, taken)
    }

    /// What the connection is wrapped in, if in anything; nobody sends meanwhile.
    pub(super) fn wrapping(&self) -> Option<MutexGuard<'_, Wrapping>> {
        self.wrapping.as_deref().map(Mutex::lock)
    }

    /// Says to the client in the words of what the connection is wrapped in that nothing more will be sent. Only
    /// where nobody sends: it must not stand within what another thread is about to send, and where something is
    /// left to be sent it would not be understood.
    #[cold]
    #[inline(never)]
    fn end_wrapping(&self, wrapping: &Mutex<Wrapping>) {
        let mut wrapping = wrapping.lock();
        let mut wire = Vec::new();
        wrapping.end(&mut wire);
        // Within the lock, so that no other thread ends the output before. It does not wait.
        let _ = self.stream.send_now(&wire);
    }

    /// Ends the connection by a reset, where its end does not get across otherwise. Whether that does, nobody
    /// will say.
    pub(super) fn abort(&self) {
        self.state.lock().close(End::Silence);
        self.stream.abort();
    }

    /// Whether the client of a connection that was [hung up](Self::hang_up) knows of its end: it has acknowledged
    /// it, or has ended the connection itself.
    pub(super) fn is_told(&self) -> bool {
        self.note_end_of_input();
        !self.is_given_up() && (self.stream.is_delivered() || !self.stream.has_peer())
    }

    /// Whether more was due to the client than it may leave unread, and so it was cut off.
    pub(super) fn has_overflowed(&self) -> bool {
        self.state.lock().overflowed
    }

    /// How the connection has ended, for people.
    pub(super) fn end_in_words(&self) -> &'static str {
        let end = self.state.lock().end;
        match end {
            // The end of its input is no error, and so is noted nowhere.
            Some(End::There) | None => "ended its connection",
            Some(End::Here) => "was hung up on",
            Some(End::Silence) => "was not heard of any more",
        }
    }

    /// Whether it was the server that ended the connection.
    pub(super) fn is_hung_up(&self) -> bool {
        self.state.lock().end == Some(End::Here)
    }

    /// Nothing is sent any more but the end. What the client sends is still taken, and not answered: by a
    /// connection that takes nothing more it would be reset, and nobody could say whether it knew of the end.
    pub(super) fn hang_up(&self) {
        let mut state = self.state.lock();
        state.close(End::Here);
        state.bytes = Vec::new();
        let is_amid = state.sending || !std::mem::take(&mut state.wire).is_empty();
        drop(state);
        if let (Some(wrapping), false) = (&self.wrapping, is_amid) {
            self.end_wrapping(wrapping);
        }
        self.stream.end_output();
    }

    /// The same, and the connection's own thread reads the end of its input.
    pub(super) fn close(&self) {
        self.hang_up();
        self.stream.shutdown();
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_meets_with_the_end_first_silence_is_not_forgotten() {
        let [silence, broken] = [110, 32].map(io::Error::from_raw_os_error);
        for order in [[&silence, &broken], [&broken, &silence]] {
            let mut state = State::default();
            order.into_iter().for_each(|error| state.close(End::from(error)));
            assert_eq!(state.end, Some(End::Silence));
            state.close(End::Here);
            assert_eq!(state.end, Some(End::Silence), "also if the server would have hung up");
        }
    }
}

//! How a connection is ended, by whichever thread, and how long its locks are kept then: until its client knows,
//! and, if it asked for that, until its work has ended. What is known of that is kept and judged in `peer`; this
//! gathers it from the socket, and must take no step that would spoil it before the verdict is in.
//!
//! A connection's own thread sits in `read`. Only two things wake it that come from this side: an end of the input,
//! and a reset. Both would have the kernel answer what the client sends by a reset of its own, so another thread
//! that closes a connection sends the end of the stream, and leaves it to the janitor to wake the thread once the
//! client knows ([`Closing`]).

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::outbox::Outbox;
use super::peer::Verdict;
use crate::broker::sync::{Arc, Weak};
use crate::protocol::message::Keepalive;
use crate::socket::wait_for;

/// How long a client that is hung up on may take to acknowledge it before it is reset.
const TELL_LIMIT: Duration = Duration::from_secs(1);
/// How often to look whether it has.
const TOLD_LOOK: Duration = Duration::from_millis(1);
/// How often to look whether a client that knows, or is out of reach, has left; or the broker grants nothing any
/// more.
const LEFT_LOOK: Duration = Duration::from_millis(20);
/// How many chunks of what a client sends are thrown away in one go.
const DISCARD_CHUNKS_MAX: usize = 64;

/// What a client that has said `hello` can rely on when its connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Promise {
    /// How long its locks are kept once it is out of reach: it knows by its own figures before.
    pub(super) out_of_reach: Duration,
    /// How much longer they are kept for its work to end, unless it leaves before.
    pub(super) wind_down: Duration,
}

impl Promise {
    pub(super) fn new(keepalive: &Keepalive, wind_down: Duration) -> Self {
        Self { out_of_reach: keepalive.rest(), wind_down }
    }
}

impl Outbox {
    /// From now on the client may rely on this.
    pub(super) fn promise(&self, promise: Promise) {
        self.state.lock().promise = Some(promise);
    }

    /// Nothing is sent any more but the end. What the client sends is still taken, and not answered.
    pub(super) fn hang_up(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.bytes = Vec::new();
        let is_amid = state.sending || !std::mem::take(&mut state.wire).is_empty();
        if !is_amid && !state.evidence.has_server_ended() {
            state.sending = true;
            drop(state);
            let ended = self.end_wrapping();
            state = self.state.lock();
            state.sending = false;
            if let Err(error) = ended {
                state.evidence.note_send_error(&error);
            }
        }
        if self.stream.end_output() {
            state.evidence.note_server_end();
        }
    }

    /// The same, by another thread than the connection's own, which is woken once the client knows, or can only
    /// find out by itself.
    pub(super) fn close(self: &Arc<Self>) {
        if self.is_closing.swap(true, Relaxed) {
            return;
        }
        self.hang_up();
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
        match self.promised() {
            Some(_) => self.janitor.see_off(Closing::new(self)),
            // It relies on nothing, and so there is nothing to be found out.
            None => self.end_input(),
        }
    }

    /// [Closes](Self::close) the connection because an operator says so. Said a second time, the client's work is
    /// not waited for any more.
    pub(super) fn kick(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let is_second = std::mem::replace(&mut state.is_kicked, true);
        if let (true, Some(promise)) = (is_second, &mut state.promise) {
            promise.wind_down = Duration::ZERO;
        }
        drop(state);
        self.close();
    }

    /// Wakes the connection's own thread, at the price that nothing more is learnt from the socket.
    pub(super) fn end_input(&self) {
        self.state.lock().evidence.note_end_of_input();
        self.stream.end_input();
    }

    /// Ends the connection by a reset, where its end does not get across otherwise. Whether that does, nobody
    /// will say.
    fn reset(&self) {
        self.state.lock().evidence.note_reset();
        self.stream.abort();
    }

    /// What follows from all that is known by now, and from what the kernel has to add.
    pub(super) fn look(&self) -> Verdict {
        let mut state = self.state.lock();
        if let Some(error) = self.stream.take_error() {
            state.evidence.note_error(&error);
        }
        if self.stream.is_delivered() {
            state.evidence.note_all_acknowledged();
        }
        state.evidence.verdict()
    }

    /// The client's word as it was read: `read` bytes, or an error. For whichever thread reads.
    pub(super) fn note_read(&self, read: &io::Result<usize>) {
        match read {
            Ok(0) => {
                let is_connected = self.stream.has_peer();
                let mut state = self.state.lock();
                let is_sole = !state.sending;
                state.evidence.note_end_of_stream(is_connected, is_sole);
            }
            Ok(_) => {}
            Err(error) => self.state.lock().evidence.note_error(error),
        }
    }

    /// The client has said goodbye in the words of what the connection is wrapped in.
    pub(super) fn note_goodbye(&self) {
        self.state.lock().evidence.note_goodbye();
    }

    /// Reads what has come so far of what is not going to be handled: behind it the client's end may be waiting,
    /// and closed with unread input a connection is reset, so that its client may never see the last reply. A
    /// client that goes on and on has no claim to more than a part of it.
    #[cold]
    #[inline(never)]
    pub(super) fn discard_input(&self) {
        let mut chunk = [0; 4096];
        for _ in 0..DISCARD_CHUNKS_MAX {
            let read = match self.stream.receive_now(&mut chunk) {
                Ok(None) => return,
                Ok(Some(read)) => Ok(read),
                Err(error) => Err(error),
            };
            self.note_read(&read);
            if !matches!(read, Ok(1..)) {
                return;
            }
        }
    }

    /// How the connection has ended, for people.
    pub(super) fn end_in_words(&self) -> &'static str {
        self.state.lock().evidence.in_words()
    }

    fn promised(&self) -> Option<Promise> {
        self.state.lock().promise
    }
}

impl Connection {
    /// Returns once the client cannot take itself for a holder any more, or cannot be waited for any longer. Its
    /// waits have ended by then, since it can be told of no grant, and believes in none.
    pub(super) fn hold_locks_until_client_knows(&self) {
        let outbox = &self.outbox;
        let Some(promise) = outbox.promised() else { return };
        if outbox.look() == Verdict::Left {
            return;
        }
        outbox.hang_up();
        self.session.end_waits();
        if self.session.info().locks_held() == 0 {
            return;
        }
        self.wait_until(TOLD_LOOK, |verdict, waited| verdict != Verdict::Untold || waited >= TELL_LIMIT);
        if self.hub.is_over() {
            return;
        }
        let limit = match outbox.look() {
            Verdict::Left => return,
            Verdict::Told => Duration::ZERO,
            Verdict::Untold | Verdict::OutOfReach => {
                // Else our kernel might go on answering the client's.
                outbox.reset();
                promise.out_of_reach
            }
        };
        self.wait_until(LEFT_LOOK, |verdict, waited| {
            // Looked at anew: the operator may have lost patience.
            let wind_down = outbox.promised().map_or(Duration::ZERO, |promise| promise.wind_down);
            verdict == Verdict::Left || waited >= limit.saturating_add(wind_down)
        });
    }

    /// Polls every `interval` until the verdict and the time waited are as wanted, or the server is stopping and
    /// nothing is granted any more. (While it only has been shut, its holders have not been counted yet.)
    fn wait_until(&self, interval: Duration, is_wanted: impl Fn(Verdict, Duration) -> bool) {
        let start = Instant::now();
        loop {
            self.outbox.discard_input();
            if is_wanted(self.outbox.look(), start.elapsed()) || self.hub.is_over() {
                return;
            }
            // Interrupted or not, the next round looks again.
            let _ = wait_for(&mut [], Some(interval));
        }
    }
}

/// A connection that another thread has closed, whose own thread is to be woken.
pub(super) struct Closing {
    /// Gone when the connection is.
    outbox: Weak<Outbox>,
    /// When the client is to have acknowledged the end.
    tell_limit: Instant,
    /// When the client, which knows, was first seen to.
    told: Option<Instant>,
}

impl Closing {
    fn new(outbox: &Arc<Outbox>) -> Self {
        Self { outbox: Arc::downgrade(outbox), tell_limit: Instant::now() + TELL_LIMIT, told: None }
    }

    /// Wakes the connection's own thread if it is time. Returns after how long to look again, if not.
    pub(super) fn look(&mut self) -> Option<Duration> {
        let outbox = self.outbox.upgrade()?;
        let now = Instant::now();
        match outbox.look() {
            Verdict::Untold if now < self.tell_limit => Some(TOLD_LOOK),
            // It wakes the thread, too.
            Verdict::Untold => {
                outbox.reset();
                None
            }
            Verdict::Told => {
                // What the client sends says when its work has ended; the thread reads it for that long.
                let wind_down = outbox.promised().map_or(Duration::ZERO, |promise| promise.wind_down);
                let rest = wind_down.saturating_sub(self.told.get_or_insert(now).elapsed());
                if !rest.is_zero() {
                    return Some(rest.min(LEFT_LOOK));
                }
                outbox.end_input();
                None
            }
            Verdict::Left | Verdict::OutOfReach => {
                outbox.end_input();
                None
            }
        }
    }
}

//! How a connection is ended, by whichever thread, and how long its locks are kept then: until its client knows,
//! and, if it asked for that, until its work has ended. What is known of that is kept and judged in `peer`; this
//! gathers it from the socket, and must take no step that would spoil it before the verdict is in.
//!
//! A connection's own thread sits in `read`. Only two things wake it that come from this side: an end of the input,
//! and a reset. Both would have the kernel answer what the client sends by a reset of its own, so another thread
//! that closes a connection sends the end of the stream, and leaves it to the maintenance to wake the thread once the
//! client knows ([`Closing`]).

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::connection::{Connection, ProtocolHandler};
use super::peer::Verdict;
use super::send_queue::SendQueue;
use crate::os::Keepalive;
use crate::os::socket::{PollFd, PollFlags, wait_for};
use crate::os::sync::{Arc, Weak};

/// How long a client that is hung up on may take to acknowledge it before it is reset.
const TELL_LIMIT: Duration = Duration::from_secs(1);
/// How often to look whether it has.
const TOLD_LOOK: Duration = Duration::from_millis(1);
/// How often to look whether a client that knows, or is out of reach, has left; or the broker grants nothing any
/// more.
const LEFT_LOOK: Duration = Duration::from_millis(20);
/// How much of what a client sends is read at once, where little is expected.
const CHUNK: usize = 4096;
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
        Self { out_of_reach: keepalive.release_delay(), wind_down }
    }
}

impl SendQueue {
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
            Some(_) => self.maintenance.see_off(Closing::new(self)),
            // It relies on nothing, and so there is nothing to be found out.
            None => self.end_input(),
        }
    }

    /// [Closes](Self::close) the connection because an operator says so. Said a second time, the client's work is
    /// not waited for any more.
    pub(super) fn kick(self: &Arc<Self>) {
        if std::mem::replace(&mut self.state.lock().is_kicked, true) {
            self.limit_wind_down(Duration::ZERO);
        }
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
        let verdict = state.evidence.verdict();
        if verdict == Verdict::Told {
            state.told.get_or_insert_with(Instant::now);
        }
        verdict
    }

    /// From now on the client is given no more than `limit` for its work to end, whatever it asked for.
    pub(super) fn limit_wind_down(&self, limit: Duration) {
        let mut state = self.state.lock();
        if let Some(promise) = &mut state.promise {
            promise.wind_down = promise.wind_down.min(limit);
        }
    }

    /// For how much longer the locks are kept for a client that has been told: until its work has ended, which its
    /// own end of the connection says, or the time that it asked for is over.
    fn rest_of_wind_down(&self) -> Duration {
        let state = self.state.lock();
        let wind_down = state.promise.map_or(Duration::ZERO, |promise| promise.wind_down);
        wind_down.saturating_sub(state.told.map_or(Duration::ZERO, |told| told.elapsed()))
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
        let mut chunk = [0; CHUNK];
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
    /// Ends the session in order if the client has said goodbye in what came and was not handled: it may have hung up
    /// behind that, and then a reply to an earlier request could not be sent, which ended the conversation.
    pub(super) fn hear_goodbye(&self, speaker: &impl ProtocolHandler, unhandled: &[u8]) {
        if self.session.info().locks_held() == 0 {
            return;
        }
        let mut input = unhandled.to_vec();
        for _ in 0..DISCARD_CHUNKS_MAX {
            if speaker.is_goodbye(&mut input) {
                self.send_queue.note_goodbye();
                return self.session.leave();
            }
            let mut fds = [PollFd::new(&self.send_queue.stream, PollFlags::IN)];
            // Only what is there: nothing is waited for.
            let waited = wait_for(&mut fds, Some(Duration::ZERO));
            if waited.is_err() || fds[0].revents().is_empty() {
                return;
            }
            input.reserve(CHUNK);
            if !matches!(self.send_queue.receive(&mut input), Ok(1..)) {
                return;
            }
        }
    }

    /// Returns once the client cannot take itself for a holder any more, or cannot be waited for any longer. Its
    /// waits have ended by then, since it can be told of no grant, and believes in none.
    pub(super) fn hold_locks_until_client_knows(&self) {
        let send_queue = &self.send_queue;
        let Some(promise) = send_queue.promised() else { return };
        if send_queue.look() == Verdict::Left {
            return;
        }
        send_queue.hang_up();
        self.session.end_waits();
        if self.session.info().locks_held() == 0 {
            return;
        }
        self.wait_until(TOLD_LOOK, |verdict, waited| verdict != Verdict::Untold || waited >= TELL_LIMIT);
        if self.server.is_over() {
            return;
        }
        if send_queue.look().is_known() {
            self.wait_until(LEFT_LOOK, |verdict, _| {
                verdict == Verdict::Left || send_queue.rest_of_wind_down().is_zero()
            });
            return;
        }
        // Else our kernel might go on answering the client's.
        send_queue.reset();
        self.wait_until(LEFT_LOOK, |verdict, waited| {
            // An operator may have lost patience, and so the time for the client's work is looked at anew.
            let limit = promise.out_of_reach.saturating_add(send_queue.rest_of_wind_down());
            verdict == Verdict::Left || waited >= limit
        });
    }

    /// Polls every `interval` until the verdict and the time waited are as wanted, or the server is stopping and
    /// nothing is granted any more. (While it only has been shut, its holders have not been counted yet.)
    fn wait_until(&self, interval: Duration, is_wanted: impl Fn(Verdict, Duration) -> bool) {
        let start = Instant::now();
        loop {
            self.send_queue.discard_input();
            if is_wanted(self.send_queue.look(), start.elapsed()) || self.server.is_over() {
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
    send_queue: Weak<SendQueue>,
    /// When the client is to have acknowledged the end.
    tell_limit: Instant,
}

impl Closing {
    fn new(send_queue: &Arc<SendQueue>) -> Self {
        Self { send_queue: Arc::downgrade(send_queue), tell_limit: Instant::now() + TELL_LIMIT }
    }

    /// Wakes the connection's own thread if it is time. Returns after how long to look again, if not.
    pub(super) fn look(&self) -> Option<Duration> {
        let send_queue = self.send_queue.upgrade()?;
        let now = Instant::now();
        match send_queue.look() {
            Verdict::Untold if now < self.tell_limit => Some(TOLD_LOOK),
            // It wakes the thread, too.
            Verdict::Untold => {
                send_queue.reset();
                None
            }
            Verdict::Told => {
                // The thread reads for that long, and so the client's end of the connection wakes it.
                let rest = send_queue.rest_of_wind_down();
                if !rest.is_zero() {
                    return Some(rest.min(LEFT_LOOK));
                }
                send_queue.end_input();
                None
            }
            Verdict::Left | Verdict::OutOfReach => {
                send_queue.end_input();
                None
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(any(explore = "loom", explore = "shuttle")))]
mod tests {
    use std::os::unix::net::UnixListener;

    use socket2::{Domain, SockAddr};

    use super::super::maintenance::Maintenance;
    use super::*;
    use crate::os::socket::Stream;

    const HOUR: Duration = Duration::from_secs(3600);

    /// The server's side of a connection over a Unix socket, and what keeps the other side open.
    fn connection() -> (Arc<SendQueue>, impl Sized) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let stream = Stream::connect(Domain::UNIX, |socket| socket.connect(&SockAddr::unix(&path)?)).unwrap();
        let client = listener.accept().unwrap();
        let send_queue =
            Arc::new(SendQueue::new(stream, 1 << 20, Arc::new(Maintenance::new().unwrap()), None));
        let keepalive = Keepalive::server_after_hello(Keepalive::DEAD_PEER_TIMEOUT);
        send_queue.promise(Promise::new(&keepalive, HOUR));
        (send_queue, (directory, listener, client))
    }

    #[test]
    fn the_time_for_a_clients_work_is_counted_once_whoever_looks() {
        let (send_queue, _client) = connection();
        assert_eq!((send_queue.look(), send_queue.rest_of_wind_down()), (Verdict::Untold, HOUR));
        send_queue.kick();
        assert_eq!(send_queue.look(), Verdict::Told);
        let told = send_queue.state.lock().told.expect("it was told");
        let closing = Closing::new(&send_queue);
        for _ in 0..10 {
            let before = send_queue.rest_of_wind_down();
            assert_eq!(closing.look(), Some(LEFT_LOOK));
            assert_eq!(send_queue.look(), Verdict::Told);
            assert!(before <= HOUR && send_queue.rest_of_wind_down() <= before);
            assert_eq!(send_queue.state.lock().told, Some(told), "the time has begun anew");
        }
        send_queue.kick();
        assert_eq!((send_queue.rest_of_wind_down(), closing.look()), (Duration::ZERO, None));
    }
}

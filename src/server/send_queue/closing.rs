//! Ending a connection, by whichever thread. The facts about it go to the [`ConnectionEnd`], which
//! also says what may be done next, and when.
//!
//! The connection's own thread sits in `read`, and only two things that this side can do wake it
//! there: to end the input, or to reset the connection. Both spoil what could still be learnt about
//! the client. So a thread that [closes](SendQueue::close) a connection sends only the end of the
//! stream, and leaves it to the maintenance to wake the connection's thread once that does no harm.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::{SendQueue, SendState};
use crate::os::sync::{Arc, Mutex, MutexGuard};
use crate::server::client_knows::{ClientState, ConnectionEnd, NextStep, TELL_LIMIT};
use crate::server::framing::Framing;

impl SendQueue {
    /// Reports a fact to the rule about the connection's end, or asks it.
    pub(in crate::server) fn with_end<R>(&self, call: impl FnOnce(&mut ConnectionEnd) -> R) -> R {
        call(&mut self.state.lock().end)
    }

    /// Sends the end of the stream, and nothing after it. What the client sends is still read, but
    /// not answered.
    pub(in crate::server) fn hang_up(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        let is_amid_batch = state.buffer.clear() || state.is_sending;
        if !is_amid_batch && !state.end.has_server_ended() {
            state.is_sending = true;
            drop(state);
            let ended = self.end_framing();
            state = self.state.lock();
            debug_assert!(state.is_sending, "no other thread sends meanwhile");
            state.is_sending = false;
            if let Err(error) = ended {
                state.end.note_send_error(&error);
            }
        }
        if self.stream.end_output() {
            state.end.note_server_end();
        }
    }

    /// Tells the client by its framing (TLS, WebSocket) that nothing more will be sent. Only while
    /// no thread sends and no part of a batch is left: within a batch of another thread, or after
    /// half of one, it would not be understood.
    fn end_framing(&self) -> io::Result<()> {
        self.framing.as_deref().map_or(Ok(()), |framing| self.send_end_of(framing))
    }

    #[cold]
    #[inline(never)]
    fn send_end_of(&self, framing: &Mutex<Framing>) -> io::Result<()> {
        let mut framing = framing.lock();
        let mut wire = Vec::new();
        framing.end(&mut wire);
        // Sent with the framing locked, so that no other thread ends the output before. It does not
        // wait.
        self.stream.send_now(&wire).map(|_| ())
    }

    /// [Hangs up](Self::hang_up), for another thread than the connection's own. That thread is
    /// woken once the client knows, or can find out only by itself.
    pub(in crate::server) fn close(self: &Arc<Self>) {
        let is_closing = self.is_closing.swap(true, Relaxed);
        if !is_closing {
            self.hang_up();
            self.note_silence();
        }
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
        if is_closing {
            return;
        }
        if !self.with_end(|end| end.has_said_hello()) {
            // The client relies on nothing, so nothing has to be learnt from the socket.
            return self.end_input();
        }
        let connection = Arc::downgrade(self);
        let tell_deadline = Instant::now() + TELL_LIMIT;
        self.maintenance.run_later(move |is_stopping| {
            if is_stopping { None } else { connection.upgrade()?.wake_thread_if_harmless(tell_deadline) }
        });
    }

    /// Wakes the connection's own thread, unless something could still be learnt from the socket.
    /// Then returns after what time to try again.
    fn wake_thread_if_harmless(&self, tell_deadline: Instant) -> Option<Duration> {
        match self.next_step(tell_deadline) {
            NextStep::CheckAgain(interval) => return Some(interval),
            // The thread reads until the client ends its side, which wakes it. A reset wakes it,
            // too.
            NextStep::Reset => self.reset(),
            NextStep::KeepLocks(_) | NextStep::Release => self.end_input(),
        }
        None
    }

    /// [Closes](Self::close) the connection because an operator says so. The second time, the
    /// client's work is not waited for any more.
    pub(in crate::server) fn kick(self: &Arc<Self>) {
        self.with_end(ConnectionEnd::note_kick);
        self.close();
    }

    /// Wakes the connection's own thread. Nothing more is learnt from the socket then.
    pub(in crate::server) fn end_input(&self) {
        self.with_end(ConnectionEnd::note_end_of_input);
        self.stream.end_input();
    }

    /// Ends the connection by a reset, where the end of the stream does not get across. Whether the
    /// reset does will not be known.
    pub(in crate::server) fn reset(&self) {
        self.with_end(|end| end.note_reset(Instant::now()));
        self.stream.abort();
    }

    /// Ends the connection, whose session has another one now. Nothing that happens to it means
    /// anything any more.
    pub(in crate::server) fn cut_off(&self) {
        self.is_closing.store(true, Relaxed);
        let mut state = self.state.lock();
        state.is_closed = true;
        state.end.note_reset(Instant::now());
        state.end.note_end_of_input();
        drop(state);
        self.stream.abort();
        // A Unix socket cannot be reset.
        self.stream.end_output();
        self.stream.end_input();
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    /// From now on the client is answered nothing more.
    pub(in crate::server) fn note_silence(&self) {
        self.with_end(|end| end.note_silence(Instant::now()));
    }

    /// What the client knows of the connection's end by now.
    pub(in crate::server) fn client_state(&self) -> ClientState {
        self.checked_state().end.client_state()
    }

    /// What to do next about the end of the connection, which the client was to acknowledge until
    /// `tell_deadline`.
    pub(in crate::server) fn next_step(&self, tell_deadline: Instant) -> NextStep {
        self.checked_state().end.next_step(Instant::now(), tell_deadline)
    }

    /// The state, after the kernel was asked for what it knows of the connection's end.
    fn checked_state(&self) -> MutexGuard<'_, SendState> {
        let mut state = self.state.lock();
        // Taken and reported with the state locked: no other thread finds the error gone before it
        // is reported.
        if let Some(error) = self.stream.take_error() {
            state.end.note_error(&error);
        }
        if self.stream.is_delivered() {
            state.end.note_all_acknowledged();
        }
        state.end.note_checked(Instant::now());
        state
    }

    /// The client has said goodbye in the words of its protocol, or of its framing.
    pub(in crate::server) fn note_goodbye(&self) {
        self.with_end(ConnectionEnd::note_goodbye);
    }
}

#[cfg(test)]
#[cfg(not(any(explore = "loom", explore = "shuttle")))]
mod tests {
    use std::os::unix::net::UnixListener;

    use socket2::{Domain, SockAddr};

    use super::*;
    use crate::os::Keepalive;
    use crate::os::socket::Stream;
    use crate::server::client_knows::LEAVE_POLL;
    use crate::server::maintenance::Maintenance;

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
        send_queue.with_end(|end| end.set_terms(&keepalive, HOUR, false));
        (send_queue, (directory, listener, client))
    }

    #[test]
    fn the_time_for_a_clients_work_is_counted_once_whichever_thread_looks() {
        let (send_queue, _client) = connection();
        let left_at = |now| send_queue.with_end(|end| end.wind_down_left(now));
        assert_eq!((send_queue.client_state(), left_at(Instant::now())), (ClientState::MayNotKnow, HOUR));
        send_queue.kick();
        assert_eq!(send_queue.client_state(), ClientState::Knows);
        let later = Instant::now() + HOUR / 2;
        let left_later = left_at(later);
        let tell_deadline = Instant::now() + TELL_LIMIT;
        for _ in 0..10 {
            let before = left_at(Instant::now());
            assert_eq!(send_queue.wake_thread_if_harmless(tell_deadline), Some(LEAVE_POLL));
            assert_eq!(send_queue.client_state(), ClientState::Knows);
            assert!(before <= HOUR && left_at(Instant::now()) <= before);
            assert!(left_later < HOUR);
            assert_eq!(left_at(later), left_later, "the time has begun anew");
        }
        send_queue.kick();
        let woken = send_queue.wake_thread_if_harmless(tell_deadline);
        assert_eq!((left_at(Instant::now()), woken), (Duration::ZERO, None));
    }
}

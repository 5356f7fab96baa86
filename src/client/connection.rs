//! One connection to a server, shared by the threads of a client. It has no thread of its own: a
//! thread that waits for a reply reads the socket, and if several wait, one of them reads for all.
//! Carries requests and replies; knows no command.
//!
//! A request is *posted*, which decides its place in the order on the wire (under the state's
//! lock), and then *flushed*: sent as far as the server takes it now. Nothing here waits until the
//! server takes bytes. The rest is sent when the reading thread finds that the socket takes more,
//! or at the next flush. If anything goes wrong with the stream, the connection is lost, for good,
//! and every thread is told the same reason.
//!
//! - `state`: what is known of the connection, without any I/O.
//! - `proof`: when the server was last known to have the session.
//! - `waiting`: how threads wait for replies and are woken.
//! - `reading`: how the waiting thread reads, and what shows that the server is gone.
//! - `ending`: how a connection is closed or lost.
//!
//! Before each use of the socket, its descriptor is checked to be still
//! [intact](Stream::is_intact): a program may close all its descriptors, and then the number may
//! belong to somebody else's file.

mod ending;
mod proof;
mod reading;
mod state;
mod waiting;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::connect_error::ConnectErrorKind;
use super::reply_reader::ReplyReader;
use crate::os::boot_clock::BootTime;
use crate::os::socket::{Stream, Waker};
use crate::os::sync::{Arc, AtomicU64, Condvar, Mutex, MutexGuard, Ordering};
use crate::os::tls::TlsSession;
use crate::wire::frame;
use crate::wire::message::{Keepalive, encode_request};
use proof::Proof;
pub(crate) use state::Lost;
pub(super) use state::ReplyWait;
use state::{AwaitedReply, ConnectionState, ReplySlot};

/// The longest request of a session, in bytes: what a server accepts unless it is configured
/// otherwise. A longer request would end the connection.
pub(super) const REQUEST_MAX: usize = 1 << 20;

/// A request in the form in which it is sent.
pub(super) struct FramedRequest {
    pub(super) id: u64,
    frame: Vec<u8>,
}

/// Whether a signal handler that runs in a thread ends the thread's wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnSignal {
    Continue,
    Interrupt,
}

impl OnSignal {
    pub(super) fn interrupt_if(is_interruptible: bool) -> Self {
        if is_interruptible { Self::Interrupt } else { Self::Continue }
    }
}

/// What a connection is made of, once requests can be made on it.
pub(super) struct ConnectionParts {
    pub(super) stream: Arc<Stream>,
    pub(super) tls: Option<TlsSession>,
    pub(super) waker: Waker,
    /// What has arrived.
    pub(super) replies: ReplyReader,
}

pub(super) struct ServerConnection {
    stream: Arc<Stream>,
    /// Wakes the thread that reads, so that it looks at the state again.
    waker: Waker,
    ids: AtomicU64,
    state: Mutex<ConnectionState>,
    /// Notified when replies have come, when the connection is lost, and when a new reader is
    /// needed.
    changed: Condvar,
}

impl AsFd for ServerConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Tells the server that the connection ends. The descriptor's close would not, if another process
/// has the socket too: a child that was made without running the fork handlers.
impl Drop for ServerConnection {
    fn drop(&mut self) {
        if std::thread::panicking() { self.abandon() } else { self.close() }
    }
}

impl ServerConnection {
    pub(super) fn new(stream: Stream, tls: Option<TlsSession>) -> io::Result<Self> {
        let parts = ConnectionParts {
            stream: Arc::new(stream),
            tls,
            waker: Waker::new()?,
            replies: ReplyReader::default(),
        };
        Ok(Self::of(parts, 1))
    }

    /// A connection on which the requests with ids below `next_id` have been made already.
    pub(super) fn of(parts: ConnectionParts, next_id: u64) -> Self {
        let ConnectionParts { stream, tls, waker, replies } = parts;
        let state = Mutex::new(ConnectionState { replies, ..ConnectionState::new(tls) });
        Self { stream, waker, ids: AtomicU64::new(next_id), state, changed: Condvar::new() }
    }

    /// From now on it is remembered when the latest of all answered requests was sent: the
    /// [proof](Self::proof), which is `known` by now. Such a connection, if it is lost, is left as
    /// it is until it is [closed](Self::close) or [reset](Self::reset): the end of its stream would
    /// tell the server that the client has ended.
    pub(super) fn keep_proof(&self, known: Option<BootTime>) {
        let mut proof = Proof::default();
        if let Some(sent) = known {
            proof.answered(0, sent);
        }
        self.state.lock().proof = Some(proof);
    }

    pub(super) fn keeps_proof(&self) -> bool {
        self.state.lock().proof.is_some()
    }

    /// The session cannot be resumed after all.
    pub(super) fn keep_no_proof(&self) {
        self.state.lock().proof = None;
    }

    /// When the latest of all answered requests was sent.
    pub(super) fn proof(&self) -> Option<BootTime> {
        self.state.lock().proof.as_ref()?.latest()
    }

    /// When [`check`](Self::check) has something to do for the proof: to ask the server, or to lose
    /// the connection because there is no answer, and the server [may be
    /// elsewhere](Self::may_be_elsewhere).
    pub(super) fn proof_step_at(&self) -> Option<BootTime> {
        self.state.lock().proof.as_ref()?.next_step_at()
    }

    /// The server may be at another place by now, if it does not answer here.
    pub(super) fn may_be_elsewhere(&self) {
        if let Some(proof) = &mut self.state.lock().proof {
            proof.has_other_places = true;
        }
    }

    /// Says whether the session holds something, and so needs a proof that is not old.
    pub(super) fn set_proof_needed(&self, is_needed: bool) {
        if let Some(proof) = &mut self.state.lock().proof {
            proof.is_needed = is_needed;
        }
    }

    pub(super) fn set_keepalive(&self, keepalive: &Keepalive) -> io::Result<()> {
        let mut state = self.state.lock();
        state.silence_max = Some(keepalive.silence_max());
        state.answer_limit = keepalive.dead_peer_timeout;
        if let Some(proof) = &mut state.proof {
            // Two pings can be lost with a server before the proof is too old to resume.
            proof.set_age_max(keepalive.user_timeout / 2);
        }
        drop(state);
        self.stream.set_keepalive(keepalive)
    }

    /// Why the connection was lost. Meaningful once it is lost.
    pub(super) fn loss_kind(&self) -> ConnectErrorKind {
        self.state.lock().loss_kind
    }

    /// How long to wait for an answer that has no time limit of its own.
    pub(super) fn answer_limit(&self) -> Duration {
        self.state.lock().answer_limit
    }

    /// From now on the connection stays open at this end until it is [closed](Self::close), even
    /// after it is lost. The server has been told this, and takes the close as the sign that the
    /// client's work has ended.
    pub(super) fn stay_open_until_closed(&self) {
        self.state.lock().open_until_closed = true;
    }

    /// [`close`](Self::close) is to send the command `bye`, which this server knows.
    pub(super) fn say_bye_when_closed(&self) {
        self.state.lock().knows_bye = true;
    }

    /// Makes a request of at most `max` bytes, to be posted.
    ///
    /// # Errors
    /// Why it cannot be sent: the parameters cannot be written as JSON, or are too long.
    pub(super) fn request(
        &self,
        command: &str,
        parameters: &(impl Serialize + ?Sized),
        max: usize,
    ) -> Result<FramedRequest, String> {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let (mut frame, mut written, mut length) = (Vec::new(), Ok(()), 0);
        frame::encode(&mut frame, |out| {
            let start = out.len();
            written = encode_request(out, id, command, parameters);
            length = out.len() - start;
        });
        written.map_err(|error| format!("the parameters cannot be written as JSON: {error}"))?;
        if length > max {
            return Err(format!("the request is {length} bytes long, more than {max}"));
        }
        Ok(FramedRequest { id, frame })
    }

    /// Gives the requests their places in the order on the wire. The caller must [wait](Self::wait)
    /// for the replies or [forget](Self::forget) them.
    pub(super) fn post(&self, requests: &[&FramedRequest]) -> Result<(), Lost> {
        self.append(requests, true)
    }

    /// As [`post`](Self::post), for requests whose replies are to be dropped.
    pub(super) fn post_unheard(&self, requests: &[&FramedRequest]) -> Result<(), Lost> {
        self.append(requests, false)
    }

    fn append(&self, requests: &[&FramedRequest], heard: bool) -> Result<(), Lost> {
        let mut state = self.state.lock();
        if let Some(lost) = &state.lost {
            return Err(lost.clone());
        }
        // Not later than it is sent, so the proof is never too late.
        let sent = state.proof.as_ref().filter(|_| heard).map(|_| BootTime::now());
        for request in requests {
            state.append(&request.frame);
            if heard {
                state.slots.insert(request.id, AwaitedReply { sent, slot: ReplySlot::Awaited });
            }
        }
        Ok(())
    }

    /// Posts a `ping` if the proof is needed and old. Nothing waits for its answer.
    fn ping_if_due(&self, state: &mut ConnectionState) {
        let Some(at) = state.proof.as_ref().and_then(Proof::ping_at) else { return };
        let sent = BootTime::now();
        if sent < at || state.lost.is_some() {
            return;
        }
        // Cannot fail: it is short.
        let Ok(ping) = self.request("ping", &serde_json::Map::new(), REQUEST_MAX) else { return };
        state.append(&ping.frame);
        state.slots.insert(ping.id, AwaitedReply { sent: Some(sent), slot: ReplySlot::Unheard });
        if let Some(proof) = &mut state.proof {
            proof.asked(ping.id, sent);
        }
    }

    /// Sends what was posted, as far as the server takes it now. If that fails the connection is
    /// lost, which the threads that wait for replies are told.
    pub(super) fn flush(&self) {
        self.send(&mut self.state.lock());
    }

    /// As [`flush`](Self::flush). If another thread is already sending, that thread sends this too,
    /// and completes the end of a connection that is closing.
    fn send(&self, state: &mut MutexGuard<'_, ConnectionState>) {
        while state.may_send()
            && let Some(chunk) = state.outgoing.begin()
        {
            let sent = MutexGuard::unlocked(state, || {
                self.intact_stream().and_then(|stream| stream.send_now(chunk.unsent()))
            });
            let taken = sent.as_ref().map_or(0, |taken| taken.unwrap_or(0));
            let stuck_for = state.outgoing.end(chunk, taken, Instant::now());
            match sent {
                Ok(Some(_)) => {}
                // The goodbye cannot be sent; the server will notice the end of the connection.
                Ok(None) | Err(_) if state.is_closing => break,
                Ok(None) if stuck_for > state.answer_limit => {
                    let limit = state.answer_limit.as_secs();
                    self.lose(state, format!("the server has taken nothing for {limit} s"));
                }
                Ok(None) => {
                    // From now on the reading thread must also wait until the socket takes more.
                    self.wake_reader(state);
                    return;
                }
                Err(error) => {
                    // If the server said why it hung up, that is the better reason.
                    while self.read_once(state, &[]) {}
                    self.lose(state, format!("writing to the server failed: {error}"));
                }
            }
        }
        if state.is_closing && !state.outgoing.is_being_sent() {
            self.shut(state);
        }
    }

    /// The socket, unless another part of the program has closed its descriptor.
    fn intact_stream(&self) -> io::Result<&Stream> {
        let closed =
            || io::Error::other("another part of this program has closed the connection's descriptor");
        if self.stream.is_intact() { Ok(&self.stream) } else { Err(closed()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dial::{dial, resolve};
    use super::super::fake_server::{SOON, serve};
    use super::super::url::ServerUrl;
    use super::super::wait_hook::WaitHook;
    use super::*;

    #[test]
    fn a_thread_that_reads_the_readers_reply_wakes_the_reader() {
        let (url, server) = serve(|mut peer| {
            while let Some(asked) = peer.next() {
                peer.reply(asked.id, "{}");
            }
        });
        let connection = {
            let url: ServerUrl = url.parse().unwrap();
            let place = &url.places()[0];
            dial(&url, place, &resolve(place).unwrap(), SOON, &mut WaitHook::none()).unwrap()
        };
        for _ in 0..500 {
            let request = connection.request("ping", &(), 1000).unwrap();
            let pending = AwaitedReply { sent: None, slot: ReplySlot::Awaited };
            connection.state.lock().slots.insert(request.id, pending);
            std::thread::scope(|scope| {
                let (tell, told) = std::sync::mpsc::channel();
                let wait = || connection.wait(&[request.id], None, OnSignal::Continue);
                let thread = scope.spawn(move || tell.send(wait()));
                while !connection.state.lock().has_reader {
                    std::thread::yield_now();
                }
                connection.post_unheard(&[&request]).unwrap();
                connection.flush();
                while connection.is_unanswered(request.id) {
                    connection.check().unwrap();
                }
                let waited = told.recv_timeout(SOON);
                // If it still sleeps, this ends the thread.
                connection.waker.wake();
                thread.join().unwrap().unwrap();
                assert!(matches!(waited, Ok(Ok(ReplyWait::Reply(..)))), "{waited:?}");
            });
        }
        drop(connection);
        server.join().unwrap();
    }
}

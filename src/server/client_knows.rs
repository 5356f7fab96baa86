//! When does a client know that it has lost its locks? Its locks go to other sessions only then,
//! since a client that believes in a lock which another session holds is the one failure that must
//! never happen. This file is that rule, whole: [`ConnectionEnd`] keeps the facts about how a
//! connection ends, [`ConnectionEnd::client_state`] says what they mean for the client, and
//! [`ConnectionEnd::next_step`] what is done next. It is pure: it knows no socket, clock or thread.
//! Other files only report facts and carry out the steps (`send_queue/closing.rs`,
//! `hold_locks.rs`).
//!
//! # What ends a connection, and what that proves
//!
//! | what the server sees | what it proves |
//! | -------------------- | -------------- |
//! | a goodbye: `bye`, TLS's `close_notify`, a close frame of WebSocket | the client says itself that it has ended |
//! | the end of the peer's stream | every process that had the connection has closed it, or has ended. Its work has ended too: see below |
//! | a reset after that end (the pending error is `EPIPE`) | nothing new: what was on its way to the client was thrown away |
//! | a reset without that end (`ECONNRESET`, for a read or for a send) | over a Unix socket that the peer has closed it; over TCP nothing that is certain: see below |
//! | the acknowledgement of the server's own end of stream, which it sends for a kick, a stop, a client that reads too little, and whatever breaks the protocol (a TLS alert, too) | the client knows, since its next call meets with that end. Its work may go on |
//! | a timeout, or any other error | nothing: the server's kernel has heard nothing of the peer for too long |
//! | an end of stream without a connection, a broken pipe for a send | the connection is gone. The kernel has reported the cause to another thread, or there was an end of both streams |
//! | anything after this side has reset the connection or ended its input | nothing: it is the doing of the server's own kernel, although it looks like the peer's |
//!
//! So each fact is judged by what this side had done to the socket before.
//!
//! **The end of the peer's stream** also comes from the kernel, for a process that was killed. It
//! counts as the end of the work all the same: a dead process' locks must be free at once. What
//! such a process has started is its own affair (`lockd run` has the kernel kill its command with
//! it). No router or NAT makes up an end of stream; a proxy does, and answers for the client in
//! everything else, too.
//!
//! **A reset is no word of the client's.** A kernel sends one
//!
//! - for a process that has closed the connection, or was killed, with input unread: then the work
//!   has ended;
//! - when it gives the server up, because the network fails in one direction, or when an operator
//!   destroys the connection: then the client knows, but its work goes on, and when that ends can
//!   no longer be seen;
//! - for another socket than the client's: a firewall rejects what the server sends, or another
//!   machine has taken over the client's address. Then the client does not even know.
//!
//! These look alike. A client that asked for a `windDown` has work that must end before the next
//! session begins. So after a reset it counts as out of reach. Any other client counts as having
//! ended, or a killed process' locks would not be free at once; the third case is then excluded in
//! docs/guarantees.md, section 2.
//!
//! **A client that can resume** may come back whatever has ended its connection, and does not take
//! its locks for lost until then. So only its own word frees them at once: a goodbye, or the end of
//! its stream. (While it is in doubt, it ends no stream.) An acknowledgement proves nothing either:
//! the kernel of a client that knows nothing yet may have sent it. From the moment from which the
//! server answers it nothing more, the locks are kept for the release delay. Then it has lost them
//! by its own rule, which counts from the last request that was answered.
//!
//! # How long the locks are kept
//!
//! | the client | its locks are kept |
//! | ---------- | ------------------ |
//! | has not said `hello` | not at all: it was promised nothing |
//! | ended the connection itself | not at all: it knows, and its work has ended |
//! | knows that the server ended it | until it ends its side, for its `windDown` at most |
//! | may not know yet | until its kernel acknowledges the end (then it knows: the row above); if not within [`TELL_LIMIT`], it is reset (the row below) |
//! | is out of reach, or was reset by the server | for [`Keepalive::release_delay`] and its `windDown` |
//! | was reset, but not by the server | the same, if it asked for a `windDown`; otherwise not at all |
//! | can resume, and has not ended the connection itself | for the release delay and its `windDown`, from when it was answered nothing more |
//!
//! The release delay is long enough for a client that hears nothing to find out by its own timeout
//! (`os/keepalive.rs` says why).
//!
//! Its waits end at once in every case: no grant can reach it any more, so it believes in none. If
//! the server is stopping and its broker grants nothing any more, no other session could get the
//! locks, and they are not kept.
//!
//! # What must not be done while the client may not know
//!
//! Neither end the input of the socket nor reset it, although these are the only ways to wake the
//! connection's own thread from `read`. After either, the server's kernel itself resets the
//! connection when the client sends, and these resets can no longer be told from the client's. A
//! thread that must do one of them all the same reports it here *before* the call; what happens to
//! the socket afterwards proves nothing.

mod snapshot;

use std::io;
use std::time::{Duration, Instant};

use crate::os::Keepalive;

/// How long a client may take to acknowledge the server's end of stream before the connection is
/// reset.
pub(super) const TELL_LIMIT: Duration = Duration::from_secs(1);
/// How often to check whether it has.
const TELL_POLL: Duration = Duration::from_millis(1);
/// How often to check whether a client that knows, or is out of reach, has ended its side.
pub(super) const LEAVE_POLL: Duration = Duration::from_millis(20);
/// The same for one that may come back: whatever it does wakes the thread. There may be thousands
/// of them at once, after an outage of the network.
const COME_BACK_POLL: Duration = Duration::from_secs(1);

/// What is known of the end of a connection, and what its client was promised. A fact that has
/// become true stays true.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ConnectionEnd {
    /// Both sides are on this machine: no network can reset the connection.
    is_local: bool,
    /// The peer has ended the connection.
    peer_ended: bool,
    /// The connection was reset, and not by the server.
    peer_reset: bool,
    /// The server has ended it: its end of stream follows what was sent before.
    server_ended: bool,
    /// The peer's kernel has acknowledged the server's end of stream.
    end_acknowledged: bool,
    /// The server's kernel has given the peer up.
    peer_timed_out: bool,
    /// This side receives no more: an end of stream is its own doing.
    input_ended: bool,
    /// When the server reset the connection: every later error is its own doing.
    reset_at: Option<Instant>,
    /// When the client was first seen to know that the server has ended the connection.
    known_since: Option<Instant>,
    /// From when on the client is answered nothing more.
    silent_since: Option<Instant>,
    /// An operator has ended the connection.
    is_kicked: bool,
    terms: Option<HelloTerms>,
}

/// What a client that has said `hello` can rely on when its connection ends.
#[derive(Clone, Copy, Debug)]
struct HelloTerms {
    /// How long its locks are kept once it is out of reach. It finds out by its own timeout before.
    release_delay: Duration,
    /// How much longer they are kept for its work to end, unless it ends its side of the connection
    /// before.
    wind_down: Duration,
    /// It asked for such a time, whatever is left of it: a reset does not show that its work has
    /// ended.
    has_work: bool,
    /// It can continue its session on another connection.
    can_resume: bool,
}

/// What a client knows of the end of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientState {
    /// It ended the connection itself. It knows, and its work has ended.
    HasLeft,
    /// It knows that the server has ended the connection. Its work may go on.
    Knows,
    /// It may not know. The server's end of stream is on its way, or can still be sent.
    MayNotKnow,
    /// It may not know, and nothing but a reset can reach it. It finds out by its own timeout.
    OutOfReach,
    /// It can resume its session on another connection until its own time for that is over.
    MayComeBack,
}

impl ClientState {
    pub(super) fn knows_of_the_end(self) -> bool {
        matches!(self, Self::HasLeft | Self::Knows)
    }

    /// Whether nobody else is told about it when the server stops: it knows, or is written down as
    /// one that may come back.
    pub(super) fn is_settled(self) -> bool {
        self.knows_of_the_end() || self == Self::MayComeBack
    }
}

/// What is done next about a connection that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextStep {
    /// The client may still learn of the end, or end its work: check again after this time.
    CheckAgain(Duration),
    /// The client may not know, and the end of stream does not reach it: reset the connection.
    Reset,
    /// The connection was reset. The locks are kept until the client has found out: check again
    /// after this time.
    KeepLocks(Duration),
    /// The locks may go to other sessions, and nothing more has to be learnt from the socket.
    Release,
}

/// Which side ended a connection, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseCause {
    Peer,
    /// A reset, which need not be the peer's.
    PeerReset,
    Server,
    PeerTimedOut,
}

impl CloseCause {
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::Peer => "ended its connection",
            Self::PeerReset => "had its connection reset",
            Self::Server => "was hung up on",
            Self::PeerTimedOut => "was not heard of any more",
        }
    }
}

/// What follows from the facts.
impl ConnectionEnd {
    /// What the client knows. What it did itself counts whatever happens later; then what its
    /// kernel has acknowledged; then a reset that is taken for its own; anything else is not known
    /// to have reached it.
    pub(super) fn client_state(&self) -> ClientState {
        let has_work = self.terms.is_some_and(|terms| terms.has_work);
        match self {
            Self { peer_ended: true, .. } => ClientState::HasLeft,
            _ if self.can_resume() => ClientState::MayComeBack,
            Self { peer_reset: true, is_local: true, .. } => ClientState::HasLeft,
            Self { end_acknowledged: true, .. } => ClientState::Knows,
            Self { peer_reset: true, .. } if !has_work => ClientState::HasLeft,
            Self { peer_reset: true, .. }
            | Self { peer_timed_out: true, .. }
            | Self { reset_at: Some(_), .. } => ClientState::OutOfReach,
            _ => ClientState::MayNotKnow,
        }
    }

    /// What to do at `now` about a connection that has ended, whose client was to acknowledge that
    /// until `tell_deadline`.
    pub(super) fn next_step(&self, now: Instant, tell_deadline: Instant) -> NextStep {
        let Some(terms) = &self.terms else { return NextStep::Release };
        match self.client_state() {
            ClientState::HasLeft => NextStep::Release,
            ClientState::Knows => match self.wind_down_left(now) {
                Duration::ZERO => NextStep::Release,
                left => NextStep::CheckAgain(left.min(LEAVE_POLL)),
            },
            ClientState::MayNotKnow if now < tell_deadline => NextStep::CheckAgain(TELL_POLL),
            ClientState::MayNotKnow => NextStep::Reset,
            ClientState::OutOfReach => {
                let Some(reset_at) = self.reset_at else { return NextStep::Reset };
                let kept_for = terms.release_delay.saturating_add(self.wind_down_left(now));
                if now.saturating_duration_since(reset_at) >= kept_for {
                    NextStep::Release
                } else {
                    NextStep::KeepLocks(LEAVE_POLL)
                }
            }
            // Not reset: it may still end its stream, and its locks are free then.
            ClientState::MayComeBack => {
                let kept_for = terms.release_delay.saturating_add(terms.wind_down);
                let left = self
                    .silent_since
                    .map(|since| kept_for.saturating_sub(now.saturating_duration_since(since)));
                match left {
                    Some(Duration::ZERO) => NextStep::Release,
                    left => {
                        NextStep::CheckAgain(left.map_or(COME_BACK_POLL, |left| left.min(COME_BACK_POLL)))
                    }
                }
            }
        }
    }

    /// For how much longer the locks are kept for the work of a client that knows, unless it leaves
    /// before.
    pub(super) fn wind_down_left(&self, now: Instant) -> Duration {
        let wind_down = self.terms.map_or(Duration::ZERO, |terms| terms.wind_down);
        let used = self.known_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        wind_down.saturating_sub(used)
    }

    /// Whether the client has said `hello`, and so relies on its locks being kept until it knows.
    pub(super) fn has_said_hello(&self) -> bool {
        self.terms.is_some()
    }

    /// Whether it can continue its session on another connection.
    pub(super) fn can_resume(&self) -> bool {
        self.terms.is_some_and(|terms| terms.can_resume)
    }

    /// From when on the client is answered nothing more.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        self.silent_since
    }

    pub(super) fn has_server_ended(&self) -> bool {
        self.server_ended
    }

    pub(super) fn cause(&self) -> CloseCause {
        match self {
            Self { peer_timed_out: true, peer_ended: false, .. } => CloseCause::PeerTimedOut,
            Self { server_ended: true, .. } => CloseCause::Server,
            Self { peer_reset: true, peer_ended: false, is_local: false, .. } => CloseCause::PeerReset,
            Self { reset_at: Some(_), .. } => CloseCause::Server,
            _ => CloseCause::Peer,
        }
    }
}

/// The facts. Each is reported by the thread that meets with it.
impl ConnectionEnd {
    /// The client has said `hello`: it uses the client's side of these figures, and may need
    /// `wind_down` to end its work once it knows.
    pub(super) fn set_terms(&mut self, keepalive: &Keepalive, wind_down: Duration, can_resume: bool) {
        // After a resume it may still rely on longer ones.
        let before = self.terms.filter(|terms| terms.can_resume).map(|terms| terms.release_delay);
        let release_delay = keepalive.release_delay().max(before.unwrap_or_default());
        let has_work = !wind_down.is_zero();
        self.terms = Some(HelloTerms { release_delay, wind_down, has_work, can_resume });
    }

    /// The client may still rely on these figures, which it was told before: its locks are kept for
    /// no shorter time.
    pub(super) fn keep_terms_of(&mut self, keepalive: &Keepalive) {
        if let Some(terms) = &mut self.terms {
            terms.release_delay = terms.release_delay.max(keepalive.release_delay());
        }
    }

    /// From `since` on, or from earlier on, the client is answered nothing more.
    pub(super) fn note_silence(&mut self, since: Instant) {
        self.silent_since = Some(self.silent_since.map_or(since, |before| before.min(since)));
    }

    /// Both sides of the connection are on this machine.
    pub(super) fn set_local(&mut self) {
        self.is_local = true;
    }

    /// The client gets no more than `limit` for its work to end, whatever it asked for.
    pub(super) fn limit_wind_down(&mut self, limit: Duration) {
        if let Some(terms) = &mut self.terms {
            terms.wind_down = terms.wind_down.min(limit);
        }
    }

    /// An operator ends the connection. The second time, the client's work is not waited for any
    /// more.
    pub(super) fn note_kick(&mut self) {
        if std::mem::replace(&mut self.is_kicked, true) {
            self.limit_wind_down(Duration::ZERO);
        }
    }

    /// The client has said goodbye in the words of the protocol, TLS or WebSocket.
    pub(super) fn note_goodbye(&mut self) {
        self.peer_ended = true;
    }

    /// A read has met with the end of the stream. `is_connected` says whether the kernel still has
    /// a connection after that; `is_sole` that no other thread can have taken an error from the
    /// socket and not reported it yet.
    ///
    /// If the connection is still there, it is the peer's end of stream. If it is gone, an end of
    /// stream says nothing about the cause, which the kernel may have reported to another thread.
    /// It then counts as the peer's only if no thread has reported another cause, or still may.
    pub(super) fn note_end_of_stream(&mut self, is_connected: bool, is_sole: bool) {
        // After a reset, a Unix socket has an end of stream and a peer, too.
        let is_peers = !self.peer_reset && (is_connected || is_sole && !self.peer_timed_out);
        self.peer_ended |= is_peers && !self.input_ended && self.reset_at.is_none();
    }

    /// Reading has failed, or the socket has an error that the next call would have met with. An
    /// error that is not the kernel's says nothing about the peer. A broken pipe is a reset that
    /// follows the peer's end of stream. Once this side receives no more, its own kernel resets the
    /// connection when the client sends.
    pub(super) fn note_error(&mut self, error: &io::Error) {
        if self.reset_at.is_some() || error.raw_os_error().is_none() {
            return;
        }
        match error.kind() {
            io::ErrorKind::BrokenPipe => self.peer_ended = true,
            // Over a Unix socket it is the peer's, whatever this side has done.
            io::ErrorKind::ConnectionReset if self.is_local => self.peer_reset = true,
            io::ErrorKind::ConnectionReset => {
                self.peer_reset |= !self.input_ended && !self.peer_timed_out;
            }
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
            _ => self.peer_timed_out = true,
        }
    }

    /// Sending has failed. Here a broken pipe says only that the connection is gone, for whatever
    /// reason. The end of the stream will tell which.
    pub(super) fn note_send_error(&mut self, error: &io::Error) {
        if error.kind() != io::ErrorKind::BrokenPipe {
            self.note_error(error);
        }
    }

    /// The server's end of stream is sent, after all that was sent before.
    pub(super) fn note_server_end(&mut self) {
        self.server_ended = true;
    }

    /// The kernel says that nothing sent is unacknowledged. That includes the server's end of
    /// stream only once it has been sent, and means nothing once the connection is gone.
    pub(super) fn note_all_acknowledged(&mut self) {
        let is_gone = self.peer_reset || self.peer_timed_out || self.reset_at.is_some();
        self.end_acknowledged |= self.server_ended && !is_gone;
    }

    /// The facts have been checked: the client's time to end its work begins when it is first seen
    /// to know.
    pub(super) fn note_checked(&mut self, now: Instant) {
        if self.client_state() == ClientState::Knows {
            self.known_since.get_or_insert(now);
        }
    }

    /// This side is about to stop receiving, which wakes the connection's own thread.
    pub(super) fn note_end_of_input(&mut self) {
        self.input_ended = true;
    }

    /// This side is about to reset the connection.
    pub(super) fn note_reset(&mut self, now: Instant) {
        self.reset_at.get_or_insert(now);
    }
}

#[cfg(test)]
mod tests;

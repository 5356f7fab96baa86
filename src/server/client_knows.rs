//! When does a client know that it has lost its locks? Its locks go to other sessions only then,
//! since a client that believes in a lock which another session holds is the one failure that must
//! never happen. This file is that rule, whole: [`ConnectionEnd`] keeps the facts about how a
//! connection ends, [`ConnectionEnd::client_state`] says what they mean for the client, and
//! [`ConnectionEnd::next_step`] what is done next. It is pure: it knows no socket, clock or thread.
//! Other files only report facts and carry out the steps (`send_queue/closing.rs`,
//! `hold_locks.rs`).
//!
//! # What ends a connection
//!
//! - **The peer**: it ends its stream, resets the connection, or says goodbye in the words of the
//!   protocol (`bye`), of TLS or of WebSocket.
//! - **The server**: it sends the end of its stream, after all replies. It does so for a kick, a
//!   stop, a client that reads too little, and whatever breaks the protocol.
//! - **A timeout**: the server's kernel has heard nothing of the peer for too long, and has given
//!   it up.
//!
//! # What is evidence that the client knows
//!
//! Only what the client's side does: any end by the peer, or its kernel's acknowledgement of the
//! server's end of stream. What the server's kernel does (a reset of its own, an error after it has
//! given the peer up, an end of stream after this side has ended its input) proves nothing about
//! the client, although it looks the same to a thread that reads or sends. So each fact is judged
//! by what this side had done to the socket before.
//!
//! # How long the locks are kept
//!
//! | the client | its locks are kept |
//! | ---------- | ------------------ |
//! | has not said `hello` | not at all: it was promised nothing |
//! | ended the connection itself | not at all: it knows, and its work has ended |
//! | knows that the server ended it | until it ends its side, for its `windDown` at most |
//! | may not know yet | until its kernel acknowledges the end (then it knows: the row above); if not within [`TELL_LIMIT`], it is reset (the row below) |
//! | is out of reach, or was reset | for [`Keepalive::release_delay`] and its `windDown` |
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

/// What is known of the end of a connection, and what its client was promised. A fact that has
/// become true stays true.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ConnectionEnd {
    /// The peer has ended the connection.
    peer_ended: bool,
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
}

impl ClientState {
    pub(super) fn knows_of_the_end(self) -> bool {
        matches!(self, Self::HasLeft | Self::Knows)
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
    Server,
    PeerTimedOut,
}

impl CloseCause {
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::Peer => "ended its connection",
            Self::Server => "was hung up on",
            Self::PeerTimedOut => "was not heard of any more",
        }
    }
}

/// What follows from the facts.
impl ConnectionEnd {
    /// What the client knows. What it did itself counts whatever happens later; then what its
    /// kernel has acknowledged; anything else is not known to have reached it.
    pub(super) fn client_state(&self) -> ClientState {
        match self {
            Self { peer_ended: true, .. } => ClientState::HasLeft,
            Self { end_acknowledged: true, .. } => ClientState::Knows,
            Self { peer_timed_out: true, .. } | Self { reset_at: Some(_), .. } => ClientState::OutOfReach,
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

    pub(super) fn has_server_ended(&self) -> bool {
        self.server_ended
    }

    pub(super) fn cause(&self) -> CloseCause {
        match self {
            Self { peer_timed_out: true, peer_ended: false, .. } => CloseCause::PeerTimedOut,
            Self { server_ended: true, .. } | Self { reset_at: Some(_), .. } => CloseCause::Server,
            _ => CloseCause::Peer,
        }
    }
}

/// The facts. Each is reported by the thread that meets with it.
impl ConnectionEnd {
    /// The client has said `hello`: it uses the client's side of these figures, and may need
    /// `wind_down` to end its work once it knows.
    pub(super) fn set_terms(&mut self, keepalive: &Keepalive, wind_down: Duration) {
        self.terms = Some(HelloTerms { release_delay: keepalive.release_delay(), wind_down });
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
        let is_peers = is_connected || is_sole && !self.peer_timed_out;
        self.peer_ended |= is_peers && !self.input_ended && self.reset_at.is_none();
    }

    /// Reading has failed, or the socket has an error that the next call would have met with. An
    /// error that is not the kernel's says nothing about the peer. A broken pipe is a reset that
    /// follows the peer's end of stream.
    pub(super) fn note_error(&mut self, error: &io::Error) {
        if self.reset_at.is_some() || error.raw_os_error().is_none() {
            return;
        }
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => self.peer_ended = true,
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
    /// stream only once it has been sent, and means nothing once the connection is reset.
    pub(super) fn note_all_acknowledged(&mut self) {
        self.end_acknowledged |= self.server_ended && self.reset_at.is_none();
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
mod tests {
    use super::*;

    const RESET: i32 = 104;
    const BROKEN_PIPE: i32 = 32;
    const TIMED_OUT: i32 = 110;
    const UNREACHABLE: i32 = 113;

    /// What can happen to a connection, in the order in which it happens.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Step {
        Goodbye,
        /// The end of the stream, with the connection still there or not.
        End {
            is_connected: bool,
        },
        /// The end of the stream, without a connection, while another thread sends and may have
        /// taken an error.
        EndWhileSending,
        Error(i32),
        SendError(i32),
        ProtocolError,
        ServerEnd,
        Acknowledged,
        InputEnded,
        Reset,
    }
    use Step::{
        Acknowledged, End, EndWhileSending, Error, Goodbye, InputEnded, ProtocolError, Reset, SendError,
        ServerEnd,
    };

    const FIN: Step = End { is_connected: true };
    const GONE: Step = End { is_connected: false };

    fn after(steps: &[Step]) -> ConnectionEnd {
        let mut end = ConnectionEnd::default();
        for step in steps {
            match *step {
                Goodbye => end.note_goodbye(),
                End { is_connected } => end.note_end_of_stream(is_connected, true),
                EndWhileSending => end.note_end_of_stream(false, false),
                Error(number) => end.note_error(&io::Error::from_raw_os_error(number)),
                SendError(number) => end.note_send_error(&io::Error::from_raw_os_error(number)),
                ProtocolError => end.note_error(&io::Error::other("too much")),
                ServerEnd => end.note_server_end(),
                Acknowledged => end.note_all_acknowledged(),
                InputEnded => end.note_end_of_input(),
                Reset => end.note_reset(Instant::now()),
            }
        }
        end
    }

    /// How a connection ends, step by step, and what its client knows then.
    const ENDS: &[(&str, &[Step], ClientState)] = &[
        ("nothing has happened", &[], ClientState::MayNotKnow),
        // By the peer.
        ("it closes", &[FIN], ClientState::HasLeft),
        ("it closes, and its machine vanishes", &[FIN, Error(TIMED_OUT)], ClientState::HasLeft),
        ("it closes with something unread", &[Error(RESET)], ClientState::HasLeft),
        ("it closes, and a reply meets with its reset", &[Error(BROKEN_PIPE)], ClientState::HasLeft),
        ("it closes, and a sender meets with that", &[SendError(BROKEN_PIPE), GONE], ClientState::HasLeft),
        ("it resets, and a sender meets with that", &[SendError(RESET), GONE], ClientState::HasLeft),
        ("it says goodbye in TLS", &[Goodbye, InputEnded, GONE], ClientState::HasLeft),
        // By a timeout.
        ("nothing is heard", &[Error(TIMED_OUT)], ClientState::OutOfReach),
        ("no route is left", &[Error(UNREACHABLE)], ClientState::OutOfReach),
        ("nothing is heard, and the connection is gone", &[Error(TIMED_OUT), GONE], ClientState::OutOfReach),
        ("a broken pipe hides the cause from a sender", &[SendError(BROKEN_PIPE)], ClientState::MayNotKnow),
        ("a sender has not reported its error yet", &[EndWhileSending], ClientState::MayNotKnow),
        ("a sender reports silence", &[EndWhileSending, SendError(TIMED_OUT), GONE], ClientState::OutOfReach),
        ("a sender reports a reset", &[EndWhileSending, SendError(RESET)], ClientState::HasLeft),
        // By the server.
        ("it objects to the input", &[ProtocolError], ClientState::MayNotKnow),
        ("acknowledged, but no end was sent", &[Acknowledged], ClientState::MayNotKnow),
        ("its end is on its way", &[ServerEnd], ClientState::MayNotKnow),
        ("its end arrives", &[ServerEnd, Acknowledged], ClientState::Knows),
        ("its end arrives, and the client ends too", &[ServerEnd, Acknowledged, GONE], ClientState::HasLeft),
        ("both end it at once", &[ServerEnd, FIN], ClientState::HasLeft),
        ("a sender has not reported its error yet", &[ServerEnd, EndWhileSending], ClientState::MayNotKnow),
        ("the client resets", &[ServerEnd, Error(RESET)], ClientState::HasLeft),
        (
            "a sender meets with the server's own end",
            &[ServerEnd, SendError(BROKEN_PIPE)],
            ClientState::MayNotKnow,
        ),
        ("nothing is heard then", &[ServerEnd, Error(TIMED_OUT)], ClientState::OutOfReach),
        (
            "nothing is heard, and the connection is gone",
            &[ServerEnd, Error(TIMED_OUT), GONE],
            ClientState::OutOfReach,
        ),
        ("acknowledged, then silent", &[ServerEnd, Acknowledged, Error(TIMED_OUT)], ClientState::Knows),
        // By what the server does to its socket.
        ("woken", &[ServerEnd, InputEnded, GONE], ClientState::MayNotKnow),
        ("woken, still connected", &[ServerEnd, InputEnded, FIN], ClientState::MayNotKnow),
        ("acknowledged, then woken", &[ServerEnd, Acknowledged, InputEnded, GONE], ClientState::Knows),
        ("reset", &[ServerEnd, Reset, Error(RESET)], ClientState::OutOfReach),
        ("reset, and the connection is gone", &[ServerEnd, Reset, GONE], ClientState::OutOfReach),
        ("reset, nothing is left to acknowledge", &[ServerEnd, Reset, Acknowledged], ClientState::OutOfReach),
        ("acknowledged, then reset", &[ServerEnd, Acknowledged, Reset, Error(RESET)], ClientState::Knows),
        ("silent, then reset", &[Error(TIMED_OUT), ServerEnd, Reset, Error(RESET)], ClientState::OutOfReach),
    ];

    #[test]
    fn each_end_has_its_client_state() {
        for (what, steps, state) in ENDS {
            assert_eq!(after(steps).client_state(), *state, "{what}: {steps:?}");
        }
    }

    /// In every sequence of up to five steps.
    #[test]
    fn what_the_server_and_its_kernel_do_is_never_evidence() {
        let own = [EndWhileSending, SendError(BROKEN_PIPE), Error(TIMED_OUT), ProtocolError, InputEnded];
        let now = Instant::now();
        let mut sequences = vec![vec![]];
        for _ in 0..5 {
            let longer = |steps: &Vec<Step>| own.map(|step| [steps.as_slice(), &[step]].concat());
            sequences = sequences.iter().flat_map(longer).collect();
            for steps in &sequences {
                let (end, _) = after_hello(steps);
                assert!(!end.client_state().knows_of_the_end(), "{steps:?}");
                assert_ne!(end.next_step(now, now), NextStep::Release, "{steps:?}");
                let reset = [&[ServerEnd, Reset], steps.as_slice(), &[Error(RESET), FIN, GONE, Acknowledged]]
                    .concat();
                assert_eq!(after(&reset).client_state(), ClientState::OutOfReach, "{reset:?}");
                let woken = [&[ServerEnd, InputEnded], steps.as_slice(), &[FIN, GONE]].concat();
                assert!(!after(&woken).client_state().knows_of_the_end(), "{woken:?}");
                for known in [FIN, Error(RESET), Goodbye] {
                    let left = [&[known], steps.as_slice(), &[ServerEnd, Reset]].concat();
                    assert_eq!(after(&left).client_state(), ClientState::HasLeft, "{left:?}");
                }
            }
        }
    }

    const WIND_DOWN: Duration = Duration::from_secs(60);

    /// The end of a connection whose client has said `hello`.
    fn after_hello(steps: &[Step]) -> (ConnectionEnd, Duration) {
        let keepalive = Keepalive::server_after_hello(Keepalive::DEAD_PEER_TIMEOUT);
        let mut end = after(steps);
        end.set_terms(&keepalive, WIND_DOWN);
        (end, keepalive.release_delay())
    }

    #[test]
    fn a_client_that_did_not_say_hello_keeps_no_locks() {
        let now = Instant::now();
        for steps in [&[][..], &[ServerEnd], &[Error(TIMED_OUT)]] {
            assert_eq!(after(steps).next_step(now, now + TELL_LIMIT), NextStep::Release, "{steps:?}");
        }
    }

    #[test]
    fn a_client_that_left_keeps_no_locks() {
        let now = Instant::now();
        for step in [FIN, Goodbye, Error(RESET)] {
            assert_eq!(after_hello(&[step]).0.next_step(now, now + TELL_LIMIT), NextStep::Release);
        }
    }

    #[test]
    fn a_client_that_knows_keeps_its_locks_for_its_work_and_no_longer() {
        let (mut end, _) = after_hello(&[ServerEnd]);
        let begin = Instant::now();
        let step = |end: &ConnectionEnd, now| end.next_step(now, begin + TELL_LIMIT);
        assert_eq!(step(&end, begin), NextStep::CheckAgain(TELL_POLL));
        end.note_all_acknowledged();
        end.note_checked(begin);
        end.note_checked(begin + WIND_DOWN / 2);
        assert_eq!(step(&end, begin), NextStep::CheckAgain(LEAVE_POLL));
        let last = Duration::from_millis(1);
        assert_eq!(step(&end, begin + WIND_DOWN - last), NextStep::CheckAgain(last));
        assert_eq!(step(&end, begin + WIND_DOWN), NextStep::Release);
        end.note_kick();
        assert_eq!(step(&end, begin), NextStep::CheckAgain(LEAVE_POLL));
        end.note_kick();
        assert_eq!(step(&end, begin), NextStep::Release);
    }

    #[test]
    fn a_client_that_may_not_know_is_reset_and_keeps_its_locks_until_it_has_found_out() {
        let begin = Instant::now();
        let tell_deadline = begin + TELL_LIMIT;
        let (silent, _) = after_hello(&[ServerEnd, Error(TIMED_OUT)]);
        assert_eq!(silent.next_step(begin, tell_deadline), NextStep::Reset);
        let (mut end, release_delay) = after_hello(&[ServerEnd]);
        assert_eq!(end.next_step(tell_deadline, tell_deadline), NextStep::Reset);
        end.note_reset(tell_deadline);
        let free = tell_deadline + release_delay + WIND_DOWN;
        for before in [tell_deadline, free - Duration::from_millis(1)] {
            assert_eq!(end.next_step(before, tell_deadline), NextStep::KeepLocks(LEAVE_POLL));
        }
        assert_eq!(end.next_step(free, tell_deadline), NextStep::Release);
    }
}

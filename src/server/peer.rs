//! When does a client know that its connection, and with it its locks, are gone? The facts about the end of a
//! connection are kept here as they become known, and [`Evidence::verdict`] is the one place that concludes
//! something from them. Pure: knows no socket, no clock and no lock.
//!
//! Only what the client's side does counts as its word. What our own kernel does (a reset of its own, an error
//! after it has given the peer up, an end of stream that this side has made) proves nothing about the client,
//! and some of it looks just like the client's doing. So it matters what this side had done to the socket
//! before: each such step is noted here *before* it is taken.

use std::io;

/// What is known of the end of a connection. A fact that has become true stays true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Evidence {
    /// The client has ended the connection: by its end of stream, a close in the words of TLS or WebSocket, or a
    /// reset.
    client_ended: bool,
    /// The server has ended it: its end of stream follows what was sent before.
    server_ended: bool,
    /// The client's kernel has acknowledged the server's end of stream.
    end_acknowledged: bool,
    /// Our kernel has given the client up: nothing was heard of it for too long.
    given_up: bool,
    /// This side no longer receives: an end of stream is its own doing.
    input_ended: bool,
    /// The server has reset the connection: every error is its own doing.
    reset: bool,
}

/// What follows for the client's locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The client ended the connection by itself. It knows, and its work has ended.
    Left,
    /// The client knows that the server has ended the connection.
    Told,
    /// The client does not know. The server's end of stream is to tell it, or is on its way.
    Untold,
    /// The client may not know, and nothing but a reset can reach it. It finds out by its own figures, in its own
    /// time.
    OutOfReach,
}

impl Verdict {
    /// Whether the client knows that its locks are lost.
    pub(super) fn is_known(self) -> bool {
        matches!(self, Self::Left | Self::Told)
    }
}

impl Evidence {
    /// What follows from all that is known. The client's word counts whatever happens after it; then what its
    /// kernel has acknowledged; what is left is not known to have reached it.
    pub(super) fn verdict(self) -> Verdict {
        match self {
            Self { client_ended: true, .. } => Verdict::Left,
            Self { end_acknowledged: true, .. } => Verdict::Told,
            Self { given_up: true, .. } | Self { reset: true, .. } => Verdict::OutOfReach,
            _ => Verdict::Untold,
        }
    }

    /// The client has said in the words of TLS or WebSocket that it ends the connection.
    pub(super) fn note_goodbye(&mut self) {
        self.client_ended = true;
    }

    /// A read has met with the end of the stream. `is_connected` says whether the kernel still has a connection
    /// after that; `is_sole` that no other thread can have taken an error from the socket that it has not noted
    /// here yet.
    ///
    /// With the connection still there it is the client's end of stream. Without one it is how every end looks once
    /// the kernel has told somebody what it was; so it is the client's doing if nobody was told anything else.
    pub(super) fn note_end_of_stream(&mut self, is_connected: bool, is_sole: bool) {
        let is_clients = is_connected || is_sole && !self.given_up;
        self.client_ended |= is_clients && !self.input_ended && !self.reset;
    }

    /// Reading from the socket has failed, or it has an error that the next call would have met with. One that is
    /// none of the kernel's says nothing. A broken pipe is a reset that follows the client's end of stream.
    pub(super) fn note_error(&mut self, error: &io::Error) {
        if self.reset || error.raw_os_error().is_none() {
            return;
        }
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => self.client_ended = true,
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
            _ => self.given_up = true,
        }
    }

    /// Sending has failed. Here a broken pipe says only that there is no connection any more, for whatever reason,
    /// which the end of the stream will tell.
    pub(super) fn note_send_error(&mut self, error: &io::Error) {
        if error.kind() != io::ErrorKind::BrokenPipe {
            self.note_error(error);
        }
    }

    /// The server's end of stream is sent, behind all that was sent before.
    pub(super) fn note_server_end(&mut self) {
        self.server_ended = true;
    }

    /// The kernel says that nothing sent is unacknowledged. That means something only once the end has been sent,
    /// and until the connection is reset.
    pub(super) fn note_all_acknowledged(&mut self) {
        self.end_acknowledged |= self.server_ended && !self.reset;
    }

    /// This side is about to stop receiving, to wake its own thread.
    pub(super) fn note_end_of_input(&mut self) {
        self.input_ended = true;
    }

    /// This side is about to reset the connection.
    pub(super) fn note_reset(&mut self) {
        self.reset = true;
    }

    /// Whether the server has ended the connection.
    pub(super) fn has_server_ended(self) -> bool {
        self.server_ended
    }

    /// How the connection has ended, for people.
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self { given_up: true, client_ended: false, .. } => "was not heard of any more",
            Self { server_ended: true, .. } | Self { reset: true, .. } => "was hung up on",
            _ => "ended its connection",
        }
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
        /// The end of the stream, without a connection, while another thread may have taken an error.
        EndBesideASender,
        Error(i32),
        SendError(i32),
        OwnDecision,
        ServerEnd,
        Acknowledged,
        InputEnded,
        Reset,
    }
    use Step::{
        Acknowledged, End, EndBesideASender, Error, Goodbye, InputEnded, OwnDecision, Reset, SendError,
        ServerEnd,
    };

    const FIN: Step = End { is_connected: true };
    const GONE: Step = End { is_connected: false };

    fn after(steps: &[Step]) -> Evidence {
        let mut evidence = Evidence::default();
        for step in steps {
            match *step {
                Goodbye => evidence.note_goodbye(),
                End { is_connected } => evidence.note_end_of_stream(is_connected, true),
                EndBesideASender => evidence.note_end_of_stream(false, false),
                Error(number) => evidence.note_error(&io::Error::from_raw_os_error(number)),
                SendError(number) => evidence.note_send_error(&io::Error::from_raw_os_error(number)),
                OwnDecision => evidence.note_error(&io::Error::other("too much")),
                ServerEnd => evidence.note_server_end(),
                Acknowledged => evidence.note_all_acknowledged(),
                InputEnded => evidence.note_end_of_input(),
                Reset => evidence.note_reset(),
            }
        }
        evidence
    }

    /// How a connection ends, step by step, and what follows.
    const ENDS: &[(&str, &[Step], Verdict)] = &[
        ("nothing has happened", &[], Verdict::Untold),
        // By the client.
        ("it closes", &[FIN], Verdict::Left),
        ("it closes, and its machine vanishes", &[FIN, Error(TIMED_OUT)], Verdict::Left),
        ("it closes with something unread", &[Error(RESET)], Verdict::Left),
        ("it closes, a reply comes too late", &[Error(BROKEN_PIPE)], Verdict::Left),
        ("it closes, a sender meets with that", &[SendError(BROKEN_PIPE), GONE], Verdict::Left),
        ("it resets, a sender meets with that", &[SendError(RESET), GONE], Verdict::Left),
        ("it says goodbye in TLS", &[Goodbye, InputEnded, GONE], Verdict::Left),
        // By silence.
        ("nothing is heard", &[Error(TIMED_OUT)], Verdict::OutOfReach),
        ("the way is gone", &[Error(UNREACHABLE)], Verdict::OutOfReach),
        ("nothing is heard, and none is there", &[Error(TIMED_OUT), GONE], Verdict::OutOfReach),
        ("a sender was told, and another sees it", &[SendError(BROKEN_PIPE)], Verdict::Untold),
        ("a sender is about to tell", &[EndBesideASender], Verdict::Untold),
        ("a sender tells of silence", &[EndBesideASender, SendError(TIMED_OUT), GONE], Verdict::OutOfReach),
        ("a sender tells of a reset", &[EndBesideASender, SendError(RESET)], Verdict::Left),
        // By the server.
        ("it has had enough", &[OwnDecision], Verdict::Untold),
        ("acknowledged, but no end was sent", &[Acknowledged], Verdict::Untold),
        ("its end is on its way", &[ServerEnd], Verdict::Untold),
        ("its end arrives", &[ServerEnd, Acknowledged], Verdict::Told),
        ("its end arrives, and the client ends too", &[ServerEnd, Acknowledged, GONE], Verdict::Left),
        ("both end it at once", &[ServerEnd, FIN], Verdict::Left),
        ("a sender is about to tell", &[ServerEnd, EndBesideASender], Verdict::Untold),
        ("the client resets", &[ServerEnd, Error(RESET)], Verdict::Left),
        ("a sender meets with the server's own end", &[ServerEnd, SendError(BROKEN_PIPE)], Verdict::Untold),
        ("nothing is heard then", &[ServerEnd, Error(TIMED_OUT)], Verdict::OutOfReach),
        ("nothing is heard, and none is there", &[ServerEnd, Error(TIMED_OUT), GONE], Verdict::OutOfReach),
        ("told, then silent", &[ServerEnd, Acknowledged, Error(TIMED_OUT)], Verdict::Told),
        // By what the server does to its socket.
        ("woken", &[ServerEnd, InputEnded, GONE], Verdict::Untold),
        ("woken, still connected", &[ServerEnd, InputEnded, FIN], Verdict::Untold),
        ("told, then woken", &[ServerEnd, Acknowledged, InputEnded, GONE], Verdict::Told),
        ("reset", &[ServerEnd, Reset, Error(RESET)], Verdict::OutOfReach),
        ("reset, and none is there", &[ServerEnd, Reset, GONE], Verdict::OutOfReach),
        ("reset, nothing is left to acknowledge", &[ServerEnd, Reset, Acknowledged], Verdict::OutOfReach),
        ("told, then reset", &[ServerEnd, Acknowledged, Reset, Error(RESET)], Verdict::Told),
        ("silent, then reset", &[Error(TIMED_OUT), ServerEnd, Reset, Error(RESET)], Verdict::OutOfReach),
    ];

    #[test]
    fn each_end_has_its_verdict() {
        for (what, steps, verdict) in ENDS {
            assert_eq!(after(steps).verdict(), *verdict, "{what}: {steps:?}");
        }
    }

    /// In every sequence of up to five steps.
    #[test]
    fn what_the_server_and_its_kernel_do_is_never_the_clients_word() {
        let own = [EndBesideASender, SendError(BROKEN_PIPE), Error(TIMED_OUT), OwnDecision, InputEnded];
        let mut sequences = vec![vec![]];
        for _ in 0..5 {
            let longer = |steps: &Vec<Step>| own.map(|step| [steps.as_slice(), &[step]].concat());
            sequences = sequences.iter().flat_map(longer).collect();
            for steps in &sequences {
                assert!(!after(steps).verdict().is_known(), "{steps:?}");
                let reset = [&[ServerEnd, Reset], steps.as_slice(), &[Error(RESET), FIN, GONE, Acknowledged]]
                    .concat();
                assert_eq!(after(&reset).verdict(), Verdict::OutOfReach, "{reset:?}");
                let woken = [&[ServerEnd, InputEnded], steps.as_slice(), &[FIN, GONE]].concat();
                assert!(!after(&woken).verdict().is_known(), "{woken:?}");
                for known in [FIN, Error(RESET), Goodbye] {
                    let left = [&[known], steps.as_slice(), &[ServerEnd, Reset]].concat();
                    assert_eq!(after(&left).verdict(), Verdict::Left, "{left:?}");
                }
            }
        }
    }
}

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
    /// | | still connected | no connection any more |
    /// | --- | --- | --- |
    /// | before the server's end | the client's end of stream | an error that another thread has taken: it says what it was |
    /// | after it | the client's end of stream | the client's end of stream, unless another thread may have taken an error |
    pub(super) fn note_end_of_stream(&mut self, is_connected: bool, is_sole: bool) {
        let is_clients = is_connected || self.server_ended && is_sole && !self.given_up;
        if is_clients && !self.input_ended && !self.reset {
            self.client_ended = true;
        } else if !is_connected && !self.server_ended && !self.input_ended && !self.reset {
            // Whatever it was, it was not seen to be the client's doing.
            self.given_up = true;
        }
    }

    /// The socket has failed with this error. One that is none of the kernel's says nothing.
    ///
    /// A broken pipe says nothing either: the kernel has told another thread why nothing can be sent.
    pub(super) fn note_error(&mut self, error: &io::Error) {
        if self.reset || error.raw_os_error().is_none() {
            return;
        }
        match error.kind() {
            io::ErrorKind::ConnectionReset => self.client_ended = true,
            io::ErrorKind::BrokenPipe | io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
            _ => self.given_up = true,
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
        /// The same, while another thread may have taken an error.
        EndBesideASender,
        Error(i32),
        OwnDecision,
        ServerEnd,
        Acknowledged,
        InputEnded,
        Reset,
    }
    use Step::{
        Acknowledged, End, EndBesideASender, Error, Goodbye, InputEnded, OwnDecision, Reset, ServerEnd,
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
        ("the client closes", &[FIN], Verdict::Left),
        ("the client closes, and its machine vanishes", &[FIN, Error(TIMED_OUT)], Verdict::Left),
        ("the client closes with something unread", &[Error(RESET)], Verdict::Left),
        ("the client says goodbye in TLS", &[Goodbye, InputEnded, GONE], Verdict::Left),
        ("the client is silent", &[Error(TIMED_OUT)], Verdict::OutOfReach),
        (
            "the client is silent, a sender meets with it too",
            &[Error(BROKEN_PIPE), Error(TIMED_OUT)],
            Verdict::OutOfReach,
        ),
        ("the client is silent, a sender was told", &[GONE, Error(TIMED_OUT)], Verdict::OutOfReach),
        ("a sender was told, and has not said so yet", &[GONE], Verdict::OutOfReach),
        ("a sender was told of a reset", &[GONE, Error(RESET)], Verdict::Left),
        ("a broken pipe alone", &[Error(BROKEN_PIPE)], Verdict::Untold),
        ("the way to the client is gone", &[Error(UNREACHABLE)], Verdict::OutOfReach),
        ("the server has had enough", &[OwnDecision], Verdict::Untold),
        ("acknowledged, but no end was sent", &[Acknowledged], Verdict::Untold),
        ("the server ends it", &[ServerEnd], Verdict::Untold),
        ("the server ends it, which arrives", &[ServerEnd, Acknowledged], Verdict::Told),
        ("the server ends it, and the client too", &[ServerEnd, Acknowledged, GONE], Verdict::Left),
        ("both end it at once", &[ServerEnd, FIN], Verdict::Left),
        ("the server ends it, a sender may have been told", &[ServerEnd, EndBesideASender], Verdict::Untold),
        ("the server ends it, the client resets", &[ServerEnd, Error(RESET)], Verdict::Left),
        (
            "the server ends it, a sender meets with its own end",
            &[ServerEnd, Error(BROKEN_PIPE)],
            Verdict::Untold,
        ),
        ("the server ends it, and hears nothing", &[ServerEnd, Error(TIMED_OUT)], Verdict::OutOfReach),
        (
            "nothing is heard, then the end of stream",
            &[ServerEnd, Error(TIMED_OUT), GONE],
            Verdict::OutOfReach,
        ),
        ("told, then silent", &[ServerEnd, Acknowledged, Error(TIMED_OUT)], Verdict::Told),
        ("woken by the server", &[ServerEnd, InputEnded, GONE], Verdict::Untold),
        ("woken by the server, still connected", &[ServerEnd, InputEnded, FIN], Verdict::Untold),
        ("told, then woken by the server", &[ServerEnd, Acknowledged, InputEnded, GONE], Verdict::Told),
        ("reset by the server", &[ServerEnd, Reset, Error(RESET)], Verdict::OutOfReach),
        ("reset by the server, then the end of stream", &[ServerEnd, Reset, GONE], Verdict::OutOfReach),
        (
            "reset by the server, which clears what is unacknowledged",
            &[ServerEnd, Reset, Acknowledged],
            Verdict::OutOfReach,
        ),
        ("told, then reset by the server", &[ServerEnd, Acknowledged, Reset, Error(RESET)], Verdict::Told),
        (
            "silent, then reset by the server",
            &[Error(TIMED_OUT), ServerEnd, Reset, Error(RESET)],
            Verdict::OutOfReach,
        ),
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
        let own = [GONE, EndBesideASender, Error(BROKEN_PIPE), Error(TIMED_OUT), OwnDecision, InputEnded];
        let mut sequences = vec![vec![]];
        for _ in 0..5 {
            sequences = sequences
                .iter()
                .flat_map(|steps: &Vec<Step>| {
                    own.iter().map(|step| steps.iter().copied().chain([*step]).collect::<Vec<_>>())
                })
                .collect();
            for steps in &sequences {
                assert!(!after(steps).verdict().is_known(), "{steps:?}");
                let reset =
                    [&[ServerEnd, Reset], steps.as_slice(), &[Error(RESET), FIN, Acknowledged]].concat();
                assert_eq!(after(&reset).verdict(), Verdict::OutOfReach, "{reset:?}");
                let woken = [&[ServerEnd, InputEnded], steps.as_slice(), &[FIN]].concat();
                assert!(!after(&woken).verdict().is_known(), "{woken:?}");
                for (known, verdict) in [(FIN, Verdict::Left), (Error(RESET), Verdict::Left)] {
                    let known = [&[known], steps.as_slice(), &[ServerEnd, Reset]].concat();
                    assert_eq!(after(&known).verdict(), verdict, "{known:?}");
                }
            }
        }
    }
}

//! Every way in which a connection can end, and what follows for the client's locks.

use super::*;

const RESET: i32 = 104;
const BROKEN_PIPE: i32 = 32;
const TIMED_OUT: i32 = 110;
const UNREACHABLE: i32 = 113;

/// What can happen to a connection, in the order in which it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Both sides are on this machine.
    Local,
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
use ClientState::{HasLeft, Knows, MayNotKnow, OutOfReach};
use Step::{
    Acknowledged, End, EndWhileSending, Error, Goodbye, InputEnded, Local, ProtocolError, Reset, SendError,
    ServerEnd,
};

const FIN: Step = End { is_connected: true };
const GONE: Step = End { is_connected: false };

fn after(steps: &[Step]) -> ConnectionEnd {
    let mut end = ConnectionEnd::default();
    for step in steps {
        match *step {
            Local => end.set_local(),
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

/// How a connection ends, step by step, and what its client knows then: one that asked for no time
/// to end its work, and one that did.
const ENDS: &[(&str, &[Step], ClientState, ClientState)] = &[
    ("nothing has happened", &[], MayNotKnow, MayNotKnow),
    // By the peer.
    ("it closes", &[FIN], HasLeft, HasLeft),
    ("it closes, and its machine vanishes", &[FIN, Error(TIMED_OUT)], HasLeft, HasLeft),
    ("it closes, and a reply meets with its reset", &[Error(BROKEN_PIPE)], HasLeft, HasLeft),
    ("it closes, and a sender meets with that", &[SendError(BROKEN_PIPE), GONE], HasLeft, HasLeft),
    ("it says goodbye in TLS", &[Goodbye, InputEnded, GONE], HasLeft, HasLeft),
    ("it says goodbye, and is reset", &[Goodbye, Error(RESET)], HasLeft, HasLeft),
    ("it closes, and is reset", &[FIN, Error(RESET), GONE], HasLeft, HasLeft),
    ("it closes with something unread, on this machine", &[Local, Error(RESET)], HasLeft, HasLeft),
    ("and the end of the stream follows", &[Local, Error(RESET), FIN], HasLeft, HasLeft),
    // By a reset.
    ("it is reset", &[Error(RESET)], HasLeft, OutOfReach),
    ("it is reset, and the connection is gone", &[Error(RESET), GONE], HasLeft, OutOfReach),
    ("a sender meets with a reset", &[SendError(RESET)], HasLeft, OutOfReach),
    ("a sender meets with a reset, and then it is gone", &[SendError(RESET), GONE], HasLeft, OutOfReach),
    ("a sender reports a reset late", &[EndWhileSending, SendError(RESET), GONE], HasLeft, OutOfReach),
    ("a goodbye was still unread", &[Error(RESET), Goodbye], HasLeft, HasLeft),
    ("reset, then reset by the server, too", &[Error(RESET), Reset, GONE], HasLeft, OutOfReach),
    ("the server's end meets with a reset", &[ServerEnd, Error(RESET), GONE], HasLeft, OutOfReach),
    ("nothing arrives after a reset", &[ServerEnd, Error(RESET), Acknowledged], HasLeft, OutOfReach),
    ("its end arrives, and it is reset", &[ServerEnd, Acknowledged, Error(RESET)], Knows, Knows),
    // By a timeout.
    ("nothing is heard", &[Error(TIMED_OUT)], OutOfReach, OutOfReach),
    ("no route is left", &[Error(UNREACHABLE)], OutOfReach, OutOfReach),
    ("nothing is heard, and the connection is gone", &[Error(TIMED_OUT), GONE], OutOfReach, OutOfReach),
    ("nothing is heard, whatever is said then", &[Error(TIMED_OUT), Error(RESET)], OutOfReach, OutOfReach),
    ("a broken pipe hides the cause from a sender", &[SendError(BROKEN_PIPE)], MayNotKnow, MayNotKnow),
    ("a sender has not reported its error yet", &[EndWhileSending], MayNotKnow, MayNotKnow),
    ("a sender reports silence", &[EndWhileSending, SendError(TIMED_OUT), GONE], OutOfReach, OutOfReach),
    // By the server.
    ("it objects to the input", &[ProtocolError], MayNotKnow, MayNotKnow),
    ("acknowledged, but no end was sent", &[Acknowledged], MayNotKnow, MayNotKnow),
    ("its end is on its way", &[ServerEnd], MayNotKnow, MayNotKnow),
    ("its end arrives", &[ServerEnd, Acknowledged], Knows, Knows),
    ("its end arrives, and the client ends too", &[ServerEnd, Acknowledged, GONE], HasLeft, HasLeft),
    ("both end it at once", &[ServerEnd, FIN], HasLeft, HasLeft),
    ("a sender has not reported its error yet", &[ServerEnd, EndWhileSending], MayNotKnow, MayNotKnow),
    ("a sender meets with the server's end", &[ServerEnd, SendError(BROKEN_PIPE)], MayNotKnow, MayNotKnow),
    ("nothing is heard then", &[ServerEnd, Error(TIMED_OUT)], OutOfReach, OutOfReach),
    ("nothing is heard, and it is gone", &[ServerEnd, Error(TIMED_OUT), GONE], OutOfReach, OutOfReach),
    ("nothing arrives after that", &[ServerEnd, Error(TIMED_OUT), Acknowledged], OutOfReach, OutOfReach),
    ("acknowledged, then silent", &[ServerEnd, Acknowledged, Error(TIMED_OUT)], Knows, Knows),
    // By what the server does to its socket.
    ("woken", &[ServerEnd, InputEnded, GONE], MayNotKnow, MayNotKnow),
    ("woken, still connected", &[ServerEnd, InputEnded, FIN], MayNotKnow, MayNotKnow),
    ("woken, and the client still sends", &[ServerEnd, InputEnded, Error(RESET)], MayNotKnow, MayNotKnow),
    ("acknowledged, then woken", &[ServerEnd, Acknowledged, InputEnded, GONE], Knows, Knows),
    ("reset", &[ServerEnd, Reset, Error(RESET)], OutOfReach, OutOfReach),
    ("reset, and the connection is gone", &[ServerEnd, Reset, GONE], OutOfReach, OutOfReach),
    ("reset, nothing is left to acknowledge", &[ServerEnd, Reset, Acknowledged], OutOfReach, OutOfReach),
    ("acknowledged, then reset", &[ServerEnd, Acknowledged, Reset, Error(RESET)], Knows, Knows),
    ("silent, then reset", &[Error(TIMED_OUT), ServerEnd, Reset, Error(RESET)], OutOfReach, OutOfReach),
];

#[test]
fn each_end_has_its_client_state() {
    for (what, steps, without_work, with_work) in ENDS {
        assert_eq!(after(steps).client_state(), *without_work, "{what}: {steps:?}");
        let (end, _) = after_hello_with(steps, Duration::ZERO);
        assert_eq!(end.client_state(), *without_work, "{what}, after hello: {steps:?}");
        let (mut end, _) = after_hello(steps);
        assert_eq!(end.client_state(), *with_work, "{what}, with work: {steps:?}");
        // That its time is over does not change what it knows.
        end.limit_wind_down(Duration::ZERO);
        assert_eq!(end.client_state(), *with_work, "{what}, with no time left: {steps:?}");
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
            let reset =
                [&[ServerEnd, Reset], steps.as_slice(), &[Error(RESET), FIN, GONE, Acknowledged]].concat();
            assert_eq!(after(&reset).client_state(), OutOfReach, "{reset:?}");
            let woken = [&[ServerEnd, InputEnded], steps.as_slice(), &[FIN, GONE, Error(RESET)]].concat();
            assert!(!after(&woken).client_state().knows_of_the_end(), "{woken:?}");
            for known in [FIN, Error(RESET), Goodbye] {
                let left = [&[known], steps.as_slice(), &[ServerEnd, Reset]].concat();
                assert_eq!(after(&left).client_state(), HasLeft, "{left:?}");
            }
            let reset = [&[Error(RESET)], steps.as_slice(), &[GONE, ServerEnd, Acknowledged]].concat();
            assert_eq!(after_hello(&reset).0.client_state(), OutOfReach, "{reset:?}");
        }
    }
}

const WIND_DOWN: Duration = Duration::from_secs(60);

/// The end of a connection whose client has said `hello`, and asked for time to end its work.
fn after_hello(steps: &[Step]) -> (ConnectionEnd, Duration) {
    after_hello_with(steps, WIND_DOWN)
}

fn after_hello_with(steps: &[Step], wind_down: Duration) -> (ConnectionEnd, Duration) {
    let keepalive = Keepalive::server_after_hello(Keepalive::DEAD_PEER_TIMEOUT);
    let mut end = after(steps);
    end.set_terms(&keepalive, wind_down, false);
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
    for step in [FIN, Goodbye] {
        assert_eq!(after_hello(&[step]).0.next_step(now, now + TELL_LIMIT), NextStep::Release);
    }
}

#[test]
fn a_reset_frees_the_locks_only_of_a_client_that_asked_for_no_time() {
    let now = Instant::now();
    let tell_deadline = now + TELL_LIMIT;
    let reset = [Error(RESET)];
    let (without_work, _) = after_hello_with(&reset, Duration::ZERO);
    assert_eq!(without_work.next_step(now, tell_deadline), NextStep::Release);
    let (mut end, release_delay) = after_hello(&reset);
    assert_eq!(end.next_step(now, tell_deadline), NextStep::Reset, "it must not hear anything more");
    end.note_reset(now);
    let just_before = |time: Duration| now + time - Duration::from_millis(1);
    let all = release_delay + WIND_DOWN;
    assert_eq!(end.next_step(just_before(all), tell_deadline), NextStep::KeepLocks(LEAVE_POLL));
    assert_eq!(end.next_step(now + all, tell_deadline), NextStep::Release);
    assert_eq!(end.cause(), CloseCause::PeerReset);
    // Nobody waits for its work any more, but it must still find out.
    end.note_kick();
    end.note_kick();
    assert_eq!(end.next_step(just_before(release_delay), tell_deadline), NextStep::KeepLocks(LEAVE_POLL));
    assert_eq!(end.next_step(now + release_delay, tell_deadline), NextStep::Release);
}

/// Of a client that can resume, only its own end counts.
#[test]
fn the_locks_of_a_client_that_can_resume_are_kept_unless_it_ends_the_connection_itself() {
    let begin = Instant::now();
    for (what, steps, without_work, _) in ENDS {
        for wind_down in [Duration::ZERO, WIND_DOWN] {
            let keepalive = Keepalive::server_after_hello(Keepalive::DEAD_PEER_TIMEOUT);
            let mut end = after(steps);
            end.set_terms(&keepalive, wind_down, true);
            let kept_for = keepalive.release_delay() + wind_down;
            // A reset is never its word: not over a Unix socket, either.
            let resets = steps.iter().filter(|step| matches!(step, Error(RESET) | SendError(RESET))).count();
            let is_its_end = *without_work == HasLeft && (resets == 0 || end.peer_ended);
            if is_its_end {
                assert_eq!(end.client_state(), HasLeft, "{what}: {steps:?}");
                assert_eq!(end.next_step(begin, begin), NextStep::Release, "{what}: {steps:?}");
                continue;
            }
            assert_eq!(end.client_state(), ClientState::MayComeBack, "{what}: {steps:?}");
            // Not before it is known from when on it has been answered nothing.
            let much_later = begin + 2 * kept_for;
            assert_eq!(end.next_step(much_later, begin), NextStep::CheckAgain(COME_BACK_POLL), "{what}");
            end.note_silence(begin);
            end.note_silence(begin + kept_for / 2);
            let before = begin + kept_for - Duration::from_millis(1);
            let last = NextStep::CheckAgain(Duration::from_millis(1));
            assert_eq!(end.next_step(before, begin), last, "{what}: {steps:?}");
            assert_eq!(end.next_step(begin + kept_for, begin), NextStep::Release, "{what}: {steps:?}");
            end.note_goodbye();
            assert_eq!(end.next_step(begin, begin), NextStep::Release, "{what}: {steps:?}");
        }
    }
}

#[test]
fn the_log_names_the_side_that_ended_the_connection() {
    for (steps, cause) in [
        (&[FIN][..], CloseCause::Peer),
        (&[Error(BROKEN_PIPE)], CloseCause::Peer),
        (&[Local, Error(RESET)], CloseCause::Peer),
        (&[Error(RESET)], CloseCause::PeerReset),
        (&[Error(RESET), Reset], CloseCause::PeerReset),
        (&[ServerEnd, Error(RESET)], CloseCause::Server),
        (&[ServerEnd, Reset], CloseCause::Server),
        (&[ServerEnd, FIN], CloseCause::Server),
        (&[Error(TIMED_OUT), Reset], CloseCause::PeerTimedOut),
    ] {
        assert_eq!(after(steps).cause(), cause, "{steps:?}");
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

/// It has shown the figures that it was told, and may not have heard the new ones.
#[test]
fn a_client_that_resumes_keeps_its_locks_by_the_longer_of_two_timeouts() {
    let begin = Instant::now();
    let figures = |seconds| Keepalive::server_after_hello(Duration::from_secs(seconds));
    let (short, long) = (figures(12), figures(60));
    for (told, new) in [(short, long), (long, short)] {
        let mut end = after(&[Error(RESET)]);
        end.set_terms(&new, Duration::ZERO, true);
        end.keep_terms_of(&told);
        // It says `hello` once more.
        end.set_terms(&new, Duration::ZERO, true);
        end.note_silence(begin);
        let before = begin + long.release_delay() - Duration::from_millis(1);
        assert_eq!(end.next_step(before, begin), NextStep::CheckAgain(Duration::from_millis(1)));
        assert_eq!(end.next_step(begin + long.release_delay(), begin), NextStep::Release);
    }
}

//! Whether the checker can be believed about servers that end and come back: histories over two
//! lives of a server, made of two runs or by hand, that must be convicted or acquitted.

use crate::checker::{Model, Rules, Verdict, check};
use crate::history::{Ask, Call, History, Mode, NEVER, Nanos, Outcome, SECOND, ServerLife, Session};
use crate::plan::Mix;
use crate::sim::broken::Broken;
use crate::sim::real::Real;
use crate::sim::subject::Subject;
use crate::sim::{Belief, PATIENCE, Setup, run};

const RULES: Rules = Rules { patience: PATIENCE, notice: 0 };

fn judge(history: &History) -> Verdict {
    check(history, &RULES)
}

fn life(started: Nanos, stopped: Nanos) -> ServerLife {
    let ended = stopped.saturating_add(1);
    ServerLife { started, ready: started, stopped, ended, grace: 0, quiet: 0, is_remembered: false }
}

fn simulated(seed: u64, subject: &mut impl Subject) -> History {
    let (hang_ups, belief) = (0, Belief::OfTheLiving);
    run(
        Setup { seed, clients: 4, length: SECOND / 10, mix: Mix::MUTEX, kills: 30, hang_ups, belief },
        subject,
    )
}

/// The second run comes after the first one, on a server that was started again.
fn one_after_the_other(mut first: History, second: History) -> History {
    let later = |time: Nanos| if time == NEVER { NEVER } else { time + first.end + 100 };
    let sessions = first.sessions.len();
    first.sessions.extend(second.sessions.into_iter().map(|session| Session {
        opened: later(session.opened),
        stood_until: later(session.stood_until),
        gone_at: session.gone_at.map(later),
        ..session
    }));
    first.calls.extend(second.calls.into_iter().map(|call| Call {
        session: call.session + sessions,
        start: later(call.start),
        end: later(call.end),
        queued: call.queued.map(later),
        ..call
    }));
    first.servers = vec![life(0, first.end + 10), life(first.end + 50, NEVER)];
    first.end = later(second.end);
    first
}

#[test]
fn tokens_that_begin_again_with_a_new_server_are_broken_fencing() {
    for seed in 0..10 {
        let again = |seed| simulated(seed, &mut Broken::new(None, seed));
        let verdict = judge(&one_after_the_other(again(seed), again(seed + 100)));
        assert!(verdict.convicts(Model::Fencing), "seed {seed}");
        let history = one_after_the_other(
            simulated(seed, &mut Real::default()),
            simulated(seed + 100, &mut Real::default()),
        );
        let verdict = judge(&history);
        assert!(verdict.acquits(), "seed {seed}: {}", verdict.report(&history));
    }
}

#[test]
fn a_grant_in_the_silence_after_an_unclean_end_is_convicted() {
    let run = |seed| simulated(seed, &mut Real::default());
    let mut history = one_after_the_other(run(1), run(2));
    history.servers[1].grace = SECOND;
    assert!(judge(&history).convicts(Model::Recovery));
    // All that was granted was granted later than that.
    let granted = history.calls.iter().filter(|call| call.is_granted());
    let first = granted.map(|call| call.end).filter(|end| *end > history.servers[1].started).min();
    history.servers[1].grace = first.unwrap() - history.servers[1].started;
    let verdict = judge(&history);
    assert!(verdict.acquits(), "{}", verdict.report(&history));
}

fn call(session: usize, ask: Ask, (start, end): (Nanos, Nanos), outcome: Outcome) -> Call {
    let wants = [(0, Mode::Exclusive)].into();
    Call { session, ask, wants, start, end, queued: None, gave_up: None, outcome }
}

/// One holds when its server ends, and finds that out late; another one is granted the same by the
/// next server.
fn two_holders_over_an_end() -> History {
    let ask = Ask::Acquire { limit: None };
    let session = |label: &str, opened, stood_until| Session {
        label: label.to_owned(),
        opened,
        stood_until,
        gone_at: Some(stood_until),
        ..Session::default()
    };
    History {
        sessions: vec![session("the old holder", 1, 100), session("the new holder", 50, 200)],
        calls: vec![
            call(0, ask, (10, 20), Outcome::Granted(Some(1))),
            call(1, ask, (60, 70), Outcome::Granted(Some(2))),
            call(1, Ask::Release, (110, 120), Outcome::Released),
        ],
        servers: vec![life(0, 30), life(40, NEVER)],
        end: 200,
    }
}

#[test]
fn a_server_that_remembers_must_not_grant_what_an_old_holder_still_believes_to_hold() {
    let mut history = two_holders_over_an_end();
    assert!(judge(&history).acquits(), "a server that remembers nothing cannot know");
    history.servers[0].is_remembered = true;
    assert!(judge(&history).convicts(Model::Mutex));
}

#[test]
fn what_an_old_holder_believes_is_not_expected_of_the_next_server() {
    let mut history = two_holders_over_an_end();
    history.servers[0].is_remembered = true;
    // The new holder only looks.
    history.calls.truncate(1);
    history.calls.push(call(1, Ask::Inspect, (60, 70), Outcome::Seen(0)));
    let verdict = judge(&history);
    assert!(verdict.acquits(), "{}", verdict.report(&history));
    // But the server that it holds at must know of it.
    history.servers.clear();
    assert!(judge(&history).convicts(Model::Mutex));
}

#[test]
fn a_session_that_ends_without_a_reason_is_convicted() {
    let mut history = two_holders_over_an_end();
    history.sessions[0].lost_at = Some(100);
    assert!(judge(&history).acquits(), "its server had ended");
    history.sessions[1].lost_at = Some(150);
    assert!(judge(&history).convicts(Model::Mutex));
}

//! Tests of the checker with servers that end and come back: histories over two lives of a server,
//! made of two runs or by hand, must be convicted or acquitted.

use crate::checker::{Model, Rules, Verdict, check};
use crate::history::{Call, CallKind, History, Mode, NEVER, Nanos, Outcome, SECOND, ServerLife, Session};
use crate::plan::Mix;
use crate::sim::broker_under_test::BrokerUnderTest;
use crate::sim::faulty::FaultyBroker;
use crate::sim::real::RealBroker;
use crate::sim::{GRANT_DELAY_MAX, Setup, StaleGrants, run};

const RULES: Rules = Rules { grant_delay_max: GRANT_DELAY_MAX, end_notice_max: 0, clock_lead: 0 };

fn judge(history: &History) -> Verdict {
    check(history, &RULES)
}

fn life(started: Nanos, stopped: Nanos) -> ServerLife {
    let ended = stopped.saturating_add(1);
    ServerLife {
        started,
        ready: started,
        stopped,
        ended,
        grace: 0,
        grace_max: 0,
        is_remembered: false,
        is_new: false,
    }
}

fn simulated(seed: u64, broker: &mut impl BrokerUnderTest) -> History {
    let (hang_ups, stale_grants) = (0, StaleGrants::Discarded);
    run(
        Setup { seed, clients: 4, length: SECOND / 10, mix: Mix::MUTEX, kills: 30, hang_ups, stale_grants },
        broker,
    )
}

/// Puts the second run after the first one, on a server that was started again.
fn one_after_the_other(mut first: History, second: History) -> History {
    let later = |time: Nanos| if time == NEVER { NEVER } else { time + first.end + 100 };
    let sessions = first.sessions.len();
    first.sessions.extend(second.sessions.into_iter().map(|session| Session {
        opened: later(session.opened),
        alive_until: later(session.alive_until),
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
        let again = |seed| simulated(seed, &mut FaultyBroker::new(None, seed));
        let verdict = judge(&one_after_the_other(again(seed), again(seed + 100)));
        assert!(verdict.convicts(Model::Fencing), "seed {seed}");
        let history = one_after_the_other(
            simulated(seed, &mut RealBroker::default()),
            simulated(seed + 100, &mut RealBroker::default()),
        );
        let verdict = judge(&history);
        assert!(verdict.acquits(), "seed {seed}: {}", verdict.report(&history));
    }
}

#[test]
fn a_grant_in_the_grace_after_an_unclean_stop_is_convicted() {
    let run = |seed| simulated(seed, &mut RealBroker::default());
    let mut history = one_after_the_other(run(1), run(2));
    history.servers[1].grace = SECOND;
    assert!(judge(&history).convicts(Model::Recovery));
    // With a shorter grace, everything was granted after its end.
    let granted = history.calls.iter().filter(|call| call.is_granted());
    let first = granted.map(|call| call.end).filter(|end| *end > history.servers[1].started).min();
    history.servers[1].grace = first.unwrap() - history.servers[1].started;
    let verdict = judge(&history);
    assert!(verdict.acquits(), "{}", verdict.report(&history));
}

fn call(session: usize, kind: CallKind, (start, end): (Nanos, Nanos), outcome: Outcome) -> Call {
    let wants = [(0, Mode::Exclusive)].into();
    Call { session, kind, wants, start, end, queued: None, gave_up: None, outcome }
}

/// One session holds when its server ends, and finds that out late; the next server grants the same
/// lock to another session.
fn two_holders_over_an_end() -> History {
    let kind = CallKind::Acquire { limit: None };
    let session = |label: &str, opened, alive_until| Session {
        label: label.to_owned(),
        opened,
        alive_until,
        gone_at: Some(alive_until),
        ..Session::default()
    };
    History {
        sessions: vec![session("the old holder", 1, 100), session("the new holder", 50, 200)],
        calls: vec![
            call(0, kind, (10, 20), Outcome::Granted(Some(1))),
            call(1, kind, (60, 70), Outcome::Granted(Some(2))),
            call(1, CallKind::Release, (110, 120), Outcome::Released),
        ],
        servers: vec![life(0, 30), life(40, NEVER)],
        end: 200,
    }
}

#[test]
fn a_server_with_state_must_not_grant_what_an_old_holder_still_believes_to_hold() {
    let mut history = two_holders_over_an_end();
    assert!(judge(&history).acquits(), "a server without a state directory cannot know of old holders");
    history.servers[0].is_remembered = true;
    assert!(judge(&history).convicts(Model::Mutex));
}

#[test]
fn the_next_server_does_not_have_to_count_an_old_holder() {
    let mut history = two_holders_over_an_end();
    history.servers[0].is_remembered = true;
    // The new session only inspects.
    history.calls.truncate(1);
    history.calls.push(call(1, CallKind::Inspect, (60, 70), Outcome::Seen(0)));
    let verdict = judge(&history);
    assert!(verdict.acquits(), "{}", verdict.report(&history));
    // Without a restart, the server must count the old holder.
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

//! Tests of the checker with sessions that resume: small histories, made by hand, of a holder that
//! goes on with another connection, is in doubt, or is lost.

use crate::checker::{Model, Rules, Verdict, check};
use crate::history::{Call, CallKind, History, Mode, NEVER, Nanos, Outcome, Resumption, ServerLife, Session};

const RULES: Rules = Rules { grant_delay_max: NEVER, end_notice_max: 0, clock_lead: 0 };
const ACQUIRE: CallKind = CallKind::Acquire { limit: None };

fn call(session: usize, kind: CallKind, (start, end): (Nanos, Nanos), outcome: Outcome) -> Call {
    let wants = [(0, Mode::Exclusive)].into();
    Call { session, kind, wants, start, end, queued: None, gave_up: None, outcome }
}

/// A run of the server from `started` to `stopped`, which was killed.
fn life(started: Nanos, stopped: Nanos) -> ServerLife {
    let ended = stopped.saturating_add(1);
    ServerLife {
        started,
        ready: started,
        stopped,
        ended,
        grace: 0,
        grace_max: 0,
        is_remembered: true,
        is_new: false,
    }
}

/// A session gets the lock at 3 from a server that dies at 30. The next one starts at 40, and grants
/// the lock to another session between 60 and 70. The first one believes in it until `until`.
fn holder_and_other(until: Nanos) -> History {
    let resumption = Resumption { connected: vec![0], doubts: 1, ..Resumption::default() };
    let holder = Session {
        label: "the holder".to_owned(),
        alive_until: until,
        gone_at: Some(until),
        resumption: Some(resumption),
        ..Session::default()
    };
    let other =
        Session { label: "the other".to_owned(), opened: 50, alive_until: NEVER, ..Session::default() };
    History {
        sessions: vec![holder, other],
        calls: vec![
            call(0, ACQUIRE, (1, 3), Outcome::Granted(Some(1))),
            call(1, ACQUIRE, (50, 70), Outcome::Granted(Some(2))),
        ],
        servers: vec![life(0, 30), life(40, NEVER)],
        end: 100,
    }
}

fn resumption(history: &mut History) -> &mut Resumption {
    history.sessions[0].resumption.as_mut().unwrap()
}

fn judge(history: &History) -> Verdict {
    check(history, &RULES)
}

#[test]
fn a_lock_is_held_in_doubt_until_the_limit() {
    let verdict = judge(&holder_and_other(60));
    assert!(verdict.acquits(), "{}", verdict.report(&holder_and_other(60)));
    // It may have been granted at any time up to 70, but was held by the other until then.
    assert!(judge(&holder_and_other(69)).acquits());
    assert!(judge(&holder_and_other(71)).convicts(Model::Mutex));
}

#[test]
fn a_lock_is_held_through_the_next_server_until_it_is_released() {
    let released = |during: (Nanos, Nanos)| {
        let mut history = holder_and_other(NEVER);
        resumption(&mut history).connected.push(45);
        history.calls.insert(1, call(0, CallKind::Release, during, Outcome::Released));
        history
    };
    assert!(judge(&released((50, 55))).acquits());
    assert!(judge(&released((65, 75))).acquits(), "released before it was granted");
    assert!(judge(&released((72, 75))).convicts(Model::Mutex));
}

#[test]
fn a_release_in_doubt_gives_the_lock_up_when_it_begins() {
    let mut history = holder_and_other(NEVER);
    history.calls.insert(1, call(0, CallKind::Release, (55, NEVER), Outcome::Unknown));
    let verdict = judge(&history);
    assert!(verdict.acquits(), "{}", verdict.report(&history));
    history.calls[1].start = 75;
    assert!(judge(&history).convicts(Model::Mutex));
}

#[test]
fn a_session_that_comes_back_in_time_with_locks_must_resume() {
    let ended = |claims: usize| {
        let mut history = holder_and_other(50);
        resumption(&mut history).told_ended = Some((50, claims));
        history
    };
    assert!(judge(&ended(1)).convicts(Model::Resume));
    assert!(judge(&ended(0)).acquits(), "it has nothing to lose");
    let mut kicked = ended(1);
    kicked.sessions[0].provoked = true;
    assert!(judge(&kicked).acquits());
    let mut asleep = ended(1);
    resumption(&mut asleep).asleep = Some(20);
    assert!(judge(&asleep).acquits(), "its clock stood still");
    let mut forgotten = ended(1);
    forgotten.servers[1].is_new = true;
    assert!(judge(&forgotten).acquits(), "its server had lost its state");
}

#[test]
fn the_grace_counts_for_the_connection_on_which_a_grant_came() {
    let granted = |connected: Nanos| {
        let mut history = holder_and_other(NEVER);
        // Only the first session, which gets another grant.
        history.sessions.truncate(1);
        history.calls.truncate(1);
        history.calls[0].outcome = Outcome::Busy;
        history.calls.push(call(0, ACQUIRE, (28, 42), Outcome::Granted(Some(2))));
        history.servers[1].grace = 20;
        resumption(&mut history).connected.push(connected);
        history
    };
    assert!(judge(&granted(41)).convicts(Model::Recovery));
    assert!(judge(&granted(20)).acquits(), "it was granted by the server before");
    let converted = |mode| {
        let mut history = granted(41);
        history.calls[0] = call(0, ACQUIRE, (1, 3), Outcome::Granted(Some(1)));
        history.calls[0].wants = [(0, Mode::at_most(2).unwrap())].into();
        (history.calls[1].kind, history.calls[1].wants) =
            (CallKind::Convert { limit: None }, [(0, mode)].into());
        history
    };
    assert!(judge(&converted(Mode::Shared)).acquits(), "it allows more holders than before");
    assert!(judge(&converted(Mode::Exclusive)).convicts(Model::Recovery));
}

/// What a request that was given up has got is kept for a while, and an inspection sees that.
#[test]
fn what_was_granted_on_a_connection_that_has_ended_may_be_kept() {
    let seen = |at: Nanos| {
        let mut history = holder_and_other(NEVER);
        history.servers.clear();
        resumption(&mut history).kept = 20;
        history.calls = vec![
            call(0, ACQUIRE, (1, 10), Outcome::GivenUp),
            call(0, CallKind::Inspect, (15, 16), Outcome::Seen(0)),
            call(1, CallKind::Inspect, (at, at + 1), Outcome::Seen(1)),
        ];
        history
    };
    let verdict = judge(&seen(30));
    assert!(verdict.acquits(), "{}", verdict.report(&seen(30)));
    assert!(judge(&seen(40)).convicts(Model::Mutex));
}

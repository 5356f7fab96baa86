//! A session that goes on with another observer, at another address, and with some of its locks.

use crate::broker::tests::sequences::Recorder;
use crate::broker::*;
use Mode::{Exclusive, Shared};

fn attach(broker: &Broker) -> (ObservedSession, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    (broker.attach("first", recorder.clone()), recorder)
}

fn hold(session: &ObservedSession, name: &str, mode: Mode) -> Grant {
    session.try_acquire(Space::Main, name.as_bytes(), mode).unwrap()
}

/// Waits without a time limit.
fn wait(session: &ObservedSession, ticket: Ticket, name: &str) {
    let attempt = session.acquire(&[(Key::main(name), Exclusive)], Some(Wait { ticket, limit: None }));
    assert_eq!(attempt, Ok(Attempt::Queued));
}

fn held(session: &ObservedSession, name: &str) -> Option<Held> {
    session.held(Space::Main, name.as_bytes())
}

#[test]
fn an_observer_is_told_what_was_decided_while_it_was_the_sessions_and_nothing_else() {
    let broker = Broker::default();
    let (holder, _) = attach(&broker);
    let (waiter, first) = attach(&broker);
    hold(&holder, "a", Exclusive);
    hold(&holder, "b", Exclusive);
    wait(&waiter, 1, "a");
    holder.release(Space::Main, b"a").unwrap();
    wait(&waiter, 2, "b");
    waiter.end_waits();
    let second = Arc::new(Recorder::default());
    waiter.set_observer(second.clone());
    let told = first.take();
    assert!(matches!(told[..], [(1, Outcome::Granted(_)), (2, Outcome::Lost)]), "{told:?}");
    wait(&waiter, 3, "b");
    holder.release(Space::Main, b"b").unwrap();
    assert!(first.take().is_empty());
    let told = second.take();
    assert!(matches!(told[..], [(3, Outcome::Granted(_))]), "{told:?}");
    waiter.abandon();
    waiter.set_observer(first.clone());
    assert!(first.take().is_empty() && second.take().is_empty());
}

#[test]
fn a_session_is_listed_by_its_latest_address() {
    let broker = Broker::default();
    let (session, _) = attach(&broker);
    hold(&session, "a", Exclusive);
    session.info().set_address("second");
    assert_eq!((&*session.info().address(), &*session.info().label()), ("second", "second"));
    let lock = broker.lock_info(Space::Main, b"a").unwrap();
    assert_eq!(&*lock.holders[0].session.address(), "second");
    let snapshot = broker.snapshot().unwrap();
    assert_eq!(snapshot.sessions[0].address, "second");
}

#[test]
fn what_a_session_holds_is_told_in_its_lane_and_in_the_table() {
    let broker = Broker::default();
    let ((one, _), (other, _)) = (attach(&broker), attach(&broker));
    let tokens = ["lane", "table"].map(|name| hold(&one, name, Shared).token);
    hold(&other, "table", Shared);
    for (name, token) in ["lane", "table"].into_iter().zip(tokens) {
        assert_eq!(held(&one, name), Some(Held { mode: Shared, token }));
    }
    assert_eq!((held(&other, "lane"), held(&one, "free")), (None, None));
    one.close();
    assert_eq!(held(&one, "lane"), None);
}

#[test]
fn a_session_that_forsakes_locks_keeps_the_others_and_leaves_a_mark_on_what_it_held_exclusively() {
    let broker = Broker::default();
    let [(session, told), (other, others), (sharer, _)] = [0, 1, 2].map(|_| attach(&broker));
    // In their lanes, and in the table.
    for name in ["lane kept", "lane", "table kept", "table", "waited for"] {
        hold(&session, name, Exclusive);
    }
    for name in ["shared kept", "shared"] {
        hold(&session, name, Shared);
        hold(&sharer, name, Shared);
    }
    for (ticket, name) in [(1, "table kept"), (2, "table"), (3, "waited for")] {
        wait(&other, ticket, name);
    }
    assert!(other.cancel(1) && other.cancel(2));
    others.take();
    // A conversion that waits ends with the waits.
    let convert = session.convert(Space::Main, b"shared", Exclusive, Some(Wait { ticket: 9, limit: None }));
    assert_eq!(convert, Ok(Attempt::Queued));
    session.forsake(|key| key.name.as_bytes().ends_with(b"kept"));
    assert_eq!(told.take(), [(9, Outcome::Lost)]);
    let told = others.take();
    assert!(matches!(told[..], [(3, Outcome::Granted(grant))] if grant.orphaned), "{told:?}");
    for name in ["lane kept", "table kept", "shared kept"] {
        assert!(held(&session, name).is_some(), "{name}");
    }
    for name in ["lane", "table", "shared", "waited for"] {
        assert_eq!(held(&session, name), None, "{name}");
    }
    assert!(hold(&other, "lane", Exclusive).orphaned && hold(&other, "table", Exclusive).orphaned);
    assert_eq!(
        (session.info().locks_held(), broker.stats().orphans, broker.stats().shared_orphans),
        (3, 3, 1)
    );
    assert!(session.is_alive());
    hold(&session, "later", Exclusive);
}

#[test]
fn a_session_that_has_ended_forsakes_nothing_of_another_one_in_its_slot() {
    let broker = Broker::default();
    let (session, _) = attach(&broker);
    hold(&session, "a", Exclusive);
    session.close();
    let (next, _) = attach(&broker);
    hold(&next, "a", Exclusive);
    session.forsake(|_| false);
    assert!(held(&next, "a").is_some());
}

#[test]
fn thousands_of_locks_are_forsaken() {
    let broker = Broker::default();
    let (session, _) = attach(&broker);
    for name in 0..5000 {
        hold(&session, &name.to_string(), Exclusive);
    }
    session.forsake(|key| key.name.as_bytes().ends_with(b"7"));
    assert_eq!((session.info().locks_held(), broker.stats().orphans), (500, 4500));
}

/// The first token of a broker in its grace.
const TOKENS_START: u64 = 100;

fn in_grace(limits: Limits) -> Broker {
    Broker::resumed(limits, &(TOKENS_START..1000), Some(std::time::Duration::from_secs(60)))
}

fn reclaim(session: &ObservedSession, name: &str, mode: Mode, token: u64) -> Result<(), ReclaimError> {
    session.reclaim(Space::Main, name.as_bytes(), mode, token)
}

#[test]
fn a_lock_that_is_got_back_is_held_with_its_token_and_counts_as_no_grant() {
    let broker = in_grace(Limits { locks_max: 1, locks_per_session_max: 1, ..Limits::default() });
    let ((one, _), (other, told)) = (attach(&broker), attach(&broker));
    wait(&other, 1, "a");
    reclaim(&one, "a", Exclusive, 7).unwrap();
    reclaim(&one, "b", Shared, 8).unwrap();
    assert_eq!(held(&one, "a"), Some(Held { mode: Exclusive, token: 7 }));
    let stats = broker.stats();
    assert_eq!((stats.locks, stats.shared_locks, stats.grants, stats.waiting), (1, 1, 0, 1));
    assert_eq!(one.info().locks_held(), 2);
    broker.end_grace();
    assert!(told.take().is_empty());
    one.release(Space::Main, b"a").unwrap();
    let told = told.take();
    assert!(matches!(told[..], [(1, Outcome::Granted(grant))] if grant.token >= TOKENS_START), "{told:?}");
    one.release(Space::Main, b"b").unwrap();
    other.release(Space::Main, b"a").unwrap();
    assert!(hold(&other, "b", Exclusive).token >= TOKENS_START);
}

#[test]
fn each_reason_why_a_lock_is_not_got_back_is_told() {
    let broker = in_grace(Limits::default());
    let [(holder, _), (other, _), (waiter, _)] = [0, 1, 2].map(|_| attach(&broker));
    reclaim(&holder, "a", Exclusive, 7).unwrap();
    wait(&waiter, 1, "a");
    let told = reclaim(&other, "a", Shared, 8);
    assert!(
        matches!(&told, Err(ReclaimError::Conflict(holders))
            if matches!(&holders[..], [one] if one.session.id() == holder.info().id() && one.token == 7)),
        "{told:?}"
    );
    assert!(
        matches!(reclaim(&holder, "a", Shared, 7), Err(ReclaimError::AlreadyHeld(held)) if held.token == 7)
    );
    assert!(matches!(reclaim(&waiter, "b", Shared, 7), Err(ReclaimError::Waiting)));
    let too_high = reclaim(&other, "b", Shared, TOKENS_START);
    assert!(matches!(too_high, Err(ReclaimError::TokenNotGivenYet)));
    reclaim(&other, "b", Shared, TOKENS_START - 1).unwrap();
    // What could not be got back has left no trace.
    assert_eq!((other.info().locks_held(), broker.stats().locks, broker.stats().shared_locks), (1, 1, 1));
    other.abandon();
    assert!(matches!(reclaim(&other, "c", Shared, 9), Err(ReclaimError::Lost(_))));
    broker.end_grace();
    assert!(matches!(reclaim(&holder, "c", Shared, 9), Err(ReclaimError::NoGrace)));
    broker.shut();
    assert!(matches!(reclaim(&holder, "c", Shared, 9), Err(ReclaimError::Stopping(_))));
}

#[test]
fn in_the_grace_a_lock_is_converted_to_more_holders_and_not_to_fewer() {
    let broker = in_grace(Limits::default());
    let [(one, told), (other, _)] = [0, 1].map(|_| attach(&broker));
    let two = Mode::at_most(2).unwrap();
    reclaim(&one, "a", two, 7).unwrap();
    let fewer = one.convert(Space::Main, b"a", Exclusive, None);
    assert!(matches!(fewer, Err(AcquireError::NotYet(_))), "{fewer:?}");
    let fewer = one.convert(Space::Main, b"a", Exclusive, Some(Wait { ticket: 1, limit: None }));
    assert_eq!(fewer, Ok(Attempt::Queued));
    reclaim(&other, "a", Exclusive, 8).unwrap_err();
    reclaim(&other, "a", two, 8).unwrap();
    broker.end_grace();
    assert!(told.take().is_empty(), "the other holder is in the way");
    other.close();
    let told = told.take();
    assert!(matches!(told[..], [(1, Outcome::Granted(grant))] if grant.token >= TOKENS_START), "{told:?}");
    let broker = in_grace(Limits::default());
    let [(one, _), (other, _)] = [0, 1].map(|_| attach(&broker));
    reclaim(&one, "a", Exclusive, 7).unwrap();
    one.convert(Space::Main, b"a", Shared, None).unwrap();
    assert_eq!(held(&one, "a"), Some(Held { mode: Shared, token: 7 }));
    reclaim(&other, "a", Shared, 8).unwrap();
}

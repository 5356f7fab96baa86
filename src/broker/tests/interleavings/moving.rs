//! A session that goes on with another observer, and keeps some of its locks, while other threads
//! decide about it.

use crate::broker::tests::interleavings::scenario::{
    assert_nothing_left, at_once, held, held_and_waited_for, sessions, spawn, work,
};
use crate::broker::*;
use crate::os::sync::explore::explore;
use Mode::Exclusive;

#[test]
fn a_grant_against_a_change_of_the_waiters_observer() {
    explore(|| {
        let (broker, [a, b]) = held_and_waited_for();
        let released = spawn!([a] a.release("x"));
        let later = b.change_observer();
        released.join().unwrap().unwrap();
        let told = [b.outcome(1), later.outcome(1)];
        assert!(matches!(told, [Some(Outcome::Granted(_)), None] | [None, Some(Outcome::Granted(_))]));
        assert!(b.holds("x"));
        b.release("x").unwrap();
        assert_nothing_left(&broker);
    });
}

#[test]
fn a_session_whose_waits_have_ended_goes_on_with_another_observer() {
    explore(|| {
        let (broker, [a, b]) = held_and_waited_for();
        let released = spawn!([a] a.release("x"));
        b.session.end_waits();
        let later = b.change_observer();
        // The observer so far was told how the wait ended before another one took its place.
        let before = b.outcome(1).unwrap();
        assert_eq!(later.outcome(1), None);
        let was_granted = matches!(before, Outcome::Granted(_));
        assert!(was_granted || before == Outcome::Lost);
        assert_eq!(b.holds("x"), was_granted);
        let asked = b.acquire(2, &["x"], Exclusive);
        released.join().unwrap().unwrap();
        assert_eq!(b.outcome(2), None);
        match asked {
            Err(AcquireError::AlreadyHeld(_)) => assert!(was_granted),
            Ok(Attempt::Granted(_)) => assert!(!was_granted && later.outcome(2).is_none()),
            Ok(Attempt::Queued) => assert!(matches!(later.outcome(2), Some(Outcome::Granted(_)))),
            Err(error) => panic!("{error}"),
        }
        assert!(b.holds("x"));
        b.release("x").unwrap();
        assert_nothing_left(&broker);
    });
}

#[test]
fn two_changes_of_the_observer_against_a_grant() {
    explore(|| {
        let (broker, [a, b]) = held_and_waited_for();
        let changed = spawn!([b] b.change_observer());
        let released = spawn!([a] a.release("x"));
        let other = b.change_observer();
        released.join().unwrap().unwrap();
        let told = [b.outcome(1), other.outcome(1), changed.join().unwrap().outcome(1)];
        assert_eq!(told.iter().flatten().count(), 1, "{told:?}");
        b.release("x").unwrap();
        assert_nothing_left(&broker);
    });
}

#[test]
fn a_change_of_the_observer_against_the_end_of_the_session_and_the_next_one_in_its_slot() {
    explore(|| {
        let (broker, [a, b]) = held();
        b.wait_for(1, &["x"], Exclusive);
        let changed = spawn!([b] b.change_observer());
        b.session.abandon();
        let [c, _d] = [0, 1].map(|_| super::scenario::TestSession::open(&broker, "c"));
        c.wait_for(1, &["x"], Exclusive);
        let later = changed.join().unwrap();
        a.release("x").unwrap();
        // The observer of a session that has ended is told nothing of its successor.
        assert!(c.was_granted(1) && !matches!(later.outcome(1), Some(Outcome::Granted(_))));
        assert!([b.outcome(1), later.outcome(1)].contains(&Some(Outcome::Lost)));
        c.release("x").unwrap();
        assert_nothing_left(&broker);
    });
}

#[test]
fn a_session_that_forsakes_a_lock_against_a_request_for_it() {
    explore(|| {
        let (broker, [a, b]) = held();
        a.hold("y", Exclusive);
        let asked = spawn!([b] b.acquire(1, &["x"], Exclusive));
        a.session.forsake(|key| key.name.as_bytes() == b"y");
        let grant = match (asked.join().unwrap(), b.outcome(1)) {
            (Ok(Attempt::Granted(grant)), None) | (Ok(Attempt::Queued), Some(Outcome::Granted(grant))) => {
                grant
            }
            other => panic!("{other:?}"),
        };
        assert!(grant.orphaned);
        b.audit(&[]);
        a.audit(&[]);
        assert!(a.holds("y") && !a.holds("x") && b.holds("x"));
        assert_eq!(broker.stats().orphans, 1);
    });
}

#[test]
fn a_session_that_forsakes_its_locks_against_its_end() {
    explore(|| {
        let (broker, [a, b]) = sessions();
        a.hold("x", Exclusive);
        a.hold("y", Exclusive);
        a.defer(&broker, "y");
        at_once([work!([a] a.session.forsake(|_| false)), work!([a] a.session.abandon())]);
        assert!(b.try_acquire("x").unwrap().orphaned && b.try_acquire("y").unwrap().orphaned);
        assert_eq!(broker.stats().orphans, 2);
    });
}

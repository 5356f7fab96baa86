//! A name that goes from its lane to the table or back, and several threads of one session.

use crate::broker::tests::interleavings::scenario::{
    TestSession, assert_nothing_left, at_once, held, sessions, spawn, work,
};
use crate::broker::*;
use crate::os::sync::explore::explore;
use Mode::{Exclusive, Shared};

/// Asserts that `b` was granted `x`, which was released meanwhile, at once or after a wait.
fn assert_granted(broker: &Broker, b: &TestSession, asked: &Result<Attempt, AcquireError>) {
    assert!(b.got(asked), "{asked:?}");
    b.audit(&[]);
    assert!(b.holds("x"));
    assert_eq!(broker.stats().locks + broker.stats().shared_locks, 1);
    b.release("x").unwrap();
    assert_nothing_left(broker);
}

#[test]
fn a_name_goes_from_its_lane_to_the_table_while_the_holder_releases_it() {
    explore(|| {
        let (broker, [a, b]) = held();
        let asked = spawn!([b] b.acquire(1, &["x"], Exclusive));
        a.release("x").unwrap();
        assert_granted(&broker, &b, &asked.join().unwrap());
    });
}

#[test]
fn a_name_goes_from_the_table_to_its_lane_while_another_session_asks_for_it() {
    explore(|| {
        let (broker, [a, b]) = held();
        a.defer(&broker, "x");
        let asked = spawn!([b] b.acquire(1, &["x"], Exclusive));
        a.release("x").unwrap();
        assert_granted(&broker, &b, &asked.join().unwrap());
    });
}

#[test]
fn a_try_while_a_name_leaves_the_table_is_granted_or_finds_it_busy() {
    explore(|| {
        let (broker, [a, b]) = held();
        a.defer(&broker, "x");
        let tried = spawn!([b] b.try_acquire("x"));
        a.release("x").unwrap();
        let granted = match tried.join().unwrap() {
            Ok(_) => true,
            Err(AcquireError::TimedOut) => false,
            other => panic!("{other:?}"),
        };
        assert_eq!(b.holds("x"), granted);
        assert_eq!(b.release("x").is_ok(), granted);
        assert_nothing_left(&broker);
    });
}

#[test]
fn two_sessions_that_ask_while_the_holder_releases_are_granted_in_turn() {
    explore(|| {
        let (broker, [a, b, c]) = sessions();
        a.hold("x", Exclusive);
        at_once([
            work!([b] b.acquire_any(&["x"])),
            work!([c] c.acquire_any(&["x"])),
            work!([a] a.release("x").unwrap()),
        ]);
        assert_eq!(broker.stats().locks, 1);
        let (first, second) = if b.holds("x") { (b, c) } else { (c, b) };
        assert!(first.holds("x") && !second.holds("x"));
        first.release("x").unwrap();
        assert!(second.was_granted(1) && second.holds("x"));
        second.release("x").unwrap();
        first.audit(&[]);
        second.audit(&[]);
        assert_nothing_left(&broker);
    });
}

#[test]
fn a_reader_acquires_while_another_one_releases() {
    explore(|| {
        let (broker, [a, b, c]) = sessions();
        a.hold("x", Shared);
        at_once([
            work!([b] assert!(matches!(b.acquire(1, &["x"], Shared), Ok(Attempt::Granted(_))))),
            work!([a] a.release("x").unwrap()),
        ]);
        assert!(b.holds("x") && !a.holds("x"));
        assert_eq!(c.try_acquire("x"), Err(AcquireError::TimedOut));
        b.release("x").unwrap();
        assert_nothing_left(&broker);
    });
}

#[test]
fn of_two_threads_of_one_session_one_is_granted() {
    explore(|| {
        let (broker, [a]) = sessions();
        let other = spawn!([a] a.try_acquire("x"));
        let mine = a.try_acquire("x");
        let (token, held) = match (mine, other.join().unwrap()) {
            (Ok(grant), Err(AcquireError::AlreadyHeld(held)))
            | (Err(AcquireError::AlreadyHeld(held)), Ok(grant)) => (grant.token, held),
            other => panic!("{other:?}"),
        };
        assert_eq!(held, Held { mode: Exclusive, token });
        a.release("x").unwrap();
        assert_nothing_left(&broker);
    });
}

#[test]
fn of_two_threads_of_one_session_one_waits() {
    explore(|| {
        let (broker, [a, b]) = sessions();
        b.hold("x", Exclusive);
        let other = spawn!([a] a.acquire(1, &["x"], Exclusive));
        let mine = a.acquire(2, &["x"], Exclusive);
        match (mine, other.join().unwrap()) {
            (Ok(Attempt::Queued), Err(AcquireError::AlreadyWaiting))
            | (Err(AcquireError::AlreadyWaiting), Ok(Attempt::Queued)) => {}
            other => panic!("{other:?}"),
        }
        b.release("x").unwrap();
        a.audit(&[]);
        assert!(a.holds("x"));
        assert_eq!(broker.stats().waits, 1);
    });
}

#[test]
fn two_releases_of_one_lock() {
    explore(|| {
        let (broker, [a, b]) = held();
        let asked = spawn!([b] b.acquire(1, &["x"], Exclusive));
        let other = spawn!([a] a.release("x"));
        let mine = a.release("x");
        let results = [mine, other.join().unwrap()];
        assert!(results.contains(&Ok(Released::Hold)) && results.contains(&Err(ReleaseError::NotHeld)));
        assert_granted(&broker, &b, &asked.join().unwrap());
    });
}

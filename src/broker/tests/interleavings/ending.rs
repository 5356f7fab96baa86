//! Sessions that end while other sessions, or their own threads, use the same locks.

use crate::broker::tests::interleavings::scenario::{
    TestSession, assert_nothing_left, at_once, held, held_and_waited_for, sessions, spawn, work,
};
use crate::broker::*;
use crate::os::sync::explore::explore;
use Mode::{Exclusive, Shared};

#[test]
fn a_release_against_the_end_of_the_holder() {
    explore(|| {
        let (broker, [a, b]) = held_and_waited_for();
        let released = spawn!([a] a.release("x"));
        a.session.abandon();
        let released = released.join().unwrap();
        b.audit(&[]);
        let Some(Outcome::Granted(grant)) = b.outcome(1) else { panic!("`b` was not granted it") };
        assert_eq!(grant.orphaned, released.is_err());
        assert_eq!(broker.stats().orphans, u64::from(released.is_err()));
        b.release("x").unwrap();
        assert_nothing_left(&broker);
    });
}

#[test]
fn an_acquire_against_the_end_of_its_own_session() {
    explore(|| {
        let (broker, [a, b]) = sessions();
        at_once([work!([a] _ = a.try_acquire("x")), work!([a] a.session.abandon())]);
        assert!(!a.session.is_alive());
        assert!(b.try_acquire("x").is_ok(), "a session that has ended holds nothing");
        b.release("x").unwrap();
        assert_nothing_left(&broker);
    });
}

#[test]
fn a_wait_against_the_end_of_its_own_session() {
    explore(|| {
        let (broker, [a, b]) = held();
        at_once([work!([b] b.acquire_any(&["x"])), work!([b] b.session.abandon())]);
        b.audit(&[]);
        assert!(b.outcome(1).is_none_or(|outcome| outcome == Outcome::Lost));
        a.release("x").unwrap();
        assert_nothing_left(&broker);
    });
}

#[test]
fn an_acquire_against_the_end_of_the_holder() {
    explore(|| {
        let (broker, [a, b]) = held();
        let asked = spawn!([b] b.acquire(1, &["x"], Exclusive));
        a.session.abandon();
        let grant = match (asked.join().unwrap(), b.outcome(1)) {
            (Ok(Attempt::Granted(grant)), None) | (Ok(Attempt::Queued), Some(Outcome::Granted(grant))) => {
                grant
            }
            other => panic!("{other:?}"),
        };
        assert!(grant.orphaned);
        b.audit(&[]);
        assert!(b.holds("x"));
        b.release("x").unwrap();
        assert_nothing_left(&broker);
    });
}

#[test]
fn a_slot_that_is_used_again_has_nothing_of_its_last_session() {
    explore(|| {
        let (broker, [a, b]) = held();
        a.hold("y", Shared);
        b.wait_for(1, &["y"], Exclusive);
        let next = spawn!([broker] {
                let c = TestSession::open(&broker, "c");
                c.hold("z", Exclusive);
                c
        });
        a.session.abandon();
        let c = next.join().unwrap();
        assert!(c.holds("z") && !c.holds("x") && !c.holds("y"));
        assert!(b.was_granted(1));
        b.release("y").unwrap();
        c.release("z").unwrap();
        c.audit(&[]);
        assert_nothing_left(&broker);
        assert_eq!(broker.stats().sessions, 2);
    });
}

#[test]
fn two_ends_of_one_session() {
    explore(|| {
        let (broker, [a, b]) = held_and_waited_for();
        at_once([work!([a] a.session.abandon()), work!([a] a.session.abandon())]);
        assert!(b.was_granted(1));
        b.audit(&[]);
        assert_eq!((broker.stats().sessions, broker.stats().orphans), (1, 1));
    });
}

//! Sessions that get their locks back in the grace, while it ends, while sessions end, and while
//! others want the same locks.

use crate::broker::tests::interleavings::scenario::{
    TestSession, assert_nothing_left, at_once, sessions_in_grace, spawn, work,
};
use crate::broker::*;
use crate::os::sync::explore::explore;
use Mode::{Exclusive, Shared};

/// Asserts that `x` was got back, or that the grace was over.
fn was_reclaimed(session: &TestSession, told: &Result<(), ReclaimError>) -> bool {
    assert!(matches!(told, Ok(()) | Err(ReclaimError::NoGrace)), "{told:?}");
    assert_eq!(session.holds("x"), told.is_ok());
    told.is_ok()
}

#[test]
fn a_lock_that_is_got_back_against_the_end_of_the_grace() {
    explore(|| {
        let (broker, [a, b]) = sessions_in_grace();
        let told = spawn!([a] a.reclaim("x", Exclusive));
        broker.end_grace();
        let other = b.try_acquire("x");
        let told = told.join().unwrap();
        assert_ne!(was_reclaimed(&a, &told), other.is_ok(), "{told:?} and {other:?}");
        assert_eq!(b.holds("x"), other.is_ok());
        a.audit(&[]);
        b.audit(&[]);
        assert!(a.release("x").is_ok() != b.release("x").is_ok());
        assert!(b.try_acquire("x").unwrap().token >= 100);
    });
}

#[test]
fn a_lock_that_is_got_back_against_the_end_of_the_grace_with_a_waiter() {
    explore(|| {
        let (broker, [a, b]) = sessions_in_grace();
        b.wait_for(1, &["x"], Exclusive);
        let told = spawn!([a] a.reclaim("x", Exclusive));
        broker.end_grace();
        let told = told.join().unwrap();
        if let Err(ReclaimError::Conflict(_)) = told {
            panic!("nothing is granted before the grace is over");
        }
        let was_reclaimed = was_reclaimed(&a, &told);
        assert_ne!(was_reclaimed, b.was_granted(1));
        if was_reclaimed {
            b.audit(&[1]);
            a.release("x").unwrap();
        }
        assert!(b.was_granted(1));
        b.audit(&[]);
        b.release("x").unwrap();
        assert_nothing_left(&broker);
    });
}

#[test]
fn a_shared_lock_that_is_got_back_against_the_end_of_the_grace_with_a_waiter() {
    explore(|| {
        let (broker, [a, b]) = sessions_in_grace();
        b.wait_for(1, &["x"], Shared);
        at_once([work!([a] _ = a.reclaim("x", Shared)), work!([broker] broker.end_grace())]);
        assert!(b.was_granted(1), "a shared lock that was got back is in nobody's way");
        b.audit(&[]);
        a.audit(&[]);
    });
}

#[test]
fn one_lock_that_two_sessions_get_back() {
    explore(|| {
        let (broker, [a, b]) = sessions_in_grace();
        let told = spawn!([a] a.reclaim("x", Exclusive));
        let other = b.reclaim("x", Exclusive);
        let told = told.join().unwrap();
        let conflict = match (&told, &other) {
            (Ok(()), Err(ReclaimError::Conflict(holders))) => (holders, &a),
            (Err(ReclaimError::Conflict(holders)), Ok(())) => (holders, &b),
            other => panic!("{other:?}"),
        };
        assert_eq!(conflict.0[0].session.id(), conflict.1.session.info().id());
        assert!(a.holds("x") != b.holds("x"));
        a.audit(&[]);
        b.audit(&[]);
        broker.end_grace();
        assert!(a.release("x").is_ok() != b.release("x").is_ok());
        assert_nothing_left(&broker);
    });
}

#[test]
fn a_lock_that_is_got_back_against_the_end_of_its_session() {
    explore(|| {
        let (broker, [a, b]) = sessions_in_grace();
        at_once([work!([a] _ = a.reclaim("x", Exclusive)), work!([a] a.session.abandon())]);
        assert!(b.reclaim("x", Exclusive).is_ok(), "a session that has ended holds nothing");
        b.release("x").unwrap();
        assert_nothing_left(&broker);
    });
}

#[test]
fn a_lock_that_is_got_back_against_a_request_that_may_wait() {
    explore(|| {
        let (broker, [a, b]) = sessions_in_grace();
        let asked = spawn!([b] b.acquire(1, &["x"], Exclusive));
        a.reclaim("x", Exclusive).unwrap();
        assert_eq!(asked.join().unwrap(), Ok(Attempt::Queued));
        broker.end_grace();
        b.audit(&[1]);
        a.session.abandon();
        assert!(matches!(b.outcome(1), Some(Outcome::Granted(grant)) if grant.orphaned));
        b.release("x").unwrap();
        assert_nothing_left(&broker);
    });
}

#[test]
fn a_lock_that_is_got_back_against_shutting_the_broker() {
    explore(|| {
        let (broker, [a, b]) = sessions_in_grace();
        b.wait_for(1, &["x"], Exclusive);
        let told = spawn!([a] a.reclaim("x", Exclusive));
        broker.shut();
        let told = told.join().unwrap();
        assert!(matches!(told, Ok(()) | Err(ReclaimError::Stopping(_))), "{told:?}");
        assert_eq!((a.holds("x"), b.outcome(1)), (told.is_ok(), Some(Outcome::Stopping)));
    });
}

#[test]
fn a_conversion_to_fewer_holders_against_another_holder_that_comes_back() {
    explore(|| {
        let (broker, [a, b]) = sessions_in_grace();
        a.reclaim("x", Shared).unwrap();
        let asked = spawn!([a] a.upgrade(1, "x"));
        b.reclaim("x", Shared).unwrap();
        assert_eq!(asked.join().unwrap(), Ok(Attempt::Queued));
        broker.end_grace();
        a.audit(&[1]);
        b.release("x").unwrap();
        assert!(a.was_granted(1));
        a.audit(&[]);
        a.release("x").unwrap();
        assert_nothing_left(&broker);
    });
}

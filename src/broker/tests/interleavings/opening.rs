//! The end of the grace, while requests, cancels and ends come at the same moment.

use crate::broker::tests::interleavings::scenario::{
    TestSession, assert_nothing_left, at_once, sessions_in_grace, spawn, work,
};
use crate::broker::*;
use crate::os::sync::explore::explore;
use Mode::Exclusive;

/// Asserts that the session was granted `x`, which it asked for with ticket 1, at once or after a
/// wait.
fn assert_granted(session: &TestSession, asked: &Result<Attempt, AcquireError>) {
    session.audit(&[]);
    assert!(session.got(asked), "{asked:?}");
    assert!(session.holds("x"));
}

#[test]
fn the_end_of_the_grace_against_a_request_that_may_wait() {
    explore(|| {
        let (broker, [a]) = sessions_in_grace();
        let asked = spawn!([a] a.acquire(1, &["x"], Exclusive));
        broker.end_grace();
        assert_granted(&a, &asked.join().unwrap());
        a.release("x").unwrap();
        assert_nothing_left(&broker);
    });
}

#[test]
fn the_end_of_the_grace_against_a_request_that_must_not_overtake_a_waiter() {
    explore(|| {
        let (broker, [a, b]) = sessions_in_grace();
        let asked = a.acquire(1, &["x"], Exclusive);
        let tried = spawn!([b] b.try_acquire("x"));
        broker.end_grace();
        let tried = tried.join().unwrap();
        assert!(matches!(tried, Err(AcquireError::TimedOut | AcquireError::NotYet(_))), "{tried:?}");
        assert_granted(&a, &asked);
    });
}

#[test]
fn the_end_of_the_grace_against_a_cancel() {
    explore(|| {
        let (broker, [a]) = sessions_in_grace();
        a.wait_for(1, &["x"], Exclusive);
        at_once([work!([a] a.session.cancel(1)), work!([broker] broker.end_grace())]);
        a.audit(&[]);
        assert_eq!(a.holds("x"), a.was_granted(1));
        assert_eq!(a.release("x").is_ok(), a.was_granted(1));
        assert_nothing_left(&broker);
    });
}

#[test]
fn the_end_of_the_grace_against_the_end_of_one_of_two_waiters() {
    explore(|| {
        let (broker, [a, b]) = sessions_in_grace();
        a.wait_for(1, &["x"], Exclusive);
        b.wait_for(1, &["x"], Exclusive);
        at_once([work!([a] a.session.abandon()), work!([broker] broker.end_grace())]);
        assert_granted(&b, &Ok(Attempt::Queued));
        b.release("x").unwrap();
        assert_nothing_left(&broker);
    });
}

#[test]
fn the_end_of_the_grace_against_shutting_the_broker() {
    explore(|| {
        let (broker, [a]) = sessions_in_grace();
        a.wait_for(1, &["x"], Exclusive);
        at_once([work!([broker] broker.shut()), work!([broker] broker.end_grace())]);
        a.audit(&[]);
        assert!(a.was_granted(1) || a.outcome(1) == Some(Outcome::Stopping));
        assert_eq!(a.holds("x"), a.was_granted(1));
        assert!(matches!(a.try_acquire("y"), Err(AcquireError::Refused(_))));
    });
}

#[test]
fn the_end_of_the_grace_name_by_name_against_a_request_for_several_names() {
    explore(|| {
        let (broker, [a, b]) = sessions_in_grace();
        a.wait_for(1, &["x"], Exclusive);
        a.wait_for(2, &["y"], Exclusive);
        at_once([
            work!([b] assert_eq!(b.acquire(1, &["x", "y"], Exclusive), Ok(Attempt::Queued))),
            work!([broker] broker.end_grace()),
        ]);
        a.audit(&[]);
        b.audit(&[1]);
        assert!(a.holds("x") && a.holds("y"));
        a.release("y").unwrap();
        a.release("x").unwrap();
        b.audit(&[]);
        assert!(b.was_granted(1) && b.holds("x") && b.holds("y"));
    });
}

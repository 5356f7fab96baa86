//! A grant to a waiter, while something else may end its wait at the same moment.

use std::time::Duration;

use crate::broker::tests::interleavings::scenario::{
    TestSession, assert_nothing_left, at_once, held, held_and_waited_for, sessions, spawn, work,
};
use crate::broker::*;
use crate::os::sync::explore::{explore, explore_with_time};
use crate::os::sync::{Time, thread};
use Mode::Exclusive;

const LIMIT: Duration = Duration::from_millis(10);

/// Asserts that the wait of `b` has ended in a grant or with `otherwise`, and that `b` holds `x`
/// only if it was told of a grant.
fn assert_granted_or(broker: &Broker, b: &TestSession, otherwise: Outcome) {
    b.audit(&[]);
    let granted = b.was_granted(1);
    assert!(granted || b.outcome(1) == Some(otherwise), "{:?}", b.outcome(1));
    assert_eq!(b.holds("x"), granted);
    assert_eq!(b.release("x").is_ok(), granted);
    assert_nothing_left(broker);
}

#[test]
fn a_grant_against_a_cancel() {
    explore(|| {
        let (broker, [a, b]) = held_and_waited_for();
        let cancel = spawn!([b] b.session.cancel(1));
        a.release("x").unwrap();
        let cancelled = cancel.join().unwrap();
        assert_eq!(cancelled, b.outcome(1) == Some(Outcome::Cancelled));
        assert_eq!(broker.stats().cancels, u64::from(cancelled));
        assert_granted_or(&broker, &b, Outcome::Cancelled);
    });
}

#[test]
fn a_grant_against_a_release_by_the_waiter() {
    explore(|| {
        let (broker, [a, b]) = held_and_waited_for();
        let given_up = spawn!([b] b.release("x"));
        a.release("x").unwrap();
        let released = given_up.join().unwrap();
        b.audit(&[]);
        // Whichever came first, `b` neither holds the lock nor waits for it now.
        match b.outcome(1) {
            Some(Outcome::Granted(_)) => assert_eq!(released, Ok(Released::Hold)),
            other => {
                assert_eq!((other, released), (Some(Outcome::Cancelled), Ok(Released::Place)));
            }
        }
        assert_nothing_left(&broker);
    });
}

#[test]
fn a_grant_against_a_time_limit() {
    explore_with_time(|| {
        let (broker, [a, b]) = held();
        b.wait_for_up_to(1, "x", LIMIT);
        at_once([
            work!([] Time::pass(LIMIT)),
            work!([b] while b.session.expire().is_some() { thread::yield_now() }),
            work!([a] a.release("x").unwrap()),
        ]);
        assert_eq!(broker.stats().timeouts, u64::from(!b.was_granted(1)));
        assert_granted_or(&broker, &b, Outcome::TimedOut);
    });
}

#[test]
fn a_grant_against_the_end_of_the_waiter() {
    explore(|| {
        let (broker, [a, b]) = held_and_waited_for();
        at_once([work!([b] b.session.abandon()), work!([a] a.release("x").unwrap())]);
        b.audit(&[]);
        let granted = b.was_granted(1);
        assert!(granted || b.outcome(1) == Some(Outcome::Lost));
        assert_nothing_left(&broker);
        assert_eq!(broker.stats().orphans, u64::from(granted));
        let next = a.try_acquire("x").expect("it is free");
        assert_eq!(next.orphaned, granted, "orphaned exactly if `b` held it when its session ended");
    });
}

#[test]
fn a_grant_against_shutting() {
    explore(|| {
        let (broker, [a, b]) = held_and_waited_for();
        at_once([work!([broker] broker.shut()), work!([a] a.release("x").unwrap())]);
        assert_granted_or(&broker, &b, Outcome::Stopping);
        assert!(matches!(b.try_acquire("x"), Err(AcquireError::Refused(_))));
    });
}

#[test]
fn a_wait_that_begins_while_the_broker_is_shut_ends() {
    explore(|| {
        let (broker, [a, b]) = held();
        let asked = spawn!([b] b.acquire(1, &["x"], Exclusive));
        broker.shut();
        match asked.join().unwrap() {
            Ok(attempt) => {
                assert_eq!((attempt, b.outcome(1)), (Attempt::Queued, Some(Outcome::Stopping)));
            }
            Err(error) => assert!(matches!(error, AcquireError::Refused(_)), "{error}"),
        }
        b.audit(&[]);
        a.release("x").unwrap();
        assert_nothing_left(&broker);
    });
}

#[test]
fn a_session_that_opens_while_the_broker_is_shut_waits_before_that_or_is_refused() {
    explore(|| {
        let (broker, [a]) = sessions();
        a.hold("x", Exclusive);
        let asked = spawn!([broker] {
                let c = TestSession::open(&broker, "c");
                let asked = c.acquire(1, &["x"], Exclusive);
                (c, asked)
        });
        broker.shut();
        let (c, asked) = asked.join().unwrap();
        c.audit(&[]);
        assert!(matches!(asked, Ok(Attempt::Queued) | Err(AcquireError::Refused(_))), "{asked:?}");
    });
}

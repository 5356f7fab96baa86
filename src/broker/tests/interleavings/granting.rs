//! A grant to a waiter, against whatever else may end its wait at the same moment.

use std::time::Duration;

use crate::broker::tests::interleavings::party::{Party, at_once, nothing_left, with};
use crate::broker::*;
use crate::os::sync::explore::{explore, explore_with_time};
use crate::os::sync::{Time, thread};
use Mode::Exclusive;

const LIMIT: Duration = Duration::from_millis(10);

/// A broker in which `a` holds `x` and `b` waits for it under ticket 1.
fn held_and_waited_for() -> (Broker, Arc<Party>, Arc<Party>) {
    let broker = Broker::default();
    let (a, b) = (Party::new(&broker, "a"), Party::new(&broker, "b"));
    a.hold("x", Exclusive);
    assert_eq!(b.ask(1, &["x"], Exclusive), Ok(Attempt::Queued));
    (broker, a, b)
}

/// Either way the wait has ended, and `b` holds `x` just if it was told so.
fn granted_or(broker: &Broker, b: &Party, otherwise: Outcome) {
    b.audit(&[]);
    let granted = b.was_granted(1);
    assert!(granted || b.heard(1) == Some(otherwise), "{:?}", b.heard(1));
    assert_eq!(b.holds("x"), granted);
    assert_eq!(b.release("x").is_ok(), granted);
    nothing_left(broker);
}

#[test]
fn a_grant_against_a_cancel() {
    explore(|| {
        let (broker, a, b) = held_and_waited_for();
        let cancel = thread::spawn({
            let b = b.clone();
            move || b.session.cancel(1)
        });
        a.release("x").unwrap();
        let cancelled = cancel.join().unwrap();
        assert_eq!(cancelled, b.heard(1) == Some(Outcome::Cancelled));
        assert_eq!(broker.stats().cancels, u64::from(cancelled));
        granted_or(&broker, &b, Outcome::Cancelled);
    });
}

#[test]
fn a_grant_against_giving_up_the_place() {
    explore(|| {
        let (broker, a, b) = held_and_waited_for();
        let give_up = thread::spawn({
            let b = b.clone();
            move || b.release("x")
        });
        a.release("x").unwrap();
        let released = give_up.join().unwrap();
        b.audit(&[]);
        // Whichever came first: it has neither the lock nor the place now.
        match b.heard(1) {
            Some(Outcome::Granted(_)) => assert_eq!(released, Ok(Released::Hold)),
            other => {
                assert_eq!((other, released), (Some(Outcome::Cancelled), Ok(Released::Place)));
            }
        }
        nothing_left(&broker);
    });
}

#[test]
fn a_grant_against_a_time_limit() {
    explore_with_time(|| {
        let broker = Broker::default();
        let (a, b) = (Party::new(&broker, "a"), Party::new(&broker, "b"));
        a.hold("x", Exclusive);
        b.ask_for(1, "x", LIMIT);
        at_once([
            with!([] Time::pass(LIMIT)),
            with!([b] while b.session.expire().is_some() { thread::yield_now() }),
            with!([a] a.release("x").unwrap()),
        ]);
        assert_eq!(broker.stats().timeouts, u64::from(!b.was_granted(1)));
        granted_or(&broker, &b, Outcome::TimedOut);
    });
}

#[test]
fn a_grant_against_the_end_of_the_waiter() {
    explore(|| {
        let (broker, a, b) = held_and_waited_for();
        at_once([with!([b] b.session.end()), with!([a] a.release("x").unwrap())]);
        b.audit(&[]);
        let granted = b.was_granted(1);
        assert!(granted || b.heard(1) == Some(Outcome::Lost));
        nothing_left(&broker);
        assert_eq!(broker.stats().orphans, u64::from(granted));
        let next = a.try_it("x").expect("it is free");
        assert_eq!(next.orphaned, granted, "whether it was held when its session ended");
    });
}

#[test]
fn a_grant_against_shutting() {
    explore(|| {
        let (broker, a, b) = held_and_waited_for();
        at_once([with!([broker] broker.shut()), with!([a] a.release("x").unwrap())]);
        granted_or(&broker, &b, Outcome::Stopping);
        assert!(matches!(b.try_it("x"), Err(AcquireError::Refused(_))));
    });
}

#[test]
fn a_wait_begun_while_shutting_does_not_go_on() {
    explore(|| {
        let broker = Broker::default();
        let (a, b) = (Party::new(&broker, "a"), Party::new(&broker, "b"));
        a.hold("x", Exclusive);
        let asked = thread::spawn({
            let b = b.clone();
            move || b.ask(1, &["x"], Exclusive)
        });
        broker.shut();
        match asked.join().unwrap() {
            Ok(attempt) => {
                assert_eq!((attempt, b.heard(1)), (Attempt::Queued, Some(Outcome::Stopping)));
            }
            Err(error) => assert!(matches!(error, AcquireError::Refused(_)), "{error}"),
        }
        b.audit(&[]);
        a.release("x").unwrap();
        nothing_left(&broker);
    });
}

#[test]
fn a_session_opened_while_shutting_is_granted_before_or_refused() {
    explore(|| {
        let broker = Broker::default();
        let a = Party::new(&broker, "a");
        a.hold("x", Exclusive);
        let asked = thread::spawn({
            let broker = broker.clone();
            move || {
                let c = Party::new(&broker, "c");
                let asked = c.ask(1, &["x"], Exclusive);
                (c, asked)
            }
        });
        broker.shut();
        let (c, asked) = asked.join().unwrap();
        c.audit(&[]);
        assert!(matches!(asked, Ok(Attempt::Queued) | Err(AcquireError::Refused(_))), "{asked:?}");
    });
}

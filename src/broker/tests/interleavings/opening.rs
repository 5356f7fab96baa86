//! The end of the grace, against whatever comes at the same moment.

use std::time::Duration;

use crate::broker::tests::interleavings::party::{Party, at_once, nothing_left, with};
use crate::broker::*;
use crate::os::sync::explore::explore;
use crate::os::sync::thread;
use Mode::Exclusive;

/// A broker in its grace, and two sessions.
fn in_grace() -> (Broker, Arc<Party>, Arc<Party>) {
    let broker = Broker::resumed(Limits::default(), &(1..1000), Some(Duration::from_secs(1)));
    let (a, b) = (Party::new(&broker, "a"), Party::new(&broker, "b"));
    (broker, a, b)
}

/// `party` has asked for `x` under ticket 1, and got it: at once or by its wait.
fn has_it(party: &Party, asked: &Result<Attempt, AcquireError>) {
    party.audit(&[]);
    assert!(matches!(asked, Ok(Attempt::Granted(_))) != party.was_granted(1), "{asked:?}");
    assert!(party.holds("x"));
}

#[test]
fn opening_against_a_request_that_comes_to_wait() {
    explore(|| {
        let (broker, a, _) = in_grace();
        let asked = thread::spawn({
            let a = a.clone();
            move || a.ask(1, &["x"], Exclusive)
        });
        broker.end_grace();
        has_it(&a, &asked.join().unwrap());
        a.release("x").unwrap();
        nothing_left(&broker);
    });
}

#[test]
fn opening_against_one_who_would_overtake() {
    explore(|| {
        let (broker, a, b) = in_grace();
        let asked = a.ask(1, &["x"], Exclusive);
        let tried = thread::spawn({
            let b = b.clone();
            move || b.try_it("x")
        });
        broker.end_grace();
        let tried = tried.join().unwrap();
        assert!(matches!(tried, Err(AcquireError::TimedOut | AcquireError::NotYet(_))), "{tried:?}");
        has_it(&a, &asked);
    });
}

#[test]
fn opening_against_a_cancel() {
    explore(|| {
        let (broker, a, _) = in_grace();
        assert_eq!(a.ask(1, &["x"], Exclusive), Ok(Attempt::Queued));
        at_once([with!([a] a.session.cancel(1)), with!([broker] broker.end_grace())]);
        a.audit(&[]);
        assert_eq!(a.holds("x"), a.was_granted(1));
        assert_eq!(a.release("x").is_ok(), a.was_granted(1));
        nothing_left(&broker);
    });
}

#[test]
fn opening_against_the_end_of_one_of_two_waiters() {
    explore(|| {
        let (broker, a, b) = in_grace();
        assert_eq!(a.ask(1, &["x"], Exclusive), Ok(Attempt::Queued));
        assert_eq!(b.ask(1, &["x"], Exclusive), Ok(Attempt::Queued));
        at_once([with!([a] a.session.end()), with!([broker] broker.end_grace())]);
        has_it(&b, &Ok(Attempt::Queued));
        b.release("x").unwrap();
        nothing_left(&broker);
    });
}

#[test]
fn opening_against_shutting() {
    explore(|| {
        let (broker, a, _) = in_grace();
        assert_eq!(a.ask(1, &["x"], Exclusive), Ok(Attempt::Queued));
        at_once([with!([broker] broker.shut()), with!([broker] broker.end_grace())]);
        a.audit(&[]);
        assert!(a.was_granted(1) || a.heard(1) == Some(Outcome::Stopping));
        assert_eq!(a.holds("x"), a.was_granted(1));
        assert!(matches!(a.try_it("y"), Err(AcquireError::Refused(_))));
    });
}

#[test]
fn opening_name_by_name_against_a_set() {
    explore(|| {
        let (broker, a, b) = in_grace();
        assert_eq!(a.ask(1, &["x"], Exclusive), Ok(Attempt::Queued));
        assert_eq!(a.ask(2, &["y"], Exclusive), Ok(Attempt::Queued));
        at_once([
            with!([b] assert_eq!(b.ask(1, &["x", "y"], Exclusive), Ok(Attempt::Queued))),
            with!([broker] broker.end_grace()),
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

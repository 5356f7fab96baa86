//! A name on its way between its lane and the table, and several threads of one session.

use crate::broker::tests::interleavings::party::{Party, at_once, nothing_left, with};
use crate::broker::*;
use crate::os::sync::explore::explore;
use crate::os::sync::thread;
use Mode::{Exclusive, Shared};

/// `b` asked for what `a` released meanwhile: it holds it, at once or after waiting.
fn has_it(broker: &Broker, b: &Party, asked: &Result<Attempt, AcquireError>) {
    let at_once = matches!(asked, Ok(Attempt::Granted(_)));
    assert!(at_once || (*asked == Ok(Attempt::Queued) && b.was_granted(1)), "{asked:?}");
    b.audit(&[]);
    assert!(b.holds("x"));
    assert_eq!(broker.stats().locks + broker.stats().shared_locks, 1);
    b.release("x").unwrap();
    nothing_left(broker);
}

#[test]
fn from_lane_to_table_while_the_holder_releases() {
    explore(|| {
        let broker = Broker::default();
        let (a, b) = (Party::new(&broker, "a"), Party::new(&broker, "b"));
        a.hold("x", Exclusive);
        let asked = thread::spawn({
            let b = b.clone();
            move || b.ask(1, &["x"], Exclusive)
        });
        a.release("x").unwrap();
        has_it(&broker, &b, &asked.join().unwrap());
    });
}

#[test]
fn from_table_to_lane_while_another_one_comes() {
    explore(|| {
        let broker = Broker::default();
        let (a, b) = (Party::new(&broker, "a"), Party::new(&broker, "b"));
        a.hold("x", Exclusive);
        a.defer(&broker, "x");
        let asked = thread::spawn({
            let b = b.clone();
            move || b.ask(1, &["x"], Exclusive)
        });
        a.release("x").unwrap();
        has_it(&broker, &b, &asked.join().unwrap());
    });
}

#[test]
fn who_tries_while_a_name_leaves_the_table_is_granted_it_or_told_that_it_is_busy() {
    explore(|| {
        let broker = Broker::default();
        let (a, b) = (Party::new(&broker, "a"), Party::new(&broker, "b"));
        a.hold("x", Exclusive);
        a.defer(&broker, "x");
        let tried = thread::spawn({
            let b = b.clone();
            move || b.try_it("x")
        });
        a.release("x").unwrap();
        let granted = match tried.join().unwrap() {
            Ok(_) => true,
            Err(AcquireError::TimedOut) => false,
            other => panic!("{other:?}"),
        };
        assert_eq!(b.holds("x"), granted);
        assert_eq!(b.release("x").is_ok(), granted);
        nothing_left(&broker);
    });
}

#[test]
fn two_who_come_while_the_holder_goes() {
    explore(|| {
        let broker = Broker::default();
        let (a, b, c) = (Party::new(&broker, "a"), Party::new(&broker, "b"), Party::new(&broker, "c"));
        a.hold("x", Exclusive);
        at_once([
            with!([b] { let _ = b.ask(1, &["x"], Exclusive); }),
            with!([c] { let _ = c.ask(1, &["x"], Exclusive); }),
            with!([a] a.release("x").unwrap()),
        ]);
        assert_eq!(broker.stats().locks, 1);
        let (first, second) = if b.holds("x") { (b, c) } else { (c, b) };
        assert!(first.holds("x") && !second.holds("x"));
        first.release("x").unwrap();
        assert!(second.was_granted(1) && second.holds("x"));
        second.release("x").unwrap();
        first.audit(&[]);
        second.audit(&[]);
        nothing_left(&broker);
    });
}

#[test]
fn readers_come_and_go() {
    explore(|| {
        let broker = Broker::default();
        let (a, b, c) = (Party::new(&broker, "a"), Party::new(&broker, "b"), Party::new(&broker, "c"));
        a.hold("x", Shared);
        at_once([
            with!([b] assert!(matches!(b.ask(1, &["x"], Shared), Ok(Attempt::Granted(_))))),
            with!([a] a.release("x").unwrap()),
        ]);
        assert!(b.holds("x") && !a.holds("x"));
        assert_eq!(c.try_it("x"), Err(AcquireError::TimedOut));
        b.release("x").unwrap();
        nothing_left(&broker);
    });
}

#[test]
fn of_two_threads_of_one_session_one_wins() {
    explore(|| {
        let broker = Broker::default();
        let a = Party::new(&broker, "a");
        let other = thread::spawn({
            let a = a.clone();
            move || a.try_it("x")
        });
        let mine = a.try_it("x");
        let (token, held) = match (mine, other.join().unwrap()) {
            (Ok(grant), Err(AcquireError::AlreadyHeld(held)))
            | (Err(AcquireError::AlreadyHeld(held)), Ok(grant)) => (grant.token, held),
            other => panic!("{other:?}"),
        };
        assert_eq!(held, Held { mode: Exclusive, token });
        a.release("x").unwrap();
        nothing_left(&broker);
    });
}

#[test]
fn of_two_threads_of_one_session_one_waits() {
    explore(|| {
        let broker = Broker::default();
        let (a, b) = (Party::new(&broker, "a"), Party::new(&broker, "b"));
        b.hold("x", Exclusive);
        let other = thread::spawn({
            let a = a.clone();
            move || a.ask(1, &["x"], Exclusive)
        });
        let mine = a.ask(2, &["x"], Exclusive);
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
        let broker = Broker::default();
        let (a, b) = (Party::new(&broker, "a"), Party::new(&broker, "b"));
        a.hold("x", Exclusive);
        let asked = thread::spawn({
            let b = b.clone();
            move || b.ask(1, &["x"], Exclusive)
        });
        let other = thread::spawn({
            let a = a.clone();
            move || a.release("x")
        });
        let mine = a.release("x");
        let results = [mine, other.join().unwrap()];
        assert!(results.contains(&Ok(Released::Hold)) && results.contains(&Err(ReleaseError::NotHeld)));
        has_it(&broker, &b, &asked.join().unwrap());
    });
}

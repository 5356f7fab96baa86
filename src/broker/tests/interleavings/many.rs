//! Several names at once against singles, and everything at random.

use crate::broker::tests::interleavings::party::{Party, at_once, nothing_left, with};
use crate::broker::*;
use crate::os::sync::explore::explore;
use crate::os::sync::thread;
use Mode::{Exclusive, Shared};

#[test]
fn two_at_once_against_one_of_them_that_goes() {
    explore(|| {
        let broker = Broker::default();
        let (a, b) = (Party::new(&broker, "a"), Party::new(&broker, "b"));
        a.hold("x", Exclusive);
        let asked = thread::spawn({
            let b = b.clone();
            move || b.ask(1, &["x", "y"], Exclusive)
        });
        a.release("x").unwrap();
        let asked = asked.join().unwrap();
        assert!(matches!(asked, Ok(Attempt::Granted(_))) || b.was_granted(1), "{asked:?}");
        assert!(b.holds("x") && b.holds("y"));
        b.audit(&[]);
        assert_eq!(broker.stats().locks, 2);
        b.session.end();
        nothing_left(&broker);
    });
}

#[test]
fn two_at_once_against_the_same_the_other_way_round() {
    explore(|| {
        let broker = Broker::default();
        let (a, b) = (Party::new(&broker, "a"), Party::new(&broker, "b"));
        at_once([
            with!([a] { let _ = a.ask(1, &["x", "y"], Exclusive); }),
            with!([b] { let _ = b.ask(1, &["y", "x"], Exclusive); }),
        ]);
        let (first, second) = if a.holds("x") { (a, b) } else { (b, a) };
        assert!(first.holds("x") && first.holds("y"));
        assert!(!second.holds("x") && !second.holds("y"));
        first.release("x").unwrap();
        assert!(!second.holds("x"), "it takes nothing before it can have all");
        first.release("y").unwrap();
        assert!(second.was_granted(1) && second.holds("x") && second.holds("y"));
        first.audit(&[]);
        second.audit(&[]);
        assert_eq!(broker.stats().deadlocks, 0);
    });
}

#[test]
fn two_at_once_against_a_single_and_the_end_of_a_holder() {
    explore(|| {
        let broker = Broker::default();
        let (a, b, c) = (Party::new(&broker, "a"), Party::new(&broker, "b"), Party::new(&broker, "c"));
        a.hold("x", Exclusive);
        at_once([
            with!([b] { let _ = b.ask(1, &["x", "y"], Exclusive); }),
            with!([c] if c.try_it("y").is_ok() { c.release("y").unwrap(); }),
            with!([a] a.session.end()),
        ]);
        b.audit(&[]);
        assert!(b.holds("x") && b.holds("y"));
        b.session.end();
        nothing_left(&broker);
    });
}

#[test]
fn two_at_once_against_a_wait_for_each_that_is_cancelled() {
    explore(|| {
        let broker = Broker::default();
        let (a, b, c) = (Party::new(&broker, "a"), Party::new(&broker, "b"), Party::new(&broker, "c"));
        a.hold("x", Exclusive);
        assert_eq!(b.ask(1, &["x", "y"], Exclusive), Ok(Attempt::Queued));
        assert_eq!(c.ask(1, &["y"], Shared), Ok(Attempt::Queued));
        at_once([with!([b] { b.session.cancel(1); }), with!([a] a.release("x").unwrap())]);
        b.audit(&[]);
        if b.was_granted(1) {
            assert_eq!(c.heard(1), None);
            b.release("x").unwrap();
            b.release("y").unwrap();
        }
        assert!(c.was_granted(1));
        c.audit(&[]);
        c.release("y").unwrap();
        nothing_left(&broker);
    });
}

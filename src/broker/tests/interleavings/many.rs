//! Requests for several names, against requests for one of them.

use crate::broker::tests::interleavings::scenario::{
    assert_nothing_left, at_once, held, sessions, spawn, work,
};
use crate::broker::*;
use crate::os::sync::explore::explore;
use Mode::{Exclusive, Shared};

#[test]
fn two_names_at_once_against_the_release_of_one() {
    explore(|| {
        let (broker, [a, b]) = held();
        let asked = spawn!([b] b.acquire(1, &["x", "y"], Exclusive));
        a.release("x").unwrap();
        let asked = asked.join().unwrap();
        assert!(b.got(&asked), "{asked:?}");
        assert!(b.holds("x") && b.holds("y"));
        b.audit(&[]);
        assert_eq!(broker.stats().locks, 2);
        b.session.abandon();
        assert_nothing_left(&broker);
    });
}

#[test]
fn two_names_at_once_against_the_same_in_the_other_order() {
    explore(|| {
        let (broker, [a, b]) = sessions();
        at_once([work!([a] a.acquire_any(&["x", "y"])), work!([b] b.acquire_any(&["y", "x"]))]);
        let (first, second) = if a.holds("x") { (a, b) } else { (b, a) };
        assert!(first.holds("x") && first.holds("y"));
        assert!(!second.holds("x") && !second.holds("y"));
        first.release("x").unwrap();
        assert!(!second.holds("x"), "it holds nothing before it can have all");
        first.release("y").unwrap();
        assert!(second.was_granted(1) && second.holds("x") && second.holds("y"));
        first.audit(&[]);
        second.audit(&[]);
        assert_eq!(broker.stats().deadlocks, 0);
    });
}

#[test]
fn two_names_at_once_against_a_request_for_one_and_the_end_of_a_holder() {
    explore(|| {
        let (broker, [a, b, c]) = sessions();
        a.hold("x", Exclusive);
        at_once([
            work!([b] b.acquire_any(&["x", "y"])),
            work!([c] if c.try_acquire("y").is_ok() { c.release("y").unwrap(); }),
            work!([a] a.session.abandon()),
        ]);
        b.audit(&[]);
        assert!(b.holds("x") && b.holds("y"));
        b.session.abandon();
        assert_nothing_left(&broker);
    });
}

#[test]
fn two_names_at_once_that_are_cancelled_while_one_is_released() {
    explore(|| {
        let (broker, [a, b, c]) = sessions();
        a.hold("x", Exclusive);
        b.wait_for(1, &["x", "y"], Exclusive);
        c.wait_for(1, &["y"], Shared);
        at_once([work!([b] { b.session.cancel(1); }), work!([a] a.release("x").unwrap())]);
        b.audit(&[]);
        if b.was_granted(1) {
            assert_eq!(c.outcome(1), None);
            b.release("x").unwrap();
            b.release("y").unwrap();
        }
        assert!(c.was_granted(1));
        c.audit(&[]);
        c.release("y").unwrap();
        assert_nothing_left(&broker);
    });
}

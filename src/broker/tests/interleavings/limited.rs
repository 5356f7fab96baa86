//! Limited locks: sessions that take the slots while an exclusive request waits, and holders that end
//! while a conversion to a mode that allows fewer holders waits for them.

use crate::broker::tests::interleavings::scenario::{
    TestSession, assert_nothing_left, at_once, sessions, spawn, work,
};
use crate::broker::*;
use crate::os::sync::explore::explore;
use Mode::{Exclusive, Shared};

fn at_most(holders: u32) -> Mode {
    Mode::at_most(holders).expect("a limit of at least 1")
}

fn holders(session: &TestSession) -> usize {
    session.session.inspect(Space::Main, b"x").holders
}

/// Whether one of these waits, with ticket 1, was granted.
fn got_any(sessions: [&TestSession; 2]) -> bool {
    sessions.into_iter().any(|session| session.was_granted(1))
}

#[test]
fn two_that_take_slots_and_one_that_wants_the_lock_alone() {
    explore(|| {
        let (broker, [a, b, c]) = sessions();
        at_once([
            work!([a] _ = a.acquire(1, &["x"], at_most(2))),
            work!([b] _ = b.acquire(1, &["x"], at_most(2))),
            work!([c] _ = c.acquire(1, &["x"], Exclusive)),
        ]);
        // In whichever order they came: `c` alone, or `a` and `b` or one of them without `c`.
        let limited = usize::from(a.holds("x")) + usize::from(b.holds("x"));
        assert_eq!(holders(&a), limited + usize::from(c.holds("x")));
        assert_ne!(c.holds("x"), limited > 0);
        // All have their turn, and nothing is left.
        for _ in 0..3 {
            for session in [&a, &b, &c] {
                if session.holds("x") {
                    session.release("x").unwrap();
                }
            }
        }
        [&a, &b, &c].into_iter().for_each(|session| session.audit(&[]));
        assert_nothing_left(&broker);
    });
}

#[test]
fn a_slot_that_is_released_goes_to_one_of_two() {
    explore(|| {
        let (broker, [a, b, c]) = sessions();
        let other = TestSession::open(&broker, "other");
        a.hold("x", at_most(2));
        other.hold("x", at_most(2));
        at_once([
            work!([b] _ = b.acquire(1, &["x"], at_most(2))),
            work!([c] _ = c.acquire(1, &["x"], Shared)),
            work!([a] a.release("x").unwrap()),
        ]);
        assert_eq!(holders(&b), 2);
        assert_ne!(b.holds("x"), c.holds("x"));
        other.release("x").unwrap();
        assert!(b.holds("x") && c.holds("x") && got_any([&b, &c]));
        b.release("x").unwrap();
        c.release("x").unwrap();
        [&a, &b, &c].into_iter().for_each(|session| session.audit(&[]));
        assert_nothing_left(&broker);
    });
}

#[test]
fn a_holder_ends_while_a_conversion_to_a_stricter_limit_waits_and_another_session_asks() {
    explore(|| {
        let (broker, [a, b, c]) = sessions();
        let other = TestSession::open(&broker, "other");
        [&a, &b, &other].into_iter().for_each(|session| session.hold("x", at_most(3)));
        assert_eq!(a.convert(1, "x", at_most(2)), Ok(Attempt::Queued));
        let asked = spawn!([c] c.acquire(1, &["x"], at_most(3)));
        b.session.abandon();
        let asked = asked.join().unwrap();
        // The conversion came first and there are two holders now: no room for `c`.
        assert!(a.was_granted(1));
        assert_eq!((asked.clone(), c.outcome(1), holders(&a)), (Ok(Attempt::Queued), None, 2));
        other.release("x").unwrap();
        assert!(c.got(&asked) && holders(&a) == 2);
        a.release("x").unwrap();
        c.release("x").unwrap();
        [&a, &b, &c].into_iter().for_each(|session| session.audit(&[]));
        assert_nothing_left(&broker);
    });
}

#[test]
fn a_holder_ends_while_its_own_conversion_to_a_stricter_limit_waits() {
    explore(|| {
        let (broker, [a, b, c]) = sessions();
        [&a, &b, &c].into_iter().for_each(|session| session.hold("x", at_most(3)));
        assert_eq!(a.convert(1, "x", at_most(2)), Ok(Attempt::Queued));
        at_once([work!([a] a.session.abandon()), work!([b] b.release("x").unwrap())]);
        assert!(matches!(a.outcome(1), Some(Outcome::Lost | Outcome::Granted(_))));
        assert_eq!(holders(&c), 1);
        c.release("x").unwrap();
        [&a, &b, &c].into_iter().for_each(|session| session.audit(&[]));
        assert_nothing_left(&broker);
    });
}

#[test]
fn a_looser_limit_lets_one_in_whenever_it_comes() {
    explore(|| {
        let (broker, [a, b]) = sessions();
        a.hold("x", Exclusive);
        let asked = spawn!([b] b.acquire(1, &["x"], at_most(2)));
        a.convert(1, "x", at_most(3)).unwrap();
        let asked = asked.join().unwrap();
        assert!(b.got(&asked), "{asked:?}");
        assert_eq!(holders(&a), 2);
        a.release("x").unwrap();
        b.release("x").unwrap();
        [&a, &b].into_iter().for_each(|session| session.audit(&[]));
        assert_nothing_left(&broker);
    });
}

//! Sessions that end while others, or their own threads, are at the same locks.

use crate::broker::tests::interleavings::party::{Party, at_once, nothing_left, with};
use crate::broker::*;
use crate::os::sync::explore::explore;
use crate::os::sync::thread;
use Mode::{Exclusive, Shared};

#[test]
fn a_release_against_the_end_of_the_holder() {
    explore(|| {
        let broker = Broker::default();
        let (a, b) = (Party::new(&broker, "a"), Party::new(&broker, "b"));
        a.hold("x", Exclusive);
        assert_eq!(b.ask(1, &["x"], Exclusive), Ok(Attempt::Queued));
        let released = thread::spawn({
            let a = a.clone();
            move || a.release("x")
        });
        a.session.end();
        let released = released.join().unwrap();
        b.audit(&[]);
        let Some(Outcome::Granted(grant)) = b.heard(1) else { panic!("nobody else holds it") };
        assert_eq!(grant.orphaned, released.is_err());
        assert_eq!(broker.stats().orphans, u64::from(released.is_err()));
        b.release("x").unwrap();
        nothing_left(&broker);
    });
}

#[test]
fn an_acquire_against_the_end_of_its_own_session() {
    explore(|| {
        let broker = Broker::default();
        let (a, b) = (Party::new(&broker, "a"), Party::new(&broker, "b"));
        at_once([with!([a] { let _ = a.try_it("x"); }), with!([a] a.session.end())]);
        assert!(!a.session.is_alive());
        assert!(b.try_it("x").is_ok(), "it holds nothing any more");
        b.release("x").unwrap();
        nothing_left(&broker);
    });
}

#[test]
fn a_wait_against_the_end_of_its_own_session() {
    explore(|| {
        let broker = Broker::default();
        let (a, b) = (Party::new(&broker, "a"), Party::new(&broker, "b"));
        a.hold("x", Exclusive);
        at_once([with!([b] { let _ = b.ask(1, &["x"], Exclusive); }), with!([b] b.session.end())]);
        b.audit(&[]);
        assert!(b.heard(1).is_none_or(|outcome| outcome == Outcome::Lost));
        a.release("x").unwrap();
        nothing_left(&broker);
    });
}

#[test]
fn an_acquire_against_the_end_of_the_holder() {
    explore(|| {
        let broker = Broker::default();
        let (a, b) = (Party::new(&broker, "a"), Party::new(&broker, "b"));
        a.hold("x", Exclusive);
        let asked = thread::spawn({
            let b = b.clone();
            move || b.ask(1, &["x"], Exclusive)
        });
        a.session.end();
        let grant = match (asked.join().unwrap(), b.heard(1)) {
            (Ok(Attempt::Granted(grant)), None) | (Ok(Attempt::Queued), Some(Outcome::Granted(grant))) => {
                grant
            }
            other => panic!("{other:?}"),
        };
        assert!(grant.orphaned);
        b.audit(&[]);
        assert!(b.holds("x"));
        b.release("x").unwrap();
        nothing_left(&broker);
    });
}

#[test]
fn a_slot_in_use_again_has_nothing_of_its_last_session() {
    explore(|| {
        let broker = Broker::default();
        let (a, b) = (Party::new(&broker, "a"), Party::new(&broker, "b"));
        a.hold("x", Exclusive);
        a.hold("y", Shared);
        assert_eq!(b.ask(1, &["y"], Exclusive), Ok(Attempt::Queued));
        let next = thread::spawn({
            let broker = broker.clone();
            move || {
                let c = Party::new(&broker, "c");
                c.hold("z", Exclusive);
                c
            }
        });
        a.session.end();
        let c = next.join().unwrap();
        assert!(c.holds("z") && !c.holds("x") && !c.holds("y"));
        assert!(b.was_granted(1));
        b.release("y").unwrap();
        c.release("z").unwrap();
        c.audit(&[]);
        nothing_left(&broker);
        assert_eq!(broker.stats().sessions, 2);
    });
}

#[test]
fn two_ends_of_one_session() {
    explore(|| {
        let broker = Broker::default();
        let (a, b) = (Party::new(&broker, "a"), Party::new(&broker, "b"));
        a.hold("x", Exclusive);
        assert_eq!(b.ask(1, &["x"], Exclusive), Ok(Attempt::Queued));
        at_once([with!([a] a.session.end()), with!([a] a.session.end())]);
        assert!(b.was_granted(1));
        b.audit(&[]);
        assert_eq!((broker.stats().sessions, broker.stats().orphans), (1, 1));
    });
}

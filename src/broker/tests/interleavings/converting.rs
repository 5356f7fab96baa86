//! Changing the mode of what is held while the other holders go, end, or want the same.

use crate::broker::tests::interleavings::party::{Party, at_once, nothing_left, with};
use crate::broker::*;
use crate::os::sync::explore::explore;
use crate::os::sync::thread;
use Mode::{Exclusive, Shared};

fn shared_by_two() -> (Broker, Arc<Party>, Arc<Party>) {
    let broker = Broker::default();
    let (a, b) = (Party::new(&broker, "a"), Party::new(&broker, "b"));
    a.hold("x", Shared);
    b.hold("x", Shared);
    (broker, a, b)
}

/// `a` was granted the upgrade, at once or after waiting, and nothing else is left.
fn upgraded(broker: &Broker, a: &Party, asked: &Result<Attempt, AcquireError>) {
    let at_once = matches!(asked, Ok(Attempt::Granted(_)));
    assert!(at_once || (*asked == Ok(Attempt::Queued) && a.was_granted(1)), "{asked:?}");
    a.audit(&[]);
    let seen = a.session.inspect(Space::Main, b"x");
    assert_eq!((seen.mode, seen.holders), (Some(Exclusive), 1));
    assert_eq!(broker.stats().locks, 1);
    a.release("x").unwrap();
    nothing_left(broker);
}

#[test]
fn an_upgrade_against_a_release() {
    explore(|| {
        let (broker, a, b) = shared_by_two();
        let asked = thread::spawn({
            let a = a.clone();
            move || a.upgrade(1, "x")
        });
        b.release("x").unwrap();
        upgraded(&broker, &a, &asked.join().unwrap());
    });
}

#[test]
fn an_upgrade_against_the_end_of_the_other_holder() {
    explore(|| {
        let (broker, a, b) = shared_by_two();
        let asked = thread::spawn({
            let a = a.clone();
            move || a.upgrade(1, "x")
        });
        b.session.end();
        upgraded(&broker, &a, &asked.join().unwrap());
    });
}

#[test]
fn an_upgrade_against_another_upgrade() {
    explore(|| {
        let (broker, a, b) = shared_by_two();
        let asked = thread::spawn({
            let a = a.clone();
            move || a.upgrade(1, "x")
        });
        let other = b.upgrade(1, "x");
        let (waits, refused) = match (asked.join().unwrap(), other) {
            (Ok(Attempt::Queued), Err(AcquireError::Deadlock(cycle))) => {
                assert_eq!(cycle.sessions, ["b", "a"]);
                (a, b)
            }
            (Err(AcquireError::Deadlock(cycle)), Ok(Attempt::Queued)) => {
                assert_eq!(cycle.sessions, ["a", "b"]);
                (b, a)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!((waits.heard(1), broker.stats().deadlocks), (None, 1));
        refused.release("x").unwrap();
        refused.audit(&[]);
        upgraded(&broker, &waits, &Ok(Attempt::Queued));
    });
}

#[test]
fn an_upgrade_against_the_end_of_its_own_session() {
    explore(|| {
        let (broker, a, b) = shared_by_two();
        at_once([with!([a] { let _ = a.upgrade(1, "x"); }), with!([a] a.session.end())]);
        a.audit(&[]);
        assert!(a.heard(1).is_none_or(|outcome| outcome == Outcome::Lost));
        assert_eq!(b.session.inspect(Space::Main, b"x").holders, 1);
        b.release("x").unwrap();
        nothing_left(&broker);
    });
}

#[test]
fn an_upgrade_against_a_new_reader() {
    explore(|| {
        let broker = Broker::default();
        let (a, b) = (Party::new(&broker, "a"), Party::new(&broker, "b"));
        a.hold("x", Shared);
        let asked = thread::spawn({
            let a = a.clone();
            move || a.upgrade(1, "x")
        });
        let reading = b.ask(1, &["x"], Shared);
        let upgrade = asked.join().unwrap();
        match reading {
            // It came first, and the upgrade waits for it.
            Ok(Attempt::Granted(_)) => {
                assert_eq!((upgrade.clone(), a.heard(1)), (Ok(Attempt::Queued), None));
                b.release("x").unwrap();
            }
            // It came second, and waits for the upgrade.
            _ => {
                assert_eq!((reading, b.heard(1)), (Ok(Attempt::Queued), None));
                assert!(b.session.cancel(1));
            }
        }
        b.audit(&[]);
        upgraded(&broker, &a, &upgrade);
    });
}

#[test]
fn a_downgrade_lets_a_reader_in_whenever_it_comes() {
    explore(|| {
        let broker = Broker::default();
        let (a, b) = (Party::new(&broker, "a"), Party::new(&broker, "b"));
        a.hold("x", Exclusive);
        let asked = thread::spawn({
            let b = b.clone();
            move || b.ask(1, &["x"], Shared)
        });
        a.session.convert(Space::Main, b"x", Shared, None).unwrap();
        let asked = asked.join().unwrap();
        assert!(matches!(asked, Ok(Attempt::Granted(_))) || b.was_granted(1), "{asked:?}");
        b.audit(&[]);
        assert_eq!(broker.stats().shared_locks, 1);
        a.release("x").unwrap();
        b.release("x").unwrap();
        nothing_left(&broker);
    });
}

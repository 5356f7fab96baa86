//! Conversions, while the other holders release the lock, end, or want to convert it too.

use crate::broker::tests::interleavings::scenario::{
    TestSession, assert_nothing_left, at_once, held, sessions, spawn, work,
};
use crate::broker::*;
use crate::os::sync::explore::explore;
use Mode::{Exclusive, Shared};

/// Two sessions that hold `x` shared.
fn shared_by_two() -> (Broker, [Arc<TestSession>; 2]) {
    let (broker, [a, b]) = sessions();
    a.hold("x", Shared);
    b.hold("x", Shared);
    (broker, [a, b])
}

/// Asserts that `a` was granted the upgrade, at once or after a wait, and that nothing else is
/// left.
fn assert_upgraded(broker: &Broker, a: &TestSession, asked: &Result<Attempt, AcquireError>) {
    assert!(a.got(asked), "{asked:?}");
    a.audit(&[]);
    let seen = a.session.inspect(Space::Main, b"x");
    assert_eq!((seen.mode, seen.holders), (Some(Exclusive), 1));
    assert_eq!(broker.stats().locks, 1);
    a.release("x").unwrap();
    assert_nothing_left(broker);
}

#[test]
fn an_upgrade_against_a_release() {
    explore(|| {
        let (broker, [a, b]) = shared_by_two();
        let asked = spawn!([a] a.upgrade(1, "x"));
        b.release("x").unwrap();
        assert_upgraded(&broker, &a, &asked.join().unwrap());
    });
}

#[test]
fn an_upgrade_against_the_end_of_the_other_holder() {
    explore(|| {
        let (broker, [a, b]) = shared_by_two();
        let asked = spawn!([a] a.upgrade(1, "x"));
        b.session.abandon();
        assert_upgraded(&broker, &a, &asked.join().unwrap());
    });
}

#[test]
fn an_upgrade_against_another_upgrade() {
    explore(|| {
        let (broker, [a, b]) = shared_by_two();
        let asked = spawn!([a] a.upgrade(1, "x"));
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
        assert_eq!((waits.outcome(1), broker.stats().deadlocks), (None, 1));
        refused.release("x").unwrap();
        refused.audit(&[]);
        assert_upgraded(&broker, &waits, &Ok(Attempt::Queued));
    });
}

#[test]
fn an_upgrade_against_the_end_of_its_own_session() {
    explore(|| {
        let (broker, [a, b]) = shared_by_two();
        at_once([work!([a] _ = a.upgrade(1, "x")), work!([a] a.session.abandon())]);
        a.audit(&[]);
        assert!(a.outcome(1).is_none_or(|outcome| outcome == Outcome::Lost));
        assert_eq!(b.session.inspect(Space::Main, b"x").holders, 1);
        b.release("x").unwrap();
        assert_nothing_left(&broker);
    });
}

#[test]
fn an_upgrade_against_a_new_reader() {
    explore(|| {
        let (broker, [a, b]) = sessions();
        a.hold("x", Shared);
        let asked = spawn!([a] a.upgrade(1, "x"));
        let reading = b.acquire(1, &["x"], Shared);
        let upgrade = asked.join().unwrap();
        match reading {
            // The reader came first, and the upgrade waits for it.
            Ok(Attempt::Granted(_)) => {
                assert_eq!((upgrade.clone(), a.outcome(1)), (Ok(Attempt::Queued), None));
                b.release("x").unwrap();
            }
            // The reader came second, and waits for the upgrade.
            _ => {
                assert_eq!((reading, b.outcome(1)), (Ok(Attempt::Queued), None));
                assert!(b.session.cancel(1));
            }
        }
        b.audit(&[]);
        assert_upgraded(&broker, &a, &upgrade);
    });
}

#[test]
fn a_downgrade_lets_a_reader_in_whenever_it_comes() {
    explore(|| {
        let (broker, [a, b]) = held();
        let asked = spawn!([b] b.acquire(1, &["x"], Shared));
        a.session.convert(Space::Main, b"x", Shared, None).unwrap();
        let asked = asked.join().unwrap();
        assert!(b.got(&asked), "{asked:?}");
        b.audit(&[]);
        assert_eq!(broker.stats().shared_locks, 1);
        a.release("x").unwrap();
        b.release("x").unwrap();
        assert_nothing_left(&broker);
    });
}

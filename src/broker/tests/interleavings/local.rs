//! Threads that block in a session of this process, against others that end their waits.

use std::time::Duration;

use crate::broker::tests::interleavings::party::{Room, at_once, nothing_left, with};
use crate::broker::*;
use crate::os::sync::explore::{explore, explore_with_time};
use crate::os::sync::{Time, thread};
use Mode::Exclusive;

const LIMIT: Duration = Duration::from_millis(10);

/// A broker in which `a` holds `x`, and `b` is about to ask for it.
fn held() -> (Broker, Arc<LocalSession>, Arc<LocalSession>) {
    let broker = Broker::default();
    let (a, b) = (Arc::new(broker.open(Some("a"))), Arc::new(broker.open(Some("b"))));
    a.acquire(b"x", Exclusive, None).unwrap();
    (broker, a, b)
}

#[test]
fn a_blocked_acquire_is_woken_by_the_release() {
    explore(|| {
        let (broker, a, b) = held();
        let room = Room::new();
        at_once([
            with!([b, room] { b.acquire(b"x", Exclusive, None).unwrap(); room.stay(); b.release(b"x").unwrap() }),
            with!([a, room] { room.stay(); a.release(b"x").unwrap() }),
        ]);
        nothing_left(&broker);
    });
}

#[test]
fn a_blocked_acquire_against_a_cancel() {
    explore(|| {
        let (broker, a, b) = held();
        let blocked = thread::spawn({
            let b = b.clone();
            move || b.acquire(b"x", Exclusive, None)
        });
        let cancel = thread::spawn({
            let b = b.clone();
            move || b.cancel()
        });
        a.release(b"x").unwrap();
        cancel.join().unwrap();
        let outcome = blocked.join().unwrap();
        let granted = outcome.is_ok();
        assert!(granted || outcome == Err(AcquireError::Cancelled), "{outcome:?}");
        assert_eq!(b.inspect(b"x").held.is_some(), granted);
        assert_eq!(b.release(b"x").is_ok(), granted);
        nothing_left(&broker);
    });
}

#[test]
fn a_blocked_acquire_ends_with_its_session() {
    explore(|| {
        let (broker, a, b) = held();
        at_once([
            with!([b] assert!(matches!(b.acquire(b"x", Exclusive, None), Err(AcquireError::Lost(_))))),
            with!([b] b.close()),
        ]);
        a.release(b"x").unwrap();
        nothing_left(&broker);
    });
}

#[test]
fn a_blocked_acquire_ends_when_the_broker_is_shut() {
    explore(|| {
        let (broker, a, b) = held();
        at_once([
            with!([b] assert!(matches!(b.acquire(b"x", Exclusive, None), Err(AcquireError::Refused(_))))),
            with!([broker] broker.shut()),
        ]);
        a.release(b"x").unwrap();
        nothing_left(&broker);
    });
}

#[test]
fn a_blocked_acquire_ends_by_its_time_limit() {
    explore_with_time(|| {
        let (broker, a, b) = held();
        at_once([
            with!([b] assert_eq!(b.acquire(b"x", Exclusive, Some(LIMIT)), Err(AcquireError::TimedOut))),
            with!([a] {
                // What begins after the last of the time would never end; and the thread may have looked what
                // time it was only after the broker had.
                while a.inspect(b"x").waiters == 0 { thread::yield_now() }
                while a.inspect(b"x").waiters > 0 { Time::pass(LIMIT); thread::yield_now() }
            }),
        ]);
        assert!(b.inspect(b"x").held.is_none());
        a.release(b"x").unwrap();
        nothing_left(&broker);
    });
}

#[test]
fn a_blocked_acquire_against_its_time_limit() {
    explore_with_time(|| {
        let (broker, a, b) = held();
        let room = Room::new();
        let blocked = thread::spawn({
            let (b, room) = (b.clone(), room.clone());
            move || {
                let outcome = b.acquire(b"x", Exclusive, Some(LIMIT));
                outcome.is_ok().then(|| room.stay());
                outcome
            }
        });
        let time = thread::spawn(|| Time::pass(LIMIT));
        room.stay();
        a.release(b"x").unwrap();
        time.join().unwrap();
        let outcome = blocked.join().unwrap();
        let granted = outcome.is_ok();
        assert!(granted || outcome == Err(AcquireError::TimedOut), "{outcome:?}");
        assert_eq!(b.release(b"x").is_ok(), granted);
        nothing_left(&broker);
    });
}

#[test]
fn a_place_is_collected_whenever_the_grant_comes() {
    explore(|| {
        let (broker, a, b) = held();
        let collected = thread::spawn({
            let b = b.clone();
            move || match b.enqueue(b"x", Exclusive).unwrap() {
                Attempt::Granted(grant) => Ok(grant),
                _ => b.wait(b"x", None),
            }
        });
        a.release(b"x").unwrap();
        let token = collected.join().unwrap().unwrap().token;
        assert_eq!(b.inspect(b"x").held, Some(Held { mode: Exclusive, token }));
        b.release(b"x").unwrap();
        nothing_left(&broker);
    });
}

#[test]
fn a_place_that_another_thread_gives_up() {
    explore(|| {
        let (broker, a, b) = held();
        assert_eq!(b.enqueue(b"x", Exclusive), Ok(Attempt::Queued));
        let waits = thread::spawn({
            let b = b.clone();
            move || b.wait(b"x", None)
        });
        let gives_up = thread::spawn({
            let b = b.clone();
            move || b.release(b"x")
        });
        a.release(b"x").unwrap();
        let outcome = waits.join().unwrap();
        assert!(gives_up.join().unwrap().is_ok(), "it had the place or the lock");
        // A grant that it was told of may have been given up since; a wait never goes on.
        if let Err(error) = outcome {
            assert!(matches!(error, AcquireError::Cancelled | AcquireError::NotHeld), "{error}");
        }
        assert!(b.inspect(b"x").held.is_none());
        nothing_left(&broker);
    });
}

#[test]
fn two_blocked_threads_have_the_lock_in_turn() {
    explore(|| {
        let (broker, a, b) = held();
        let c = Arc::new(broker.open(Some("c")));
        let room = Room::new();
        at_once([
            with!([b, room] { b.acquire(b"x", Exclusive, None).unwrap(); room.stay(); b.release(b"x").unwrap() }),
            with!([c, room] { c.acquire(b"x", Exclusive, None).unwrap(); room.stay(); c.release(b"x").unwrap() }),
            with!([a, room] { room.stay(); a.release(b"x").unwrap() }),
        ]);
        nothing_left(&broker);
    });
}

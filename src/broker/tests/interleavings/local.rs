//! Threads that block in a session of this process, while other threads end their waits.

use std::time::Duration;

use crate::broker::tests::interleavings::scenario::{
    CriticalSection, assert_nothing_left, at_once, spawn, work,
};
use crate::broker::*;
use crate::os::sync::explore::{explore, explore_with_time};
use crate::os::sync::{Time, thread};
use Mode::Exclusive;

const LIMIT: Duration = Duration::from_millis(10);

/// Two sessions whose calls block, of which the first holds `x`.
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
        let section = CriticalSection::new();
        at_once([
            work!([b, section] { b.acquire(b"x", Exclusive, None).unwrap(); section.pass(); b.release(b"x").unwrap() }),
            work!([a, section] { section.pass(); a.release(b"x").unwrap() }),
        ]);
        assert_nothing_left(&broker);
    });
}

#[test]
fn a_blocked_acquire_against_a_cancel() {
    explore(|| {
        let (broker, a, b) = held();
        let blocked = spawn!([b] b.acquire(b"x", Exclusive, None));
        let cancel = spawn!([b] b.cancel());
        a.release(b"x").unwrap();
        cancel.join().unwrap();
        let outcome = blocked.join().unwrap();
        let granted = outcome.is_ok();
        assert!(granted || outcome == Err(AcquireError::Cancelled), "{outcome:?}");
        assert_eq!(b.inspect(b"x").held.is_some(), granted);
        assert_eq!(b.release(b"x").is_ok(), granted);
        assert_nothing_left(&broker);
    });
}

#[test]
fn a_blocked_acquire_ends_with_its_session() {
    explore(|| {
        let (broker, a, b) = held();
        at_once([
            work!([b] assert!(matches!(b.acquire(b"x", Exclusive, None), Err(AcquireError::Lost(_))))),
            work!([b] b.close()),
        ]);
        a.release(b"x").unwrap();
        assert_nothing_left(&broker);
    });
}

#[test]
fn a_blocked_acquire_ends_when_the_broker_is_shut() {
    explore(|| {
        let (broker, a, b) = held();
        at_once([
            work!([b] assert!(matches!(b.acquire(b"x", Exclusive, None), Err(AcquireError::Refused(_))))),
            work!([broker] broker.shut()),
        ]);
        a.release(b"x").unwrap();
        assert_nothing_left(&broker);
    });
}

#[test]
fn a_blocked_acquire_ends_by_its_time_limit() {
    explore_with_time(|| {
        let (broker, a, b) = held();
        at_once([
            work!([b] assert_eq!(b.acquire(b"x", Exclusive, Some(LIMIT)), Err(AcquireError::TimedOut))),
            work!([a] {
                // Time passes only while the wait goes on: a wait that begins after the last step
                // of time would never end. More than one step, since the thread may read the time
                // after the broker has read it.
                while a.inspect(b"x").waiters == 0 { thread::yield_now() }
                while a.inspect(b"x").waiters > 0 { Time::pass(LIMIT); thread::yield_now() }
            }),
        ]);
        assert!(b.inspect(b"x").held.is_none());
        a.release(b"x").unwrap();
        assert_nothing_left(&broker);
    });
}

#[test]
fn a_blocked_acquire_against_its_time_limit() {
    explore_with_time(|| {
        let (broker, a, b) = held();
        let section = CriticalSection::new();
        let blocked = spawn!([b, section] {
                let outcome = b.acquire(b"x", Exclusive, Some(LIMIT));
                outcome.is_ok().then(|| section.pass());
                outcome
        });
        let time = thread::spawn(|| Time::pass(LIMIT));
        section.pass();
        a.release(b"x").unwrap();
        time.join().unwrap();
        let outcome = blocked.join().unwrap();
        let granted = outcome.is_ok();
        assert!(granted || outcome == Err(AcquireError::TimedOut), "{outcome:?}");
        assert_eq!(b.release(b"x").is_ok(), granted);
        assert_nothing_left(&broker);
    });
}

#[test]
fn an_enqueued_request_is_collected_whenever_the_grant_comes() {
    explore(|| {
        let (broker, a, b) = held();
        let collected = spawn!([b] match b.enqueue(b"x", Exclusive).unwrap() {
            Attempt::Granted(grant) => Ok(grant),
            Attempt::Queued => b.wait(b"x", None),
        });
        a.release(b"x").unwrap();
        let token = collected.join().unwrap().unwrap().token;
        assert_eq!(b.inspect(b"x").held, Some(Held { mode: Exclusive, token }));
        b.release(b"x").unwrap();
        assert_nothing_left(&broker);
    });
}

#[test]
fn an_enqueued_request_that_another_thread_releases() {
    explore(|| {
        let (broker, a, b) = held();
        assert_eq!(b.enqueue(b"x", Exclusive), Ok(Attempt::Queued));
        let waits = spawn!([b] b.wait(b"x", None));
        let releases = spawn!([b] b.release(b"x"));
        a.release(b"x").unwrap();
        let outcome = waits.join().unwrap();
        assert!(releases.join().unwrap().is_ok(), "it waited or held the lock");
        // If it was told of a grant, the lock may have been released since. In no case does the
        // wait go on.
        if let Err(error) = outcome {
            assert!(matches!(error, AcquireError::Cancelled | AcquireError::NotHeld), "{error}");
        }
        assert!(b.inspect(b"x").held.is_none());
        assert_nothing_left(&broker);
    });
}

#[test]
fn two_blocked_threads_have_the_lock_in_turn() {
    explore(|| {
        let (broker, a, b) = held();
        let c = Arc::new(broker.open(Some("c")));
        let section = CriticalSection::new();
        at_once([
            work!([b, section] { b.acquire(b"x", Exclusive, None).unwrap(); section.pass(); b.release(b"x").unwrap() }),
            work!([c, section] { c.acquire(b"x", Exclusive, None).unwrap(); section.pass(); c.release(b"x").unwrap() }),
            work!([a, section] { section.pass(); a.release(b"x").unwrap() }),
        ]);
        assert_nothing_left(&broker);
    });
}

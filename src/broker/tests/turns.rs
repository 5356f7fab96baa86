//! Sessions with bulk events wait for each other, and delay no other session.

use std::sync::mpsc::channel;
use std::time::Duration;

use crate::broker::{AcquireError, Broker, LocalSession, LockName, Mode};

const DEADLINE: Duration = Duration::from_secs(60);

/// Sets up a search for deadlocks that takes too long: if `asker` asks for `name 0`, it waits for
/// eight sessions that wait for thousands of names each.
fn set_up_long_search(broker: &Broker, asker: &LocalSession) -> Vec<LocalSession> {
    const NAMES: usize = 8_000;
    let [holder, waiter] = [broker.open(None), broker.open(None)];
    // First, so that it is ranked below the others.
    asker.acquire(b"asker's", Mode::Exclusive, None).unwrap();
    waiter.enqueue(b"asker's", Mode::Exclusive).unwrap();
    let name = |number: usize| format!("name {number}").into_bytes();
    (0..NAMES).for_each(|number| _ = holder.acquire(&name(number), Mode::Exclusive, None).unwrap());
    let mut sessions: Vec<_> = (0..8).map(|_| broker.open(None)).collect();
    for session in &sessions {
        (0..NAMES).for_each(|number| _ = session.enqueue(&name(number), Mode::Exclusive).unwrap());
    }
    sessions.extend([holder, waiter]);
    sessions
}

#[test]
fn bulk_events_are_handled_one_at_a_time_and_delay_no_other_session() {
    let broker = Broker::default();
    let asker = broker.open(None);
    let _others = set_up_long_search(&broker, &asker);
    let (tell, told) = channel();
    // As if another thread had a bulk turn.
    let bulk = broker.shell.bulk.lock();
    std::thread::scope(|scope| {
        let (searching, setting) = (&tell, tell.clone());
        let asker = &asker;
        let searching = searching.clone();
        scope.spawn(move || {
            searching.send(matches!(
                asker.acquire(b"name 0", Mode::Exclusive, Some(DEADLINE)),
                Err(AcquireError::Refused(_))
            ))
        });
        let set: Vec<_> =
            (0..1000).map(|n| (LockName::from(format!("set {n}").as_str()), Mode::Exclusive)).collect();
        let session = broker.open(None);
        scope.spawn(move || setting.send(session.acquire_all(&set, None).is_ok()));
        let ordinary = scope.spawn(|| {
            let (one, other) = (broker.open(None), broker.open(None));
            for _ in 0..100 {
                one.acquire(b"ordinary", Mode::Exclusive, None).unwrap();
                other.enqueue(b"ordinary", Mode::Exclusive).unwrap();
                one.release(b"ordinary").unwrap();
                other.wait(b"ordinary", None).unwrap();
                other.release(b"ordinary").unwrap();
            }
        });
        ordinary.join().unwrap();
        assert!(told.try_recv().is_err(), "a bulk event did not wait for the bulk turn");
        drop(bulk);
        assert_eq!([told.recv_timeout(DEADLINE), told.recv_timeout(DEADLINE)], [Ok(true), Ok(true)]);
    });
}

/// A service manager's watchdog relies on this: it gets a sign of life when `stats` has returned.
#[test]
fn stats_return_only_if_no_lock_of_the_broker_is_stuck() {
    /// Asserts that `stats` returns only after `stuck` has been dropped.
    #[track_caller]
    fn assert_waits_for<T>(broker: &Broker, stuck: T) {
        let (tell, told) = channel();
        std::thread::scope(|scope| {
            scope.spawn(move || tell.send(broker.stats().sessions));
            assert!(told.recv_timeout(Duration::from_millis(100)).is_err());
            drop(stuck);
            assert_eq!(told.recv_timeout(DEADLINE), Ok(0));
        });
    }
    let broker = Broker::default();
    assert_waits_for(&broker, broker.shell.contended.lock());
    for cell in broker.shell.lanes.iter().step_by(21) {
        assert_waits_for(&broker, cell.lane.lock());
    }
}

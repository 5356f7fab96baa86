//! What sessions that ask for much cost others: they wait for each other.

use std::sync::mpsc::channel;
use std::time::Duration;

use crate::broker::{AcquireError, Broker, LocalSession, LockName, Mode};

const DEADLINE: Duration = Duration::from_secs(60);

/// A broker in which the session waits, if it asks for `name 0`, for eight sessions that wait for thousands of
/// names, so that whether they wait for it takes too long to say.
fn tangled(broker: &Broker, asker: &LocalSession) -> Vec<LocalSession> {
    const NAMES: usize = 8_000;
    let [holder, behind] = [broker.open(None), broker.open(None)];
    // Before the others, so that it is ranked below them.
    asker.acquire(b"asker's", Mode::Exclusive, None).unwrap();
    behind.enqueue(b"asker's", Mode::Exclusive).unwrap();
    let name = |number: usize| format!("name {number}").into_bytes();
    (0..NAMES).for_each(|number| _ = holder.acquire(&name(number), Mode::Exclusive, None).unwrap());
    let mut sessions: Vec<_> = (0..8).map(|_| broker.open(None)).collect();
    for session in &sessions {
        (0..NAMES).for_each(|number| _ = session.enqueue(&name(number), Mode::Exclusive).unwrap());
    }
    sessions.extend([holder, behind]);
    sessions
}

#[test]
fn what_takes_long_is_done_one_at_a_time_and_others_do_not_wait_for_it() {
    let broker = Broker::default();
    let asker = broker.open(None);
    let _others = tangled(&broker, &asker);
    let (tell, told) = channel();
    // As if another one was at it.
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
        let calm = scope.spawn(|| {
            let (one, other) = (broker.open(None), broker.open(None));
            for _ in 0..100 {
                one.acquire(b"calm", Mode::Exclusive, None).unwrap();
                other.enqueue(b"calm", Mode::Exclusive).unwrap();
                one.release(b"calm").unwrap();
                other.wait(b"calm", None).unwrap();
                other.release(b"calm").unwrap();
            }
        });
        calm.join().unwrap();
        assert!(told.try_recv().is_err(), "what is large has not waited");
        drop(bulk);
        assert_eq!([told.recv_timeout(DEADLINE), told.recv_timeout(DEADLINE)], [Ok(true), Ok(true)]);
    });
}

/// What a service manager's watchdog relies on: it is given a sign of life when this has returned.
#[test]
fn figures_are_given_only_when_no_lock_of_the_broker_is_stuck() {
    /// Asserts that the figures come only after `stuck` has been let go.
    #[track_caller]
    fn assert_waits_for<T>(broker: &Broker, stuck: T) {
        let (tell, told) = channel();
        std::thread::scope(|scope| {
            scope.spawn(move || tell.send(broker.stats().sessions));
            // However long it has, nothing comes.
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

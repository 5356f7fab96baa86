//! Blocking sessions in threads, whose results must not depend on how the threads interleave; and
//! an example of each promise of the broker.

use std::sync::atomic::AtomicU64 as StdAtomicU64;
use std::time::{Duration, Instant};

use crate::broker::*;
use crate::os::sync::{AtomicBool, AtomicUsize, Ordering};

/// Runs `work` in `count` threads, each with its number. These tests join every thread explicitly,
/// since ThreadSanitizer does not see that a scope waits for its threads.
fn in_threads(count: usize, work: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..count).map(|number| scope.spawn(move || work(number))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[expect(clippy::disallowed_methods, reason = "a deadline, so that a failing test ends")]
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::yield_now();
    }
}

/// A critical section, which at most one thread may be in.
#[derive(Default)]
struct CriticalSection(AtomicBool);

impl CriticalSection {
    fn pass(&self) {
        assert!(!self.0.swap(true, Ordering::SeqCst), "two holders of one exclusive lock");
        std::thread::yield_now();
        self.0.store(false, Ordering::SeqCst);
    }
}

#[test]
fn no_increment_under_the_lock_is_lost() {
    let broker = Broker::default();
    let counter = StdAtomicU64::new(0);
    in_threads(8, |_| {
        let session = broker.open(None);
        for _ in 0..500 {
            session.acquire(b"counter", Mode::Exclusive, None).unwrap();
            counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            session.release(b"counter").unwrap();
        }
    });
    assert_eq!(counter.into_inner(), 8 * 500);
    assert_eq!(broker.stats().locks, 0);
}

#[test]
fn a_grant_that_crosses_a_time_limit_is_delivered_or_given_back() {
    let broker = Broker::default();
    let section = CriticalSection::default();
    let granted = AtomicUsize::new(0);
    in_threads(6, |number| {
        let session = broker.open(None);
        for round in 0..300 {
            let limit = Duration::from_micros(((number + round) % 7 * 10) as u64);
            match session.acquire(b"room", Mode::Exclusive, Some(limit)) {
                Ok(_) => {
                    section.pass();
                    granted.fetch_add(1, Ordering::Relaxed);
                    session.release(b"room").unwrap();
                }
                Err(error) => {
                    assert_eq!(error, AcquireError::TimedOut);
                    assert_eq!(session.inspect(b"room").held, None);
                }
            }
        }
    });
    assert!(granted.into_inner() > 0);
    let stats = broker.stats();
    assert_eq!((stats.locks, stats.waiting), (0, 0));
}

#[test]
fn a_cancel_from_another_thread_ends_the_wait_once() {
    let broker = Broker::default();
    let section = CriticalSection::default();
    let done = AtomicBool::new(false);
    let sessions: Vec<LocalSession> = (0..4).map(|_| broker.open(None)).collect();
    std::thread::scope(|scope| {
        let canceller = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                sessions.iter().for_each(LocalSession::cancel);
                std::thread::yield_now();
            }
        });
        in_threads(sessions.len(), |number| {
            let session = &sessions[number];
            for _ in 0..300 {
                match session.acquire(b"room", Mode::Exclusive, None) {
                    Ok(_) => {
                        section.pass();
                        session.release(b"room").unwrap();
                    }
                    Err(error) => assert_eq!(error, AcquireError::Cancelled),
                }
            }
        });
        done.store(true, Ordering::Relaxed);
        canceller.join().unwrap();
    });
    assert_eq!(broker.stats().waiting, 0);
}

#[test]
fn sessions_that_end_during_calls_leave_nothing_behind() {
    let broker = Broker::default();
    in_threads(6, |number| {
        for round in 0..200 {
            let session = broker.open(None);
            let name = [u8::try_from((number + round) % 3).unwrap()];
            std::thread::scope(|scope| {
                let one = scope.spawn(|| session.acquire(&name, Mode::Exclusive, None));
                let other = [(LockName::new(b"0"), Mode::Shared), (LockName::new(&name), Mode::Shared)];
                let session = &session;
                let two = scope.spawn(move || session.acquire_all(&other, None));
                if round % 2 == 0 {
                    std::thread::yield_now();
                }
                session.close();
                let _ = (one.join().unwrap(), two.join().unwrap());
            });
            assert!(!session.is_alive());
        }
    });
    let stats = broker.stats();
    assert_eq!((stats.locks, stats.shared_locks, stats.waiting, stats.sessions), (0, 0, 0, 0));
}

#[test]
fn neighbours_that_take_two_forks_at_once_never_starve() {
    const PLACES: usize = 5;
    let broker = Broker::default();
    let forks: [CriticalSection; PLACES] = Default::default();
    in_threads(PLACES, |place| {
        let session = broker.open(None);
        let (left, right) = (place, (place + 1) % PLACES);
        let name = |fork: usize| LockName::from(format!("fork {fork}").as_str());
        let wants = [(name(left), Mode::Exclusive), (name(right), Mode::Exclusive)];
        for _ in 0..200 {
            session.acquire_all(&wants, None).unwrap();
            forks[left].pass();
            forks[right].pass();
            session.release(name(right).as_bytes()).unwrap();
            session.release(name(left).as_bytes()).unwrap();
        }
    });
    assert_eq!(broker.stats().deadlocks, 0);
}

#[test]
fn an_upgrade_waits_only_for_the_other_readers() {
    let broker = Broker::default();
    let (reader, writer, late) = (broker.open(None), broker.open(Some("writer")), broker.open(Some("late")));
    reader.acquire(b"page", Mode::Shared, None).unwrap();
    let first = writer.acquire(b"page", Mode::Shared, None).unwrap();
    assert_eq!(first.holders, 2);
    assert_eq!(late.enqueue(b"page", Mode::Exclusive), Ok(Attempt::Queued));
    std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| writer.convert(b"page", Mode::Exclusive, None));
        eventually("the upgrade waits", || broker.stats().waiting == 2);
        assert!(matches!(
            reader.convert(b"page", Mode::Exclusive, None),
            Err(AcquireError::Deadlock(cycle)) if cycle.sessions.contains(&"writer".to_owned())
        ));
        reader.release(b"page").unwrap();
        assert!(upgrade.join().unwrap().unwrap().token > first.token);
    });
    assert_eq!(late.wait(b"page", Some(Duration::ZERO)), Err(AcquireError::TimedOut));
    writer.convert(b"page", Mode::Shared, None).unwrap();
    assert_eq!(late.wait(b"page", Some(Duration::ZERO)), Err(AcquireError::TimedOut));
    writer.release(b"page").unwrap();
    late.wait(b"page", None).unwrap();
    assert_eq!(late.inspect(b"page").held.unwrap().mode, Mode::Exclusive);
}

#[test]
fn an_orderly_end_leaves_no_orphan_and_a_panic_does() {
    let broker = Broker::default();
    let next = broker.open(None);
    let ends: [(fn(LocalSession), bool); 4] = [
        (|session| session.close(), false),
        (drop, false),
        (|session| session.abandon(), true),
        (
            |session| {
                let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    let _dropped_on_the_way_out = session;
                    std::panic::resume_unwind(Box::new("the work has failed"));
                }));
                assert!(unwound.is_err());
            },
            true,
        ),
    ];
    for (at, (end, orphaned)) in ends.into_iter().enumerate() {
        // One name in its lane, and one in the table, since a session waits for it.
        let session = broker.open(None);
        for name in [&b"alone"[..], b"wanted"] {
            session.acquire(name, Mode::Exclusive, None).unwrap();
        }
        assert_eq!(next.enqueue(b"wanted", Mode::Exclusive), Ok(Attempt::Queued));
        let orphans = broker.stats().orphans;
        end(session);
        assert_eq!(next.wait(b"wanted", None).unwrap().orphaned, orphaned, "{at}");
        assert_eq!(next.acquire(b"alone", Mode::Exclusive, None).unwrap().orphaned, orphaned, "{at}");
        assert_eq!(broker.stats().orphans - orphans, if orphaned { 2 } else { 0 }, "{at}");
        next.release(b"wanted").unwrap();
        next.release(b"alone").unwrap();
    }
}

#[test]
fn the_next_holder_is_told_that_the_last_one_vanished() {
    let broker = Broker::default();
    let names: Vec<String> = (0..3000).map(|n| format!("a name of its own {n}")).collect();
    let gone = broker.open(None);
    for name in &names {
        assert!(!gone.acquire(name.as_bytes(), Mode::Exclusive, None).unwrap().orphaned);
    }
    gone.abandon();
    drop(gone);
    assert_eq!(broker.stats().orphans, 3000);
    assert_eq!(broker.stats().locks, 0);
    let next = broker.open(None);
    for name in &names {
        let name = name.as_bytes();
        // A reader is told, and the mark stays for the next exclusive holder.
        assert!(next.acquire(name, Mode::Shared, None).unwrap().orphaned);
        next.release(name).unwrap();
        assert!(next.acquire(name, Mode::Exclusive, None).unwrap().orphaned);
        next.release(name).unwrap();
        assert!(!next.acquire(name, Mode::Exclusive, None).unwrap().orphaned);
    }
}

#[test]
fn limits_refuse_new_locks_and_take_none_away() {
    let limits =
        Limits { name_bytes_max: 4, locks_max: 3, locks_per_session_max: 2, waits_per_session_max: 1 };
    let broker = Broker::new(limits);
    let (one, two) = (broker.open(None), broker.open(None));
    let now = Some(Duration::ZERO);
    assert!(matches!(one.acquire(b"12345", Mode::Exclusive, now), Err(AcquireError::Invalid(_))));
    one.acquire(b"a", Mode::Exclusive, now).unwrap();
    one.acquire(b"b", Mode::Exclusive, now).unwrap();
    assert!(matches!(one.acquire(b"c", Mode::Exclusive, now), Err(AcquireError::Refused(_))));
    two.acquire(b"c", Mode::Exclusive, now).unwrap();
    assert!(matches!(two.acquire(b"d", Mode::Exclusive, now), Err(AcquireError::Refused(_))));
    one.release(b"b").unwrap();
    assert_eq!(two.enqueue(b"a", Mode::Exclusive), Ok(Attempt::Queued));
    assert_eq!(one.inspect(b"a").waiters, 1);
    broker.set_limits(Limits { locks_max: 0, ..limits });
    assert!(matches!(two.acquire(b"b", Mode::Exclusive, now), Err(AcquireError::Refused(_))));
    assert!(one.inspect(b"a").held.is_some());
}

#[test]
fn pages_continue_without_gaps() {
    let broker = Broker::default();
    let session = broker.open(Some("keeper"));
    for n in 0..250 {
        session.acquire(format!("job/{n:03}").as_bytes(), Mode::Exclusive, None).unwrap();
        session.acquire(format!("other/{n:03}").as_bytes(), Mode::Shared, None).unwrap();
    }
    let mut names = Vec::new();
    let mut query = PageQuery { space: Space::Main, prefix: "job/".into(), after: None, limit: 60 };
    loop {
        let page = broker.page(&query);
        names.extend(page.locks.iter().map(|lock| lock.key.name.clone()));
        query.after = names.last().cloned();
        if !page.more {
            break;
        }
    }
    let expected: Vec<LockName> = (0..250).map(|n| LockName::from(format!("job/{n:03}").as_str())).collect();
    assert_eq!(names, expected);
    let first = broker.page(&PageQuery { after: None, limit: 0, ..query });
    assert_eq!((first.locks.len(), first.more), (1, true));
    let lock = broker.lock_info(Space::Main, b"job/007").unwrap();
    assert_eq!((lock.mode, lock.holders[0].session.label().as_str()), (Some(Mode::Exclusive), "keeper"));
    let mut count = 0;
    let none: Option<()> = broker.for_each_lock(|_| {
        count += 1;
        std::ops::ControlFlow::Continue(())
    });
    assert_eq!((none, count), (None, 500));
}

#[test]
fn a_broker_that_is_shut_grants_nothing_and_ends_every_wait() {
    let broker = Broker::default();
    let (holder, waiter) = (broker.open(None), broker.open(None));
    holder.acquire(b"x", Mode::Exclusive, None).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| waiter.acquire(b"x", Mode::Exclusive, None));
        eventually("it waits", || broker.stats().waiting == 1);
        broker.shut();
        assert!(matches!(waiting.join().unwrap(), Err(AcquireError::Refused(_))));
    });
    holder.release(b"x").unwrap();
    assert!(matches!(waiter.acquire(b"x", Mode::Exclusive, None), Err(AcquireError::Refused(_))));
}

#[test]
fn a_broker_that_is_shut_grants_nothing_when_a_waiter_leaves_the_queue() {
    let broker = Broker::default();
    let (reader, writer, late) = (broker.open(None), broker.open(None), broker.open(None));
    reader.acquire(b"x", Mode::Shared, None).unwrap();
    assert_eq!(writer.enqueue(b"x", Mode::Exclusive), Ok(Attempt::Queued));
    assert_eq!(late.enqueue(b"x", Mode::Shared), Ok(Attempt::Queued));
    broker.shut();
    assert!(matches!(writer.wait(b"x", None), Err(AcquireError::Refused(_))));
    assert!(matches!(late.wait(b"x", None), Err(AcquireError::Refused(_))));
}

#[test]
fn a_wait_for_several_names_counts_once_for_each() {
    let broker = Broker::new(Limits { waits_per_session_max: 3, ..Limits::default() });
    let (holder, waiter) = (broker.open(None), broker.open(None));
    holder.acquire(b"x", Mode::Exclusive, None).unwrap();
    let names = |names: &[&str]| -> Vec<(LockName, Mode)> {
        names.iter().map(|&name| (name.into(), Mode::Exclusive)).collect()
    };
    let limit = Some(Duration::from_millis(1));
    assert_eq!(waiter.acquire_all(&names(&["x", "y", "z"]), limit), Err(AcquireError::TimedOut));
    let refused = waiter.acquire_all(&names(&["w", "x", "y", "z"]), limit);
    assert!(matches!(refused, Err(AcquireError::Refused(_))));
    waiter.acquire_all(&names(&["v", "w", "y", "z"]), limit).unwrap();
}

#[test]
fn a_broker_refuses_every_call_after_an_observer_panicked() {
    struct PanickingObserver;
    impl Observer for PanickingObserver {
        fn decided(&self, _: Ticket, _: Outcome) {
            panic!("an observer with a bug");
        }
        fn deliver(&self) {}
    }
    let broker = Broker::default();
    let holder = broker.open(None);
    holder.acquire(b"x", Mode::Exclusive, None).unwrap();
    let bad = broker.attach("bad", Arc::new(PanickingObserver));
    bad.acquire(&[(Key::main("x"), Mode::Exclusive)], Some(Wait { ticket: 1, limit: None })).unwrap();
    let crash = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| holder.release(b"x")));
    assert!(crash.is_err());
    assert!(broker.has_failed());
    assert!(!holder.is_alive());
    let other = broker.open(None);
    assert!(matches!(other.acquire(b"y", Mode::Exclusive, None), Err(AcquireError::Lost(_))));
    assert!(matches!(holder.release(b"x"), Err(ReleaseError::Lost(_))));
}

#[test]
fn a_grant_that_was_not_collected_is_lost_with_its_session() {
    let broker = Broker::default();
    let (holder, session) = (broker.open(None), broker.open(None));
    holder.acquire(b"x", Mode::Exclusive, None).unwrap();
    assert_eq!(session.enqueue(b"x", Mode::Exclusive), Ok(Attempt::Queued));
    holder.release(b"x").unwrap();
    session.close();
    assert!(matches!(session.wait(b"x", None), Err(AcquireError::Lost(_))));
}

#[test]
fn a_thread_that_waits_for_one_enqueued_request_does_not_collect_the_next() {
    let broker = Broker::default();
    let (holder, session) = (broker.open(None), broker.open(None));
    holder.acquire(b"x", Mode::Exclusive, None).unwrap();
    for _ in 0..500 {
        session.enqueue(b"x", Mode::Exclusive).unwrap();
        std::thread::scope(|scope| {
            // Waits for the first request or, if it starts late, for the second, which then stays
            // queued.
            let waits = scope.spawn(|| session.wait(b"x", Some(Duration::from_millis(2))));
            std::thread::yield_now();
            session.release(b"x").unwrap();
            session.enqueue(b"x", Mode::Exclusive).unwrap();
            let _ = waits.join().unwrap();
        });
        assert_eq!(session.wait(b"x", Some(Duration::ZERO)), Err(AcquireError::TimedOut));
        session.release(b"x").unwrap();
    }
}

#[test]
fn an_enqueued_request_that_was_granted_and_released_before_enqueue_returned_is_gone() {
    let broker = Broker::default();
    let (holder, session) = (broker.open(None), broker.open(None));
    for _ in 0..3000 {
        holder.acquire(b"x", Mode::Exclusive, None).unwrap();
        let returned = AtomicBool::new(false);
        let (attempt, released) = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                while !returned.load(Ordering::Acquire) {
                    if session.release(b"x").is_ok() {
                        return true;
                    }
                }
                false
            });
            let releases = scope.spawn(|| holder.release(b"x").unwrap());
            let attempt = session.enqueue(b"x", Mode::Exclusive).unwrap();
            returned.store(true, Ordering::Release);
            releases.join().unwrap();
            (attempt, other.join().unwrap())
        });
        if attempt == Attempt::Queued {
            let waited = session.wait(b"x", None);
            assert_eq!(waited.is_ok(), !released, "{waited:?}");
        }
        assert_eq!(session.release(b"x").is_ok(), !released);
        assert_eq!(broker.stats().locks, 0);
    }
}

/// A session with an enqueued conversion of `page` to exclusive, and another one that holds it
/// shared.
fn queued_to_convert(broker: &Broker) -> (LocalSession, LocalSession) {
    let (session, reader) = (broker.open(Some("session")), broker.open(Some("reader")));
    reader.acquire(b"page", Mode::Shared, None).unwrap();
    session.acquire(b"page", Mode::Shared, None).unwrap();
    assert_eq!(session.enqueue_convert(b"page", Mode::Exclusive), Ok(Attempt::Queued));
    (session, reader)
}

#[test]
fn an_enqueued_conversion_stays_ahead_of_later_requests() {
    let broker = Broker::default();
    let (session, reader) = queued_to_convert(&broker);
    let late = broker.open(None);
    let before = session.inspect(b"page").held;
    assert_eq!(late.enqueue(b"page", Mode::Shared), Ok(Attempt::Queued));
    for _ in 0..3 {
        assert_eq!(session.wait(b"page", Some(Duration::from_millis(1))), Err(AcquireError::TimedOut));
        assert_eq!(late.wait(b"page", Some(Duration::ZERO)), Err(AcquireError::TimedOut));
        assert_eq!(session.inspect(b"page").held, before);
    }
    reader.release(b"page").unwrap();
    let grant = session.wait(b"page", Some(Duration::ZERO)).unwrap();
    assert_eq!(session.inspect(b"page").held, Some(Held { mode: Mode::Exclusive, token: grant.token }));
    assert!(before.is_some_and(|before| before.token < grant.token));
    assert_eq!(session.wait(b"page", None), Err(AcquireError::NotHeld), "an outcome is collected once");
    assert_eq!(late.wait(b"page", Some(Duration::ZERO)), Err(AcquireError::TimedOut));
    assert_eq!(
        session.enqueue_convert(b"page", Mode::Shared).map(|attempt| attempt == Attempt::Queued),
        Ok(false)
    );
    assert!(late.wait(b"page", Some(Duration::ZERO)).is_ok());
}

#[test]
fn an_enqueued_conversion_that_is_cancelled_leaves_the_lock_and_a_release_ends_both() {
    let broker = Broker::default();
    let (session, reader) = queued_to_convert(&broker);
    let before = session.inspect(b"page").held;
    let deadlock = reader.enqueue_convert(b"page", Mode::Exclusive);
    assert!(
        matches!(&deadlock, Err(AcquireError::Deadlock(cycle)) if cycle.sessions == ["reader", "session"]),
        "{deadlock:?}"
    );
    session.cancel();
    assert_eq!((session.inspect(b"page").held, session.inspect(b"page").waiting), (before, false));
    assert_eq!(session.wait(b"page", None), Err(AcquireError::Cancelled));
    assert_eq!(session.wait(b"page", None), Err(AcquireError::NotHeld));

    assert_eq!(session.enqueue_convert(b"page", Mode::Exclusive), Ok(Attempt::Queued));
    session.cancel();
    session.release(b"page").unwrap();
    session.acquire(b"page", Mode::Shared, None).unwrap();
    assert_eq!(session.wait(b"page", None), Err(AcquireError::NotHeld), "the release ended it, too");

    assert_eq!(session.enqueue_convert(b"page", Mode::Exclusive), Ok(Attempt::Queued));
    assert_eq!(session.release(b"page"), Ok(Released::Hold));
    assert_eq!(session.inspect(b"page").held, None);
    assert_eq!(session.wait(b"page", None), Err(AcquireError::NotHeld));
    assert_eq!(broker.stats().waiting, 0);
}

#[test]
fn a_grant_of_a_conversion_is_not_reported_after_the_lock_was_made_shared_again() {
    let broker = Broker::default();
    let (session, reader) = queued_to_convert(&broker);
    reader.release(b"page").unwrap();
    session.convert(b"page", Mode::Shared, None).unwrap();
    assert!(reader.acquire(b"page", Mode::Shared, Some(Duration::ZERO)).is_ok());
    assert_eq!(session.wait(b"page", None), Err(AcquireError::NotHeld));
}

#[test]
fn a_conversion_that_races_with_a_cancel_is_reported_as_it_ended() {
    let broker = Broker::default();
    let (session, reader) = (broker.open(None), broker.open(None));
    for _ in 0..500 {
        reader.acquire(b"page", Mode::Shared, None).unwrap();
        session.acquire(b"page", Mode::Shared, None).unwrap();
        assert_eq!(session.enqueue_convert(b"page", Mode::Exclusive), Ok(Attempt::Queued));
        let waited = std::thread::scope(|scope| {
            let canceller = scope.spawn(|| session.cancel());
            let releaser = scope.spawn(|| reader.release(b"page").unwrap());
            let waited = session.wait(b"page", None);
            canceller.join().unwrap();
            releaser.join().unwrap();
            waited
        });
        let mode = session.inspect(b"page").held.map(|held| held.mode);
        match waited {
            Ok(_) => assert_eq!(mode, Some(Mode::Exclusive)),
            Err(error) => assert_eq!((error, mode), (AcquireError::Cancelled, Some(Mode::Shared))),
        }
        session.release(b"page").unwrap();
    }
}

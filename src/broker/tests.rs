//! The whole broker, lanes and table and shell, against the naive model in long random sequences; then
//! with threads, whose interleavings must not matter.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64 as StdAtomicU64;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::model::{End, Event, Model, Said};
use super::sync::{AtomicBool, AtomicUsize, Mutex, Ordering};
use super::*;

const SESSIONS: u32 = 4;
const NAMES: u8 = 4;

/// Notes what it is told.
#[derive(Default)]
struct Notes(Mutex<Vec<(Ticket, Outcome)>>);

impl Observer for Notes {
    fn decided(&self, ticket: Ticket, outcome: Outcome) {
        self.0.lock().push((ticket, outcome));
    }

    fn deliver(&self) {}
}

struct Driver {
    broker: Broker,
    model: Model,
    sessions: Vec<(Session, Arc<Notes>)>,
    last_token: u64,
}

impl Driver {
    fn new() -> Self {
        let broker = Broker::default();
        let sessions = (0..SESSIONS).map(|_| attach(&broker)).collect();
        Self { broker, model: Model::default(), sessions, last_token: 0 }
    }

    fn apply(&mut self, event: &Event) {
        let ticket = self.model.tickets + 1;
        let oldest = |model: &Model, s| model.waiting.iter().find(|w| w.session == s).map(|w| w.ticket);
        let said = match event {
            Event::Acquire { session, wants, wait } => {
                let wants: Vec<_> =
                    wants.iter().map(|&(name, mode)| (Key::main(&[name][..]), mode)).collect();
                let wait = wait.map(|_| Wait { ticket, limit: None });
                self.said(self.session(*session).acquire(&wants, wait))
            }
            Event::Convert { session, name, mode, wait } => {
                let wait = wait.map(|_| Wait { ticket, limit: None });
                self.said(self.session(*session).convert(Space::Main, &[*name], *mode, wait))
            }
            Event::Release { session, name } => match self.session(*session).release(Space::Main, &[*name]) {
                Ok(Released::Hold) => Said::ReleasedHold,
                Ok(Released::Place) => Said::ReleasedPlace,
                Err(_) => Said::NotHeld,
            },
            Event::Cancel { session } => {
                let oldest = oldest(&self.model, *session);
                assert_eq!(self.session(*session).cancel(oldest.unwrap_or(u64::MAX)), oldest.is_some());
                Said::Nothing
            }
            Event::Expire { session, .. } => {
                assert_eq!(self.session(*session).expire(), None);
                Said::Nothing
            }
            Event::End { session } => {
                self.session(*session).end();
                Said::Nothing
            }
        };
        let (expected, ends) = self.model.apply(event);
        assert_eq!(said, expected, "{event:?}");
        assert_eq!(self.ends(), ends, "{event:?}");
        if let Event::End { session } = event {
            self.sessions[*session as usize] = attach(&self.broker);
        }
        self.compare();
    }

    fn session(&self, at: u32) -> &Session {
        &self.sessions[at as usize].0
    }

    fn said(&self, attempt: Result<Attempt, AcquireError>) -> Said {
        match attempt {
            Ok(Attempt::Granted(grant)) => Said::Granted { orphaned: grant.orphaned, holders: grant.holders },
            Ok(Attempt::Busy) => Said::Busy,
            Ok(Attempt::Queued) => Said::Queued,
            Err(AcquireError::AlreadyHeld(held)) => Said::AlreadyHeld(held.mode),
            Err(AcquireError::AlreadyWaiting) => Said::AlreadyWaiting,
            Err(AcquireError::NotHeld) => Said::NotHeld,
            Err(AcquireError::Deadlock(circle)) => {
                assert!(circle.len() > 1 && circle.len() <= SESSIONS as usize, "{circle:?}");
                Said::Deadlock
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn ends(&mut self) -> Vec<(u32, u64, End)> {
        let mut ends = Vec::new();
        for (session, (_, notes)) in (0..).zip(&self.sessions) {
            for (ticket, outcome) in notes.0.lock().drain(..) {
                let end = match outcome {
                    Outcome::Granted(grant) => {
                        self.last_token = self.last_token.max(grant.token);
                        End::Granted { orphaned: grant.orphaned }
                    }
                    Outcome::TimedOut => End::TimedOut,
                    Outcome::Cancelled => End::Cancelled,
                    Outcome::Lost | Outcome::Stopping => End::Lost,
                };
                ends.push((session, ticket, end));
            }
        }
        ends.sort_unstable();
        ends
    }

    fn compare(&self) {
        for name in 0..NAMES {
            for session in 0..SESSIONS {
                let seen = self.session(session).inspect(Space::Main, &[name]);
                let held = seen.held.map(|held| held.mode);
                assert_eq!(held, self.model.held.get(&(name, session)).copied());
                assert_eq!(seen.holders, self.model.holders(name));
                assert_eq!(seen.waiters, self.model.queue(name).len());
                assert_eq!(seen.orphaned, self.model.orphaned.contains(&name));
            }
        }
        let all = PageQuery { space: Space::Main, prefix: LockName::new(b""), after: None, limit: 100 };
        let listed: BTreeMap<LockName, (usize, usize)> = self
            .broker
            .page(&all)
            .locks
            .into_iter()
            .map(|lock| (lock.key.name, (lock.holders.len(), lock.waiters.len())))
            .collect();
        let count = |name: u8| (self.model.holders(name), self.model.queue(name).len());
        let expected: BTreeMap<LockName, (usize, usize)> = (0..NAMES)
            .filter(|&name| count(name) != (0, 0))
            .map(|name| (LockName::new(&[name]), count(name)))
            .collect();
        assert_eq!(listed, expected);
        let stats = self.broker.stats();
        assert_eq!(stats.waiting, self.model.waiting.len());
        assert_eq!(stats.locks + stats.shared_locks, expected.values().filter(|count| count.0 > 0).count());
        for (session, (attached, _)) in (0..).zip(&self.sessions) {
            let held = self.model.held.keys().filter(|at| at.1 == session).count();
            assert_eq!(attached.info().held.load(Ordering::Relaxed), held);
        }
    }
}

fn attach(broker: &Broker) -> (Session, Arc<Notes>) {
    let notes = Arc::new(Notes::default());
    (broker.attach("test", notes.clone()), notes)
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Exclusive), Just(Mode::Shared)]
}

fn event() -> impl Strategy<Value = Event> {
    let session = 0..SESSIONS;
    let wait = prop_oneof![1 => Just(None), 3 => Just(Some(None))];
    let set = prop::collection::btree_map(0..NAMES, mode(), 1..=3);
    let set = set.prop_map(|wants| wants.into_iter().collect::<Vec<_>>());
    prop_oneof![
        8 => (session.clone(), 0..NAMES, mode(), wait.clone())
            .prop_map(|(session, name, mode, wait)| Event::Acquire { session, wants: vec![(name, mode)], wait }),
        3 => (session.clone(), set, wait.clone())
            .prop_map(|(session, wants, wait)| Event::Acquire { session, wants, wait }),
        3 => (session.clone(), 0..NAMES, mode(), wait)
            .prop_map(|(session, name, mode, wait)| Event::Convert { session, name, mode, wait }),
        9 => (session.clone(), 0..NAMES).prop_map(|(session, name)| Event::Release { session, name }),
        1 => session.clone().prop_map(|session| Event::Cancel { session }),
        1 => session.prop_map(|session| Event::End { session }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn long_random_sequences_agree_with_the_model(events in prop::collection::vec(event(), 1..250)) {
        let mut driver = Driver::new();
        for event in &events {
            driver.apply(event);
        }
    }
}

/// Runs `work` in so many threads, each with its number.
fn in_threads(count: usize, work: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        for number in 0..count {
            let work = &work;
            scope.spawn(move || work(number));
        }
    });
}

#[expect(clippy::disallowed_methods, reason = "a deadline, so that a failing test ends")]
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::yield_now();
    }
}

/// Says so if two are inside at once.
#[derive(Default)]
struct Room(AtomicBool);

impl Room {
    fn stay(&self) {
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
    let room = Room::default();
    let granted = AtomicUsize::new(0);
    in_threads(6, |number| {
        let session = broker.open(None);
        for round in 0..300 {
            let limit = Duration::from_micros(((number + round) % 7 * 10) as u64);
            match session.acquire(b"room", Mode::Exclusive, Some(limit)) {
                Ok(_) => {
                    room.stay();
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
    let room = Room::default();
    let done = AtomicBool::new(false);
    let sessions: Vec<LocalSession> = (0..4).map(|_| broker.open(None)).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
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
                        room.stay();
                        session.release(b"room").unwrap();
                    }
                    Err(error) => assert_eq!(error, AcquireError::Cancelled),
                }
            }
        });
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(broker.stats().waiting, 0);
}

#[test]
fn sessions_that_end_in_the_midst_leave_nothing_behind() {
    let broker = Broker::default();
    in_threads(6, |number| {
        for round in 0..200 {
            let session = broker.open(None);
            let name = [u8::try_from((number + round) % 3).unwrap()];
            std::thread::scope(|scope| {
                scope.spawn(|| session.acquire(&name, Mode::Exclusive, None));
                let other = [(LockName::new(b"0"), Mode::Shared), (LockName::new(&name), Mode::Shared)];
                let session = &session;
                scope.spawn(move || session.acquire_all(&other, None));
                if round % 2 == 0 {
                    std::thread::yield_now();
                }
                session.close();
            });
            assert!(!session.stands());
        }
    });
    let stats = broker.stats();
    assert_eq!((stats.locks, stats.shared_locks, stats.waiting, stats.sessions), (0, 0, 0, 0));
}

#[test]
fn neighbours_that_take_two_forks_at_once_never_starve() {
    const PLACES: usize = 5;
    let broker = Broker::default();
    let forks: [Room; PLACES] = Default::default();
    in_threads(PLACES, |place| {
        let session = broker.open(None);
        let (left, right) = (place, (place + 1) % PLACES);
        let name = |fork: usize| LockName::from(format!("fork {fork}").as_str());
        let wants = [(name(left), Mode::Exclusive), (name(right), Mode::Exclusive)];
        for _ in 0..200 {
            session.acquire_all(&wants, None).unwrap();
            forks[left].stay();
            forks[right].stay();
            session.release(name(right).as_bytes()).unwrap();
            session.release(name(left).as_bytes()).unwrap();
        }
    });
    assert_eq!(broker.stats().deadlocks, 0);
}

#[test]
fn an_upgrade_waits_for_the_other_readers_only() {
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
            Err(AcquireError::Deadlock(circle)) if circle.contains(&"writer".to_owned())
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
fn the_next_holder_learns_that_the_last_one_vanished() {
    let broker = Broker::default();
    let names: Vec<String> = (0..3000).map(|n| format!("a name of its own {n}")).collect();
    let gone = broker.open(None);
    for name in &names {
        assert!(!gone.acquire(name.as_bytes(), Mode::Exclusive, None).unwrap().orphaned);
    }
    drop(gone);
    assert_eq!(broker.stats().orphans, 3000);
    assert_eq!(broker.stats().locks, 0);
    let next = broker.open(None);
    for name in &names {
        let name = name.as_bytes();
        // A reader hears of it and leaves the mark for the next writer.
        assert!(next.acquire(name, Mode::Shared, None).unwrap().orphaned);
        next.release(name).unwrap();
        assert!(next.acquire(name, Mode::Exclusive, None).unwrap().orphaned);
        next.release(name).unwrap();
        assert!(!next.acquire(name, Mode::Exclusive, None).unwrap().orphaned);
    }
}

#[test]
fn limits_refuse_and_take_nothing_away() {
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
fn pages_follow_each_other_without_gap() {
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
    let lock = broker.look_at(Space::Main, b"job/007").unwrap();
    assert_eq!((lock.mode, lock.holders[0].session.label().as_str()), (Some(Mode::Exclusive), "keeper"));
    let mut count = 0;
    let none: Option<()> = broker.walk(|_| {
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
fn a_broker_that_is_shut_lets_nobody_in_behind_one_who_leaves() {
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
fn waits_are_limited_by_the_names_waited_for() {
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
fn a_broker_that_panicked_refuses_everything_from_then_on() {
    struct Bad;
    impl Observer for Bad {
        fn decided(&self, _: Ticket, _: Outcome) {
            panic!("an observer with a bug");
        }
        fn deliver(&self) {}
    }
    let broker = Broker::default();
    let holder = broker.open(None);
    holder.acquire(b"x", Mode::Exclusive, None).unwrap();
    let bad = broker.attach("bad", Arc::new(Bad));
    bad.acquire(&[(Key::main("x"), Mode::Exclusive)], Some(Wait { ticket: 1, limit: None })).unwrap();
    let crash = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| holder.release(b"x")));
    assert!(crash.is_err());
    assert!(broker.has_failed());
    assert!(!holder.stands());
    let other = broker.open(None);
    assert!(matches!(other.acquire(b"y", Mode::Exclusive, None), Err(AcquireError::Lost(_))));
    assert!(matches!(holder.release(b"x"), Err(ReleaseError::Lost(_))));
}

//! Grants that cross a cancel or a time-out: each is delivered or given back, and there are never
//! two holders.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use lockd::broker::{AcquireError, Grant, Mode, Released};
use lockd::client;

use crate::support::*;

/// A critical section: entered by one exclusive holder, or by several shared ones.
#[derive(Default)]
struct Room {
    alone: AtomicUsize,
    sharing: AtomicUsize,
}

impl Room {
    fn alone<R>(&self, visit: impl FnOnce() -> R) -> R {
        assert_eq!((self.alone.fetch_add(1, SeqCst), self.sharing.load(SeqCst)), (0, 0), "not alone");
        let result = visit();
        assert_eq!((self.alone.fetch_sub(1, SeqCst), self.sharing.load(SeqCst)), (1, 0), "not alone");
        result
    }

    fn share<R>(&self, visit: impl FnOnce() -> R) -> R {
        self.sharing.fetch_add(1, SeqCst);
        assert_eq!(self.alone.load(SeqCst), 0, "another session holds the lock exclusively");
        let result = visit();
        assert_eq!(self.alone.load(SeqCst), 0, "another session holds the lock exclusively");
        self.sharing.fetch_sub(1, SeqCst);
        result
    }
}

/// How many calls ended in each way.
#[derive(Debug, Default)]
struct Ends {
    granted: AtomicUsize,
    timed_out: AtomicUsize,
    cancelled: AtomicUsize,
}

impl Ends {
    /// Counts the result of a call; returns whether it was a grant.
    fn count(&self, result: Result<Grant, AcquireError>) -> bool {
        match result {
            Ok(_) => self.granted.fetch_add(1, SeqCst),
            Err(AcquireError::TimedOut) => self.timed_out.fetch_add(1, SeqCst),
            Err(AcquireError::Cancelled) => self.cancelled.fetch_add(1, SeqCst),
            Err(AcquireError::Deadlock(_)) => 0,
            Err(ref error) => panic!("{error}"),
        };
        result.is_ok()
    }

    /// Waits until calls have ended in every way five hundred times, then stops the threads.
    fn until_all_are_many(&self, stop: &AtomicBool) {
        let deadline = Instant::now() + 3 * SOON;
        let ends = [&self.granted, &self.timed_out, &self.cancelled];
        let are_few = || ends.iter().any(|count| count.load(SeqCst) < 500);
        while are_few() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, SeqCst);
        assert!(!are_few(), "too few of some: {self:?}");
    }
}

/// A cheap source of pseudo-random numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }

    fn micros(&mut self, sides: u64) -> Duration {
        Duration::from_micros(self.below(sides))
    }
}

/// Sessions compete for one lock while their waits end by grant, time-out and cancel at the same
/// time.
#[test]
fn a_grant_that_crosses_a_cancel_or_a_time_out_lets_no_other_session_in() {
    let (_server, url) = serve();
    let (room, stop, ends) = (Room::default(), AtomicBool::new(false), Ends::default());
    let sessions: Vec<client::RemoteSession> = (0..4).map(|_| connect(&url)).collect();
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (seed, session) in (1..).zip(&sessions) {
            let (room, stop, ends) = (&room, &stop, &ends);
            threads.push(scope.spawn(move || {
                let mut dice = Dice(seed);
                while !stop.load(SeqCst) {
                    let limit = (dice.below(4) > 0).then(|| dice.micros(300));
                    if ends.count(session.acquire(b"room", Mode::Exclusive, limit)) {
                        room.alone(thread::yield_now);
                        assert_eq!(session.release(b"room"), Ok(Released::Hold));
                    }
                }
            }));
            threads.push(scope.spawn(move || {
                let mut dice = Dice(seed + 100);
                while !stop.load(SeqCst) {
                    thread::sleep(dice.micros(200));
                    session.cancel();
                }
            }));
        }
        // A session that waits without limit waits for the others, which all release.
        ends.until_all_are_many(&stop);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    let seen = connect(&url).acquire(b"room", Mode::Exclusive, Some(SOON));
    assert!(seen.is_ok(), "a lock was left behind: {seen:?}");
}

/// The same with conversions: giving up an upgrade must neither lose the shared lock nor keep
/// others out.
#[test]
fn an_upgrade_that_is_given_up_keeps_what_was_held() {
    let (_server, url) = serve();
    let (room, stop, ends) = (Room::default(), AtomicBool::new(false), Ends::default());
    let sessions: Vec<client::RemoteSession> = (0..4).map(|_| connect(&url)).collect();
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (seed, session) in (1..).zip(&sessions) {
            let (room, stop, ends) = (&room, &stop, &ends);
            threads.push(scope.spawn(move || {
                let mut dice = Dice(seed);
                while !stop.load(SeqCst) {
                    let shared = session.acquire(b"room", Mode::Shared, Some(SOON));
                    if shared == Err(AcquireError::Cancelled) {
                        continue;
                    }
                    shared.unwrap();
                    room.share(thread::yield_now);
                    let limit = Some(dice.micros(3000));
                    if ends.count(session.convert(b"room", Mode::Exclusive, limit)) {
                        room.alone(thread::yield_now);
                        session.convert(b"room", Mode::Shared, NOW).unwrap();
                    }
                    room.share(thread::yield_now);
                    assert_eq!(session.release(b"room"), Ok(Released::Hold));
                }
            }));
            threads.push(scope.spawn(move || {
                let mut dice = Dice(seed + 100);
                while !stop.load(SeqCst) {
                    thread::sleep(dice.micros(2000));
                    session.cancel();
                }
            }));
        }
        ends.until_all_are_many(&stop);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert!(connect(&url).acquire(b"room", Mode::Exclusive, Some(SOON)).is_ok());
}

/// The holders of a lock, each with what its mode promises.
#[derive(Default)]
struct Holders(AtomicUsize);

impl Holders {
    fn check(&self, mode: Mode) {
        let holders = self.0.load(SeqCst);
        let most = mode.holders_max().map_or(usize::MAX, |most| most as usize);
        assert!(holders <= most, "{holders} holders, but one of them was promised: {mode}");
    }
}

/// The same with limits: no holder ever has more company than its own mode allows, whatever limits
/// the others name, and however its waits and conversions end.
#[test]
fn slots_that_cross_cancels_and_time_outs_are_never_too_many_and_none_is_lost() {
    const MODES: [Mode; 4] =
        [Mode::Exclusive, Mode::at_most(2).unwrap(), Mode::at_most(3).unwrap(), Mode::Shared];
    let (_server, url) = serve();
    let (holders, stop, ends) = (Holders::default(), AtomicBool::new(false), Ends::default());
    let sessions: Vec<client::RemoteSession> = (0..5).map(|_| connect(&url)).collect();
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (seed, session) in (1..).zip(&sessions) {
            let (holders, stop, ends) = (&holders, &stop, &ends);
            threads.push(scope.spawn(move || {
                let mut dice = Dice(seed);
                while !stop.load(SeqCst) {
                    let mut mode = dice.one_of(&MODES[1..3]);
                    if !ends.count(session.acquire(b"slots", mode, Some(dice.micros(1000)))) {
                        continue;
                    }
                    holders.0.fetch_add(1, SeqCst);
                    for _ in 0..3 {
                        holders.check(mode);
                        thread::yield_now();
                        holders.check(mode);
                        let wanted = dice.one_of(&MODES);
                        if ends.count(session.convert(b"slots", wanted, Some(dice.micros(1000)))) {
                            mode = wanted;
                        }
                    }
                    holders.check(mode);
                    holders.0.fetch_sub(1, SeqCst);
                    assert_eq!(session.release(b"slots"), Ok(Released::Hold));
                }
            }));
            threads.push(scope.spawn(move || {
                let mut dice = Dice(seed + 100);
                while !stop.load(SeqCst) {
                    thread::sleep(dice.micros(2000));
                    session.cancel();
                }
            }));
        }
        ends.until_all_are_many(&stop);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    let seen = connect(&url).acquire(b"slots", Mode::Exclusive, Some(SOON));
    assert!(seen.is_ok(), "a slot was left behind: {seen:?}");
}

//! Observers that do in `deliver` what they may: anything, for no lock is held then; and what they may not.

#![expect(clippy::disallowed_methods, reason = "what must not hang is watched from another thread")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::super::sync::{AtomicU64, Mutex};
use super::super::*;

/// Ends a session when it has something to deliver.
struct Ends(Mutex<Option<Session>>);

impl Observer for Ends {
    fn decided(&self, _: Ticket, _: Outcome) {}

    fn deliver(&self) {
        let session = self.0.lock().take();
        if let Some(session) = session {
            session.end();
            assert_eq!(session.expire(), None);
        }
    }
}

/// Panics when it has something to deliver for the first time, and counts.
#[derive(Default)]
struct Panics {
    granted: AtomicU64,
    delivered: AtomicU64,
}

impl Observer for Panics {
    fn decided(&self, _: Ticket, outcome: Outcome) {
        self.granted.fetch_add(u64::from(matches!(outcome, Outcome::Granted(_))), Relaxed);
    }

    fn deliver(&self) {
        let before = self.delivered.fetch_add(1, Relaxed);
        assert_ne!(before, 0, "the observer gives up");
    }
}

fn wait(ticket: Ticket) -> Option<Wait> {
    Some(Wait { ticket, limit: None })
}

#[test]
fn who_is_told_of_a_grant_may_end_a_session() {
    let broker = Broker::default();
    let other = broker.attach("other", Arc::new(Panics::default()));
    other.try_acquire(Space::Main, b"y", Mode::Exclusive).unwrap();
    let holder = broker.attach("holder", Arc::new(Panics::default()));
    holder.try_acquire(Space::Main, b"x", Mode::Exclusive).unwrap();
    let waiter = broker.attach("waiter", Arc::new(Ends(Mutex::new(Some(other)))));
    let wants = [(Key::main(&b"x"[..]), Mode::Exclusive)];
    assert_eq!(waiter.acquire(&wants, wait(1)), Ok(Attempt::Queued));
    let (tell, told) = channel();
    std::thread::spawn(move || {
        holder.end();
        tell.send(()).unwrap();
    });
    told.recv_timeout(Duration::from_secs(20)).expect("the session ends");
    assert_eq!(broker.look_at(Space::Main, b"y").map(|lock| lock.holders.len()), None);
}

#[test]
fn grants_that_an_observer_s_panic_has_put_off_are_made_by_those_who_come_next() {
    const WAITERS: u64 = 2000;
    let broker = Broker::default();
    let observer = Arc::new(Panics::default());
    let holder = broker.attach("holder", observer.clone());
    holder.try_acquire(Space::Main, b"x", Mode::Exclusive).unwrap();
    let wants = [(Key::main(&b"x"[..]), Mode::Shared)];
    let waiters: Vec<Session> = (0..WAITERS).map(|_| broker.attach("waiter", observer.clone())).collect();
    for waiter in &waiters {
        assert_eq!(waiter.acquire(&wants, wait(1)), Ok(Attempt::Queued));
    }
    assert!(catch_unwind(AssertUnwindSafe(|| holder.release(Space::Main, b"x"))).is_err());
    assert!(!broker.has_failed() && observer.granted.load(Relaxed) < WAITERS);
    for _ in 0..100 {
        let come = [(Key::main(&b"x"[..]), Mode::Exclusive)];
        assert_eq!(holder.acquire(&come, None), Ok(Attempt::Busy));
    }
    assert_eq!(observer.granted.load(Relaxed), WAITERS);
}

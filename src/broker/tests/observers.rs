//! Observers that do in `deliver` what they are allowed to, which is anything, since no lock is
//! held then; and observers that panic.

#![expect(clippy::disallowed_methods, reason = "another thread notices if a call hangs")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::broker::*;
use crate::os::sync::{AtomicBool, Mutex};

/// A test that fails by hanging ends after this.
const DEADLINE: Duration = Duration::from_secs(60);

/// Ends a session in `deliver`.
struct EndingObserver(Mutex<Option<ObservedSession>>);

impl Observer for EndingObserver {
    fn decided(&self, _: Ticket, _: Outcome) {}

    fn deliver(&self) {
        let session = self.0.lock().take();
        if let Some(session) = session {
            session.abandon();
            assert_eq!(session.expire(), None);
        }
    }
}

/// Reports when it is told of a grant, and returns only when the test lets it.
struct SlowObserver {
    begun: Sender<()>,
    go_on: Mutex<Receiver<()>>,
    told: AtomicBool,
}

impl SlowObserver {
    fn new() -> (Arc<Self>, Receiver<()>, Sender<()>) {
        let (begun, has_begun) = channel();
        let (lets_go_on, go_on) = channel();
        (
            Arc::new(Self { begun, go_on: Mutex::new(go_on), told: AtomicBool::new(false) }),
            has_begun,
            lets_go_on,
        )
    }
}

impl Observer for SlowObserver {
    fn decided(&self, _: Ticket, _: Outcome) {
        self.begun.send(()).unwrap();
        self.go_on.lock().recv_timeout(DEADLINE).expect("the test lets it go on");
        self.told.store(true, Release);
    }

    fn deliver(&self) {}
}

/// Panics in `deliver`.
struct PanickingObserver;

impl Observer for PanickingObserver {
    fn decided(&self, _: Ticket, _: Outcome) {}

    fn deliver(&self) {
        panic!("an observer with a bug");
    }
}

struct IgnoringObserver;

impl Observer for IgnoringObserver {
    fn decided(&self, _: Ticket, _: Outcome) {}

    fn deliver(&self) {}
}

fn wait(ticket: Ticket) -> Option<Wait> {
    Some(Wait { ticket, limit: None })
}

#[test]
fn an_observer_that_is_told_of_a_grant_may_end_a_session() {
    let broker = Broker::default();
    let other = broker.attach("other", Arc::new(IgnoringObserver));
    other.try_acquire(Space::Main, b"y", Mode::Exclusive).unwrap();
    let holder = broker.attach("holder", Arc::new(IgnoringObserver));
    holder.try_acquire(Space::Main, b"x", Mode::Exclusive).unwrap();
    let waiter = broker.attach("waiter", Arc::new(EndingObserver(Mutex::new(Some(other)))));
    let wants = [(Key::main(&b"x"[..]), Mode::Exclusive)];
    assert_eq!(waiter.acquire(&wants, wait(1)), Ok(Attempt::Queued));
    let (tell, told) = channel();
    std::thread::spawn(move || {
        holder.abandon();
        tell.send(()).unwrap();
    });
    told.recv_timeout(DEADLINE).expect("the session ends");
    assert_eq!(broker.lock_info(Space::Main, b"y").map(|lock| lock.holders.len()), None);
}

/// A broker in which a session holds `x`, and a session with this observer waits for it.
fn held_and_waited_for(observer: Arc<dyn Observer>) -> (Broker, ObservedSession, Arc<ObservedSession>) {
    let broker = Broker::default();
    let holder = broker.attach("holder", Arc::new(IgnoringObserver));
    holder.try_acquire(Space::Main, b"x", Mode::Exclusive).unwrap();
    let waiter = Arc::new(broker.attach("waiter", observer));
    let wants = [(Key::main(&b"x"[..]), Mode::Exclusive)];
    assert_eq!(waiter.acquire(&wants, wait(1)), Ok(Attempt::Queued));
    (broker, holder, waiter)
}

#[test]
fn a_slow_observer_does_not_delay_other_sessions() {
    let (observer, has_begun, lets_go_on) = SlowObserver::new();
    let (broker, holder, _waiter) = held_and_waited_for(observer);
    let (tell, told) = channel();
    std::thread::spawn(move || holder.release(Space::Main, b"x"));
    has_begun.recv_timeout(DEADLINE).expect("the waiter is told");
    std::thread::spawn(move || {
        let (one, other) = (broker.open(None), broker.open(None));
        one.acquire(b"y", Mode::Exclusive, None).unwrap();
        assert_eq!(other.enqueue(b"y", Mode::Exclusive), Ok(Attempt::Queued));
        one.release(b"y").unwrap();
        tell.send(other.wait(b"y", None).is_ok() && broker.stats().sessions == 4).unwrap();
    });
    assert_eq!(told.recv_timeout(DEADLINE), Ok(true));
    lets_go_on.send(()).unwrap();
}

#[test]
fn no_call_of_a_session_returns_before_its_observer_has_been_told_of_earlier_outcomes() {
    let (observer, has_begun, lets_go_on) = SlowObserver::new();
    let (_broker, holder, waiter) = held_and_waited_for(observer.clone());
    std::thread::spawn(move || holder.release(Space::Main, b"x"));
    has_begun.recv_timeout(DEADLINE).expect("the waiter is told");
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let released = waiter.release(Space::Main, b"x");
        tell.send((released, observer.told.load(Acquire))).unwrap();
    });
    // The observer has not returned yet, so neither has the release.
    assert!(told.recv_timeout(Duration::from_millis(50)).is_err());
    lets_go_on.send(()).unwrap();
    assert_eq!(told.recv_timeout(DEADLINE), Ok((Ok(Released::Hold), true)));
}

#[test]
fn a_broker_has_failed_if_an_observer_panics_in_deliver() {
    let (broker, holder, _waiter) = held_and_waited_for(Arc::new(PanickingObserver));
    assert!(catch_unwind(AssertUnwindSafe(|| holder.release(Space::Main, b"x"))).is_err());
    assert!(broker.has_failed());
}

//! How every scenario is set up: a broker, its sessions, and what they hold and wait for before the
//! threads start; and what must hold when the threads are done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::broker::*;
use crate::os::sync::{AtomicBool, IS_MODEL_CHECKED, Ordering, ProcessMutex, thread};

/// The names that scenarios use.
const NAMES: [&str; 3] = ["x", "y", "z"];

/// The first token of a broker that is, or was, in its grace. Lower ones are those of earlier runs.
const TOKENS_START: u64 = 100;

/// A broker and its first sessions, which are called "a", "b" and "c".
pub(super) fn sessions<const N: usize>() -> (Broker, [Arc<TestSession>; N]) {
    sessions_of(Broker::default())
}

/// The same for a broker that is in its grace.
pub(super) fn sessions_in_grace<const N: usize>() -> (Broker, [Arc<TestSession>; N]) {
    sessions_of(Broker::resumed(Limits::default(), &(TOKENS_START..1000), Some(Duration::from_secs(1))))
}

fn sessions_of<const N: usize>(broker: Broker) -> (Broker, [Arc<TestSession>; N]) {
    let sessions = std::array::from_fn(|number| TestSession::open(&broker, ["a", "b", "c"][number]));
    (broker, sessions)
}

/// Two sessions, of which the first holds `x` exclusively.
pub(super) fn held() -> (Broker, [Arc<TestSession>; 2]) {
    let (broker, [a, b]) = sessions();
    a.hold("x", Mode::Exclusive);
    (broker, [a, b])
}

/// Two sessions, of which the first holds `x` and the second waits for it, with ticket 1.
pub(super) fn held_and_waited_for() -> (Broker, [Arc<TestSession>; 2]) {
    let (broker, [a, b]) = held();
    b.wait_for(1, &["x"], Mode::Exclusive);
    (broker, [a, b])
}

/// A session, and everything its observer was told.
pub(super) struct TestSession {
    pub(super) session: ObservedSession,
    observer: Arc<RecordingObserver>,
}

#[derive(Default)]
pub(super) struct RecordingObserver {
    // Not a mutex of the model checker: recording must not add orders to explore.
    record: ProcessMutex<Record>,
}

#[derive(Default)]
struct Record {
    outcomes: BTreeMap<Ticket, Outcome>,
    /// An outcome was told that was not delivered since.
    undelivered: bool,
    /// The tickets of requests that were queued.
    queued: BTreeSet<Ticket>,
}

impl Observer for RecordingObserver {
    fn decided(&self, ticket: Ticket, outcome: Outcome) {
        let mut record = self.record.lock();
        let before = record.outcomes.insert(ticket, outcome);
        assert_eq!(before, None, "the wait {ticket} ended twice");
        record.undelivered = true;
    }

    fn deliver(&self) {
        self.record.lock().undelivered = false;
    }
}

impl RecordingObserver {
    /// The outcome of the wait, if this observer was told it, and has delivered it.
    pub(super) fn outcome(&self, ticket: Ticket) -> Option<Outcome> {
        let record = self.record.lock();
        assert!(!record.undelivered, "an outcome was not delivered");
        record.outcomes.get(&ticket).copied()
    }
}

impl TestSession {
    pub(super) fn open(broker: &Broker, label: &str) -> Arc<Self> {
        assert!(IS_MODEL_CHECKED);
        let observer = Arc::new(RecordingObserver::default());
        Arc::new(Self { session: broker.attach(label, observer.clone()), observer })
    }

    /// Acquires these names, or waits for them with `ticket` and without a time limit.
    pub(super) fn acquire(
        &self,
        ticket: Ticket,
        names: &[&str],
        mode: Mode,
    ) -> Result<Attempt, AcquireError> {
        // One name is tried first, as every caller does.
        if let [name] = names {
            match self.session.try_acquire(Space::Main, name.as_bytes(), mode) {
                Err(AcquireError::TimedOut | AcquireError::NotYet(_)) => {}
                answer => return answer.map(Attempt::Granted),
            }
        }
        self.queue_for(names, mode, Wait { ticket, limit: None })
    }

    fn queue_for(&self, names: &[&str], mode: Mode, wait: Wait) -> Result<Attempt, AcquireError> {
        let wants: Vec<_> = names.iter().map(|&name| (Key::main(name), mode)).collect();
        self.recorded(wait.ticket, self.session.acquire(&wants, Some(wait)))
    }

    /// Acquires `x` for a thread that runs against others, and passes over the answer.
    pub(super) fn acquire_any(&self, names: &[&str]) {
        let _ = self.acquire(1, names, Mode::Exclusive);
    }

    pub(super) fn try_acquire(&self, name: &str) -> Result<Grant, AcquireError> {
        self.session.try_acquire(Space::Main, name.as_bytes(), Mode::Exclusive)
    }

    /// Makes a shared lock exclusive, or waits for that with `ticket`.
    pub(super) fn upgrade(&self, ticket: Ticket, name: &str) -> Result<Attempt, AcquireError> {
        self.convert(ticket, name, Mode::Exclusive)
    }

    /// Converts a lock to `mode`, or waits for that with `ticket`.
    pub(super) fn convert(&self, ticket: Ticket, name: &str, mode: Mode) -> Result<Attempt, AcquireError> {
        let wait = Some(Wait { ticket, limit: None });
        let attempt = self.session.convert(Space::Main, name.as_bytes(), mode, wait);
        self.recorded(ticket, attempt)
    }

    fn recorded(
        &self,
        ticket: Ticket,
        attempt: Result<Attempt, AcquireError>,
    ) -> Result<Attempt, AcquireError> {
        if attempt == Ok(Attempt::Queued) {
            self.observer.record.lock().queued.insert(ticket);
        }
        attempt
    }

    /// Set-up: acquires a name that is free.
    pub(super) fn hold(&self, name: &str, mode: Mode) {
        self.session.try_acquire(Space::Main, name.as_bytes(), mode).unwrap();
    }

    /// Set-up: waits for names that are not free.
    pub(super) fn wait_for(&self, ticket: Ticket, names: &[&str], mode: Mode) {
        assert_eq!(self.acquire(ticket, names, mode), Ok(Attempt::Queued));
    }

    /// Set-up: waits for a name that is not free, for up to `limit`.
    pub(super) fn wait_for_up_to(&self, ticket: Ticket, name: &str, limit: Duration) {
        let wait = Wait { ticket, limit: Some(limit) };
        assert_eq!(self.queue_for(&[name], Mode::Exclusive, wait), Ok(Attempt::Queued));
    }

    /// Set-up: has a name that this session holds deferred to the table, by a session that waits
    /// for it and cancels.
    pub(super) fn defer(&self, broker: &Broker, name: &str) {
        let other = Self::open(broker, "other");
        other.wait_for(0, &[name], Mode::Exclusive);
        assert!(other.session.cancel(0));
    }

    /// Gets a lock back that it held before the grace.
    pub(super) fn reclaim(&self, name: &str, mode: Mode) -> Result<(), ReclaimError> {
        self.session.reclaim(Space::Main, name.as_bytes(), mode, TOKENS_START - 1)
    }

    pub(super) fn release(&self, name: &str) -> Result<Released, ReleaseError> {
        self.session.release(Space::Main, name.as_bytes())
    }

    pub(super) fn holds(&self, name: &str) -> bool {
        self.session.inspect(Space::Main, name.as_bytes()).held.is_some()
    }

    /// Gives the session another observer, which it returns.
    pub(super) fn change_observer(&self) -> Arc<RecordingObserver> {
        let observer = Arc::new(RecordingObserver::default());
        self.session.set_observer(observer.clone());
        observer
    }

    /// The outcome of the wait, if it has ended.
    pub(super) fn outcome(&self, ticket: Ticket) -> Option<Outcome> {
        self.observer.record.lock().outcomes.get(&ticket).copied()
    }

    /// Whether the wait ended in a grant.
    pub(super) fn was_granted(&self, ticket: Ticket) -> bool {
        matches!(self.outcome(ticket), Some(Outcome::Granted(_)))
    }

    /// Whether a request with ticket 1 was granted, at once or after a wait.
    pub(super) fn got(&self, attempt: &Result<Attempt, AcquireError>) -> bool {
        matches!(attempt, Ok(Attempt::Granted(_))) != (*attempt == Ok(Attempt::Queued) && self.was_granted(1))
    }

    /// Asserts what must hold when all threads are done: the waits in `waiting` go on, every other
    /// wait has ended exactly once, every outcome has been delivered, and the locks are counted
    /// correctly.
    pub(super) fn audit(&self, waiting: &[Ticket]) {
        let record = self.observer.record.lock();
        assert!(!record.undelivered, "an outcome was not delivered");
        for ticket in &record.queued {
            let ended = record.outcomes.contains_key(ticket);
            assert_ne!(ended, waiting.contains(ticket), "the wait {ticket}: {:?}", record.outcomes);
        }
        let unexpected = record.outcomes.keys().find(|ticket| !record.queued.contains(ticket));
        assert_eq!(unexpected, None, "an outcome was told of a request that never waited");
        drop(record);
        if self.session.is_alive() {
            let held = NAMES.iter().filter(|name| self.holds(name)).count();
            assert_eq!(self.session.info().holdings.total(), held, "locks are counted wrong");
        }
    }
}

/// A critical section, which at most one thread may be in.
pub(super) struct CriticalSection(AtomicBool);

impl CriticalSection {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(false)))
    }

    pub(super) fn pass(&self) {
        assert!(!self.0.swap(true, Ordering::AcqRel), "two holders of one exclusive lock");
        self.0.store(false, Ordering::Release);
    }
}

/// Runs these at once, the last one in this thread, and waits for all of them.
pub(super) fn at_once<const N: usize>(works: [Box<dyn FnOnce() + Send>; N]) {
    let mut works: Vec<_> = works.into_iter().collect();
    let last = works.pop();
    let threads: Vec<_> = works.into_iter().map(thread::spawn).collect();
    last.into_iter().for_each(|work| work());
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Work for [`at_once`], with its own clones of the named variables.
macro_rules! work {
    ([$($variable:ident),*] $work:expr) => {{
        $(let $variable = $variable.clone();)*
        Box::new(move || { $work; }) as Box<dyn FnOnce() + Send>
    }};
}
pub(super) use work;

/// Starts a thread with its own clones of the named variables.
macro_rules! spawn {
    ([$($variable:ident),*] $work:expr) => {{
        $(let $variable = $variable.clone();)*
        crate::os::sync::thread::spawn(move || $work)
    }};
}
pub(super) use spawn;

/// Asserts that no session holds anything or waits for anything.
pub(super) fn assert_nothing_left(broker: &Broker) {
    let stats = broker.stats();
    assert_eq!((stats.locks, stats.shared_locks, stats.waiting), (0, 0, 0));
}

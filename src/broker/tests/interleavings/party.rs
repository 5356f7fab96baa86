//! Sessions that take down what they are told, and the oracle they answer to.

use std::collections::{BTreeMap, BTreeSet};

use crate::broker::*;
use crate::os::sync::{AtomicBool, IS_EXPLORED, Ordering, ProcessMutex, thread};

/// The names that scenarios use.
const NAMES: [&str; 3] = ["x", "y", "z"];

/// Whoever waits does so without a limit, unless it says otherwise.
pub(super) fn wait(ticket: Ticket) -> Option<Wait> {
    Some(Wait { ticket, limit: None })
}

pub(super) fn keys(names: &[&str], mode: Mode) -> Vec<(Key, Mode)> {
    names.iter().map(|&name| (Key::main(name), mode)).collect()
}

/// One session, and all it was told.
pub(super) struct Party {
    pub(super) session: ObservedSession,
    heard: Arc<Heard>,
}

#[derive(Default)]
struct Heard {
    // Not the checker's: what is taken down must not make more orders of what is looked at.
    state: ProcessMutex<Told>,
}

#[derive(Default)]
struct Told {
    outcomes: BTreeMap<Ticket, Outcome>,
    /// Something was decided and not delivered since.
    undelivered: bool,
    /// The tickets of requests that were queued.
    queued: BTreeSet<Ticket>,
}

impl Observer for Heard {
    fn decided(&self, ticket: Ticket, outcome: Outcome) {
        let mut told = self.state.lock();
        let before = told.outcomes.insert(ticket, outcome);
        assert_eq!(before, None, "the wait {ticket} ended twice");
        told.undelivered = true;
    }

    fn deliver(&self) {
        self.state.lock().undelivered = false;
    }
}

impl Party {
    pub(super) fn new(broker: &Broker, label: &str) -> Arc<Self> {
        assert!(IS_EXPLORED);
        let heard = Arc::new(Heard::default());
        Arc::new(Self { session: broker.attach(label, heard.clone()), heard })
    }

    /// Acquires these names, or waits for them under `ticket`.
    pub(super) fn ask(&self, ticket: Ticket, names: &[&str], mode: Mode) -> Result<Attempt, AcquireError> {
        // One name is tried first, as every caller does.
        if let [name] = names {
            match self.session.try_acquire(Space::Main, name.as_bytes(), mode) {
                Err(AcquireError::TimedOut | AcquireError::NotYet(_)) => {}
                answer => return answer.map(Attempt::Granted),
            }
        }
        self.note(ticket, self.session.acquire(&keys(names, mode), wait(ticket)))
    }

    /// Waits for up to `limit` of the time that passes.
    pub(super) fn ask_for(&self, ticket: Ticket, name: &str, limit: std::time::Duration) {
        let wait = Wait { ticket, limit: Some(limit) };
        let asked = self.session.acquire(&keys(&[name], Mode::Exclusive), Some(wait));
        assert_eq!(self.note(ticket, asked), Ok(Attempt::Queued));
    }

    pub(super) fn upgrade(&self, ticket: Ticket, name: &str) -> Result<Attempt, AcquireError> {
        let asked = self.session.convert(Space::Main, name.as_bytes(), Mode::Exclusive, wait(ticket));
        self.note(ticket, asked)
    }

    fn note(&self, ticket: Ticket, asked: Result<Attempt, AcquireError>) -> Result<Attempt, AcquireError> {
        if asked == Ok(Attempt::Queued) {
            self.heard.state.lock().queued.insert(ticket);
        }
        asked
    }

    /// Has `name` at once: for what is set up.
    pub(super) fn hold(&self, name: &str, mode: Mode) {
        self.session.try_acquire(Space::Main, name.as_bytes(), mode).unwrap();
    }

    /// Has the table decide about a name that this party holds: somebody has come and gone.
    pub(super) fn defer(&self, broker: &Broker, name: &str) {
        let other = Self::new(broker, "passer-by");
        assert_eq!(other.ask(0, &[name], Mode::Exclusive), Ok(Attempt::Queued));
        assert!(other.session.cancel(0));
    }

    pub(super) fn try_it(&self, name: &str) -> Result<Grant, AcquireError> {
        self.session.try_acquire(Space::Main, name.as_bytes(), Mode::Exclusive)
    }

    pub(super) fn release(&self, name: &str) -> Result<Released, ReleaseError> {
        self.session.release(Space::Main, name.as_bytes())
    }

    pub(super) fn holds(&self, name: &str) -> bool {
        self.session.inspect(Space::Main, name.as_bytes()).held.is_some()
    }

    /// How the wait ended, if it has.
    pub(super) fn heard(&self, ticket: Ticket) -> Option<Outcome> {
        self.heard.state.lock().outcomes.get(&ticket).copied()
    }

    /// Whether the wait ended in a grant.
    pub(super) fn was_granted(&self, ticket: Ticket) -> bool {
        matches!(self.heard(ticket), Some(Outcome::Granted(_)))
    }

    /// What must hold when all threads are done: each wait has ended exactly once, or is going on, and nothing
    /// that was decided is still to be delivered.
    pub(super) fn audit(&self, waiting: &[Ticket]) {
        let told = self.heard.state.lock();
        assert!(!told.undelivered, "an outcome was not delivered");
        for ticket in &told.queued {
            let ended = told.outcomes.contains_key(ticket);
            assert_ne!(ended, waiting.contains(ticket), "the wait {ticket}: {told:?}", told = told.outcomes);
        }
        assert!(told.outcomes.keys().all(|ticket| told.queued.contains(ticket)), "who never waited was told");
        drop(told);
        if self.session.is_alive() {
            let held = NAMES.iter().filter(|name| self.holds(name)).count();
            assert_eq!(self.session.info().held.total(), held, "locks are counted wrong");
        }
    }
}

/// What only one may be in at a time.
pub(super) struct Room(AtomicBool);

impl Room {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(false)))
    }

    pub(super) fn stay(&self) {
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

/// `work` for [`at_once`], with parties of its own.
macro_rules! with {
    ([$($party:ident),*] $work:expr) => {{
        $(let $party = $party.clone();)*
        Box::new(move || { $work; }) as Box<dyn FnOnce() + Send>
    }};
}
pub(super) use with;

/// Nothing is held and nobody waits.
pub(super) fn nothing_left(broker: &Broker) {
    let stats = broker.stats();
    assert_eq!((stats.locks, stats.shared_locks, stats.waiting), (0, 0, 0));
}

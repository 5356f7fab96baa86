//! Long random sequences of events, on the broker and on the naive model.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use crate::broker::model::{End, Event, Model, Said, Waiting};
use crate::broker::*;
use crate::os::sync::Mutex;

const SESSIONS: u32 = 4;
const NAMES: u8 = 4;
/// Lower tokens are those of an earlier run.
const TOKENS_START: u64 = 10_000;
const TOKENS_END: u64 = 1_000_000;

/// Records the outcomes it is told.
#[derive(Default)]
pub(super) struct Recorder(Mutex<Vec<(Ticket, Outcome)>>);

impl Recorder {
    /// What it was told since this was last called.
    pub(super) fn take(&self) -> Vec<(Ticket, Outcome)> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Observer for Recorder {
    fn decided(&self, ticket: Ticket, outcome: Outcome) {
        self.0.lock().push((ticket, outcome));
    }

    fn deliver(&self) {}
}

pub(super) struct Driver {
    pub(super) broker: Broker,
    pub(super) model: Model,
    sessions: Vec<(ObservedSession, Arc<Recorder>)>,
    tokens: TokensOfNames,
}

/// Checks that each grant of a name has a higher token than all earlier grants of that name.
#[derive(Clone, Default)]
struct TokensOfNames {
    /// The token of each hold, by name and session, when this was last looked at.
    held: BTreeMap<(u8, u32), u64>,
    highest: BTreeMap<u8, u64>,
    /// How many locks sessions have tried to get back.
    reclaims: u64,
}

impl TokensOfNames {
    /// A token of an earlier run for a name that the session got back. No grant may have it again.
    fn reclaimed(&mut self, name: u8, session: u32, token: u64) {
        self.held.insert((name, session), token);
        let highest = self.highest.entry(name).or_default();
        *highest = token.max(*highest);
    }

    fn check(&mut self, held: BTreeMap<(u8, u32), u64>) {
        let mut granted: Vec<_> =
            held.iter().filter(|(at, token)| self.held.get(at) != Some(token)).collect();
        granted.sort_unstable_by_key(|(_, token)| **token);
        for (&(name, session), &token) in granted {
            let before = self.highest.insert(name, token);
            assert!(before < Some(token), "name {name}, session {session}: {token} after {before:?}");
        }
        self.held = held;
    }
}

impl Driver {
    pub(super) fn new(grace: bool) -> Self {
        let length = grace.then_some(Duration::from_secs(60));
        let broker = Broker::resumed(Limits::default(), &(TOKENS_START..TOKENS_END), length);
        let sessions = (0..SESSIONS).map(|_| attach(&broker)).collect();
        Self {
            broker,
            model: Model { grace, ..Model::default() },
            sessions,
            tokens: TokensOfNames::default(),
        }
    }

    pub(super) fn apply(&mut self, event: &Event) {
        if let (true, Event::Acquire { session, wants, wait: None }) = (self.model.grace, event) {
            return self.try_in_the_grace(*session, wants);
        }
        let ticket = self.model.tickets + 1;
        let oldest = |model: &Model, s| model.waiting.iter().find(|w| w.session == s).map(|w| w.ticket);
        let mut next_limit = None;
        let said = match event {
            Event::Acquire { session, wants, wait } => {
                let wait = wait.map(|limit| Wait { ticket, limit: limit.map(Duration::from_nanos) });
                self.said(self.acquire(*session, wants, wait))
            }
            Event::Convert { session, name, mode, wait } => {
                let wait = wait.map(|limit| Wait { ticket, limit: limit.map(Duration::from_nanos) });
                match self.session(*session).convert(Space::Main, &[*name], *mode, wait) {
                    Err(AcquireError::NotYet(_)) if self.model.grace => Said::Busy,
                    answer => self.said(answer),
                }
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
                next_limit = self.session(*session).expire();
                Said::Nothing
            }
            Event::End { session, vanished } => {
                let session = self.session(*session);
                if *vanished {
                    session.abandon()
                } else {
                    session.close()
                }
                Said::Nothing
            }
            Event::Reclaim { session, name, mode } => self.reclaim(*session, *name, *mode),
            Event::Open => {
                self.broker.end_grace();
                assert!(self.broker.grace().is_zero());
                Said::Nothing
            }
        };
        let (expected, ends) = self.model.apply(event);
        assert_eq!(said, expected, "{event:?}");
        assert_eq!(self.ends(), ends, "{event:?}");
        if let Event::Expire { session, .. } = event {
            let has_limit = |wait: &Waiting| wait.session == *session && wait.deadline.is_some();
            assert_eq!(next_limit.is_some(), self.model.waiting.iter().any(has_limit));
        }
        if let Event::End { session, .. } = event {
            self.sessions[*session as usize] = attach(&self.broker);
        }
        self.compare();
    }

    /// The state of the broker, as text.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(&self.broker.snapshot().unwrap()).unwrap()
    }

    /// One that goes on from here with another broker, which is made from this text.
    pub(super) fn continued_from(&self, text: &str) -> Self {
        let snapshot: BrokerSnapshot = serde_json::from_str(text).unwrap();
        let mut recorders = Vec::new();
        let observer = |_: &SessionSnapshot| {
            let recorder = Arc::new(Recorder::default());
            recorders.push(recorder.clone());
            recorder as Arc<dyn Observer>
        };
        let (broker, sessions) = Broker::restore(&snapshot, Limits::default(), TOKENS_END, observer).unwrap();
        let sessions: Vec<_> = sessions.into_iter().zip(recorders).collect();
        assert_eq!(sessions.len(), SESSIONS as usize);
        assert_eq!((listed(&broker), broker.stats()), (listed(&self.broker), self.broker.stats()));
        Self { broker, model: self.model.clone(), sessions, tokens: self.tokens.clone() }
    }

    /// A request that does not wait is told that nothing is granted yet, before anything else is
    /// checked.
    fn try_in_the_grace(&self, session: u32, wants: &[(u8, Mode)]) {
        let told = self.acquire(session, wants, None);
        assert!(matches!(told, Err(AcquireError::NotYet(_))), "{told:?}");
    }

    fn reclaim(&mut self, session: u32, name: u8, mode: Mode) -> Said {
        self.tokens.reclaims += 1;
        let token = TOKENS_START - self.tokens.reclaims;
        match self.session(session).reclaim(Space::Main, &[name], mode, token) {
            Ok(()) => {
                self.tokens.reclaimed(name, session, token);
                Said::Reclaimed
            }
            Err(ReclaimError::NoGrace) => Said::NoGrace,
            Err(ReclaimError::AlreadyHeld(held)) => Said::AlreadyHeld(held.mode),
            Err(ReclaimError::Waiting) => Said::AlreadyWaiting,
            Err(ReclaimError::Conflict(holders)) => {
                let others = self.model.held.keys().filter(|at| at.0 == name).count();
                assert_eq!(holders.len(), others);
                Said::Conflict
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// One name is tried first, in its lane, as every caller does.
    fn acquire(
        &self,
        session: u32,
        wants: &[(u8, Mode)],
        wait: Option<Wait>,
    ) -> Result<Attempt, AcquireError> {
        let session = self.session(session);
        if let [(name, mode)] = wants {
            match session.try_acquire(Space::Main, &[*name], *mode) {
                Err(AcquireError::TimedOut | AcquireError::NotYet(_)) if wait.is_some() => {}
                answer => return answer.map(Attempt::Granted),
            }
        }
        let wants: Vec<_> = wants.iter().map(|&(name, mode)| (Key::main(&[name][..]), mode)).collect();
        session.acquire(&wants, wait)
    }

    fn session(&self, at: u32) -> &ObservedSession {
        &self.sessions[at as usize].0
    }

    fn said(&self, attempt: Result<Attempt, AcquireError>) -> Said {
        match attempt {
            Ok(Attempt::Granted(grant)) => Said::Granted { orphaned: grant.orphaned, holders: grant.holders },
            Ok(Attempt::Queued) => Said::Queued,
            Err(AcquireError::TimedOut) => Said::Busy,
            Err(AcquireError::AlreadyHeld(held)) => Said::AlreadyHeld(held.mode),
            Err(AcquireError::AlreadyWaiting) => Said::AlreadyWaiting,
            Err(AcquireError::NotHeld) => Said::NotHeld,
            Err(AcquireError::Deadlock(cycle)) => {
                assert!(cycle.size > 1 && cycle.size <= SESSIONS as usize, "{cycle:?}");
                assert_eq!(cycle.sessions.len(), cycle.size);
                Said::Deadlock
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn ends(&self) -> Vec<(u32, u64, End)> {
        let mut ends = Vec::new();
        for (session, (_, recorder)) in (0..).zip(&self.sessions) {
            for (ticket, outcome) in recorder.0.lock().drain(..) {
                let end = match outcome {
                    Outcome::Granted(grant) => End::Granted { orphaned: grant.orphaned },
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

    fn compare(&mut self) {
        let mut tokens = BTreeMap::new();
        for name in 0..NAMES {
            for session in 0..SESSIONS {
                let seen = self.session(session).inspect(Space::Main, &[name]);
                tokens.extend(seen.held.map(|held| ((name, session), held.token)));
                let held = seen.held.map(|held| held.mode);
                assert_eq!(held, self.model.held.get(&(name, session)).copied());
                assert_eq!(seen.holders, self.model.holders(name));
                assert_eq!(seen.waiters, self.model.queue(name).len());
                assert_eq!(seen.orphaned, self.model.orphaned.contains(&name));
            }
        }
        self.tokens.check(tokens);
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
            assert_eq!(attached.info().holdings.total(), held);
        }
    }
}

/// The sessions that hold a lock, with modes and tokens, and those that wait for it, in order.
type ListedSessions = (Vec<(u64, Mode, u64)>, Vec<(u64, Mode)>);

/// Every lock by its name, with all that a listing shows except times.
fn listed(broker: &Broker) -> BTreeMap<LockName, (bool, ListedSessions)> {
    let all = PageQuery { space: Space::Main, prefix: LockName::new(b""), after: None, limit: 100 };
    let entry = |lock: LockInfo| {
        let holders = lock.holders.iter().map(|one| (one.session.id(), one.mode, one.token)).collect();
        let waiters = lock.waiters.iter().map(|one| (one.session.id(), one.mode)).collect();
        (lock.key.name, (lock.orphaned, (holders, waiters)))
    };
    broker.page(&all).locks.into_iter().map(entry).collect()
}

fn attach(broker: &Broker) -> (ObservedSession, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    (broker.attach("test", recorder.clone()), recorder)
}

fn mode() -> impl Strategy<Value = Mode> {
    let limited = (2..=3_u32).prop_map(|holders| Mode::at_most(holders).unwrap());
    prop_oneof![Just(Mode::Exclusive), limited, Just(Mode::Shared)]
}

fn event() -> impl Strategy<Value = Event> {
    let session = 0..SESSIONS;
    // A limit is over when it is looked at for the first time, or long after the test.
    let limits = [Some(0), Some(3_600_000_000_000)].map(|limit| Just(Some(limit)));
    let [over, long] = limits;
    let wait = prop_oneof![4 => Just(None), 10 => Just(Some(None)), 1 => over, 1 => long];
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
        1 => session.clone().prop_map(|session| Event::Expire { session, by: 1 }),
        1 => (session, any::<bool>()).prop_map(|(session, vanished)| Event::End { session, vanished }),
    ]
}

fn reclaim() -> impl Strategy<Value = Event> {
    (0..SESSIONS, 0..NAMES, mode()).prop_map(|(session, name, mode)| Event::Reclaim { session, name, mode })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn long_random_sequences_agree_with_the_model(events in prop::collection::vec(event(), 1..250)) {
        let mut driver = Driver::new(false);
        for event in &events {
            driver.apply(event);
        }
    }

    #[test]
    fn nothing_changes_when_the_broker_is_replaced_by_one_that_is_made_from_its_snapshot(
        events in prop::collection::vec((event(), prop::bool::weighted(0.1)), 1..250),
        grace in prop::bool::weighted(0.1),
    ) {
        let mut driver = Driver::new(grace);
        let opened = events.len() / 2;
        for (number, (event, is_replaced)) in events.iter().enumerate() {
            if *is_replaced {
                driver = driver.continued_from(&driver.text());
            }
            if grace && number == opened {
                driver.apply(&Event::Open);
            }
            driver.apply(event);
        }
    }

    #[test]
    fn nothing_is_granted_in_the_grace_and_everything_that_is_due_after_it(
        before in prop::collection::vec(event(), 1..40),
        after in prop::collection::vec(event(), 1..40),
    ) {
        let mut driver = Driver::new(true);
        for event in before.iter().chain([&Event::Open]).chain(&after) {
            driver.apply(event);
            assert!(!driver.model.grace || driver.model.held.is_empty());
        }
    }

    #[test]
    fn in_the_grace_nothing_is_held_but_what_sessions_have_got_back(
        before in prop::collection::vec((prop_oneof![3 => event(), 1 => reclaim()], prop::bool::weighted(0.1)), 1..80),
        after in prop::collection::vec(prop_oneof![9 => event(), 1 => reclaim()], 1..40),
    ) {
        let mut driver = Driver::new(true);
        for (event, is_replaced) in &before {
            if *is_replaced {
                driver = driver.continued_from(&driver.text());
            }
            let held = driver.model.held.clone();
            driver.apply(event);
            if !matches!(event, Event::Reclaim { .. }) {
                let was_held = |(at, mode): (_, &Mode)| held.get(at).is_some_and(|before| before <= mode);
                assert!(driver.model.held.iter().all(was_held), "{event:?}");
            }
        }
        driver.apply(&Event::Open);
        for event in &after {
            driver.apply(event);
        }
    }
}

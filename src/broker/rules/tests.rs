//! The rules against the naive model: every event in every state that three sessions can bring two
//! names into, long random sequences, and some rules by example. After each step the invariants are
//! checked.

use std::collections::{BTreeSet, VecDeque};

use crate::broker::clock::Stamp;
use crate::broker::limits::Limits;
use crate::broker::mode::Mode;
use crate::broker::model::{
    End, Event, Model, Said, SeenStates, at_most, every_event, every_event_of_the_grace,
};
use crate::broker::name::{Key, LockName};
use crate::broker::outcome::{Attempt, Outcome, Released};
use crate::broker::rules::{
    BULK_BUDGET, Decision, FreedName, HashedKey, NAME_COST, NotGranted, NotReclaimed, Slot, Step,
    TURN_BUDGET, Table, WaitSpec,
};
use crate::broker::tokens::Tokens;

/// The table and the model, driven by the same events.
#[derive(Clone, Default)]
struct Driver {
    table: Table,
    model: Model,
}

fn key(name: u8) -> HashedKey {
    // The same hash for all, so that names must be told apart by more than their hashes.
    HashedKey { key: Key::main(LockName::new(&[name])), hash: 7 }
}

/// Where the decisions of a step go.
#[derive(Default)]
struct Decisions {
    decided: Vec<Decision>,
    idle: Vec<FreedName>,
}

impl Decisions {
    fn step<'a>(
        &'a mut self,
        now: Stamp,
        tokens: &'a mut Tokens,
        limits: &'a Limits,
        budget: usize,
    ) -> Step<'a> {
        let Self { decided, idle } = self;
        Step { now, tokens, limits, granting: true, budget, is_exhausted: false, decided, idle }
    }
}

impl Driver {
    /// Applies the event to both, and compares all that can be seen.
    fn apply(&mut self, tokens: &mut Tokens, event: &Event) {
        let (mut decisions, limits) = (Decisions::default(), Limits::default());
        let by = if let Event::Expire { by, .. } = event { *by } else { 0 };
        let now = Stamp::from_nanos(self.model.now + by);
        let granting = !self.model.grace || matches!(event, Event::Open);
        // First with so small a budget that every event that can be interrupted is; then with
        // enough.
        let mut step = Step { granting, ..decisions.step(now, tokens, &limits, NAME_COST) };
        let before = self.model.clone();
        let (mut said, mut cycle) = run(&mut self.table, &mut step, event, &self.model);
        while step.is_exhausted {
            (step.budget, step.is_exhausted) = (BULK_BUDGET, false);
            // Names that were adopted and not granted have gone back to their lanes, and are
            // adopted again.
            step.idle.clear();
            (said, cycle) = run(&mut self.table, &mut step, event, &self.model);
        }
        while self.table.unsettled() > 0 {
            step.budget = BULK_BUDGET;
            self.table.settle(&mut step, self.table.unsettled() - 1);
        }
        let (expected, ends) = self.model.apply(event);
        let context = || format!("{event:?} in {before:?}");
        assert_eq!(said, expected, "{}", context());
        if let Some(cycle) = cycle {
            check_cycle(&before, event, &cycle);
        }
        let mut told: Vec<_> = decisions.decided.iter().map(|d| (d.slot, d.ticket, end(d.outcome))).collect();
        told.sort_unstable();
        assert_eq!(told, ends, "{}", context());
        for gone in decisions.idle {
            let name = gone.key.key.name.as_bytes()[0];
            assert_eq!(self.model.holders(name) + self.model.queue(name).len(), 0, "{}", context());
            // A lane would remember this; here the next event takes it from the model.
            assert_eq!(gone.orphaned, self.model.orphaned.contains(&name), "{}", context());
        }
        self.model.check(&context);
        self.table.check_invariants();
        if granting {
            self.table.check_heads();
        }
        self.compare(&context);
    }

    /// The same with a table that is made from a snapshot of this one.
    fn restored(&self) -> Self {
        let snapshot = self.table.snapshot();
        let table = Table::restore(snapshot.clone(), !self.model.grace).unwrap();
        assert_eq!(table.snapshot(), snapshot);
        table.check_invariants();
        Self { table, model: self.model.clone() }
    }

    fn compare(&self, context: &dyn Fn() -> String) {
        for session in 0..u32::try_from(self.table.sessions.len()).unwrap() {
            for other in self.model.waits_for(session) {
                let ranks = [session, other].map(|slot| self.table.sessions[slot as usize].rank);
                assert!(ranks[0] > ranks[1] && ranks[1] != 0, "{session} and {other} in {}", context());
            }
        }
        for name in 0..3 {
            let Some(seen) = self.table.inspect(0, &key(name)) else {
                assert_eq!(self.model.holders(name) + self.model.queue(name).len(), 0, "{}", context());
                continue;
            };
            assert_eq!(seen.holders, self.model.holders(name), "{}", context());
            assert_eq!(seen.orphaned, self.model.orphaned.contains(&name), "{}", context());
            for session in 0..4 {
                let seen = self.table.inspect(session, &key(name)).unwrap_or_default();
                let waits = self.model.queue(name).iter().any(|waiting| waiting.session == session);
                assert_eq!(seen.waiting, waits, "{}", context());
                let held = seen.held;
                let expected = self.model.held.get(&(name, session)).copied();
                assert_eq!(held.map(|held| held.mode), expected, "{}", context());
            }
            let queue: Vec<u32> =
                self.table.waiters_after(&key(name), None, 100).iter().map(|w| w.slot).collect();
            let expected: Vec<u32> = self.model.queue(name).iter().map(|w| w.session).collect();
            assert_eq!(queue, expected, "{}", context());
        }
    }
}

fn end(outcome: Outcome) -> End {
    match outcome {
        Outcome::Granted(grant) => End::Granted { orphaned: grant.orphaned },
        Outcome::TimedOut => End::TimedOut,
        Outcome::Cancelled => End::Cancelled,
        Outcome::Lost | Outcome::Stopping => End::Lost,
    }
}

/// Applies one event to the table; `model` is the state before it. Also returns the cycle of a
/// deadlock.
fn run(table: &mut Table, step: &mut Step<'_>, event: &Event, model: &Model) -> (Said, Option<Vec<Slot>>) {
    let spec = |wait: Option<Option<u64>>| {
        let deadline = |limit: u64| Stamp::from_nanos(model.now + limit);
        wait.map(|limit| WaitSpec { ticket: model.tickets + 1, deadline: limit.map(deadline) })
    };
    let adopt = |table: &mut Table, name| table.adopt(&key(name), None, model.orphaned.contains(&name));
    let answer = match event {
        Event::Acquire { session, wants, wait } => {
            wants.iter().for_each(|&(name, _)| adopt(table, name));
            let wants: Vec<_> = wants.iter().map(|&(name, mode)| (key(name), mode)).collect();
            table.acquire(step, *session, &wants, spec(*wait))
        }
        Event::Convert { session, name, mode, wait } => {
            adopt(table, *name);
            table.convert(step, *session, &key(*name), *mode, spec(*wait))
        }
        Event::Release { session, name } => {
            let said = match table.release(step, *session, &key(*name), false) {
                Some(Released::Hold) => Said::ReleasedHold,
                Some(Released::Place) => Said::ReleasedPlace,
                None => Said::NotHeld,
            };
            return (said, None);
        }
        Event::Cancel { session } => {
            let oldest = model.waiting.iter().find(|w| w.session == *session).map(|w| w.ticket);
            let cancelled = table.cancel(step, *session, oldest.unwrap_or(u64::MAX));
            assert!(step.is_exhausted || cancelled == oldest.is_some());
            return (Said::Nothing, None);
        }
        Event::Expire { session, .. } => {
            let next = table.expire(step, *session);
            assert!(step.is_exhausted || next.is_none_or(|next| next > step.now));
            return (Said::Nothing, None);
        }
        Event::End { session, vanished } => {
            table.end_waits(step, *session, Outcome::Lost);
            if !step.is_exhausted {
                table.end_holds(step, *session, *vanished);
            }
            let session = table.session(*session);
            assert!(step.is_exhausted || session.holds.is_empty() && session.requests.is_empty());
            return (Said::Nothing, None);
        }
        // The shell refuses this.
        Event::Reclaim { .. } if !model.grace => return (Said::NoGrace, None),
        Event::Reclaim { session, name, mode } => {
            adopt(table, *name);
            // Below every token that is given.
            let token = 1 + u64::from(*session);
            let said = match table.reclaim(step, *session, &key(*name), *mode, token) {
                Ok(()) => Said::Reclaimed,
                Err(NotReclaimed::AlreadyHeld(held)) => Said::AlreadyHeld(held.mode),
                Err(NotReclaimed::Waiting) => Said::AlreadyWaiting,
                Err(NotReclaimed::Conflict) => Said::Conflict,
                Err(NotReclaimed::TokenNotGivenYet) => panic!("the token {token} is not given any more"),
            };
            return (said, None);
        }
        Event::Open => {
            let mut next = Some(0);
            while let Some(first) = next {
                step.budget = NAME_COST;
                next = table.unsettle_from(step, first);
            }
            step.is_exhausted = false;
            return (Said::Nothing, None);
        }
    };
    match answer {
        Ok(Attempt::Granted(grant)) => {
            (Said::Granted { orphaned: grant.orphaned, holders: grant.holders }, None)
        }
        Ok(Attempt::Queued) => (Said::Queued, None),
        Err(NotGranted::Busy) => (Said::Busy, None),
        Err(NotGranted::AlreadyHeld(held)) => (Said::AlreadyHeld(held.mode), None),
        Err(NotGranted::AlreadyWaiting) => (Said::AlreadyWaiting, None),
        Err(NotGranted::NotHeld) => (Said::NotHeld, None),
        Err(NotGranted::Deadlock(cycle)) => (Said::Deadlock, Some(cycle)),
        Err(NotGranted::TooLarge) if step.is_exhausted => (Said::Nothing, None),
        other => panic!("{other:?}, though all limits are far away"),
    }
}

/// Each session of the cycle must wait for the next one, the asking session first and by its new
/// request.
fn check_cycle(before: &Model, event: &Event, cycle: &[Slot]) {
    let mut with_request = before.clone();
    let (session, wants, conversion) = match event {
        Event::Acquire { session, wants, .. } => (*session, wants.clone(), false),
        Event::Convert { session, name, mode, .. } => (*session, vec![(*name, *mode)], true),
        _ => panic!("only a wait can be a deadlock"),
    };
    let ticket = u64::MAX;
    let request = crate::broker::model::Waiting { session, ticket, wants, conversion, deadline: None };
    with_request.waiting.push(request);
    assert_eq!(cycle.first(), Some(&session));
    assert_eq!(
        cycle.iter().collect::<BTreeSet<_>>().len(),
        cycle.len(),
        "a session is in the cycle twice: {cycle:?}"
    );
    for (at, &one) in cycle.iter().enumerate() {
        let next = cycle[(at + 1) % cycle.len()];
        assert!(with_request.waits_for(one).contains(&next), "{one} does not wait for {next}: {cycle:?}");
    }
}

/// Applies every event in every state that can be reached from the start. Returns how many states
/// there are; states in which only sessions or names have changed their parts are counted once.
fn explore(sessions: u32, names: u8, grace: bool) -> usize {
    // In the largest space they would take half of the time, and what they do differently shows in
    // the others.
    let with_tries = sessions < 3 || names < 2;
    let mut events = every_event(sessions, names, with_tries);
    if grace {
        events.extend(every_event_of_the_grace(sessions, names));
    }
    let mut tokens = Tokens::starting_at(100);
    let start = Driver { model: Model { grace, ..Model::default() }, ..Driver::default() };
    let mut seen = SeenStates::new(sessions, names.into());
    seen.insert(&start.model);
    let mut to_visit = VecDeque::from([start]);
    while let Some(state) = to_visit.pop_front() {
        // So every event is applied to a table that was made from a snapshot.
        let state = state.restored();
        for event in &events {
            let mut next = state.clone();
            next.apply(&mut tokens, event);
            if seen.insert(&next.model) {
                to_visit.push_back(next);
            }
        }
    }
    seen.len()
}

#[test]
fn three_sessions_and_one_name_agree_with_the_model_in_every_state() {
    let states = explore(3, 1, false);
    assert!(states > 100, "only {states} states were reached");
}

#[test]
fn two_sessions_and_two_names_agree_with_the_model_in_every_state() {
    let states = explore(2, 2, false);
    assert!(states > 500, "only {states} states were reached");
}

#[test]
fn three_sessions_and_two_names_agree_with_the_model_in_every_state() {
    let states = explore(3, 2, false);
    assert!(states > 70_000, "only {states} states were reached");
}

/// Pseudo-random numbers, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }

    fn event(&mut self, sessions: usize, names: usize) -> Event {
        let session = u32::try_from(self.below(sessions)).unwrap();
        let name = u8::try_from(self.below(names)).unwrap();
        let modes = [Mode::Exclusive, at_most(2), at_most(3), at_most(5), Mode::Shared, Mode::Shared];
        let mode = modes[self.below(modes.len())];
        match self.below(20) {
            0..10 => {
                let more = self.below(4) * self.below(2);
                let others =
                    (0..more).map(|_| u8::try_from(self.below(names)).unwrap()).filter(|&o| o != name);
                let others: BTreeSet<u8> = others.collect();
                let wants = [name].into_iter().chain(others).map(|name| (name, mode)).collect();
                Event::Acquire { session, wants, wait: Some(None) }
            }
            10..14 => Event::Convert { session, name, mode, wait: Some(None) },
            14..17 => Event::Release { session, name },
            17..19 => Event::Cancel { session },
            _ => Event::End { session, vanished: self.below(2) == 0 },
        }
    }
}

/// With more sessions than can be brought into every state, so that the ranks really are put in
/// order.
#[test]
fn random_sequences_of_many_sessions_and_names_agree_with_the_model() {
    let given = std::env::var("LOCKD_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()) << 32 | 0x9e37_79b9);
    let mut tokens = Tokens::starting_at(1);
    let mut dice = Dice(seed);
    for (sessions, names) in [(4, 3), (8, 5), (12, 12), (20, 8)] {
        let mut driver = Driver::default();
        for _ in 0..5000 {
            if dice.below(20) == 0 {
                driver = driver.restored();
            }
            let event = dice.event(sessions, names);
            let told =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| driver.apply(&mut tokens, &event)));
            assert!(told.is_ok(), "LOCKD_SEED={seed} repeats this");
        }
        let counts = driver.table.counts();
        assert!(counts.deadlocks > 20 && counts.grants > 200, "{counts:?}");
    }
}

/// Lets the session acquire one name, without a time limit.
fn acquire(table: &mut Table, tokens: &mut Tokens, slot: Slot, name: u32) -> Result<Attempt, NotGranted> {
    acquire_within(BULK_BUDGET, table, tokens, slot, name)
}

fn acquire_within(
    budget: usize,
    table: &mut Table,
    tokens: &mut Tokens,
    slot: Slot,
    name: u32,
) -> Result<Attempt, NotGranted> {
    let (mut decisions, limits) = (Decisions::default(), Limits::default());
    let mut step = decisions.step(Stamp::from_nanos(0), tokens, &limits, budget);
    let key = HashedKey { key: Key::main(LockName::new(&name.to_le_bytes())), hash: u64::from(name) };
    table.adopt(&key, None, false);
    let wait = WaitSpec { ticket: u64::from(name), deadline: None };
    table.acquire(&mut step, slot, &[(key, Mode::Exclusive)], Some(wait))
}

#[test]
fn the_search_for_a_cycle_ends_at_the_budget_and_is_not_needed_where_ranks_agree() {
    const NAMES: u32 = 10_000;
    const OWN: u32 = NAMES;
    let (mut table, mut tokens) = (Table::default(), Tokens::starting_at(1));
    let (early, holder, behind) = (0, 1, 2);
    assert!(matches!(acquire(&mut table, &mut tokens, early, OWN), Ok(Attempt::Granted(_))));
    for name in 0..NAMES {
        assert!(matches!(acquire(&mut table, &mut tokens, holder, name), Ok(Attempt::Granted(_))));
    }
    for waiter in 3..10 {
        for name in 0..NAMES {
            assert_eq!(acquire(&mut table, &mut tokens, waiter, name), Ok(Attempt::Queued));
        }
    }
    assert_eq!(acquire(&mut table, &mut tokens, behind, OWN), Ok(Attempt::Queued));
    for budget in [TURN_BUDGET, BULK_BUDGET] {
        assert_eq!(acquire_within(budget, &mut table, &mut tokens, early, 0), Err(NotGranted::TooLarge));
    }
    // The refused request has left no trace.
    assert!(!table.sessions[early as usize].waits.contains_key(&0) && table.counts().deadlocks == 0);
    let late = 11;
    assert!(matches!(acquire(&mut table, &mut tokens, late, OWN + 1), Ok(Attempt::Granted(_))));
    assert_eq!(acquire(&mut table, &mut tokens, behind, OWN + 1), Ok(Attempt::Queued));
    // This session is ranked above all others, so nothing has to be searched.
    assert_eq!(acquire(&mut table, &mut tokens, late, 0), Ok(Attempt::Queued));
}

#[test]
fn two_sessions_and_two_names_agree_with_the_model_in_every_state_of_a_grace() {
    let [without, with] = [false, true].map(|grace| explore(2, 2, grace));
    assert!(with > without + 50, "only {} states of a grace were reached", with - without);
}

#[test]
fn three_sessions_and_one_name_agree_with_the_model_in_every_state_of_a_grace() {
    let [without, with] = [false, true].map(|grace| explore(3, 1, grace));
    assert!(with > without + 50, "only {} states of a grace were reached", with - without);
}

#[test]
fn random_sequences_of_a_grace_agree_with_the_model() {
    let given = std::env::var("LOCKD_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()) << 32 | 0x9e37_79b9);
    let mut tokens = Tokens::starting_at(100);
    let mut dice = Dice(seed);
    let (mut reclaimed, mut deadlocks) = (0, 0);
    for (sessions, names) in [(4, 3), (8, 5), (20, 8)] {
        for _ in 0..30 {
            let model = Model { grace: true, ..Model::default() };
            let mut driver = Driver { model, ..Driver::default() };
            for number in 0..120 {
                let event = match dice.event(sessions, names) {
                    _ if number == 80 => Event::Open,
                    Event::Convert { session, name, mode, .. } if dice.below(2) == 0 => {
                        Event::Reclaim { session, name, mode }
                    }
                    other => other,
                };
                if dice.below(20) == 0 {
                    driver = driver.restored();
                }
                let held = driver.model.held.len();
                let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    driver.apply(&mut tokens, &event);
                }));
                assert!(told.is_ok(), "LOCKD_SEED={seed} repeats this");
                let has_more = driver.model.held.len() > held;
                reclaimed += usize::from(has_more && matches!(event, Event::Reclaim { .. }));
            }
            deadlocks += driver.table.counts().deadlocks;
        }
    }
    assert!(reclaimed > 200 && deadlocks > 20, "{reclaimed} reclaimed, {deadlocks} deadlocks");
}

#[test]
fn a_session_gets_a_lock_back_however_many_requests_wait_for_it() {
    const WAITERS: u32 = 100_000;
    let (mut table, mut tokens) = (Table::default(), Tokens::starting_at(1));
    let (mut decisions, limits) = (Decisions::default(), Limits::default());
    let name = key(1);
    let ask = |table: &mut Table, tokens: &mut Tokens, slot, mode| {
        let mut decisions = Decisions::default();
        let step = decisions.step(Stamp::from_nanos(0), tokens, &limits, BULK_BUDGET);
        table.adopt(&name, None, false);
        let wait = Some(WaitSpec { ticket: 1, deadline: None });
        let mut step = Step { granting: false, ..step };
        assert_eq!(table.acquire(&mut step, slot, &[(name.clone(), mode)], wait), Ok(Attempt::Queued));
    };
    for slot in 1..WAITERS {
        ask(&mut table, &mut tokens, slot, Mode::Shared);
    }
    ask(&mut table, &mut tokens, WAITERS, Mode::Exclusive);
    tokens.raise_to(10);
    let step = decisions.step(Stamp::from_nanos(0), &mut tokens, &limits, TURN_BUDGET);
    let mut step = Step { granting: false, ..step };
    for (slot, said) in [(0, Ok(())), (WAITERS + 1, Ok(())), (5, Err(NotReclaimed::Waiting))] {
        assert_eq!(table.reclaim(&mut step, slot, &name, Mode::Shared, 9), said);
    }
    assert!(!step.is_exhausted);
    let slot = WAITERS + 2;
    assert_eq!(table.reclaim(&mut step, slot, &name, Mode::Shared, 10), Err(NotReclaimed::TokenNotGivenYet));
    assert!(table.rank(0) < table.rank(WAITERS) && table.rank(WAITERS + 1) < table.rank(WAITERS));
}

#[test]
fn a_wait_ends_at_its_deadline_and_not_before() {
    let mut tokens = Tokens::starting_at(1);
    let mut driver = Driver::default();
    let acquire = |session, wait| Event::Acquire { session, wants: vec![(0, Mode::Exclusive)], wait };
    driver.apply(&mut tokens, &acquire(0, None));
    driver.apply(&mut tokens, &acquire(1, Some(Some(10))));
    driver.apply(&mut tokens, &acquire(2, Some(Some(20))));
    driver.apply(&mut tokens, &Event::Expire { session: 1, by: 9 });
    assert_eq!(driver.model.waiting.len(), 2);
    driver.apply(&mut tokens, &Event::Expire { session: 1, by: 1 });
    assert_eq!(driver.model.waiting.len(), 1);
    driver.apply(&mut tokens, &Event::Release { session: 0, name: 0 });
    assert!(driver.model.held.contains_key(&(0, 2)));
}

#[test]
fn tokens_rise_with_every_grant_and_with_the_counter_of_another_place() {
    let mut tokens = Tokens::starting_at(5);
    let mut next = |raised_to| {
        tokens.raise_to(raised_to);
        tokens.next()
    };
    assert_eq!([next(0), next(5), next(7), next(9), next(3)], [5, 6, 7, 9, 10]);
}

#[test]
fn a_conversion_is_granted_when_enough_holders_have_gone_whatever_other_conversions_wait() {
    let mut tokens = Tokens::starting_at(1);
    let mut driver = Driver::default();
    let four = at_most(4);
    for session in 0..4 {
        driver.apply(&mut tokens, &Event::Acquire { session, wants: vec![(0, four)], wait: None });
    }
    let convert = |session, mode| Event::Convert { session, name: 0, mode, wait: Some(None) };
    driver.apply(&mut tokens, &convert(0, Mode::Exclusive));
    driver.apply(&mut tokens, &convert(1, at_most(2)));
    driver.apply(&mut tokens, &convert(2, at_most(3)));
    assert_eq!(driver.model.waiting.len(), 3, "none of them is a deadlock");
    driver.apply(&mut tokens, &Event::Release { session: 3, name: 0 });
    assert_eq!(driver.model.held[&(0, 2)], at_most(3));
    driver.apply(&mut tokens, &Event::Release { session: 2, name: 0 });
    assert_eq!(driver.model.held[&(0, 1)], at_most(2));
    driver.apply(&mut tokens, &Event::Release { session: 1, name: 0 });
    assert_eq!(driver.model.held[&(0, 0)], Mode::Exclusive);
}

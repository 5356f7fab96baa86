//! Decides whether a small history of acquires, conversions, releases and session ends can be put
//! into an order that the rules of locks allow. It tries all orders (the algorithm of Wing and
//! Gong) and remembers states that led nowhere (Lowe's improvement). It uses a different method
//! than `exclusion`, and so shows whether that one is right.
//!
//! The decision is exact, but its time grows exponentially with the number of overlapping calls: it
//! is for a few dozen calls.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::history::{Call, CallKind, History, Mode, NEVER, Name, Nanos, Outcome, SessionIndex};

/// Something that took effect at one moment, if at all.
enum Event<'a> {
    Call(&'a Call),
    End(SessionIndex),
}

struct Operation<'a> {
    event: Event<'a>,
    start: Nanos,
    end: Nanos,
    /// Whether it must have taken effect.
    is_certain: bool,
}

/// What is known of one name.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct NameState {
    holders: BTreeSet<(SessionIndex, Mode)>,
    /// The token of the latest grant.
    token: u64,
}

type State = BTreeMap<Name, NameState>;

struct Search<'a> {
    operations: Vec<Operation<'a>>,
    /// The states that led nowhere: which operations were done, and the names at that point.
    dead_ends: HashSet<(Vec<bool>, State)>,
}

/// Whether there is such an order in which the tokens of each name also rise.
pub(crate) fn is_possible(history: &History) -> bool {
    let mut operations = Vec::new();
    for call in &history.calls {
        let is_certain = match (call.kind, call.outcome) {
            (CallKind::Inspect, _) => continue,
            (CallKind::Acquire { .. } | CallKind::Convert { .. }, Outcome::Granted(_)) => true,
            (CallKind::Convert { .. }, Outcome::NotHeld) => true,
            (CallKind::Release, Outcome::Released | Outcome::NotHeld) => true,
            (_, Outcome::Unknown | Outcome::Unanswered) => false,
            _ => continue,
        };
        let end = if is_certain { call.end } else { NEVER };
        operations.push(Operation { event: Event::Call(call), start: call.start, end, is_certain });
    }
    for (index, session) in history.sessions.iter().enumerate() {
        let start = session.alive_until;
        operations.push(Operation { event: Event::End(index), start, end: NEVER, is_certain: false });
    }
    let done = vec![false; operations.len()];
    Search { operations, dead_ends: HashSet::new() }.from(done, State::new())
}

impl Search<'_> {
    fn from(&mut self, done: Vec<bool>, state: State) -> bool {
        let left = || self.operations.iter().zip(&done).filter(|(_, done)| !**done).map(|(one, _)| one);
        if !left().any(|operation| operation.is_certain) {
            return true;
        }
        if !self.dead_ends.insert((done.clone(), state.clone())) {
            return false;
        }
        let horizon = left().map(|operation| operation.end).min().unwrap_or(NEVER);
        for index in 0..self.operations.len() {
            let operation = &self.operations[index];
            if done[index] || operation.start > horizon {
                continue;
            }
            let Some(state) = effect(operation, &state) else { continue };
            let mut done = done.clone();
            done[index] = true;
            if self.from(done, state) {
                return true;
            }
        }
        false
    }
}

/// The state after the operation; `None` if the operation is impossible in this state.
fn effect(operation: &Operation<'_>, state: &State) -> Option<State> {
    let mut state = state.clone();
    let call = match operation.event {
        Event::Call(call) => call,
        Event::End(ended) => {
            state.values_mut().for_each(|name| name.holders.retain(|(session, _)| *session != ended));
            return Some(state);
        }
    };
    for &(name, mode) in &call.wants {
        let NameState { holders, token } = state.entry(name).or_default();
        let own = holders.iter().find(|(session, _)| *session == call.session).copied();
        // A conversion to a mode that allows as many holders or more keeps the session's token.
        let is_new = own.is_none_or(|(_, held)| mode < held);
        if let Some(told) = call.token().filter(|_| is_new) {
            (told > *token).then(|| *token = told)?;
        }
        match (call.kind, call.outcome) {
            (_, Outcome::NotHeld) if own.is_none() => {}
            (CallKind::Acquire { .. }, Outcome::Granted(_) | Outcome::Unknown | Outcome::Unanswered) => {
                own.is_none().then(|| holders.insert((call.session, mode)))?;
                keeps_all_promises(holders).then_some(())?;
            }
            (CallKind::Convert { .. }, Outcome::Granted(_) | Outcome::Unknown | Outcome::Unanswered) => {
                holders.remove(&own?);
                holders.insert((call.session, mode));
                keeps_all_promises(holders).then_some(())?;
            }
            (CallKind::Release, Outcome::Released | Outcome::Unknown | Outcome::Unanswered) => {
                holders.remove(&own?);
            }
            _ => return None,
        }
    }
    Some(state)
}

/// Whether there are no more holders than the mode of each of them allows.
fn keeps_all_promises(holders: &BTreeSet<(SessionIndex, Mode)>) -> bool {
    holders.iter().all(|(_, mode)| mode.holders_max().is_none_or(|max| holders.len() <= max as usize))
}

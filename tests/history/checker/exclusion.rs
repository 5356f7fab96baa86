//! Mutex, read/write lock and several names at once: decides whether the holds can have been as the
//! clients were told.
//!
//! Proves: the certain periods ("cores") of holds that exclude each other do not overlap. Each hold
//! has a core, so for each name the order of all holds that exclude each other is forced. With that
//! order `instants` decides exactly whether every call can have taken effect at one moment between
//! its start and its end: first for each name by itself; then for all names together, with one
//! instant for all names of a set, and with the grants of each name in the order of their tokens.
//!
//! Cannot see: holds of which the clients were never told. Such a hold could only make it harder to
//! fit the others in, so leaving it out accuses no correct broker.

use super::holds::{Holds, Phase, Sets, model, replay};
use super::instants::{Bounds, Conflict};
use super::verdict::{Model, Verdict};
use crate::history::{CallKind, History, Mode};

/// The holds and the bounds of their beginnings and ends.
pub(crate) struct Fitted {
    pub(crate) holds: Holds,
    pub(crate) bounds: Bounds,
    /// The phases of each name, in the order of their cores.
    pub(crate) by_name: Vec<Vec<usize>>,
}

pub(crate) fn check(history: &History, verdict: &mut Verdict) -> Fitted {
    count(history, verdict);
    let apart = fit(history, Sets::PerName, verdict);
    if !verdict.acquits() {
        // Further violations would only follow from these.
        return apart;
    }
    fit(history, Sets::OneInstant, verdict)
}

fn fit(history: &History, sets: Sets, verdict: &mut Verdict) -> Fitted {
    // Violations within one session are reported once, in the first pass.
    let mut unheard = Verdict::default();
    let heard = if sets == Sets::PerName { &mut *verdict } else { &mut unheard };
    let mut holds = replay(history, sets, heard);
    let by_name = by_name(history, &holds);
    for phases in &by_name {
        let overlapping = overlaps(&holds.phases, phases);
        if sets == Sets::PerName {
            overlapping.iter().for_each(|&(first, second)| convict_overlap(&holds, first, second, verdict));
        }
        if overlapping.is_empty() {
            put_in_order(&mut holds, phases);
        }
    }
    for phase in &holds.phases {
        holds.order.before(phase.begin, phase.end);
    }
    if sets == Sets::OneInstant {
        holds.tokens.sort_unstable();
        for pair in holds.tokens.windows(2) {
            let ((first, _, earlier), (second, _, later)) = (pair[0], pair[1]);
            if first == second {
                holds.order.before(earlier, later);
            }
        }
    }
    let (bounds, conflicts) = holds.order.solve();
    conflicts.iter().for_each(|conflict| convict_conflict(history, &holds, sets, conflict, verdict));
    Fitted { holds, bounds, by_name }
}

fn by_name(history: &History, holds: &Holds) -> Vec<Vec<usize>> {
    let mut by_name = vec![Vec::new(); history.names()];
    for (index, phase) in holds.phases.iter().enumerate() {
        by_name[phase.name as usize].push(index);
    }
    for phases in &mut by_name {
        phases.sort_by_key(|&index| (holds.phases[index].core, index));
    }
    by_name
}

/// Pairs of phases whose cores overlap and that exclude each other; at most one pair per phase.
fn overlaps(phases: &[Phase], in_order: &[usize]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    // Of the phases so far, the exclusive one whose core ends last, and the one of any mode.
    let (mut last_exclusive, mut last): (Option<usize>, Option<usize>) = (None, None);
    for &index in in_order {
        let phase = &phases[index];
        let before = if phase.mode == Mode::Exclusive { last } else { last_exclusive };
        if let Some(before) = before.filter(|&before| phases[before].core.1 > phase.core.0) {
            found.push((before, index));
        }
        let later = |last: Option<usize>| match last {
            Some(last) if phases[last].core.1 > phase.core.1 => Some(last),
            _ => Some(index),
        };
        last = later(last);
        if phase.mode == Mode::Exclusive {
            last_exclusive = later(last_exclusive);
        }
    }
    found
}

fn convict_overlap(holds: &Holds, first: usize, second: usize, verdict: &mut Verdict) {
    let (first, second) = (&holds.phases[first], &holds.phases[second]);
    let model = match (first.mode, second.mode) {
        _ if first.of_set || second.of_set => Model::Sets,
        (Mode::Exclusive, Mode::Exclusive) => Model::Mutex,
        _ => Model::ReadWrite,
    };
    let long = first.core.1.min(second.core.1) - second.core.0;
    let what =
        format!("n{} was certainly held for {long} ns by two sessions that exclude each other", first.name);
    let ends = [first.ended_by, second.ended_by].into_iter().flatten();
    verdict.convict(model, what, [first.call, second.call].into_iter().chain(ends).collect());
}

/// Adds the order that the cores of one name's phases force.
fn put_in_order(holds: &mut Holds, in_order: &[usize]) {
    let Holds { order, phases, .. } = holds;
    let mut exclusive_end: Option<usize> = None;
    let mut shared_ends: Vec<usize> = Vec::new();
    for &index in in_order {
        let phase = &phases[index];
        if let Some(end) = exclusive_end {
            order.before(end, phase.begin);
        }
        match phase.mode {
            Mode::Limited(_) | Mode::Shared => shared_ends.push(phase.end),
            Mode::Exclusive => {
                shared_ends.drain(..).for_each(|end| order.before(end, phase.begin));
                exclusive_end = Some(phase.end);
            }
        }
    }
}

fn convict_conflict(
    history: &History,
    holds: &Holds,
    sets: Sets,
    conflict: &Conflict,
    verdict: &mut Verdict,
) {
    let calls: Vec<usize> = conflict.instants.iter().map(|&at| holds.order.instants[at].call).collect();
    let has_set = calls.iter().any(|&call| history.calls[call].is_set());
    let shared = |&call: &usize| {
        let Some(&(name, _)) = history.calls[call].wants.first() else { return false };
        history.calls[call].mode_of(name) == Some(Mode::Shared)
            && !matches!(history.calls[call].kind, CallKind::Release | CallKind::Inspect)
    };
    let model = match sets {
        Sets::OneInstant if has_set => Model::Sets,
        Sets::OneInstant => Model::Fencing,
        Sets::PerName => {
            model(if calls.iter().any(shared) { Mode::Shared } else { Mode::Exclusive }, has_set)
        }
    };
    let what = "each of these must have taken effect before the next, and the last one had ended before the \
                first one began";
    verdict.convict(model, what, calls);
}

fn count(history: &History, verdict: &mut Verdict) {
    for call in &history.calls {
        let is_shared = call.wants.iter().any(|(_, mode)| *mode == Mode::Shared);
        if call.is_set() {
            verdict.count(Model::Sets, 1);
        }
        verdict.count(if is_shared { Model::ReadWrite } else { Model::Mutex }, 1);
    }
}

//! Mutex, read/write lock, limited lock and several names at once: decides whether the holds can
//! have been as the clients were told. There is one rule: while a session holds a lock, there are
//! never more holders than its mode allows.
//!
//! Proves: at no moment do more certain periods ("cores") of holds overlap than one of them allows.
//! Each hold has a core, so for each name the order of any two holds that exclude each other is
//! forced. With that order `instants` decides exactly whether every call can have taken effect at
//! one moment between its start and its end: first for each name by itself; then for all names
//! together, with one instant for all names of a set, and with the grants of each name in the order
//! of their tokens. If each can, then the least choice of instants is one in which every session
//! holds as late, as briefly and in as loose a mode as it can have held. If there are more holders
//! at some moment of that than one of them allows, then there are in every other choice as well. If
//! there are not, it is a choice that fits. So this is exact, too.
//!
//! Cannot see: holds of which the clients were never told. Such a hold could only make it harder to
//! fit the others in, so leaving it out accuses no correct broker.

use super::holds::{Holds, Phase, Sets, model, replay};
use super::instants::{Bounds, Conflict};
use super::verdict::{Model, Verdict};
use crate::history::{CallKind, History, Mode, Nanos};

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
        let crowds = crowds(&holds, phases, |phase| phase.core);
        if sets == Sets::PerName {
            crowds.iter().for_each(|crowd| convict_crowd(&holds, sets, crowd, verdict));
        }
        if crowds.is_empty() {
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
    if verdict.acquits() {
        let least =
            |phase: &Phase| (holds.order.least(&bounds, phase.begin), holds.order.least(&bounds, phase.end));
        let crowds = by_name.iter().flat_map(|phases| crowds(&holds, phases, least));
        crowds.for_each(|crowd| convict_crowd(&holds, sets, &crowd, verdict));
    }
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

/// Phases of one name that were held at the same time, and are more than one of them allows.
struct Crowd<'a> {
    phases: Vec<&'a Phase>,
    /// How many holders one of them allows.
    allowed: usize,
    /// For how long all of them were held.
    length: Nanos,
}

/// The crowds that there are if each phase was held for `held`; at most one for each phase, which
/// is the last one that began.
fn crowds<'a>(holds: &'a Holds, phases: &[usize], held: impl Fn(&Phase) -> (Nanos, Nanos)) -> Vec<Crowd<'a>> {
    let mut spans: Vec<_> = phases.iter().map(|&at| (held(&holds.phases[at]), &holds.phases[at])).collect();
    spans.sort_by_key(|(span, _)| *span);
    let mut found = Vec::new();
    let mut present: Vec<((Nanos, Nanos), &Phase)> = Vec::new();
    for ((begin, end), phase) in spans {
        // One that ends at this moment has made room.
        present.retain(|((_, until), _)| *until > begin);
        let all = || present.iter().map(|(_, other)| *other).chain([phase]);
        let allowed = all().filter_map(|phase| phase.mode.holders_max()).min();
        if let Some(allowed) = allowed.map(|allowed| allowed as usize)
            && present.len() + 1 > allowed
        {
            let until = present.iter().map(|((_, until), _)| *until).chain([end]).min().unwrap_or(end);
            found.push(Crowd { phases: all().collect(), allowed, length: until - begin });
        }
        if end > begin {
            present.push(((begin, end), phase));
        }
    }
    found
}

fn convict_crowd(holds: &Holds, sets: Sets, crowd: &Crowd<'_>, verdict: &mut Verdict) {
    let Crowd { phases, allowed, length } = crowd;
    let modes: Vec<Mode> = phases.iter().map(|phase| phase.mode).collect();
    let of_set = phases.iter().any(|phase| phase.of_set);
    let model = match sets {
        Sets::OneInstant if !of_set => Model::Fencing,
        _ => model(&modes, of_set),
    };
    let (name, count) = (phases[0].name, phases.len());
    let what = format!(
        "n{name} was certainly held for {length} ns by {count} sessions, and one of them allows {allowed} at most"
    );
    // What began the phases, and what ended them: all that forces them to overlap.
    let instants = phases.iter().flat_map(|phase| [phase.begin, phase.end]);
    let calls = phases.iter().map(|phase| phase.call);
    verdict.convict(model, what, calls.chain(instants.map(|at| holds.order.instants[at].call)).collect());
}

/// Adds the order that the cores of one name's phases force: that of any two phases which exclude
/// each other. If more phases than two are too many, no order of any two of them is forced.
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
    let mode = |&call: &usize| {
        let call = &history.calls[call];
        let has_mode = !matches!(call.kind, CallKind::Release | CallKind::Inspect);
        call.wants.first().filter(|_| has_mode).map(|(_, mode)| *mode)
    };
    let model = match sets {
        Sets::OneInstant if has_set => Model::Sets,
        Sets::OneInstant => Model::Fencing,
        Sets::PerName => model(&calls.iter().filter_map(mode).collect::<Vec<_>>(), has_set),
    };
    let what = "each of these must have taken effect before the next, and the last one had ended before the \
                first one began";
    verdict.convict(model, what, calls);
}

fn count(history: &History, verdict: &mut Verdict) {
    for call in &history.calls {
        let modes: Vec<Mode> = call.wants.iter().map(|(_, mode)| *mode).collect();
        if call.is_set() {
            verdict.count(Model::Sets, 1);
        }
        verdict.count(model(&modes, false), 1);
    }
}

//! Checks what inspections saw: not fewer holders than there certainly were during the whole
//! inspection, and not more than there can have been at any moment of it. This detects a session
//! that holds part of a set while it waits for the rest.
//!
//! Cannot see: a wrong number between the two bounds, which differ while calls are in progress.

use std::collections::HashMap;

use super::exclusion::Fitted;
use super::holds::model;
use super::verdict::{Model, Rules, Verdict};
use crate::history::{CallKind, History, Mode, Name, Nanos, Outcome};

/// The moments at which possible holds of one name begin and the moments at which they end, each
/// sorted.
#[derive(Default)]
struct Spans {
    possible: (Vec<Nanos>, Vec<Nanos>),
}

pub(crate) fn check(history: &History, fitted: &Fitted, rules: &Rules, verdict: &mut Verdict) {
    let mut inspections: HashMap<Name, Vec<usize>> = HashMap::new();
    for (index, call) in history.calls.iter().enumerate() {
        if let Outcome::Seen(_) = call.outcome {
            inspections.entry(call.wants[0].0).or_default().push(index);
        }
    }
    let spans = spans(history, fitted, rules);
    for (name, mut inspections) in inspections {
        inspections.sort_by_key(|&index| history.calls[index].start);
        check_most(history, name, &spans[name as usize], &inspections, verdict);
        check_least(history, fitted, name, &inspections, verdict);
    }
}

fn spans(history: &History, fitted: &Fitted, rules: &Rules) -> Vec<Spans> {
    let mut spans: Vec<Spans> = Vec::new();
    spans.resize_with(history.names(), Spans::default);
    for phase in &fitted.holds.phases {
        let possible = &mut spans[phase.name as usize].possible;
        possible.0.push(fitted.bounds.earliest[phase.begin]);
        possible.1.push(fitted.bounds.latest[phase.end]);
    }
    for maybe in &fitted.holds.maybe {
        let possible = &mut spans[maybe.name as usize].possible;
        possible.0.push(maybe.from);
        possible.1.push(maybe.until.saturating_add(rules.end_notice_max));
    }
    for span in &mut spans {
        span.possible.0.sort_unstable();
        span.possible.1.sort_unstable();
    }
    spans
}

/// How many of the sorted moments come before `moment`.
fn before(sorted: &[Nanos], moment: Nanos) -> usize {
    sorted.partition_point(|&other| other < moment)
}

fn check_most(history: &History, name: Name, spans: &Spans, inspections: &[usize], verdict: &mut Verdict) {
    for &index in inspections {
        let call = &history.calls[index];
        let Outcome::Seen(seen) = call.outcome else { continue };
        let (begins, ends) = &spans.possible;
        let (begun, ended) = (before(begins, call.end.saturating_add(1)), before(ends, call.start));
        // Only in a history that was convicted already can a hold have ended before it began.
        let Some(most) = begun.checked_sub(ended) else { continue };
        if seen as usize > most {
            let waiting = waiting_sets(history, name, call.start, call.end);
            let model = if waiting.is_empty() { Model::Mutex } else { Model::Sets };
            let what =
                format!("n{name} was seen with {seen} holders when there can have been {most} at most");
            verdict.convict(model, what, waiting.into_iter().chain([index]).collect());
        }
    }
}

/// Requests for several names, including this one, that were in progress.
fn waiting_sets(history: &History, name: Name, from: Nanos, until: Nanos) -> Vec<usize> {
    let is_it = |(index, call): (usize, &crate::history::Call)| {
        let is_acquire =
            matches!(call.kind, CallKind::Acquire { .. }) && call.is_set() && call.mode_of(name).is_some();
        (is_acquire && call.start <= until && call.end >= from).then_some(index)
    };
    history.calls.iter().enumerate().filter_map(is_it).take(8).collect()
}

fn check_least(history: &History, fitted: &Fitted, name: Name, inspections: &[usize], verdict: &mut Verdict) {
    let phases = &fitted.by_name[name as usize];
    // The phases whose cores may cover an inspection that begins now: few at any time.
    let mut covering: Vec<usize> = Vec::new();
    let mut next = 0;
    for &index in inspections {
        let call = &history.calls[index];
        let Outcome::Seen(seen) = call.outcome else { continue };
        while let Some(&phase) = phases.get(next)
            && fitted.holds.phases[phase].core.0 < call.start
        {
            covering.push(phase);
            next += 1;
        }
        // The next server does not know what a holder of the previous one believes to hold.
        let until = |phase: usize| {
            let phase = &fitted.holds.phases[phase];
            phase.core.1.min(history.server_stopped_of(phase.session, phase.core.0))
        };
        covering.retain(|&phase| until(phase) > call.start);
        let throughout: Vec<usize> =
            covering.iter().copied().filter(|&phase| until(phase) > call.end).collect();
        if throughout.len() > seen as usize {
            let phases = throughout.iter().map(|&phase| &fitted.holds.phases[phase]);
            let modes: Vec<Mode> = phases.clone().map(|phase| phase.mode).collect();
            let model = model(&modes, false);
            let what = format!("n{name} was seen with {seen} holders when there certainly were more");
            verdict.convict(model, what, phases.map(|phase| phase.call).chain([index]).collect());
        }
    }
}

//! Nothing is stuck: a request that can be granted is granted, within the time that the rules
//! allow.
//!
//! Proves: no call stayed open for longer than that time while no session can have held any of its
//! names, its own client was running, and its server was there to reply. A request is excused if
//! another one may have been ahead of it in a queue while also waiting for a different name, unless
//! nothing at all was held.
//!
//! Cannot see: a grant that is late by less than that time; requests whose names always had a
//! possible holder.

use super::exclusion::Fitted;
use super::verdict::{Model, Rules, Verdict};
use crate::history::{CallKind, History, NEVER, Name, Nanos, SessionIndex};

pub(crate) fn check(history: &History, fitted: &Fitted, rules: &Rules, verdict: &mut Verdict) {
    let is_acquire = |kind| matches!(kind, CallKind::Acquire { .. } | CallKind::Convert { .. });
    verdict.count(Model::Stuck, history.calls.iter().filter(|call| is_acquire(call.kind)).count());
    for index in 0..history.calls.len() {
        let Some((from, until)) = waited(history, index) else { continue };
        if until.saturating_sub(from) > rules.grant_delay_max {
            check_long(history, fitted, rules, index, (from, until), verdict);
        }
    }
}

/// The period during which only the broker can have kept a call open.
fn waited(history: &History, index: usize) -> Option<(Nanos, Nanos)> {
    let call = &history.calls[index];
    let session = &history.sessions[call.session];
    let until = call.end.min(history.waited_until(call.session)).min(history.end);
    let paused = session.pauses.iter().filter(|(stopped, _)| *stopped < until).map(|(_, resumed)| *resumed);
    let server = history.servers.iter().rev().find(|server| server.started <= session.opened);
    let grace_end = server.map_or(0, |server| server.ready + server.grace_max);
    let from = paused.chain([grace_end, call.start]).max()?;
    (from < until).then_some((from, until))
}

/// The periods in which a session other than `session` can have held the name.
fn possible(
    history: &History,
    fitted: &Fitted,
    name: Name,
    session: Option<SessionIndex>,
    from_to: (Nanos, Nanos),
) -> Vec<(Nanos, Nanos)> {
    let gone = |session: SessionIndex| history.sessions[session].gone_at.unwrap_or(NEVER);
    let of_phases = fitted.by_name.get(name as usize).into_iter().flatten().map(|&phase| {
        let phase = &fitted.holds.phases[phase];
        let until = fitted.bounds.latest[phase.end].min(gone(phase.session).max(phase.core.1));
        (phase.session, fitted.bounds.earliest[phase.begin], until)
    });
    // A client that is still waiting may hold the name without having been told; but then its call
    // is the one that is stuck.
    let of_name = fitted.holds.maybe.iter().filter(|maybe| maybe.name == name && !maybe.unanswered);
    let maybe = of_name.map(|maybe| (maybe.session, maybe.from, maybe.until));
    let mut spans: Vec<(Nanos, Nanos)> = of_phases
        .chain(maybe)
        .filter(|&(of, from, until)| Some(of) != session && from < from_to.1 && until > from_to.0)
        .map(|(_, from, until)| (from, until))
        .collect();
    spans.sort_unstable();
    spans
}

/// The longest time between `from` and `until` without any of the sorted spans.
fn longest_gap(spans: &[(Nanos, Nanos)], from: Nanos, until: Nanos) -> (Nanos, Nanos) {
    let mut longest = (from, from);
    let mut at = from;
    for &(start, end) in spans.iter().chain([&(until, until)]) {
        if start > at && start - at > longest.1 - longest.0 {
            longest = (at, start);
        }
        at = at.max(end);
    }
    longest
}

fn check_long(
    history: &History,
    fitted: &Fitted,
    rules: &Rules,
    index: usize,
    (from, until): (Nanos, Nanos),
    verdict: &mut Verdict,
) {
    let call = &history.calls[index];
    let mut spans = Vec::new();
    if matches!(call.kind, CallKind::Acquire { .. } | CallKind::Convert { .. }) {
        for &(name, _) in &call.wants {
            spans.extend(possible(history, fitted, name, Some(call.session), (from, until)));
        }
        spans.sort_unstable();
    }
    let gap = longest_gap(&spans, from, until);
    if gap.1 - gap.0 <= rules.grant_delay_max || is_excused(history, fitted, rules, index, gap) {
        return;
    }
    let what = format!(
        "for {} ms no session held what this waited for, and it was not granted",
        (gap.1 - gap.0) / crate::history::MILLISECOND
    );
    verdict.convict(Model::Stuck, what, vec![index]);
}

/// Whether another request may have been ahead of this one while waiting for a different name.
fn is_excused(history: &History, fitted: &Fitted, rules: &Rules, index: usize, gap: (Nanos, Nanos)) -> bool {
    let own = &history.calls[index];
    let is_other = |call: &crate::history::Call| {
        call.session != own.session
            && matches!(call.kind, CallKind::Acquire { .. })
            && call.start < gap.1
            && call.end > gap.0
            && call.wants.iter().any(|(name, _)| own.mode_of(*name).is_some())
            && call.wants.iter().any(|(name, _)| own.mode_of(*name).is_none())
    };
    if !history.calls.iter().any(is_other) {
        return false;
    }
    let names = 0..u32::try_from(history.names()).unwrap();
    let mut all: Vec<_> =
        names.flat_map(|name| possible(history, fitted, name, None, (gap.0, gap.1))).collect();
    all.sort_unstable();
    let unheld = longest_gap(&all, gap.0, gap.1);
    unheld.1 - unheld.0 <= rules.grant_delay_max
}

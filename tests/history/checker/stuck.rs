//! Nothing is stuck: a request that can be granted is granted, within the time that the rules
//! allow.
//!
//! Proves: no call stayed open for longer than that time while all possible holders of its names had
//! room for it, its own client was running, and its server was there to reply. A request is excused
//! if another one may have been ahead of it in a queue that waits for a different name as well, or
//! in a mode that allows fewer holders. That is no excuse if nothing at all was held.
//!
//! Cannot see: a grant that is late by less than that time; requests whose names always had too many
//! possible holders.

use std::collections::BTreeMap;

use super::exclusion::Fitted;
use super::verdict::{Model, Rules, Verdict};
use crate::history::{Call, CallKind, History, MILLISECOND, Mode, NEVER, Name, Nanos, SessionIndex};

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
    // Without a reply, its connection may have ended at any time.
    if session.resumption.is_some() && call.end == NEVER {
        return None;
    }
    let until = call.end.min(history.waited_until(call.session)).min(history.end);
    let paused = session.pauses.iter().filter(|(stopped, _)| *stopped < until).map(|(_, resumed)| *resumed);
    // A session that can resume may wait at the next server.
    let connected = if session.resumption.is_some() { until } else { session.opened };
    let server = history.servers.iter().rev().find(|server| server.started <= connected);
    let grace_end = server.map_or(0, |server| server.ready + server.grace_max);
    let from = paused.chain([grace_end, call.start]).max()?;
    (from < until).then_some((from, until))
}

/// A period in which a session can have held a name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    from: Nanos,
    until: Nanos,
    mode: Mode,
}

/// The periods in which a session other than `session` can have held the name, sorted.
fn possible(
    history: &History,
    fitted: &Fitted,
    name: Name,
    session: Option<SessionIndex>,
    from_to: (Nanos, Nanos),
) -> Vec<Span> {
    let gone = |session: SessionIndex| history.sessions[session].gone_at.unwrap_or(NEVER);
    let of_phases = fitted.by_name.get(name as usize).into_iter().flatten().map(|&phase| {
        let phase = &fitted.holds.phases[phase];
        let until = fitted.bounds.latest[phase.end].min(gone(phase.session).max(phase.core.1));
        (phase.session, Span { from: fitted.bounds.earliest[phase.begin], until, mode: phase.mode })
    });
    // A client that is still waiting may hold the name without having been told; but then its call
    // is the one that is stuck.
    let of_name = fitted.holds.maybe.iter().filter(|maybe| maybe.name == name && !maybe.unanswered);
    let maybe =
        of_name.map(|maybe| (maybe.session, Span { from: maybe.from, until: maybe.until, mode: maybe.mode }));
    let mut spans: Vec<Span> = of_phases
        .chain(maybe)
        .filter(|&(of, span)| Some(of) != session && span.from < from_to.1 && span.until > from_to.0)
        .map(|(_, span)| span)
        .collect();
    spans.sort_unstable();
    spans
}

/// The longest time between `from` and `until` without any of the sorted spans.
fn longest_gap(spans: &[Span], from: Nanos, until: Nanos) -> (Nanos, Nanos) {
    let mut longest = (from, from);
    let mut at = from;
    for (start, end) in spans.iter().map(|span| (span.from, span.until)).chain([(until, until)]) {
        if start > at && start - at > longest.1 - longest.0 {
            longest = (at, start);
        }
        at = at.max(end);
    }
    longest
}

/// When the holders of these spans had no room for one more, who wants the lock in `mode`; as sorted
/// spans.
fn without_room(spans: &[Span], mode: Mode) -> Vec<Span> {
    let turns = |span: &Span| [(span.from, true, span.mode), (span.until, false, span.mode)];
    let mut turns: Vec<(Nanos, bool, Mode)> =
        spans.iter().filter(|span| span.from < span.until).flat_map(turns).collect();
    turns.sort_unstable();
    let mut present: BTreeMap<Mode, usize> = BTreeMap::new();
    let mut full_since = None;
    let mut full = Vec::new();
    for (at, begins, of_mode) in turns {
        let count = present.entry(of_mode).or_default();
        if begins {
            *count += 1;
        } else {
            *count -= 1;
            if *count == 0 {
                present.remove(&of_mode);
            }
        }
        let strictest = present.keys().next().map_or(mode, |strictest| mode.min(*strictest));
        let holders = present.values().sum::<usize>() + 1;
        let has_room = strictest.holders_max().is_none_or(|max| holders <= max as usize);
        match full_since {
            None if !has_room => full_since = Some(at),
            Some(from) if has_room => {
                full.push(Span { from, until: at, mode });
                full_since = None;
            }
            _ => {}
        }
    }
    full
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
    let is_long = |gap: (Nanos, Nanos)| gap.1 - gap.0 > rules.grant_delay_max;
    let (mut held, mut full) = (Vec::new(), Vec::new());
    if matches!(call.kind, CallKind::Acquire { .. } | CallKind::Convert { .. }) {
        for &(name, mode) in &call.wants {
            let spans = possible(history, fitted, name, Some(call.session), (from, until));
            full.extend(without_room(&spans, mode));
            held.extend(spans);
        }
        held.sort_unstable();
        full.sort_unstable();
    }
    let free = longest_gap(&held, from, until);
    let room = longest_gap(&full, from, until);
    let (gap, what) = if is_long(free) && !is_excused(history, fitted, rules, index, free) {
        (free, "no session held what this waited for")
    } else if is_long(room) && !may_be_behind(history, index, room, is_in_the_way) {
        (room, "there was room for one more holder of what this waited for")
    } else {
        return;
    };
    let millis = (gap.1 - gap.0) / MILLISECOND;
    verdict.convict(Model::Stuck, format!("for {millis} ms {what}, and it was not granted"), vec![index]);
}

/// Whether one of the calls that are `in_the_way` of this one may have been ahead of it in a queue,
/// at some moment of the gap.
fn may_be_behind(
    history: &History,
    index: usize,
    gap: (Nanos, Nanos),
    in_the_way: impl Fn(&Call, &Call) -> bool,
) -> bool {
    let own = &history.calls[index];
    history.calls.iter().any(|call| {
        call.session != own.session && call.start < gap.1 && call.end > gap.0 && in_the_way(call, own)
    })
}

/// Whether a request waits for a name of `own`, and for another name as well.
fn waits_elsewhere(call: &Call, own: &Call) -> bool {
    matches!(call.kind, CallKind::Acquire { .. })
        && call.wants.iter().any(|(name, _)| own.mode_of(*name).is_some())
        && call.wants.iter().any(|(name, _)| own.mode_of(*name).is_none())
}

/// Whether a request may wait at a time when there is room for `own`, which wants one of its names.
fn is_in_the_way(call: &Call, own: &Call) -> bool {
    let is_stricter =
        |(name, mode): &(Name, Mode)| own.mode_of(*name).is_some_and(|own_mode| *mode < own_mode);
    let waits = matches!(call.kind, CallKind::Acquire { .. } | CallKind::Convert { .. });
    waits_elsewhere(call, own) || waits && call.wants.iter().any(is_stricter)
}

/// Whether another request may have been ahead of this one while waiting for a different name.
fn is_excused(history: &History, fitted: &Fitted, rules: &Rules, index: usize, gap: (Nanos, Nanos)) -> bool {
    if !may_be_behind(history, index, gap, waits_elsewhere) {
        return false;
    }
    let names = 0..u32::try_from(history.names()).unwrap();
    let mut all: Vec<_> =
        names.flat_map(|name| possible(history, fitted, name, None, (gap.0, gap.1))).collect();
    all.sort_unstable();
    let unheld = longest_gap(&all, gap.0, gap.1);
    unheld.1 - unheld.0 <= rules.grant_delay_max
}

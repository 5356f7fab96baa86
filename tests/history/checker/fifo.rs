//! First come, first served: no request, and no try either, overtakes a request that certainly was
//! in the queue before the other one was sent.
//!
//! A request certainly is in its queue, or holds what it was granted, from the moment its client
//! learned that it was queued (a reply to something sent after it on the same connection) until the
//! client may first have released it. A grant of the same name that was requested after that moment
//! is an overtaking in three cases, the first two of which need that it was reported before the
//! first request may have been released:
//! - the first one was never granted at all;
//! - all that were in the queue or held the name cannot hold it together with this grant: there are
//!   more of them than the mode of one of them allows, so one of the queued ones was waiting;
//! - its token is the lower one.
//!
//! Cannot see: the order of two requests if neither is known to have been queued before the other
//! was sent. Conversions rightly go ahead of all others: they can be overtaken, and are never
//! accused of overtaking.

use super::exclusion::Fitted;
use super::verdict::{Model, Verdict};
use crate::history::{Call, CallKind, History, MILLISECOND, Mode, NEVER, Name, Nanos, Outcome};

/// How much earlier a wait may end than its client computes.
const CLOCK_MARGIN: Nanos = MILLISECOND;

/// The period during which a request certainly was in a name's queue, or held the name.
struct Presence {
    call: usize,
    since: Nanos,
    until: Nanos,
    mode: Mode,
    /// The request was in the queue first. If not, it certainly held the name all the time.
    was_queued: bool,
    /// The request certainly was not granted before `until`.
    never_granted: bool,
}

pub(crate) fn check(history: &History, fitted: &Fitted, verdict: &mut Verdict) {
    let present = presences(history, fitted);
    let mut asked = vec![Vec::new(); history.names()];
    for (index, call) in history.calls.iter().enumerate() {
        if let (CallKind::Acquire { .. }, true) = (call.kind, call.is_granted()) {
            verdict.count(Model::Fifo, 1);
            call.wants.iter().for_each(|&(name, _)| asked[name as usize].push(index));
        }
    }
    for (name, (mut present, mut asked)) in (0..).zip(present.into_iter().zip(asked)) {
        present.sort_by_key(|presence| presence.since);
        asked.sort_by_key(|&index| history.calls[index].start);
        check_name(history, name, &present, &asked, verdict);
    }
}

fn presences(history: &History, fitted: &Fitted) -> Vec<Vec<Presence>> {
    let mut present: Vec<Vec<Presence>> = Vec::new();
    present.resize_with(history.names(), Vec::new);
    let mut add = |name: Name, presence: Presence| {
        let until = presence.until.min(history.waited_until(history.calls[presence.call].session));
        if presence.since < until {
            present[name as usize].push(Presence { until, ..presence });
        }
    };
    for phase in &fitted.holds.phases {
        let (call, mode, until) = (phase.call, phase.mode, phase.core.1);
        let queued = history.calls[call].queued;
        let since = queued.unwrap_or(phase.core.0);
        let was_queued = queued.is_some();
        add(phase.name, Presence { call, since, until, mode, was_queued, never_granted: false });
    }
    for (index, call) in history.calls.iter().enumerate() {
        let ends_by_limit = |limit: Option<Nanos>| {
            limit.map_or(NEVER, |limit| call.start.saturating_add(limit).saturating_sub(CLOCK_MARGIN))
        };
        let (until, never_granted) = match (call.kind, call.outcome) {
            (CallKind::Acquire { limit } | CallKind::Convert { limit }, Outcome::TimedOut) => {
                (ends_by_limit(limit), true)
            }
            (CallKind::Acquire { .. }, Outcome::GivenUp) => (call.gave_up.unwrap_or(call.start), false),
            // It may have ended by its limit, and the reply was lost.
            (CallKind::Acquire { limit }, Outcome::Unknown) => (ends_by_limit(limit), false),
            (CallKind::Acquire { .. }, Outcome::Unanswered) => (call.end, false),
            _ => continue,
        };
        let Some(since) = call.queued else { continue };
        for &(name, mode) in &call.wants {
            add(name, Presence { call: index, since, until, mode, was_queued: true, never_granted });
        }
    }
    present
}

fn check_name(history: &History, name: Name, present: &[Presence], asked: &[usize], verdict: &mut Verdict) {
    // The presences that began before the request, and may go on; and of all that began before it
    // in the queue, the one with the highest token.
    let mut before: Vec<&Presence> = Vec::new();
    let mut highest: Option<(u64, &Presence)> = None;
    let mut next = 0;
    for &index in asked {
        let call = &history.calls[index];
        while let Some(presence) = present.get(next).filter(|presence| presence.since < call.start) {
            before.push(presence);
            let token = history.calls[presence.call].token().filter(|_| presence.was_queued);
            if let Some(token) = token.filter(|token| highest.is_none_or(|(highest, _)| *token > highest)) {
                highest = Some((token, presence));
            }
            next += 1;
        }
        before.retain(|presence| presence.until > call.start);
        let overtaken = overtaken(&before, call, name);
        if !overtaken.is_empty() {
            let what =
                format!("n{name} was granted ahead of a request that was queued before this one was sent");
            verdict.convict(Model::Fifo, what, overtaken.into_iter().chain([index]).collect());
        }
        if let (Some((highest, first)), Some(token)) = (highest, call.token())
            && token < highest
        {
            let what = format!(
                "by its token, n{name} was granted before a request that was queued before this one was sent"
            );
            verdict.convict(Model::Fifo, what, vec![first.call, index]);
        }
    }
}

/// The requests in the queue of which one was certainly overtaken by this call, which was granted.
fn overtaken(before: &[&Presence], granted: &Call, name: Name) -> Vec<usize> {
    let throughout = || before.iter().filter(|presence| presence.until > granted.end);
    if let Some(waiting) = throughout().find(|presence| presence.never_granted) {
        return vec![waiting.call];
    }
    let modes = throughout().map(|presence| presence.mode).chain(granted.mode_of(name));
    let allowed = modes.filter_map(Mode::holders_max).min();
    let holders = throughout().count() + 1;
    if allowed.is_none_or(|allowed| holders <= allowed as usize) {
        return Vec::new();
    }
    throughout().filter(|presence| presence.was_queued).map(|presence| presence.call).collect()
}

//! First come, first served: no request, and no try either, overtakes a request that certainly was
//! in the queue before the other one was sent.
//!
//! A request certainly is in its queue, or holds what it was granted, from the moment its client
//! learned that it was queued (a reply to something sent after it on the same connection) until the
//! client may first have released it. A grant of the same name that was requested after that moment
//! is an overtaking in two cases:
//! - it was reported before the first request may have been released, and the two exclude each
//!   other or the first one was never granted at all;
//! - its token is the lower one.
//!
//! Cannot see: the order of two requests if neither is known to have been queued before the other
//! was sent. Conversions rightly go ahead of all others: they can be overtaken, and are never
//! accused of overtaking.

use super::exclusion::Fitted;
use super::verdict::{Model, Verdict};
use crate::history::{CallKind, History, MILLISECOND, Mode, NEVER, Name, Nanos, Outcome};

/// How much earlier a wait may end than its client computes.
const CLOCK_MARGIN: Nanos = MILLISECOND;

/// The period during which a request certainly was in a name's queue, or held the name.
struct Presence {
    call: usize,
    since: Nanos,
    until: Nanos,
    mode: Mode,
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
    let mut add = |call: usize, name: Name, mode: Mode, until: Nanos, never_granted: bool| {
        let until = until.min(history.waited_until(history.calls[call].session));
        let Some(since) = history.calls[call].queued.filter(|&since| since < until) else { return };
        present[name as usize].push(Presence { call, since, until, mode, never_granted });
    };
    for phase in &fitted.holds.phases {
        add(phase.call, phase.name, phase.mode, phase.core.1, false);
    }
    for (index, call) in history.calls.iter().enumerate() {
        let (until, never_granted) = match (call.kind, call.outcome) {
            (CallKind::Acquire { limit } | CallKind::Convert { limit }, Outcome::TimedOut) => {
                let limit = limit.unwrap_or(NEVER);
                (call.start.saturating_add(limit).saturating_sub(CLOCK_MARGIN), true)
            }
            (CallKind::Acquire { .. }, Outcome::GivenUp) => (call.gave_up.unwrap_or(call.start), false),
            (CallKind::Acquire { .. }, Outcome::Unknown) => (NEVER, false),
            (CallKind::Acquire { .. }, Outcome::Unanswered) => (call.end, false),
            _ => continue,
        };
        call.wants.iter().for_each(|&(name, mode)| add(index, name, mode, until, never_granted));
    }
    present
}

/// Of the presences so far, the longest of each kind that excludes others, and the one with the
/// highest token.
#[derive(Default)]
struct Longest<'a> {
    exclusive: Option<&'a Presence>,
    shared: Option<&'a Presence>,
    never_granted: Option<&'a Presence>,
    token: Option<(u64, &'a Presence)>,
}

impl<'a> Longest<'a> {
    fn add(&mut self, history: &History, presence: &'a Presence) {
        let kind = match (presence.never_granted, presence.mode) {
            (true, _) => &mut self.never_granted,
            (false, Mode::Exclusive) => &mut self.exclusive,
            (false, Mode::Limited(_) | Mode::Shared) => &mut self.shared,
        };
        if kind.is_none_or(|longest| presence.until > longest.until) {
            *kind = Some(presence);
        }
        let Some(token) = history.calls[presence.call].token() else { return };
        if self.token.is_none_or(|(highest, _)| token > highest) {
            self.token = Some((token, presence));
        }
    }
}

fn check_name(history: &History, name: Name, present: &[Presence], asked: &[usize], verdict: &mut Verdict) {
    let mut longest_so_far = Longest::default();
    let mut next = 0;
    for &index in asked {
        let call = &history.calls[index];
        while let Some(presence) = present.get(next).filter(|presence| presence.since < call.start) {
            longest_so_far.add(history, presence);
            next += 1;
        }
        let of_shared = longest_so_far.shared.filter(|_| call.mode_of(name) == Some(Mode::Exclusive));
        let mut before =
            [longest_so_far.never_granted, longest_so_far.exclusive, of_shared].into_iter().flatten();
        if let Some(overtaken) = before.find(|presence| presence.until > call.end) {
            let what =
                format!("n{name} was granted ahead of a request that was queued before this one was sent");
            verdict.convict(Model::Fifo, what, vec![overtaken.call, index]);
        }
        if let (Some((highest, first)), Some(token)) = (longest_so_far.token, call.token())
            && token < highest
        {
            let what = format!(
                "by its token, n{name} was granted before a request that was queued before this one was sent"
            );
            verdict.convict(Model::Fifo, what, vec![first.call, index]);
        }
    }
}

//! A wait with a time limit ends at its time.
//!
//! Proves: no wait was ended by its server before its time limit had passed, and no call with a time
//! limit stayed open longer than that and what the rules allow, while its client was running.
//!
//! Cannot see: a wait that ends late by less than that; and one of a text protocol that ends early,
//! since the reply does not say whether the time was over or the server is stopping.

use super::verdict::{Model, Rules, Verdict};
use crate::history::{Call, CallKind, History, MILLISECOND, NEVER, Nanos, Outcome};

pub(crate) fn check(history: &History, rules: &Rules, verdict: &mut Verdict) {
    for (index, call) in history.calls.iter().enumerate() {
        // Without a reply, its session has ended the call.
        let Some(limit) = time_limit(call).filter(|_| call.end != NEVER) else { continue };
        verdict.count(Model::TimeLimit, 1);
        let lasted = call.end - call.start;
        if call.outcome == Outcome::TimedOut && lasted + lasted * rules.clock_lead / 1000 < limit {
            let what = format!("this ended {} ms before its time", (limit - lasted).div_ceil(MILLISECOND));
            verdict.convict(Model::TimeLimit, what, vec![index]);
        }
        let over = running_since(history, call).saturating_add(limit);
        let late = call.end.saturating_sub(over);
        if late > rules.grant_delay_max {
            let what = format!("this was still open {} ms after its time", late / MILLISECOND);
            verdict.convict(Model::TimeLimit, what, vec![index]);
        }
    }
}

fn time_limit(call: &Call) -> Option<Nanos> {
    match call.kind {
        CallKind::Acquire { limit } | CallKind::Convert { limit } => limit.filter(|limit| *limit > 0),
        CallKind::Release | CallKind::Inspect => None,
    }
}

/// The start of a call, or the last time that its client was continued before its end.
fn running_since(history: &History, call: &Call) -> Nanos {
    let pauses = history.sessions[call.session].pauses.iter();
    let during = pauses.filter(|(stopped, _)| *stopped < call.end).map(|(_, resumed)| *resumed);
    during.max().unwrap_or(0).max(call.start)
}

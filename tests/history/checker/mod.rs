//! Decides whether a history fits what a broker promises. Pure: no clock, no I/O.
//!
//! - `instants`: the exact core: decides whether moments can be chosen within bounds and in an
//!   order.
//! - `holds`: computes from each session's calls what it held, and from when to when for certain.
//! - `exclusion`: mutex, read/write lock, limited lock, several names at once. `fencing`, `fifo`, `stuck`,
//!   `time_limits`: what their names say.
//! - `inspections`: compares what inspections saw with all that.
//! - `search`: answers the same question as `exclusion` by trying everything, for small histories.
//!   It shows that the fast answer is right.
//!
//! Every file says what it proves and what it cannot see. Nothing here guesses: a call without a
//! reply is interpreted in the broker's favour, and so is a session whose end was not observed. So
//! a conviction is a proof, provided that the clients record the truth; an acquittal says that
//! nothing they saw contradicts the promises. A check takes time n log n in the number of calls,
//! and some hundred bytes for each.

mod exclusion;
mod fencing;
mod fifo;
mod holds;
mod inspections;
mod instants;
pub(crate) mod search;
mod stuck;
mod time_limits;
mod verdict;

use crate::history::{Call, CallKind, History, Mode, ServerLife, Session, SessionIndex};
pub(crate) use verdict::{Model, Rules, Verdict};

/// Checks a history against all models.
pub(crate) fn check(history: &History, rules: &Rules) -> Verdict {
    let mut verdict = Verdict::default();
    let fitted = exclusion::check(history, &mut verdict);
    fencing::check(history, &fitted, &mut verdict);
    fifo::check(history, &fitted, &mut verdict);
    inspections::check(history, &fitted, rules, &mut verdict);
    stuck::check(history, &fitted, rules, &mut verdict);
    time_limits::check(history, rules, &mut verdict);
    recovery(history, &mut verdict);
    losses(history, &mut verdict);
    endings(history, &mut verdict);
    verdict
}

/// A server that must wait for old holders must grant nothing before that time is over.
fn recovery(history: &History, verdict: &mut Verdict) {
    let waiting: Vec<_> = history.servers.iter().filter(|server| server.grace > 0).collect();
    // A holder that has resumed may change its lock to a mode that allows more holders.
    let may_widen = |call: &Call| {
        matches!(call.kind, CallKind::Convert { .. })
            && call.wants.iter().all(|want| want.1 != Mode::Exclusive)
    };
    let granted = |call: &Call| call.is_granted() && !may_widen(call);
    for (index, call) in history.calls.iter().enumerate().filter(|(_, call)| granted(call)) {
        let connected = history.connected(call.session, call.end);
        let server = waiting.iter().rev().find(|server| server.started <= connected);
        if let Some(server) = server {
            verdict.count(Model::Recovery, 1);
            if call.end < server.started + server.grace {
                let what = "granted by a server although old holders may not have found out yet that they lost their locks";
                verdict.convict(Model::Recovery, what, vec![index]);
            }
        }
    }
}

/// A session that comes back in time with locks is not told that it has ended.
fn endings(history: &History, verdict: &mut Verdict) {
    for (index, session) in history.sessions.iter().enumerate() {
        let Some(resumption) = &session.resumption else { continue };
        verdict.count(Model::Resume, resumption.doubts);
        let Some((at, claims @ 1..)) = resumption.told_ended else { continue };
        // What the servers before have promised is not known to one with a new state directory.
        let forgets =
            |server: &ServerLife| server.is_new && server.started >= session.opened && server.started <= at;
        let is_in_time = resumption.asleep.is_none();
        if is_in_time && !session.provoked && !history.servers.iter().any(forgets) {
            let what = format!(
                "the session {} was told that it has ended, although it had {claims} locks and came back in time",
                session.label
            );
            verdict.convict(Model::Resume, what, last_calls(history, index));
        }
    }
}

fn last_calls(history: &History, session: SessionIndex) -> Vec<usize> {
    let mut calls: Vec<usize> =
        (0..history.calls.len()).filter(|&call| history.calls[call].session == session).collect();
    calls.drain(..calls.len().saturating_sub(5));
    calls
}

/// A session must end only through its client or with its server. One that can resume may also end
/// because its client could not come back.
fn losses(history: &History, verdict: &mut Verdict) {
    let stays = |session: &Session| !session.provoked && session.resumption.is_none();
    for (index, session) in history.sessions.iter().enumerate().filter(|(_, session)| stays(session)) {
        let stopped = history.server_stopped(index);
        if session.lost_at.is_some_and(|lost| lost < stopped) {
            let what = format!("the session {} was ended while its server was running", session.label);
            verdict.convict(Model::Mutex, what, last_calls(history, index));
        }
    }
}

//! Computes holds from calls: replays each session by itself and determines from when to when it
//! held what. Also checks what can be checked within one session: that no reply about a lock
//! contradicts an earlier one.
//!
//! A hold is cut into phases of one mode. The *core* of a phase is certain: from the end of the
//! call that began it to the start of the call that ended it. Acquires without a reply may have
//! become holds or not; they are listed separately. Cannot see: a hold that was reported to its
//! client only after its server had ended; it is left out, because nothing of it is certain.

use super::instants::{Least, Order};
use super::verdict::{Model, Verdict};
use crate::history::{Call, CallKind, History, Mode, NEVER, Name, Nanos, Outcome, SessionIndex};

/// A period in which a session held a name in one mode.
#[derive(Clone, Debug)]
pub(crate) struct Phase {
    pub(crate) name: Name,
    pub(crate) session: SessionIndex,
    pub(crate) mode: Mode,
    /// The call that was granted.
    pub(crate) call: usize,
    /// The instants at which it began and ended.
    pub(crate) begin: usize,
    pub(crate) end: usize,
    /// The period in which the name was certainly held.
    pub(crate) core: (Nanos, Nanos),
    /// Whether it is part of an acquire of several names.
    pub(crate) of_set: bool,
}

/// A request, or a conversion to a mode that allows fewer holders, that may have been granted without
/// its client knowing.
#[derive(Clone, Debug)]
pub(crate) struct MaybeHeld {
    pub(crate) name: Name,
    pub(crate) session: SessionIndex,
    pub(crate) mode: Mode,
    pub(crate) from: Nanos,
    /// The time by which the request had been cancelled or its session had ended; the broker may
    /// notice that later. [`NEVER`] if it is not known.
    pub(crate) until: Nanos,
    /// Whether its client was still waiting for the answer when the run was over.
    pub(crate) unanswered: bool,
}

/// Everything that was held.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    pub(crate) order: Order,
    pub(crate) phases: Vec<Phase>,
    pub(crate) maybe: Vec<MaybeHeld>,
    /// The tokens of each name, and the instants at which they were granted.
    pub(crate) tokens: Vec<(Name, u64, usize)>,
}

/// Whether an acquire of several names is one instant, or one instant for each name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sets {
    OneInstant,
    PerName,
}

/// A phase that has begun and not ended yet.
struct Open {
    mode: Mode,
    call: usize,
    begin: usize,
    core_start: Nanos,
    of_set: bool,
}

struct Replay<'a> {
    history: &'a History,
    sets: Sets,
    verdict: &'a mut Verdict,
    holds: Holds,
}

/// The holds of all sessions.
pub(crate) fn replay(history: &History, sets: Sets, verdict: &mut Verdict) -> Holds {
    let mut replay = Replay { history, sets, verdict, holds: Holds::default() };
    for (session, calls) in history.by_session().iter().enumerate() {
        replay.session(session, calls);
    }
    replay.holds
}

impl Replay<'_> {
    fn session(&mut self, session: SessionIndex, calls: &[usize]) {
        let mut open: Vec<(Name, Open)> = Vec::new();
        for (at, &index) in calls.iter().enumerate() {
            let call = &self.history.calls[index];
            match (call.kind, call.outcome) {
                (CallKind::Acquire { .. }, Outcome::Granted(_)) => self.granted(index, call, &mut open),
                (CallKind::Acquire { .. }, Outcome::Unknown | Outcome::Unanswered) => self.maybe(call, None),
                (CallKind::Acquire { .. }, Outcome::GivenUp) => self.maybe(call, calls.get(at + 1)),
                (CallKind::Release, _) => self.released(index, call, &mut open),
                (CallKind::Convert { .. }, _) => self.converted(index, call, &mut open),
                _ => {}
            }
        }
        for (name, phase) in open {
            let ended = self.history.sessions[session].alive_until.max(phase.core_start);
            let end = self.holds.order.instant((ended, NEVER), phase.call, Least::AsEarlyAsPossible);
            self.close(session, name, phase, end, ended);
        }
    }

    fn granted(&mut self, index: usize, call: &Call, open: &mut Vec<(Name, Open)>) {
        let mut whole = None;
        for &(name, mode) in &call.wants {
            if open.iter().any(|(held, _)| *held == name) {
                self.convict(&[mode], "granted to a session that holds it", index);
                continue;
            }
            let begin = match (self.sets, whole) {
                (Sets::OneInstant, Some(begin)) => begin,
                _ => self.holds.order.instant((call.start, call.end), index, Least::AsLateAsPossible),
            };
            whole = Some(begin);
            self.holds.tokens.extend(call.token().map(|token| (name, token, begin)));
            let of_set = call.is_set();
            open.push((name, Open { mode, call: index, begin, core_start: call.end, of_set }));
        }
    }

    /// A cancelled request has certainly gone by the time the `next` call of its session was
    /// answered.
    fn maybe(&mut self, call: &Call, next: Option<&usize>) {
        let session = &self.history.sessions[call.session];
        let gone = session.gone_at.unwrap_or(NEVER);
        // The connection of the request may have ended, so that its server does not know.
        let kept = session.resumption.as_ref().map_or(0, |resumption| resumption.kept);
        let until = next.map_or(NEVER, |&next| self.history.calls[next].end.saturating_add(kept)).min(gone);
        let unanswered = call.outcome == Outcome::Unanswered;
        let (session, from) = (call.session, call.start);
        for &(name, mode) in &call.wants {
            self.holds.maybe.push(MaybeHeld { name, session, mode, from, until, unanswered });
        }
    }

    fn released(&mut self, index: usize, call: &Call, open: &mut Vec<(Name, Open)>) {
        for &(name, _) in &call.wants {
            let at = open.iter().position(|(held, _)| *held == name);
            match (at, call.outcome) {
                (Some(at), Outcome::NotHeld) => {
                    let (_, phase) = open.swap_remove(at);
                    let what = "a holder was told that it does not hold the lock";
                    self.verdict.convict(model(&[phase.mode], phase.of_set), what, vec![phase.call, index]);
                }
                (Some(at), _) => {
                    let (_, phase) = open.swap_remove(at);
                    let during = (call.start, call.end);
                    let end = self.holds.order.instant(during, index, Least::AsEarlyAsPossible);
                    self.close(call.session, name, phase, end, call.start);
                }
                (None, Outcome::Released) => {
                    self.convict(&[Mode::Exclusive], "released by a session that did not hold it", index);
                }
                (None, _) => {}
            }
        }
    }

    fn converted(&mut self, index: usize, call: &Call, open: &mut [(Name, Open)]) {
        let Some(&(name, mode)) = call.wants.first() else { return };
        let held = open.iter_mut().find(|(held, _)| *held == name);
        match (held, call.outcome) {
            (Some((_, phase)), Outcome::Granted(token)) => {
                let is_stricter = mode < phase.mode;
                let turn = self.turn(index, call.end, is_stricter);
                let of_set = phase.of_set;
                let next = Open { mode, call: index, begin: turn, core_start: call.end, of_set };
                let before = std::mem::replace(phase, next);
                self.close(call.session, name, before, turn, call.start);
                // A conversion to a mode that allows as many holders or more keeps the token.
                if let Some(token) = token.filter(|_| is_stricter) {
                    self.holds.tokens.push((name, token, turn));
                }
            }
            (Some((_, phase)), Outcome::NotHeld) => {
                let what = "a holder was told that it does not hold the lock";
                let model = model(&[phase.mode, mode], phase.of_set);
                self.verdict.convict(model, what, vec![phase.call, index]);
            }
            (Some((_, phase)), Outcome::Unknown) if mode > phase.mode => {
                // From here on the name is certainly held in one of the two modes, and so at least
                // in the one that allows more holders.
                let turn = self.turn(index, NEVER, false);
                let next = Open { mode, call: index, begin: turn, core_start: call.start, of_set: false };
                let before = std::mem::replace(phase, next);
                self.close(call.session, name, before, turn, call.start);
            }
            (Some(_), Outcome::Unknown | Outcome::Unanswered) => self.maybe(call, None),
            (None, Outcome::Granted(_)) => {
                self.convict(&[mode], "converted by a session that did not hold it", index);
            }
            _ => {}
        }
    }

    /// The instant of a conversion. During the call the lock is held in one of two modes; the least
    /// that can be held is the mode that allows more holders, for as long as possible.
    fn turn(&mut self, call: usize, until: Nanos, is_stricter: bool) -> usize {
        let least = if is_stricter { Least::AsLateAsPossible } else { Least::AsEarlyAsPossible };
        self.holds.order.instant((self.history.calls[call].start, until), call, least)
    }

    fn close(&mut self, session: SessionIndex, name: Name, phase: Open, end: usize, core_end: Nanos) {
        let Open { mode, call, begin, core_start, of_set } = phase;
        let stopped = self.history.held_at_server_until(session);
        if core_start > stopped {
            // The server had ended by the time the client was told.
            let from = self.history.calls[call].start;
            let until = self.history.sessions[session].gone_at.unwrap_or(NEVER);
            self.holds.maybe.push(MaybeHeld { name, session, mode, from, until, unanswered: false });
            return;
        }
        let instant = &mut self.holds.order.instants[end];
        instant.low = instant.low.min(stopped);
        let core = (core_start, core_end.min(stopped).max(core_start));
        self.holds.phases.push(Phase { name, session, mode, call, begin, end, core, of_set });
    }

    fn convict(&mut self, modes: &[Mode], what: &str, call: usize) {
        self.verdict.convict(model(modes, false), what, vec![call]);
    }
}

/// The model that says whether locks may be held in these modes together.
pub(crate) fn model(modes: &[Mode], of_set: bool) -> Model {
    let is_limited = |mode: &Mode| mode.limit().is_some();
    match of_set {
        true => Model::Sets,
        false if modes.iter().any(is_limited) => Model::Limit,
        false if modes.iter().all(|mode| *mode == Mode::Exclusive) => Model::Mutex,
        false => Model::ReadWrite,
    }
}

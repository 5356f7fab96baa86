//! Combines what all clients of a run have logged into one history, and checks the counters that
//! they changed.

use std::collections::BTreeMap;
use std::path::Path;

use super::child::log_path;
use super::counter::Counters;
use super::log::{Counter, Notes, now, read};
use super::resuming::KEPT_MAX;
use crate::history::{Call, CallKind, History, NEVER, Nanos, Outcome, SECOND, Session};

/// The life of one process, ended or running.
pub(crate) struct Life {
    pub(crate) process: u64,
    /// Before it was killed, if it was.
    pub(crate) killed: Option<Nanos>,
    /// After it had been waited for.
    pub(crate) gone: Nanos,
    pub(crate) pauses: Vec<(Nanos, Nanos)>,
}

/// What was written to one counter.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) certain: Vec<u64>,
    /// How many writes may or may not have happened.
    pub(crate) uncertain: u64,
}

/// What all clients have logged.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) history: History,
    pub(crate) counters: BTreeMap<Counter, Written>,
}

/// How long a process may take to go on after it was continued.
const SOON: Nanos = 2 * SECOND;

/// A session that can resume, and was still open when its process ended, believed in its locks no
/// longer than its last line says, and no longer than its process ran.
fn resumption_ends(session: &mut Session, life: &Life) {
    let Some(resumption) = &mut session.resumption else { return };
    let ended = resumption.limit.into_iter().chain(resumption.asleep);
    let alive_until = ended.chain([session.alive_until]).min().unwrap_or(NEVER);
    let stopped = life.pauses.iter().find(|(_, continued)| continued.saturating_add(SOON) >= alive_until);
    session.alive_until = stopped.map_or(alive_until, |(stopped, _)| alive_until.min(*stopped));
    resumption.kept = KEPT_MAX;
    session.gone_at = session.gone_at.map(|gone| gone.saturating_add(KEPT_MAX));
}

impl Gathered {
    /// Everything that the threads of these processes logged in this directory. `still_waiting` is
    /// a time at which clients that got no reply were still waiting for it.
    pub(crate) fn of(lives: &[Life], directory: &Path, threads: u64, still_waiting: Nanos) -> Self {
        let mut gathered = Self::default();
        for life in lives {
            for thread in 0..threads {
                let notes = read(&log_path(directory, life.process, thread));
                gathered.add(life, notes, still_waiting);
            }
        }
        gathered.history.end = now();
        gathered
    }

    fn add(&mut self, life: &Life, notes: Notes, still_waiting: Nanos) {
        let first = self.history.sessions.len();
        for mut session in notes.sessions {
            // Sessions that ended earlier have logged their end; only the last one was ended by the
            // kill.
            session.gone_at = Some(session.gone_at.unwrap_or(life.gone));
            session.alive_until = session.alive_until.min(life.killed.unwrap_or(life.gone));
            resumption_ends(&mut session, life);
            let during = |(from, until): &&(Nanos, Nanos)| *until >= session.opened && *from <= life.gone;
            session.pauses = life.pauses.iter().filter(during).copied().collect();
            self.history.sessions.push(session);
        }
        let calls = self.history.calls.len();
        for mut call in notes.calls {
            call.session += first;
            self.history.calls.push(call);
        }
        // The last call is still waiting if it has no reply and its session was ended neither by
        // its client nor by a kill.
        if let Some(call) = self.history.calls[calls..].last_mut()
            && call.outcome == Outcome::Unknown
            && life.killed.is_none()
            && self.history.sessions[call.session].alive_until == life.gone
        {
            (call.end, call.outcome) = (still_waiting, Outcome::Unanswered);
        }
        for increment in notes.increments {
            let written = self.counters.entry(increment.counter).or_default();
            if increment.is_certain {
                written.certain.push(increment.value);
            } else {
                written.uncertain += 1;
            }
        }
    }

    /// The server ended the connection of this owner at `since` or later, and says that its session,
    /// which can resume, is over. Its client keeps what it has until it knows.
    pub(crate) fn was_ended(&mut self, owner: &str, since: Nanos) {
        let sessions = &mut self.history.sessions;
        let Some(session) = sessions.iter_mut().find(|session| session.label.ends_with(owner)) else {
            return;
        };
        (session.hung_up_at, session.provoked) = (Some(since), true);
    }

    /// The server hung up on this owner at `since` or later, and its client found out some time
    /// after that. The answers to its later calls are not reliable, because another session may
    /// have had the lock by then.
    pub(crate) fn was_kicked(&mut self, owner: &str, since: Nanos) {
        let sessions = &mut self.history.sessions;
        let Some(index) = sessions.iter().position(|session| session.label.ends_with(owner)) else { return };
        let session = &mut sessions[index];
        session.alive_until = session.alive_until.min(since);
        (session.hung_up_at, session.provoked) = (Some(since), true);
        // What it requested may have been granted; what it wanted to release or convert ended with
        // its session at the latest.
        let ends_something = |call: &Call| !matches!(call.kind, CallKind::Acquire { .. });
        let is_own = |call: &Call| call.session == index;
        self.history.calls.retain(|call| !(is_own(call) && call.start >= since && ends_something(call)));
        for call in self.history.calls.iter_mut().filter(|call| is_own(call) && call.end >= since) {
            (call.end, call.outcome) = (NEVER, Outcome::Unknown);
        }
    }

    /// The errors of the counters in this directory: increments that were lost.
    pub(crate) fn lost_updates(&self, directory: &Path, plain_too: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        for (counter, written) in self.counters.iter().filter(|(counter, _)| counter.fenced || plain_too) {
            let mut values = written.certain.clone();
            values.sort_unstable();
            for pair in values.windows(2).filter(|pair| pair[0] == pair[1]) {
                wrong.push(format!("{counter:?}: {} was written twice: one increment was lost", pair[0]));
            }
            let counters = Counters::open(directory, counter.name).unwrap();
            let last = if counter.fenced {
                counters.read_fenced(u64::MAX).unwrap().unwrap_or_default()
            } else {
                counters.read_plain().unwrap()
            };
            let certain = written.certain.len() as u64;
            if last < certain || last > certain + written.uncertain {
                let uncertain = written.uncertain;
                wrong
                    .push(format!("{counter:?}: {certain} increments, {uncertain} more perhaps, but {last}"));
            }
        }
        wrong
    }

    pub(crate) fn increments(&self) -> usize {
        self.counters.values().map(|written| written.certain.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Resumption;

    /// When a session was certainly alive that its process, which was killed at 100 s, left open.
    fn alive_until(resumption: Resumption, pauses: &[(Nanos, Nanos)]) -> Nanos {
        let at = |seconds: Nanos| seconds * SECOND;
        let pauses = pauses.iter().map(|&(stopped, continued)| (at(stopped), at(continued))).collect();
        let life = Life { process: 0, killed: Some(at(100)), gone: at(101), pauses };
        let mut session =
            Session { alive_until: at(100), resumption: Some(resumption), ..Session::default() };
        resumption_ends(&mut session, &life);
        session.alive_until / SECOND
    }

    #[test]
    fn what_a_killed_client_believed_ends_with_its_limit_its_sleep_or_its_stop() {
        let usual = Resumption::default;
        assert_eq!(alive_until(usual(), &[]), 100);
        assert_eq!(alive_until(Resumption { limit: Some(90 * SECOND), ..usual() }, &[]), 90);
        assert_eq!(alive_until(Resumption { limit: Some(NEVER), ..usual() }, &[]), 100);
        assert_eq!(alive_until(Resumption { asleep: Some(80 * SECOND), ..usual() }, &[]), 80);
        assert_eq!(alive_until(usual(), &[(50, 60)]), 100, "it has gone on since");
        assert_eq!(alive_until(usual(), &[(50, 60), (95, 101)]), 95, "it was killed while it was stopped");
        assert_eq!(alive_until(usual(), &[(70, 99)]), 70, "it may not have gone on yet");
        let in_doubt = Resumption { limit: Some(75 * SECOND), ..usual() };
        assert_eq!(alive_until(in_doubt, &[(70, 101)]), 70, "it was stopped before its limit");
    }
}

//! What becomes of a session that may be resumed: the states between two connections, the attempts
//! to connect again, and the verdict. Pure: moments, random numbers and what has happened are
//! arguments. Connects nothing, knows no socket.
//!
//! | state | means | ends with |
//! | --- | --- | --- |
//! | `Standing` | there is a connection | the end of the connection |
//! | `Away` with a limit | in doubt: there are locks to be claimed | resumed; ended; the limit |
//! | `Away` without | nothing is held: it begins anew | a new session; refused for good |
//! | `Lost` | it is over, for good | |
//!
//! The limit is D after the *proof*: the moment at which the latest of all answered requests was
//! sent. Until then no server gives the locks to others. An answer after the limit changes nothing.

use std::collections::HashMap;
use std::time::Duration;

use crate::broker::{Held, LockName};
use crate::client::session::{Belief, ResumeTerms};
use crate::os::Keepalive;
use crate::os::boot_clock::BootTime;
use crate::wire::message::Claim;

/// How long an attempt may take, from connecting to the answer.
const ATTEMPT_TIME: Duration = Duration::from_secs(2);

/// The same while other places of the server are left to be tried. Most often the server has moved
/// because the machine at this place is gone, and says nothing at all.
const ATTEMPT_TIME_OF_SEVERAL: Duration = Duration::from_secs(1);

/// The longest first pause between two attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause of all while there are locks to be claimed.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The same when there are none. The server may be away for hours, and many clients may wait.
const PAUSE_MAX_ANEW: Duration = Duration::from_secs(4);

/// A connection that stood at least this long shows that the server works: the next attempt comes at
/// once, and the pauses begin short again. After a shorter one even the first attempt follows after
/// a pause, so that a server that hangs up at once is not asked all the time.
const STEADY: Duration = Duration::from_secs(1);

/// The states of one session. An attempt is begun and ended by calls; at most one is under way.
#[derive(Debug)]
pub(super) struct Machine {
    /// `None`: the last server told nothing by which the session could be resumed.
    terms: Option<ResumeTerms>,
    /// The number of the last attempt to resume this session.
    last_attempt: u64,
    pause_max: Duration,
    state: State,
    /// How often it was resumed.
    resumes: u64,
}

#[derive(Debug)]
enum State {
    Standing { since: BootTime },
    Away(Box<Away>),
    Lost { reason: String, belief: Belief },
}

/// A session without a connection.
#[derive(Debug)]
struct Away {
    /// Why the connection has ended.
    reason: String,
    /// When the session is lost; `None` if there is nothing to lose.
    limit: Option<BootTime>,
    belief: Belief,
    next_attempt: BootTime,
    under_way: Option<UnderWay>,
}

/// An attempt that is under way.
#[derive(Debug)]
struct UnderWay {
    until: BootTime,
    /// Whether it is at the last place of a round; after it comes a pause.
    is_last: bool,
    /// What it claims to hold, fixed before it was sent.
    claims: HashMap<LockName, Held>,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MachineStep {
    /// There is a connection.
    Stand,
    /// To go on with the attempt that is under way; nothing else until then.
    GoOn(BootTime),
    /// Nothing until then.
    Pause(BootTime),
    /// To begin an attempt.
    Begin,
    /// To end the attempt that is under way, unless it has gone on: its time is over.
    GiveUp,
    /// It is lost.
    Lost,
}

/// What an attempt says once it has connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    Hello,
    Resume { terms: ResumeTerms, attempt: u64, claims: Vec<Claim> },
}

/// What the server has answered to an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The session goes on, or begins anew.
    Accepted(Option<ResumeTerms>),
    /// The session is over, for good.
    Ended(String),
}

/// What an answer comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SessionVerdict {
    /// The session has a connection again. It goes on with `belief`, and gives up `unlocked` first.
    Standing {
        belief: Belief,
        unlocked: Vec<LockName>,
        is_resumed: bool,
    },
    Lost,
}

/// What the session is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition<'a> {
    Standing,
    /// It has no connection now; it is lost at the limit, if there is one.
    Away {
        reason: &'a str,
        limit: Option<BootTime>,
    },
    Lost {
        reason: &'a str,
    },
}

impl Machine {
    pub(super) fn new(terms: ResumeTerms, now: BootTime) -> Self {
        let state = State::Standing { since: now };
        Self { terms: Some(terms), last_attempt: 0, pause_max: FIRST_PAUSE, state, resumes: 0 }
    }

    pub(super) fn condition(&self) -> Condition<'_> {
        match &self.state {
            State::Standing { .. } => Condition::Standing,
            State::Away(away) => Condition::Away { reason: &away.reason, limit: away.limit },
            State::Lost { reason, .. } => Condition::Lost { reason },
        }
    }

    /// What it believes to have, while it has no connection.
    pub(super) fn belief(&mut self) -> Option<&mut Belief> {
        match &mut self.state {
            State::Standing { .. } => None,
            State::Away(away) => Some(&mut away.belief),
            State::Lost { belief, .. } => Some(belief),
        }
    }

    /// Whether it can be resumed, as far as the last server has said.
    pub(super) fn is_resumable(&self) -> bool {
        self.terms.is_some()
    }

    /// That of the server that has told how to resume.
    pub(super) fn dead_peer_timeout(&self) -> Option<Duration> {
        self.terms.map(|terms| terms.dead_peer_timeout)
    }

    pub(super) fn resumes(&self) -> u64 {
        self.resumes
    }

    /// The connection has ended. `proof` is when the latest of its answered requests was sent.
    /// `is_unconfirmed`: a release was sent on it that has not been confirmed. `random` is from 0 up
    /// to 1.
    pub(super) fn ended(
        &mut self,
        now: BootTime,
        proof: Option<BootTime>,
        belief: Belief,
        is_unconfirmed: bool,
        reason: String,
        random: f64,
    ) {
        let State::Standing { since } = &self.state else {
            debug_assert!(false, "only a connection can end");
            return;
        };
        let is_steady = since.until(now) >= STEADY;
        let Some(terms) = &self.terms else {
            self.state = State::Lost { reason, belief };
            return;
        };
        let silence_max = Keepalive::client(terms.dead_peer_timeout).silence_max();
        let limit = (!belief.held.is_empty() || is_unconfirmed)
            .then(|| proof.map_or(now, |proof| proof + silence_max));
        // In doubt there is no time for long pauses, however often the connection ends.
        if is_steady || limit.is_some() {
            self.pause_max = FIRST_PAUSE;
        }
        let away = Away { reason, limit, belief, next_attempt: now, under_way: None };
        self.state = State::Away(Box::new(away));
        if !is_steady {
            self.pause(now, random);
        }
        self.pass_limit(now);
    }

    /// What is to be done now.
    pub(super) fn step(&mut self, now: BootTime) -> MachineStep {
        self.pass_limit(now);
        let away = match &self.state {
            State::Standing { .. } => return MachineStep::Stand,
            State::Lost { .. } => return MachineStep::Lost,
            State::Away(away) => away,
        };
        let at_limit = |at: BootTime| away.limit.map_or(at, |limit| limit.min(at));
        match &away.under_way {
            Some(attempt) if now >= attempt.until => MachineStep::GiveUp,
            Some(attempt) => MachineStep::GoOn(at_limit(attempt.until)),
            None if now >= away.next_attempt => MachineStep::Begin,
            None => MachineStep::Pause(at_limit(away.next_attempt)),
        }
    }

    /// An attempt begins: what it is to say. Its claims are fixed here. `is_last`: no other place of
    /// the server is left to be tried in this round.
    pub(super) fn begin(&mut self, now: BootTime, is_last: bool) -> Option<Opening> {
        let (State::Away(away), Some(terms)) = (&mut self.state, self.terms) else { return None };
        debug_assert!(away.under_way.is_none(), "one attempt at a time");
        let until = now + attempt_time(is_last);
        if away.limit.is_none() {
            away.under_way = Some(UnderWay { until, is_last, claims: HashMap::new() });
            return Some(Opening::Hello);
        }
        self.last_attempt += 1;
        let claims = away.belief.held.clone();
        let listed = claims.iter().map(|(name, held)| Claim {
            name: name.clone(),
            mode: held.mode,
            token: held.token,
        });
        let opening = Opening::Resume { terms, attempt: self.last_attempt, claims: listed.collect() };
        away.under_way = Some(UnderWay { until, is_last, claims });
        Some(opening)
    }

    /// The attempt that is under way has gone on since it was looked at: it gets its time anew. A
    /// caller that looks seldom finds it late each time, and would never see it succeed.
    pub(super) fn has_gone_on(&mut self, now: BootTime) {
        if let State::Away(away) = &mut self.state
            && let Some(attempt) = &mut away.under_way
        {
            attempt.until = now + attempt_time(attempt.is_last);
        }
    }

    /// The attempt that was under way has come to nothing. Another follows: at once if places are
    /// left, otherwise after a pause.
    pub(super) fn failed(&mut self, now: BootTime, random: f64) {
        if let State::Away(away) = &mut self.state {
            let attempt = away.under_way.take();
            away.next_attempt = now;
            if attempt.is_none_or(|attempt| attempt.is_last) {
                self.pause(now, random);
            }
        }
    }

    /// The attempt that was under way has been answered; `now` is after the answer was read.
    pub(super) fn answered(&mut self, now: BootTime, answer: Answer) -> SessionVerdict {
        self.pass_limit(now);
        let State::Away(away) = &mut self.state else { return SessionVerdict::Lost };
        debug_assert!(away.under_way.is_some(), "only an attempt is answered");
        let terms = match answer {
            Answer::Ended(reason) => {
                self.lose(reason);
                return SessionVerdict::Lost;
            }
            Answer::Accepted(terms) => terms,
        };
        let is_resumed = away.limit.is_some();
        let claims = away.under_way.take().map(|attempt| attempt.claims).unwrap_or_default();
        let belief = std::mem::take(&mut away.belief);
        let unlocked = claims.into_keys().filter(|name| !belief.held.contains_key(name)).collect();
        if is_resumed {
            self.resumes += 1;
        } else {
            // Another session.
            self.last_attempt = 0;
        }
        self.terms = terms;
        self.state = State::Standing { since: now };
        SessionVerdict::Standing { belief, unlocked, is_resumed }
    }

    /// The session is over, for good.
    pub(super) fn lose(&mut self, reason: String) {
        let belief = match &mut self.state {
            State::Standing { .. } => Belief::default(),
            State::Away(away) => std::mem::take(&mut away.belief),
            State::Lost { .. } => return,
        };
        self.state = State::Lost { reason, belief };
    }

    fn pass_limit(&mut self, now: BootTime) {
        if let State::Away(away) = &mut self.state
            && away.limit.is_some_and(|limit| now > limit)
        {
            let reason = format!("{}; and it could not be resumed in time", away.reason);
            self.lose(reason);
        }
    }

    fn pause(&mut self, now: BootTime, random: f64) {
        if let State::Away(away) = &mut self.state {
            away.next_attempt = now + self.pause_max.mul_f64(random);
            let max = if away.limit.is_some() { PAUSE_MAX } else { PAUSE_MAX_ANEW };
            self.pause_max = max.min(self.pause_max * 2);
        }
    }
}

fn attempt_time(is_last: bool) -> Duration {
    if is_last { ATTEMPT_TIME } else { ATTEMPT_TIME_OF_SEVERAL }
}

#[cfg(test)]
mod tests;

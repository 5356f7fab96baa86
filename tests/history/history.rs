//! What clients record of a run: every call with its start, its end and what it said, and of every
//! session how long it certainly lived. Plain data and how to read it; judges nothing, does no I/O.
//!
//! All times are of one clock that every process of the machine shares (CLOCK_MONOTONIC), or of the
//! simulator. A call's start is taken before anything of it can have reached the broker, its end
//! after its answer was there.

use std::fmt;

pub(crate) use lockd::broker::Mode;

/// Nanoseconds.
pub(crate) type Nanos = u64;

/// Later than everything.
pub(crate) const NEVER: Nanos = Nanos::MAX;

pub(crate) const MILLISECOND: Nanos = 1_000_000;
pub(crate) const SECOND: Nanos = 1000 * MILLISECOND;

/// The number of a lock's name.
pub(crate) type Name = u32;
/// Which session of [`History::sessions`].
pub(crate) type SessionIndex = usize;

/// What a call asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// All of the call's names at once, waiting for so long; `None` is without limit, 0 a try.
    Acquire { limit: Option<Nanos> },
    /// To give up all of the call's names.
    Release,
    /// To change the one name to the mode that stands beside it.
    Convert { limit: Option<Nanos> },
    /// How the one name is held.
    Inspect,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With this fencing token, if the protocol tells it.
    Granted(Option<u64>),
    /// A try was told that the lock is not to be had now.
    Busy,
    /// The broker ended the wait, its limit had come.
    TimedOut,
    /// The client took its request back and does not know whether it had been granted before.
    GivenUp,
    /// The broker would not, for a reason that has nothing to do with who holds what.
    Refused,
    /// The wait would have closed a circle.
    Deadlock,
    /// There was nothing to release or convert.
    NotHeld,
    Released,
    /// An inspection saw so many holders.
    Seen(u32),
    /// There was no answer before the session ended: the call took effect at some time after its
    /// start, or never.
    Unknown,
    /// The client went on waiting until [`Call::end`], and then the run was over.
    Unanswered,
}

/// One call of one session.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) session: SessionIndex,
    pub(crate) ask: Ask,
    /// The names; the mode means nothing for those of a release or an inspection.
    pub(crate) wants: Box<[(Name, Mode)]>,
    pub(crate) start: Nanos,
    /// [`NEVER`] if there was no answer.
    pub(crate) end: Nanos,
    /// From when on the request certainly stood in its queues, or was granted.
    pub(crate) queued: Option<Nanos>,
    /// When the client began to take the request back.
    pub(crate) gave_up: Option<Nanos>,
    pub(crate) outcome: Outcome,
}

impl Call {
    pub(crate) fn is_granted(&self) -> bool {
        matches!(self.outcome, Outcome::Granted(_))
    }

    pub(crate) fn token(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Granted(token) => token,
            _ => None,
        }
    }

    pub(crate) fn is_set(&self) -> bool {
        self.wants.len() > 1
    }

    pub(crate) fn mode_of(&self, name: Name) -> Option<Mode> {
        self.wants.iter().find(|(wanted, _)| *wanted == name).map(|(_, mode)| *mode)
    }
}

/// One owner of locks, from its connecting to its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    /// Who it is, for people.
    pub(crate) label: String,
    pub(crate) opened: Nanos,
    /// Up to then its client certainly stood by it: before its process was killed, or it began to
    /// close, or its kernel was told that the connection had ended, which every call says from then
    /// on.
    pub(crate) stood_until: Nanos,
    /// From then on its server may have hung up on it, or did.
    pub(crate) hung_up_at: Option<Nanos>,
    /// By then its connection had certainly ended, as far as the kernel is concerned.
    pub(crate) gone_at: Option<Nanos>,
    /// Its client found out then that the connection had ended, without having ended it.
    pub(crate) lost_at: Option<Nanos>,
    /// Whether it brought its end on itself in a way that its client cannot date (by not reading,
    /// say).
    pub(crate) provoked: bool,
    /// Its process was stopped from the first to the second of each.
    pub(crate) pauses: Vec<(Nanos, Nanos)>,
}

/// One life of the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerLife {
    /// Before it was started.
    pub(crate) started: Nanos,
    /// After it had said that it listens.
    pub(crate) ready: Nanos,
    /// Before it was told to end, by whatever signal; [`NEVER`] if it was not.
    pub(crate) stopped: Nanos,
    /// After it had ended.
    pub(crate) ended: Nanos,
    /// It must grant nothing for so long after its start.
    pub(crate) grace: Nanos,
    /// It may grant nothing for so long after its start.
    pub(crate) quiet: Nanos,
    /// Whether the next one waits until the holders of this one have found out that it has ended.
    pub(crate) is_remembered: bool,
}

/// All of a run. The calls of one session stand in the order in which it made them.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) sessions: Vec<Session>,
    pub(crate) calls: Vec<Call>,
    /// In the order of their starts; none for a broker in this process.
    pub(crate) servers: Vec<ServerLife>,
    /// When the last client had stopped.
    pub(crate) end: Nanos,
}

impl History {
    /// The number of names.
    pub(crate) fn names(&self) -> usize {
        let last = self.calls.iter().flat_map(|call| call.wants.iter()).map(|(name, _)| *name as usize).max();
        last.map_or(0, |last| last + 1)
    }

    /// Until when a session certainly stood at the broker: its client stood by it, and the server
    /// it may have been connected to was not told to end.
    pub(crate) fn stood_until(&self, session: SessionIndex) -> Nanos {
        self.sessions[session].stood_until.min(self.server_stopped(session))
    }

    /// Until when a request of the session certainly stayed in its queues: a server that hangs up
    /// on a client ends its waits at once, before the client knows.
    pub(crate) fn waited_until(&self, session: SessionIndex) -> Nanos {
        self.stood_until(session).min(self.sessions[session].hung_up_at.unwrap_or(NEVER))
    }

    /// When the server that a session may have been connected to was first told to end.
    pub(crate) fn server_stopped(&self, session: SessionIndex) -> Nanos {
        let opened = self.sessions[session].opened;
        let may_be = |server: &&ServerLife| server.ended >= opened;
        self.servers.iter().find(may_be).map_or(NEVER, |server| server.stopped)
    }

    /// Until when what its client believes to hold counts as held, as far as its server is
    /// concerned.
    pub(crate) fn server_forgot(&self, session: SessionIndex) -> Nanos {
        let opened = self.sessions[session].opened;
        let server = self.servers.iter().find(|server| server.ended >= opened);
        server.filter(|server| !server.is_remembered).map_or(NEVER, |server| server.stopped)
    }

    /// The calls of each session, in order, as indices.
    pub(crate) fn by_session(&self) -> Vec<Vec<usize>> {
        let mut calls = vec![Vec::new(); self.sessions.len()];
        for (index, call) in self.calls.iter().enumerate() {
            calls[call.session].push(index);
        }
        calls
    }

    /// These calls, a line each, in the order of their starts, at most so many.
    pub(crate) fn excerpt(&self, calls: &[usize], at_most: usize) -> String {
        let mut calls: Vec<usize> = calls.to_vec();
        calls.sort_by_key(|&index| (self.calls[index].start, index));
        calls.dedup();
        let zero = self.calls.iter().map(|call| call.start).min().unwrap_or(0);
        let line = |&index: &usize| format!("    #{index} {}", self.line(index, zero));
        let mut lines: Vec<String> = calls.iter().take(at_most).map(line).collect();
        if calls.len() > at_most {
            lines.push(format!("    … and {} more", calls.len() - at_most));
        }
        lines.join("\n")
    }

    fn line(&self, index: usize, zero: Nanos) -> String {
        let call = &self.calls[index];
        let session = &self.sessions[call.session];
        let at = |time: Nanos| match time {
            NEVER => "?".to_owned(),
            time => seconds(time.saturating_sub(zero)),
        };
        let queued =
            call.queued.map(|queued| format!(", in the queue by {}", at(queued))).unwrap_or_default();
        let (start, end) = (at(call.start), at(call.end));
        format!("{start} … {end} s  {}: {call} → {:?}{queued}", session.label, call.outcome)
    }
}

fn seconds(time: Nanos) -> String {
    format!("{}.{:09}", time / SECOND, time % SECOND)
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = |limit: Option<Nanos>| match limit {
            None => "without limit".to_owned(),
            Some(0) => "at once".to_owned(),
            Some(limit) => format!("within {} s", seconds(limit)),
        };
        let names: Vec<String> = self
            .wants
            .iter()
            .map(|(name, mode)| match (self.ask, mode) {
                (Ask::Release | Ask::Inspect, _) => format!("n{name}"),
                (_, Mode::Exclusive) => format!("n{name} exclusive"),
                (_, Mode::Shared) => format!("n{name} shared"),
            })
            .collect();
        let names = names.join(" + ");
        match self.ask {
            Ask::Acquire { limit: within } => write!(f, "acquire {names} {}", limit(within)),
            Ask::Convert { limit: within } => write!(f, "convert to {names} {}", limit(within)),
            Ask::Release => write!(f, "release {names}"),
            Ask::Inspect => write!(f, "inspect {names}"),
        }
    }
}

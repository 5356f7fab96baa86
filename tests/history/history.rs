//! What clients record of a run: for every call its start, its end and its outcome, and for every
//! session how long it was certainly alive. Plain data and accessors; decides nothing, does no I/O.
//!
//! All times come from one clock that every process of the machine shares (CLOCK_MONOTONIC), or
//! from the simulator. A call's start is taken before any part of it can have reached the broker,
//! and its end after its reply has arrived.

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

/// What a call requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallKind {
    /// All of the call's names at once, waiting at most this long. `None` is no time limit, 0 a
    /// try.
    Acquire { limit: Option<Nanos> },
    /// Releases all of the call's names.
    Release,
    /// Converts the one name to the mode given with it.
    Convert { limit: Option<Nanos> },
    /// Asks how many sessions hold the one name.
    Inspect,
}

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Granted, with this fencing token if the protocol sends it.
    Granted(Option<u64>),
    /// A try failed because the lock is not free.
    Busy,
    /// The broker ended the wait because its time limit had passed.
    TimedOut,
    /// The client cancelled its request and does not know whether it had been granted before.
    GivenUp,
    /// The broker refused for a reason that does not depend on which sessions hold which locks.
    Refused,
    /// The wait would have closed a cycle.
    Deadlock,
    /// There was nothing to release or convert.
    NotHeld,
    Released,
    /// An inspection saw this many holders.
    Seen(u32),
    /// There was no reply before the session ended. The call took effect at some time after its
    /// start, or never.
    Unknown,
    /// The client was still waiting at [`Call::end`], when the run was over.
    Unanswered,
}

/// One call of one session.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) session: SessionIndex,
    pub(crate) kind: CallKind,
    /// The names. For a release or an inspection the mode has no meaning.
    pub(crate) wants: Box<[(Name, Mode)]>,
    pub(crate) start: Nanos,
    /// [`NEVER`] if there was no reply.
    pub(crate) end: Nanos,
    /// From this time on the request certainly was in its queues, or was granted.
    pub(crate) queued: Option<Nanos>,
    /// When the client began to cancel the request.
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

/// One owner of locks, from its connection to its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    /// A description for people.
    pub(crate) label: String,
    pub(crate) opened: Nanos,
    /// Its client was certainly alive until this time. The time is taken before its process is
    /// killed, before it begins to close, or before its kernel is told that the connection has
    /// ended (after that, every call reports the end).
    pub(crate) alive_until: Nanos,
    /// From this time on its server may have hung up on it, or had.
    pub(crate) hung_up_at: Option<Nanos>,
    /// By this time its connection had certainly ended, as far as the kernel is concerned.
    pub(crate) gone_at: Option<Nanos>,
    /// At this time its client found out that the connection had ended, without having ended it.
    pub(crate) lost_at: Option<Nanos>,
    /// Whether the client caused the end of the session in a way that it cannot date (by not
    /// reading, for example).
    pub(crate) provoked: bool,
    /// The periods during which its process was stopped.
    pub(crate) pauses: Vec<(Nanos, Nanos)>,
    /// If it can go on with other connections, also at a later server.
    pub(crate) resumption: Option<Resumption>,
}

/// What is known of a session that can resume. It lasts until its client ends it or takes it for
/// lost, whatever happens to servers and connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resumption {
    /// Before each of its connections was made.
    pub(crate) connected: Vec<Nanos>,
    /// While it is in doubt: when it counts as lost.
    pub(crate) limit: Option<Nanos>,
    /// Its machine slept since this time, and nothing was answered that it has sent since.
    pub(crate) asleep: Option<Nanos>,
    /// When a server said that it has ended, and how many locks it has claimed.
    pub(crate) told_ended: Option<(Nanos, usize)>,
    pub(crate) doubts: usize,
    pub(crate) resumed: usize,
    /// For how long a server may keep what its client has given up without the server's knowing.
    pub(crate) kept: Nanos,
}

/// One run of the server, from its start to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerLife {
    /// Before it was started.
    pub(crate) started: Nanos,
    /// After it had reported that it listens.
    pub(crate) ready: Nanos,
    /// Before it was told to end, by any signal. [`NEVER`] if it was not.
    pub(crate) stopped: Nanos,
    /// After it had ended.
    pub(crate) ended: Nanos,
    /// It must grant nothing for this long after its start.
    pub(crate) grace: Nanos,
    /// It is allowed to grant nothing for this long after its start.
    pub(crate) grace_max: Nanos,
    /// Whether the next server waits until the holders of this one have found out that it has
    /// ended.
    pub(crate) is_remembered: bool,
    /// Whether its state directory was new although there had been a server before.
    pub(crate) is_new: bool,
}

/// A complete run. The calls of one session are in the order in which it made them.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) sessions: Vec<Session>,
    pub(crate) calls: Vec<Call>,
    /// In the order of their starts; empty for a broker in this process.
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

    /// Until when a session was certainly alive at the broker: its client was alive, and the server
    /// it may have been connected to had not been told to end, unless it can resume at the next one.
    pub(crate) fn alive_until(&self, session: SessionIndex) -> Nanos {
        let alive_until = self.sessions[session].alive_until;
        match self.sessions[session].resumption {
            None => alive_until.min(self.server_stopped(session)),
            Some(_) => alive_until,
        }
    }

    /// Before the connection was made that the session had at this time.
    pub(crate) fn connected(&self, session: SessionIndex, at: Nanos) -> Nanos {
        let Session { opened, resumption, .. } = &self.sessions[session];
        let connected = resumption.iter().flat_map(|resumption| &resumption.connected);
        connected.filter(|connected| **connected <= at).max().copied().unwrap_or(*opened)
    }

    /// When the server that the session may have been connected to at this time was first told to
    /// end.
    pub(crate) fn server_stopped_of(&self, session: SessionIndex, at: Nanos) -> Nanos {
        let connected = self.connected(session, at);
        let may_be = |server: &&ServerLife| server.ended >= connected;
        self.servers.iter().find(may_be).map_or(NEVER, |server| server.stopped)
    }

    /// Until when a request of the session certainly stayed in its queues. A server that hangs up
    /// on a client ends its waits at once, before the client knows.
    pub(crate) fn waited_until(&self, session: SessionIndex) -> Nanos {
        self.alive_until(session).min(self.sessions[session].hung_up_at.unwrap_or(NEVER))
    }

    /// When the server that a session may have been connected to at first was told to end.
    pub(crate) fn server_stopped(&self, session: SessionIndex) -> Nanos {
        self.server_stopped_of(session, self.sessions[session].opened)
    }

    /// Until when the session's locks count as held, as far as its server is concerned. It is the
    /// time when a server whose state is not kept was told to end. A session that can resume holds
    /// them at the next one.
    pub(crate) fn held_at_server_until(&self, session: SessionIndex) -> Nanos {
        let Session { opened, resumption, .. } = &self.sessions[session];
        if resumption.is_some() {
            return NEVER;
        }
        let opened = *opened;
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

    /// These calls, one line each, in the order of their starts, at most `at_most`.
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
            .map(|(name, mode)| match (self.kind, mode) {
                (CallKind::Release | CallKind::Inspect, _) => format!("n{name}"),
                (_, mode) => format!("n{name} {mode}"),
            })
            .collect();
        let names = names.join(" + ");
        match self.kind {
            CallKind::Acquire { limit: within } => write!(f, "acquire {names} {}", limit(within)),
            CallKind::Convert { limit: within } => write!(f, "convert to {names} {}", limit(within)),
            CallKind::Release => write!(f, "release {names}"),
            CallKind::Inspect => write!(f, "inspect {names}"),
        }
    }
}

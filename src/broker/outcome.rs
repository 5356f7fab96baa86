//! What calls of the broker end in: grants, outcomes of waits, and the errors of each operation. Plain
//! values, shared by the session in this process and the session on a server.

use std::fmt;

/// How a lock is held: alone, or together with other shared holders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// One holder, nobody else.
    Exclusive,
    /// Any number of holders, none of them exclusive.
    Shared,
}

/// A lock has been granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The fencing token: higher than that of every earlier grant of any name. Below 2^53.
    pub token: u64,
    /// Whether the last exclusive holder vanished without releasing, so that what it was at may be
    /// half done. For several names at once: whether that is so for any of them.
    pub orphaned: bool,
    /// How many sessions hold the lock with this grant counted in; 1 for several names at once.
    pub holders: usize,
}

/// What a session holds on a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// In which mode.
    pub mode: Mode,
    /// The token of the grant.
    pub token: u64,
}

/// How a wait in a queue ended. Each wait ends exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The session holds the lock now.
    Granted(Grant),
    /// The time limit came first.
    TimedOut,
    /// The session took the wait back: it cancelled it, or released the name it waited for.
    Cancelled,
    /// The session has ended.
    Lost,
    /// The broker has been shut.
    Stopping,
}

/// How a request that may be queued was answered. A request that may not is granted, or it fails with
/// [`AcquireError::TimedOut`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The session holds the lock now.
    Granted(Grant),
    /// The request has its place in the queue; the session's observer will be told the outcome.
    Queued,
}

/// Why an acquire or a convert did not end in a grant. Whatever it says but `Interrupted`, nothing has
/// changed: the session holds what it held, and waits for nothing because of this call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcquireError {
    /// Not granted within the time limit. For a request that does not wait: another session holds the
    /// lock, or waits for it.
    TimedOut,
    /// This session holds the name already. A session is one owner: two threads that share it must
    /// not both believe they won.
    AlreadyHeld(Held),
    /// This session waits for the name already; one session has one place in a queue.
    AlreadyWaiting,
    /// Convert: this session does not hold the name. Wait: it has no place there whose outcome is to be told.
    NotHeld,
    /// The wait would have closed this cycle of sessions that wait for each other.
    Deadlock(Box<Cycle>),
    /// The wait was cancelled.
    Cancelled,
    /// A signal handler ran while the thread waited, and the session is one on a server that was asked to
    /// say so. The one error with which the place in the queue is kept.
    Interrupted,
    /// The request itself is wrong: a name too long, the same name twice, no name at all.
    Invalid(String),
    /// The broker will not: a limit is reached, or it is stopping.
    Refused(String),
    /// The broker grants nothing yet, since holders of an earlier run may not have found out that it has
    /// ended. Said to those who do not wait; those who do keep their places until it grants.
    NotYet(String),
    /// The server is stopping, and will end the session. (A broker in this process says `Refused`.)
    Stopping(String),
    /// The session has ended, and with it all its locks.
    Lost(String),
}

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("not granted within the time limit"),
            Self::AlreadyHeld(_) => f.write_str("this session already holds the lock"),
            Self::AlreadyWaiting => f.write_str("this session already waits for the lock"),
            Self::NotHeld => f.write_str("this session has no such lock, or no such place in a queue"),
            Self::Deadlock(cycle) => write!(f, "waiting would be a deadlock: {cycle}"),
            Self::Cancelled => f.write_str("the wait was cancelled"),
            Self::Interrupted => f.write_str("a signal handler ran while waiting; the place is kept"),
            Self::Invalid(reason) => write!(f, "invalid request: {reason}"),
            Self::Refused(reason) | Self::NotYet(reason) | Self::Stopping(reason) => {
                write!(f, "refused: {reason}")
            }
            Self::Lost(reason) => write!(f, "the session has ended: {reason}"),
        }
    }
}

impl std::error::Error for AcquireError {}

/// Sessions that would wait for each other: each for the next one, the last for the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cycle {
    /// The asker and those after it, by registered name or else by address. Of a cycle of more than
    /// [`SHOWN_MAX`](Self::SHOWN_MAX) sessions only so many; none if a server does not tell.
    pub sessions: Vec<String>,
    /// The addresses of the same sessions; empty if they are on a server.
    pub addresses: Vec<String>,
    /// How many sessions there are in the whole cycle.
    pub size: usize,
}

impl Cycle {
    /// How many sessions are named at most, so that a long cycle makes no long answer.
    pub const SHOWN_MAX: usize = 16;
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sessions, size, .. } = self;
        match sessions.len() {
            0 => write!(f, "{size} sessions would wait for each other"),
            shown if shown < *size => write!(f, "{} → … ({size} sessions in all)", sessions.join(" → ")),
            _ => f.write_str(&sessions.join(" → ")),
        }
    }
}

/// What a release gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// The lock was held and is free now, or the next waiter's.
    Hold,
    /// The session only waited for it, and has left the queue: of every name of that request, if it
    /// was for several at once.
    Place,
}

/// Why there was nothing to release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReleaseError {
    /// This session neither holds the name nor waits for it.
    NotHeld,
    /// The session has ended, and with it all its locks.
    Lost(String),
}

impl fmt::Display for ReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHeld => f.write_str("this session does not hold the lock"),
            Self::Lost(reason) => write!(f, "the session has ended: {reason}"),
        }
    }
}

impl std::error::Error for ReleaseError {}

/// A lock as seen from one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// How it is held, if it is.
    pub mode: Option<Mode>,
    /// How many sessions hold it.
    pub holders: usize,
    /// How many requests wait for it.
    pub waiters: usize,
    /// What the asking session holds on it.
    pub held: Option<Held>,
    /// Whether the asking session waits for it.
    pub waiting: bool,
    /// Whether the last exclusive holder vanished without releasing. While somebody holds it exclusively:
    /// whether the one before did, as the grant said too.
    pub orphaned: bool,
}

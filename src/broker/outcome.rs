//! The results of calls: grants, outcomes of waits, and the errors of each operation. Plain values,
//! the same for a session in this process and a session on a server.

use std::fmt;

use crate::broker::mode::Mode;
use crate::broker::name::LockName;

/// A lock has been granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The fencing token: higher than that of every earlier grant of the same name. Grants of
    /// different names may have the same token. Below 2^53.
    pub token: u64,
    /// Whether the last exclusive holder vanished without releasing the lock, so that its work may
    /// be half done. For several names at once: whether that is so for any of them.
    pub orphaned: bool,
    /// How many sessions hold the lock now, this one included; 1 for several names at once.
    pub holders: usize,
}

/// What a session holds on a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The mode in which it holds the lock.
    pub mode: Mode,
    /// The token of its grant.
    pub token: u64,
}

/// How a wait in a queue ended. Each wait ends exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The session holds the lock now.
    Granted(Grant),
    /// The time limit passed first.
    TimedOut,
    /// The session cancelled the wait, or released the name it waited for.
    Cancelled,
    /// The session has ended.
    Lost,
    /// The broker has been shut.
    Stopping,
}

/// The answer to a request that may wait. A request that may not wait is granted, or fails with
/// [`AcquireError::TimedOut`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The session holds the lock now.
    Granted(Grant),
    /// The request waits in the queue. The session's observer will be told the outcome.
    Queued,
}

/// Why an acquire or a convert did not end in a grant. Except with `Interrupted`, nothing has
/// changed: the session holds what it held before, and does not wait because of this call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcquireError {
    /// Not granted within the time limit. For a request that does not wait: another session holds
    /// the lock, or waits for it.
    TimedOut,
    /// This session holds the lock already. A session is one owner: of two threads that share it,
    /// only one must believe that it acquired the lock.
    AlreadyHeld(Held),
    /// This session waits for the lock already, in the same mode, and of several for all of them
    /// at once; a session can be in a queue only once. If it waits for it otherwise, the error is
    /// `Invalid`: the outcome of that wait is not what this call asks for.
    AlreadyWaiting,
    /// Of a convert: this session does not hold the lock. Of a wait for an enqueued request: there
    /// is no such request whose outcome is still to be collected.
    NotHeld,
    /// The wait would have closed this cycle of waiting sessions.
    Deadlock(Box<Cycle>),
    /// The wait was cancelled.
    Cancelled,
    /// A signal handler ran while the thread waited. Only from a session on a server that was asked
    /// to report this. The only error after which the request stays in the queue.
    Interrupted,
    /// The request itself is wrong: a name is too long or given twice, or no name is given. Also if
    /// this session waits for the lock already, but in another mode.
    Invalid(String),
    /// A limit is reached, or the broker is stopping.
    Refused(String),
    /// The broker grants nothing yet, since holders of an earlier run may not know yet that it has
    /// ended. Only for a request that does not wait; one that waits stays queued until the broker
    /// grants.
    NotYet(String),
    /// The server is stopping, and will end the session. (A broker in this process says `Refused`.)
    Stopping(String),
    /// The session has lost its connection, and may still be resumed: nothing may be begun on the
    /// strength of its locks now. Only from a session on a server that was asked for this.
    Doubt(String),
    /// The session has ended, and with it all its locks.
    Lost(String),
}

impl AcquireError {
    /// The error of a request for `wants` by a session that has a request for `waiting` in the
    /// queue, if they have a name in common.
    ///
    /// A caller who is told `AlreadyWaiting` may wait for the outcome of that request, and believe
    /// to hold what it has asked for last. So it is told this only if that outcome grants all of
    /// `wants`.
    pub(crate) fn already_waiting(wants: &[(LockName, Mode)], waiting: &[(LockName, Mode)]) -> Self {
        let waits_for = |name: &LockName| waiting.iter().find(|(other, _)| other == name);
        let differs = |(name, mode): &(LockName, Mode)| waits_for(name).filter(|(_, other)| other != mode);
        if let Some((_, mode)) = wants.iter().find_map(differs) {
            return Self::Invalid(format!(
                "this session already waits for the lock in another mode ({mode})"
            ));
        }
        match wants.iter().all(|(name, _)| waits_for(name).is_some()) {
            true => Self::AlreadyWaiting,
            false => {
                let text =
                    "this session already waits for one of these locks, but not for all of them at once";
                Self::Invalid(text.to_owned())
            }
        }
    }
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
            Self::Doubt(reason) => write!(f, "the session is in doubt: {reason}"),
            Self::Lost(reason) => write!(f, "the session has ended: {reason}"),
        }
    }
}

impl std::error::Error for AcquireError {}

/// Sessions that would wait for each other: each for the next one, and the last for the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cycle {
    /// The requesting session and those after it, by registered name or else by address. At most
    /// [`SHOWN_MAX`](Self::SHOWN_MAX) of them; empty if a server does not disclose them.
    pub sessions: Vec<String>,
    /// The addresses of the same sessions; empty if they are on a server.
    pub addresses: Vec<String>,
    /// The number of sessions in the whole cycle.
    pub size: usize,
}

impl Cycle {
    /// How many sessions are listed at most, so that a long cycle makes no long answer.
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
    /// The lock, which is free now or has gone to the next waiter.
    Hold,
    /// The place in the queue: the session only waited. A request for several names has left the
    /// queues of all of them.
    Place,
}

/// Why a release failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReleaseError {
    /// This session neither holds the name nor waits for it.
    NotHeld,
    /// The session has lost its connection, and may still be resumed. The names are given up all the
    /// same: the server frees them when the session is resumed or lost.
    Doubt(String),
    /// The session has ended, and with it all its locks.
    Lost(String),
}

impl fmt::Display for ReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHeld => f.write_str("this session does not hold the lock"),
            Self::Doubt(reason) => write!(f, "the session is in doubt: {reason}"),
            Self::Lost(reason) => write!(f, "the session has ended: {reason}"),
        }
    }
}

impl std::error::Error for ReleaseError {}

/// The state of a lock at one moment, as one session sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// The mode in force: of those in which it is held, the one that allows the fewest holders.
    /// `None` if it is free.
    pub mode: Option<Mode>,
    /// How many sessions hold it.
    pub holders: usize,
    /// How many requests wait for it.
    pub waiters: usize,
    /// What this session holds.
    pub held: Option<Held>,
    /// Whether this session waits for it.
    pub waiting: bool,
    /// Whether the last exclusive holder vanished without releasing it. If it is held exclusively
    /// now, the holder before the present one, as in the present one's grant.
    pub orphaned: bool,
}

impl Inspection {
    /// The limit in force: how many sessions may hold the lock while its present holders do. 1 if
    /// it is held exclusively. `None`: any number, because it is free or only held shared.
    #[must_use]
    pub fn limit(&self) -> Option<u32> {
        self.mode.and_then(Mode::holders_max)
    }

    /// How many more sessions can hold the lock, as far as its present holders are concerned.
    /// `None`: any number. Requests that wait come before new ones, and each has a limit of its
    /// own.
    #[must_use]
    pub fn free_slots(&self) -> Option<u32> {
        let holders = u32::try_from(self.holders).unwrap_or(u32::MAX);
        self.limit().map(|limit| limit.saturating_sub(holders))
    }
}

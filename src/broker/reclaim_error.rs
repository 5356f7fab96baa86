//! Why a session does not get back a lock that it held in an earlier run of the server. A plain
//! value.

use std::fmt;

use crate::broker::lifecycle::CallRefused;
use crate::broker::listing::HolderInfo;
use crate::broker::outcome::Held;

/// Why a session was not given back a lock that it held in an earlier run of the server. Nothing has
/// changed.
#[derive(Clone, Debug)]
pub enum ReclaimError {
    /// The broker is in no grace: others may have been granted the lock in the meantime.
    NoGrace,
    /// This session holds the lock already.
    AlreadyHeld(Held),
    /// This session waits for a lock.
    Waiting,
    /// No earlier run can have given this token: the next grant may get it.
    TokenNotGivenYet,
    /// Sessions hold the lock in a way that does not allow this one: these held it right afterwards.
    /// None if they have released it in the meantime; then the next attempt may succeed.
    Conflict(Vec<HolderInfo>),
    /// The broker is stopping.
    Stopping(String),
    /// The session has ended, or the broker has failed.
    Lost(String),
}

impl From<CallRefused> for ReclaimError {
    fn from(refused: CallRefused) -> Self {
        match refused {
            CallRefused::NoGrace => Self::NoGrace,
            CallRefused::Shut | CallRefused::Standby => Self::Stopping(refused.text()),
            CallRefused::SessionEnded | CallRefused::Grace(_) | CallRefused::Failed => {
                Self::Lost(refused.text())
            }
        }
    }
}

impl fmt::Display for ReclaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoGrace => f.write_str(&CallRefused::NoGrace.text()),
            Self::AlreadyHeld(_) => f.write_str("this session already holds the lock"),
            Self::Waiting => f.write_str("this session waits for a lock"),
            Self::TokenNotGivenYet => f.write_str("no earlier run can have given this token"),
            Self::Conflict(_) => f.write_str("another session holds the lock"),
            Self::Stopping(reason) | Self::Lost(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for ReclaimError {}

//! What a call of a session can fail with, beyond what the broker's own errors say.

use std::fmt;

use crate::broker::{AcquireError, ReleaseError};
use crate::client::connection::Lost;

/// Why a lock could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InspectError {
    /// The name is not one that the server allows.
    Invalid(String),
    /// The server will not.
    Refused(String),
    /// The server has not answered within its dead-peer timeout. The session is as it was.
    TimedOut,
    /// The call was cancelled. The session is as it was.
    Cancelled,
    /// The session has ended.
    Lost(String),
}

impl fmt::Display for InspectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(reason) => write!(f, "invalid request: {reason}"),
            Self::Refused(reason) => write!(f, "refused: {reason}"),
            Self::TimedOut => f.write_str("the server has not answered in time"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Lost(reason) => write!(f, "the session has ended: {reason}"),
        }
    }
}

impl std::error::Error for InspectError {}

impl From<Lost> for AcquireError {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost.0)
    }
}

impl From<Lost> for ReleaseError {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost.0)
    }
}

impl From<Lost> for InspectError {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost.0)
    }
}

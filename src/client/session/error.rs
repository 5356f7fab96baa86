//! The error of calls that look at locks, and how a lost connection becomes the error of a call.

use std::fmt;

use crate::broker::{AcquireError, ReleaseError};
use crate::client::connection::Lost;

/// Why a call that looks at locks has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InspectError {
    /// The server does not allow this name.
    Invalid(String),
    /// The server refuses.
    Refused(String),
    /// The server has not answered within its dead-peer timeout. The session is not affected.
    TimedOut,
    /// The call was cancelled. The session is not affected.
    Cancelled,
    /// The session has lost its connection, and may still be resumed.
    Doubt(String),
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
            Self::Doubt(reason) => write!(f, "the session is in doubt: {reason}"),
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

//! Whether a session has its locks, as far as can be known without waiting.

use std::time::Duration;

/// Whether a session has its locks, as far as can be known without waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// It has a connection, and so still has its locks.
    Alive,
    /// It has lost its connection, and is being resumed. It may still have its locks, and may have
    /// lost them: work under them may go on to its next safe point, but nothing may be begun.
    InDoubt {
        /// Why the connection has ended.
        reason: String,
        /// The time until it is lost, if it is not resumed before; the clock also runs while the
        /// machine sleeps. `None` if it holds nothing, so that there is nothing to lose.
        left: Option<Duration>,
        /// How many attempts to connect again have failed.
        failures: u64,
        /// Why the last one has.
        last_failure: Option<String>,
    },
    /// It has ended, and with it all its locks.
    Lost {
        /// Why.
        reason: String,
    },
}

//! The text of a state file for fuzzing: what is read and written are the real ones. Exists with `--cfg fuzzing`
//! only.

use std::time::Duration;

use crate::server::state_dir::record::Record;

/// The most bytes that are read of a state file.
pub const RECORD_BYTES_MAX: usize = crate::server::state_dir::record::RECORD_BYTES_MAX;

/// What a state file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Every fencing token given is lower than this.
    pub tokens_end: u64,
    /// The dead-peer timeout of the run's clients.
    pub dead_peer_timeout: Duration,
    /// Whether the run has stopped, and everyone who held a lock then knows.
    pub stopped: bool,
}

/// Reads the bytes of a state file.
///
/// # Errors
/// What is wrong with them.
pub fn read(bytes: &[u8]) -> Result<State, &'static str> {
    let Record { tokens_end, dead_peer_timeout, stopped } = Record::parse(bytes)?;
    Ok(State { tokens_end, dead_peer_timeout, stopped })
}

/// What a run writes into its state file.
#[must_use]
pub fn write(state: &State) -> String {
    let State { tokens_end, dead_peer_timeout, stopped } = *state;
    Record { tokens_end, dead_peer_timeout, stopped }.encode()
}

//! Access to the text of a state file for fuzzing, with the real reader and writer. Exists only
//! with `--cfg fuzzing`.

use std::time::Duration;

use crate::server::state_dir::record::Record;

/// The most bytes that are read of a state file.
pub const RECORD_BYTES_MAX: usize = crate::server::state_dir::record::RECORD_BYTES_MAX;

/// The contents of a state file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateRecord {
    /// Every fencing token of the run is lower than this.
    pub tokens_end: u64,
    /// The dead-peer timeout of the run's clients.
    pub dead_peer_timeout: Duration,
    /// Whether the run has stopped cleanly: every client that held a lock knows that it has lost
    /// it.
    pub stopped: bool,
}

/// Reads the bytes of a state file.
///
/// # Errors
/// The message says what is wrong with them.
pub fn read(bytes: &[u8]) -> Result<StateRecord, &'static str> {
    let Record { tokens_end, dead_peer_timeout, stopped } = Record::parse(bytes)?;
    Ok(StateRecord { tokens_end, dead_peer_timeout, stopped })
}

/// The text that a run writes into its state file.
#[must_use]
pub fn write(state: &StateRecord) -> String {
    let StateRecord { tokens_end, dead_peer_timeout, stopped } = *state;
    Record { tokens_end, dead_peer_timeout, stopped }.encode()
}

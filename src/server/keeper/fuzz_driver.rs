//! Access to the text of a state file for fuzzing, with the real reader and writer. Exists only
//! with `--cfg fuzzing`.

use std::time::Duration;

use crate::server::keeper::record::{Record, RunEnd, SessionsRecord};
use crate::server::resume::secret_key::SecretKey;
use crate::wire::message::ResumeId;

/// The most bytes that are read of a state file.
pub const RECORD_BYTES_MAX: usize = crate::server::keeper::record::RECORD_BYTES_MAX;

/// The contents of a state file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateRecord(Record);

impl StateRecord {
    /// The state of a run: `epoch` is its number, if its sessions can resume; `held` is how many of
    /// them held something when it stopped.
    #[must_use]
    pub fn new(tokens_end: u64, seconds: u64, epoch: Option<u64>, held: Option<u16>) -> Self {
        let id = |number: u16| ResumeId((u128::from(number) << 64).to_be_bytes());
        let stopped = |held| RunEnd::Stopped { held: (0..held).map(id).collect() };
        let sessions = |epoch: u64| SessionsRecord {
            epoch,
            opened: epoch / 2,
            key: SecretKey::from_number(u128::from(epoch)),
        };
        Self(Record {
            tokens_end,
            dead_peer_timeout: Duration::from_secs(seconds),
            end: held.map_or(RunEnd::None, stopped),
            sessions: epoch.map(sessions),
        })
    }
}

/// Reads the bytes of a state file.
///
/// # Errors
/// The message says what is wrong with them.
pub fn read(bytes: &[u8]) -> Result<StateRecord, &'static str> {
    Record::parse(bytes).map(StateRecord)
}

/// The text that a run writes into its state file.
#[must_use]
pub fn write(state: &StateRecord) -> String {
    state.0.encode()
}

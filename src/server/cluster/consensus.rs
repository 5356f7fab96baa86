//! What a cluster asks of etcd, so that tests can put something in its place that loses answers.

use std::time::Duration;

use crate::etcd::{Condition, Etcd, EtcdError, KeyValue, Transacted, Write};

/// Why a request came to nothing, or nobody knows what it came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConsensusError {
    pub(super) text: String,
    /// What it was to write may be written, or may be written later.
    pub(super) may_have_happened: bool,
    /// Asking again will not help.
    pub(super) is_permanent: bool,
}

impl From<EtcdError> for ConsensusError {
    fn from(error: EtcdError) -> Self {
        Self {
            text: error.to_string(),
            may_have_happened: error.may_have_happened(),
            is_permanent: error.is_permanent(),
        }
    }
}

/// Keys that all servers of a cluster see alike. Reads see all that was written before they were
/// asked for.
pub(super) trait Consensus: Send + Sync {
    /// Checks that all end points belong together.
    fn check(&self, limit: Duration) -> Result<(), ConsensusError>;

    fn read_key(&self, key: &str, limit: Duration) -> Result<Option<KeyValue>, ConsensusError>;

    fn read_prefix(&self, prefix: &str, limit: Duration) -> Result<Vec<KeyValue>, ConsensusError>;

    fn transact(
        &self,
        conditions: &[Condition<'_>],
        writes: &[Write<'_>],
        limit: Duration,
    ) -> Result<Transacted, ConsensusError>;
}

impl Consensus for Etcd {
    fn check(&self, limit: Duration) -> Result<(), ConsensusError> {
        Ok(self.check_endpoints(limit)?)
    }

    fn read_key(&self, key: &str, limit: Duration) -> Result<Option<KeyValue>, ConsensusError> {
        Ok(Etcd::read_key(self, key, limit)?)
    }

    fn read_prefix(&self, prefix: &str, limit: Duration) -> Result<Vec<KeyValue>, ConsensusError> {
        Ok(Etcd::read_prefix(self, prefix, limit)?)
    }

    fn transact(
        &self,
        conditions: &[Condition<'_>],
        writes: &[Write<'_>],
        limit: Duration,
    ) -> Result<Transacted, ConsensusError> {
        Ok(Etcd::transact(self, conditions, writes, limit)?)
    }
}

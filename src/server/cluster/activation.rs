//! From a standby to the active server, once the leader's key is this server's: reads what earlier
//! runs have left, and writes down what this run begins with. Only then does the broker begin. No
//! other server writes to the record meanwhile, since the term is this server's.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::cluster_store::ClusterStore;
use super::consensus::Consensus;
use super::keys::Keys;
use crate::broker::Broker;
use crate::os::sync::Arc;
use crate::server::keeper::Keeper;
use crate::server::keeper::next_run::NextRun;
use crate::server::keeper::record::Record;
use crate::server::keeper::store::Store;
use crate::server::keeper::tombstones::Tombstones;

/// What a new run is made with.
pub(super) struct Activation {
    pub(super) consensus: Arc<dyn Consensus>,
    pub(super) keys: Keys,
    /// The revision of the term's key, which is this server's.
    pub(super) term: i64,
    pub(super) dead_peer_timeout: Duration,
    pub(super) is_first_start: bool,
    /// How long a request may take.
    pub(super) limit: Duration,
}

/// Why a server that has the leader's key is not active.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotActivated {
    /// It may be, the next time.
    NotYet(String),
    /// What is kept in etcd cannot be used, by any server; or this server is stopping.
    Never(String),
}

impl fmt::Display for NotActivated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotYet(text) | Self::Never(text) => f.write_str(text),
        }
    }
}

impl Activation {
    /// Reads and writes what the run needs.
    ///
    /// # Errors
    /// If etcd has not answered, or if what it has makes no sense.
    pub(super) fn prepare(&self) -> Result<(ClusterStore, NextRun), NotActivated> {
        let found = self.consensus.read_prefix(&self.keys.prefix, self.limit);
        let found = found.map_err(|error| NotActivated::NotYet(error.text))?;
        let find = |key: &str| found.iter().find(|found| found.key == key);
        if find(&self.keys.term).is_none_or(|term| term.revision != self.term) {
            return Err(NotActivated::NotYet("another server has become active meanwhile".to_owned()));
        }
        let state = find(&self.keys.state);
        let record = state.map(|state| Record::parse(&state.value)).transpose();
        let record = record.map_err(|what| {
            NotActivated::Never(format!(
                "the key {} in etcd cannot be used: {what}. It was left as it is. Once no client can believe any \
                 more that it holds a lock, and nothing compares new fencing tokens with old ones, it may be removed",
                self.keys.state
            ))
        })?;
        let mut buried = Tombstones { sessions: BTreeSet::new(), is_damaged: false };
        for found in found.iter().filter(|found| found.key.starts_with(&self.keys.tombstones)) {
            match self.keys.read_tombstone(&found.key) {
                Some((_, session)) => _ = buried.sessions.insert(session),
                None => buried.is_damaged = true,
            }
        }
        let next = NextRun::after(record, buried, self.dead_peer_timeout, self.is_first_start);
        let next = next.map_err(|error| NotActivated::NotYet(error.to_string()))?;
        let mut store = ClusterStore {
            consensus: self.consensus.clone(),
            keys: self.keys.clone(),
            term: self.term,
            epoch: next.record.sessions.as_ref().map_or(0, |sessions| sessions.epoch),
            state: Some(state.map_or(0, |state| state.revision)),
            limit: self.limit,
        };
        let written = store.write(&next.record).and_then(|()| match next.has_earlier() {
            true => Ok(()),
            false => store.keep_tombstones(&[]),
        });
        written.map_err(|error| NotActivated::NotYet(error.to_string()))?;
        Ok((store, next))
    }

    /// Lets the broker begin.
    ///
    /// # Errors
    /// If it is shut, or no thread can be started for its keeper.
    pub(super) fn begin(broker: &Broker, store: ClusterStore, next: NextRun) -> Result<Keeper, NotActivated> {
        let never = |text: String| NotActivated::Never(text);
        let (tokens, grace) = (next.tokens.clone(), next.grace.map(|(grace, _)| grace));
        if !broker.begin(&tokens, grace) {
            return Err(never("the server is stopping".to_owned()));
        }
        Keeper::begin(Box::new(store), next, broker).map_err(|error| never(error.to_string()))
    }
}

//! The store of a keeper in etcd. Every write requires that this server is still the last one that
//! has become active. Knows nothing of when that ends.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::consensus::{Consensus, ConsensusError};
use super::keys::Keys;
use crate::etcd::{Condition, Write};
use crate::os::sync::Arc;
use crate::server::keeper::record::Record;
use crate::server::keeper::store::Store;
use crate::wire::message::ResumeId;

/// How many keys are written at once. etcd refuses more than 128.
const WRITES_MAX: usize = 100;

/// The record and the tombstones of the active server.
pub(super) struct ClusterStore {
    pub(super) consensus: Arc<dyn Consensus>,
    pub(super) keys: Keys,
    /// The revision of the term's key when this server became active.
    pub(super) term: i64,
    /// The number of the run.
    pub(super) epoch: u64,
    /// The revision of the record. `None` if the last write may still arrive: then the next one
    /// must not come before it unseen.
    pub(super) state: Option<i64>,
    pub(super) limit: Duration,
}

impl ClusterStore {
    fn own_term(&self) -> Condition<'_> {
        Condition { key: &self.keys.term, revision: self.term }
    }

    /// Writes what needs no other condition than the term.
    fn write_in_term(&self, writes: &[Write<'_>]) -> io::Result<()> {
        let done = self.consensus.transact(&[self.own_term()], writes, self.limit).map_err(failed)?;
        if done.succeeded { Ok(()) } else { Err(superseded()) }
    }

    /// The revision of the record, as it is now.
    fn find_state(&self) -> io::Result<i64> {
        let found = self.consensus.read_key(&self.keys.state, self.limit).map_err(failed)?;
        Ok(found.map_or(0, |found| found.revision))
    }
}

impl Store for ClusterStore {
    fn write(&mut self, record: &Record) -> io::Result<()> {
        let revision = match self.state.take() {
            Some(revision) => revision,
            None => self.find_state()?,
        };
        let conditions = [self.own_term(), Condition { key: &self.keys.state, revision }];
        let text = record.encode();
        let put = Write::Put { key: &self.keys.state, value: text.as_bytes() };
        let done = self.consensus.transact(&conditions, &[put], self.limit);
        match done {
            Ok(done) if done.succeeded => {
                self.state = Some(done.revision);
                Ok(())
            }
            // An earlier write has arrived meanwhile, or the term is over: the next attempt finds
            // out, or the server has ended by then.
            Ok(_) => Err(superseded()),
            Err(error) => {
                if !error.may_have_happened {
                    self.state = Some(revision);
                }
                Err(failed(error))
            }
        }
    }

    fn add_tombstones(&mut self, sessions: &[ResumeId]) -> io::Result<()> {
        let keys: Vec<String> =
            sessions.iter().map(|session| self.keys.tombstone(self.epoch, *session)).collect();
        for keys in keys.chunks(WRITES_MAX) {
            let writes: Vec<_> = keys.iter().map(|key| Write::Put { key, value: b"" }).collect();
            self.write_in_term(&writes)?;
        }
        Ok(())
    }

    fn keep_tombstones(&mut self, sessions: &[ResumeId]) -> io::Result<()> {
        let found = self.consensus.read_prefix(&self.keys.tombstones, self.limit).map_err(failed)?;
        let kept: BTreeSet<&ResumeId> = sessions.iter().collect();
        let is_kept = |key: &str| {
            let read = self.keys.read_tombstone(key);
            read.is_some_and(|(epoch, session)| epoch == self.epoch && kept.contains(&session))
        };
        let gone: Vec<&str> =
            found.iter().map(|found| found.key.as_str()).filter(|key| !is_kept(key)).collect();
        for keys in gone.chunks(WRITES_MAX) {
            let writes: Vec<_> = keys.iter().map(|key| Write::Delete { key }).collect();
            self.write_in_term(&writes)?;
        }
        Ok(())
    }

    fn lock(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

fn failed(error: ConsensusError) -> io::Error {
    io::Error::other(error.text)
}

fn superseded() -> io::Error {
    io::Error::other("etcd has been written to by others meanwhile")
}

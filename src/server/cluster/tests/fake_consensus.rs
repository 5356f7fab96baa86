//! Keys in memory, with the troubles of a network: requests that are lost, answers that are lost or
//! late, and requests that arrive after others that were sent later.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::etcd::{Condition, KeyValue, Transacted, Write};
use crate::os::sync::Mutex;
use crate::server::cluster::consensus::{Consensus, ConsensusError};

/// What happens to transactions.
#[derive(Clone, Copy)]
pub(super) enum Trouble {
    /// They do not arrive.
    Lost,
    /// They arrive, and their answers do not.
    AnswerLost,
    /// Their answers come this late.
    Slow(Duration),
}

/// A write of a held back transaction: a key, and its value.
type HeldWrite = (String, Vec<u8>);

/// A transaction that has not arrived yet: keys with their revisions, and what it writes.
type HeldTransaction = (Vec<(String, i64)>, Vec<HeldWrite>);

#[derive(Default)]
struct FakeKeys {
    revision: i64,
    keys: BTreeMap<String, (i64, Vec<u8>)>,
    /// What happens to the next ones, and to how many.
    trouble: Option<(Trouble, usize)>,
    /// The next transaction that writes this key is held back.
    hold_back: Option<String>,
    held_back: Option<HeldTransaction>,
}

impl FakeKeys {
    fn revision_of(&self, key: &str) -> i64 {
        self.keys.get(key).map_or(0, |(revision, _)| *revision)
    }

    fn transact(&mut self, conditions: &[Condition<'_>], writes: &[Write<'_>]) -> Transacted {
        if conditions.iter().any(|condition| self.revision_of(condition.key) != condition.revision) {
            return Transacted { succeeded: false, revision: self.revision };
        }
        self.revision += 1;
        for write in writes {
            match write {
                Write::Put { key, value } => {
                    self.keys.insert((*key).to_owned(), (self.revision, value.to_vec()));
                }
                Write::Delete { key } => _ = self.keys.remove(*key),
                Write::DeletePrefix { prefix } => self.keys.retain(|key, _| !key.starts_with(prefix)),
            }
        }
        Transacted { succeeded: true, revision: self.revision }
    }

    fn next_trouble(&mut self) -> Option<Trouble> {
        let (trouble, left) = self.trouble?;
        self.trouble = (left > 1).then_some((trouble, left - 1));
        Some(trouble)
    }
}

#[derive(Default)]
pub(super) struct FakeConsensus(Mutex<FakeKeys>);

fn no_answer(may_have_happened: bool) -> ConsensusError {
    ConsensusError { text: "no answer".to_owned(), may_have_happened, is_permanent: false }
}

impl FakeConsensus {
    /// This happens to the next `count` transactions.
    pub(super) fn trouble(&self, trouble: Trouble, count: usize) {
        self.0.lock().trouble = (count > 0).then_some((trouble, count));
    }

    /// The next transaction that writes this key arrives only when it is let through.
    pub(super) fn hold_back(&self, key: &str) {
        self.0.lock().hold_back = Some(key.to_owned());
    }

    /// What was held back arrives. Returns whether it has written anything.
    pub(super) fn let_through(&self) -> bool {
        let mut keys = self.0.lock();
        let (conditions, writes) = keys.held_back.take().unwrap();
        let conditions: Vec<_> =
            conditions.iter().map(|(key, revision)| Condition { key, revision: *revision }).collect();
        let writes: Vec<_> = writes.iter().map(|(key, value)| Write::Put { key, value }).collect();
        keys.transact(&conditions, &writes).succeeded
    }

    /// Somebody else sets or deletes a key. Returns its revision.
    pub(super) fn set(&self, key: &str, value: Option<&[u8]>) -> i64 {
        let write = value.map_or(Write::Delete { key }, |value| Write::Put { key, value });
        self.0.lock().transact(&[], &[write]).revision
    }

    pub(super) fn value(&self, key: &str) -> Option<Vec<u8>> {
        self.0.lock().keys.get(key).map(|(_, value)| value.clone())
    }

    pub(super) fn revision(&self, key: &str) -> i64 {
        self.0.lock().revision_of(key)
    }
}

impl Consensus for FakeConsensus {
    fn check(&self, _limit: Duration) -> Result<(), ConsensusError> {
        Ok(())
    }

    fn read_key(&self, key: &str, _limit: Duration) -> Result<Option<KeyValue>, ConsensusError> {
        let keys = self.0.lock();
        let found = keys.keys.get(key);
        Ok(found.map(|(revision, value)| KeyValue {
            key: key.to_owned(),
            value: value.clone(),
            revision: *revision,
        }))
    }

    fn read_prefix(&self, prefix: &str, _limit: Duration) -> Result<Vec<KeyValue>, ConsensusError> {
        let keys = self.0.lock();
        let all = keys.keys.iter().filter(|(key, _)| key.starts_with(prefix));
        let found = all.map(|(key, (revision, value))| KeyValue {
            key: key.clone(),
            value: value.clone(),
            revision: *revision,
        });
        Ok(found.collect())
    }

    fn transact(
        &self,
        conditions: &[Condition<'_>],
        writes: &[Write<'_>],
        _limit: Duration,
    ) -> Result<Transacted, ConsensusError> {
        let mut keys = self.0.lock();
        let puts = writes.iter().filter_map(|write| match write {
            Write::Put { key, value } => Some(((*key).to_owned(), value.to_vec())),
            Write::Delete { .. } | Write::DeletePrefix { .. } => None,
        });
        let puts: Vec<HeldWrite> = puts.collect();
        if keys.hold_back.as_ref().is_some_and(|held| puts.iter().any(|(key, _)| key == held)) {
            keys.hold_back = None;
            let conditions = conditions.iter().map(|one| (one.key.to_owned(), one.revision)).collect();
            keys.held_back = Some((conditions, puts));
            return Err(no_answer(true));
        }
        match keys.next_trouble() {
            Some(Trouble::Lost) => Err(no_answer(true)),
            Some(Trouble::AnswerLost) => {
                keys.transact(conditions, writes);
                Err(no_answer(true))
            }
            Some(Trouble::Slow(time)) => {
                let done = keys.transact(conditions, writes);
                drop(keys);
                std::thread::sleep(time);
                Ok(done)
            }
            None => Ok(keys.transact(conditions, writes)),
        }
    }
}

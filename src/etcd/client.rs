//! The calls to an etcd cluster.

use std::time::Duration;

use super::error::EtcdError;
use super::url::EtcdUrl;

/// An etcd cluster. Threads may share it.
#[derive(Debug)]
pub struct Etcd {
    url: EtcdUrl,
}

/// A key that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// The revision of the store at which it was last written.
    pub revision: i64,
}

/// What must hold for a transaction to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition<'a> {
    /// The key.
    pub key: &'a str,
    /// The revision at which it must have been written last. 0: it must not exist.
    pub revision: i64,
}

/// What a transaction writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write<'a> {
    /// Gives a key a value.
    Put {
        /// The key.
        key: &'a str,
        /// The value.
        value: &'a [u8],
    },
    /// Deletes a key, if it exists.
    Delete {
        /// The key.
        key: &'a str,
    },
    /// Deletes all keys that begin with the prefix.
    DeletePrefix {
        /// The prefix.
        prefix: &'a str,
    },
}

/// What has become of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transacted {
    /// Whether all conditions held, and so everything was written. Otherwise nothing was.
    pub succeeded: bool,
    /// The store's revision after it: that of all keys that it wrote.
    pub revision: i64,
}

impl Etcd {
    /// Reads the files that the address names. Connects nothing.
    ///
    /// # Errors
    /// If one of the files is missing or of no use.
    pub fn new(url: &EtcdUrl) -> Result<Self, EtcdError> {
        Ok(Self { url: url.clone() })
    }

    fn absent(&self) -> EtcdError {
        EtcdError::new(format!("{}: not reached", self.url))
    }

    /// Asks every end point that answers within `limit` for the id of its etcd cluster.
    ///
    /// # Errors
    /// If they are not of one etcd cluster, or none answers.
    pub fn check_endpoints(&self, limit: Duration) -> Result<(), EtcdError> {
        let _ = limit;
        Err(self.absent())
    }

    /// The key with what was written to it last, by whatever end point (linearizable).
    ///
    /// # Errors
    /// If no end point has answered within `limit`.
    pub fn read_key(&self, key: &str, limit: Duration) -> Result<Option<KeyValue>, EtcdError> {
        let _ = (key, limit);
        Err(self.absent())
    }

    /// All keys that begin with the prefix (linearizable).
    ///
    /// # Errors
    /// If no end point has answered within `limit`.
    pub fn read_prefix(&self, prefix: &str, limit: Duration) -> Result<Vec<KeyValue>, EtcdError> {
        let _ = (prefix, limit);
        Err(self.absent())
    }

    /// One transaction: if all conditions hold, everything is written, otherwise nothing.
    ///
    /// # Errors
    /// If it is not known to have been carried out.
    pub fn transact(
        &self,
        conditions: &[Condition<'_>],
        writes: &[Write<'_>],
        limit: Duration,
    ) -> Result<Transacted, EtcdError> {
        let _ = (conditions, writes, limit);
        Err(self.absent())
    }
}

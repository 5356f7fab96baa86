//! What is read from etcd and written to it: keys, and transactions of them. Only types.

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
pub struct KeyCondition<'a> {
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

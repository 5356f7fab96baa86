//! A client of etcd: keys, values and transactions, by the JSON gateway of its API, version 3. Knows
//! HTTP, TLS, etcd's users and its several end points. Knows nothing of locks, and nothing of the
//! servers that use it; it logs nothing, and starts no threads.

mod client;
mod error;
mod url;

pub use client::{Condition, Etcd, KeyValue, Transacted, Write};
pub use error::EtcdError;
pub use url::{BadEtcdUrl, EtcdUrl};

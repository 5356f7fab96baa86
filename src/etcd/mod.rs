//! A client of etcd: keys, values and transactions, by the JSON gateway of its API, version 3. Knows
//! HTTP, TLS, etcd's users and its several end points. Knows nothing of locks, and nothing of the
//! servers that use it; it logs nothing. It
//! starts threads only to resolve names.

mod addresses;
mod answer;
mod client;
mod connector;
mod error;
#[cfg(test)]
mod fake_etcd;
mod gateway;
mod http;
mod keys;
#[cfg(test)]
mod tests;
mod url;

// Inside this crate, another type has the shorter name.
pub use keys::KeyCondition as Condition;

pub use client::Etcd;
pub use error::EtcdError;
pub use keys::{KeyValue, Transacted, Write};
pub use url::{BadEtcdUrl, EtcdUrl};

//! The client's side of the `message` protocol: sessions on servers, and a message client for commands of
//! one's own. Knows the protocol's codecs and the broker's types for names, modes and outcomes; never a
//! broker.
//!
//! - [`RemoteSession`]: one owner of locks on one server. Start reading here, then its `claims`.
//! - [`SessionGroup`]: the same on several servers, each name on one of them.
//! - [`MessageClient`]: requests and replies for any other command.
//! - `connection`: what all of them stand on: one socket, shared by threads, with no thread of its own.
//!
//! Locks, in the order in which they may be taken: a session's claims, then the connection's state. Neither is
//! held while a thread waits.

mod connect_error;
mod connection;
mod dial;
#[cfg(test)]
mod fake_server;
mod group;
mod input;
mod merge_pages;
mod message_client;
mod output;
mod rendezvous;
mod session;
#[cfg(test)]
mod tests;
mod url;

pub use connect_error::{ConnectError, ConnectErrorKind};
pub use dial::ConnectOptions;
pub(crate) use group::SessionGroup;
pub use message_client::{MessageClient, RpcError};
pub use session::{InspectError, RemoteSession};
pub use url::{BadUrl, ServerUrl};

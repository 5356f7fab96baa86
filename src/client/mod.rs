//! The client's side of the `message` protocol: sessions on servers, and a client for other
//! commands. Knows the protocol's codecs, and the broker's types for names, modes and errors; never
//! uses a broker.
//!
//! - [`RemoteSession`]: one owner of locks on one server. Start reading here, then in its
//!   `local_view`.
//! - `resumable`: the same, if the session is to survive the end of its connection;
//!   `server_session` is either of the two.
//! - `group`: the same on several servers, each name on one of them (`rendezvous`).
//! - [`MessageClient`]: requests and replies of any other command.
//! - `places`: a server that may be at several places, of which clients look for the right one.
//! - `pacing`: how long a waiting client pauses before it asks an absent server again.
//! - `wait_hook`: what a thread that waits for a server calls now and then.
//! - `connection`: one socket, shared by threads; all of the above are built on it.
//!
//! Mutexes, in the order in which they may be taken: what a resumable session shares, a session's view, then the connection's state.
//! A thread that waits holds neither.

mod connect_error;
mod connection;
mod dial;
#[cfg(test)]
mod fake_server;
mod group;
mod merge_pages;
mod message_client;
mod outgoing;
mod pacing;
mod places;
mod rendezvous;
mod reply_reader;
mod resumable;
mod server_session;
mod session;
mod session_state;
#[cfg(test)]
mod tests;
mod url;
mod wait_hook;

pub use connect_error::{ConnectError, ConnectErrorKind};
pub use dial::ConnectOptions;
pub(crate) use group::SessionGroup;
pub use message_client::{MessageClient, RpcError};
pub(crate) use pacing::RetryPacer;
pub use session::{InspectError, RemoteSession};
pub use session_state::SessionState;
pub use url::{BadUrl, ServerUrl};
pub(crate) use wait_hook::{HookReason, WaitHook};

//! The state of a server as data, and a server made from it: for a program that replaces itself by
//! another version while its connections stay. The descriptors of listeners and connections are
//! handed over through execve(2), and keep their numbers.
//!
//! - `types`: the data. What a part of the server gives and takes is in a file `snapshot` of its
//!   own, or beside its type.
//! - `collect`: the snapshot of a server whose threads are parked. `configs`: what its connections
//!   keep of earlier configurations. `file`: its bytes.
//! - `check`: whether a server can be made from a snapshot, as far as that can be said without its
//!   descriptors. `restore`: a server from it.
//!
//! A connection in TLS, or amid a handshake of TLS or WebSocket, cannot go on. The new image ends
//! it, as a server that stops: its locks are kept until its client knows.

mod check;
pub(super) mod collect;
mod configs;
mod file;
mod restore;
#[cfg(test)]
#[cfg(not(any(explore = "loom", explore = "shuttle")))]
mod tests;
pub(super) mod types;

#[cfg(fuzzing)]
pub use file::with_header;
pub use file::{SnapshotError, decode, encode};
pub use restore::RestoredServer;
pub use types::ServerSnapshot;

//! **lockd**: named locks that are held only by processes that are still there.
//!
//! The layers, from the inside out; each may use those before it as `ARCHITECTURE.md` says:
//!
//! - `os`: what the operating system gives, made safe to use. Knows nothing of locks by name.
//! - `etcd`: a client of etcd. Knows nothing of locks either.
//! - [`broker`]: the locks of one process and their rules. No sockets, no protocol.
//! - [`wire`]: pure functions between bytes and requests or replies.
//! - [`server`]: a broker served to the network.
//! - [`client`]: a session on a server, and a client for messages of one's own.
//! - [`Session`]: one owner of locks, in this process or on servers.
//! - [`ffi`]: all of it for C programs.

pub mod broker;
pub mod client;
#[cfg(feature = "cluster")]
pub mod etcd;
pub mod ffi;
mod os;
pub mod server;
mod session;
pub mod wire;

pub use session::Session;
pub use session::patient::{WaitError, WaitEvent};

/// Runs the README's Rust programs with the documentation's tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

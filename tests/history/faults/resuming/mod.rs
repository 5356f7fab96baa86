//! Sessions that resume: clients of the tests' own, which follow the rules for clients exactly, or
//! break one of them; servers that die, stop and are stopped; and a proxy that breaks connections.
//!
//! - `session`: the rules for clients. `connection`, `clock`: what they stand on. `calls`: what
//!   clients call. `riding`: what else they do in a random run.
//! - `library`: the same through the library.
//! - `proxy`: breaks connections. `breaking`: how they break by chance. `runs`: random runs.
//! - `stage`: a server, a proxy and clients that do what a test says. `controls`: for each rule, a
//!   client that breaks it must be convicted, and one that does not must be acquitted. `planted`: the
//!   same for the rules of the server. `times`: how long all that takes.

pub(super) mod breaking;
pub(super) mod calls;
mod clock;
mod connection;
mod controls;
pub(super) mod library;
pub(super) mod planted;
pub(super) mod proxy;
pub(super) mod riding;
mod runs;
pub(super) mod session;
pub(super) mod stage;
pub(super) mod stories;
mod times;

use crate::history::{Nanos, SECOND};

/// For how long at most a server may keep what a client has given up without a word, or whose word
/// a proxy keeps: for T − S from when it hears of it.
pub(super) const KEPT_MAX: Nanos = 18 * SECOND;

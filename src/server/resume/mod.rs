//! Sessions that resume: a client that has lost its connection continues its session on another
//! one, in this run of the server or at a later one with the same store.
//!
//! - `secret_key`: the secret by which a session proves that a server has told it its id.
//! - `sessions`: all such sessions of a server, and which connection each belongs to.
//! - `continuing`: what is done with a session when its client shows `resume`.
//!
//! When the locks of such a session go to others is decided in `client_knows`; what is kept from run
//! to run, in `keeper`.

pub(in crate::server) mod continuing;
pub(in crate::server) mod secret_key;
pub(in crate::server) mod sessions;

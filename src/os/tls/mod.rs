//! TLS for either side of a connection: turns plain bytes into TLS and back. Knows certificates and
//! keys in files; no sockets, no protocol, no broker. `absent` replaces `present` in a build
//! without TLS.

#[cfg(feature = "tls")]
mod explain;
#[cfg(feature = "tls")]
mod present;
#[cfg(all(feature = "tls", feature = "cluster"))]
pub(crate) use present::ClientTls;
#[cfg(feature = "tls")]
pub use present::ServerTls;
#[cfg(feature = "tls")]
pub(crate) use present::{TlsSession, client_session};

#[cfg(not(feature = "tls"))]
mod absent;
#[cfg(all(not(feature = "tls"), feature = "cluster"))]
pub(crate) use absent::ClientTls;
#[cfg(not(feature = "tls"))]
pub use absent::ServerTls;
#[cfg(not(feature = "tls"))]
pub(crate) use absent::{TlsSession, client_session};

use std::path::PathBuf;

/// The certificate files of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientFiles {
    /// The authorities that may sign the server's certificate. `None`: those that the system
    /// trusts.
    pub(crate) ca: Option<PathBuf>,
    /// Its own certificate, if it has one. The file may also hold the private key.
    pub(crate) cert: Option<PathBuf>,
    /// The private key, if it is in another file.
    pub(crate) key: Option<PathBuf>,
}

/// The state of the peer's side after some input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "nothing is decoded without TLS"))]
pub(crate) enum TlsInput {
    /// The peer may send more.
    More,
    /// The peer has announced that it sends no more.
    End,
}

//! Bytes through TLS, on either side: what is to be sent in, what goes over the wire out, and back. Knows
//! certificates and keys in files; no sockets, no protocol, no broker.

#[cfg(feature = "tls")]
mod explain;
#[cfg(feature = "tls")]
mod present;
#[cfg(feature = "tls")]
pub use present::ServerTls;
#[cfg(feature = "tls")]
pub(crate) use present::{TlsSession, client_session};

#[cfg(not(feature = "tls"))]
mod absent;
#[cfg(not(feature = "tls"))]
pub use absent::ServerTls;
#[cfg(not(feature = "tls"))]
pub(crate) use absent::{TlsSession, client_session};

use std::path::PathBuf;

/// The certificates that a client goes by and shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientFiles {
    /// Whom it trusts to sign the server's certificate; if none is given, whom the system trusts.
    pub(crate) ca: Option<PathBuf>,
    /// Its own certificate, if it has one, and the key to it, which may stand in the same file.
    pub(crate) cert: Option<PathBuf>,
    /// The file with the key, if it is another one.
    pub(crate) key: Option<PathBuf>,
}

/// What has come over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "nothing is taken in then"))]
pub(crate) enum Decoded {
    /// There may be more.
    More,
    /// The peer has said that it will send no more.
    End,
}

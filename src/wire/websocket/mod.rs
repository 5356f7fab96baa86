//! WebSocket (RFC 6455), the server's side: a text protocol's lines in messages, and how such a connection
//! begins.

#[cfg(feature = "websocket")]
mod exchange;
#[cfg(feature = "websocket")]
mod frames;
#[cfg(feature = "websocket")]
mod handshake;
#[cfg(feature = "websocket")]
pub(crate) use {exchange::Exchange, frames::WebSocket, handshake::upgrade};

#[cfg(not(feature = "websocket"))]
mod absent;
#[cfg(not(feature = "websocket"))]
pub(crate) use absent::{Exchange, WebSocket, upgrade};

/// Whether this build has WebSocket.
pub(crate) const IS_PRESENT: bool = cfg!(feature = "websocket");

/// What a client that wants to speak WebSocket is answered.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "websocket"), expect(dead_code, reason = "nobody speaks it then"))]
pub(crate) enum Upgrade {
    /// Its request is not whole yet.
    Incomplete,
    /// The answer after which it may; and how long the request was.
    Accepted {
        /// What it is answered.
        response: Vec<u8>,
        /// The length of its request.
        consumed: usize,
    },
    /// It may not.
    Refused {
        /// What it is answered.
        response: Vec<u8>,
        /// Why, for the log.
        reason: String,
    },
}

/// What has come over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "websocket"), expect(dead_code, reason = "nobody speaks it then"))]
pub(crate) enum Heard {
    /// There may be more.
    More,
    /// The client has said that it will send no more.
    Close,
}

/// The client does not keep to WebSocket, or to UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) &'static str);

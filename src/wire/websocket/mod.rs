//! The server's side of WebSocket (RFC 6455): the handshake, and messages that carry the lines of a
//! text protocol. Knows bytes; the server decides when to send them.

#[cfg(feature = "websocket")]
mod frames;
#[cfg(feature = "websocket")]
mod handshake;
#[cfg(feature = "websocket")]
mod reply_assembler;
mod snapshot;
#[cfg(feature = "websocket")]
pub(crate) use {frames::WebSocket, handshake::upgrade, reply_assembler::ReplyAssembler};

#[cfg(not(feature = "websocket"))]
mod absent;
#[cfg(not(feature = "websocket"))]
pub(crate) use absent::{ReplyAssembler, WebSocket, upgrade};

pub(crate) use snapshot::{AssemblerSnapshot, POSITION_MAX, WebSocketSnapshot};

/// Whether this build has WebSocket.
pub(crate) const IS_PRESENT: bool = cfg!(feature = "websocket");

/// The answer to a client's request to speak WebSocket.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "websocket"), expect(dead_code, reason = "nothing speaks it then"))]
pub(crate) enum Upgrade {
    /// The request is not complete yet.
    Incomplete,
    /// The client may speak WebSocket after this response.
    Accepted {
        /// The HTTP response.
        response: Vec<u8>,
        /// The length of the request in bytes.
        consumed: usize,
    },
    /// The client may not speak WebSocket.
    Refused {
        /// The HTTP response.
        response: Vec<u8>,
        /// Why, for the log.
        reason: String,
    },
}

/// The client violates the rules of WebSocket, or sends text that is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) &'static str);

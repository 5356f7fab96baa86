//! The state of a WebSocket as data, for a server that replaces itself by another version of the
//! program while its connections stay. Plain values, also in a build without WebSocket.

use serde::{Deserialize, Serialize};

use crate::broker::snapshot::as_data::{hex, hex_or_null};

/// The highest position in a stream that a snapshot may have, so that no sum of two overflows.
pub(crate) const POSITION_MAX: u64 = i64::MAX as u64;

/// What has arrived in part, and what is to be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebSocketSnapshot {
    /// The first bytes of a header.
    #[serde(with = "hex")]
    pub(crate) header: Vec<u8>,
    /// The frame whose payload has arrived in part.
    pub(crate) frame: Option<FrameSnapshot>,
    /// The message that has arrived in part.
    pub(crate) message: Option<MessageSnapshot>,
    /// How many bytes of lines have been decoded since the start.
    pub(crate) lines_bytes: u64,
    /// Ends of messages that have not been reported yet.
    pub(crate) ends: Vec<u64>,
    /// The payload of a control frame, as far as it has arrived.
    #[serde(with = "hex")]
    pub(crate) control: Vec<u8>,
    /// The payload of a ping that has not been answered.
    #[serde(with = "hex_or_null")]
    pub(crate) pong: Option<Vec<u8>>,
    /// The code of the server's close frame.
    pub(crate) close: Option<u16>,
    /// The server's close frame has been written.
    pub(crate) has_ended: bool,
}

/// A frame whose payload has arrived in part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FrameSnapshot {
    pub(crate) kind: FrameKind,
    pub(crate) is_final: bool,
    pub(crate) mask: [u8; 4],
    pub(crate) mask_index: usize,
    pub(crate) bytes_left: u64,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FrameKind {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// A message that has arrived in part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessageSnapshot {
    pub(crate) is_text: bool,
    /// The first bytes of a character.
    #[serde(with = "hex")]
    pub(crate) character: Vec<u8>,
    pub(crate) is_in_line: bool,
}

/// The replies of a WebSocket that are not sent yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AssemblerSnapshot {
    /// The ends of the client's messages that are not answered yet.
    pub(crate) ends: Vec<u64>,
    /// How many bytes of lines have been handled.
    pub(crate) handled: u64,
    /// The reply to a request that has been handled is still to come.
    pub(crate) is_waiting: bool,
    /// The lines of the current answer that are not sent yet.
    #[serde(with = "hex")]
    pub(crate) lines: Vec<u8>,
    /// Whether the current answer is text, if a part of it has been sent.
    pub(crate) sent_as_text: Option<bool>,
}

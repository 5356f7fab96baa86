//! How a connection's bytes are encoded on the wire: in TLS, in WebSocket, or in WebSocket inside
//! of TLS. Shared by the thread that reads and those that send. Pure: bytes in, bytes out.

use std::io;

use super::snapshot::types::{FramingSnapshot, LossReason};
use crate::os::tls::{TlsInput, TlsSession};
use crate::wire::websocket::{Violation, WebSocket};

/// How many first bytes are kept of a client that does not begin with TLS where it should.
const FIRST_BYTES: usize = 64;
/// How many bytes show that something is TLS.
const RECORD_HEADER: usize = 5;

/// The encoding of one connection.
#[derive(Default)]
pub(super) struct Framing {
    tls: Option<TlsSession>,
    websocket: Option<WebSocket>,
    /// The client has begun with TLS.
    is_tls_seen: bool,
    /// The client's first bytes until it is known to have begun with TLS: enough to detect what
    /// else it speaks.
    first_bytes: Vec<u8>,
    /// The client has said that it sends no more.
    peer_has_ended: bool,
    /// The client was told that this side sends no more.
    has_ended: bool,
}

impl Framing {
    /// In TLS, or unencoded until [`begin_websocket`](Self::begin_websocket).
    pub(super) fn new(tls: Option<TlsSession>) -> Self {
        Self { tls, ..Self::default() }
    }

    /// Why the connection cannot go on in another image, if so.
    pub(super) fn loss_reason(&self) -> Option<LossReason> {
        match self {
            Self { tls: Some(tls), .. } if !tls.is_handshaking() => Some(LossReason::Tls),
            Self { tls: None, websocket: Some(_), .. } => None,
            _ => Some(LossReason::Handshake),
        }
    }

    /// Its state; `None` if the connection [cannot go on](Self::loss_reason).
    pub(super) fn snapshot(&self) -> Option<FramingSnapshot> {
        let Self { tls: None, websocket: Some(websocket), peer_has_ended, has_ended, .. } = self else {
            return None;
        };
        let (peer_has_ended, has_ended) = (*peer_has_ended, *has_ended);
        Some(FramingSnapshot { websocket: websocket.snapshot(), peer_has_ended, has_ended })
    }

    /// # Errors
    /// If the snapshot is not the state of a connection in WebSocket.
    pub(super) fn restore(snapshot: FramingSnapshot) -> Result<Self, &'static str> {
        let FramingSnapshot { websocket, peer_has_ended, has_ended } = snapshot;
        let websocket = Some(WebSocket::restore(websocket)?);
        Ok(Self { websocket, peer_has_ended, has_ended, ..Self::default() })
    }

    /// From now on the bytes are in WebSocket, inside of TLS if there was TLS before. So is
    /// `early`, which has come already; its content is appended to `plain`.
    pub(super) fn begin_websocket(&mut self, early: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
        self.websocket = WebSocket::new();
        if let Some(websocket) = &mut self.websocket {
            self.peer_has_ended = decode_websocket(websocket, early, plain)?;
        }
        Ok(())
    }

    /// Whether the TLS handshake is still going on.
    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(TlsSession::is_handshaking)
    }

    /// The first bytes of a client that did not begin with TLS where it should have; empty if it
    /// did.
    pub(super) fn first_bytes(&self) -> &[u8] {
        &self.first_bytes
    }

    /// Whether the client has said that it sends no more.
    pub(super) fn peer_has_ended(&self) -> bool {
        self.peer_has_ended
    }

    /// Decodes bytes from the wire and appends their content to `plain`. Drops what follows the
    /// client's end.
    pub(super) fn decode(&mut self, wire: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
        if self.peer_has_ended {
            return Ok(());
        }
        let Self { tls, websocket, is_tls_seen, first_bytes, .. } = self;
        let mut decrypted = Vec::new();
        self.peer_has_ended = match (tls, websocket) {
            (Some(tls), None) => {
                if !*is_tls_seen {
                    first_bytes.extend(wire.iter().take(FIRST_BYTES));
                }
                let decoded = tls.decode(wire, plain)?;
                if first_bytes.len() >= RECORD_HEADER {
                    (*is_tls_seen, *first_bytes) = (true, Vec::new());
                }
                decoded == TlsInput::End
            }
            (Some(tls), Some(websocket)) => {
                let end = tls.decode(wire, &mut decrypted)? == TlsInput::End;
                decode_websocket(websocket, &decrypted, plain)? || end
            }
            (None, Some(websocket)) => decode_websocket(websocket, wire, plain)?,
            (None, None) => {
                plain.extend_from_slice(wire);
                false
            }
        };
        Ok(())
    }

    /// The positions in the decoded bytes at which WebSocket messages have ended since this was
    /// last asked.
    pub(super) fn message_ends(&mut self) -> Vec<u64> {
        self.websocket.as_mut().map(WebSocket::message_ends).unwrap_or_default()
    }

    /// Whether there are bytes to send that belong to no reply, such as a pong.
    pub(super) fn control_pending(&self) -> bool {
        self.tls.as_ref().is_some_and(TlsSession::control_pending)
            || self.websocket.as_ref().is_some_and(WebSocket::control_pending)
    }

    /// Appends to `wire` the pending control frames, and then `plain` encoded. In WebSocket,
    /// `plain` is whole frames already.
    pub(super) fn encode(&mut self, plain: &[u8], wire: &mut Vec<u8>) {
        self.encode_with(wire, |websocket, out| match websocket {
            Some(websocket) => websocket.encode(plain, out),
            None => out.extend_from_slice(plain),
        });
    }

    /// Appends to `wire` that this side sends no more. Only the first call does.
    pub(super) fn end(&mut self, wire: &mut Vec<u8>) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        self.encode_with(wire, |websocket, out| {
            if let Some(websocket) = websocket {
                websocket.end(out);
            }
        });
        if let Some(tls) = &mut self.tls {
            tls.end(wire);
        }
    }

    fn encode_with(&mut self, wire: &mut Vec<u8>, write: impl FnOnce(&mut Option<WebSocket>, &mut Vec<u8>)) {
        let Some(tls) = &mut self.tls else { return write(&mut self.websocket, wire) };
        let mut inside = Vec::new();
        write(&mut self.websocket, &mut inside);
        tls.encode(&inside, wire);
    }
}

/// Returns whether the client has sent a close frame.
fn decode_websocket(websocket: &mut WebSocket, wire: &[u8], plain: &mut Vec<u8>) -> io::Result<bool> {
    let closed = websocket.decode(wire, plain);
    closed.map_err(|Violation(what)| io::Error::other(format!("not WebSocket as it should be: {what}")))
}

//! What a connection's bytes are wrapped in on the wire: TLS, WebSocket, or one in the other. Shared by the
//! thread that reads and those that send; no I/O.

use std::io;

use crate::os::tls::{Decoded, TlsSession};
use crate::wire::websocket::{Violation, WebSocket};

/// How much is kept of what is no TLS where it should be.
const STRANGER_BYTES: usize = 64;
/// How many bytes of TLS show that it is TLS.
const RECORD_HEADER: usize = 5;

/// What one connection is wrapped in.
#[derive(Default)]
pub(super) struct Framing {
    tls: Option<TlsSession>,
    websocket: Option<WebSocket>,
    /// What came first was TLS.
    has_begun: bool,
    /// What came first, as long as that may be no TLS where it should be: enough of it to guess what it is.
    stranger: Vec<u8>,
    /// The client sends no more.
    is_over: bool,
    /// It was told that this side sends no more.
    has_ended: bool,
}

impl Framing {
    /// In TLS, or, for now, in nothing.
    pub(super) fn new(tls: Option<TlsSession>) -> Self {
        Self { tls, ..Self::default() }
    }

    /// What comes from now on is in WebSocket, inside of whatever it has been in, and so is `early`, which has
    /// come already; what that says is appended to `plain`.
    pub(super) fn begin_websocket(&mut self, early: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
        self.websocket = WebSocket::new();
        if let Some(websocket) = &mut self.websocket {
            self.is_over = hear(websocket, early, plain)?;
        }
        Ok(())
    }

    /// Whether the two sides still have to agree on TLS.
    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(TlsSession::is_handshaking)
    }

    /// What a client has begun with that did not begin with TLS where it should have; empty if it did.
    pub(super) fn stranger(&self) -> &[u8] {
        &self.stranger
    }

    /// Whether the client has said that it sends no more.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Takes bytes off the wire and appends what is in them to `plain`.
    pub(super) fn decode(&mut self, wire: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
        if self.is_over {
            return Ok(());
        }
        let Self { tls, websocket, has_begun, stranger, .. } = self;
        let mut decrypted = Vec::new();
        self.is_over = match (tls, websocket) {
            (Some(tls), None) => {
                if !*has_begun {
                    stranger.extend(wire.iter().take(STRANGER_BYTES));
                }
                let taken = tls.decode(wire, plain)?;
                if stranger.len() >= RECORD_HEADER {
                    (*has_begun, *stranger) = (true, Vec::new());
                }
                taken == Decoded::End
            }
            (Some(tls), Some(websocket)) => {
                let end = tls.decode(wire, &mut decrypted)? == Decoded::End;
                hear(websocket, &decrypted, plain)? || end
            }
            (None, Some(websocket)) => hear(websocket, wire, plain)?,
            (None, None) => {
                plain.extend_from_slice(wire);
                false
            }
        };
        Ok(())
    }

    /// Where messages of WebSocket have ended that have been taken in since this was asked last.
    pub(super) fn message_ends(&mut self) -> Vec<u64> {
        self.websocket.as_mut().map(WebSocket::message_ends).unwrap_or_default()
    }

    /// Whether there is something to be put out that no reply is.
    pub(super) fn control_pending(&self) -> bool {
        self.tls.as_ref().is_some_and(TlsSession::control_pending)
            || self.websocket.as_ref().is_some_and(WebSocket::control_pending)
    }

    /// Appends to `wire` what carries `plain`, behind whatever there is to say beside it. In WebSocket `plain` is
    /// frames already.
    pub(super) fn encode(&mut self, plain: &[u8], wire: &mut Vec<u8>) {
        self.put_out_with(wire, |websocket, out| match websocket {
            Some(websocket) => websocket.encode(plain, out),
            None => out.extend_from_slice(plain),
        });
    }

    /// Appends to `wire` the word that this side sends no more, once.
    pub(super) fn end(&mut self, wire: &mut Vec<u8>) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        self.put_out_with(wire, |websocket, out| {
            if let Some(websocket) = websocket {
                websocket.end(out);
            }
        });
        if let Some(tls) = &mut self.tls {
            tls.end(wire);
        }
    }

    fn put_out_with(&mut self, wire: &mut Vec<u8>, write: impl FnOnce(&mut Option<WebSocket>, &mut Vec<u8>)) {
        let Some(tls) = &mut self.tls else { return write(&mut self.websocket, wire) };
        let mut inside = Vec::new();
        write(&mut self.websocket, &mut inside);
        tls.encode(&inside, wire);
    }
}

/// Whether the client has ended it.
fn hear(websocket: &mut WebSocket, wire: &[u8], plain: &mut Vec<u8>) -> io::Result<bool> {
    let closed = websocket.decode(wire, plain);
    closed.map_err(|Violation(what)| io::Error::other(format!("not WebSocket as it should be: {what}")))
}

//! The bytes that a connection has still to send, in order. Pure: no socket, no locks, no threads.

mod snapshot;

use super::pushed::PushedBytes;
use crate::wire::websocket::ReplyAssembler;

/// How many bytes of replies may gather before they are sent.
pub(super) const GATHER_BYTES: usize = 64 << 10;
/// The largest buffer that is kept while there is nothing to send.
const KEEP_BYTES: usize = 4096;

/// What is to be sent, first `wire`, then `bytes`.
#[derive(Default)]
pub(super) struct SendBuffer {
    /// Appended, and not yet encoded by the connection's framing.
    bytes: Vec<u8>,
    /// The rest of a batch that was encoded and has been sent in part.
    wire: Vec<u8>,
    /// Decides which replies go into which message, if the connection is in WebSocket. The frames
    /// that it makes go into `bytes`.
    exchange: Option<ReplyAssembler>,
    /// The framing has a control frame to send, which is not part of any reply.
    has_control_frames: bool,
    /// The position of the beginning of `bytes` in the stream of all bytes ever appended.
    position: u64,
    /// Which of the unsent bytes other threads appended.
    pushed: PushedBytes,
}

impl SendBuffer {
    pub(super) fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        match &mut self.exchange {
            None => write(&mut self.bytes),
            Some(exchange) => exchange.reply(&mut self.bytes, write),
        }
    }

    /// Appends for another thread than the connection's own.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.position + self.bytes.len() as u64;
        self.append(write);
        let end = self.position + self.bytes.len() as u64;
        self.pushed.add(start..end);
    }

    /// How many of the unsent bytes other threads appended.
    pub(super) fn pushed_bytes(&self) -> u64 {
        self.pushed.bytes()
    }

    pub(super) fn unsent_bytes(&self) -> usize {
        self.bytes.len() + self.wire.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.wire.is_empty() && !self.has_control_frames
    }

    /// Whether enough has been appended to be sent without waiting for more.
    pub(super) fn is_flush_due(&self) -> bool {
        self.bytes.len() >= GATHER_BYTES
    }

    /// Takes the next batch for the thread that sends it, and whether it is encoded already. The
    /// rest of an encoded batch goes first and alone: if more were added to it, control frames
    /// would accumulate for a peer that does not read.
    pub(super) fn take_batch(&mut self) -> (Vec<u8>, bool) {
        if !self.wire.is_empty() {
            return (std::mem::take(&mut self.wire), true);
        }
        self.has_control_frames = false;
        self.position += self.bytes.len() as u64;
        (std::mem::take(&mut self.bytes), false)
    }

    /// Puts back what the socket has not taken of a batch.
    pub(super) fn put_back(&mut self, mut batch: Vec<u8>, sent: usize, is_encoded: bool) {
        debug_assert!(sent < batch.len(), "a batch that was sent whole is not put back");
        batch.drain(..sent);
        if batch.capacity() > GATHER_BYTES && batch.capacity() / 2 > batch.len() {
            batch.shrink_to_fit();
        }
        if is_encoded {
            // Its bytes count as unsent until all of them are sent.
            self.wire = batch;
            return;
        }
        self.position -= batch.len() as u64;
        self.pushed.sent_until(self.position);
        batch.append(&mut self.bytes);
        self.bytes = batch;
    }

    /// A batch has been sent whole. Its memory is used again if it is small and nothing else is to
    /// be sent.
    pub(super) fn batch_sent(&mut self, mut batch: Vec<u8>) {
        self.pushed.sent_until(self.position);
        if self.is_empty() && batch.capacity() <= KEEP_BYTES {
            batch.clear();
            self.bytes = batch;
        }
    }

    /// Drops everything. Returns whether a part of the dropped bytes may have been sent.
    pub(super) fn clear(&mut self) -> bool {
        self.bytes = Vec::new();
        !std::mem::take(&mut self.wire).is_empty()
    }

    /// The framing has control frames to send, which the next batch takes along.
    pub(super) fn add_control_frames(&mut self) {
        self.has_control_frames = true;
    }

    /// From now on replies go into WebSocket messages.
    pub(super) fn begin_messages(&mut self) {
        self.exchange = ReplyAssembler::new();
    }

    /// The division of replies into WebSocket messages, and the bytes to which it appends frames;
    /// `None` if the connection is not in WebSocket.
    pub(super) fn messages(&mut self) -> Option<(&mut ReplyAssembler, &mut Vec<u8>)> {
        self.exchange.as_mut().map(|exchange| (exchange, &mut self.bytes))
    }
}

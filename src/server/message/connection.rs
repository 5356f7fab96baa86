//! A connection of the `message` protocol while its messages are handled: what a command's handler
//! needs of it. Knows frames; no command.

use super::super::connection::{Connection, Flow};
use super::super::send_queue::Appended;
use super::waits::MessageWaits;
use crate::os::sync::Arc;
use crate::wire::frame;

/// A connection while its messages are handled.
pub(super) struct MessageConnection<'a> {
    pub(super) base: &'a mut Connection,
    pub(super) waits: &'a Arc<MessageWaits>,
    /// Whether to go on with the next message.
    pub(super) next: Flow,
    has_much_to_send: bool,
}

impl<'a> MessageConnection<'a> {
    pub(super) fn new(base: &'a mut Connection, waits: &'a Arc<MessageWaits>) -> Self {
        Self { base, waits, next: Flow::Read, has_much_to_send: false }
    }

    /// Appends one message; closes the connection if the client is gone. Sends nothing, so that a
    /// handler does not have to keep what it made the reply from until a slow client reads.
    pub(super) fn reply(&mut self, body: impl FnOnce(&mut Vec<u8>)) {
        match self.base.send_queue.append(|out| frame::encode(out, body)) {
            Appended::Buffered => {}
            Appended::FlushDue => self.has_much_to_send = true,
            Appended::Closed => self.next = Flow::Close,
        }
    }

    /// If much has gathered, sends it, and waits for the client to read.
    pub(super) fn send_if_much(&mut self) {
        if std::mem::take(&mut self.has_much_to_send) && !self.base.flush() {
            self.next = Flow::Close;
        }
    }
}

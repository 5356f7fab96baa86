//! The `message` protocol at the broker: frames in, each given to its command's handler, replies out
//! when they are ready, in whatever order that is.

mod info;
mod kick;
mod locks;
mod service;
mod waits;

pub use service::{Call, Handler, Responder, Service};
pub(super) use waits::MessageWaits;

use std::sync::atomic::Ordering::Relaxed;

use super::connection::{Connection, Flow, ProtocolHandler};
use super::send_queue::Appended;
use crate::os::sync::Arc;
use crate::wire::frame::{self, Frame};
use crate::wire::message::{encode_error, parse};
use info::BYE;

/// A client that speaks `message`.
pub(super) struct Messages {
    service: Arc<Service>,
    waits: Arc<MessageWaits>,
}

impl Messages {
    pub(super) fn new(service: Arc<Service>, waits: Arc<MessageWaits>) -> Self {
        Self { service, waits }
    }
}

impl ProtocolHandler for Messages {
    fn handle(&mut self, connection: &mut Connection, input: &[u8]) -> (usize, Flow) {
        let bytes_max = connection.config.message_bytes_max;
        let (mut done, mut count) = (0, 0);
        let mut conversation = MessageConnection {
            base: connection,
            waits: &self.waits,
            next: Flow::Read,
            has_much_to_send: false,
        };
        while conversation.next == Flow::Read {
            let (taken, found) = frame::decode(&input[done..], bytes_max);
            done += taken;
            match found {
                Frame::Incomplete => break,
                Frame::Body(body) => {
                    count += 1;
                    match parse(body) {
                        Ok(envelope) => self.service.dispatch(&mut conversation, &envelope),
                        // The end of the frame is known, and closing would cost the client its locks.
                        Err(bad) => conversation.reply(|out| encode_error(out, &bad.to_string())),
                    }
                    conversation.send_if_much();
                }
                Frame::TooLong { announced } => {
                    let text = format!("a message of {announced} bytes is longer than {bytes_max}");
                    conversation.base.note_limit(&text);
                    conversation.reply(|out| encode_error(out, &text));
                    conversation.next = Flow::Close;
                }
            }
        }
        let next = conversation.next;
        connection.server.messages.fetch_add(count, Relaxed);
        (done, next)
    }

    fn is_waiting(&self) -> bool {
        false
    }

    fn is_goodbye(&self, unhandled: &mut Vec<u8>) -> bool {
        let (mut done, mut is_goodbye) = (0, false);
        while let (taken, Frame::Body(body)) = frame::decode(&unhandled[done..], usize::MAX)
            && !is_goodbye
        {
            is_goodbye = parse(body).is_ok_and(|envelope| envelope.command.as_deref() == Some(BYE));
            done += taken;
        }
        unhandled.drain(..done);
        is_goodbye
    }
}

/// A connection while its messages are handled.
pub(super) struct MessageConnection<'a> {
    pub(super) base: &'a mut Connection,
    waits: &'a Arc<MessageWaits>,
    /// Whether to go on with the next message.
    pub(super) next: Flow,
    /// So much has gathered that it should be sent.
    has_much_to_send: bool,
}

impl MessageConnection<'_> {
    /// Appends one message; hangs up if there is nobody to read it. Sends nothing: a client that does not read would
    /// have whoever replies keep all that the reply was made from.
    fn reply(&mut self, body: impl FnOnce(&mut Vec<u8>)) {
        match self.base.send_queue.append(|out| frame::encode(out, body)) {
            Appended::Buffered => {}
            Appended::FlushDue => self.has_much_to_send = true,
            Appended::Closed => self.next = Flow::Close,
        }
    }

    /// Sends what has gathered if it is much, waiting for the client to read.
    fn send_if_much(&mut self) {
        if std::mem::take(&mut self.has_much_to_send) && !self.base.flush() {
            self.next = Flow::Close;
        }
    }
}

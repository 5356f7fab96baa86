//! The `message` protocol at the broker: each message is given to its command's handler, and
//! replies are sent when they are ready, in whatever order that is. Knows what each command does
//! with the session; not how messages are written (`wire::message`), and nothing of sockets.

mod connection;
mod inspection;
mod locks;
mod resume;
mod service;
mod sessions;
mod waits;

pub use service::{Call, Responder, Service};
pub(super) use waits::MessageWaits;

use std::sync::atomic::Ordering::Relaxed;

use super::connection::{Connection, Flow, ProtocolHandler};
use super::snapshot::types::HandlerSnapshot;
use crate::os::sync::Arc;
use crate::wire::frame::{self, Frame};
use crate::wire::message::{encode_error, parse};
use connection::MessageConnection;

/// The command by which a client says goodbye.
const BYE: &str = "bye";

impl Service {
    /// The lock commands.
    #[must_use]
    pub fn locks() -> Self {
        let mut service = Self::new();
        service
            .on("lock", locks::lock)
            .on("unlock", locks::unlock)
            .on("convert", locks::convert)
            .on("cancel", locks::cancel)
            .on("inspect", inspection::inspect)
            .on("list", inspection::list)
            .on("stats", inspection::stats)
            .on("hello", sessions::hello)
            .on("resume", resume::resume)
            .on("identify", sessions::identify)
            .on("ping", sessions::ping)
            .on("kick", sessions::kick)
            .on(BYE, sessions::bye);
        service
    }
}

/// Handles what a client of the `message` protocol sends.
pub(super) struct MessageHandler {
    service: Arc<Service>,
    waits: Arc<MessageWaits>,
}

impl MessageHandler {
    pub(super) fn new(service: Arc<Service>, waits: Arc<MessageWaits>) -> Self {
        Self { service, waits }
    }
}

impl ProtocolHandler for MessageHandler {
    fn handle(&mut self, connection: &mut Connection, input: &[u8]) -> (usize, Flow) {
        let bytes_max = connection.config.message_bytes_max;
        let (mut done, mut count) = (0, 0);
        let mut conversation = MessageConnection::new(connection, &self.waits);
        while conversation.next == Flow::Read {
            let (taken, found) = frame::decode(&input[done..], bytes_max);
            done += taken;
            match found {
                Frame::Incomplete => break,
                Frame::Body(body) => {
                    count += 1;
                    match parse(body) {
                        Ok(envelope) => self.service.dispatch(&mut conversation, &envelope),
                        // The connection goes on: the end of the frame is known, and closing would
                        // cost the client its locks.
                        Err(bad) => conversation.reply(|out| encode_error(out, &bad.to_string())),
                    }
                    conversation.send_if_much();
                }
                Frame::TooLong { announced } => {
                    let text = format!("a message of {announced} bytes is longer than {bytes_max}");
                    conversation.base.log_limit_exceeded(&text);
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

    fn snapshot(&self) -> HandlerSnapshot {
        HandlerSnapshot::Message {}
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

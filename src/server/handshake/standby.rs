//! What the clients of a standby are told: one that speaks `message`, that this server is a standby,
//! and where the active one is; others nothing, since their protocols have no words for it. Then the
//! connection ends.

use std::io;
use std::time::Instant;

use super::{AcceptedConnection, Handshake, LIMIT};
use crate::server::config::Protocol;
use crate::server::server_state::Standby;
use crate::wire::frame::{self, Frame};
use crate::wire::message::{
    LockResult, OldUnlockReply, encode_error, encode_result, parse, parse_old_unlock,
};

impl AcceptedConnection {
    /// Whether nothing can be said to this client.
    pub(in crate::server) fn is_speechless(&self) -> bool {
        self.protocol != Protocol::Message
    }

    /// Answers the first message, and ends the connection. `early` is what has come after the
    /// handshake.
    pub(in crate::server) fn answer_as_standby(&self, early: Vec<u8>, standby: &Standby) {
        let deadline = Instant::now() + LIMIT;
        let mut handshake = Handshake { accepted: self, deadline, early, has_skipped_secret: false };
        if let Err(error) = handshake.answer_first(standby) {
            log::debug!("{}: {error}", self.address);
        }
        self.send_queue.hang_up();
        self.drain_input();
    }
}

impl Handshake<'_> {
    fn answer_first(&mut self, standby: &Standby) -> io::Result<()> {
        let result = LockResult::standby(&standby.cluster, standby.active.as_deref());
        loop {
            let (_, found) = frame::decode(&self.early, self.accepted.config.message_bytes_max);
            match found {
                Frame::Incomplete => self.receive("a message")?,
                Frame::TooLong { announced } => {
                    let text = format!("a message of {announced} bytes");
                    return self.reply(|out| frame::encode(out, |body| encode_error(body, &text)));
                }
                Frame::Body(body) => {
                    return match parse(body) {
                        Err(bad) => {
                            let text = bad.to_string();
                            self.reply(|out| frame::encode(out, |body| encode_error(body, &text)))
                        }
                        Ok(envelope) => match envelope.id {
                            _ if envelope.command.as_deref() == Some("unlock")
                                && !matches!(parse_old_unlock(envelope.body), Ok(None)) =>
                            {
                                self.reply(|out| {
                                    frame::encode(out, |body| OldUnlockReply::Refused.encode(body));
                                })
                            }
                            Some(id) => self.reply(|out| {
                                frame::encode(out, |body| encode_result(body, id, &result));
                            }),
                            None => Ok(()),
                        },
                    };
                }
            }
        }
    }
}

//! The bytes that arrived on a connection, and the replies in them. Grows with what has arrived, never
//! with what was announced; reads from no socket itself.

use serde_json::value::RawValue;

use crate::protocol::frame::{self, Frame};
use crate::protocol::message::parse_reply;

/// The longest message taken from a server, in bytes.
pub(super) const MESSAGE_MAX: usize = 16 << 20;

/// What is kept for the next messages once all that came has been read, in bytes.
const KEPT_MAX: usize = 64 << 10;

/// What a request was answered: its result, or the text of an error.
pub(super) type Reply = Result<Box<RawValue>, String>;

/// A message from the server.
#[derive(Debug)]
pub(super) enum Message {
    /// The reply to the request of this id.
    Reply(u64, Reply),
    /// Word that something could not be read, and no request was.
    Complaint(String),
    /// Nothing that is ours: a reply without an id, or with one that is no number.
    Other,
}

/// Bytes not yet read as messages.
#[derive(Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
}

impl Input {
    /// Takes what has arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Hands every whole message to `each`.
    ///
    /// # Errors
    /// Why the stream cannot be read any further.
    pub(super) fn drain(&mut self, mut each: impl FnMut(Message)) -> Result<(), String> {
        let mut done = 0;
        loop {
            match frame::decode(self.bytes.get(done..).unwrap_or_default(), MESSAGE_MAX) {
                (_, Frame::Incomplete) => break,
                (_, Frame::TooLong { announced }) => {
                    return Err(format!("the server announced a message of {announced} bytes"));
                }
                (consumed, Frame::Body(body)) => {
                    each(read(body)?);
                    done += consumed;
                }
            }
        }
        self.bytes.drain(..done);
        if self.bytes.is_empty() {
            self.bytes.shrink_to(KEPT_MAX);
        }
        Ok(())
    }
}

fn read(body: &[u8]) -> Result<Message, String> {
    let reply = parse_reply(body).map_err(|error| format!("the server sent what is no reply: {error}"))?;
    Ok(match (reply.id.map(|id| id.get().parse()), reply.result, reply.error) {
        (Some(Ok(id)), Some(result), _) => Message::Reply(id, Ok(result.to_owned())),
        (Some(Ok(id)), None, error) => {
            let error = error.map_or_else(|| "a reply with no result".to_owned(), |text| text.into_owned());
            Message::Reply(id, Err(error))
        }
        (None, _, Some(error)) => Message::Complaint(error.into_owned()),
        _ => Message::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(bodies: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        for body in bodies {
            frame::encode(&mut out, |out| out.extend_from_slice(body.as_bytes()));
        }
        out
    }

    fn read_in_pieces(stream: &[u8], size: usize) -> Result<Vec<String>, String> {
        let (mut input, mut seen) = (Input::default(), Vec::new());
        for piece in stream.chunks(size) {
            input.push(piece);
            input.drain(|message| {
                seen.push(match message {
                    Message::Reply(id, Ok(result)) => format!("{id} {result}"),
                    Message::Reply(id, Err(error)) => format!("{id} ! {error}"),
                    Message::Complaint(text) => format!("! {text}"),
                    Message::Other => "?".to_owned(),
                });
            })?;
        }
        Ok(seen)
    }

    #[test]
    fn replies_come_out_whole_however_they_arrive() {
        let stream = framed(&[
            r#"{"id":7,"result":{"status":"ok"}}"#,
            r#"{"id":8,"error":"no"}"#,
            r#"{"id":9}"#,
            r#"{"error":"what?"}"#,
            r#"{"id":"x","result":1}"#,
            r#"{"attempted":"unlock","result":"ok"}"#,
        ]);
        for size in 1..=stream.len() {
            let expected =
                ["7 {\"status\":\"ok\"}", "8 ! no", "9 ! a reply with no result", "! what?", "?", "?"];
            assert_eq!(read_in_pieces(&stream, size).unwrap(), expected);
        }
    }

    #[test]
    fn a_stream_that_cannot_be_read_says_why() {
        assert!(read_in_pieces(b"HTTP/1.1", 8).unwrap_err().contains("announced"));
        assert!(read_in_pieces(&framed(&["[1]"]), 99).unwrap_err().contains("not an object"));
        assert!(read_in_pieces(&framed(&["{"]), 99).unwrap_err().contains("not JSON"));
    }
}

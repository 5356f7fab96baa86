//! Finds the replies in the bytes that arrive on a connection. Its buffer grows with what has
//! arrived, never with the length that a message announces. Reads from no socket itself.

use serde_json::value::RawValue;

use crate::wire::first_bytes::{DetectedProtocol, detect_protocol, first_line};
use crate::wire::frame::{self, Frame};
use crate::wire::message::parse_reply;

/// The longest message accepted from a server, in bytes.
pub(super) const MESSAGE_MAX: usize = 16 << 20;

/// The capacity that the buffer keeps once it is empty, in bytes.
const KEPT_MAX: usize = 64 << 10;

/// The answer to a request: its result, or the text of an error.
pub(super) type ServerReply = Result<Box<RawValue>, String>;

/// A message from the server.
#[derive(Debug)]
pub(super) enum ServerMessage {
    /// The reply to the request of this id.
    Reply(u64, ServerReply),
    /// The text of an error that belongs to no request: the server could not read a message.
    Error(String),
    /// A reply to no request of this client: it has no id, or an id that is not a number.
    Other,
}

/// Bytes that have arrived and are not yet read as messages.
#[derive(Default)]
pub(super) struct ReplyReader {
    bytes: Vec<u8>,
    /// At least one message has been read.
    has_read: bool,
}

impl ReplyReader {
    /// Adds bytes that have arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Passes every complete message to `each`.
    ///
    /// # Errors
    /// Why the stream cannot be read any further.
    pub(super) fn drain(&mut self, mut each: impl FnMut(ServerMessage)) -> Result<(), String> {
        let mut done = 0;
        loop {
            match frame::decode(self.bytes.get(done..).unwrap_or_default(), MESSAGE_MAX) {
                (_, Frame::Incomplete) => break,
                (_, Frame::TooLong { announced }) => {
                    let begins = self.bytes.get(done..).filter(|_| !self.has_read).unwrap_or_default();
                    return Err(name_protocol(begins).unwrap_or_else(|| {
                        format!("the server announced a message of {announced} bytes: it may be no lockd")
                    }));
                }
                (consumed, Frame::Body(body)) => {
                    each(read(body)?);
                    done += consumed;
                    self.has_read = true;
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

/// Names the protocol of a server that begins with these bytes, and says what to do; `None` if it
/// is unknown.
pub(super) fn name_protocol(first: &[u8]) -> Option<String> {
    let line = || first_line(first);
    Some(match detect_protocol(first)? {
        DetectedProtocol::Tls => "it speaks TLS there: write tls:// instead of tcp://".to_owned(),
        DetectedProtocol::Http => format!("it speaks HTTP there (\"{}\"): {WANTED}", line()),
        DetectedProtocol::Text => format!("it speaks a text protocol there (\"{}\"): {WANTED}", line()),
        DetectedProtocol::Message => return None,
    })
}

/// What to do if the port speaks another protocol.
const WANTED: &str = "clients need a port where lockd speaks `message`, 20934 unless it is told another";

fn read(body: &[u8]) -> Result<ServerMessage, String> {
    let reply = parse_reply(body).map_err(|error| format!("the server sent what is no reply: {error}"))?;
    Ok(match (reply.id.map(|id| id.get().parse()), reply.result, reply.error) {
        (Some(Ok(id)), Some(result), _) => ServerMessage::Reply(id, Ok(result.to_owned())),
        (Some(Ok(id)), None, error) => {
            let error = error.map_or_else(|| "a reply with no result".to_owned(), |text| text.into_owned());
            ServerMessage::Reply(id, Err(error))
        }
        (None, _, Some(error)) => ServerMessage::Error(error.into_owned()),
        _ => ServerMessage::Other,
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
        let (mut reader, mut seen) = (ReplyReader::default(), Vec::new());
        for piece in stream.chunks(size) {
            reader.push(piece);
            reader.drain(|message| {
                seen.push(match message {
                    ServerMessage::Reply(id, Ok(result)) => format!("{id} {result}"),
                    ServerMessage::Reply(id, Err(error)) => format!("{id} ! {error}"),
                    ServerMessage::Error(text) => format!("! {text}"),
                    ServerMessage::Other => "?".to_owned(),
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
    fn another_protocol_is_recognized_by_its_first_bytes() {
        for (stream, parts) in [
            (&b"\x15\x03\x03\0\x02\x02\x46"[..], &["TLS", "tls://"][..]),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", &["HTTP", "400 Bad Request", "message", "20934"]),
            (b"0 Refused: this port speaks glockd\r\n", &["text", "speaks glockd\"", "message", "20934"]),
            (b"SSH-2.0-x\r\n", &["text", "SSH-2.0-x"]),
        ] {
            let why = read_in_pieces(stream, stream.len()).unwrap_err();
            assert!(parts.iter().all(|part| why.contains(part)), "{why}");
        }
    }

    #[test]
    fn a_stream_that_cannot_be_read_says_why() {
        let announced = |stream: &[u8]| read_in_pieces(stream, 99).unwrap_err();
        assert!(announced(&[framed(&["{}"]), b"HTTP/1.1".to_vec()].concat()).contains("announced"));
        assert!(announced(b"\xff\xff\xff\xff").contains("announced"));
        assert!(read_in_pieces(&framed(&["[1]"]), 99).unwrap_err().contains("not an object"));
        assert!(read_in_pieces(&framed(&["{"]), 99).unwrap_err().contains("not JSON"));
    }
}

//! Which replies go into which message: each message of the client is answered by exactly one, which has the
//! reply lines of all its requests and is empty if there are none. That is how a client that reads one message
//! for each that it has sent knows which reply belongs to what. Knows lines as bytes, and nothing of what they say.

use std::collections::VecDeque;

use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::wire::websocket::Violation;
use crate::wire::websocket::frames::push_frame;

/// A longer reply is sent in several frames, so that no more than this is gathered. It is still one message. The
/// limit is high because some simple clients take each frame for a message.
const PART_BYTES: usize = 256 << 10;
/// How many messages may follow a request that waits.
const MESSAGES_MAX: usize = 32 << 10;
/// How large a buffer is kept between two messages.
const KEEP_BYTES: usize = 4096;

/// The replies of one connection, as they become messages.
#[derive(Default)]
pub(crate) struct Exchange {
    /// Where the client's messages end that are not answered yet, the oldest first: counted in bytes of lines,
    /// from the first that came.
    ends: VecDeque<u64>,
    /// How many bytes of lines have been handled.
    handled: u64,
    /// The reply to a request that has been handled is still to come.
    is_waiting: bool,
    /// Reply lines of the message that is being answered, as far as they have not been sent.
    lines: Vec<u8>,
    /// What has been sent of the answer before, if anything has.
    sent: Option<Data>,
}

impl Exchange {
    /// One that has just begun.
    pub(crate) fn new() -> Option<Self> {
        Some(Self::default())
    }

    /// Messages of the client have ended there.
    pub(crate) fn have_ended(
        &mut self,
        ends: impl IntoIterator<Item = u64>,
        wire: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        self.ends.extend(ends);
        self.answer(wire);
        match self.ends.len() <= MESSAGES_MAX {
            true => Ok(()),
            false => Err(Violation("too many messages after a request that waits")),
        }
    }

    /// `bytes` more bytes of lines have been handled, and their replies given, except for a request that waits.
    pub(crate) fn have_handled(&mut self, bytes: usize, wire: &mut Vec<u8>) {
        self.handled += bytes as u64;
        self.answer(wire);
    }

    /// Whether the reply to a request is still to come. Said before the request can be answered.
    pub(crate) fn set_waiting(&mut self, is_waiting: bool, wire: &mut Vec<u8>) {
        self.is_waiting = is_waiting;
        self.answer(wire);
    }

    /// Adds reply lines, whole ones, to the answer.
    pub(crate) fn reply(&mut self, wire: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.lines);
        if self.lines.len() >= PART_BYTES {
            self.push_part(false, wire);
        }
    }

    /// Ends the answers to messages of which everything has been answered.
    fn answer(&mut self, wire: &mut Vec<u8>) {
        while !self.is_waiting && self.ends.pop_front_if(|end| *end <= self.handled).is_some() {
            self.push_part(true, wire);
            self.sent = None;
        }
    }

    /// Appends what there is of the answer as a frame: a text if it is UTF-8, as nearly all are, else binary. What
    /// has begun as a text goes on as one, whatever is in it, since a client ends the connection otherwise.
    fn push_part(&mut self, is_last: bool, wire: &mut Vec<u8>) {
        let kind = if str::from_utf8(&self.lines).is_ok() { Data::Text } else { Data::Binary };
        match self.sent {
            None => push_frame(wire, OpCode::Data(kind), is_last, &self.lines),
            Some(Data::Text) if kind == Data::Binary => {
                let text = String::from_utf8_lossy(&self.lines);
                push_frame(wire, OpCode::Data(Data::Continue), is_last, text.as_bytes());
            }
            Some(_) => push_frame(wire, OpCode::Data(Data::Continue), is_last, &self.lines),
        }
        self.sent.get_or_insert(kind);
        self.lines.clear();
        self.lines.shrink_to(KEEP_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: u8 = 0x81;
    const BINARY: u8 = 0x82;

    /// Short frames, one after the other.
    fn frames(frames: &[(u8, &[u8])]) -> Vec<u8> {
        let frame = |&(first, payload): &(u8, &[u8])| {
            [&[first, u8::try_from(payload.len()).unwrap()][..], payload].concat()
        };
        frames.iter().flat_map(frame).collect()
    }

    fn say(exchange: &mut Exchange, out: &mut Vec<u8>, line: &[u8]) {
        exchange.reply(out, |lines| lines.extend_from_slice(line));
    }

    #[test]
    fn the_replies_to_a_message_are_one() {
        let (mut exchange, mut out) = (Exchange::default(), Vec::new());
        // Three messages have come: of two requests, of one that says nothing, of one whose reply is no text.
        exchange.have_ended([8, 12, 16], &mut out).unwrap();
        say(&mut exchange, &mut out, b"1 a\r\n");
        exchange.have_handled(4, &mut out);
        assert_eq!(out, b"");
        say(&mut exchange, &mut out, b"0 b\r\n");
        exchange.have_handled(4, &mut out);
        assert_eq!(out, frames(&[(TEXT, b"1 a\r\n0 b\r\n")]));
        exchange.have_handled(4, &mut out);
        say(&mut exchange, &mut out, b"1 \xff\r\n");
        exchange.have_handled(4, &mut out);
        assert_eq!(out, frames(&[(TEXT, b"1 a\r\n0 b\r\n"), (TEXT, b""), (BINARY, b"1 \xff\r\n")]));
    }

    #[test]
    fn a_message_is_answered_once_its_end_has_come() {
        let (mut exchange, mut out) = (Exchange::default(), Vec::new());
        say(&mut exchange, &mut out, b"1 a\r\n");
        exchange.have_handled(4, &mut out);
        exchange.have_ended([6], &mut out).unwrap();
        assert_eq!(out, b"");
        exchange.have_handled(2, &mut out);
        assert_eq!(out, frames(&[(TEXT, b"1 a\r\n")]));
        say(&mut exchange, &mut out, b"1 b\r\n");
        exchange.have_handled(4, &mut out);
        exchange.have_ended([10], &mut out).unwrap();
        assert_eq!(out, frames(&[(TEXT, b"1 a\r\n"), (TEXT, b"1 b\r\n")]));
    }

    /// The thread that grants the lock may be quicker than the thread that asked for it.
    #[test]
    fn a_reply_that_is_to_come_is_waited_for() {
        for is_early in [false, true] {
            let (mut exchange, mut out) = (Exchange::default(), Vec::new());
            exchange.have_ended([4, 8], &mut out).unwrap();
            exchange.set_waiting(true, &mut out);
            if !is_early {
                exchange.have_handled(4, &mut out);
            }
            say(&mut exchange, &mut out, b"1 a\r\n");
            assert_eq!(out, b"");
            exchange.set_waiting(false, &mut out);
            if is_early {
                assert_eq!(out, b"");
                exchange.have_handled(4, &mut out);
            }
            assert_eq!(out, frames(&[(TEXT, b"1 a\r\n")]));
        }
    }

    #[test]
    fn a_long_answer_is_a_message_in_several_frames() {
        let (mut exchange, mut out) = (Exchange::default(), Vec::new());
        let line = [vec![b'x'; PART_BYTES - 1], b"\n".to_vec()].concat();
        say(&mut exchange, &mut out, &line);
        say(&mut exchange, &mut out, &line);
        say(&mut exchange, &mut out, b"\xff\n");
        let head = |first: u8| [&[first, 127][..], &(PART_BYTES as u64).to_be_bytes()].concat();
        assert_eq!(out, [head(0x01), line.clone(), head(0x00), line].concat());
        out.clear();
        exchange.have_ended([4], &mut out).unwrap();
        exchange.have_handled(4, &mut out);
        assert_eq!(out, frames(&[(0x80, "\u{fffd}\n".as_bytes())]));
        out.clear();
        exchange.have_ended([8], &mut out).unwrap();
        exchange.have_handled(4, &mut out);
        assert_eq!(out, frames(&[(TEXT, b"")]), "the next one begins anew");
    }

    #[test]
    fn what_follows_a_request_that_waits_has_a_limit() {
        let (mut exchange, mut out) = (Exchange::default(), Vec::new());
        exchange.set_waiting(true, &mut out);
        assert!(exchange.have_ended(1..=MESSAGES_MAX as u64, &mut out).is_ok());
        assert!(exchange.have_ended([MESSAGES_MAX as u64 + 1], &mut out).is_err());
    }
}

//! Assembles reply lines into WebSocket messages. Each message of the client is answered by exactly
//! one message, which has the reply lines of all its requests and is empty if there are none. So a
//! client that reads one message for each that it has sent knows what a reply belongs to. Knows
//! lines as bytes, and nothing about their meaning.

use std::collections::VecDeque;

use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::wire::websocket::frames::push_frame;
use crate::wire::websocket::{AssemblerSnapshot, POSITION_MAX, Violation};

/// A longer answer is sent in several frames of one message, so that no more than this is buffered.
/// The limit is high because some simple clients mistake each frame for a message.
const PART_BYTES: usize = 256 << 10;
/// The most messages that may follow a request that waits.
const MESSAGES_MAX: usize = 32 << 10;
/// The size of the buffer that is kept between two messages.
const KEEP_BYTES: usize = 4096;

/// The replies of one connection that are not sent yet. "Answer" is the message that answers one
/// message of the client.
#[derive(Default)]
pub(crate) struct ReplyAssembler {
    /// The ends of the client's messages that are not answered yet, the oldest first. Positions
    /// count bytes of lines since the start of the connection.
    ends: VecDeque<u64>,
    /// The number of bytes of lines that have been handled.
    handled: u64,
    /// Whether the reply to a request that has been handled is still to come.
    is_waiting: bool,
    /// The reply lines of the current answer that are not sent yet.
    lines: Vec<u8>,
    /// The kind of the current answer, if a part of it has been sent.
    sent: Option<Data>,
}

impl ReplyAssembler {
    /// An assembler for a new connection; `None` only in a build without WebSocket.
    pub(crate) fn new() -> Option<Self> {
        Some(Self::default())
    }

    /// Its state.
    pub(crate) fn snapshot(&self) -> AssemblerSnapshot {
        AssemblerSnapshot {
            ends: self.ends.iter().copied().collect(),
            handled: self.handled,
            is_waiting: self.is_waiting,
            lines: self.lines.clone(),
            sent_as_text: self.sent.map(|kind| kind == Data::Text),
        }
    }

    /// One that goes on from there.
    ///
    /// # Errors
    /// If that is no state of an assembler.
    pub(crate) fn restore(snapshot: AssemblerSnapshot) -> Result<Self, &'static str> {
        let AssemblerSnapshot { ends, handled, is_waiting, lines, sent_as_text } = snapshot;
        if handled > POSITION_MAX || !ends.is_sorted() || ends.len() > MESSAGES_MAX {
            return Err("ends of messages out of order, or too many");
        }
        let sent = sent_as_text.map(|is_text| if is_text { Data::Text } else { Data::Binary });
        Ok(Self { ends: ends.into(), handled, is_waiting, lines, sent })
    }

    /// Notes that messages of the client have ended at these positions, which count bytes of lines
    /// since the start of the connection.
    ///
    /// # Errors
    ///
    /// If too many messages follow a request that waits.
    pub(crate) fn messages_ended(
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

    /// Notes that `bytes` more bytes of lines have been handled. Their replies have been added,
    /// except the reply to a request that waits.
    pub(crate) fn lines_handled(&mut self, bytes: usize, wire: &mut Vec<u8>) {
        self.handled += bytes as u64;
        self.answer(wire);
    }

    /// Notes whether the reply to a request is still to come. Must be called with `true` before any
    /// thread can reply to the request.
    pub(crate) fn set_waiting(&mut self, is_waiting: bool, wire: &mut Vec<u8>) {
        self.is_waiting = is_waiting;
        self.answer(wire);
    }

    /// Adds complete reply lines to the answer.
    pub(crate) fn reply(&mut self, wire: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.lines);
        if self.lines.len() >= PART_BYTES {
            self.push_part(false, wire);
        }
    }

    /// Sends the answers to all messages whose requests have been answered.
    fn answer(&mut self, wire: &mut Vec<u8>) {
        while !self.is_waiting && self.ends.pop_front_if(|end| *end <= self.handled).is_some() {
            self.push_part(true, wire);
            self.sent = None;
        }
    }

    /// Appends the buffered lines of the answer as a frame. An answer is text if it is UTF-8, as
    /// nearly all are, else binary. If an answer has begun as text, later parts are made UTF-8,
    /// because a client would end the connection otherwise.
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
    use crate::wire::changed_leaves::for_each_changed_leaf;

    const TEXT: u8 = 0x81;
    const BINARY: u8 = 0x82;

    /// Short frames, one after the other.
    fn frames(frames: &[(u8, &[u8])]) -> Vec<u8> {
        let frame = |&(first, payload): &(u8, &[u8])| {
            [&[first, u8::try_from(payload.len()).unwrap()][..], payload].concat()
        };
        frames.iter().flat_map(frame).collect()
    }

    fn reply(assembler: &mut ReplyAssembler, out: &mut Vec<u8>, line: &[u8]) {
        assembler.reply(out, |lines| lines.extend_from_slice(line));
    }

    #[test]
    fn all_replies_to_a_message_are_in_one_message() {
        let (mut assembler, mut out) = (ReplyAssembler::default(), Vec::new());
        // Three messages have come. The first has two requests, the second has one that gets no
        // reply, the third has one whose reply is not UTF-8.
        assembler.messages_ended([8, 12, 16], &mut out).unwrap();
        reply(&mut assembler, &mut out, b"1 a\r\n");
        assembler.lines_handled(4, &mut out);
        assert_eq!(out, b"");
        reply(&mut assembler, &mut out, b"0 b\r\n");
        assembler.lines_handled(4, &mut out);
        assert_eq!(out, frames(&[(TEXT, b"1 a\r\n0 b\r\n")]));
        assembler.lines_handled(4, &mut out);
        reply(&mut assembler, &mut out, b"1 \xff\r\n");
        assembler.lines_handled(4, &mut out);
        assert_eq!(out, frames(&[(TEXT, b"1 a\r\n0 b\r\n"), (TEXT, b""), (BINARY, b"1 \xff\r\n")]));
    }

    #[test]
    fn a_message_is_answered_once_its_end_has_arrived() {
        let (mut assembler, mut out) = (ReplyAssembler::default(), Vec::new());
        reply(&mut assembler, &mut out, b"1 a\r\n");
        assembler.lines_handled(4, &mut out);
        assembler.messages_ended([6], &mut out).unwrap();
        assert_eq!(out, b"");
        assembler.lines_handled(2, &mut out);
        assert_eq!(out, frames(&[(TEXT, b"1 a\r\n")]));
        reply(&mut assembler, &mut out, b"1 b\r\n");
        assembler.lines_handled(4, &mut out);
        assembler.messages_ended([10], &mut out).unwrap();
        assert_eq!(out, frames(&[(TEXT, b"1 a\r\n"), (TEXT, b"1 b\r\n")]));
    }

    /// The thread that grants the lock may be faster than the thread that asked for it.
    #[test]
    fn a_message_with_a_waiting_request_is_answered_after_the_wait() {
        for is_early in [false, true] {
            let (mut assembler, mut out) = (ReplyAssembler::default(), Vec::new());
            assembler.messages_ended([4, 8], &mut out).unwrap();
            assembler.set_waiting(true, &mut out);
            if !is_early {
                assembler.lines_handled(4, &mut out);
            }
            reply(&mut assembler, &mut out, b"1 a\r\n");
            assert_eq!(out, b"");
            assembler.set_waiting(false, &mut out);
            if is_early {
                assert_eq!(out, b"");
                assembler.lines_handled(4, &mut out);
            }
            assert_eq!(out, frames(&[(TEXT, b"1 a\r\n")]));
        }
    }

    #[test]
    fn a_long_answer_is_one_message_in_several_frames() {
        let (mut assembler, mut out) = (ReplyAssembler::default(), Vec::new());
        let line = [vec![b'x'; PART_BYTES - 1], b"\n".to_vec()].concat();
        reply(&mut assembler, &mut out, &line);
        reply(&mut assembler, &mut out, &line);
        reply(&mut assembler, &mut out, b"\xff\n");
        let head = |first: u8| [&[first, 127][..], &(PART_BYTES as u64).to_be_bytes()].concat();
        assert_eq!(out, [head(0x01), line.clone(), head(0x00), line].concat());
        out.clear();
        assembler.messages_ended([4], &mut out).unwrap();
        assembler.lines_handled(4, &mut out);
        assert_eq!(out, frames(&[(0x80, "\u{fffd}\n".as_bytes())]));
        out.clear();
        assembler.messages_ended([8], &mut out).unwrap();
        assembler.lines_handled(4, &mut out);
        assert_eq!(out, frames(&[(TEXT, b"")]), "the next answer is a new message");
    }

    #[test]
    fn replies_go_on_wherever_they_are_interrupted() {
        type Step = fn(&mut ReplyAssembler, &mut Vec<u8>);
        let steps: [Step; 9] = [
            |assembler, out| assembler.messages_ended([8, 12], out).unwrap(),
            |assembler, out| reply(assembler, out, b"1 a\r\n"),
            |assembler, out| reply(assembler, out, &[b'x'; PART_BYTES]),
            |assembler, out| reply(assembler, out, b"1 \xff\r\n"),
            |assembler, out| assembler.lines_handled(8, out),
            |assembler, out| assembler.set_waiting(true, out),
            |assembler, out| assembler.lines_handled(4, out),
            |assembler, out| reply(assembler, out, b"1 b\r\n"),
            |assembler, out| assembler.set_waiting(false, out),
        ];
        let mut whole = Vec::new();
        let mut assembler = ReplyAssembler::default();
        steps.iter().for_each(|step| step(&mut assembler, &mut whole));
        for at in 0..=steps.len() {
            let (mut assembler, mut out) = (ReplyAssembler::default(), Vec::new());
            steps[..at].iter().for_each(|step| step(&mut assembler, &mut out));
            let snapshot = assembler.snapshot();
            let read = serde_json::from_str(&serde_json::to_string(&snapshot).unwrap()).unwrap();
            let mut restored = ReplyAssembler::restore(read).unwrap();
            assert_eq!(restored.snapshot(), snapshot);
            for_each_changed_leaf(&snapshot, |changed: AssemblerSnapshot| {
                if let Ok(restored) = ReplyAssembler::restore(changed.clone()) {
                    assert_eq!(restored.snapshot(), changed);
                }
            });
            steps[at..].iter().for_each(|step| step(&mut restored, &mut out));
            assert!(out == whole, "interrupted before step {at}");
        }
    }

    #[test]
    fn the_messages_after_a_request_that_waits_have_a_limit() {
        let (mut assembler, mut out) = (ReplyAssembler::default(), Vec::new());
        assembler.set_waiting(true, &mut out);
        assert!(assembler.messages_ended(1..=MESSAGES_MAX as u64, &mut out).is_ok());
        assert!(assembler.messages_ended([MESSAGES_MAX as u64 + 1], &mut out).is_err());
    }
}

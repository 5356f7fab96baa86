//! Frames: what comes in them becomes lines, and control frames are answered.
//!
//! A message from the client carries one line or several; where it ends, a line ends, with a newline or
//! without; an empty message is an empty line. Which replies make a message to the client is for
//! [`Exchange`](super::Exchange) to say. Nothing is kept but a frame's header, the little that control frames
//! have, and where messages end: their length is the lines' concern.

use std::io::Cursor;
use std::str;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use crate::wire::websocket::{Heard, Violation};

/// The longest header of a frame.
const HEADER_BYTES_MAX: usize = 14;
/// The longest payload of a control frame.
const CONTROL_BYTES_MAX: u64 = 125;
/// The longest character of UTF-8.
const CHARACTER_BYTES_MAX: usize = 4;

/// A frame of which not everything has come.
struct Frame {
    opcode: OpCode,
    is_final: bool,
    mask: [u8; 4],
    /// How much of its payload has come.
    come: usize,
    left: u64,
}

/// A message that has begun and not ended.
struct Message {
    is_text: bool,
    /// The beginning of a character whose rest stands in what comes next.
    character: Vec<u8>,
    /// Whether something follows its last newline, or it is empty: then its end ends a line.
    is_in_line: bool,
}

/// The server's side of one WebSocket.
#[derive(Default)]
pub(crate) struct WebSocket {
    /// The beginning of a header.
    header: Vec<u8>,
    frame: Option<Frame>,
    message: Option<Message>,
    /// How many bytes of lines have come of it.
    lines_bytes: u64,
    /// Where messages have ended, in the same count, since [`message_ends`](Self::message_ends) was called last.
    ends: Vec<u64>,
    /// The payload of a control frame as far as it has come.
    control: Vec<u8>,
    /// What the last ping asked to have back.
    pong: Option<Vec<u8>>,
    /// How the end is to be put, if not as usual.
    close: Option<u16>,
    has_ended: bool,
}

impl WebSocket {
    /// One that has just begun.
    pub(crate) fn new() -> Option<Self> {
        Some(Self::default())
    }

    /// Takes in bytes from the wire, and appends the lines in them.
    pub(crate) fn decode(&mut self, mut wire: &[u8], lines: &mut Vec<u8>) -> Result<Heard, Violation> {
        loop {
            let heard = self.take_some(&mut wire, lines);
            if let Err(Violation(_)) = heard {
                self.close.get_or_insert(CloseCode::Protocol.into());
            }
            if let Some(heard) = heard? {
                return Ok(heard);
            }
        }
    }

    /// Takes in a header, or some of a payload; `Some` if there is nothing more to be done.
    fn take_some(&mut self, wire: &mut &[u8], lines: &mut Vec<u8>) -> Result<Option<Heard>, Violation> {
        let Some(frame) = &mut self.frame else {
            let frame = self.take_header(wire)?;
            if frame.is_none() {
                return Ok(Some(Heard::More));
            }
            self.frame = frame;
            return Ok(None);
        };
        let count = usize::try_from(frame.left).map_or(wire.len(), |left| left.min(wire.len()));
        let (payload, rest) = wire.split_at(count);
        *wire = rest;
        let (come, mask) = (frame.come, frame.mask);
        let unmasked = payload.iter().enumerate().map(|(at, byte)| byte ^ mask[(come + at) % mask.len()]);
        frame.left -= count as u64;
        // Only where it stands within the mask counts.
        frame.come = (come + count) % mask.len();
        let is_whole = frame.left == 0;
        match (frame.opcode, &mut self.message) {
            (OpCode::Data(_), Some(message)) => {
                let start = lines.len();
                lines.extend(unmasked);
                self.lines_bytes += count as u64;
                let added = lines.get(start..).unwrap_or_default();
                if let Err(violation) = message.check(added) {
                    self.close = Some(CloseCode::Invalid.into());
                    return Err(violation);
                }
            }
            _ => self.control.extend(unmasked),
        }
        if !is_whole {
            return Ok(Some(Heard::More));
        }
        self.end_frame(lines)
    }

    /// The next frame's header, once it is whole.
    fn take_header(&mut self, wire: &mut &[u8]) -> Result<Option<Frame>, Violation> {
        let before = self.header.len();
        let more = wire.get(..wire.len().min(HEADER_BYTES_MAX - before)).unwrap_or_default();
        self.header.extend_from_slice(more);
        let mut cursor = Cursor::new(&self.header);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Violation("a reserved kind of frame"))?;
        let Some((header, left)) = parsed else {
            *wire = &[];
            return Ok(None);
        };
        let length = usize::try_from(cursor.position()).unwrap_or(before);
        *wire = wire.get(length.saturating_sub(before)..).unwrap_or_default();
        self.header.clear();
        let Some(mask) = header.mask else { return Err(Violation("a frame without a mask")) };
        if header.rsv1 || header.rsv2 || header.rsv3 || left > i64::MAX as u64 {
            return Err(Violation("a reserved bit of a frame"));
        }
        match (header.opcode, &self.message) {
            (OpCode::Control(_), _) if !header.is_final || left > CONTROL_BYTES_MAX => {
                return Err(Violation("a control frame that is too long or in pieces"));
            }
            (OpCode::Control(_), _) | (OpCode::Data(Data::Continue), Some(_)) => {}
            (OpCode::Data(Data::Continue), None) => return Err(Violation("the rest of no message")),
            (OpCode::Data(_), Some(_)) => return Err(Violation("a message within another one")),
            (OpCode::Data(kind), None) => {
                let is_text = kind == Data::Text;
                self.message = Some(Message { is_text, character: Vec::new(), is_in_line: true });
            }
        }
        Ok(Some(Frame { opcode: header.opcode, is_final: header.is_final, mask, come: 0, left }))
    }

    /// All of a frame has come.
    fn end_frame(&mut self, lines: &mut Vec<u8>) -> Result<Option<Heard>, Violation> {
        let Some(frame) = self.frame.take() else { return Ok(None) };
        match frame.opcode {
            OpCode::Data(_) if frame.is_final => {
                let Some(message) = self.message.take() else { return Ok(None) };
                if !message.character.is_empty() {
                    self.close = Some(CloseCode::Invalid.into());
                    return Err(NOT_UTF8);
                }
                if message.is_in_line {
                    lines.push(b'\n');
                    self.lines_bytes += 1;
                }
                self.ends.push(self.lines_bytes);
            }
            OpCode::Control(Control::Ping) => self.pong = Some(std::mem::take(&mut self.control)),
            OpCode::Control(Control::Close) => {
                self.close = Some(close_code(&self.control)?);
                return Ok(Some(Heard::Close));
            }
            OpCode::Control(_) => self.control.clear(),
            OpCode::Data(_) => {}
        }
        Ok(None)
    }

    /// Where messages have ended that have been taken in since this was asked last: counted in bytes of lines from
    /// the first.
    pub(crate) fn message_ends(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.ends)
    }

    /// Whether there is something to be put out that no reply is.
    pub(crate) fn control_pending(&self) -> bool {
        self.pong.is_some() && !self.has_ended
    }

    /// Appends the pong that is due, if any, and then these frames to `wire`.
    pub(crate) fn encode(&mut self, frames: &[u8], wire: &mut Vec<u8>) {
        if let Some(pong) = self.pong.take() {
            push_frame(wire, OpCode::Control(Control::Pong), true, &pong);
        }
        wire.extend_from_slice(frames);
    }

    /// Appends the word that this side sends no more.
    pub(crate) fn end(&mut self, wire: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.has_ended, true) {
            let code = self.close.unwrap_or(CloseCode::Normal.into());
            push_frame(wire, OpCode::Control(Control::Close), true, &code.to_be_bytes());
        }
    }
}

const NOT_UTF8: Violation = Violation("a text that is not UTF-8");

impl Message {
    /// Notes what has come of it; a text must be UTF-8, wherever it was cut.
    fn check(&mut self, mut added: &[u8]) -> Result<(), Violation> {
        let Some(last) = added.last() else { return Ok(()) };
        self.is_in_line = *last != b'\n';
        if !self.is_text {
            return Ok(());
        }
        while !self.character.is_empty() {
            let Some((first, rest)) = added.split_first() else { return Ok(()) };
            added = rest;
            self.character.push(*first);
            match str::from_utf8(&self.character) {
                Ok(_) => self.character.clear(),
                Err(error) if error.error_len().is_none() && self.character.len() < CHARACTER_BYTES_MAX => {}
                Err(_) => return Err(NOT_UTF8),
            }
        }
        match str::from_utf8(added) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_none() => {
                self.character.extend_from_slice(added.get(error.valid_up_to()..).unwrap_or_default());
                Ok(())
            }
            Err(_) => Err(NOT_UTF8),
        }
    }
}

/// What a client that closed like this is answered.
fn close_code(payload: &[u8]) -> Result<u16, Violation> {
    match payload {
        [] => Ok(CloseCode::Normal.into()),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            match CloseCode::from(code).is_allowed() && str::from_utf8(reason).is_ok() {
                true => Ok(code),
                false => Err(Violation("an end without sense")),
            }
        }
        [_] => Err(Violation("an end without sense")),
    }
}

pub(super) fn push_frame(wire: &mut Vec<u8>, opcode: OpCode, is_final: bool, payload: &[u8]) {
    let header = FrameHeader { opcode, is_final, ..FrameHeader::default() };
    // Into memory: it cannot fail.
    let _ = header.format(payload.len() as u64, wire);
    wire.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: u8 = 0x81;
    const BINARY: u8 = 0x82;
    const FIRST: u8 = 0x01;
    const MIDDLE: u8 = 0x00;
    const LAST: u8 = 0x80;
    const CLOSE: u8 = 0x88;
    const PING: u8 = 0x89;
    const PONG: u8 = 0x8a;

    /// A frame as a client sends it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x11, 0xa2, 0x37, 0xff];
        let mut out = vec![first];
        match payload.len() {
            short @ 0..126 => out.push(0x80 | u8::try_from(short).unwrap()),
            long @ 126..65536 => {
                out.push(0x80 | 126);
                out.extend(u16::try_from(long).unwrap().to_be_bytes());
            }
            long => {
                out.push(0x80 | 127);
                out.extend((long as u64).to_be_bytes());
            }
        }
        out.extend(mask);
        out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        out
    }

    /// What comes of these bytes, taken in so many at a time: the lines, and what was put out of its own.
    fn hear(bytes: &[u8], size: usize) -> (Result<Heard, Violation>, Vec<u8>, Vec<u8>) {
        let (mut socket, mut lines, mut out) = (WebSocket::default(), Vec::new(), Vec::new());
        let mut heard = Ok(Heard::More);
        for piece in bytes.chunks(size) {
            heard = socket.decode(piece, &mut lines);
            if heard != Ok(Heard::More) {
                socket.end(&mut out);
                break;
            }
        }
        socket.encode(&[], &mut out);
        (heard, lines, out)
    }

    #[test]
    fn lines_come_out_of_messages_however_they_are_cut() {
        let long = vec![b'x'; 70_000];
        let stream = [
            frame(TEXT, b"g a\nr a\n"),
            frame(TEXT, b"i a"),
            frame(TEXT, b""),
            frame(TEXT, b"\n"),
            frame(FIRST, b""),
            frame(LAST, b""),
            frame(FIRST, "g \u{fc}".as_bytes()[..3].into()),
            frame(PING, b"?"),
            frame(MIDDLE, &"g \u{fc}".as_bytes()[3..]),
            frame(LAST, b" b"),
            frame(BINARY, b"g \xff"),
            frame(PONG, b"unasked"),
            frame(BINARY, &[b'y'; 300]),
            frame(TEXT, &long),
        ]
        .concat();
        let expected =
            ["g a\nr a\ni a\n\n\n\ng \u{fc} b\ng ".as_bytes(), b"\xff\n", &[b'y'; 300], b"\n", &long, b"\n"]
                .concat();
        for size in [1, 2, 3, 5, 7, 13, 100, 4096, stream.len()] {
            let (heard, lines, out) = hear(&stream, size);
            assert_eq!((heard, lines == expected), (Ok(Heard::More), true), "{size}");
            assert_eq!(out, [PONG, 1, b'?']);
        }
    }

    #[test]
    fn what_breaks_the_rules_is_told_by_the_code_for_it() {
        let unmasked = vec![TEXT, 1, b'x'];
        let huge = [&[TEXT, 0xff][..], &[0xff; 8], &[0; 4]].concat();
        for (bytes, code) in [
            (unmasked, 1002),
            (frame(0xc1, b"x"), 1002),
            (frame(0x83, b"x"), 1002),
            (frame(0x8b, b"x"), 1002),
            (frame(0x09, b"x"), 1002),
            (frame(PING, &[0; 126]), 1002),
            (frame(LAST, b"x"), 1002),
            ([frame(FIRST, b"x"), frame(TEXT, b"x")].concat(), 1002),
            (huge, 1002),
            (frame(TEXT, b"g \xff"), 1007),
            (frame(TEXT, b"g \xc3"), 1007),
            ([frame(FIRST, b"\xe2\x82"), frame(LAST, b"x")].concat(), 1007),
            (frame(TEXT, b"\xed\xa0\x80"), 1007),
            (frame(CLOSE, b"x"), 1002),
            (frame(CLOSE, &1005_u16.to_be_bytes()), 1002),
            (frame(CLOSE, b"\x03\xe8\xff"), 1002),
        ] {
            for size in [1, bytes.len()] {
                let (heard, _, out) = hear(&bytes, size);
                assert!(heard.is_err(), "{bytes:?}");
                assert_eq!(out, [&[CLOSE, 2][..], &u16::to_be_bytes(code)].concat(), "{bytes:?}");
            }
        }
    }

    #[test]
    fn an_end_is_answered_in_kind_and_nothing_behind_it_is_heard() {
        for (payload, code) in [(&b""[..], 1000_u16), (b"\x03\xe9bye", 1001), (b"\x0f\xa0", 4000)] {
            let stream = [frame(TEXT, b"g a"), frame(CLOSE, payload), frame(TEXT, b"g b")].concat();
            let (heard, lines, out) = hear(&stream, stream.len());
            assert_eq!((heard, lines.as_slice()), (Ok(Heard::Close), &b"g a\n"[..]));
            assert_eq!(out, [&[CLOSE, 2][..], &code.to_be_bytes()].concat());
        }
    }

    #[test]
    fn it_is_said_where_messages_end() {
        let stream = [
            frame(TEXT, b"g a\nr a\n"),
            frame(TEXT, b""),
            frame(FIRST, b"g "),
            frame(PING, b"?"),
            frame(MIDDLE, b"b\n"),
            frame(LAST, b""),
            frame(BINARY, b"g \xff"),
        ]
        .concat();
        for size in [1, 7, stream.len()] {
            let (mut socket, mut lines, mut ends) = (WebSocket::default(), Vec::new(), Vec::new());
            for piece in stream.chunks(size) {
                assert_eq!(socket.decode(piece, &mut lines), Ok(Heard::More));
                ends.extend(socket.message_ends());
            }
            assert_eq!(lines, b"g a\nr a\n\ng b\ng \xff\n");
            assert_eq!(ends, [8, 9, 13, 17], "{size}");
        }
    }
}

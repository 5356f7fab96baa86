//! WebSocket frames: turns the client's messages into lines, and answers control frames.
//!
//! A message from the client contains one line or several. Its end also ends a line, with or
//! without a newline; an empty message is an empty line. [`ReplyAssembler`](super::ReplyAssembler)
//! makes the messages to the client. This module buffers only headers, control frames and the ends
//! of messages, so a message may be of any length; the reader of the lines limits the length of
//! each line.

mod snapshot;

use std::io::Cursor;
use std::str;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use crate::wire::websocket::Violation;

/// The longest header of a frame.
const HEADER_BYTES_MAX: usize = 14;
/// The longest payload of a control frame.
const CONTROL_BYTES_MAX: u64 = 125;
/// The longest character of UTF-8.
const CHARACTER_BYTES_MAX: usize = 4;

/// A frame whose payload has not arrived completely.
struct IncomingFrame {
    opcode: OpCode,
    is_final: bool,
    mask: [u8; 4],
    /// The index in the mask for the next byte of the payload.
    mask_index: usize,
    /// The number of bytes of the payload that have not arrived.
    bytes_left: u64,
}

/// A message that has begun but not ended.
struct IncomingMessage {
    is_text: bool,
    /// The first bytes of a character whose other bytes have not arrived.
    character: Vec<u8>,
    /// Whether the message is empty or does not end with a newline, so that its end must end a
    /// line.
    is_in_line: bool,
}

/// The server's side of one WebSocket.
#[derive(Default)]
pub(crate) struct WebSocket {
    /// The first bytes of a header that has not arrived completely.
    header: Vec<u8>,
    frame: Option<IncomingFrame>,
    message: Option<IncomingMessage>,
    /// The number of bytes of lines that have been decoded since the start of the connection.
    lines_bytes: u64,
    /// The ends of the messages since the last call of [`message_ends`](Self::message_ends), as
    /// values of `lines_bytes`.
    ends: Vec<u64>,
    /// The part of a control frame's payload that has arrived.
    control: Vec<u8>,
    /// The payload of the last ping that has not been answered.
    pong: Option<Vec<u8>>,
    /// The code of our close frame, if it is not the normal one.
    close: Option<u16>,
    /// Whether our close frame has been written.
    has_ended: bool,
}

impl WebSocket {
    /// The state of a new connection; `None` only in a build without WebSocket.
    pub(crate) fn new() -> Option<Self> {
        Some(Self::default())
    }

    /// Reads bytes from the wire, and appends the lines in them. Returns true once the client has
    /// sent a close frame; the bytes after it are ignored.
    ///
    /// # Errors
    ///
    /// If the client violates the protocol. [`end`](Self::end) then writes a close frame that says
    /// how.
    pub(crate) fn decode(&mut self, mut wire: &[u8], lines: &mut Vec<u8>) -> Result<bool, Violation> {
        loop {
            let step = self.decode_step(&mut wire, lines);
            if step.is_err() {
                self.close.get_or_insert(CloseCode::Protocol.into());
            }
            if let Some(is_closed) = step? {
                return Ok(is_closed);
            }
        }
    }

    /// Reads a header or a part of a payload. `None` if there may be more to read; else whether the
    /// client has sent a close frame.
    fn decode_step(&mut self, wire: &mut &[u8], lines: &mut Vec<u8>) -> Result<Option<bool>, Violation> {
        let Some(frame) = &mut self.frame else {
            self.frame = self.decode_header(wire)?;
            return Ok(self.frame.is_none().then_some(false));
        };
        let count = usize::try_from(frame.bytes_left).map_or(wire.len(), |left| left.min(wire.len()));
        let (payload, rest) = wire.split_at(count);
        *wire = rest;
        let (start, mask) = (frame.mask_index, frame.mask);
        let unmasked = payload.iter().enumerate().map(|(at, byte)| byte ^ mask[(start + at) % mask.len()]);
        frame.bytes_left -= count as u64;
        frame.mask_index = (start + count) % mask.len();
        let is_complete = frame.bytes_left == 0;
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
        if is_complete { self.end_frame(lines) } else { Ok(Some(false)) }
    }

    /// Reads the next frame's header; `None` if it is not complete.
    fn decode_header(&mut self, wire: &mut &[u8]) -> Result<Option<IncomingFrame>, Violation> {
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
            (OpCode::Data(Data::Continue), None) => {
                return Err(Violation("a continuation without a message"));
            }
            (OpCode::Data(_), Some(_)) => return Err(Violation("a message inside another message")),
            (OpCode::Data(kind), None) => {
                let is_text = kind == Data::Text;
                self.message = Some(IncomingMessage { is_text, character: Vec::new(), is_in_line: true });
            }
        }
        let FrameHeader { opcode, is_final, .. } = header;
        Ok(Some(IncomingFrame { opcode, is_final, mask, mask_index: 0, bytes_left: left }))
    }

    /// Handles a frame whose payload is complete. The result is that of `decode_step`.
    fn end_frame(&mut self, lines: &mut Vec<u8>) -> Result<Option<bool>, Violation> {
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
                return Ok(Some(true));
            }
            OpCode::Control(_) => self.control.clear(),
            OpCode::Data(_) => {}
        }
        Ok(None)
    }

    /// Takes the ends of the messages that were decoded since the last call. They count bytes of
    /// lines since the start of the connection.
    pub(crate) fn message_ends(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.ends)
    }

    /// Whether a control frame is to be sent.
    pub(crate) fn control_pending(&self) -> bool {
        self.pong.is_some() && !self.has_ended
    }

    /// Appends the pong that is due, if any, and then these complete frames.
    pub(crate) fn encode(&mut self, frames: &[u8], wire: &mut Vec<u8>) {
        if let Some(pong) = self.pong.take() {
            push_frame(wire, OpCode::Control(Control::Pong), true, &pong);
        }
        wire.extend_from_slice(frames);
    }

    /// Appends a close frame. Later calls do nothing.
    pub(crate) fn end(&mut self, wire: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.has_ended, true) {
            let code = self.close.unwrap_or(CloseCode::Normal.into());
            push_frame(wire, OpCode::Control(Control::Close), true, &code.to_be_bytes());
        }
    }
}

const NOT_UTF8: Violation = Violation("a text that is not UTF-8");

impl IncomingMessage {
    /// Notes the next bytes of the message. The bytes of a text must be UTF-8, but a character may
    /// be split between two calls.
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

/// The code with which a close frame with this payload is answered.
fn close_code(payload: &[u8]) -> Result<u16, Violation> {
    match payload {
        [] => Ok(CloseCode::Normal.into()),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            match CloseCode::from(code).is_allowed() && str::from_utf8(reason).is_ok() {
                true => Ok(code),
                false => Err(Violation("an invalid close frame")),
            }
        }
        [_] => Err(Violation("an invalid close frame")),
    }
}

pub(super) fn push_frame(wire: &mut Vec<u8>, opcode: OpCode, is_final: bool, payload: &[u8]) {
    let header = FrameHeader { opcode, is_final, ..FrameHeader::default() };
    // Writing to memory cannot fail.
    let _ = header.format(payload.len() as u64, wire);
    wire.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const TEXT: u8 = 0x81;
    pub(super) const BINARY: u8 = 0x82;
    pub(super) const FIRST: u8 = 0x01;
    pub(super) const MIDDLE: u8 = 0x00;
    pub(super) const LAST: u8 = 0x80;
    pub(super) const CLOSE: u8 = 0x88;
    pub(super) const PING: u8 = 0x89;
    pub(super) const PONG: u8 = 0x8a;

    /// A frame as a client sends it.
    pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
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

    /// Decodes these bytes in pieces of `size`. Returns the result, the lines, and the control
    /// frames that were written.
    fn decode(bytes: &[u8], size: usize) -> (Result<bool, Violation>, Vec<u8>, Vec<u8>) {
        let (mut socket, mut lines, mut out) = (WebSocket::default(), Vec::new(), Vec::new());
        let mut closed = Ok(false);
        for piece in bytes.chunks(size) {
            closed = socket.decode(piece, &mut lines);
            if closed != Ok(false) {
                socket.end(&mut out);
                break;
            }
        }
        socket.encode(&[], &mut out);
        (closed, lines, out)
    }

    #[test]
    fn the_lines_do_not_depend_on_how_the_stream_is_cut() {
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
            let (closed, lines, out) = decode(&stream, size);
            assert_eq!((closed, lines == expected), (Ok(false), true), "{size}");
            assert_eq!(out, [PONG, 1, b'?']);
        }
    }

    #[test]
    fn a_violation_is_answered_by_a_close_frame_with_its_code() {
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
                let (closed, _, out) = decode(&bytes, size);
                assert!(closed.is_err(), "{bytes:?}");
                assert_eq!(out, [&[CLOSE, 2][..], &u16::to_be_bytes(code)].concat(), "{bytes:?}");
            }
        }
    }

    #[test]
    fn a_close_frame_is_answered_with_its_code_and_frames_after_it_are_ignored() {
        for (payload, code) in [(&b""[..], 1000_u16), (b"\x03\xe9bye", 1001), (b"\x0f\xa0", 4000)] {
            let stream = [frame(TEXT, b"g a"), frame(CLOSE, payload), frame(TEXT, b"g b")].concat();
            let (closed, lines, out) = decode(&stream, stream.len());
            assert_eq!((closed, lines.as_slice()), (Ok(true), &b"g a\n"[..]));
            assert_eq!(out, [&[CLOSE, 2][..], &code.to_be_bytes()].concat());
        }
    }

    #[test]
    fn the_ends_of_messages_are_reported() {
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
                assert_eq!(socket.decode(piece, &mut lines), Ok(false));
                ends.extend(socket.message_ends());
            }
            assert_eq!(lines, b"g a\nr a\n\ng b\ng \xff\n");
            assert_eq!(ends, [8, 9, 13, 17], "{size}");
        }
    }
}

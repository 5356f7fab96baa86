//! A WebSocket as data, and one that goes on from there.

use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::{CONTROL_BYTES_MAX, HEADER_BYTES_MAX, IncomingFrame, IncomingMessage, WebSocket};
use crate::wire::websocket::snapshot::{
    FrameKind, FrameSnapshot, MessageSnapshot, POSITION_MAX, WebSocketSnapshot,
};

impl WebSocket {
    /// Its state, wherever in a frame or message the client's stream has been cut.
    pub(crate) fn snapshot(&self) -> WebSocketSnapshot {
        let Self { header, frame, message, lines_bytes, ends, control, pong, close, has_ended } = self;
        WebSocketSnapshot {
            header: header.clone(),
            frame: frame.as_ref().map(IncomingFrame::snapshot),
            message: message.as_ref().map(|message| MessageSnapshot {
                is_text: message.is_text,
                character: message.character.clone(),
                is_in_line: message.is_in_line,
            }),
            lines_bytes: *lines_bytes,
            ends: ends.clone(),
            control: control.clone(),
            pong: pong.clone(),
            close: *close,
            has_ended: *has_ended,
        }
    }

    /// One that goes on from there.
    ///
    /// # Errors
    /// If that is no state of a WebSocket.
    pub(crate) fn restore(snapshot: WebSocketSnapshot) -> Result<Self, &'static str> {
        let WebSocketSnapshot { header, frame, message, lines_bytes, ends, control, pong, close, has_ended } =
            snapshot;
        let is_long = |payload: &[u8]| payload.len() as u64 > CONTROL_BYTES_MAX;
        if header.len() >= HEADER_BYTES_MAX || frame.is_some() && !header.is_empty() {
            return Err("a header that is complete");
        }
        if is_long(&control) || pong.as_deref().is_some_and(is_long) {
            return Err("a control frame that is too long");
        }
        let character = message.as_ref().map_or(&[][..], |message| &message.character);
        if !character.is_empty() && !is_part_of_character(character) {
            return Err("a character that is complete");
        }
        if lines_bytes > POSITION_MAX
            || ends.last().is_some_and(|last| *last > lines_bytes)
            || !ends.is_sorted()
        {
            return Err("the end of a message that has not come");
        }
        let frame = frame.map(IncomingFrame::restore).transpose()?;
        match frame.as_ref().map(|frame| (frame.opcode, frame.bytes_left)) {
            Some((OpCode::Data(_), _)) if message.is_none() => return Err("a frame of no message"),
            Some((OpCode::Control(_), left)) if control.len() as u64 + left > CONTROL_BYTES_MAX => {
                return Err("a control frame that is too long");
            }
            _ => {}
        }
        let message = message.map(|message| {
            let MessageSnapshot { is_text, character, is_in_line } = message;
            IncomingMessage { is_text, character, is_in_line }
        });
        Ok(Self { header, frame, message, lines_bytes, ends, control, pong, close, has_ended })
    }
}

/// Whether these are the first bytes of a character whose other bytes have not arrived.
fn is_part_of_character(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
}

impl IncomingFrame {
    fn snapshot(&self) -> FrameSnapshot {
        let kind = match self.opcode {
            OpCode::Data(Data::Text) => FrameKind::Text,
            OpCode::Data(Data::Binary) => FrameKind::Binary,
            OpCode::Data(_) => FrameKind::Continuation,
            OpCode::Control(Control::Close) => FrameKind::Close,
            OpCode::Control(Control::Ping) => FrameKind::Ping,
            OpCode::Control(_) => FrameKind::Pong,
        };
        let Self { is_final, mask, mask_index, bytes_left, .. } = *self;
        FrameSnapshot { kind, is_final, mask, mask_index, bytes_left }
    }

    fn restore(snapshot: FrameSnapshot) -> Result<Self, &'static str> {
        let FrameSnapshot { kind, is_final, mask, mask_index, bytes_left } = snapshot;
        let opcode = match kind {
            FrameKind::Text => OpCode::Data(Data::Text),
            FrameKind::Binary => OpCode::Data(Data::Binary),
            FrameKind::Continuation => OpCode::Data(Data::Continue),
            FrameKind::Close => OpCode::Control(Control::Close),
            FrameKind::Ping => OpCode::Control(Control::Ping),
            FrameKind::Pong => OpCode::Control(Control::Pong),
        };
        if mask_index >= mask.len() || bytes_left == 0 || bytes_left > POSITION_MAX {
            return Err("an impossible frame");
        }
        if matches!(opcode, OpCode::Control(_)) && !is_final {
            return Err("a control frame in pieces");
        }
        Ok(Self { opcode, is_final, mask, mask_index, bytes_left })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{BINARY, CLOSE, FIRST, LAST, MIDDLE, PING, PONG, TEXT, frame};
    use super::*;
    use crate::wire::changed_leaves::for_each_changed_leaf;

    fn stream() -> Vec<u8> {
        [
            frame(TEXT, b"g a\nr a\n"),
            frame(FIRST, "g \u{20ac}".as_bytes()[..3].into()),
            frame(PING, b"?"),
            frame(MIDDLE, &"g \u{20ac}".as_bytes()[3..]),
            frame(LAST, b" b"),
            frame(TEXT, b""),
            frame(BINARY, &[0xff; 130]),
            frame(PONG, b"unasked"),
            frame(CLOSE, b"\x03\xe9bye"),
        ]
        .concat()
    }

    /// What comes of the rest of a stream.
    fn go_on(mut socket: WebSocket, rest: &[u8]) -> (bool, Vec<u8>, Vec<u64>, Vec<u8>) {
        let (mut lines, mut out) = (Vec::new(), Vec::new());
        let is_closed = socket.decode(rest, &mut lines).unwrap();
        let ends = socket.message_ends();
        socket.encode(&[], &mut out);
        socket.end(&mut out);
        (is_closed, lines, ends, out)
    }

    fn before(stream: &[u8]) -> WebSocket {
        let mut socket = WebSocket::default();
        assert_eq!(socket.decode(stream, &mut Vec::new()), Ok(false));
        socket
    }

    #[test]
    fn a_conversation_goes_on_wherever_it_is_cut() {
        let stream = stream();
        for at in 0..stream.len() {
            let (first, rest) = stream.split_at(at);
            let snapshot = before(first).snapshot();
            let json = serde_json::to_string(&snapshot).unwrap();
            let read: WebSocketSnapshot = serde_json::from_str(&json).unwrap();
            assert_eq!(read, snapshot);
            let restored = WebSocket::restore(read).unwrap();
            assert_eq!(restored.snapshot(), snapshot, "cut at {at}");
            assert_eq!(go_on(restored, rest), go_on(before(first), rest), "cut at {at}");
        }
    }

    #[test]
    fn every_value_arrives_or_is_refused() {
        let stream = stream();
        for at in 0..stream.len() {
            for_each_changed_leaf(&before(&stream[..at]).snapshot(), |changed: WebSocketSnapshot| {
                if let Ok(restored) = WebSocket::restore(changed.clone()) {
                    assert_eq!(restored.snapshot(), changed);
                }
            });
        }
    }

    #[test]
    fn what_would_break_the_reader_is_refused() {
        let fine = before(&frame(FIRST, b"abc")[..8]).snapshot();
        let refused = |change: &dyn Fn(&mut WebSocketSnapshot)| {
            let mut changed = fine.clone();
            change(&mut changed);
            WebSocket::restore(changed).err().unwrap_or_else(|| panic!("it is accepted"))
        };
        assert!(WebSocket::restore(fine.clone()).is_ok());
        assert!(refused(&|state| state.message = None).contains("no message"));
        assert!(refused(&|state| state.frame.as_mut().unwrap().mask_index = 4).contains("impossible"));
        assert!(refused(&|state| state.frame.as_mut().unwrap().bytes_left = 0).contains("impossible"));
        assert!(refused(&|state| state.header = vec![0x81]).contains("header"));
        assert!(refused(&|state| state.control = vec![0; 126]).contains("too long"));
        assert!(
            refused(&|state| state.message.as_mut().unwrap().character = b"a".to_vec()).contains("character")
        );
        assert!(refused(&|state| state.ends = vec![state.lines_bytes + 1]).contains("not come"));
        assert!(refused(&|state| state.frame.as_mut().unwrap().kind = FrameKind::Ping).contains("in pieces"));
    }
}

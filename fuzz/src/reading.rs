//! Reads streams with the real decoders as a connection's thread does: pieces go into a buffer, and
//! consumed bytes are removed from it. Checks that the decoders make progress, and that no more
//! bytes are kept than one line or message may have.

use lockd::wire::frame::{self, Frame};
use lockd::wire::text::lines::{Line, LineDecoder};

/// The result of reading a stream. Must not depend on how the stream was cut.
#[derive(Debug, PartialEq, Eq)]
pub struct Read {
    /// Lines or messages; `None` stands for one that was too long.
    pub found: Vec<Option<Vec<u8>>>,
    /// The number of bytes that the decoder has consumed.
    pub taken: usize,
    /// The bytes that it has not consumed.
    pub left: Vec<u8>,
}

impl Read {
    fn new() -> Self {
        Self { found: Vec::new(), taken: 0, left: Vec::new() }
    }

    fn take(&mut self, bytes: usize) {
        self.left.drain(..bytes);
        self.taken += bytes;
    }

    /// The bytes after the first `done`.
    fn rest(&self, done: usize) -> &[u8] {
        self.left.get(done..).expect("no more bytes are consumed than there are")
    }
}

/// Reads lines of up to `line_max` bytes.
#[must_use]
pub fn lines(pieces: &[&[u8]], line_max: usize) -> Read {
    let mut decoder = LineDecoder::new(line_max);
    let mut read = Read::new();
    for piece in pieces {
        read.left.extend_from_slice(piece);
        let mut done = 0;
        loop {
            let (taken, line) = decoder.decode(read.rest(done));
            let found = match line {
                Line::Complete(line) => {
                    assert!(line.len() <= line_max, "a line is longer than the limit");
                    Some(Some(line.to_vec()))
                }
                Line::TooLong => Some(None),
                Line::Incomplete => None,
            };
            assert!(taken > 0 || found.is_none(), "a line was found in zero bytes");
            done += taken;
            let Some(found) = found else { break };
            read.found.push(found);
        }
        read.take(done);
        assert!(read.left.len() <= line_max, "more is kept than a line may have");
    }
    read
}

/// Reads messages of up to `message_max` bytes, until one is too long.
#[must_use]
pub fn frames(pieces: &[&[u8]], message_max: usize) -> Read {
    let mut read = Read::new();
    for piece in pieces {
        read.left.extend_from_slice(piece);
        let mut done = 0;
        // After a message that is too long, the stream cannot be read any further.
        while read.found.last() != Some(&None) {
            let (taken, found) = frame::decode(read.rest(done), message_max);
            let found = match found {
                Frame::Incomplete => {
                    assert_eq!(taken, 0, "bytes of an incomplete message were consumed");
                    assert!(read.rest(done).len() < 4 + message_max, "more is kept than a message may have");
                    break;
                }
                Frame::Body(body) => {
                    assert_eq!(taken, 4 + body.len());
                    assert!(body.len() <= message_max, "a message is longer than the limit");
                    Some(body.to_vec())
                }
                Frame::TooLong { announced } => {
                    assert!(usize::try_from(announced).is_ok_and(|length| length > message_max));
                    None
                }
            };
            done += taken;
            read.found.push(found);
        }
        read.take(done);
    }
    read
}

//! Streams read as a connection's thread reads them, with the real decoders: pieces go into a buffer, and
//! what the decoder is done with is taken out. Checks on the way that decoders make progress and let no more
//! be kept than one line or message may have.

use lockd::wire::frame::{self, Frame};
use lockd::wire::text::lines::{Line, LineDecoder};

/// What was read of a stream. Must be the same however it was cut.
#[derive(Debug, PartialEq, Eq)]
pub struct Read {
    /// Lines or messages; `None` stands for one that was too long.
    pub found: Vec<Option<Vec<u8>>>,
    /// How many bytes the decoder was done with in all.
    pub taken: usize,
    /// What it was not done with.
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

    /// What is left behind the first `done` bytes.
    fn rest(&self, done: usize) -> &[u8] {
        self.left.get(done..).expect("more was taken than there was")
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
                    assert!(line.len() <= line_max, "a line is longer than may be");
                    Some(Some(line.to_vec()))
                }
                Line::TooLong => Some(None),
                Line::Incomplete => None,
            };
            assert!(taken > 0 || found.is_none(), "a line was found in no bytes");
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
        // Behind one that is too long the stream has ended: what comes then is not looked at.
        while read.found.last() != Some(&None) {
            let (taken, found) = frame::decode(read.rest(done), message_max);
            let found = match found {
                Frame::Incomplete => {
                    assert_eq!(taken, 0, "bytes of an incomplete message were taken");
                    assert!(read.rest(done).len() < 4 + message_max, "more is kept than a message may have");
                    break;
                }
                Frame::Body(body) => {
                    assert_eq!(taken, 4 + body.len());
                    assert!(body.len() <= message_max, "a message is longer than may be");
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

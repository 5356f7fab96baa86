//! What is to be sent on a connection, in the order in which it was posted: what waits to be sent, and what
//! one thread is sending. Pure bookkeeping: writes to no socket itself.

use std::time::{Duration, Instant};

/// Bytes on their way out. At most one thread sends at a time; the others leave what they have posted to it.
#[derive(Default)]
pub(super) struct Output {
    /// Posted, to be sent after `current`.
    posted: Vec<u8>,
    current: Chunk,
    is_being_sent: bool,
    /// Since when the server has taken nothing of what is to be sent.
    stuck_since: Option<Instant>,
}

/// Bytes to be sent, of which the first have been sent already.
#[derive(Default)]
pub(super) struct Chunk {
    bytes: Vec<u8>,
    sent: usize,
}

impl Chunk {
    pub(super) fn unsent(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }
}

impl Output {
    /// Where to append what is posted.
    pub(super) fn posted(&mut self) -> &mut Vec<u8> {
        &mut self.posted
    }

    /// Whether something is to be sent, and nobody is sending.
    pub(super) fn wants_room(&self) -> bool {
        !self.is_being_sent && (!self.current.unsent().is_empty() || !self.posted.is_empty())
    }

    /// Whether a thread is sending.
    pub(super) fn is_being_sent(&self) -> bool {
        self.is_being_sent
    }

    /// Hands out what is to be sent next, to be [given back](Self::end) when some of it has been.
    pub(super) fn begin(&mut self) -> Option<Chunk> {
        if !self.wants_room() {
            return None;
        }
        if self.current.unsent().is_empty() {
            self.current.bytes.clear();
            self.current.sent = 0;
            std::mem::swap(&mut self.current.bytes, &mut self.posted);
        }
        self.is_being_sent = true;
        Some(std::mem::take(&mut self.current))
    }

    /// Takes back what was handed out, of which the server has taken so many bytes more. Says for how long it
    /// has taken none.
    pub(super) fn end(&mut self, chunk: Chunk, taken: usize, now: Instant) -> Duration {
        self.current = Chunk { sent: chunk.sent + taken, ..chunk };
        self.is_being_sent = false;
        if taken > 0 {
            self.stuck_since = None;
            return Duration::ZERO;
        }
        now.saturating_duration_since(*self.stuck_since.get_or_insert(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_sent_once_and_in_order() {
        let (mut output, mut sent, now) = (Output::default(), Vec::<u8>::new(), Instant::now());
        assert!(!output.wants_room() && output.begin().is_none());
        output.posted().extend(b"abc");
        let first = output.begin().unwrap();
        output.posted().extend(b"def");
        assert!(!output.wants_room() && output.begin().is_none(), "one sends at a time");
        sent.extend(&first.unsent()[..1]);
        output.end(first, 1, now);
        while let Some(chunk) = output.begin() {
            sent.extend(&chunk.unsent()[..1]);
            output.posted().extend(if sent.len() == 4 { "gh" } else { "" }.bytes());
            output.end(chunk, 1, now);
        }
        assert_eq!(sent, b"abcdefgh");
    }

    #[test]
    fn it_is_known_for_how_long_nothing_was_taken() {
        let (mut output, start) = (Output::default(), Instant::now());
        output.posted().extend(b"abc");
        let mut send = |taken, seconds| {
            let chunk = output.begin().unwrap();
            output.end(chunk, taken, start + Duration::from_secs(seconds)).as_secs()
        };
        assert_eq!([send(0, 10), send(0, 13), send(1, 14), send(0, 20), send(0, 21)], [0, 3, 0, 0, 1]);
    }
}

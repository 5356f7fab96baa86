//! The bytes to be sent on a connection, in the order in which they were posted: those that wait,
//! and those that one thread is sending. Writes to no socket itself.

use std::time::{Duration, Instant};

/// Bytes to be sent. At most one thread sends at a time; it also sends what other threads post
/// meanwhile.
#[derive(Default)]
pub(super) struct Outgoing {
    /// Posted, to be sent after `current`.
    posted: Vec<u8>,
    current: Chunk,
    is_being_sent: bool,
    /// Since when the server has taken none of the bytes to be sent.
    stuck_since: Option<Instant>,
}

/// Bytes to be sent; the first `sent` of them have been sent.
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

impl Outgoing {
    /// The buffer to append to.
    pub(super) fn posted(&mut self) -> &mut Vec<u8> {
        &mut self.posted
    }

    /// Whether there is something to be sent that no thread is sending.
    pub(super) fn has_unsent(&self) -> bool {
        !self.is_being_sent && (!self.current.unsent().is_empty() || !self.posted.is_empty())
    }

    /// Whether a thread is sending.
    pub(super) fn is_being_sent(&self) -> bool {
        self.is_being_sent
    }

    /// Hands out the next bytes to be sent, which must be [given back](Self::end) when some of them
    /// are sent. `None` if there are none, or another thread is sending.
    pub(super) fn begin(&mut self) -> Option<Chunk> {
        if !self.has_unsent() {
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

    /// Takes back what was handed out, after the server has taken `taken` more bytes of it. Returns
    /// for how long the server has taken none.
    pub(super) fn end(&mut self, chunk: Chunk, taken: usize, now: Instant) -> Duration {
        debug_assert!(self.is_being_sent, "only the sending thread has a chunk to give back");
        debug_assert!(taken <= chunk.unsent().len(), "no more is taken than was handed out");
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
        let (mut outgoing, mut sent, now) = (Outgoing::default(), Vec::<u8>::new(), Instant::now());
        assert!(!outgoing.has_unsent() && outgoing.begin().is_none());
        outgoing.posted().extend(b"abc");
        let first = outgoing.begin().unwrap();
        outgoing.posted().extend(b"def");
        assert!(!outgoing.has_unsent() && outgoing.begin().is_none(), "one sends at a time");
        sent.extend(&first.unsent()[..1]);
        outgoing.end(first, 1, now);
        while let Some(chunk) = outgoing.begin() {
            sent.extend(&chunk.unsent()[..1]);
            outgoing.posted().extend(if sent.len() == 4 { "gh" } else { "" }.bytes());
            outgoing.end(chunk, 1, now);
        }
        assert_eq!(sent, b"abcdefgh");
    }

    #[test]
    fn it_measures_for_how_long_the_server_takes_nothing() {
        let (mut outgoing, start) = (Outgoing::default(), Instant::now());
        outgoing.posted().extend(b"abc");
        let mut send = |taken, seconds| {
            let chunk = outgoing.begin().unwrap();
            outgoing.end(chunk, taken, start + Duration::from_secs(seconds)).as_secs()
        };
        assert_eq!([send(0, 10), send(0, 13), send(1, 14), send(0, 20), send(0, 21)], [0, 3, 0, 0, 1]);
    }
}

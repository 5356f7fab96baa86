//! The input buffer of a connection: bytes that have been read and not yet handled. It grows with
//! what has arrived, never with what was announced, and is given back afterwards. Pure: it is told
//! how to read.

use std::io;

/// The capacity while a connection is idle: enough for nearly any request by itself, and little
/// enough for ten thousand connections that send nothing.
const IDLE_BYTES: usize = 512;
/// The capacity while the client sends much at once.
const BUSY_BYTES: usize = 64 << 10;

#[derive(Default)]
pub(super) struct InputBuffer {
    buffer: Vec<u8>,
    /// How many bytes at the beginning of `buffer` have been handled.
    start: usize,
    /// Whether the capacity is known to be more than that of an idle connection.
    has_grown: bool,
}

impl InputBuffer {
    /// A buffer with bytes that have come already.
    pub(super) fn with(early: Vec<u8>) -> Self {
        Self { buffer: early, ..Self::default() }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// That many bytes have been handled.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        debug_assert!(self.start <= self.buffer.len(), "only what has been read can be handled");
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
    }

    /// Appends what `read` reads. False at the end of the input.
    pub(super) fn fill(&mut self, read: impl FnOnce(&mut Vec<u8>) -> io::Result<usize>) -> io::Result<bool> {
        self.buffer.drain(..std::mem::take(&mut self.start));
        if self.buffer.len() == self.buffer.capacity() {
            let more = self.buffer.len().clamp(IDLE_BYTES, BUSY_BYTES);
            self.buffer.reserve_exact(more);
        }
        let read = read(&mut self.buffer)?;
        let is_full = self.buffer.len() == self.buffer.capacity();
        if is_full && self.buffer.len() < BUSY_BYTES {
            // A client that fills the buffer sends many requests at once, so the next read should
            // take many at once, too. Memory that is never written to costs nothing.
            self.buffer.reserve_exact(BUSY_BYTES - self.buffer.len());
        }
        Ok(read > 0)
    }

    /// Whether it has grown since this was last asked, or since it was [given
    /// back](Self::give_back).
    pub(super) fn check_grown(&mut self) -> bool {
        let was_known = std::mem::replace(&mut self.has_grown, self.buffer.capacity() > IDLE_BYTES);
        self.has_grown && !was_known
    }

    /// Gives back the capacity by which it has grown, as far as nothing is in it.
    pub(super) fn give_back(&mut self) {
        self.has_grown = false;
        self.buffer.shrink_to(IDLE_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_kept_in_order_however_it_is_read_and_consumed() {
        let mut input = InputBuffer::default();
        let (mut sent, mut received) = (0_u8, 0_u8);
        for round in 0..2000_usize {
            let arriving = round * 37 % 5000;
            input
                .fill(|into| {
                    let count = arriving.min(into.capacity() - into.len());
                    for _ in 0..count {
                        into.push(sent);
                        sent = sent.wrapping_add(1);
                    }
                    Ok(count)
                })
                .unwrap();
            let done = input.bytes().len() * (round % 4) / 3;
            for &byte in &input.bytes()[..done.min(input.bytes().len())] {
                assert_eq!(byte, received);
                received = received.wrapping_add(1);
            }
            input.consume(done.min(input.bytes().len()));
        }
    }

    #[test]
    fn a_buffer_that_grew_is_given_back() {
        let mut input = InputBuffer::default();
        let fill = |into: &mut Vec<u8>| {
            let (before, all) = (into.len(), into.capacity());
            into.resize(all, 0);
            Ok(all - before)
        };
        assert!(input.fill(|_| Ok(3)).unwrap() && !input.check_grown());
        for round in 0..40 {
            input.fill(fill).unwrap();
            assert_eq!(input.check_grown(), round == 0);
        }
        assert!(input.buffer.capacity() > 1 << 20);
        input.consume((1 << 20) - 1);
        input.give_back();
        assert!(input.buffer.capacity() > 1 << 20, "there is something in it");
        assert!(input.fill(fill).unwrap() && input.check_grown());
        input.consume(input.bytes().len());
        input.give_back();
        assert!(input.buffer.capacity() <= IDLE_BYTES);
    }
}

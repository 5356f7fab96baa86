//! How many of the unsent bytes were appended by other threads than the connection's own. Only
//! these may cut a client off: the connection's own thread stops handling requests while too much
//! of its own is unsent. Pure: positions in the stream of all bytes ever appended.

use std::collections::VecDeque;
use std::ops::Range;

/// An empty list with room for more runs than this is given back.
const KEEP_RUNS: usize = 16;

/// The unsent bytes that other threads appended, by their positions.
#[derive(Default)]
pub(super) struct PushedBytes {
    /// In order. No two runs adjoin.
    runs: VecDeque<Range<u64>>,
    bytes: u64,
}

impl PushedBytes {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the runs begin and end, in order.
    pub(super) fn runs(&self) -> Vec<(u64, u64)> {
        self.runs.iter().map(|run| (run.start, run.end)).collect()
    }

    /// The unsent bytes of these runs. `end` is where the stream ends so far.
    ///
    /// # Errors
    /// If the runs are not in order, or go beyond the end.
    pub(super) fn restore(runs: &[(u64, u64)], end: u64) -> Result<Self, &'static str> {
        let mut pushed = Self::default();
        let mut last = None;
        for &(start, until) in runs {
            if start >= until || until > end || last.is_some_and(|last| start <= last) {
                return Err("bytes that are not in the stream");
            }
            last = Some(until);
            pushed.add(start..until);
        }
        Ok(pushed)
    }

    /// Bytes have been appended at these positions, which follow all others.
    pub(super) fn add(&mut self, run: Range<u64>) {
        if run.is_empty() {
            return;
        }
        debug_assert!(self.runs.back().is_none_or(|last| last.end <= run.start), "runs are added in order");
        self.bytes += run.end - run.start;
        match self.runs.back_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => self.runs.push_back(run),
        }
    }

    /// All bytes before this position have been sent.
    pub(super) fn sent_until(&mut self, position: u64) {
        while let Some(first) = self.runs.front_mut().filter(|first| first.start < position) {
            let until = position.min(first.end);
            self.bytes -= until - first.start;
            first.start = until;
            if first.is_empty() {
                self.runs.pop_front();
            }
        }
        if self.runs.is_empty() && self.runs.capacity() > KEEP_RUNS {
            self.runs = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pushed_bytes_that_are_unsent_count() {
        let mut pushed = PushedBytes::default();
        pushed.add(10..20);
        pushed.add(20..25);
        pushed.add(25..25);
        pushed.add(100..150);
        assert_eq!(pushed.bytes(), 65);
        assert_eq!(pushed.runs.len(), 2);
        for (position, left) in
            [(0, 65), (10, 65), (12, 63), (12, 63), (60, 50), (149, 1), (150, 0), (500, 0)]
        {
            pushed.sent_until(position);
            assert_eq!(pushed.bytes(), left, "{position}");
        }
        pushed.add(500..501);
        assert_eq!(pushed.bytes(), 1);
    }

    #[test]
    fn a_list_that_grew_is_given_back_when_it_is_empty() {
        let mut pushed = PushedBytes::default();
        (0..1000).for_each(|n| pushed.add(2 * n..2 * n + 1));
        pushed.sent_until(1999);
        assert!(pushed.runs.capacity() <= KEEP_RUNS && pushed.bytes() == 0);
    }
}

//! How much of what is due to a client was appended by other threads than the connection's own: that alone may cut
//! a client off, and only what has not been taken yet. Pure: positions in the stream of all bytes ever appended.

use std::collections::VecDeque;
use std::ops::Range;

/// A list of runs with room for more than this is given back when it is empty.
const KEEP: usize = 16;

/// The bytes that other threads appended and that have not been taken yet, by their places in the stream.
#[derive(Default)]
pub(super) struct Noted {
    /// In order, and none adjoins the next.
    runs: VecDeque<Range<u64>>,
    bytes: u64,
}

impl Noted {
    /// How many bytes there are.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes have been appended at this place, which is after all others.
    pub(super) fn add(&mut self, run: Range<u64>) {
        if run.is_empty() {
            return;
        }
        self.bytes += run.end - run.start;
        match self.runs.back_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => self.runs.push_back(run),
        }
    }

    /// All bytes before this place have been taken.
    pub(super) fn taken_until(&mut self, place: u64) {
        while let Some(first) = self.runs.front_mut().filter(|first| first.start < place) {
            let until = place.min(first.end);
            self.bytes -= until - first.start;
            first.start = until;
            if first.is_empty() {
                self.runs.pop_front();
            }
        }
        if self.runs.is_empty() && self.runs.capacity() > KEEP {
            self.runs = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_noted_and_not_taken_counts() {
        let mut noted = Noted::default();
        noted.add(10..20);
        noted.add(20..25);
        noted.add(25..25);
        noted.add(100..150);
        assert_eq!(noted.bytes(), 65);
        assert_eq!(noted.runs.len(), 2);
        for (place, left) in [(0, 65), (10, 65), (12, 63), (12, 63), (60, 50), (149, 1), (150, 0), (500, 0)] {
            noted.taken_until(place);
            assert_eq!(noted.bytes(), left, "{place}");
        }
        noted.add(500..501);
        assert_eq!(noted.bytes(), 1);
    }

    #[test]
    fn a_list_that_grew_is_given_back() {
        let mut noted = Noted::default();
        (0..1000).for_each(|n| noted.add(2 * n..2 * n + 1));
        noted.taken_until(1999);
        assert!(noted.runs.capacity() <= KEEP && noted.bytes() == 0);
    }
}

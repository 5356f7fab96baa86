//! Long random dialogues of several connections with the server, compared with a naive model of
//! each of the programs whose protocols it speaks. A model knows its original's replies and nothing
//! of how lockd works, so every difference is one that a client of the original would notice.

mod message;
mod message_model;
mod text;
mod text_model;

/// A small generator with a seed, which failure messages print, so that a failure can be repeated.
pub(crate) struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// True on average once in `times` calls.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

//! Long random dialogues of several connections with the server, compared with a naive model of each of the
//! programs whose protocols it speaks. A model knows what its original answered and nothing of how lockd works, so
//! what differs here differs for a client of the original.

mod message;
mod message_model;
mod text;
mod text_model;

/// A small generator, so that a failure can be repeated: the seed stands in its message.
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

    /// True once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

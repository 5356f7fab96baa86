//! Where the table keeps its entries and requests: in blocks that never move, so that growing copies nothing
//! while others wait, and that are given back when everything in them has gone. Knows nothing of what it keeps.

use std::ops::{Index, IndexMut};

use slab::Slab;

/// How many have room in a block.
const BLOCK: usize = 256;

/// Values by small numbers, which are in use again once a value has been removed.
#[derive(Clone)]
pub(super) struct Blocks<T> {
    blocks: Vec<Slab<T>>,
    /// The blocks with room, each once. The last one is filled first.
    roomy: Vec<usize>,
    count: usize,
}

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Self { blocks: Vec::new(), roomy: Vec::new(), count: 0 }
    }
}

impl<T> Blocks<T> {
    pub(super) fn insert(&mut self, value: T) -> usize {
        let number = self.roomy.last().copied().unwrap_or_else(|| {
            self.blocks.push(Slab::new());
            self.roomy.push(self.blocks.len() - 1);
            self.blocks.len() - 1
        });
        let block = &mut self.blocks[number];
        if block.capacity() == 0 {
            *block = Slab::with_capacity(BLOCK);
        }
        let at = block.insert(value);
        if block.len() == BLOCK {
            self.roomy.pop();
        }
        self.count += 1;
        number * BLOCK + at
    }

    /// Takes out what is there; something must be.
    pub(super) fn remove(&mut self, id: usize) -> T {
        let number = id / BLOCK;
        let was_full = self.blocks[number].len() == BLOCK;
        let value = self.blocks[number].remove(id % BLOCK);
        self.count -= 1;
        if was_full {
            let before = self.roomy.last().copied();
            self.roomy.push(number);
            // It may have been kept empty for being the one in use, which it is no more.
            before.into_iter().for_each(|before| self.give_back_if_empty(before));
        } else if self.roomy.last() != Some(&number) {
            self.give_back_if_empty(number);
        }
        value
    }

    fn give_back_if_empty(&mut self, number: usize) {
        if self.blocks[number].is_empty() {
            self.blocks[number] = Slab::new();
        }
    }

    pub(super) fn get(&self, id: usize) -> Option<&T> {
        self.blocks.get(id / BLOCK)?.get(id % BLOCK)
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Above the numbers of all there are.
    pub(super) fn numbers_end(&self) -> usize {
        self.blocks.len() * BLOCK
    }
}

impl<T> Index<usize> for Blocks<T> {
    type Output = T;

    fn index(&self, id: usize) -> &T {
        &self.blocks[id / BLOCK][id % BLOCK]
    }
}

impl<T> IndexMut<usize> for Blocks<T> {
    fn index_mut(&mut self, id: usize) -> &mut T {
        &mut self.blocks[id / BLOCK][id % BLOCK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl<T> Blocks<T> {
        /// How many values the memory that is kept has room for.
        fn capacity(&self) -> usize {
            self.blocks.iter().map(Slab::capacity).sum()
        }
    }

    #[test]
    fn what_is_put_in_is_found_and_what_is_empty_is_given_back() {
        let mut blocks = Blocks::default();
        let ids: Vec<usize> = (0..10_000).map(|value| blocks.insert(value)).collect();
        assert_eq!(blocks.len(), ids.len());
        assert!(ids.iter().enumerate().all(|(value, &id)| blocks[id] == value));
        // In an order that leaves no block empty for long, but one value.
        for part in 0..7 {
            for value in (part..10_000).step_by(7).filter(|&value| value != 4000) {
                assert_eq!(blocks.remove(ids[value]), value);
                assert_eq!(blocks.get(ids[value]), None);
            }
        }
        assert_eq!((blocks.len(), blocks[ids[4000]]), (1, 4000));
        assert!(blocks.capacity() <= 2 * BLOCK, "{}", blocks.capacity());
        blocks[ids[4000]] = 1;
        let again: Vec<usize> = (0..10_000).map(|value| blocks.insert(value)).collect();
        assert!(again.iter().all(|&id| id < 10_000 + 2 * BLOCK), "places are used again");
        assert_eq!(blocks[ids[4000]], 1);
    }
}

//! Where the table keeps its values: in blocks that never move. Growing copies
//! nothing while other threads wait for the mutex, and a block is given back when all values in it
//! have gone. Knows nothing of what it keeps.

use std::ops::{Index, IndexMut};

use slab::Slab;

/// How many values a block holds.
const BLOCK_LEN: usize = 256;

/// Where a value is. Used again for another value once this one has been removed; never `u32::MAX`.
pub(super) type BlockIndex = u32;

/// Values by their [`BlockIndex`].
#[derive(Clone)]
pub(super) struct Blocks<T> {
    blocks: Vec<Slab<T>>,
    /// The blocks that are not full, each once. The last one is filled first, and kept when it is
    /// empty, so that a single value that comes and goes does not allocate a block each time.
    not_full: Vec<usize>,
    len: usize,
}

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Self { blocks: Vec::new(), not_full: Vec::new(), len: 0 }
    }
}

impl<T> Blocks<T> {
    /// Stores a value. Places that have become vacant are used again, the latest one first.
    #[inline]
    pub(super) fn insert(&mut self, value: T) -> BlockIndex {
        let number = self.not_full.last().copied().unwrap_or_else(|| self.add_block());
        let block = &mut self.blocks[number];
        if block.capacity() == 0 {
            *block = Slab::with_capacity(BLOCK_LEN);
        }
        let place = block.insert(value);
        if block.len() == BLOCK_LEN {
            self.not_full.pop();
        }
        self.len += 1;
        index_of(number, place)
    }

    /// Takes a value out.
    ///
    /// # Panics
    /// If there is no value at `index`.
    #[inline]
    pub(super) fn remove(&mut self, index: BlockIndex) -> T {
        let (number, place) = parts_of(index);
        let block = &mut self.blocks[number];
        let was_full = block.len() == BLOCK_LEN;
        let value = block.remove(place);
        let is_empty = block.is_empty();
        self.len -= 1;
        if was_full {
            let before = self.not_full.last().copied();
            self.not_full.push(number);
            // That one may have been kept empty because it was the one to be filled first.
            before.into_iter().for_each(|before| self.give_back_if_empty(before));
        } else if is_empty && self.not_full.last() != Some(&number) {
            self.give_back_if_empty(number);
        }
        value
    }

    pub(super) fn get(&self, index: BlockIndex) -> Option<&T> {
        let (number, place) = parts_of(index);
        self.blocks.get(number)?.get(place)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All values, in the order of their indices.
    pub(super) fn iter(&self) -> impl Iterator<Item = (BlockIndex, &T)> {
        let numbered = self.blocks.iter().enumerate();
        numbered.flat_map(|(number, block)| {
            block.iter().map(move |(place, value)| (index_of(number, place), value))
        })
    }

    /// One more than the highest index that a value can have now.
    pub(super) fn end(&self) -> BlockIndex {
        index_of(self.blocks.len(), 0)
    }

    #[cold]
    fn add_block(&mut self) -> usize {
        let number = self.blocks.len();
        // An index has 32 bits, and that many values would need hundreds of GiB.
        assert!(number < u32::MAX as usize / BLOCK_LEN, "there are 2^32 values");
        self.blocks.push(Slab::new());
        self.not_full.push(number);
        number
    }

    #[cold]
    fn give_back_if_empty(&mut self, number: usize) {
        let block = &mut self.blocks[number];
        if block.is_empty() {
            *block = Slab::new();
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "`add_block` has checked the number")]
const fn index_of(number: usize, place: usize) -> BlockIndex {
    (number * BLOCK_LEN + place) as BlockIndex
}

fn parts_of(index: BlockIndex) -> (usize, usize) {
    (index as usize / BLOCK_LEN, index as usize % BLOCK_LEN)
}

impl<T> Index<BlockIndex> for Blocks<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: BlockIndex) -> &T {
        let (number, place) = parts_of(index);
        &self.blocks[number][place]
    }
}

impl<T> IndexMut<BlockIndex> for Blocks<T> {
    #[inline]
    fn index_mut(&mut self, index: BlockIndex) -> &mut T {
        let (number, place) = parts_of(index);
        &mut self.blocks[number][place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u32 = index_of(1, 0);

    impl<T> Blocks<T> {
        /// How many values the allocated memory has space for.
        fn capacity(&self) -> usize {
            self.blocks.iter().map(Slab::capacity).sum()
        }
    }

    fn filled(count: u32) -> (Blocks<u32>, Vec<BlockIndex>) {
        let mut blocks = Blocks::default();
        let places = (0..count).map(|value| blocks.insert(value)).collect();
        (blocks, places)
    }

    #[test]
    fn values_stay_where_they_are_and_their_places_are_used_again() {
        let count = 5 * LEN;
        let (mut blocks, places) = filled(count);
        // One block stays full, the others keep a few values each.
        let stays = |place: BlockIndex| place.is_multiple_of(7) || place / LEN == 3;
        for (value, &place) in (0..).zip(&places).filter(|(_, place)| !stays(**place)) {
            assert_eq!(blocks.remove(place), value);
        }
        for (value, &place) in (0..).zip(&places) {
            assert_eq!(blocks.get(place), stays(place).then_some(&value));
        }
        assert_eq!(blocks.len(), places.iter().filter(|place| stays(**place)).count());
        for &place in places.iter().filter(|place| stays(**place)) {
            blocks.remove(place);
        }
        let mut again: Vec<BlockIndex> = (0..count).map(|value| blocks.insert(value)).collect();
        again.sort_unstable();
        assert_eq!(again, places);
        assert_eq!(blocks.end(), count);
    }

    #[test]
    fn one_block_is_kept_at_most_in_whichever_order_values_go() {
        let count = 20 * LEN;
        let orders: [fn(u32, u32) -> u32; 3] =
            [|_, at| at, |count, at| count - 1 - at, |count, at| (at * 7919) % count];
        for order in orders {
            let (mut blocks, places) = filled(count);
            for at in 0..count {
                blocks.remove(places[order(count, at) as usize]);
            }
            assert!(blocks.capacity() <= BLOCK_LEN, "{}", blocks.capacity());
        }
    }

    #[test]
    fn one_value_that_stays_keeps_no_block_but_its_own() {
        let (mut blocks, places) = filled(10_000);
        for part in 0..7 {
            for &place in places.iter().skip(part).step_by(7).filter(|&&place| place != places[4000]) {
                blocks.remove(place);
            }
        }
        assert_eq!((blocks.len(), blocks[places[4000]]), (1, 4000));
        assert!(blocks.capacity() <= 2 * BLOCK_LEN, "{}", blocks.capacity());
    }
}

//! Which entry has a name, by the name's hash. In many parts, so that none takes long to grow; and each part
//! shrinks when it has become nearly empty.

use hashbrown::HashTable;

use crate::broker::rules::EntryId;

const PARTS: usize = 64;

/// A part of no more than this is left as it is.
const PART_MIN: usize = 64;

#[derive(Clone, Copy)]
struct Known {
    hash: u64,
    id: EntryId,
}

#[derive(Clone)]
pub(super) struct Index(Vec<HashTable<Known>>);

impl Default for Index {
    fn default() -> Self {
        Self(std::iter::repeat_with(HashTable::new).take(PARTS).collect())
    }
}

impl Index {
    /// The entry of this hash that `is_it`.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(EntryId) -> bool) -> Option<EntryId> {
        let part = &self.0[part_of(hash)];
        part.find(hash, |known| known.hash == hash && is_it(known.id)).map(|known| known.id)
    }

    /// Adds an entry that is not there.
    pub(super) fn insert(&mut self, hash: u64, id: EntryId) {
        self.0[part_of(hash)].insert_unique(hash, Known { hash, id }, |known| known.hash);
    }

    pub(super) fn remove(&mut self, hash: u64, id: EntryId) {
        let part = &mut self.0[part_of(hash)];
        if let Ok(found) = part.find_entry(hash, |known| known.id == id) {
            found.remove();
        }
        if part.capacity() > PART_MIN && part.len() < part.capacity() / 8 {
            part.shrink_to(part.len() * 2, |known| known.hash);
        }
    }
}

/// The table within takes the highest bits and the lowest, and the lanes those from the 32nd on.
fn part_of(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}

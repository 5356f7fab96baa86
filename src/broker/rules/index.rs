//! Which entry of the table has a name, by the name's hash. In many parts, so that no part takes
//! long to grow; a part shrinks when it has become nearly empty. Never sees a name.

use hashbrown::HashTable;

use crate::broker::blocks::BlockIndex;

/// Where the table keeps an entry.
pub(super) type EntryId = BlockIndex;

const PARTS: usize = 64;

/// A part with no more capacity than this never shrinks.
const PART_MIN: usize = 64;

/// The entries by the hashes of their names.
#[derive(Clone)]
pub(super) struct NameIndex(Vec<HashTable<(u64, EntryId)>>);

impl Default for NameIndex {
    fn default() -> Self {
        Self(std::iter::repeat_with(HashTable::new).take(PARTS).collect())
    }
}

impl NameIndex {
    /// The entry with this hash for which `is_it` is true: several names may have the same hash.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(EntryId) -> bool) -> Option<EntryId> {
        let part = &self.0[part_of(hash)];
        part.find(hash, |&(other, id)| other == hash && is_it(id)).map(|&(_, id)| id)
    }

    /// Adds an entry that is not in the index.
    pub(super) fn insert(&mut self, hash: u64, id: EntryId) {
        debug_assert_eq!(self.find(hash, |other| other == id), None, "an entry is in the index once");
        self.0[part_of(hash)].insert_unique(hash, (hash, id), |&(hash, _)| hash);
    }

    /// Removes an entry that is in the index.
    pub(super) fn remove(&mut self, hash: u64, id: EntryId) {
        let part = &mut self.0[part_of(hash)];
        let found = part.find_entry(hash, |&(_, other)| other == id);
        debug_assert!(found.is_ok(), "every entry is in the index");
        if let Ok(found) = found {
            found.remove();
        }
        if part.capacity() > PART_MIN && part.len() < part.capacity() / 8 {
            part.shrink_to(part.len() * 2, |&(hash, _)| hash);
        }
    }

    /// How many entries there are. Looks at every part.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(HashTable::len).sum()
    }
}

/// The hash table of a part uses the highest bits and the lowest, and the lanes those from the 32nd
/// on.
fn part_of(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}

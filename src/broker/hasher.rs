//! How names are hashed, and which lane a hash belongs to. Clients choose the names, so the keys of
//! the hash are random: no client can tell which names would collide and make every look-up
//! there a long one.

use std::hash::{BuildHasher, RandomState};

use siphasher::sip::SipHasher13;

use crate::broker::name::Space;
use crate::os::sync::IS_MODEL_CHECKED;

/// The number of lanes that names are spread over. More than cores, so that two threads rarely meet
/// in one, and so that a lane is small: an operation that takes long, above all growing the lane's
/// index, is over soon.
pub(super) const LANES: usize = if IS_MODEL_CHECKED { 2 } else { 256 };

/// The lane of `hash`. The upper half of the hash chooses it; the lane itself uses the lower half.
pub(super) fn lane_of(hash: u64) -> usize {
    (hash >> 32) as usize % LANES
}

/// SipHash-1-3, as in the tables of the standard library, but of a whole name in one call, which
/// costs half of what hashing it piece by piece does.
pub(super) struct NameHasher {
    main: SipHasher13,
    counted: SipHasher13,
}

impl NameHasher {
    pub(super) fn new() -> Self {
        let random = RandomState::new();
        // A model checker must see the same run every time.
        let key = |number: u8| if IS_MODEL_CHECKED { u64::from(number) } else { random.hash_one(number) };
        let keyed = |first: u8| SipHasher13::new_with_keys(key(first), key(first + 1));
        Self { main: keyed(0), counted: keyed(2) }
    }

    pub(super) fn hash(&self, space: Space, name: &[u8]) -> u64 {
        match space {
            Space::Main => self.main.hash(name),
            Space::Counted => self.counted.hash(name),
        }
    }
}

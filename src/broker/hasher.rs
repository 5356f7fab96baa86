//! How names are hashed. Clients choose names, so the keys are random: nobody outside can tell which names
//! would meet in one place and make every look-up there a long one.

use std::hash::{BuildHasher, RandomState};

use siphasher::sip::SipHasher13;

use crate::broker::name::Space;
use crate::os::sync::IS_EXPLORED;

/// The hash of the standard library's own tables, SipHash-1-3, for a name that is there as a whole: that
/// costs half of what it does piece by piece.
pub(super) struct NameHasher {
    main: SipHasher13,
    counted: SipHasher13,
}

impl NameHasher {
    pub(super) fn new() -> Self {
        let random = RandomState::new();
        // What is explored must come about the same way every time.
        let key = |number: u8| if IS_EXPLORED { u64::from(number) } else { random.hash_one(number) };
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

//! Lock names, and the spaces that keep names apart. Knows nothing of holders.

use std::fmt;

/// The longest name, in bytes, that is stored without a heap allocation.
const INLINE_MAX: usize = 22;

/// The name of a lock: any bytes, not necessarily UTF-8, the empty name included.
///
/// Names of up to 22 bytes are stored in place, longer ones on the heap. The broker enforces the
/// length limit ([`Limits::name_bytes_max`](super::Limits::name_bytes_max)).
#[derive(Clone)]
pub struct LockName(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE_MAX] },
    Heap(Box<[u8]>),
}

impl LockName {
    /// The name with these bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let Some(len) = u8::try_from(bytes.len()).ok().filter(|&len| usize::from(len) <= INLINE_MAX) else {
            return Self(Repr::Heap(bytes.into()));
        };
        let mut inline = [0; INLINE_MAX];
        inline[..bytes.len()].copy_from_slice(bytes);
        Self(Repr::Inline { len, bytes: inline })
    }

    /// The bytes of the name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Heap(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for LockName {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl From<&[u8]> for LockName {
    fn from(bytes: &[u8]) -> Self {
        Self::new(bytes)
    }
}

impl From<&str> for LockName {
    fn from(name: &str) -> Self {
        Self::new(name.as_bytes())
    }
}

impl PartialEq for LockName {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for LockName {}

impl PartialOrd for LockName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for LockName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl std::hash::Hash for LockName {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// The space that a lock's name belongs to. Locks of the same name in different spaces are
/// different locks.
///
/// The text protocols keep their counted shared locks apart from their exclusive ones: `g foo` and
/// `sg foo` do not conflict. That is a matter of spaces, not of rules: within each space, shared
/// and exclusive locks exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// All locks except the counted shared locks of the text protocols.
    Main,
    /// The counted shared locks of the text protocols.
    Counted,
}

/// What identifies a lock: its space and its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The space of the name.
    pub space: Space,
    /// The name.
    pub name: LockName,
}

impl Key {
    /// The key of `name` in the main space.
    #[must_use]
    pub fn main(name: impl Into<LockName>) -> Self {
        Self { space: Space::Main, name: name.into() }
    }

    /// The key of `name` in the space of the counted shared locks.
    #[must_use]
    pub fn counted(name: impl Into<LockName>) -> Self {
        Self { space: Space::Counted, name: name.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_equal_by_bytes_at_every_length() {
        for len in [0, 1, 21, 22, 23, 255, 256, 1024] {
            let bytes: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let name = LockName::new(&bytes);
            assert_eq!(name.as_bytes(), bytes);
            assert_eq!(name, name.clone());
            assert_ne!(name, LockName::new(&[bytes, vec![0]].concat()));
        }
    }

    #[test]
    fn a_name_costs_three_words() {
        assert_eq!(size_of::<LockName>(), 24);
    }
}

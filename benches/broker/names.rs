//! Names of 10 to 22 bytes, made from their numbers.

use std::ops::{Deref, Range};

/// How many lengths names have, one after the other.
pub(crate) const LENGTHS: usize = 13;

/// A name stored inline, so that reading it costs as much as reading an argument.
#[derive(Clone, Copy)]
pub(crate) struct Name {
    bytes: [u8; 22],
    len: usize,
}

impl Deref for Name {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The name for this number, among the names that are held.
pub(crate) fn held(number: usize) -> Name {
    numbered(b'h', number)
}

/// The names for these numbers, among the names that are not held.
pub(crate) fn free(numbers: Range<usize>) -> Vec<Name> {
    numbers.map(|number| numbered(b'f', number)).collect()
}

fn numbered(kind: u8, mut number: usize) -> Name {
    let len = 10 + number % LENGTHS;
    let mut bytes = [b'0'; 22];
    bytes[0] = kind;
    for digit in bytes[1..len].iter_mut().rev() {
        *digit = b"0123456789"[number % 10];
        number /= 10;
    }
    Name { bytes, len }
}

/// Random numbers, so that a cache cannot predict the order of names.
pub(crate) struct Random(usize);

impl Default for Random {
    fn default() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }
}

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

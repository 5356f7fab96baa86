//! An input of this target: a byte for each choice.

/// The bytes of the input that have not been used.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// The next byte, unless there are no more.
    pub(crate) fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// The next byte, or 0.
    pub(crate) fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    /// Some bytes, none of them zero.
    pub(crate) fn string(&mut self, most: u8) -> Vec<u8> {
        let count = usize::from(self.byte() % most).min(self.0.len());
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        bytes.iter().copied().filter(|&byte| byte != 0).collect()
    }
}

//! An input of the decoders' targets: two bytes that say how to read, then the stream. Decides
//! where the stream is cut, and knows nothing about its content.

/// The length of a long stream in bytes.
const LONG_BYTES: usize = 256 << 10;

/// One in this many inputs is also read as a long stream.
const INPUTS_PER_LONG: u64 = 32_768;

/// A stream and how it is to be read.
#[derive(Debug)]
pub struct Case {
    /// Which limit the target sets.
    pub limit: u8,
    /// Another choice, whose meaning the target decides.
    pub flag: bool,
    /// The bytes that arrive.
    pub stream: Vec<u8>,
    seed: u8,
    hash: u64,
}

impl Case {
    /// Reads an input; `None` if it is too short for a header.
    #[must_use]
    pub fn read(data: &[u8]) -> Option<Self> {
        let [how, seed, stream @ ..] = data else { return None };
        let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = data.iter().fold(0xcbf2_9ce4_8422_2325, fnv);
        Some(Self { limit: how & 0x7f, flag: how & 0x80 != 0, stream: stream.to_vec(), seed: *seed, hash })
    }

    /// For a few inputs, the stream repeated until it is long, so that reading in quadratic time
    /// exceeds the time limit of an input. A hash of all bytes chooses these inputs. If a flag in
    /// the header did, mutations would inherit it, and nearly all inputs would be slow.
    #[must_use]
    pub fn long(&self) -> Option<Vec<u8>> {
        let is_chosen = (self.hash >> 20).is_multiple_of(INPUTS_PER_LONG) && !self.stream.is_empty();
        is_chosen.then(|| self.stream.repeat(LONG_BYTES.div_ceil(self.stream.len())))
    }

    /// The stream in pieces of random sizes, which depend on the seed in the header.
    #[must_use]
    pub fn pieces(&self) -> Vec<&[u8]> {
        let mut state = u64::from(self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut rest = self.stream.as_slice();
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            // xorshift64: mostly small pieces, some large.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let most = if state & 7 == 0 { 5000 } else { 9 };
            let size = usize::try_from(state >> 32).unwrap_or(0) % most;
            let (piece, after) = rest.split_at(size.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces
    }

    /// The ways to cut the stream: whole, at random, and into single bytes.
    #[must_use]
    pub fn ways(&self) -> [Vec<&[u8]>; 3] {
        [vec![self.stream.as_slice()], self.pieces(), self.stream.chunks(1).collect()]
    }
}

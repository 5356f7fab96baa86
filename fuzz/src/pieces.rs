//! An input of the decoders' targets: two bytes that say how to read, then the stream. Decides where the
//! stream is cut; knows nothing of what stands in it.

/// How long a stream is made that is to be long.
const LONG: usize = 256 << 10;

/// Of how many inputs one is also read as a long stream.
const SELDOM: u64 = 32_768;

/// A stream and how it is to be read.
#[derive(Debug)]
pub struct Case {
    /// Which of the limits to set.
    pub limit: u8,
    /// Another choice, for the target to make something of.
    pub flag: bool,
    /// The bytes that arrive.
    pub stream: Vec<u8>,
    seed: u8,
    hash: u64,
}

impl Case {
    /// Takes an input apart; `None` if it is too short to have a header.
    #[must_use]
    pub fn read(data: &[u8]) -> Option<Self> {
        let [how, seed, stream @ ..] = data else { return None };
        let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = data.iter().fold(0xcbf2_9ce4_8422_2325, fnv);
        Some(Self { limit: how & 0x7f, flag: how & 0x80 != 0, stream: stream.to_vec(), seed: *seed, hash })
    }

    /// For a few inputs, the stream repeated until it is long, so that whatever takes quadratic time exceeds
    /// the time that one input may take. Which inputs these are hangs on all of their bytes: were it a flag in
    /// the header, mutations would inherit it, and nearly all would be slow.
    #[must_use]
    pub fn long(&self) -> Option<Vec<u8>> {
        let is_chosen = (self.hash >> 20).is_multiple_of(SELDOM) && !self.stream.is_empty();
        is_chosen.then(|| self.stream.repeat(LONG.div_ceil(self.stream.len())))
    }

    /// The stream in pieces of random sizes, which the seed in the header decides.
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
            let (piece, behind) = rest.split_at(size.min(rest.len()));
            pieces.push(piece);
            rest = behind;
        }
        pieces
    }

    /// The ways to cut the stream: whole, at random, and into single bytes.
    #[must_use]
    pub fn ways(&self) -> [Vec<&[u8]>; 3] {
        [vec![self.stream.as_slice()], self.pieces(), self.stream.chunks(1).collect()]
    }
}

//! Reproducible random numbers: all choices of a run follow from its seed, which is printed when
//! the run fails. Knows nothing of what is chosen.

/// A small generator (splitmix64), the same on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A separate generator for part `which` of a run, so that the numbers of one part do not
    /// depend on how many the other parts draw.
    pub(crate) fn for_part(seed: u64, which: u64) -> Self {
        let mut mixed = Self(seed ^ which.wrapping_mul(0xd134_2543_de82_ef95));
        Self(mixed.next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `sides` - 1.
    pub(crate) fn below(&mut self, sides: u64) -> u64 {
        self.next() % sides.max(1)
    }

    /// A number from `low` to `high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }

    /// True once in `times` on average; never if `times` is 0.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        times > 0 && self.below(times) == 0
    }

    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// The seed that the environment asks for, or `default`.
pub(crate) fn seed_or(default: u64) -> u64 {
    match std::env::var("LOCKD_SEED") {
        Ok(text) => text.parse().expect("LOCKD_SEED is a number"),
        Err(_) => default,
    }
}

/// A seed that differs from run to run, unless the environment asks for one.
pub(crate) fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    seed_or(Random::new(u64::from(now.unwrap().subsec_nanos()) ^ u64::from(std::process::id())).next() >> 32)
}

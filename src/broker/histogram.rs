//! Durations, as counts in fixed ranges and as a sum. Plain data: each lane and the table have
//! their own, under the mutex that is held anyway. Knows no clock, and nothing of how it is
//! displayed.

use std::time::Duration;

/// The upper end of each range, in milliseconds; the last range has none.
const ENDS_MS: [u64; Histogram::RANGES - 1] = [
    1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 1_800_000,
    3_600_000,
];

/// Counts of durations, by range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; Self::RANGES],
    /// The sum. 64 bits would overflow within weeks if many locks are held for long.
    nanos: u128,
}

impl Histogram {
    pub(super) const RANGES: usize = 18;

    /// With these counts, and durations that have this sum.
    pub(super) fn from_parts(counts: [u64; Self::RANGES], sum: Duration) -> Self {
        Self { counts, nanos: sum.as_nanos() }
    }

    pub(super) fn counts(&self) -> [u64; Self::RANGES] {
        self.counts
    }

    pub(super) fn add(&mut self, time: Duration) {
        // A linear search, since nearly all durations are in the first ranges.
        let is_within = |end: &u64| time <= Duration::from_millis(*end);
        let range = ENDS_MS.iter().position(is_within).unwrap_or(Self::RANGES - 1);
        self.counts[range] += 1;
        self.nanos += time.as_nanos();
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
        self.nanos += other.nanos;
    }

    /// For each range except the last: its upper end, and how many durations were not longer than
    /// that.
    pub fn up_to(&self) -> impl Iterator<Item = (Duration, u64)> {
        let ends = ENDS_MS.iter().map(|&end| Duration::from_millis(end));
        ends.zip(self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        }))
    }

    /// The number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of the durations.
    #[must_use]
    pub fn sum(&self) -> Duration {
        let seconds = u64::try_from(self.nanos / 1_000_000_000).unwrap_or(u64::MAX);
        Duration::new(seconds, u32::try_from(self.nanos % 1_000_000_000).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_counted_in_the_lowest_range_that_includes_it() {
        let mut times = Histogram::default();
        for nanos in [0, 1_000_000, 1_000_001, 5_000_000, 3_600_000_000_000, 3_600_000_000_001] {
            times.add(Duration::from_nanos(nanos));
        }
        let up_to: Vec<(Duration, u64)> = times.up_to().collect();
        assert_eq!(
            up_to[..3],
            [1, 5, 10].map(Duration::from_millis).into_iter().zip([2, 4, 4]).collect::<Vec<_>>()
        );
        assert_eq!(up_to.last(), Some(&(Duration::from_secs(3600), 5)));
        assert_eq!(times.count(), 6);
        assert_eq!(times.sum(), Duration::from_nanos(7_200_007_000_002));
        assert!(ENDS_MS.is_sorted());
    }

    #[test]
    fn merging_adds_the_counts_and_the_sums() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        one.add(Duration::from_secs(u64::MAX));
        other.add(Duration::from_secs(1));
        one.merge(&other);
        assert_eq!((one.count(), one.sum()), (2, Duration::from_secs(u64::MAX)));
    }
}

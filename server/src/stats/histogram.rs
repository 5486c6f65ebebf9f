//! How long things took: counts in buckets, each an eighth of its power of two wide.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets of a power of two, as a power of two.
const PARTS: u32 = 3;
/// What takes longer than this power of two of nanoseconds, 18 minutes, is counted there.
const LONGEST: u32 = 40;
/// How many buckets there are.
pub const BUCKETS: usize = ((LONGEST - PARTS + 2) << PARTS) as usize;

/// Counted by any thread at any time.
#[derive(Debug)]
pub struct Histogram([AtomicU64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; BUCKETS])
    }
}

impl Histogram {
    /// One more that took so long.
    pub fn count(&self, nanos: u64) {
        if let Some(bucket) = self.0.get(bucket(nanos)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counts at this moment.
    pub fn counts(&self) -> Counts {
        Counts(self.0.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect())
    }
}

/// The bucket of a time.
fn bucket(nanos: u64) -> usize {
    let nanos = nanos.min((2 << LONGEST) - 1);
    let power = nanos.max(1).ilog2();
    let Some(shift) = power.checked_sub(PARTS) else { return usize::try_from(nanos).unwrap_or(0) };
    let part = (nanos >> shift) & ((1 << PARTS) - 1);
    let first = (u64::from(shift) + 1) << PARTS;
    usize::try_from(first | part).unwrap_or(usize::MAX)
}

/// The longest time in a bucket, nanoseconds.
fn longest(bucket: usize) -> u64 {
    let bucket = u64::try_from(bucket).unwrap_or(u64::MAX);
    let (row, part) = (bucket >> PARTS, bucket & ((1 << PARTS) - 1));
    match row.checked_sub(1) {
        None => part,
        Some(shift) => (((1 << PARTS) | part) << shift) | !(u64::MAX << shift),
    }
}

/// What was counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counts(Vec<u64>);

impl Default for Counts {
    fn default() -> Self {
        Self(vec![0; BUCKETS])
    }
}

impl Counts {
    /// Sets one bucket; `None` if there is none of that number.
    pub fn set(&mut self, bucket: usize, count: u64) -> Option<()> {
        self.0.get_mut(bucket).map(|there| *there = count)
    }

    /// Those that are not 0, with their numbers.
    pub fn filled(&self) -> impl Iterator<Item = (usize, u64)> {
        self.0.iter().copied().enumerate().filter(|(_, count)| *count > 0)
    }

    /// What came since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self(self.0.iter().zip(&before.0).map(|(now, then)| now.saturating_sub(*then)).collect())
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The time that `percent` of them did not exceed, nanoseconds; at most an eighth too long. `None` of nothing.
    pub fn percentile(&self, percent: u8) -> Option<u64> {
        let wanted = self.total().saturating_mul(u64::from(percent)).div_ceil(100).max(1);
        let mut seen = 0_u64;
        self.filled().find_map(|(bucket, count)| {
            seen = seen.saturating_add(count);
            (seen >= wanted).then(|| longest(bucket))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_a_bucket_that_is_at_most_an_eighth_too_long() {
        let times = (0..64).flat_map(|power| [1_u64 << power, (1 << power) + 1, (1 << power) / 7 * 9]);
        for nanos in times.filter(|nanos| *nanos < 2 << LONGEST) {
            let longest = longest(bucket(nanos));
            assert!(nanos <= longest && longest - nanos <= nanos / 8, "{nanos} {longest}");
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn buckets_are_in_the_order_of_their_times() {
        assert!((1..BUCKETS).all(|n| longest(n - 1) < longest(n) && bucket(longest(n - 1) + 1) == n));
    }

    #[test]
    fn a_percentile_is_exceeded_by_no_more_than_the_rest() {
        let histogram = Histogram::default();
        assert_eq!(histogram.counts().percentile(50), None);
        (1..=98).for_each(|_| histogram.count(5));
        (0..2).for_each(|_| histogram.count(7));
        let counts = histogram.counts();
        assert_eq!((counts.total(), counts.percentile(50), counts.percentile(99)), (100, Some(5), Some(7)));
        histogram.count(5);
        assert_eq!(histogram.counts().since(&counts).percentile(99), Some(5));
    }
}

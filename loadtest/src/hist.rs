//! Percentiles of millions of values in a fixed amount of memory.
//!
//! Keeping every value and sorting them would be exact, but its memory grows with the run, and the
//! pauses of a growing vector show up in the very latencies it keeps. So values are counted in
//! buckets: one for each number below 128, then 128 for each power of two. A percentile is at most
//! 1/128 above the true value, never below it. The largest value is kept exactly.

/// Each power of two is split into `1 << SPLIT_BITS` buckets.
const SPLIT_BITS: u32 = 7;
const SPLIT: u64 = 1 << SPLIT_BITS;
/// Larger values count as this one: 2^36 microseconds are 19 hours, and a run lasts minutes.
const VALUE_MAX: u64 = (1 << 36) - 1;
const BUCKETS: usize = bucket(VALUE_MAX) + 1;

/// Counts of values, in microseconds by convention; about 30 KiB whatever the number of values.
pub(crate) struct Histogram {
    counts: Box<[u64]>,
    count: u64,
    max: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            counts: vec![0; BUCKETS].into_boxed_slice(),
            count: 0,
            max: 0,
        }
    }

    pub(crate) fn record(&mut self, value: u64) {
        let value = value.min(VALUE_MAX);
        self.counts[bucket(value)] += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    pub(crate) fn summary(&self) -> Summary {
        Summary {
            count: self.count,
            p50: self.percentile(500),
            p90: self.percentile(900),
            p99: self.percentile(990),
            p999: self.percentile(999),
            max: self.max,
        }
    }

    /// The smallest value that at least `per_mille` thousandths of all values do not exceed
    /// (nearest rank), rounded up to the end of its bucket. Zero when nothing was recorded.
    fn percentile(&self, per_mille: u64) -> u64 {
        let rank = (self.count * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper(index).min(self.max);
            }
        }
        self.max
    }
}

/// What is told of a histogram.
#[derive(Clone, Copy)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

const fn bucket(value: u64) -> usize {
    if value < SPLIT {
        return value as usize;
    }
    let shift = value.ilog2() - SPLIT_BITS;
    // The leading bit of `value >> shift` is always set; it is what the first term counts.
    (shift as usize) * SPLIT as usize + (value >> shift) as usize
}

/// The largest value that falls into the bucket.
fn upper(index: usize) -> u64 {
    let index = index as u64;
    if index < 2 * SPLIT {
        return index;
    }
    let shift = index / SPLIT - 1;
    ((index % SPLIT + SPLIT + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::new();
        for value in values {
            histogram.record(value);
        }
        histogram
    }

    #[test]
    fn nothing_recorded_is_zero() {
        let summary = Histogram::new().summary();
        assert_eq!(
            (summary.count, summary.p50, summary.p999, summary.max),
            (0, 0, 0, 0)
        );
    }

    #[test]
    fn small_values_are_exact_and_by_nearest_rank() {
        let summary = of(1..=100).summary();
        assert_eq!(
            (
                summary.p50,
                summary.p90,
                summary.p99,
                summary.p999,
                summary.max
            ),
            (50, 90, 99, 100, 100)
        );
        let one = of([7]).summary();
        assert_eq!((one.p50, one.p999, one.max), (7, 7, 7));
    }

    #[test]
    fn buckets_are_contiguous_and_hold_their_upper_bound() {
        for index in 0..BUCKETS {
            assert_eq!(bucket(upper(index)), index);
            if index + 1 < BUCKETS {
                assert_eq!(bucket(upper(index) + 1), index + 1);
            }
        }
        assert_eq!(upper(BUCKETS - 1), VALUE_MAX);
    }

    #[test]
    fn percentiles_agree_with_sorting_within_one_bucket() {
        // A long tail, as latencies have: a plain multiplicative generator, cubed.
        let mut state = 1_u64;
        let mut values: Vec<u64> = (0..20_000)
            .map(|_| {
                state = state * 48_271 % 2_147_483_647;
                (state % 2_000).pow(3) / 1_000
            })
            .collect();
        let histogram = of(values.iter().copied());
        values.sort_unstable();
        for per_mille in [1, 10, 500, 900, 990, 999, 1000] {
            let exact = values[(values.len() as u64 * per_mille).div_ceil(1000) as usize - 1];
            let told = histogram.percentile(per_mille);
            assert!(
                told >= exact && told - exact <= exact / 128,
                "{per_mille}: {told} for {exact}"
            );
        }
        assert_eq!(histogram.summary().max, values[values.len() - 1]);
    }

    #[test]
    fn merging_equals_recording_into_one() {
        let mut left = of((0..5_000).map(|value| value * 3));
        left.merge(&of((0..500).map(|value| value * 1_000)));
        let both = of((0..5_000)
            .map(|value| value * 3)
            .chain((0..500).map(|value| value * 1_000)));
        assert_eq!(left.counts, both.counts);
        assert_eq!((left.count, left.max), (both.count, both.max));
    }

    #[test]
    fn values_past_the_bound_count_as_the_bound() {
        let summary = of([u64::MAX, 1]).summary();
        assert_eq!((summary.count, summary.max), (2, VALUE_MAX));
    }
}

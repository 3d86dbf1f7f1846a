//! How long things take that happen once per request.
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Buckets per doubling: a percentile is right to about 9 %.
const PER_OCTAVE: u32 = 8;
/// From 1 µs, over 32 doublings, to more than an hour.
const BUCKETS: usize = 32 * PER_OCTAVE as usize;
const SMALLEST_NS: f64 = 1_000.0;

/// A histogram that never locks and never grows: 2 KiB.
#[derive(Debug)]
pub(super) struct Times {
    buckets: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
}

/// The failovers so far: from the instant at which an attempt is known lost (for a refused connection: its start) to the
/// last request byte written to the next tier. Seconds; zero when there were none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Failovers {
    pub count: u64,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

/// The same for programs that add up and subtract: counts between fixed edges.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// The upper edge of each bucket in seconds, and how many values lie in it. The last edge is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// Of all values, in seconds.
    pub sum: f64,
}

impl Default for Times {
    fn default() -> Self {
        let buckets = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self { buckets, sum_ns: AtomicU64::new(0), max_ns: AtomicU64::new(0) }
    }
}

impl Times {
    pub fn record(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(ns)].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(ns, Relaxed);
        self.max_ns.fetch_max(ns, Relaxed);
    }

    /// With edges at 1 µs doubled so many times, from the first of `doublings` to the last: those are edges of the fine
    /// buckets too, so no value is put into the wrong one.
    pub fn histogram(&self, doublings: RangeInclusive<u32>) -> Histogram {
        let mut from = 0;
        let mut bucket = |edge: f64, to: usize| {
            let count = self.buckets[from..to].iter().map(|bucket| bucket.load(Relaxed)).sum();
            from = to;
            (edge, count)
        };
        let mut buckets: Vec<_> =
            doublings.map(|n| bucket(2f64.powi(n as i32) / 1e6, (n * PER_OCTAVE) as usize)).collect();
        buckets.push(bucket(f64::INFINITY, BUCKETS));
        Histogram { buckets, sum: self.sum_ns.load(Relaxed) as f64 / 1e9 }
    }

    pub fn snapshot(&self) -> Failovers {
        let counts: Vec<u64> = self.buckets.iter().map(|b| b.load(Relaxed)).collect();
        let count = counts.iter().sum();
        let max = self.max_ns.load(Relaxed) as f64 / 1e9;
        let share = |share: f64| percentile(&counts, count, share).min(max);
        Failovers { count, p50: share(0.50), p99: share(0.99), max }
    }
}

fn bucket_of(ns: u64) -> usize {
    let octaves = (ns as f64 / SMALLEST_NS).max(1.0).log2();
    ((octaves * f64::from(PER_OCTAVE)) as usize).min(BUCKETS - 1)
}

/// The upper edge, in seconds, of the bucket in which the `share`-th value lies.
fn percentile(counts: &[u64], count: u64, share: f64) -> f64 {
    let rank = (count as f64 * share).ceil() as u64;
    let mut seen = 0;
    for (at, &n) in counts.iter().enumerate() {
        seen += n;
        if n > 0 && seen >= rank {
            return SMALLEST_NS * 2f64.powf((at + 1) as f64 / f64::from(PER_OCTAVE)) / 1e9;
        }
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_yet() {
        assert_eq!(Times::default().snapshot(), Failovers::default());
    }

    #[test]
    fn percentiles_are_close_and_never_above_the_maximum() {
        let times = Times::default();
        for ms in 1..=100 {
            times.record(Duration::from_millis(ms));
        }
        let shown = times.snapshot();
        let near = |got: f64, want: f64| (got / want - 1.0).abs() < 0.1;
        assert_eq!((shown.count, shown.max), (100, 0.1));
        assert!(near(shown.p50, 0.050), "{shown:?}");
        assert!(near(shown.p99, 0.099), "{shown:?}");
    }

    #[test]
    fn extremes_have_a_bucket() {
        let times = Times::default();
        times.record(Duration::ZERO);
        times.record(Duration::MAX);
        assert_eq!(times.snapshot().count, 2);
        assert_eq!(times.histogram(2..=2).buckets, [(4e-6, 1), (f64::INFINITY, 1)]);
    }

    #[test]
    fn a_histogram_has_every_value_once_and_below_its_edge() {
        let times = Times::default();
        for us in [1, 63, 65, 127, 129, 1_000_000] {
            times.record(Duration::from_micros(us));
        }
        let shown = times.histogram(6..=8);
        assert_eq!(shown.buckets, [(64e-6, 2), (128e-6, 2), (256e-6, 1), (f64::INFINITY, 1)]);
        assert!((shown.sum - 1.000_385).abs() < 1e-9, "{shown:?}");
    }
}

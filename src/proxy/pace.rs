//! How often a thing may be said that every request could give rise to.
use crate::policy::Moment;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Lets one through in each interval, and counts the others.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    /// When the next one may be said; 0: at once.
    next: AtomicU64,
    left_out: AtomicU64,
}

impl Pace {
    pub const fn new(interval: Duration) -> Self {
        Self { interval, next: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// May it be said now? If so, how many were left out since the last time.
    pub fn turn(&self, now: Moment) -> Option<u64> {
        let next = self.next.load(Relaxed);
        let after = (now + self.interval).as_nanos();
        let is_due = now.as_nanos() >= next;
        // Of several at one instant, one wins.
        if is_due && self.next.compare_exchange(next, after, Relaxed, Relaxed).is_ok() {
            return Some(self.left_out.swap(0, Relaxed));
        }
        self.left_out.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_each_interval() {
        let pace = Pace::new(Duration::from_secs(1));
        let at = |ms: u64| Moment::from_nanos(5_000_000_000 + ms * 1_000_000);
        let said: Vec<_> = [0, 1, 999, 1_000, 1_001, 2_500].iter().map(|ms| pace.turn(at(*ms))).collect();
        assert_eq!(said, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}

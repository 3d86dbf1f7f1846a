//! What became of a tier's requests, over all its runs.
use super::times::{Histogram, Times};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Edges for the time to first content: 16 ms to 134 s.
const FIRST_CONTENT: std::ops::RangeInclusive<u32> = 14..=27;

/// Counters of one tier since the agent began. Every request that a tier was asked ends in exactly one of the outcomes.
#[derive(Debug, Default)]
pub struct Totals {
    requests: AtomicU64,
    /// Answered, and no fault of the client's. Not the sum: what is shown apart must not be a difference of two counters,
    /// which could step back.
    well: AtomicU64,
    client_errors: AtomicU64,
    failed_over: AtomicU64,
    cut: AtomicU64,
    skipped: AtomicU64,
    refused: AtomicU64,
    abandoned: AtomicU64,
    weakened: AtomicU64,
    first_content: Times,
}

/// The counters at one instant: `requests` is the sum of `answered`, `failed_over`, `cut`, `skipped`, `refused`,
/// `abandoned` and those in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that were sent there, or that it refused.
    pub requests: u64,
    /// Answered whole, the client's own errors included.
    pub answered: u64,
    /// Of the answered: the engine said that the request itself is wrong.
    pub client_errors: u64,
    /// Left it for another tier before the client saw anything.
    pub failed_over: u64,
    /// Ended in the middle of an answer.
    pub cut: u64,
    /// It said that it cannot carry the request, which is no fault of it.
    pub skipped: u64,
    /// It was the last tier that could be asked, and its client got an error. Requests for which no tier could be asked
    /// at all are in [`super::Refusals`] only.
    pub refused: u64,
    /// The client left before its answer was whole.
    pub abandoned: u64,
    /// Answers that were begun under the tier's `degrade` table; each of them has its own outcome as well.
    pub weakened: u64,
}

/// How a request ended at one tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Answered,
    ClientError,
    FailedOver,
    Cut,
    Skipped,
    Refused,
}

impl Totals {
    pub fn tally(&self) -> Tally {
        let client_errors = self.client_errors.load(Relaxed);
        Tally {
            requests: self.requests.load(Relaxed),
            answered: self.well.load(Relaxed) + client_errors,
            client_errors,
            failed_over: self.failed_over.load(Relaxed),
            cut: self.cut.load(Relaxed),
            skipped: self.skipped.load(Relaxed),
            refused: self.refused.load(Relaxed),
            abandoned: self.abandoned.load(Relaxed),
            weakened: self.weakened.load(Relaxed),
        }
    }

    /// From a streaming request's arrival to the first content that its client got, from this tier; what it lost at
    /// other tiers before is in it.
    pub fn first_content(&self) -> Histogram {
        self.first_content.histogram(FIRST_CONTENT)
    }
}

/// One request among the totals of one tier. Dropped before it was settled, its client has left.
#[derive(Debug)]
pub(super) struct Account {
    totals: Arc<Totals>,
    settled: bool,
}

impl Account {
    /// Counts a request in.
    pub fn open(totals: &Arc<Totals>) -> Self {
        totals.requests.fetch_add(1, Relaxed);
        Self { totals: totals.clone(), settled: false }
    }

    /// The first end counts.
    pub fn settle(&mut self, end: End) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        match end {
            End::Answered => &self.totals.well,
            End::ClientError => &self.totals.client_errors,
            End::FailedOver => &self.totals.failed_over,
            End::Cut => &self.totals.cut,
            End::Skipped => &self.totals.skipped,
            End::Refused => &self.totals.refused,
        }
        .fetch_add(1, Relaxed);
    }

    pub fn first_content(&self, took: Duration) {
        self.totals.first_content.record(took);
    }

    pub fn weakened(&self) {
        self.totals.weakened.fetch_add(1, Relaxed);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if !self.settled {
            self.totals.abandoned.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_has_exactly_one_end() {
        let totals = Arc::new(Totals::default());
        for end in [End::Answered, End::ClientError, End::FailedOver, End::Cut, End::Skipped, End::Refused] {
            let mut account = Account::open(&totals);
            account.settle(end);
            account.settle(End::Cut);
        }
        drop(Account::open(&totals));
        let expected = Tally {
            requests: 7,
            answered: 2,
            client_errors: 1,
            failed_over: 1,
            cut: 1,
            skipped: 1,
            refused: 1,
            abandoned: 1,
            weakened: 0,
        };
        assert_eq!(totals.tally(), expected);
    }
}

//! What became of a tier's requests, over all its runs.
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters of one tier since the agent began. Every request that a tier was asked ends in at most one of the other
/// three; one whose client left, that found no tier at all, or that the tier cannot carry, in none.
#[derive(Debug, Default)]
pub struct Totals {
    requests: AtomicU64,
    answered: AtomicU64,
    failed_over: AtomicU64,
    cut: AtomicU64,
}

/// The counters at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that were sent there, or that it refused.
    pub requests: u64,
    /// Answered whole, the client's own errors included.
    pub answered: u64,
    /// Left it for another tier before the client saw anything.
    pub failed_over: u64,
    /// Ended in the middle of an answer.
    pub cut: u64,
}

impl Totals {
    pub fn tally(&self) -> Tally {
        Tally {
            requests: self.requests.load(Relaxed),
            answered: self.answered.load(Relaxed),
            failed_over: self.failed_over.load(Relaxed),
            cut: self.cut.load(Relaxed),
        }
    }

    pub(super) fn requested(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    pub(super) fn answered(&self) {
        self.answered.fetch_add(1, Relaxed);
    }

    pub(super) fn failed_over(&self) {
        self.failed_over.fetch_add(1, Relaxed);
    }

    pub(super) fn cut(&self) {
        self.cut.fetch_add(1, Relaxed);
    }
}

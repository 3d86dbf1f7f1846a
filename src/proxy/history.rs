//! PURE. What became of a tier's latest requests, as far as it says whose fault a failure is.
//!
//! One request that fails ten times is one failure: its own content may be the reason. And a request that fails at two
//! tiers, each of which answered others meanwhile, is at fault itself.
use super::fingerprint::Fingerprint;
use crate::policy::Moment;
use std::collections::VecDeque;
use std::time::Duration;

/// Failed requests that are remembered at each tier.
const REMEMBERED: usize = 32;
/// A failure this long ago says nothing of a request that fails now.
const FORGET: Duration = Duration::from_secs(10 * 60);

/// What a tier did for others than one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Others {
    /// When the latest answered one began.
    pub answered: Option<Moment>,
    /// When the request itself first failed here lately.
    pub failing_since: Option<Moment>,
}

impl Others {
    /// Were others answered since the request, which came at `at`, began to fail here?
    pub fn answered_since(&self, at: Moment) -> bool {
        let since = self.failing_since.map_or(at, |since| since.min(at));
        self.answered.is_some_and(|answered| answered >= since)
    }
}

#[derive(Debug, Default)]
pub(super) struct History {
    /// The latest last; each request once.
    failed: VecDeque<Failed>,
    /// The latest two that were answered, of different requests. A trial is no client's request.
    answered: VecDeque<(Option<Fingerprint>, Moment)>,
    row: Row,
}

/// Since a request was last answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    /// Different requests that failed.
    pub failures: u32,
    /// The same, where one that fails again counts again, and one that asked for what is not served there counts, too.
    pub repeats: u32,
    /// Requests that were turned away for want of room.
    pub turned_away: u32,
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    request: Fingerprint,
    /// When it first failed lately.
    since: Moment,
    /// It counts among the failures of the row.
    counts: bool,
}

impl History {
    pub fn row(&self) -> Row {
        self.row
    }

    /// `request`, which began at `began`, failed here. With `suspect` it failed elsewhere before: that says less of this
    /// tier, and does not count as a further failure.
    pub fn failed(&mut self, request: Fingerprint, began: Moment, suspect: bool) {
        self.row.repeats = self.row.repeats.saturating_add(1);
        let before = self.failed.iter().position(|failed| failed.request == request);
        let before = before.and_then(|place| self.failed.remove(place));
        let mut failed = before.unwrap_or(Failed { request, since: began, counts: false });
        if began.since(failed.since) > FORGET {
            failed.since = began;
        }
        if !failed.counts && !suspect {
            failed.counts = true;
            self.row.failures = self.row.failures.saturating_add(1);
        }
        if self.failed.len() == REMEMBERED {
            self.failed.pop_front();
        }
        self.failed.push_back(failed);
    }

    /// It was the request's own fault.
    pub fn acquitted(&mut self, request: Fingerprint) {
        let failed = self.failed.iter_mut().find(|failed| failed.request == request);
        if failed.is_some_and(|failed| std::mem::take(&mut failed.counts)) {
            self.row.failures = self.row.failures.saturating_sub(1);
        }
    }

    /// What was asked for is not served there. That may be right, so it is a reason for a trial, and none to doubt the tier in
    /// public.
    pub fn not_served(&mut self) {
        self.row.repeats = self.row.repeats.saturating_add(1);
    }

    pub fn turned_away(&mut self) {
        self.row.turned_away = self.row.turned_away.saturating_add(1);
    }

    /// The tier had an answer: the row is over.
    pub fn answered(&mut self, request: Fingerprint, began: Moment) {
        self.row = Row::default();
        self.failed.retain(|failed| failed.request != request);
        self.failed.iter_mut().for_each(|failed| failed.counts = false);
        self.note(Some(request), began);
    }

    /// A trial that began at `began` was answered.
    pub fn trial_passed(&mut self, began: Moment) {
        self.note(None, began);
    }

    fn note(&mut self, request: Option<Fingerprint>, began: Moment) {
        let latest = self.answered.iter().filter(|(of, _)| *of == request).map(|(_, at)| *at).max();
        self.answered.retain(|(of, _)| *of != request);
        if self.answered.len() == 2 {
            self.answered.pop_front();
        }
        self.answered.push_back((request, latest.map_or(began, |latest| latest.max(began))));
    }

    pub fn others_than(&self, request: Fingerprint) -> Others {
        let others = self.answered.iter().filter(|(of, _)| *of != Some(request));
        let failed = self.failed.iter().find(|failed| failed.request == request);
        Others { answered: others.map(|(_, at)| *at).max(), failing_since: failed.map(|failed| failed.since) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Fingerprint = Fingerprint(1);
    const B: Fingerprint = Fingerprint(2);
    const C: Fingerprint = Fingerprint(3);

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn one_request_that_fails_ten_times_is_one_failure() {
        let mut history = History::default();
        (0..10).for_each(|second| history.failed(A, at(second), false));
        assert_eq!(history.row(), Row { failures: 1, repeats: 10, turned_away: 0 });
        history.failed(B, at(11), false);
        history.failed(C, at(12), true);
        assert_eq!(
            history.row(),
            Row { failures: 2, repeats: 12, turned_away: 0 },
            "C failed elsewhere before"
        );
        history.acquitted(B);
        history.acquitted(B);
        assert_eq!(history.row().failures, 1);
        history.not_served();
        assert_eq!(history.row(), Row { failures: 1, repeats: 13, turned_away: 0 }, "a reason for a trial");
        history.turned_away();
        history.answered(C, at(13));
        assert_eq!(history.row(), Row::default());
        history.failed(A, at(14), false);
        assert_eq!(history.row().failures, 1, "in a new row it counts anew");
    }

    #[test]
    fn what_others_get_meanwhile_tells_whose_fault_it_is() {
        let mut history = History::default();
        history.answered(B, at(1));
        assert!(!history.others_than(A).answered_since(at(2)), "that was before");
        history.failed(A, at(2), false);
        history.answered(B, at(3));
        assert!(history.others_than(A).answered_since(at(4)), "it failed at 2, another was answered at 3");
        assert!(!history.others_than(B).answered_since(at(4)), "of itself that says nothing");
        history.trial_passed(at(5));
        assert!(history.others_than(B).answered_since(at(5)));
        history.failed(A, at(2) + FORGET + Duration::from_secs(1), false);
        assert!(!history.others_than(A).answered_since(at(9_999)), "the failure of long ago is forgotten");
    }

    #[test]
    fn memory_is_bounded() {
        let mut history = History::default();
        for request in 0..10_000 {
            history.failed(Fingerprint(request), at(request), false);
            history.answered(Fingerprint(request + 1), at(request));
        }
        assert!(history.failed.len() <= REMEMBERED && history.answered.len() <= 2);
    }
}

//! PURE. Requests that were there when an engine died, and so may have killed it. One that was there twice is refused
//! before there is a third time.
//!
//! Many are there at each death, and nearly all of them are innocent. Those that the same engine answers afterwards are
//! cleared, so that what everybody asks (a load test, a pinger) is never refused.
use super::fingerprint::Fingerprint;
use crate::policy::{Moment, TierId};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Deaths at which a request may be.
const DEATHS: usize = 2;
/// After its last one it is suspect for this long.
const SUSPECT_FOR: Duration = Duration::from_secs(60 * 60);
/// Suspects that are kept; the latest ones.
const KEPT: usize = 4096;
/// A connection ends a little before the agent hears why.
const LATELY: Duration = Duration::from_secs(5);
/// Requests of one run that lost their connections, as far back as they are kept.
const LOST: usize = 1024;

/// The requests at one run.
#[derive(Debug, Default)]
pub(super) struct Present {
    here: HashMap<Fingerprint, u32>,
    lost: VecDeque<(Fingerprint, Moment)>,
}

impl Present {
    pub fn enter(&mut self, request: Fingerprint) {
        *self.here.entry(request).or_default() += 1;
    }

    pub fn leave(&mut self, request: Fingerprint) {
        if let Some(times) = self.here.get_mut(&request) {
            *times -= 1;
            if *times == 0 {
                self.here.remove(&request);
            }
        }
    }

    /// Its connection ended before its answer did.
    pub fn lost(&mut self, request: Fingerprint, now: Moment) {
        if self.lost.len() == LOST {
            self.lost.pop_front();
        }
        self.lost.push_back((request, now));
    }

    /// All connections are about to be closed.
    pub fn all_lost(&mut self, now: Moment) {
        let here: Vec<Fingerprint> = self.here.keys().copied().collect();
        here.into_iter().for_each(|request| self.lost(request, now));
    }

    /// Those that were there when the run died, just before `now`.
    pub fn at_death(&self, now: Moment) -> Vec<Fingerprint> {
        let lost = self.lost.iter().filter(|(_, at)| now.since(*at) <= LATELY).map(|(request, _)| *request);
        let mut all: Vec<Fingerprint> = self.here.keys().copied().chain(lost).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

#[derive(Debug, Default)]
pub(super) struct Suspects(HashMap<Fingerprint, Suspect>);

#[derive(Debug)]
struct Suspect {
    /// The tiers whose engines died with it, and have not answered it since.
    deaths: Vec<TierId>,
    last: Moment,
}

impl Suspects {
    /// The engine of `tier` died. How many of the requests that were there are refused from now on?
    pub fn died(&mut self, tier: TierId, present: Vec<Fingerprint>, now: Moment) -> usize {
        self.0.retain(|_, suspect| now.since(suspect.last) < SUSPECT_FOR);
        let mut refused = 0;
        for request in present {
            let suspect = self.0.entry(request).or_insert(Suspect { deaths: Vec::new(), last: now });
            suspect.last = now;
            if suspect.deaths.len() < DEATHS {
                suspect.deaths.push(tier);
                refused += usize::from(suspect.deaths.len() == DEATHS);
            }
        }
        if self.0.len() > KEPT {
            let mut times: Vec<Moment> = self.0.values().map(|suspect| suspect.last).collect();
            times.sort_unstable();
            let oldest = times[times.len() - KEPT];
            self.0.retain(|_, suspect| suspect.last >= oldest);
        }
        refused
    }

    /// `tier` answered the request in full; it was asked at `began`.
    pub fn answered(&mut self, request: Fingerprint, tier: TierId, began: Moment) {
        if let Some(suspect) = self.0.get_mut(&request).filter(|suspect| suspect.last <= began) {
            suspect.deaths.retain(|of| *of != tier);
            if suspect.deaths.is_empty() {
                self.0.remove(&request);
            }
        }
    }

    /// Until when the request is refused, if it is.
    pub fn refused_until(&self, request: Fingerprint, now: Moment) -> Option<Moment> {
        let suspect = self.0.get(&request).filter(|suspect| suspect.deaths.len() >= DEATHS)?;
        Some(suspect.last + SUSPECT_FOR).filter(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Fingerprint = Fingerprint(1);
    const B: Fingerprint = Fingerprint(2);
    const T0: TierId = TierId(0);
    const T1: TierId = TierId(1);

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn at_two_deaths_means_refused_for_an_hour() {
        let mut suspects = Suspects::default();
        assert_eq!(suspects.died(T0, vec![A, B], at(1)), 0);
        assert_eq!(suspects.refused_until(A, at(1)), None);
        assert_eq!(suspects.died(T1, vec![A], at(50)), 1, "of whichever engines");
        assert_eq!(suspects.refused_until(A, at(60)), Some(at(50) + SUSPECT_FOR));
        assert_eq!(suspects.refused_until(B, at(60)), None);
        assert_eq!(suspects.refused_until(A, at(50) + SUSPECT_FOR), None);
        assert_eq!(suspects.died(T0, vec![B], at(1) + SUSPECT_FOR), 0, "the first one is forgotten");
    }

    #[test]
    fn what_the_engine_answers_afterwards_is_cleared() {
        let mut suspects = Suspects::default();
        suspects.died(T0, vec![A, B], at(10));
        suspects.answered(A, T0, at(9));
        suspects.answered(B, T1, at(11));
        assert_eq!(suspects.died(T0, vec![A, B], at(20)), 2, "asked before, and answered by another engine");
        suspects.answered(A, T0, at(21));
        assert_eq!(suspects.refused_until(A, at(22)), None);
        suspects.died(T0, vec![A], at(30));
        assert_eq!(suspects.refused_until(A, at(31)), None, "it counts from the beginning");
    }

    #[test]
    fn who_was_present_is_known_a_little_later() {
        let mut present = Present::default();
        [A, A, B].into_iter().for_each(|request| present.enter(request));
        present.leave(A);
        assert_eq!(present.at_death(at(1)), [A, B], "one of the two A is still there");
        [A, B].into_iter().for_each(|request| present.leave(request));
        assert_eq!(present.at_death(at(1)), []);
        present.lost(B, at(1));
        assert_eq!(present.at_death(at(2)), [B]);
        assert_eq!(present.at_death(at(7)), []);
        present.enter(A);
        present.all_lost(at(8));
        present.leave(A);
        assert_eq!(present.at_death(at(9)), [A]);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut suspects, mut present) = (Suspects::default(), Present::default());
        for round in 0..20 {
            let crowd = (round * 1_000..(round + 1) * 1_000).map(Fingerprint).collect();
            suspects.died(T0, crowd, at(round));
            (0..1_000).for_each(|request| present.lost(Fingerprint(request), at(round)));
        }
        assert!(suspects.0.len() <= KEPT + 1_000 && present.lost.len() <= LOST);
        assert_eq!(suspects.died(T0, vec![Fingerprint(19_999)], at(20)), 1, "the latest are kept");
    }
}

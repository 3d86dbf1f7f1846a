//! What a tier's health page says, how often it is asked, and what an answer to a client undoes of that.
use super::{Fault, Tier};
use crate::policy::silence::Doubts;
use crate::policy::turn::Turn;
use crate::policy::{Cause, CheckFailure, Checked, Health, Moment, Place, Unasked};
use std::time::Duration;

/// While a tier is not well it is checked this often, so that the way back is quick.
const CHECK_SOON: Duration = Duration::from_secs(1);
/// A remote tier that stays DOWN is checked less and less often, down to this; while no tier can answer, more often.
const CHECK_SELDOM: Duration = Duration::from_secs(30);
const CHECK_NEEDED: Duration = Duration::from_secs(5);
/// A setting of nothing at all would be a hot loop.
const CHECK_MIN: Duration = Duration::from_millis(100);

impl Tier {
    pub(in crate::policy) fn checked(&mut self, checked: Checked, turn: &mut Turn) {
        if !self.present {
            return;
        }
        self.check.last = Some(turn.now);
        self.asking.heard();
        match checked {
            Checked::Passed { latency } => {
                self.check.latency = Some(latency);
                self.check.failures = 0;
                self.failed_at.clear();
                self.last_failure = None;
                self.slow = latency > self.settings.check.slow;
                self.passed_at = Some(self.checked_at);
                match self.fault {
                    // The door was closed after this check had gone through it.
                    Some(Fault::Refused { at }) if at > self.checked_at => {}
                    Some(Fault::Unchecked | Fault::Refused { .. } | Fault::Checks(_)) | None => {
                        self.fault = None
                    }
                }
            }
            Checked::Failed(CheckFailure::TimedOut) if self.is_busy(turn) => {}
            // Since it was sent nothing came.
            Checked::Failed(CheckFailure::TimedOut) => self.failed(CheckFailure::TimedOut, self.checked_at),
            Checked::Failed(failure) => self.failed(failure, turn.now),
        }
        self.refresh(turn);
        self.in_vain = if self.health == Health::Down { self.in_vain.saturating_add(1) } else { 0 };
        self.next_check = Some(turn.now + self.pause(turn));
    }

    /// This host could not ask: that says nothing about the tier.
    pub(in crate::policy) fn not_checked(&mut self, why: Unasked, turn: &mut Turn) {
        if self.present {
            self.asking.could_not(why);
            self.refresh(turn);
            self.next_check = Some(turn.now + CHECK_SOON);
        }
    }

    /// Nothing could be heard of the check that was under way.
    pub(in crate::policy) fn check_again(&mut self, turn: &Turn) {
        if self.present {
            self.next_check = Some(turn.now);
        }
    }

    /// A check timed out: is it only that the tier has so much to do?
    fn is_busy(&mut self, turn: &mut Turn) -> bool {
        let moving = self.sample.is_some_and(|(_, sample)| sample.sign_of_life() >= self.checked_at);
        moving
            || self.proof.as_mut().is_some_and(|proof| proof.doubt(Doubts::CHECK, self.checked_at, turn.now))
    }

    /// A check failed at `at`.
    pub(super) fn failed(&mut self, failure: CheckFailure, at: Moment) {
        self.check.failures = self.check.failures.saturating_add(1);
        self.failed_at.push_back(at);
        if self.failed_at.len() > self.limit() {
            self.failed_at.pop_front();
        }
        let is_down = self.fault.is_some() || self.check.failures >= self.settings.check.failures;
        let fault = match &failure {
            CheckFailure::Refused => Some(Fault::Refused { at }),
            // Its own word: there is nothing that could pass by itself.
            CheckFailure::Itself | CheckFailure::DeadEnd | CheckFailure::NoKey(_) => {
                Some(Fault::Checks(failure.clone()))
            }
            CheckFailure::TimedOut | CheckFailure::Reset | CheckFailure::Status(_) => {
                is_down.then(|| Fault::Checks(failure.clone()))
            }
        };
        // The newest check says why: a host that refused connections and answers now is down for what it answers.
        self.fault = fault.or(self.fault.take());
        self.last_failure = Some(failure);
    }

    /// Until the next check.
    pub(super) fn pause(&self, turn: &mut Turn) -> Duration {
        let interval = self.settings.check.interval.max(CHECK_MIN);
        let soon = interval.min(CHECK_SOON);
        match self.health {
            Health::Healthy => interval,
            // No check brings it back.
            Health::Degraded if self.cause() == Some(Cause::CpuFallback) || self.is_last_resort() => interval,
            Health::Down if self.settings.place == Place::Remote && self.in_vain > 1 => {
                let doubled = soon.saturating_mul(1 << (self.in_vain - 1).min(16));
                turn.chance.jitter(doubled.min(CHECK_SELDOM)).min(CHECK_SELDOM)
            }
            Health::Degraded | Health::Down => soon,
        }
    }

    /// No tier can answer: the return of this one must not go unseen for long.
    pub(in crate::policy) fn is_needed(&mut self, now: Moment) {
        self.next_check = self.next_check.map(|at| at.min(now + CHECK_NEEDED));
    }

    /// A real request found nobody listening at `at`. A check that went there later and passed knows better.
    pub(in crate::policy) fn refused(&mut self, at: Moment, turn: &mut Turn) {
        if self.present && self.passed_at.is_none_or(|sent| sent <= at) {
            self.fault = Some(Fault::Refused { at });
            self.refresh(turn);
        }
    }

    /// A real request was answered at `at`: what failed before that is undone, and nothing else.
    pub(super) fn answered(&mut self, at: Moment) {
        let known = self.failed_at.len();
        self.failed_at.retain(|failed| *failed > at);
        if self.failed_at.len() == known {
            return;
        }
        self.check.failures = u32::try_from(self.failed_at.len()).unwrap_or(u32::MAX);
        match &self.fault {
            Some(Fault::Checks(failure)) => {
                let own_word =
                    matches!(failure, CheckFailure::Itself | CheckFailure::DeadEnd | CheckFailure::NoKey(_));
                if self.failed_at.is_empty() || (!own_word && self.failed_at.len() < self.limit()) {
                    self.fault = None;
                }
            }
            // Answers of old requests still come from a server that has closed its door.
            Some(Fault::Unchecked | Fault::Refused { .. }) | None => {}
        }
    }

    /// So many failures in a row make it DOWN.
    fn limit(&self) -> usize {
        self.settings.check.failures.max(1) as usize
    }
}

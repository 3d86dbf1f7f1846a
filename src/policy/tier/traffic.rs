//! What real requests say of a tier, and what its trial says to that.
//!
//! ```text
//!           `failures` different requests failed in a row          the trial failed
//!  Trusted ───────────────────────────────────────────► Doubted ───────────────────► Broken
//!    ▲ ▲                                                   │                            │
//!    │ └────────────── it passed: they are forgiven ───────┘                            │
//!    └──────────────────────── it passed, or a request was answered ────────────────────┘
//! ```
//! A request can be at fault itself, so requests alone make no tier DOWN: its trial is asked first. The same request that
//! fails again and again asks for the trial too, but is no reason to doubt the tier in public. A remote tier that turns
//! everybody away for a minute is doubted as well.
//!
//! A trial can be wrong, too: it is one short request. When different requests go on failing for a minute after it passed,
//! and none is answered, the tier is Broken whatever its trial says, and the pause before the next one grows. It may be that
//! one client's requests are wrong and nobody else asks: so it is DOWN only while another tier is open, and else DEGRADED.
//! Failures of another hour are not the same trouble: the trial is asked about them anew.
use super::Tried;
use crate::policy::{Cause, Moment, Sample};
use std::time::Duration;

/// Between two trials of one tier.
const TRY_EVERY: Duration = Duration::from_secs(10);
/// The longest pause before a trial, when the ones before passed and clients got no answer all the same.
const TRY_SELDOM: Duration = Duration::from_secs(5 * 60);
/// So long a trial that passed outweighs requests that fail.
const TRIAL_VOUCHES: Duration = Duration::from_secs(60);
/// A trial that passed so long ago has nothing to do with requests that fail now.
const FORGET: Duration = Duration::from_secs(10 * 60);
/// So long a remote tier may turn everybody away and count as only busy.
const CROWDED: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Traffic {
    /// So many failures in a row make a doubt.
    limit: u32,
    remote: bool,
    sample: Sample,
    /// What of the rows in the sample a trial has forgiven.
    forgiven: Row,
    /// Since when everybody is turned away, and nothing is delivered.
    crowded_since: Option<Moment>,
    /// When a trial first passed although different requests had failed, or all were turned away, and no client was answered
    /// since.
    unconfirmed_since: Option<Moment>,
    passed_at: Option<Moment>,
    /// Trials that passed since clients were last answered for a while.
    passed: u32,
    /// Requests have outweighed a trial since the last answer to a client.
    relapsed: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Row {
    failures: u32,
    repeats: u32,
    turned_away: u32,
}

impl Row {
    fn of(sample: Sample) -> Self {
        Self {
            failures: sample.failures_in_row,
            repeats: sample.repeats_in_row,
            turned_away: sample.turned_away_in_row,
        }
    }

    /// What is left of it in a row that became shorter: a request was found to be at fault itself, or a new row began.
    fn within(self, row: Self) -> Self {
        Self {
            failures: self.failures.min(row.failures),
            repeats: self.repeats.min(row.repeats),
            turned_away: self.turned_away.min(row.turned_away),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            failures: self.failures.saturating_sub(before.failures),
            repeats: self.repeats.saturating_sub(before.repeats),
            turned_away: self.turned_away.saturating_sub(before.turned_away),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Trusted,
    /// The trial decides.
    Doubted(Doubt),
    Broken {
        verdict: Verdict,
        cause: Cause,
        why: String,
        /// When it failed: an answer to a client undoes that only if it is younger.
        at: Moment,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// So many different requests failed.
    Failures(u32),
    /// The same ones fail again and again: that is no news of the tier, yet.
    Repeats,
    TurnsAway,
}

/// Who says that a tier is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Failed,
    /// A refusal is an answer: what gave it works, and a restart would not change it.
    Refused,
    /// The trial passes.
    Requests,
}

impl Traffic {
    pub(super) fn new(limit: u32, remote: bool) -> Self {
        Self {
            limit: limit.max(1),
            remote,
            sample: Sample::default(),
            forgiven: Row::default(),
            crowded_since: None,
            unconfirmed_since: None,
            passed_at: None,
            passed: 0,
            relapsed: false,
            stage: Stage::Trusted,
        }
    }

    pub(super) fn sampled(&mut self, sample: Sample, now: Moment) {
        let before = std::mem::replace(&mut self.sample, sample);
        if sample.answered > before.answered {
            self.answered(sample.answered_at, now);
        }
        let row = Row::of(sample);
        self.forgiven = self.forgiven.within(row);
        let row = row.since(self.forgiven);
        if row.turned_away == 0 || sample.last_byte > before.last_byte {
            self.crowded_since = None;
        }
        if self.remote && row.turned_away > 0 {
            self.crowded_since.get_or_insert(now);
        }
        if matches!(self.stage, Stage::Trusted | Stage::Doubted(_)) {
            self.stage = self.judge(row, now);
        }
    }

    /// The agent did not run for so long, and clients did not get anything of it.
    pub(super) fn overslept(&mut self, late: Duration) {
        for since in [&mut self.crowded_since, &mut self.unconfirmed_since, &mut self.passed_at] {
            *since = since.map(|at| at + late);
        }
    }

    /// A client was answered at `at`. A trial that failed later knows better.
    fn answered(&mut self, at: Moment, now: Moment) {
        match self.stage {
            Stage::Broken { at: failed, .. } if failed > at => {}
            Stage::Trusted | Stage::Doubted(_) | Stage::Broken { .. } => self.stage = Stage::Trusted,
        }
        self.forgiven = Row::default();
        (self.crowded_since, self.unconfirmed_since, self.relapsed) = (None, None, false);
        if self.passed_at.is_none_or(|at| now.since(at) >= TRIAL_VOUCHES) {
            self.passed = 0;
        }
    }

    fn judge(&mut self, row: Row, now: Moment) -> Stage {
        let long = |since: Option<Moment>, long: Duration| since.is_some_and(|at| now.since(at) >= long);
        if row.failures >= self.limit {
            if long(self.passed_at, FORGET) {
                (self.unconfirmed_since, self.relapsed, self.passed) = (None, false, 0);
            }
            if self.relapsed || long(self.unconfirmed_since, TRIAL_VOUCHES) {
                self.relapsed = true;
                let why =
                    format!("{} different requests failed in a row, although its trial passes", row.failures);
                // These requests failed after the last answer, and the next one is younger than all of them.
                let at = self.sample.answered_at;
                return Stage::Broken { verdict: Verdict::Requests, cause: Cause::Unknown, why, at };
            }
            return Stage::Doubted(Doubt::Failures(row.failures));
        }
        if row.turned_away >= self.limit && long(self.crowded_since, CROWDED) {
            return Stage::Doubted(Doubt::TurnsAway);
        }
        if row.repeats >= self.limit { Stage::Doubted(Doubt::Repeats) } else { Stage::Trusted }
    }

    /// How the trial went, and when it failed if it did: where nothing came, that is since it was sent. One that timed out
    /// behind a long queue is kept from here.
    pub(super) fn tried(&mut self, tried: &Tried, at: Moment, now: Moment) {
        match (tried, &self.stage) {
            (Tried::Passed, stage) => {
                match stage {
                    Stage::Trusted => {}
                    Stage::Doubted(Doubt::Repeats) => self.passed_in_vain(now),
                    Stage::Doubted(Doubt::Failures(_) | Doubt::TurnsAway) | Stage::Broken { .. } => {
                        if self.unconfirmed_since.is_none() {
                            (self.unconfirmed_since, self.passed) = (Some(now), 0);
                        }
                        self.passed_in_vain(now);
                    }
                }
                self.forgiven = Row::of(self.sample);
                self.crowded_since = None;
                self.stage = Stage::Trusted;
            }
            // Nobody doubts it.
            (_, Stage::Trusted) => {}
            (Tried::TimedOut, Stage::Doubted(_) | Stage::Broken { .. }) => {
                self.stage = broken(Verdict::Failed, Cause::Hang, "no answer in time", at);
            }
            (Tried::Failed { cause, why }, Stage::Doubted(_) | Stage::Broken { .. }) => {
                self.stage = broken(Verdict::Failed, *cause, why, at);
            }
            (Tried::Refused { cause, why }, Stage::Doubted(_) | Stage::Broken { .. }) => {
                self.stage = broken(Verdict::Refused, *cause, why, at);
            }
        }
    }

    fn passed_in_vain(&mut self, now: Moment) {
        self.passed = self.passed.saturating_add(1);
        self.passed_at = Some(now);
    }

    /// When a trial is wanted, if one is; `sent`: when the last one went out.
    pub(super) fn trial_at(&self, sent: Option<Moment>, now: Moment) -> Option<Moment> {
        let pause = match &self.stage {
            Stage::Trusted => return None,
            Stage::Doubted(Doubt::Failures(_) | Doubt::TurnsAway)
            | Stage::Broken { verdict: Verdict::Failed | Verdict::Refused, .. } => TRY_EVERY,
            Stage::Doubted(Doubt::Repeats) | Stage::Broken { verdict: Verdict::Requests, .. } => self.pause(),
        };
        Some(sent.map_or(now, |sent| sent + pause))
    }

    /// Before the next trial: longer the more often one passed in vain.
    fn pause(&self) -> Duration {
        TRY_EVERY.saturating_mul(1 << self.passed.saturating_sub(1).min(16)).min(TRY_SELDOM)
    }

    /// Does it fail its clients, why, and what is that due to?
    pub(super) fn broken(&self) -> Option<(Cause, &str)> {
        match &self.stage {
            Stage::Broken { cause, why, .. } => Some((*cause, why)),
            Stage::Trusted | Stage::Doubted(_) => None,
        }
    }

    /// Do only the requests of clients say so, and its trial passes?
    pub(super) fn is_broken_by_requests(&self) -> bool {
        matches!(self.stage, Stage::Broken { verdict: Verdict::Requests, .. })
    }

    /// Would a restart help, as far as can be known?
    pub(super) fn is_failing(&self) -> bool {
        matches!(self.stage, Stage::Broken { verdict: Verdict::Failed, .. })
    }

    /// Why it is not quite trusted.
    pub(super) fn doubt(&self) -> Option<String> {
        match &self.stage {
            Stage::Doubted(Doubt::Failures(failures)) => {
                Some(format!("{failures} different requests failed in a row; its trial decides"))
            }
            Stage::Doubted(Doubt::TurnsAway) => {
                Some("it turns every request away; its trial decides".to_owned())
            }
            Stage::Doubted(Doubt::Repeats) | Stage::Trusted | Stage::Broken { .. } => None,
        }
    }
}

fn broken(verdict: Verdict, cause: Cause, why: &str, at: Moment) -> Stage {
    Stage::Broken { verdict, cause, why: format!("requests fail, and so does its trial: {why}"), at }
}

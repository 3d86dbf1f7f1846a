//! One tier's health: can it answer, and how well?
//!
//! | health | when |
//! |---|---|
//! | HEALTHY | its last check passed within `slow`, or its engine has just become ready |
//! | DEGRADED | the check passed, but slower; or fewer than `failures` checks failed in a row; or `failures` requests did;
//! or as many checks could not be made for a shortage of this host; or it computes on the CPU although it was to use a
//! GPU; or requests fail, its trial passes, and no other tier is open |
//! | DOWN | at once: engine not ready, connection refused, hang proven, a mainstay that leads back here; `failures` checks
//! failed; or requests and a trial |
//!
//! DEGRADED keeps its place. Up again: by a passed check; where a hang or real requests made it DOWN, by a trial (`Try`),
//! a counter that moves, or an answer that came after all, because health pages do not know. A check or a trial that timed
//! out does not count while bytes or counters move. Real traffic that succeeds clears failures, never slowness, and only those
//! that are older than the answer: figures of the data plane are read once a second, and say when what they tell of happened.
mod asking;
mod assessment;
mod brief;
mod checks;
mod device;
#[cfg(test)]
mod tests;
mod traffic;

use super::engine::{Blame, Engine};
use super::silence::{Doubts, Patience, Proof, TRY_TIMEOUT};
use super::turn::Turn;
use super::{
    Cause, CheckFailure, CheckStatus, EngineStatus, Health, Moment, Notice, Place, Prepared, Processor,
    RunId, Sample, TierId, TierSettings, TierStatus, Tried,
};
use asking::Asking;
use device::Device;
use std::collections::VecDeque;
use std::time::Duration;
use traffic::Traffic;

/// Between two trials of a tier that is suspected of a hang.
const TRY_EVERY: Duration = Duration::from_secs(10);

/// Why a tier that is there is DOWN.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    /// A remote tier of which nothing is known yet.
    Unchecked,
    /// Nobody listened then.
    Refused {
        at: Moment,
    },
    Checks(CheckFailure),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    NotWanted,
    At(Moment),
    /// Sent at that moment; the answer is awaited.
    Out(Moment),
}

#[derive(Debug)]
pub(super) struct Tier {
    id: TierId,
    settings: TierSettings,
    patience: Patience,
    /// Can it be asked at all? Always for a remote tier, for a local one while its engine is ready.
    present: bool,
    /// The ready run behind a local tier.
    run: Option<RunId>,
    /// The version of the engine that `follow` saw last.
    engine_seen: u64,
    /// Why it is not present.
    absence: String,
    /// What that is due to.
    blame: Option<Cause>,
    check: CheckStatus,
    /// When the last checks failed, the latest last: as many as make it DOWN.
    failed_at: VecDeque<Moment>,
    /// When to check next; `None` while an answer is awaited.
    next_check: Option<Moment>,
    /// When the last check was sent, and when the last one that passed was.
    checked_at: Moment,
    passed_at: Option<Moment>,
    asking: Asking,
    /// Checks in a row after which it was DOWN.
    in_vain: u32,
    last_failure: Option<CheckFailure>,
    slow: bool,
    fault: Option<Fault>,
    trial: Trial,
    /// When the last trial was sent.
    tried_at: Option<Moment>,
    traffic: Traffic,
    device: Device,
    /// It was told of this run that it computes on the CPU.
    told_of_cpu: bool,
    sample: Option<(Moment, Sample)>,
    proof: Option<Proof>,
    /// No other tier is able, or each is only as this one may be: a last resort.
    alone: bool,
    told_last_resort: bool,
    /// May new requests go there? Decided over all tiers, by `chain`.
    taking_new: bool,
    health: Health,
    reason: String,
    since: Moment,
}

impl Tier {
    pub(super) fn new(id: TierId, settings: TierSettings, patience: Patience, now: Moment) -> Self {
        let remote = settings.place == Place::Remote;
        let failures = settings.check.failures;
        Self {
            id,
            settings,
            patience,
            present: remote,
            run: None,
            engine_seen: 0,
            absence: "stopped".to_owned(),
            blame: None,
            check: CheckStatus::default(),
            failed_at: VecDeque::new(),
            next_check: remote.then_some(now),
            checked_at: now,
            passed_at: None,
            asking: Asking::default(),
            in_vain: 0,
            last_failure: None,
            slow: false,
            fault: remote.then_some(Fault::Unchecked),
            trial: Trial::NotWanted,
            tried_at: None,
            traffic: Traffic::new(failures, remote),
            device: Device::Unknown,
            told_of_cpu: false,
            sample: None,
            proof: None,
            alone: false,
            told_last_resort: false,
            taking_new: false,
            health: Health::Down,
            reason: if remote { "not checked yet" } else { "stopped" }.to_owned(),
            since: now,
        }
    }

    pub(super) fn place(&self) -> Place {
        self.settings.place
    }

    /// The ready run behind it.
    pub(super) fn run(&self) -> Option<RunId> {
        self.run
    }

    pub(super) fn is_present(&self) -> bool {
        self.present
    }

    /// Nothing speaks against new requests.
    pub(super) fn is_able(&self) -> bool {
        self.health != Health::Down
    }

    /// It passes its trial and fails its clients' requests, and is open only because no other tier is.
    fn is_last_resort(&self) -> bool {
        self.health == Health::Degraded && self.alone && self.traffic.is_broken_by_requests()
    }

    /// It is able, and would be beside others.
    pub(super) fn is_sound(&self) -> bool {
        self.is_able() && !self.is_last_resort()
    }

    /// Is there no other one that is sound?
    pub(super) fn stands_alone(&mut self, alone: bool, turn: &mut Turn) {
        if std::mem::replace(&mut self.alone, alone) != alone {
            self.refresh(turn);
        }
    }

    /// So many checks have failed as make a tier DOWN.
    pub(super) fn is_checked_in_vain(&self) -> bool {
        self.health == Health::Down && self.check.failures >= self.settings.check.failures
    }

    pub(super) fn reason(&self) -> &str {
        &self.reason
    }

    pub(super) fn take_new(&mut self, open: bool) {
        self.taking_new = open;
    }

    /// What to blame the ready run for, when there is proof that it cannot go on.
    pub(super) fn proven(&self) -> Option<Blame> {
        self.proof.as_ref().and_then(Proof::proven).cloned()
    }

    /// Requests in flight, if that was read at or after `since`.
    pub(super) fn in_flight(&self, since: Moment) -> Option<u32> {
        self.sample.filter(|(at, _)| *at >= since).map(|(_, sample)| sample.in_flight)
    }

    pub(super) fn status(&self, engine: Option<EngineStatus>) -> TierStatus {
        TierStatus {
            health: self.health,
            routable: self.taking_new,
            reason: self.reason.clone(),
            since: self.since,
            check: self.check,
            cause: self.cause(),
            last_resort: self.is_last_resort(),
            cpu_fallback: self.cpu_fallback(),
            engine,
        }
    }

    /// Looks at what became of its engine. Cheap when nothing did.
    pub(super) fn follow(&mut self, engine: &Engine, turn: &mut Turn) {
        if self.engine_seen == engine.version() {
            return;
        }
        self.engine_seen = engine.version();
        let run = engine.ready_run();
        self.absence = engine.excuse();
        self.blame = engine.blame();
        if run != self.run || run.is_none() {
            self.begin_anew(run, turn);
        }
        self.refresh(turn);
    }

    /// Another run, or none: nothing that was known holds any longer.
    fn begin_anew(&mut self, run: Option<RunId>, turn: &mut Turn) {
        turn.forget_tier(self.id);
        self.run = run;
        self.present = run.is_some();
        self.check.failures = 0;
        self.failed_at.clear();
        self.passed_at = None;
        self.next_check = run.map(|_| turn.now);
        self.asking.heard();
        (self.last_failure, self.slow, self.fault, self.trial) = (None, false, None, Trial::NotWanted);
        self.tried_at = None;
        self.traffic = Traffic::new(self.settings.check.failures, self.settings.place == Place::Remote);
        (self.device, self.told_of_cpu) = (Device::of_new_run(self.settings.wants_gpu), false);
        self.sample = None;
        self.proof = run.map(|run| Proof::new(self.patience, self.id, run, turn.now));
    }

    pub(super) fn not_counted(&mut self, turn: &Turn) {
        if let Some(proof) = &mut self.proof {
            proof.not_counted(turn.now);
        }
    }

    pub(super) fn not_tried(&mut self, turn: &Turn) {
        if let Trial::Out(_) = self.trial {
            self.trial = Trial::NotWanted;
            self.trial = self.next_trial(turn.now);
        }
    }

    pub(super) fn sampled(&mut self, sample: Sample, turn: &mut Turn) {
        let before = self.sample.replace((turn.now, sample)).map(|(_, before)| before).unwrap_or_default();
        if !self.present {
            return;
        }
        if sample.answered > before.answered {
            self.asking.heard();
            self.answered(sample.answered_at);
        }
        self.traffic.sampled(sample, turn.now);
        if let Some(proof) = &mut self.proof {
            proof.sampled(sample, turn.now);
        }
        self.refresh(turn);
    }

    pub(super) fn counted(&mut self, figure: Option<u64>, turn: &mut Turn) {
        let Some(proof) = &mut self.proof else { return };
        let settled = proof.counted(figure, turn);
        if settled.check {
            self.failed(CheckFailure::TimedOut, self.checked_at);
        }
        if settled.trial {
            self.traffic.tried(&Tried::TimedOut, self.tried_at.unwrap_or(turn.now), turn.now);
        }
        self.refresh(turn);
    }

    pub(super) fn tried(&mut self, tried: &Tried, turn: &mut Turn) {
        let Trial::Out(sent) = self.trial else { return };
        self.trial = Trial::NotWanted;
        // What was under way when its worker was killed failed for that.
        let is_ours = self.proof.as_ref().is_some_and(|proof| proof.killed_its_worker_since(sent));
        if is_ours && *tried != Tried::Passed {
            return self.refresh(turn);
        }
        match tried {
            Tried::TimedOut if self.is_queue_long(sent, turn) => {}
            Tried::TimedOut => self.traffic.tried(tried, sent, turn.now),
            Tried::Passed | Tried::Failed { .. } | Tried::Refused { .. } => {
                self.traffic.tried(tried, turn.now, turn.now);
            }
        }
        if let Some(proof) = &mut self.proof {
            proof.tried(*tried == Tried::Passed, turn.now);
        }
        self.refresh(turn);
    }

    /// The trial that was sent at `sent` timed out: is that no failure, or not yet?
    fn is_queue_long(&mut self, sent: Moment, turn: &Turn) -> bool {
        self.sample.is_some_and(|(_, sample)| sample.sign_of_life() >= sent)
            || self.proof.as_mut().is_some_and(|proof| proof.doubt(Doubts::TRIAL, sent, turn.now))
    }

    /// The model was loaded into a new worker, or not.
    pub(super) fn prepared(&mut self, outcome: &Prepared, turn: &mut Turn) {
        if let Some(proof) = &mut self.proof {
            proof.prepared(outcome.clone(), turn.now);
        }
        self.refresh(turn);
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        let trial = match self.trial {
            Trial::At(at) => Some(at),
            Trial::NotWanted | Trial::Out(_) => None,
        };
        let proof = self.proof.as_ref().and_then(Proof::deadline);
        self.next_check.into_iter().chain(trial).chain(proof).min()
    }

    /// Does what is due. Afterwards its deadline is in the future.
    pub(super) fn due(&mut self, turn: &mut Turn) {
        if self.next_check.is_some_and(|at| at <= turn.now) {
            self.next_check = None;
            self.checked_at = turn.now;
            turn.check(self.id, self.settings.check.timeout);
        }
        if matches!(self.trial, Trial::At(at) if at <= turn.now) {
            self.trial = Trial::Out(turn.now);
            self.tried_at = Some(turn.now);
            turn.attempt(self.id, TRY_TIMEOUT);
        }
        if let Some(proof) = &mut self.proof {
            proof.due(turn);
        }
    }

    /// The agent did not run for so long.
    pub(super) fn overslept(&mut self, late: Duration) {
        self.traffic.overslept(late);
        if let Some(proof) = &mut self.proof {
            proof.overslept(late);
        }
    }

    /// From what is known to health, proof and trials. The only place that changes `health`.
    fn refresh(&mut self, turn: &mut Turn) {
        let down = self.present && (self.fault.is_some() || self.traffic.is_failing());
        if let Some(proof) = &mut self.proof {
            proof.down(down, turn.now);
        }
        self.trial = self.next_trial(turn.now);
        let (health, reason) = self.assess();
        if health != self.health {
            let (tier, from) = (self.id, self.health);
            turn.tell(Notice::Health { tier, from, to: health, cause: self.cause(), why: reason.clone() });
            self.health = health;
            self.since = turn.now;
            self.in_vain = 0;
            // The way back should not wait for the next check of a healthy tier.
            let soonest = turn.now + self.pause(turn);
            self.next_check = self.next_check.map(|at| at.min(soonest));
        }
        self.reason = reason;
        let last_resort = self.is_last_resort();
        if last_resort && !self.told_last_resort {
            turn.tell(Notice::LastResort { tier: self.id, cause: self.cause(), why: self.reason.clone() });
        }
        self.told_last_resort = last_resort;
    }

    fn next_trial(&self, now: Moment) -> Trial {
        let suspect = self.proof.as_ref().is_some_and(Proof::wants_try);
        let suspected = suspect.then(|| self.tried_at.map_or(now, |sent| sent + TRY_EVERY));
        let doubted = self.traffic.trial_at(self.tried_at, now).filter(|_| self.present);
        match (self.trial, suspected.into_iter().chain(doubted).min()) {
            // Its answer says how the engine is, whatever has become of the reason to ask.
            (Trial::Out(sent), _) => Trial::Out(sent),
            (Trial::At(_) | Trial::NotWanted, None) => Trial::NotWanted,
            (Trial::At(_) | Trial::NotWanted, Some(at)) => Trial::At(at.max(now)),
        }
    }
}

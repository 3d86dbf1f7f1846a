//! Silence, then proof: is a ready engine that delivers nothing hung, or only busy?
//!
//! Health pages do not know: vLLM, llama-server and Ollama answer 200 while the part that computes stands still. What tells
//! is a counter that moves whenever the engine works. One look is no proof, so everything here is read at least twice.
//!
//! ```text
//!         no byte for `silence` with requests in flight,
//!         or a check or a trial timed out then (doubt)
//!  Calm ─────────────────────────────────► Asking (Count, 2 s apart)
//!   ▲ ▲   moved, a byte, or a Try passed     │ twice the same, or twice no answer
//!   │ └──────────────────────────────────────┤      doubt: what timed out counts as failed → Calm
//!   │    moved, a Try passed, an answer      ▼
//!   ├─────────────────────────────────── Suspect (Count every 2 s, Try every 10 s; no new requests)
//!   │                                        │ replaceable worker: KillWorkers, Prepare ──► Replaced ─┐
//!   │    the tier is up again (not silent)   │ unchanged for `suspect`                    unchanged, │
//!   └── Down (DOWN by its checks while       ▼                                            or too long│
//!        the process lives: Count) ───────► Proven ◄─────────────────────────────────────────────────┘
//!             unchanged for `suspect`        the engine is restarted
//! ```
//! A busy engine is never a dead one: its counter moves, so it is never suspect, however long its queue is. A tier that is
//! up again by its health page alone, while requests wait there and no byte comes, is Suspect (or asked) with what was counted.
//!
//! Where counters do not answer, the agent may count the engine's CPU time in their place (`STAND_IN`). Two figures of
//! different kinds are never compared: when the kind changes, looking begins anew. And CPU time vouches for an engine only
//! within 6 × `silence` of something better: a byte, a counter that moved, a Try that passed. Beyond that it counts as no
//! answer, because an engine that spins burns CPU time for ever. Only time with requests in flight is counted, and a request
//! that begins is nothing better: clients that give up and come again would vouch for a hung engine.
mod counter;
mod doubts;
mod suspicion;
#[cfg(test)]
mod tests;

use super::engine::Blame;
use super::turn::Turn;
use super::{Moment, RunId, Sample, TierId};
use counter::{Counter, Reading, is_stand_in};
pub(super) use doubts::Doubts;
use std::time::Duration;
use suspicion::{Kind, Suspect};

/// A loaded engine that does not answer a one-token request in this time is not well; a busy one is known by its counter.
pub(super) const TRY_TIMEOUT: Duration = Duration::from_secs(10);
/// With clients that give up early there is no long silence, as new requests keep coming. So a tier that has requests in
/// flight for this many silences, and answers none, is looked at too.
const HUNGRY: u32 = 3;
/// CPU time alone vouches for an engine for this many silences.
const STAND_IN_VOUCHES: u32 = 6;
/// Samples come every second. A gap longer than this is one in which nobody looked.
const SAMPLES_APART: Duration = Duration::from_secs(10);

/// What the proof needs to know of the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) silence: Duration,
    pub(super) suspect: Duration,
    pub(super) replaceable_worker: bool,
    /// Longest start: a replaced worker loads its model anew.
    pub(super) cap: Duration,
}

#[derive(Debug)]
pub(super) struct Proof {
    patience: Patience,
    tier: TierId,
    run: RunId,
    sampled_at: Moment,
    sample: Sample,
    /// The last sign of life that no sample shows: ready, a counter that moved, a Try that passed.
    alive_at: Moment,
    /// Silence is counted from here at the earliest: the last sign of life before the agent did not run, moved by that time.
    quiet_since: Moment,
    /// When its counter was last seen to move.
    moved_at: Option<Moment>,
    /// How long requests were in flight since the last sign of life that is better than CPU time: a byte, a counter that
    /// moved, a Try that passed. Requests that begin are no sign, and time without any does not count.
    mute: Duration,
    /// Since when requests are in flight and none was answered.
    hungry_since: Option<Moment>,
    worker_killed_at: Option<Moment>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Calm,
    Asking(Asking),
    Suspect(Suspect),
    Proven { blame: Blame, hang: bool },
}

#[derive(Debug)]
struct Asking {
    /// It was begun only to learn whether these count; none where it is about silence.
    doubts: Doubts,
    /// A sign of life ends it that is no older: where something timed out, than the question.
    ends_after: Moment,
    began: Moment,
    /// No verdict before this long: what is not silent may just be reading a long prompt.
    at_least: Duration,
    counter: Counter,
}

impl Proof {
    pub(super) fn new(patience: Patience, tier: TierId, run: RunId, now: Moment) -> Self {
        Self {
            patience,
            tier,
            run,
            sampled_at: now,
            sample: Sample::default(),
            alive_at: now,
            quiet_since: now,
            moved_at: None,
            mute: Duration::ZERO,
            hungry_since: None,
            worker_killed_at: None,
            stage: Stage::Calm,
        }
    }

    /// The engine is to be stopped for this.
    pub(super) fn proven(&self) -> Option<&Blame> {
        match &self.stage {
            Stage::Proven { blame, .. } => Some(blame),
            Stage::Calm | Stage::Asking(_) | Stage::Suspect(_) => None,
        }
    }

    pub(super) fn sampled(&mut self, sample: Sample, now: Moment) {
        let before = std::mem::replace(&mut self.sample, sample);
        let since = now.since(std::mem::replace(&mut self.sampled_at, now));
        let answered = sample.answered > before.answered;
        // When it happened counts, not when it is read.
        let sign = (answered || sample.last_byte > before.last_byte).then(|| sample.sign_of_life());
        if let Some(at) = sign {
            self.mute = if sample.in_flight > 0 { now.since(at).min(since) } else { Duration::ZERO };
        } else if before.in_flight > 0 {
            self.mute += since.min(SAMPLES_APART);
        }
        if sample.in_flight == 0 {
            self.hungry_since = None;
        } else if answered {
            self.hungry_since = Some(sample.answered_at);
        } else {
            self.hungry_since.get_or_insert(now);
        }
        match (&self.stage, sign) {
            (Stage::Calm | Stage::Proven { .. }, _) | (Stage::Suspect(_), None) => {}
            (Stage::Asking(asking), sign) => {
                if sign.is_some_and(|at| at >= asking.ends_after)
                    || (!asking.doubts.any() && sample.in_flight == 0)
                {
                    self.stage = Stage::Calm;
                    // It was asked for want of answers, and gives bytes: that is looked at again in its own time.
                    self.hungry_since = self.hungry_since.map(|_| now);
                }
            }
            (Stage::Suspect(_), Some(at)) => self.moved(at),
        }
    }

    /// A check or a trial timed out. With requests in flight that may be no more than a full queue: the counter decides.
    /// Returns false when there is no doubt: it has failed.
    pub(super) fn doubt(&mut self, what: Doubts, sent: Moment, now: Moment) -> bool {
        if self.moved_at.is_some_and(|at| at >= sent) {
            return true;
        }
        match &mut self.stage {
            Stage::Calm if self.sample.in_flight > 0 => {
                self.stage = Stage::Asking(Asking {
                    doubts: what,
                    ends_after: sent,
                    began: now,
                    at_least: Duration::ZERO,
                    counter: Counter::new(now),
                });
                true
            }
            Stage::Asking(asking) => {
                // Silence that is looked at already needs no time-out to make the tier DOWN.
                if asking.doubts.any() {
                    asking.doubts = asking.doubts.and(what);
                    asking.ends_after = sent;
                }
                true
            }
            Stage::Calm | Stage::Suspect(_) | Stage::Proven { .. } => false,
        }
    }

    /// The answer to a `Count`. Returns the doubts that it settles: what timed out has failed.
    pub(super) fn counted(&mut self, figure: Option<u64>, turn: &mut Turn) -> Doubts {
        let now = turn.now;
        let trusted = self.mute <= self.patience.silence * STAND_IN_VOUCHES;
        let figure = figure.filter(|figure| trusted || !is_stand_in(*figure));
        match &mut self.stage {
            Stage::Calm | Stage::Proven { .. } => {}
            Stage::Asking(asking) => match asking.counter.read(figure, now) {
                Reading::Moved => self.counter_moved(figure, now),
                Reading::Unclear => {}
                Reading::Still => {
                    let doubts = std::mem::take(&mut asking.doubts);
                    if doubts.any() && !self.is_silent(now) {
                        self.stage = Stage::Calm;
                    } else {
                        self.frozen(now);
                    }
                    return doubts;
                }
            },
            Stage::Suspect(suspect) => {
                suspect.readings += 1;
                match suspect.counter.read(figure, now) {
                    Reading::Moved => self.counter_moved(figure, now),
                    Reading::Unclear | Reading::Still => self.judge(turn),
                }
            }
        }
        Doubts::default()
    }

    /// This host could not ask for a figure.
    pub(super) fn not_counted(&mut self, now: Moment) {
        match &mut self.stage {
            Stage::Calm | Stage::Proven { .. } => {}
            Stage::Asking(Asking { counter, .. }) | Stage::Suspect(Suspect { counter, .. }) => {
                counter.unread(now)
            }
        }
    }

    fn counter_moved(&mut self, figure: Option<u64>, now: Moment) {
        if !figure.is_some_and(is_stand_in) {
            self.mute = Duration::ZERO;
        }
        self.moved_at = Some(now);
        self.moved(now);
    }

    /// It worked then.
    fn moved(&mut self, at: Moment) {
        match &mut self.stage {
            Stage::Suspect(Suspect {
                kind: Kind::Down | Kind::Replaced { .. },
                still_since,
                readings,
                ..
            }) => {
                // It lives, but that is not yet an answer: its checks, or a Try, have to say so.
                if at > *still_since {
                    (*still_since, *readings) = (at, 0);
                }
                self.alive_at = self.alive_at.max(at);
            }
            Stage::Calm
            | Stage::Asking(_)
            | Stage::Suspect(Suspect { kind: Kind::Hang, .. })
            | Stage::Proven { .. } => {
                self.alive_at = self.alive_at.max(at);
                self.hungry_since = None;
                self.stage = Stage::Calm;
            }
        }
    }

    /// How a one-token request went.
    pub(super) fn tried(&mut self, passed: bool, now: Moment) {
        match &mut self.stage {
            Stage::Suspect(_) | Stage::Asking(_) if passed => {
                (self.alive_at, self.mute) = (now, Duration::ZERO);
                self.hungry_since = None;
                self.stage = Stage::Calm;
            }
            Stage::Suspect(suspect) => suspect.tries_failed += 1,
            Stage::Calm | Stage::Asking(_) | Stage::Proven { .. } => {}
        }
    }

    /// How long it may deliver nothing from now on.
    pub(super) fn allow_silence(&mut self, silence: Duration) {
        self.patience.silence = silence;
    }

    fn last_sign(&self) -> Moment {
        self.sample.last_progress.max(self.alive_at).max(self.quiet_since)
    }

    fn is_silent(&self, now: Moment) -> bool {
        self.sample.in_flight > 0 && now.since(self.last_sign()) >= self.patience.silence
    }

    /// When to look at a tier that is calm.
    fn look_at(&self) -> Option<Moment> {
        if self.sample.in_flight == 0 {
            return None;
        }
        let silent = self.last_sign() + self.patience.silence;
        let hungry = self.hungry_since.map(|since| since.max(self.alive_at) + self.patience.silence * HUNGRY);
        Some(hungry.map_or(silent, |hungry| hungry.min(silent)))
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        match &self.stage {
            Stage::Calm => self.look_at(),
            Stage::Asking(asking) => asking.counter.next,
            Stage::Suspect(suspect) => {
                let prepare = match &suspect.kind {
                    Kind::Replaced { prepare, .. } => *prepare,
                    Kind::Hang | Kind::Down => None,
                };
                suspect.counter.next.into_iter().chain(prepare).min()
            }
            Stage::Proven { .. } => None,
        }
    }

    /// Does what is due. Afterwards its deadline is in the future.
    pub(super) fn due(&mut self, turn: &mut Turn) {
        if matches!(self.stage, Stage::Calm) && self.look_at().is_some_and(|at| at <= turn.now) {
            let at_least = if self.is_silent(turn.now) { Duration::ZERO } else { self.patience.silence };
            let counter = Counter::new(turn.now);
            self.stage = Stage::Asking(Asking {
                doubts: Doubts::default(),
                ends_after: Moment::default(),
                began: turn.now,
                at_least,
                counter,
            });
        }
        match &mut self.stage {
            Stage::Calm | Stage::Proven { .. } => {}
            Stage::Asking(asking) => asking.counter.due(self.tier, turn),
            Stage::Suspect(suspect) => {
                suspect.counter.due(self.tier, turn);
                if let Kind::Replaced { prepare, .. } = &mut suspect.kind
                    && prepare.is_some_and(|at| at <= turn.now)
                {
                    *prepare = None;
                    turn.prepare(self.run);
                }
            }
        }
    }

    /// The agent did not run for so long: that nothing was seen in that time counts for nothing.
    pub(super) fn overslept(&mut self, late: Duration) {
        self.quiet_since = self.last_sign() + late;
        self.alive_at = self.alive_at + late;
        self.sampled_at = self.sampled_at + late;
        self.hungry_since = self.hungry_since.map(|since| since + late);
        match &mut self.stage {
            Stage::Calm | Stage::Proven { .. } => {}
            Stage::Asking(asking) => asking.began = asking.began + late,
            Stage::Suspect(suspect) => {
                suspect.still_since = suspect.still_since + late;
                if let Kind::Replaced { at, .. } = &mut suspect.kind {
                    *at = *at + late;
                }
            }
        }
    }
}

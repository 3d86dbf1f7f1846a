//! An engine that may be hung: what it is suspected for, what is done about it meanwhile, and when that is proof.
use super::counter::{COUNT_EVERY, Counter};
use super::{Asking, Doubts, Proof, Stage};
use crate::policy::engine::Blame;
use crate::policy::turn::Turn;
use crate::policy::words::spell;
use crate::policy::{Action, Moment, Notice, Prepared};
use std::time::Duration;

const PREPARE_EVERY: Duration = Duration::from_secs(1);
/// How long a replaced worker may stand still before the whole engine goes: it has to be found missing and started.
const REPLACED_STILL_MIN: Duration = Duration::from_secs(10);
/// A worker that hangs again this soon after it was replaced is not the worker's fault.
const WORKER_AGAIN: Duration = Duration::from_secs(10 * 60);
const NO_ANSWER: &str = "it does not answer";

#[derive(Debug)]
pub(super) struct Suspect {
    pub(super) kind: Kind,
    /// Since when nothing has moved.
    pub(super) still_since: Moment,
    /// Readings since then. Time alone proves nothing: the agent may have slept.
    pub(super) readings: u32,
    pub(super) tries_failed: u32,
    pub(super) counter: Counter,
    pub(super) why: String,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// Silent, and its counter frozen.
    Hang,
    /// DOWN for another reason than silence, while its process lives.
    Down,
    /// Its worker was killed: a new one is loading, or is not.
    Replaced { at: Moment, prepare: Option<Moment>, loaded: bool },
}

impl Proof {
    /// Why the tier may not be trusted with requests: it is suspected of a hang.
    pub(in crate::policy) fn suspicion(&self) -> Option<&str> {
        match &self.stage {
            Stage::Suspect(Suspect { kind: Kind::Hang | Kind::Replaced { .. }, why, .. }) => Some(why),
            Stage::Proven { blame, hang: true } => blame.evidence.as_deref(),
            Stage::Suspect(Suspect { kind: Kind::Down, .. })
            | Stage::Proven { hang: false, .. }
            | Stage::Calm
            | Stage::Asking(_) => None,
        }
    }

    /// What is done about a suspicion, and when; empty where there is none.
    pub(in crate::policy) fn outlook(&self) -> String {
        let patience = spell(self.patience.suspect);
        match &self.stage {
            Stage::Suspect(Suspect { kind: Kind::Hang, .. }) if self.patience.replaceable_worker => {
                format!("; its worker is replaced if nothing changes for {patience}")
            }
            Stage::Suspect(Suspect { kind: Kind::Hang, .. }) => {
                format!("; it is restarted if nothing changes for {patience}")
            }
            Stage::Suspect(Suspect { kind: Kind::Replaced { .. }, .. }) => {
                "; it is restarted if that does not help".to_owned()
            }
            Stage::Suspect(Suspect { kind: Kind::Down, .. })
            | Stage::Calm
            | Stage::Asking(_)
            | Stage::Proven { .. } => String::new(),
        }
    }

    /// Is a one-token request wanted? Not while a new worker loads: a Try that times out would abort the load.
    pub(in crate::policy) fn wants_try(&self) -> bool {
        match &self.stage {
            Stage::Suspect(Suspect { kind: Kind::Hang, .. }) => true,
            Stage::Suspect(Suspect { kind: Kind::Replaced { loaded, .. }, .. }) => *loaded,
            Stage::Suspect(Suspect { kind: Kind::Down, .. })
            | Stage::Calm
            | Stage::Asking(_)
            | Stage::Proven { .. } => false,
        }
    }

    /// Is the tier DOWN for another reason than silence?
    pub(in crate::policy) fn down(&mut self, down: bool, now: Moment) {
        match &mut self.stage {
            Stage::Calm if down => self.suspect(Kind::Down, Counter::new(now), NO_ANSWER.to_owned(), now),
            Stage::Asking(asking) if down => {
                let counter = std::mem::replace(&mut asking.counter, Counter::new(now));
                self.suspect(Kind::Down, counter, NO_ANSWER.to_owned(), now);
            }
            Stage::Suspect(Suspect { kind: Kind::Down, .. }) if !down => self.up_again(now),
            Stage::Calm | Stage::Asking(_) | Stage::Suspect(_) | Stage::Proven { .. } => {}
        }
    }

    /// A health page that answers proves the page only. Where requests wait and no byte comes, what was counted while the
    /// tier was DOWN stays counted.
    fn up_again(&mut self, now: Moment) {
        let waits = self.look_at().is_some_and(|at| at <= now);
        let Stage::Suspect(suspect) = std::mem::replace(&mut self.stage, Stage::Calm) else { return };
        if !waits {
            return;
        }
        let (since, at_least) = match self.is_silent(now) {
            true => (self.sample.last_progress, Duration::ZERO),
            false => (self.hungry_since.unwrap_or(now), self.patience.silence),
        };
        // Without requests it stands still for another reason.
        let still_since = suspect.still_since.max(since);
        if suspect.counter.is_still() && now.since(still_since) >= at_least {
            let why = self.without_a_byte(&suspect.counter);
            self.stage = Stage::Suspect(Suspect { kind: Kind::Hang, still_since, why, ..suspect });
        } else {
            let (doubts, ends_after, counter) = (Doubts::default(), Moment::default(), suspect.counter);
            self.stage = Stage::Asking(Asking { doubts, ends_after, began: now, at_least, counter });
        }
    }

    fn suspect(&mut self, kind: Kind, counter: Counter, why: String, now: Moment) {
        self.stage =
            Stage::Suspect(Suspect { kind, still_since: now, readings: 0, tries_failed: 0, counter, why });
    }

    fn without_a_byte(&self, counter: &Counter) -> String {
        format!("it has sent no byte for {}; {}", spell(self.mute), counter.describe())
    }

    /// Silent, and twice the same figure, or none.
    pub(super) fn frozen(&mut self, now: Moment) {
        let Stage::Asking(asking) = &mut self.stage else { return };
        // A verdict needs a sample that is younger than the question.
        if self.sampled_at < asking.began || now.since(asking.began) < asking.at_least {
            return;
        }
        let counter = std::mem::replace(&mut asking.counter, Counter::new(now));
        let why = self.without_a_byte(&counter);
        self.suspect(Kind::Hang, counter, why, now);
    }

    /// Still nothing. Is it long enough?
    pub(super) fn judge(&mut self, turn: &mut Turn) {
        let now = turn.now;
        let Stage::Suspect(suspect) = &self.stage else { return };
        let still = now.since(suspect.still_since);
        let whole = self.patience.suspect;
        let looked = |over: Duration| still >= over && COUNT_EVERY * suspect.readings * 3 >= over;
        let replaced_lately = self.worker_killed_at.is_some_and(|at| now.since(at) < WORKER_AGAIN);
        match &suspect.kind {
            // A hung Ollama runner blocks every load behind it, and replacing it costs one load, not a start. So a quarter
            // of the patience is enough, when every look in that time found its CPU time unchanged (a working runner
            // always burns some) and a request of our own got no answer.
            Kind::Hang if self.patience.replaceable_worker && !replaced_lately => {
                if (looked(whole / 4) && suspect.tries_failed > 0) || looked(whole) {
                    self.replace_worker(turn);
                }
            }
            Kind::Hang if looked(whole) => {
                let evidence = format!("{}; nothing changed for {}", suspect.why, spell(still));
                self.stage = Stage::Proven { blame: Blame::hang(evidence), hang: true };
            }
            Kind::Down if looked(whole) => {
                let counter = suspect.counter.describe();
                let evidence = format!(
                    "its checks or trials fail while its process lives; {counter}; nothing changed for {}",
                    spell(still)
                );
                self.stage = Stage::Proven { blame: Blame::hang(evidence), hang: false };
            }
            Kind::Replaced { at, .. }
                if looked((whole / 2).max(REPLACED_STILL_MIN)) || now.since(*at) >= self.patience.cap =>
            {
                let evidence = format!("{}, and that did not help", suspect.why);
                self.stage = Stage::Proven { blame: Blame::hang(evidence), hang: true };
            }
            Kind::Hang | Kind::Down | Kind::Replaced { .. } => {}
        }
    }

    fn replace_worker(&mut self, turn: &mut Turn) {
        let Stage::Suspect(suspect) = &mut self.stage else { return };
        suspect.kind = Kind::Replaced { at: turn.now, prepare: Some(turn.now), loaded: false };
        (suspect.still_since, suspect.readings) = (turn.now, 0);
        turn.tell(Notice::Worker { run: self.run, why: suspect.why.clone() });
        suspect.why.push_str("; its worker was killed");
        self.worker_killed_at = Some(turn.now);
        turn.act(Action::KillWorkers { run: self.run });
    }

    pub(in crate::policy) fn killed_its_worker_since(&self, sent: Moment) -> bool {
        self.worker_killed_at.is_some_and(|at| at >= sent)
    }

    /// Did the engine load its model into a new worker?
    pub(in crate::policy) fn prepared(&mut self, outcome: Prepared, now: Moment) {
        let Stage::Suspect(Suspect { kind: Kind::Replaced { prepare, loaded, .. }, .. }) = &mut self.stage
        else {
            return;
        };
        match outcome {
            Prepared::Ready => *loaded = true,
            Prepared::NotYet => *prepare = Some(now + PREPARE_EVERY),
            Prepared::Impossible { cause, nature, deterministic, evidence } => {
                let blame = Blame::refusal(cause, nature, deterministic, evidence);
                self.stage = Stage::Proven { blame, hang: true };
            }
        }
    }
}

//! A start, from its process to its first answer: how it is asked for one, and what ends it.
use super::{Blame, Duration, Engine, Life, Moment, Ready, Reason, RunId, Still, Turn, spell};
use crate::policy::{Prepared, Startup};

/// How often a starting engine is asked whether it answers. Quick engines are ready within a second and should not wait
/// for the next question; a slow one is not worth four questions a second.
const PREPARE_SOON: Duration = Duration::from_millis(250);
const PREPARE_LATER: Duration = Duration::from_secs(1);
const PREPARE_SOON_FOR: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub(super) struct Starting {
    pub(super) run: RunId,
    pub(super) began: Moment,
    /// For so long the agent did not run since.
    pub(super) missed: Duration,
    /// The last sign of progress.
    pub(super) active: Moment,
    /// What the last look found that saw none.
    pub(super) still: Still,
    /// When to ask next whether it answers. `None`: it has no process yet, or was asked and has not said.
    pub(super) prepare: Option<Moment>,
}

impl Starting {
    pub(super) fn new(run: RunId, now: Moment) -> Self {
        Self { run, began: now, missed: Duration::ZERO, active: now, still: Still::default(), prepare: None }
    }

    pub(super) fn deadline(&self, startup: Startup) -> Moment {
        let ends = self.stalls_at(startup).min(self.capped_at(startup));
        self.prepare.map_or(ends, |prepare| prepare.min(ends))
    }

    fn stalls_at(&self, startup: Startup) -> Moment {
        self.active + startup.stall
    }

    fn capped_at(&self, startup: Startup) -> Moment {
        self.began + startup.cap + self.missed
    }

    /// Neither its longest time nor its longest silence goes on meanwhile.
    pub(super) fn overslept(&mut self, late: Duration) {
        self.missed += late;
        self.active = self.active + late;
    }
}

impl Engine {
    /// What became of asking a starting run whether it answers.
    pub(in crate::policy) fn prepared(&mut self, prepared: Prepared, turn: &mut Turn) {
        let Life::Starting(starting) = &mut self.life else { return };
        let (run, took) = (starting.run, turn.now.since(starting.began));
        let missed = starting.missed;
        match prepared {
            Prepared::NotYet => {
                let pause = if took < PREPARE_SOON_FOR { PREPARE_SOON } else { PREPARE_LATER };
                starting.prepare = Some(turn.now + pause);
            }
            Prepared::Ready => {
                self.strikes.became_ready();
                // What the next start will take is told to clients; this host's sleep is no part of that.
                self.started_in = Some(took.saturating_sub(missed));
                // Stability is counted from ready, and a slow starter has to run longer: an engine that loads for ten
                // minutes and dies after nine is not stable.
                let stable_after = self.settings.restart.stable.max(took * 2);
                let ready = Ready { run, stable_at: Some(turn.now + stable_after) };
                self.turn_into(Life::Ready(ready), format!("ready after {}", spell(took)), turn);
            }
            Prepared::Impossible { cause, nature, deterministic, evidence } => {
                self.stop(Reason::Failed(Blame::refusal(cause, nature, deterministic, evidence)), turn);
            }
        }
    }

    pub(super) fn starting_due(&mut self, turn: &mut Turn) {
        let Life::Starting(starting) = &self.life else { return };
        let startup = self.settings.startup;
        if starting.capped_at(startup) <= turn.now {
            self.stop(Reason::Failed(Blame::hang(format!("not ready after {}", spell(startup.cap)))), turn);
        } else if starting.stalls_at(startup) <= turn.now {
            let evidence = starting.still.evidence(startup.stall);
            self.stop(Reason::Failed(Blame::hang(evidence)), turn);
        } else if starting.prepare.is_some_and(|at| at <= turn.now) {
            turn.prepare(starting.run);
            self.life = Life::Starting(Starting { prepare: None, ..starting.clone() });
        }
    }
}

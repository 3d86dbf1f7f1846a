//! Time in which the agent did not run: the host was suspended, the agent was stopped, or nobody gave it the CPU.
//!
//! The clock goes on meanwhile (it is the one that counts suspended time, too), and nothing is seen or heard. Such time counts
//! against nobody: every clock of seconds that runs goes on where it stood, and what failed meanwhile is asked again. Pauses
//! before a start are not prolonged.
use super::super::turn::Errand;
use super::{Engine, Host, Tier};
use crate::policy::{Checked, Moment, Outcome, Prepared, Tried};
use std::time::Duration;

/// While anything is timed the host is stepped this often, so that it can tell when it was not.
const PULSE: Duration = Duration::from_secs(2);
/// A deadline that is served this late was not served late by work.
const OVERSLEPT: Duration = Duration::from_secs(3);

impl Host {
    /// When to step at the latest; `None` where nothing runs that could be misjudged.
    pub(super) fn pulse(&self) -> Option<Moment> {
        let timed = self.turn.asks()
            || self.engines.iter().any(Engine::is_timed)
            || self.tiers.iter().any(Tier::is_present);
        timed.then(|| self.turn.now + PULSE)
    }

    /// The step before this one is over, and what was due next is served so late.
    pub(super) fn overslept(&mut self, late: Duration) {
        if late <= OVERSLEPT {
            return;
        }
        self.turn.overslept(late);
        self.engines.iter_mut().for_each(|engine| engine.overslept(late));
        self.tiers.iter_mut().for_each(|tier| tier.overslept(late));
        if let Some(farewell) = &mut self.farewell {
            farewell.until = farewell.until + late;
        }
    }

    /// What became of it proves nothing.
    pub(super) fn ask_again(&mut self, errand: Errand) {
        let tier = match errand {
            Errand::Prepare(run) => return self.prepared(run, &Prepared::NotYet),
            Errand::Check(tier) | Errand::Count(tier) | Errand::Try(tier) => tier,
        };
        let Some(tier) = self.tiers.get_mut(usize::from(tier.0)) else { return };
        match errand {
            Errand::Check(_) => tier.check_again(&self.turn),
            Errand::Count(_) => tier.not_counted(&self.turn),
            Errand::Try(_) => tier.not_tried(&self.turn),
            Errand::Prepare(_) => {}
        }
    }
}

/// What an outcome still says when the agent did not run for `missed` while it was awaited. A good answer is one, and took less
/// time than it seems; a failure may be no more than that nobody listened.
pub(super) fn heard(outcome: Outcome, missed: Duration) -> Option<Outcome> {
    if missed.is_zero() {
        return Some(outcome);
    }
    match outcome {
        Outcome::Checked(Checked::Passed { latency }) => {
            // What took less had come before.
            let latency = latency.checked_sub(missed).unwrap_or(latency);
            Some(Outcome::Checked(Checked::Passed { latency }))
        }
        Outcome::Checked(Checked::Failed(_))
        | Outcome::Counted(None)
        | Outcome::Tried(Tried::TimedOut | Tried::Failed { .. } | Tried::Refused { .. }) => None,
        Outcome::Counted(Some(_))
        | Outcome::Tried(Tried::Passed)
        | Outcome::Prepared(_)
        | Outcome::NotAsked(_) => Some(outcome),
    }
}

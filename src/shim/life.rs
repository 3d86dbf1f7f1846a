//! PURE. The life of one run as its shim sees it: from "running" to "nothing is left", each state with a way out.
//!
//! ```text
//! Running ──term──▶ Terminating ──grace over, kill──▶ Killing ◀───────────────┐
//!    │ main exits        │ main exits                    │ nobody left         │ survivors found
//!    ▼                   ▼                               ▼                     │
//! Settling (the rest gets a moment to clean up) ──▶ Verifying (one last look) ─┤
//!                                                        │ nothing             │ (or could not look)
//!                                                        ▼                     │
//!                                                       Over ──released, abandoned, or a minute later──▶ gone
//! ```
//! From the first KILL on a deadline runs; when it passes, what is left is reported, and the trying goes on. While this host
//! lacks what a look or a KILL takes, nothing counts as ended, and the deadline waits.
use super::protocol::Asked;
use crate::policy::{Moment, SETTLE};
use std::time::Duration;

/// Between two looks at a tree that settles. Reaped orphans make it look sooner.
const SETTLE_LOOK: Duration = Duration::from_millis(100);
/// Between a KILL and the next look, doubled each time up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a shim waits to be released before it leaves: whoever adopts it later finds the exit record.
const UNRELEASED: Duration = Duration::from_secs(60);

/// What the keeper must do now, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// TERM to the main process.
    TermMain,
    /// KILL to everything below the shim. Answer with [`Life::looked`].
    KillTree,
    /// See who is there, the main process included while it is not reaped. Answer with [`Life::looked`].
    Look,
    /// KILL to these, which are not below the shim but are of the run.
    KillThese(Vec<Found>),
    /// Start the last look. Answer with [`Life::swept`].
    Sweep,
    /// Record and say that this is all that is left.
    SayEnded(Vec<u32>),
    /// End the shim.
    Leave,
}

/// How an end is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Term { grace: Duration },
    Kill,
}

/// A process, by its pid and when it started, in clock ticks since boot.
pub(super) type Found = (u32, u64);

/// What the last look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    /// Processes of the run, wherever they are in the tree of the host.
    pub alive: Vec<Found>,
    /// Processes that are not of the run but hold its listener.
    pub holding: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Terminating { kill_at: Moment },
    Settling { kill_at: Moment, look_at: Moment },
    Killing { look_at: Moment, pause: Duration },
    Verifying { pause: Duration },
    Over { leave_at: Moment },
}

#[derive(Debug)]
pub(super) struct Life {
    phase: Phase,
    main_alive: bool,
    abandoned: bool,
    asked: Option<Asked>,
    reap_deadline: Duration,
    /// When killing began.
    kill_since: Option<Moment>,
    /// What was last reported as left.
    told: Option<Vec<u32>>,
}

impl Life {
    /// A run whose main process lives.
    pub fn new(reap_deadline: Duration) -> Self {
        Self {
            phase: Phase::Running,
            main_alive: true,
            abandoned: false,
            asked: None,
            reap_deadline,
            kill_since: None,
            told: None,
        }
    }

    /// A run that never had a process.
    pub fn failed(now: Moment) -> Self {
        let mut life = Self::new(Duration::ZERO);
        life.main_alive = false;
        life.phase = Phase::Over { leave_at: now + UNRELEASED };
        life
    }

    /// Who asked for the end before it came.
    pub fn asked(&self) -> Option<Asked> {
        self.asked
    }

    pub fn deadline(&self) -> Option<Moment> {
        match self.phase {
            Phase::Running | Phase::Verifying { .. } => None,
            Phase::Terminating { kill_at } => Some(kill_at),
            Phase::Settling { kill_at, look_at } => Some(kill_at.min(look_at)),
            Phase::Killing { look_at, .. } => Some(look_at),
            Phase::Over { leave_at } => Some(leave_at),
        }
    }

    pub fn ask(&mut self, now: Moment, stop: Stop, by: Asked) -> Vec<Step> {
        if self.main_alive && self.asked.is_none() {
            self.asked = Some(by);
        }
        match (self.phase, stop) {
            (Phase::Running, Stop::Term { grace }) if !grace.is_zero() => {
                self.phase = Phase::Terminating { kill_at: now + grace };
                vec![Step::TermMain]
            }
            // A second TERM would make vLLM break off its cleaning up, and llama-server its answers: none is sent.
            (Phase::Terminating { kill_at }, Stop::Term { grace }) => {
                self.phase = Phase::Terminating { kill_at: kill_at.min(now + grace) };
                vec![]
            }
            (Phase::Settling { .. }, Stop::Term { .. }) => vec![],
            (Phase::Running | Phase::Terminating { .. } | Phase::Settling { .. }, _) => self.kill(now),
            (Phase::Killing { .. } | Phase::Verifying { .. } | Phase::Over { .. }, _) => vec![],
        }
    }

    /// The main process is reaped, and its end recorded.
    pub fn main_exited(&mut self, now: Moment) -> Vec<Step> {
        self.main_alive = false;
        match self.phase {
            Phase::Running | Phase::Terminating { .. } => {
                self.phase = Phase::Settling { kill_at: now + SETTLE, look_at: now + SETTLE_LOOK };
                vec![Step::Look]
            }
            Phase::Settling { .. } | Phase::Killing { .. } => self.child_reaped(now),
            Phase::Verifying { .. } | Phase::Over { .. } => vec![],
        }
    }

    /// Some process of the run is reaped: it is worth looking again.
    pub fn child_reaped(&mut self, now: Moment) -> Vec<Step> {
        match &mut self.phase {
            Phase::Settling { look_at, .. } | Phase::Killing { look_at, .. } => *look_at = now,
            Phase::Running | Phase::Terminating { .. } | Phase::Verifying { .. } | Phase::Over { .. } => {}
        }
        vec![]
    }

    /// These processes of the run were there a moment ago.
    pub fn looked(&mut self, now: Moment, left: Vec<u32>) -> Vec<Step> {
        match self.phase {
            Phase::Settling { .. } | Phase::Killing { .. } if left.is_empty() && !self.main_alive => {
                let pause = match self.phase {
                    Phase::Killing { pause, .. } => pause,
                    _ => PAUSE_MIN,
                };
                self.phase = Phase::Verifying { pause };
                vec![Step::Sweep]
            }
            Phase::Killing { .. } => self.report_late(now, left),
            Phase::Running
            | Phase::Terminating { .. }
            | Phase::Settling { .. }
            | Phase::Verifying { .. }
            | Phase::Over { .. } => vec![],
        }
    }

    /// This host lacks what a look, the last look or a KILL takes (descriptors, memory, processes): nobody knows what is left,
    /// and what is left was perhaps sent nothing. It is tried again after a pause.
    pub fn cannot_look(&mut self, now: Moment) {
        match self.phase {
            Phase::Verifying { pause } => {
                self.phase = Phase::Killing { look_at: now + pause, pause: next_pause(pause) };
                self.kill_since = Some(now);
            }
            Phase::Killing { .. } => self.kill_since = Some(now),
            Phase::Running | Phase::Terminating { .. } | Phase::Settling { .. } | Phase::Over { .. } => {}
        }
    }

    /// The last look is over, whether it could see all or hung.
    pub fn swept(&mut self, now: Moment, found: Swept) -> Vec<Step> {
        let Phase::Verifying { pause } = self.phase else { return vec![] };
        if found.alive.is_empty() && found.holding.is_empty() {
            self.phase = Phase::Over { leave_at: now + UNRELEASED };
            let mut steps = vec![Step::SayEnded(vec![])];
            steps.extend(self.abandoned.then_some(Step::Leave));
            return steps;
        }
        self.kill_since.get_or_insert(now);
        self.phase = Phase::Killing { look_at: now + pause, pause: next_pause(pause) };
        let mut left = found.holding;
        let mut steps = vec![];
        if !found.alive.is_empty() {
            left.extend(found.alive.iter().map(|(pid, _)| *pid));
            steps.push(Step::KillThese(found.alive));
        }
        steps.extend(self.report_late(now, left));
        steps
    }

    /// The end is recorded elsewhere: the shim may leave, if there is an end.
    pub fn released(&mut self) -> Vec<Step> {
        if matches!(self.phase, Phase::Over { .. }) || self.told.is_some() {
            vec![Step::Leave]
        } else {
            vec![]
        }
    }

    /// Nobody is left whom the run is for: stop it, and leave when it has ended.
    pub fn abandoned(&mut self, now: Moment, grace: Duration, by: Asked) -> Vec<Step> {
        self.abandoned = true;
        let mut steps = self.released();
        if steps.is_empty() {
            steps = self.ask(now, Stop::Term { grace }, by);
        }
        steps
    }

    /// The moment that [`Life::deadline`] named has come.
    pub fn tick(&mut self, now: Moment) -> Vec<Step> {
        match self.phase {
            Phase::Terminating { kill_at } if now >= kill_at => self.kill(now),
            Phase::Settling { kill_at, .. } if now >= kill_at => self.kill(now),
            Phase::Settling { kill_at, look_at } if now >= look_at => {
                self.phase = Phase::Settling { kill_at, look_at: now + SETTLE_LOOK };
                vec![Step::Look]
            }
            Phase::Killing { look_at, pause } if now >= look_at => {
                self.phase = Phase::Killing { look_at: now + pause, pause: next_pause(pause) };
                vec![Step::KillTree]
            }
            Phase::Over { leave_at } if now >= leave_at => vec![Step::Leave],
            Phase::Running
            | Phase::Terminating { .. }
            | Phase::Settling { .. }
            | Phase::Killing { .. }
            | Phase::Verifying { .. }
            | Phase::Over { .. } => vec![],
        }
    }

    fn kill(&mut self, now: Moment) -> Vec<Step> {
        self.kill_since = Some(now);
        self.phase = Phase::Killing { look_at: now + PAUSE_MIN, pause: PAUSE_MIN };
        vec![Step::KillTree]
    }

    /// Past the deadline, says what is left, once for each different answer.
    fn report_late(&mut self, now: Moment, mut left: Vec<u32>) -> Vec<Step> {
        left.sort_unstable();
        left.dedup();
        let late = self.kill_since.is_some_and(|since| now.since(since) >= self.reap_deadline);
        if !late || left.is_empty() || self.told.as_ref() == Some(&left) {
            return vec![];
        }
        self.told = Some(left.clone());
        let mut steps = vec![Step::SayEnded(left)];
        // Nobody listens, and nothing more can be done here.
        steps.extend(self.abandoned.then_some(Step::Leave));
        steps
    }
}

fn next_pause(pause: Duration) -> Duration {
    (pause * 2).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests;

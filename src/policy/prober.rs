//! The life of the process that asks the GPU driver: when to start it, ask it, give it up, and what may be said meanwhile.
//!
//! A call into the driver can hang for ever, also in a way that no signal ends. So each question has two deadlines, and a
//! process that survives KILL is left alone: another one on the same driver would only hang as well.
//!
//! ```text
//!            spawned                answered                         `every`
//! Waiting ─────────────► Asked ──────────────────► Resting ───────────────────► Asked
//!    ▲                     │ `soft`: unresponsive     │
//!    │  it ended: backoff  │ `hard`, or garbage       │ garbage
//!    ├──────────────────◄──┤                          │
//!    │                     ▼                          │
//!    ├─────────────◄── Killed ◄───────────────────────┘
//!    │   it is gone        │ still there after `kill`: wedged
//!    └─────────────◄── Abandoned
//! ```
//! What says that there is no driver, or that it cannot begin, is `Leaving`: it ends by itself, or is killed.
#[cfg(test)]
mod tests;

use super::Moment;
use super::words::spell;
use std::time::Duration;

/// How patient the machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From an answer to the next question.
    pub every: Duration,
    /// Without an answer for this long it is *unresponsive*.
    pub soft: Duration,
    /// Without an answer for this long it is killed.
    pub hard: Duration,
    /// The same for the first question of a process: until then the driver attaches every GPU, which takes seconds for
    /// each one that nothing else holds open.
    pub first: Duration,
    /// What lives this long after KILL is *wedged*; what said that it leaves has as long.
    pub kill: Duration,
    /// Before the process after the first failure; doubled for each further one, up to `again_max`.
    pub again: Duration,
    pub again_max: Duration,
    /// Before it is looked again whether there is a driver.
    pub no_driver: Duration,
    /// After this long with answers, failures before are forgotten.
    pub stable: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            every: seconds(5),
            soft: seconds(3),
            hard: seconds(10),
            first: seconds(60),
            kill: seconds(5),
            again: seconds(1),
            again_max: seconds(5 * 60),
            no_driver: seconds(10 * 60),
            stable: seconds(5 * 60),
        }
    }
}

/// What reaches the machine. There is one process at most, so no event names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeEvent {
    Spawned,
    /// No process could be made, and why.
    SpawnFailed(String),
    /// It answered the question of this number.
    Answered(u64, Said),
    /// What it sent is no answer, and why not.
    Garbage(String),
    /// The process is gone.
    Ended,
    Deadline,
    /// The agent ends.
    Stop,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Here is a reading. The driver's version, where it tells one.
    Reading { driver: Option<String> },
    /// There is no driver, or none with a GPU, and why; it leaves.
    NoDriver { driver: Option<String>, why: String },
    /// The driver is there and cannot be asked, and why; it leaves.
    Failed { driver: Option<String>, why: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeAction {
    /// Start a process; `Spawned` or `SpawnFailed` follows.
    Spawn,
    /// Ask the question of this number.
    Ask(u64),
    /// The reading that came with this answer is good.
    Take,
    /// Hear nothing more of it, and send SIGKILL; `Ended` follows, or never.
    Kill,
}

/// What is said of the probe. There is no state "off" in here: a machine that exists is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeState {
    /// Nothing is known yet.
    Starting,
    Ok,
    NoDriver,
    /// It does not answer, or does not live long enough to.
    Unresponsive,
    /// It hangs in the driver and survives SIGKILL.
    Wedged,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeStatus {
    pub state: ProbeState,
    /// Since when it is in this state.
    pub since: Moment,
    /// For people.
    pub reason: String,
    /// The driver's version, as last told.
    pub driver: Option<String>,
}

#[derive(Debug)]
pub struct Prober {
    pace: Pace,
    stage: Stage,
    status: ProbeStatus,
    /// The number of the last question; never reused.
    asked: u64,
    /// In a row.
    failures: u32,
    /// Since when the process that lives gives answers.
    answers_since: Option<Moment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No process lives.
    Waiting {
        until: Moment,
    },
    /// `Spawn` was said.
    Spawning,
    /// A question is open. `late`: the soft deadline has passed.
    Asked {
        at: Moment,
        hard: Duration,
        late: bool,
    },
    Resting {
        until: Moment,
    },
    /// It said that it ends. `pause` comes before the next one.
    Leaving {
        until: Moment,
        pause: Duration,
    },
    Killed {
        until: Moment,
        pause: Duration,
    },
    /// It survived KILL.
    Abandoned {
        pause: Duration,
    },
    Stopped,
}

impl Prober {
    /// The first process is due at once.
    pub fn new(pace: Pace, now: Moment) -> Self {
        let status = ProbeStatus {
            state: ProbeState::Starting,
            since: now,
            reason: "the first reading has not come yet".to_owned(),
            driver: None,
        };
        Self {
            pace,
            stage: Stage::Waiting { until: now },
            status,
            asked: 0,
            failures: 0,
            answers_since: None,
        }
    }

    pub fn status(&self) -> &ProbeStatus {
        &self.status
    }

    /// Does a process survive SIGKILL?
    pub fn is_wedged(&self) -> bool {
        matches!(self.stage, Stage::Abandoned { .. })
    }

    /// When `Deadline` is to be said; `None` while only an event can change anything.
    pub fn next_deadline(&self) -> Option<Moment> {
        match self.stage {
            Stage::Asked { at, late: false, .. } => Some(at + self.pace.soft),
            Stage::Asked { at, hard, late: true } => Some(at + hard),
            Stage::Waiting { until }
            | Stage::Resting { until }
            | Stage::Leaving { until, .. }
            | Stage::Killed { until, .. } => Some(until),
            Stage::Spawning | Stage::Abandoned { .. } | Stage::Stopped => None,
        }
    }

    pub fn on(&mut self, now: Moment, event: ProbeEvent) -> Vec<ProbeAction> {
        match event {
            ProbeEvent::Spawned => self.spawned(now),
            ProbeEvent::SpawnFailed(why) => self.spawn_failed(now, &why),
            ProbeEvent::Answered(ask, said) => self.answered(now, ask, said),
            ProbeEvent::Garbage(what) => self.garbage(now, &what),
            ProbeEvent::Ended => self.ended(now),
            ProbeEvent::Deadline => self.deadline(now),
            ProbeEvent::Stop => self.stop(),
        }
    }

    fn spawned(&mut self, now: Moment) -> Vec<ProbeAction> {
        match self.stage {
            Stage::Spawning => self.ask(now, self.pace.first),
            // The agent ended in between.
            Stage::Stopped => vec![ProbeAction::Kill],
            Stage::Waiting { .. }
            | Stage::Asked { .. }
            | Stage::Resting { .. }
            | Stage::Leaving { .. }
            | Stage::Killed { .. }
            | Stage::Abandoned { .. } => Vec::new(),
        }
    }

    fn spawn_failed(&mut self, now: Moment, why: &str) -> Vec<ProbeAction> {
        match self.stage {
            Stage::Spawning => {
                let pause = self.failed(now, format!("no probe could be started: {why}"));
                self.stage = Stage::Waiting { until: now + pause };
            }
            Stage::Waiting { .. }
            | Stage::Asked { .. }
            | Stage::Resting { .. }
            | Stage::Leaving { .. }
            | Stage::Killed { .. }
            | Stage::Abandoned { .. }
            | Stage::Stopped => {}
        }
        Vec::new()
    }

    fn answered(&mut self, now: Moment, ask: u64, said: Said) -> Vec<ProbeAction> {
        match self.stage {
            Stage::Asked { .. } if ask == self.asked => self.heard(now, said),
            Stage::Asked { .. } | Stage::Resting { .. } => {
                self.garbage(now, "an answer that nobody asked for")
            }
            Stage::Waiting { .. }
            | Stage::Spawning
            | Stage::Leaving { .. }
            | Stage::Killed { .. }
            | Stage::Abandoned { .. }
            | Stage::Stopped => Vec::new(),
        }
    }

    /// The answer to the open question.
    fn heard(&mut self, now: Moment, said: Said) -> Vec<ProbeAction> {
        match said {
            Said::Reading { driver } => {
                self.status.driver = driver;
                self.say(now, ProbeState::Ok, "it answers".to_owned());
                self.answers_since.get_or_insert(now);
                self.stage = Stage::Resting { until: now + self.pace.every };
                vec![ProbeAction::Take]
            }
            Said::NoDriver { driver, why } => {
                self.status.driver = driver;
                self.say(now, ProbeState::NoDriver, why);
                self.failures = 0;
                self.answers_since = None;
                self.stage = Stage::Leaving { until: now + self.pace.kill, pause: self.pace.no_driver };
                Vec::new()
            }
            Said::Failed { driver, why } => {
                self.status.driver = driver.or_else(|| self.status.driver.take());
                let pause = self.failed(now, why);
                self.stage = Stage::Leaving { until: now + self.pace.kill, pause };
                Vec::new()
            }
        }
    }

    fn garbage(&mut self, now: Moment, what: &str) -> Vec<ProbeAction> {
        match self.stage {
            Stage::Asked { .. } | Stage::Resting { .. } => {
                self.kill(now, format!("the probe sent garbage: {what}"))
            }
            // It leaves already, and is not listened to.
            Stage::Waiting { .. }
            | Stage::Spawning
            | Stage::Leaving { .. }
            | Stage::Killed { .. }
            | Stage::Abandoned { .. }
            | Stage::Stopped => Vec::new(),
        }
    }

    fn ended(&mut self, now: Moment) -> Vec<ProbeAction> {
        match self.stage {
            Stage::Asked { .. } | Stage::Resting { .. } => {
                let pause = self.failed(now, "the probe crashed".to_owned());
                self.stage = Stage::Waiting { until: now + pause };
            }
            Stage::Leaving { pause, .. } | Stage::Killed { pause, .. } => {
                self.stage = Stage::Waiting { until: now + pause };
            }
            Stage::Abandoned { pause } => {
                let why = "the probe that was stuck in the driver is gone; another one follows";
                self.say(now, ProbeState::Unresponsive, why.to_owned());
                self.stage = Stage::Waiting { until: now + pause };
            }
            Stage::Waiting { .. } | Stage::Spawning | Stage::Stopped => {}
        }
        Vec::new()
    }

    fn deadline(&mut self, now: Moment) -> Vec<ProbeAction> {
        if self.next_deadline().is_none_or(|at| now < at) {
            return Vec::new();
        }
        match self.stage {
            Stage::Waiting { .. } => {
                self.stage = Stage::Spawning;
                vec![ProbeAction::Spawn]
            }
            Stage::Resting { .. } => self.ask(now, self.pace.hard),
            Stage::Asked { at, hard, late: false } => {
                let why = format!("no answer for {}", spell(now.since(at)));
                self.say(now, ProbeState::Unresponsive, why);
                self.stage = Stage::Asked { at, hard, late: true };
                Vec::new()
            }
            Stage::Asked { at, late: true, .. } => {
                self.kill(now, format!("no answer for {}; the probe was killed", spell(now.since(at))))
            }
            Stage::Leaving { pause, .. } => {
                self.stage = Stage::Killed { until: now + self.pace.kill, pause };
                vec![ProbeAction::Kill]
            }
            Stage::Killed { pause, .. } => {
                let why = "the probe survives SIGKILL: it is stuck in the driver, and no other is started before it is gone";
                self.say(now, ProbeState::Wedged, why.to_owned());
                self.stage = Stage::Abandoned { pause };
                Vec::new()
            }
            Stage::Spawning | Stage::Abandoned { .. } | Stage::Stopped => Vec::new(),
        }
    }

    fn stop(&mut self) -> Vec<ProbeAction> {
        let lives = match self.stage {
            Stage::Asked { .. } | Stage::Resting { .. } | Stage::Leaving { .. } => true,
            Stage::Waiting { .. }
            | Stage::Spawning
            | Stage::Killed { .. }
            | Stage::Abandoned { .. }
            | Stage::Stopped => false,
        };
        self.stage = Stage::Stopped;
        if lives { vec![ProbeAction::Kill] } else { Vec::new() }
    }

    fn ask(&mut self, now: Moment, hard: Duration) -> Vec<ProbeAction> {
        self.asked += 1;
        self.stage = Stage::Asked { at: now, hard, late: false };
        vec![ProbeAction::Ask(self.asked)]
    }

    fn kill(&mut self, now: Moment, why: String) -> Vec<ProbeAction> {
        let pause = self.failed(now, why);
        self.stage = Stage::Killed { until: now + self.pace.kill, pause };
        vec![ProbeAction::Kill]
    }

    /// Counts a failure; the pause before the next process.
    fn failed(&mut self, now: Moment, why: String) -> Duration {
        if self.answers_since.take().is_some_and(|since| now.since(since) >= self.pace.stable) {
            self.failures = 0;
        }
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let pause = self.pace.again.saturating_mul(1 << doublings).min(self.pace.again_max);
        let again = match self.failures {
            1 => format!("; another one follows after {}", spell(pause)),
            n => format!("; {n} failures in a row, another one follows after {}", spell(pause)),
        };
        self.say(now, ProbeState::Unresponsive, why + &again);
        pause
    }

    fn say(&mut self, now: Moment, state: ProbeState, reason: String) {
        if self.status.state != state {
            self.status.state = state;
            self.status.since = now;
        }
        self.status.reason = reason;
    }
}

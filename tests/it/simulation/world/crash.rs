//! A crash of the agent, and what is left of its runs meanwhile.
//!
//! Its lifeline closes then: each shim ends its engine within the grace, and leaves also where something withstands KILL. The
//! next agent finds the numbers of the runs whose intent was saved, and the incidents. A run that it starts waits until no
//! earlier one of its engine is left.
use super::{Coming, World};
use crate::simulation::dice::Dice;
use crate::simulation::fake::{Flow, Mood, Process};
use mainstay::policy::{Cause, EngineEvent, Event, Moment, Nature, Remains, RunId, Saved, Settings};
use std::time::Duration;

const S: Duration = Duration::from_secs(1);
/// An agent is young for so many steps: the next crash is more likely then, among runs of several agents.
const YOUNG: u64 = 30;
/// From KILL by its shim to the shim's end, where something of the run withstands.
const SHIM_LEAVES: Duration = Duration::from_secs(15);
/// How long an agent kills what outlived its shim before it says so.
const KILL_LIMIT: Duration = Duration::from_secs(30);

/// When agents crash. It has dice of its own: what else happens to a host does not depend on them.
pub struct Crashes {
    dice: Dice,
    /// In 100,000 steps that do nothing.
    chance: u64,
    /// Steps of the agent that lives.
    age: u64,
}

/// What is left of a run of an agent that crashed.
pub struct Earlier {
    pub run: RunId,
    ends_at: Moment,
    /// Its shim has left by then, and something withstands KILL.
    orphaned_at: Option<Moment>,
}

/// A run that waits for the end of earlier ones.
#[derive(Clone, Copy)]
pub struct Waiting {
    run: RunId,
    /// It was told that something withstands KILL.
    is_wedged: bool,
}

impl Crashes {
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0xC0DE_DEAD);
        let chance = dice.pick(&[0, 0, 5, 20, 100]);
        Self { dice, chance, age: 0 }
    }

    fn abandon(&mut self, process: &Process, grace: Duration, now: Moment) -> Earlier {
        let hears = !process.deaf && matches!(process.mood, Mood::Fine | Mood::Slow | Mood::HealthBroken);
        let ends_at = if process.mute > 0 {
            // Its shim is dead: the next agent finds it.
            now + self.dice.seconds(5, 7)
        } else if !process.main_alive || (hears && process.is_loaded(now)) {
            now + self.dice.millis(20, 3_000)
        } else {
            now + grace + self.dice.millis(5, 900)
        };
        let withstands_until = process.wedged_until.filter(|until| *until > ends_at);
        let withstands_until =
            withstands_until.or_else(|| self.dice.permille(100).then(|| ends_at + self.dice.seconds(1, 600)));
        Earlier {
            run: process.run,
            ends_at: withstands_until.unwrap_or(ends_at),
            orphaned_at: withstands_until.map(|_| now + grace + SHIM_LEAVES),
        }
    }
}

impl World {
    /// Does the agent crash in this step? Then after how many of its actions.
    pub fn crashes_after(&mut self, actions: usize) -> Option<usize> {
        let Crashes { dice, chance, age } = &mut self.crashes;
        *age += 1;
        let chance = if *age < YOUNG && *chance > 0 { 1_000 } else { *chance * (1 + 2 * actions as u64) };
        (dice.below(100_000) < chance).then(|| dice.below(actions as u64 + 1) as usize)
    }

    /// The agent is gone. Nothing that was on its way to it arrives. A while later the next one begins, with this.
    pub fn lose_agent(&mut self) -> (Settings, Saved) {
        let is_of_people =
            |coming: &Coming| matches!(coming, Coming::Recover(_) | Coming::Event(Event::Operator(..)));
        self.queue.retain(|_, (_, coming)| is_of_people(coming));
        for process in std::mem::take(&mut self.processes) {
            let grace = self.settings.engines[usize::from(process.run.engine.0)].stop_grace;
            self.earlier.push(self.crashes.abandon(&process, grace, self.now));
        }
        self.waiting.clear();
        self.over.clear();
        self.flows.fill(Flow::default());
        self.next_sample = None;
        self.crashes.age = 0;
        self.now = self.now + self.crashes.dice.millis(100, 5_000);
        self.agent_since = self.now;
        let settings = Settings { seed: self.crashes.dice.below(u64::MAX), ..self.settings.clone() };
        (settings, Saved { last_runs: self.last_runs.clone() })
    }

    /// Runs of agents that crashed, as far as something of them lives.
    pub fn earlier(&self) -> impl Iterator<Item = &Earlier> {
        self.earlier.iter().filter(|earlier| earlier.ends_at > self.now)
    }

    /// This run has not begun, and cannot: something of an earlier one withstands KILL.
    pub fn is_barred(&self, run: RunId) -> bool {
        self.waiting.get(&run.engine).is_some_and(|waiting| waiting.run == run && waiting.is_wedged)
    }

    /// The run begins when it is alone.
    pub(super) fn start_alone(&mut self, run: RunId) {
        let (now, ended) = (self.now, |earlier: &Earlier, now| earlier.ends_at <= now);
        self.earlier.retain(|earlier| !ended(earlier, now));
        let mine = || self.earlier.iter().filter(|earlier| earlier.run.engine == run.engine);
        let Some(ends_at) = mine().map(|earlier| earlier.ends_at).max() else { return self.start(run) };
        let orphaned_at = mine().filter_map(|earlier| earlier.orphaned_at).max();
        self.waiting.insert(run.engine, Waiting { run, is_wedged: false });
        if let Some(at) = orphaned_at {
            self.after(at.since(now) + KILL_LIMIT, Coming::Withstood(run));
        }
        self.after(ends_at.since(now), Coming::Alone(run));
    }

    /// TERM or KILL to a run that waits to begin. False: it does not wait.
    pub(super) fn stop_waiting(&mut self, run: RunId) -> bool {
        let Some(waiting) = self.waiting.get(&run.engine).filter(|waiting| waiting.run == run) else {
            return false;
        };
        // What is wedged is killed again and again anyway.
        if !waiting.is_wedged {
            self.waiting.remove(&run.engine);
            let evidence = "it was stopped before it was started".to_owned();
            let failed = EngineEvent::SpawnFailed { cause: Cause::Asked, nature: Nature::Engine, evidence };
            self.after(S / 100, Coming::Event(Event::Engine(run, failed)));
        }
        true
    }

    pub(super) fn withstood(&mut self, run: RunId) -> Option<Event> {
        let waiting = self.waiting.get_mut(&run.engine).filter(|waiting| waiting.run == run)?;
        waiting.is_wedged = true;
        self.after(KILL_LIMIT, Coming::Withstood(run));
        Some(Event::Engine(run, EngineEvent::Ended(Remains::Processes(vec![4_711]))))
    }

    pub(super) fn alone(&mut self, run: RunId) -> Option<Event> {
        let waiting = self.waiting.get(&run.engine).copied().filter(|waiting| waiting.run == run)?;
        self.waiting.remove(&run.engine);
        if waiting.is_wedged {
            // It was given up, and another one follows.
            self.gone(run);
            return Some(Event::Engine(run, EngineEvent::Ended(Remains::Nothing)));
        }
        self.start_alone(run);
        None
    }
}

//! How runs come up: they are asked until they answer, they count as ready when they do, a start without any sign of progress
//! is given up after `stall`, and an on-demand engine rests ten minutes after a tier above it can answer.
use super::{Step, Verdict, engine_of, engines, ensure};
use crate::simulation::world::Truth;
use mainstay::policy::{
    Action, Cause, Command, EngineEvent, EngineId, EngineState, Event, Health, Moment, Notice, Outcome,
    Prepared, RunId, StartMode, TierStatus,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const S: Duration = Duration::from_secs(1);
/// From "it answers" to "ready".
const NOTICED: Duration = Duration::from_secs(3);
/// An on-demand engine goes on for ten minutes.
const UNNEEDED: Duration = Duration::from_secs(600);

#[derive(Default)]
pub struct Starts {
    /// The last sign of progress of each engine that starts.
    active: BTreeMap<EngineId, Moment>,
    spawned: BTreeSet<RunId>,
    /// Since when a tier above an on-demand engine can answer.
    unneeded: BTreeMap<EngineId, Moment>,
    /// Operators asked for the end of these runs, or they were not needed for ten minutes.
    asked: BTreeSet<RunId>,
}

impl Starts {
    pub fn step(&mut self, step: &Step) -> Verdict {
        if step.truth == Truth::Fresh {
            self.hear(step);
        }
        for action in step.actions {
            if let Action::Tell(notice) = action {
                self.notice(step, notice)?;
            }
        }
        self.demand(step);
        self.limits(step)
    }

    fn hear(&mut self, step: &Step) {
        let now = step.world.now;
        match step.event {
            Event::Engine(run, EngineEvent::Spawned { .. }) => {
                self.spawned.insert(*run);
                self.active.insert(run.engine, now);
            }
            Event::Engine(run, EngineEvent::Activity) => {
                self.active.insert(run.engine, now);
            }
            Event::Operator(tier, command) => {
                if let Some(engine) = engine_of(step.world, *tier) {
                    self.unneeded.remove(&engine);
                    if *command != Command::Start {
                        let run = engines(&step.before.status)
                            .find(|(id, ..)| id == tier)
                            .and_then(|(.., e)| e.run);
                        self.asked.extend(run);
                    }
                }
            }
            Event::Engine(..) | Event::Tier(..) | Event::Done(..) | Event::Shutdown(_) | Event::Deadline => {}
        }
    }

    fn notice(&mut self, step: &Step, notice: &Notice) -> Verdict {
        let now = step.world.now;
        match notice {
            Notice::Engine { run, to: EngineState::Starting, .. } => {
                self.active.insert(run.engine, now);
                self.asked.retain(|of| of.engine != run.engine);
                self.spawned.retain(|of| of.engine != run.engine);
            }
            Notice::Engine { run, from: EngineState::Starting, to: EngineState::Ready, .. } => {
                let process = step.world.processes.iter().find(|process| process.run == *run);
                let answers = process.is_none_or(|process| process.loaded_at <= now);
                ensure(answers, || format!("{run} is called ready, and still loads"))?;
            }
            Notice::Engine { run, from, to: EngineState::Stopping, .. } => {
                if self.is_unneeded(step, run.engine) {
                    self.asked.insert(*run);
                }
                if *from == EngineState::Starting {
                    self.given_up(step, *run)?;
                }
            }
            Notice::Exit { run, ending } if ending.cause == Cause::Asked => {
                let asked = step.shut_down || self.asked.contains(run);
                ensure(asked, || format!("nobody asked for the end of {run}"))?;
            }
            Notice::Engine { .. }
            | Notice::Waiting { .. }
            | Notice::Exit { .. }
            | Notice::Health { .. }
            | Notice::CpuFallback { .. }
            | Notice::LastResort { .. }
            | Notice::Worker { .. }
            | Notice::Serving { .. }
            | Notice::Failover { .. }
            | Notice::Return { .. }
            | Notice::AllDown { .. }
            | Notice::Operator { .. } => {}
        }
        Ok(())
    }

    fn is_unneeded(&self, step: &Step, engine: EngineId) -> bool {
        self.unneeded.get(&engine).is_some_and(|since| step.world.now.since(*since) >= UNNEEDED)
    }

    /// A start was ended. Why?
    fn given_up(&self, step: &Step, run: RunId) -> Verdict {
        let told = match step.event {
            Event::Operator(..) | Event::Shutdown(_) | Event::Engine(..) => true,
            Event::Done(_, outcome) => matches!(outcome, Outcome::Prepared(Prepared::Impossible { .. })),
            Event::Tier(..) | Event::Deadline => false,
        };
        let startup = step.world.settings.engines[usize::from(run.engine.0)].startup;
        let still = self.active.get(&run.engine).is_none_or(|at| step.world.now.since(*at) >= startup.stall);
        let began = engines(&step.before.status).find(|(.., e)| e.run == Some(run)).map(|(.., e)| e.since);
        let capped = began.is_none_or(|at| step.world.now.since(at) >= startup.cap);
        ensure(told || still || capped || self.asked.contains(&run), || {
            format!("the start of {run} was given up, and goes on")
        })
    }

    fn demand(&mut self, step: &Step) {
        for (id, _, _) in engines(&step.after.status) {
            let Some(engine) = engine_of(step.world, id) else { continue };
            let is_sound = |tier: &TierStatus| tier.health != Health::Down && !tier.last_resort;
            if step.after.status.tiers[..usize::from(id.0)].iter().any(is_sound) {
                self.unneeded.entry(engine).or_insert(step.world.now);
            } else {
                self.unneeded.remove(&engine);
            }
        }
    }

    fn limits(&self, step: &Step) -> Verdict {
        let (world, unfair) = (step.world, step.world.unfair_at);
        let long = |since: Moment, limit: Duration| world.now.since(since.max(unfair)) > limit;
        for (id, _, engine) in engines(&step.after.status) {
            let Some((of, run)) = engine_of(world, id).zip(engine.run) else { continue };
            let settings = &world.settings.engines[usize::from(of.0)];
            if engine.state == EngineState::Starting {
                let stalls = self.active.get(&of).is_some_and(|at| long(*at, settings.startup.stall + S));
                ensure(!stalls, || format!("the start of {run} shows nothing, and goes on"))?;
                let process = world.processes.iter().find(|process| process.run == run);
                let answers = process.filter(|process| process.is_loaded(world.now) && process.mood.works());
                let late =
                    answers.is_some_and(|process| long(process.loaded_at.max(process.mood_since), NOTICED));
                ensure(!late || !self.spawned.contains(&run), || format!("{run} answers, and is not ready"))?;
            }
            let runs = matches!(engine.state, EngineState::Starting | EngineState::Ready);
            let idles = self.unneeded.get(&of).is_some_and(|since| long(*since, UNNEEDED + S));
            ensure(!(runs && idles) || settings.start != StartMode::OnDemand || step.shut_down, || {
                format!("{run} is not needed, and goes on")
            })?;
        }
        Ok(())
    }
}

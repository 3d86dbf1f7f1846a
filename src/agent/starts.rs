//! How far each start has come, and how long the last ones took: remembered from agent to agent, so that the next start
//! of the same engine and model has a per cent and an end.
use super::seat::{LiveRun, Seat};
use super::world::World;
use crate::alert::{self, Starts};
use crate::kinds::PastStart;
use crate::policy::Moment;
use std::path::Path;
use std::time::Duration;

impl World {
    /// Brings the picture of every start up to `now`. Gives what has come to its end, to be written down.
    pub fn look_at_starts(&mut self, now: Moment) -> Vec<Starts> {
        self.seats.iter_mut().filter_map(|seat| look(seat, now)).collect()
    }

    /// Takes in what earlier agents remembered, as far as it is of the same engine and model.
    pub fn remember_starts(&mut self, remembered: Vec<Starts>) {
        for seat in &mut self.seats {
            let (engine, model) = (seat.tier.kind.name(), seat.tier.model.as_str());
            let found = remembered.iter().find(|starts| starts.is_of(&seat.tier.name, engine, model));
            seat.starts = found.map(past).unwrap_or_default();
        }
    }
}

fn look(seat: &mut Seat, now: Moment) -> Option<Starts> {
    let run = seat.run.as_mut()?;
    if run.remembered {
        return None;
    }
    if !run.was_ready.get() {
        run.height = run.pid.map(|_| run.climb.look(now, &seat.starts));
        return None;
    }
    remember(run, &mut seat.starts, now);
    Some(Starts {
        tier: seat.tier.name.clone(),
        engine: seat.tier.kind.name().to_owned(),
        model: seat.tier.model.clone(),
        starts: seat.starts.iter().map(kept).collect(),
    })
}

fn remember(run: &mut LiveRun, starts: &mut Vec<PastStart>, now: Moment) {
    (run.remembered, run.height) = (true, None);
    starts.push(run.climb.over(now));
    let surplus = starts.len().saturating_sub(alert::STARTS_MAX);
    starts.drain(..surplus);
}

fn kept(start: &PastStart) -> alert::Start {
    start.stages.iter().map(|(stage, took)| (stage.clone(), took.as_secs_f64())).collect()
}

fn past(starts: &Starts) -> Vec<PastStart> {
    let took = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let start = |start: &alert::Start| PastStart {
        stages: start.iter().map(|(stage, seconds)| (stage.clone(), took(*seconds))).collect(),
    };
    starts.starts.iter().map(start).collect()
}

/// What is remembered of these tiers. Reads files.
pub fn load(state_dir: &Path, tiers: &[String]) -> Vec<Starts> {
    tiers.iter().filter_map(|tier| Starts::load(state_dir, tier)).collect()
}

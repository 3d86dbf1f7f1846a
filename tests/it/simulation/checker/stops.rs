//! How runs are ended. A run that takes requests is drained before TERM; connections are cut before any signal; KILL comes
//! after the grace, and soon after the main process has gone; what survives it is killed again once a minute.
use super::{Step, Verdict, engines, ensure};
use crate::simulation::world::Truth;
use mainstay::policy::{
    Action, EngineEvent, EngineState, Event, Moment, Notice, RunId, Shutdown, Standing, TierEvent,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const S: Duration = Duration::from_secs(1);
/// A request may have borrowed the routes just before they changed: a sample that young shows nothing.
const SETTLE: Duration = Duration::from_millis(50);
/// How much later than the shim the agent sends KILL, at most.
const LATE: Duration = Duration::from_secs(6);
/// A main process that is gone leaves orphans: they have this long at least, and that long at most.
const ORPHANS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(8)];
/// From KILL to "wedged".
const REAPED: Duration = Duration::from_secs(36);
const KILL_AGAIN: Duration = Duration::from_secs(61);

#[derive(Default)]
pub struct Stops {
    stopping: BTreeMap<RunId, Stop>,
    cut: BTreeSet<RunId>,
    exited: BTreeMap<RunId, Moment>,
    killed: BTreeMap<RunId, Moment>,
    hurried: bool,
}

struct Stop {
    began: Moment,
    /// Requests went there until then.
    was_open: bool,
    drained: bool,
    terminated: Option<(Moment, Duration)>,
    /// The first KILL.
    killed: Option<Moment>,
}

impl Stops {
    pub fn step(&mut self, step: &Step) -> Verdict {
        if step.truth == Truth::Fresh {
            self.hear(step);
        }
        for action in step.actions {
            self.action(step, action)?;
        }
        self.limits(step)
    }

    fn hear(&mut self, step: &Step) {
        match step.event {
            Event::Engine(run, EngineEvent::Exited(_)) => {
                self.exited.entry(*run).or_insert(step.world.now);
            }
            Event::Shutdown(Shutdown::Now) => self.hurried = true,
            Event::Tier(tier, TierEvent::Sampled(sample)) if sample.in_flight == 0 => {
                let now = step.world.now;
                let run = engines(&step.before.status).find(|(id, ..)| id == tier).and_then(|(.., e)| e.run);
                if let Some(stop) = run.and_then(|run| self.stopping.get_mut(&run)) {
                    stop.drained |= now.since(stop.began) >= SETTLE;
                }
            }
            Event::Engine(..)
            | Event::Tier(..)
            | Event::Operator(..)
            | Event::Done(..)
            | Event::Shutdown(Shutdown::Drain)
            | Event::Deadline => {}
        }
    }

    fn action(&mut self, step: &Step, action: &Action) -> Verdict {
        let now = step.world.now;
        match action {
            Action::Tell(Notice::Engine { run, to: EngineState::Stopping, .. }) => {
                let places = step.before.routes.iter();
                let was_open =
                    places.filter(|route| route.run == Some(*run)).any(|r| r.standing == Standing::Open);
                let (drained, terminated, killed) = (false, None, None);
                self.stopping.insert(*run, Stop { began: now, was_open, drained, terminated, killed });
            }
            Action::Tell(Notice::Engine { run, from: EngineState::Stopping, .. }) => {
                // Where the next run begins at once, it is the one that is named.
                self.stopping.retain(|of, _| of.engine != run.engine);
            }
            Action::Start { run } => {
                let others = |of: &RunId| of.engine != run.engine;
                self.cut.retain(others);
                self.exited.retain(|of, _| others(of));
                self.killed.retain(|of, _| others(of));
            }
            Action::Cut { run } => {
                self.cut.insert(*run);
            }
            Action::Terminate { run, grace } => self.terminate(step, *run, *grace)?,
            Action::Kill { run } => self.kill(step, *run)?,
            Action::SaveIntent { .. }
            | Action::KillWorkers { .. }
            | Action::Check { .. }
            | Action::Prepare { .. }
            | Action::Count { .. }
            | Action::Try { .. }
            | Action::Tell(_)
            | Action::Finish => {}
        }
        Ok(())
    }

    fn terminate(&mut self, step: &Step, run: RunId, grace: Duration) -> Verdict {
        let (now, drain) = (step.world.now, step.world.settings.drain);
        ensure(self.cut.contains(&run), || format!("TERM to {run} before its connections were cut"))?;
        let longest = step.world.settings.engines[usize::from(run.engine.0)].stop_grace;
        ensure(grace <= longest, || format!("{run} gets {grace:?} to end, and may have {longest:?}"))?;
        let Some(stop) = self.stopping.get_mut(&run) else {
            return Err(format!("TERM to {run}, which is not stopping"));
        };
        let drained = !stop.was_open || stop.drained || now.since(stop.began) >= drain;
        ensure(drained, || format!("TERM to {run}, and its requests were not waited for"))?;
        stop.terminated = Some((now, grace));
        Ok(())
    }

    fn kill(&mut self, step: &Step, run: RunId) -> Verdict {
        let now = step.world.now;
        ensure(self.cut.contains(&run), || format!("KILL to {run} before its connections were cut"))?;
        self.killed.insert(run, now);
        if let Some(stop) = self.stopping.get_mut(&run) {
            stop.killed.get_or_insert(now);
            let orphaned = self.exited.get(&run).is_some_and(|at| now.since(*at) >= ORPHANS[0]);
            let grace_over = stop.terminated.is_some_and(|(at, grace)| now.since(at) >= grace);
            ensure(self.hurried || orphaned || grace_over, || {
                format!("KILL to {run} before its grace was over")
            })?;
        }
        Ok(())
    }

    /// Nothing waits for longer than it may.
    fn limits(&self, step: &Step) -> Verdict {
        let (now, unfair) = (step.world.now, step.world.unfair_at);
        let long = |since: Moment, limit: Duration| now.since(since.max(unfair)) > limit;
        for (run, stop) in &self.stopping {
            if let Some(killed) = stop.killed {
                ensure(!long(killed, REAPED), || {
                    format!("{run} was killed, and is neither gone nor wedged")
                })?;
            } else if let Some(exited) = self.exited.get(run) {
                ensure(!long(*exited, ORPHANS[1]), || format!("{run} has exited, and its orphans live on"))?;
            } else if let Some((at, grace)) = stop.terminated {
                ensure(!long(at, grace + LATE), || format!("{run} got TERM, and KILL does not follow"))?;
            } else {
                ensure(!long(stop.began, step.world.settings.drain + S), || {
                    format!("{run} drains for ever")
                })?;
            }
        }
        for (id, _, engine) in engines(&step.after.status).filter(|(.., e)| e.state == EngineState::Wedged) {
            let killed = engine
                .run
                .and_then(|run| self.killed.get(&run))
                .map_or(engine.since, |at| engine.since.max(*at));
            ensure(!long(killed, KILL_AGAIN), || format!("{id:?} is wedged, and is not killed again"))?;
        }
        Ok(())
    }
}

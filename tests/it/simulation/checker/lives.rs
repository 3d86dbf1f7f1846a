//! No engine stays where it cannot stay.
use super::{Checker, S, Seen, Verdict, World, engine_id_of, engines, ensure};
use mainstay::policy::{EngineState, Health, HostState, Moment, StartMode};
use std::time::Duration;

/// From Stopping to ended or wedged, beyond drain and grace: the end of the main process behind a late TERM, late KILL, and
/// the limit for what follows it.
const STOP_SLACK: Duration = Duration::from_secs(5 + 7 + 35 + 2);

impl Checker {
    /// Every state that is not rest ends within a bounded time, and nothing that is wanted rests.
    pub(super) fn lives(&self, world: &World, before: &Seen, after: &Seen) -> Verdict {
        if world.now.since(world.unfair_at) < 60 * S {
            return Ok(());
        }
        let grace = world.settings.engines.iter().map(|engine| engine.stop_grace).max().unwrap_or_default();
        let limit = world.settings.drain + grace + STOP_SLACK;
        let draining = after.status.state == HostState::Draining;
        // Time asleep counts for no step of a stop or a start.
        let awake = |since: Moment| world.now.since(since.max(world.unfair_at));
        let began = self.shut_down_at.filter(|_| draining);
        ensure(began.is_none_or(|began| awake(began) <= limit), || {
            format!("the shutdown does not end: {:?}", after.status)
        })?;
        for (id, _, engine) in engines(&after.status) {
            let settings = &world.settings.engines[usize::from(engine_id_of(world, id).0)];
            // A run that follows at once on one that was never spawned starts in the same state.
            let began =
                self.began.get(&engine_id_of(world, id)).filter(|_| engine.state == EngineState::Starting);
            let age = awake(began.map_or(engine.since, |began| engine.since.max(*began)));
            let limit = match engine.state {
                EngineState::Stopping => world.settings.drain + settings.stop_grace + STOP_SLACK,
                EngineState::Starting => settings.startup.cap + S,
                EngineState::Backoff => settings.restart.max * 5 / 4 + S,
                EngineState::Held => 7_201 * S,
                EngineState::Stopped | EngineState::Ready | EngineState::Wedged => Duration::MAX,
            };
            ensure(age <= limit, || format!("{id:?} is {:?} for {age:?}", engine.state))?;
            let stubborn =
                world.processes.iter().any(|process| Some(process.run) == engine.run && process.stubborn);
            let stubborn = stubborn || engine.run.is_some_and(|run| world.is_barred(run));
            ensure(stubborn || engine.state != EngineState::Wedged, || {
                format!("{id:?} counts as wedged, but can be killed")
            })?;
            let due = matches!(engine.state, EngineState::Backoff | EngineState::Held);
            ensure(due == engine.next_start.is_some(), || format!("{id:?} waits for ever: {engine:?}"))?;
            let resting = engine.state == EngineState::Stopped
                && settings.start == StartMode::Always
                && !self.stopped.contains(&engine_id_of(world, id));
            let over = self.shut_down || after.status.state != HostState::Serving;
            ensure(!resting || over, || format!("{id:?} was given up: {engine:?}"))?;
            let needed = settings.start == StartMode::OnDemand
                && engine.state == EngineState::Stopped
                && !self.stopped.contains(&engine_id_of(world, id))
                && after.status.tiers[..usize::from(id.0)].iter().all(|tier| tier.health == Health::Down)
                && before.status.tiers[..usize::from(id.0)].iter().all(|tier| tier.health == Health::Down);
            ensure(!needed || over, || format!("{id:?} is needed, and rests"))?;
        }
        Ok(())
    }
}

//! The end of a host: it waits for open answers of remote tiers, and then for nothing else.
use super::{Checker, S, Seen, Verdict, World, engines, ensure};
use mainstay::policy::{EngineState, EngineStatus, HostState, Place, TierId};

impl Checker {
    pub(super) fn finish(&mut self, world: &World, after: &Seen) -> Verdict {
        ensure(self.shut_down, || "finished, and nobody asked".to_owned())?;
        for process in &world.processes {
            let given_up = engines(&after.status)
                .any(|(_, _, engine)| engine.run == Some(process.run) && engine.state == EngineState::Wedged);
            ensure(given_up, || format!("finished, and {} lives", process.run))?;
        }
        let late = self.shut_down_at.is_none_or(|at| world.now.since(at) >= world.settings.drain);
        for tier in remotes(world).filter(|_| !late && !self.hurried) {
            let open = self.open_answers.get(&tier).map(|(_, in_flight)| *in_flight);
            ensure(open == Some(0), || format!("finished, and answers of {tier:?} are open: {open:?}"))?;
        }
        Ok(())
    }

    /// A host whose engines have ended waits for open answers of remote tiers, and for nothing else.
    pub(super) fn farewell(&mut self, world: &World, after: &Seen) -> Verdict {
        let over = |engine: &EngineStatus| matches!(engine.state, EngineState::Stopped | EngineState::Wedged);
        let waits = after.status.state == HostState::Draining
            && engines(&after.status).all(|(_, _, engine)| over(engine));
        let Some(began) = self.shut_down_at.filter(|_| waits) else { return Ok(()) };
        self.count("remote drains");
        // Some samples are too young to tell; answers are late when the agent slept.
        let told = |tier: TierId| {
            let settled = began + S / 10;
            self.open_answers.get(&tier).is_some_and(|(at, in_flight)| *at >= settled && *in_flight == 0)
        };
        let idle = remotes(world).all(told);
        let waited = world.now.since(began);
        ensure(!idle && !self.hurried && waited < world.settings.drain, || {
            format!("nothing is waited for, and the host does not finish: {:?}", after.status)
        })?;
        let asleep = world.now.since(world.unfair_at) < S;
        let heard = |tier: TierId| {
            let at = self.open_answers.get(&tier).map_or(began, |(at, _)| *at);
            asleep || world.now.since(at) < S / 2
        };
        ensure(remotes(world).all(heard), || "the end waits for samples, and takes none".to_owned())
    }
}

fn remotes(world: &World) -> impl Iterator<Item = TierId> {
    let tiers = world.settings.tiers.iter().enumerate();
    tiers.filter(|(_, tier)| tier.place == Place::Remote).map(|(rank, _)| TierId(rank as u16))
}

//! What runs compute on, as the host was told, and what it must show of that.
use super::Seen;
use super::checker::{Verdict, engines, ensure};
use super::world::World;
use mainstay::policy::{EngineState, Health, RunId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct Devices {
    /// What was last found of ready runs: do they compute on the CPU?
    on_cpu: BTreeMap<RunId, bool>,
    /// Those of which that was told.
    told: BTreeSet<RunId>,
}

impl Devices {
    /// A run was looked at. True: it is no longer on the CPU.
    pub fn hear(&mut self, before: &Seen, run: RunId, on_cpu: bool) -> bool {
        let mut ready = engines(&before.status).filter(|(_, _, engine)| engine.state == EngineState::Ready);
        let is_ready = ready.any(|(_, _, engine)| engine.run == Some(run));
        is_ready && self.on_cpu.insert(run, on_cpu) == Some(true) && !on_cpu
    }

    pub fn told(&mut self, run: RunId) -> Verdict {
        let found = self.on_cpu.get(&run) == Some(&true);
        ensure(found && self.told.insert(run), || {
            format!("it was told twice that {run} runs on the CPU, or it does not")
        })
    }

    /// A run on the CPU that was to use a GPU is told of and never HEALTHY, and nothing else is called that.
    pub fn check(&self, world: &World, after: &Seen) -> Verdict {
        for (id, tier, engine) in engines(&after.status) {
            let ready = engine.run.filter(|_| engine.state == EngineState::Ready);
            let wants_gpu = world.settings.tiers[usize::from(id.0)].wants_gpu;
            let found = ready.and_then(|run| self.on_cpu.get(&run).copied());
            let expected = if wants_gpu { found } else { ready.map(|_| false) };
            ensure(tier.cpu_fallback == expected, || format!("{tier:?} was found on the CPU: {found:?}"))?;
            let told = ready.is_some_and(|run| self.told.contains(&run));
            ensure(expected != Some(true) || (told && tier.health != Health::Healthy), || {
                format!("{tier:?} runs on the CPU, told: {told}")
            })?;
        }
        Ok(())
    }
}

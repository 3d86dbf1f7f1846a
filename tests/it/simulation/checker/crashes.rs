//! What holds across crashes of the agent. The next one knows the numbers of the runs that were written down, and the
//! incidents, and nothing else. It starts anew what is to run, whatever had become of that. All else that is checked holds
//! for it from its first step on, so what can be ready and answer soon is and does, as if there had been no crash.
use super::{Checker, Verdict, World, ensure};
use mainstay::policy::{Action, EngineEvent, EngineId, Event, Remains, Saved, StartMode};

impl Checker {
    /// The agent has crashed, and the next one begins with what was written down.
    pub fn crash(&mut self, world: &World, saved: &Saved) {
        let happened = std::mem::take(&mut self.happened);
        let last = saved.last_runs.iter().enumerate();
        self.last_run = last.map(|(place, number)| (EngineId(place as u16), *number)).collect();
        // Nobody is left who could tell of the exits of those.
        let (exits, last_run) = (self.last_run.clone(), std::mem::take(&mut self.last_run));
        *self = Self { exits, last_run, happened, has_resumed: true, ..Self::default() };
        self.count("crashes");
        if world.earlier().next().is_some() {
            self.count("earlier runs");
        }
    }

    pub(super) fn across_crashes(&mut self, world: &World, event: &Event, actions: &[Action]) -> Verdict {
        for process in &world.processes {
            let earlier = world.earlier().find(|earlier| earlier.run.engine == process.run.engine);
            ensure(earlier.is_none(), || {
                format!("two live runs: {} beside {:?}", process.run, earlier.map(|earlier| earlier.run))
            })?;
        }
        if let Event::Engine(run, EngineEvent::Ended(Remains::Processes(_))) = event
            && world.is_barred(*run)
        {
            self.count("earlier runs withstood");
        }
        if !std::mem::take(&mut self.has_resumed) {
            return Ok(());
        }
        let engines = world.settings.engines.iter().enumerate();
        for (place, _) in engines.filter(|(_, engine)| engine.start == StartMode::Always) {
            let is_its = |action: &&Action| matches!(action, Action::Start { run } if usize::from(run.engine.0) == place);
            ensure(actions.iter().any(|action| is_its(&action)), || {
                format!("an agent crashed, and the next one does not start engine {place}: {actions:?}")
            })?;
        }
        Ok(())
    }
}

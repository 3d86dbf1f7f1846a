//! What the world does with the actions of a host.
use super::{Coming, Question, World};
use crate::simulation::fake::{Flow, Mood, Process, Start, ending};
use mainstay::policy::{Action, Cause, Ending, EngineEvent, Event, Exit, Nature, RunId, Ticket};
use std::time::Duration;

impl World {
    pub fn perform(&mut self, actions: &[Action]) {
        for action in actions {
            match *action {
                Action::SaveIntent { run } => self.last_runs[usize::from(run.engine.0)] = run.number,
                Action::Tell(_) | Action::Finish => {}
                Action::Start { run } => self.start_alone(run),
                Action::Cut { run } => {
                    let tier = self.tier_of(run.engine);
                    self.flows[usize::from(tier.0)].cut();
                }
                Action::Terminate { run, .. } | Action::Kill { run } if self.stop_waiting(run) => {}
                Action::Terminate { run, grace } => self.terminate(run, grace),
                Action::Kill { run } => self.kill(run),
                Action::KillWorkers { run } => self.kill_workers(run),
                Action::Check { ticket, tier, timeout } => self.ask(ticket, Question::Check(tier, timeout)),
                Action::Prepare { ticket, run } => self.ask(ticket, Question::Prepare(run)),
                Action::Count { ticket, tier, timeout } => self.ask(ticket, Question::Count(tier, timeout)),
                Action::Try { ticket, tier, timeout } => self.ask(ticket, Question::Try(tier, timeout)),
            }
        }
    }

    fn ask(&mut self, ticket: Ticket, question: Question) {
        match question {
            // A preparation that is lost is a start that is lost; its limits are tested by `Stalled`.
            Question::Check(..) | Question::Count(..) | Question::Try(..) if self.dice.permille(1) => {
                self.unfair_at = self.now;
            }
            Question::Check(..) | Question::Prepare(_) | Question::Count(..) | Question::Try(..) => {
                self.after(Duration::ZERO, Coming::Question(ticket, question));
            }
        }
    }

    /// Nothing is left of an earlier run.
    pub(super) fn start(&mut self, run: RunId) {
        let cursed = self.cursed.get(&run.engine).is_some_and(|until| *until > self.now);
        let luck = if cursed { 700 + self.dice.below(300) } else { self.dice.below(1_000) };
        if (930..960).contains(&luck) {
            let (cause, nature) = self.dice.pick(&[
                (Cause::PortInUse, Nature::Environment),
                (Cause::Permission, Nature::Configuration),
                (Cause::HostOom, Nature::Shortage),
            ]);
            let failed = EngineEvent::SpawnFailed { cause, nature, evidence: "no".to_owned() };
            // The process never was: it is not in the list of those that live.
            let delay = self.dice.millis(1, 20);
            self.after(delay, Coming::Event(Event::Engine(run, failed)));
            return;
        }
        let start = match luck {
            0..800 => Start::ReadyAfter(self.dice.millis(100, 40_000)),
            800..815 => Start::Forever,
            815..830 => Start::Stalled,
            830..850 => Start::Impossible,
            _ => Start::ExitsAfter(self.dice.millis(30, 20_000)),
        };
        let start = if cursed && matches!(start, Start::ReadyAfter(_)) {
            Start::ExitsAfter(self.dice.millis(30, 15_000))
        } else {
            start
        };
        let process = Process::new(run, self.now, start, &mut self.dice);
        self.processes.push(process);
        let tier = self.tier_of(run.engine);
        self.flows[usize::from(tier.0)] = Flow::default();
        let delay = self.dice.millis(1, 20);
        self.after(delay, Coming::Event(Event::Engine(run, EngineEvent::Spawned { pid: 99 })));
        if start != Start::Stalled {
            self.after(delay, Coming::Loading(run));
        }
        if let Start::ExitsAfter(after) = start {
            let mut ending = ending(&mut self.dice);
            if self.dice.permille(200) {
                (ending.cause, ending.nature) = (Cause::PortInUse, Nature::Environment);
            }
            self.exit(run, delay + after, ending);
        }
    }

    fn terminate(&mut self, run: RunId, grace: Duration) {
        let quick = self.dice.millis(20, 3_000);
        let now = self.now;
        let Some(process) = self.process_mut(run) else { return };
        if process.mute > 0 {
            return;
        }
        let hears = !process.deaf && matches!(process.mood, Mood::Fine | Mood::Slow | Mood::HealthBroken);
        let (delay, exit) =
            if hears && process.is_loaded(now) { (quick, Exit::Code(0)) } else { (grace, Exit::Signal(9)) };
        self.after(delay, Coming::Exit(run, plain(exit)));
        let more = self.dice.millis(5, 900);
        self.after(delay + more, Coming::End(run));
    }

    fn kill(&mut self, run: RunId) {
        let Some(process) = self.process_mut(run) else { return };
        if process.mute > 0 {
            process.mute -= 1;
            return;
        }
        let delay = self.dice.millis(5, 200);
        self.after(delay, Coming::Exit(run, plain(Exit::Signal(9))));
        let more = self.dice.millis(5, 900);
        self.after(delay + more, Coming::End(run));
    }

    fn kill_workers(&mut self, run: RunId) {
        let (helps, load, now) = (self.dice.permille(800), self.dice.seconds(1, 15), self.now);
        let tier = self.tier_of(run.engine);
        self.flows[usize::from(tier.0)].cut();
        if let Some(process) = self.process_mut(run)
            && helps
        {
            process.feel(Mood::Fine, now);
            process.loaded_at = now + load;
            process.mood_since = now + load;
        }
    }
}

fn plain(exit: Exit) -> Ending {
    Ending { exit, cause: Cause::Unknown, nature: Nature::Engine, deterministic: None, evidence: None }
}

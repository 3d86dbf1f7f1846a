//! When an engine is started again. A strike is followed at once the first time, then after 1 s, twice as long each time, up to a
//! minute, give or take a quarter. After five strikes, three runs in a row that never were ready, or two that the configuration
//! is to blame for, it is held: a quarter of an hour, twice as long each time, up to two hours. A stable run, or an operator,
//! forgives. What the environment or a shortage of this host did is no strike, and never held; after ten minutes of it that is
//! told, once.
use super::{Step, Verdict, engine_of, engines, ensure};
use crate::simulation::world::Truth;
use mainstay::policy::{
    Action, Cause, Command, Ending, EngineEvent, EngineId, EngineState, EngineStatus, Event, Moment, Nature,
    Notice, Remains, StartMode,
};
use std::collections::BTreeMap;
use std::time::Duration;

const S: Duration = Duration::from_secs(1);
const STRIKES: u32 = 5;
const NEVER_READY: u32 = 3;
const OF_CONFIGURATION: u32 = 2;
const PAUSE_MAX: Duration = Duration::from_secs(60);
const HOLD: Duration = Duration::from_secs(15 * 60);
const HOLD_MAX: Duration = Duration::from_secs(2 * 60 * 60);
const STABLE: Duration = Duration::from_secs(10 * 60);
/// So long after the agent's start the environment is tried again every ten seconds or sooner.
const YOUTH: Duration = Duration::from_secs(10 * 60);
const YOUNG_PAUSE_MAX: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Restarts {
    engines: BTreeMap<EngineId, Count>,
    born: Option<Moment>,
}

#[derive(Default)]
struct Count {
    strikes: u32,
    never_ready: u32,
    of_configuration: u32,
    holds: u32,
    began: Moment,
    /// When the live run became ready.
    ready: Option<Moment>,
    /// When its strikes are forgiven, at the earliest and at the latest: a start took no longer for time asleep.
    stable_at: Option<[Moment; 2]>,
    /// Since when starts have failed in a row without a strike, and whether that was told.
    waiting: Option<(Moment, bool)>,
    /// How the live run ended, as it was told.
    ending: Option<Ending>,
}

/// What must follow an end.
#[derive(Debug)]
enum Next {
    Start([Duration; 2]),
    Hold(Duration),
}

impl Count {
    fn forgive(&mut self) {
        (self.strikes, self.never_ready, self.of_configuration, self.holds) = (0, 0, 0, 0);
        self.waiting = None;
    }

    /// Another start has failed without a strike. Time asleep counts for nothing, so what must be told then is not known.
    fn waits(&mut self, told: bool, now: Moment, slept: Moment) -> Verdict {
        let (since, before) = self.waiting.unwrap_or((now, false));
        self.waiting = Some((since, told || before));
        let long = now.since(since) >= YOUTH;
        ensure(!told || (long && !before), || {
            format!("told as in vain after {:?}, told before: {before}", now.since(since))
        })?;
        let due = now.since(since.max(slept)) >= YOUTH + S;
        ensure(told || before || !due, || format!("{:?} of waiting were not told", now.since(since)))
    }

    fn strike(&mut self, nature: Nature, first: Duration) -> Next {
        self.strikes += 1;
        self.waiting = None;
        self.never_ready += u32::from(self.ready.is_none());
        self.of_configuration += u32::from(nature == Nature::Configuration);
        let held = self.strikes >= STRIKES
            || self.never_ready >= NEVER_READY
            || self.of_configuration >= OF_CONFIGURATION;
        if held {
            self.holds += 1;
            return Next::Hold(doubled(HOLD, self.holds - 1).min(HOLD_MAX));
        }
        match self.strikes {
            1 => Next::Start([first, first]),
            nth => {
                let around = doubled(S, nth - 2).min(PAUSE_MAX);
                Next::Start([around * 3 / 4, around * 5 / 4])
            }
        }
    }
}

fn doubled(once: Duration, times: u32) -> Duration {
    once * 2_u32.pow(times.min(20))
}

impl Restarts {
    pub fn step(&mut self, step: &Step) -> Verdict {
        let now = step.world.now;
        self.born.get_or_insert(now);
        if let Event::Operator(tier, Command::Start | Command::Restart) = step.event
            && let Some(engine) = engine_of(step.world, *tier)
            && !step.shut_down
        {
            self.engines.entry(engine).or_default().forgive();
        }
        for action in step.actions {
            if let Action::Tell(Notice::Exit { run, ending }) = action {
                self.told(step, run.engine, ending)?;
            }
        }
        self.over(step)?;
        for action in step.actions {
            if let Action::Tell(Notice::Engine { run, to, .. }) = action {
                let count = self.engines.entry(run.engine).or_default();
                match to {
                    EngineState::Starting => {
                        (count.began, count.ready, count.stable_at, count.ending) = (now, None, None, None);
                    }
                    EngineState::Ready => {
                        (count.never_ready, count.waiting) = (0, None);
                        count.ready = Some(now);
                        let latest = now + STABLE.max(now.since(count.began) * 2);
                        let slept = step.world.unfair_at >= count.began;
                        count.stable_at = Some([if slept { now + STABLE } else { latest }, latest]);
                    }
                    EngineState::Stopped => count.waiting = None,
                    EngineState::Stopping
                    | EngineState::Backoff
                    | EngineState::Held
                    | EngineState::Wedged => {}
                }
            }
        }
        for (id, _, engine) in engines(&step.after.status) {
            let count = self.engines.entry(engine_of(step.world, id).expect("it has an engine")).or_default();
            if let (EngineState::Ready, Some([earliest, latest])) = (engine.state, count.stable_at)
                && (latest <= now || (earliest <= now && engine.strikes == 0))
            {
                count.forgive();
                count.stable_at = None;
            }
            ensure(engine.strikes == count.strikes, || {
                format!("{id:?} has {} strikes, and shows {}", count.strikes, engine.strikes)
            })?;
        }
        Ok(())
    }

    /// The end of a run is told as it was seen, unless mainstay brought it about.
    fn told(&mut self, step: &Step, engine: EngineId, ending: &Ending) -> Verdict {
        self.engines.entry(engine).or_default().ending = Some(ending.clone());
        let Event::Engine(run, EngineEvent::Exited(seen)) = step.event else { return Ok(()) };
        let mut live = engines(&step.before.status).filter(|(.., engine)| engine.run == Some(*run));
        let unasked = live.any(|(.., e)| matches!(e.state, EngineState::Starting | EngineState::Ready));
        ensure(!unasked || seen == ending, || format!("{run} ended as {seen:?}, and {ending:?} was told"))
    }

    /// A run is over: what follows?
    fn over(&mut self, step: &Step) -> Verdict {
        let over = match step.event {
            Event::Engine(run, EngineEvent::Ended(Remains::Nothing) | EngineEvent::SpawnFailed { .. }) => {
                *run
            }
            _ => return Ok(()),
        };
        let was = engines(&step.before.status).find(|(.., engine)| engine.run == Some(over));
        let Some((id, _, was)) = was.filter(|_| step.truth == Truth::Fresh) else { return Ok(()) };
        if matches!(was.state, EngineState::Stopped | EngineState::Backoff | EngineState::Held) {
            return Ok(());
        }
        let settings = &step.world.settings.engines[usize::from(over.engine.0)];
        let is_young = self.born.is_some_and(|born| step.world.now.since(born) < YOUTH);
        let count = self.engines.entry(over.engine).or_default();
        let told =
            |action: &Action| matches!(action, Action::Tell(Notice::Waiting { run, .. }) if *run == over);
        let told = step.actions.iter().any(told);
        let Some(ending) = count.ending.take() else {
            return Err(format!("{over} is over, and its exit was not told"));
        };
        let waits = match ending.nature {
            _ if ending.cause == Cause::Asked => false,
            Nature::Shortage => true,
            Nature::Environment => count.ready.is_none(),
            Nature::Engine | Nature::Configuration => false,
        };
        let rests = step.actions.iter().any(|action| {
            matches!(action, Action::Tell(Notice::Engine { run, to: EngineState::Stopped, .. }) if *run == over)
        });
        if waits && !rests {
            count.waits(told, step.world.now, step.world.unfair_at)?;
        } else {
            ensure(!told, || format!("{over} does not wait, and it is told: {ending:?}"))?;
        }
        let next = match ending.nature {
            _ if ending.cause == Cause::Asked => Next::Start([Duration::ZERO, Duration::ZERO]),
            Nature::Shortage => Next::Start([S, PAUSE_MAX]),
            Nature::Environment if count.ready.is_none() => {
                Next::Start([S, if is_young { YOUNG_PAUSE_MAX } else { PAUSE_MAX }])
            }
            Nature::Engine | Nature::Configuration | Nature::Environment => {
                count.strike(ending.nature, settings.restart.first)
            }
        };
        let next = match next {
            // What survived SIGKILL is never followed at once.
            Next::Start([least, most]) if was.state == EngineState::Wedged => {
                Next::Start([least.max(S), most.max(S)])
            }
            Next::Start(_) | Next::Hold(_) => next,
        };
        let after = engines(&step.after.status).find(|(of, ..)| *of == id).map(|(.., engine)| engine);
        let Some(after) = after else { return Ok(()) };
        let rests = after.state == EngineState::Stopped;
        let demanded = settings.start == StartMode::OnDemand && after.state == EngineState::Starting;
        ensure(rests || demanded || fits(&next, after, step.world.now), || {
            format!(
                "{over} ended as {ending:?}; {next:?} must follow, and is {:?} until {:?}",
                after.state, after.next_start
            )
        })
    }
}

fn fits(next: &Next, after: &EngineStatus, now: Moment) -> bool {
    let pause = after.next_start.map(|at| at.since(now));
    match (next, after.state) {
        (Next::Start([least, _]), EngineState::Starting) => least.is_zero(),
        (Next::Start([least, most]), EngineState::Backoff) => {
            pause.is_some_and(|pause| (*least..=*most).contains(&pause))
        }
        (Next::Hold(wait), EngineState::Held) => pause == Some(*wait),
        (Next::Start(_) | Next::Hold(_), _) => false,
    }
}

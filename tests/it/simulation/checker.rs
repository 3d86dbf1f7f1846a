//! What must always hold, checked after every step. The checker knows the contract of policy and the truth about the
//! world, and nothing of the code.
mod crashes;
mod farewell;
mod hangs;
mod health;
mod lives;
mod restarts;
mod service;
mod serving;
mod starts;
mod stops;

use super::Seen;
use super::devices::Devices;
use super::world::{Truth, World};
use mainstay::policy::{
    Action, Command, EngineEvent, EngineId, EngineState, EngineStatus, Event, Health, HostStatus, Moment,
    Notice, Outcome, Place, Processor, Remains, RunId, Shutdown, Standing, StartMode, Ticket, TierEvent,
    TierId, TierStatus, Tried,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const S: Duration = Duration::from_secs(1);
const STARTS_PER_HOUR: usize = 60;

pub type Verdict = Result<(), String>;

/// One step of the host, and what it looked like before and after.
pub struct Step<'a> {
    pub world: &'a World,
    pub before: &'a Seen,
    pub truth: Truth,
    pub event: &'a Event,
    pub actions: &'a [Action],
    pub after: &'a Seen,
    /// The host was told to end.
    pub shut_down: bool,
}

/// Bounds that DESIGN gives, one subject each.
#[derive(Default)]
struct Rules {
    stops: stops::Stops,
    starts: starts::Starts,
    serving: serving::Serving,
    health: health::Healths,
    hangs: hangs::Hangs,
    restarts: restarts::Restarts,
}

impl Rules {
    fn step(&mut self, step: &Step) -> Verdict {
        self.stops.step(step)?;
        self.starts.step(step)?;
        self.serving.step(step)?;
        self.health.step(step)?;
        self.hangs.step(step)?;
        self.restarts.step(step)
    }
}

#[derive(Default)]
pub struct Checker {
    rules: Rules,
    /// Runs that were started and have not ended, as the host was told.
    live: BTreeMap<EngineId, RunId>,
    last_run: BTreeMap<EngineId, u64>,
    /// The latest run whose exit was told.
    exits: BTreeMap<EngineId, u64>,
    devices: Devices,
    starts: BTreeMap<EngineId, Vec<Moment>>,
    /// When the live run, or the last one, was started.
    began: BTreeMap<EngineId, Moment>,
    tickets: BTreeSet<u64>,
    trials: BTreeMap<Ticket, TierId>,
    answered: BTreeMap<TierId, u64>,
    /// Trials that passed since clients of the tier were last answered, and when the last one did.
    vain: BTreeMap<TierId, (u32, Moment)>,
    /// Operators wanted these engines down, or ended these runs.
    stopped: BTreeSet<EngineId>,
    excused: BTreeSet<EngineId>,
    shut_down: bool,
    shut_down_at: Option<Moment>,
    /// A second signal: nothing is waited for.
    hurried: bool,
    /// Requests in flight at remote tiers, as the host was told since the shutdown.
    open_answers: BTreeMap<TierId, (Moment, u32)>,
    finished: bool,
    /// The agent before this one crashed, and this one has done nothing yet.
    has_resumed: bool,
    health: BTreeMap<TierId, Health>,
    states: BTreeMap<EngineId, EngineState>,
    failed_over: bool,
    deadlines: u32,
    deadlines_since: Moment,
    /// How often each thing worth testing really happened: a simulation that never hangs proves nothing about hangs.
    pub happened: BTreeMap<&'static str, u64>,
}

pub fn ensure(holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(what()) }
}

pub fn engines(status: &HostStatus) -> impl Iterator<Item = (TierId, &TierStatus, &EngineStatus)> {
    let tiers = status.tiers.iter().enumerate();
    tiers.filter_map(|(rank, tier)| Some((TierId(rank as u16), tier, tier.engine.as_ref()?)))
}

impl Checker {
    fn count(&mut self, what: &'static str) {
        *self.happened.entry(what).or_default() += 1;
    }

    /// Everything that must hold after `event`, given what the host showed before it.
    pub fn check(
        &mut self,
        world: &World,
        before: &Seen,
        (truth, event): (Truth, &Event),
        actions: &[Action],
        after: &Seen,
    ) -> Verdict {
        if self.finished {
            return ensure(actions.is_empty() && after.deadline.is_none(), || {
                format!("after Finish: {actions:?}")
            });
        }
        if truth == Truth::Stale && before.deadline.is_none_or(|at| at > world.now) {
            self.count("stale news");
            // While an engine stops it is relative to now.
            let same = HostStatus { retry: before.status.retry, ..after.status.clone() };
            ensure(actions.is_empty() && before.status == same, || {
                format!("stale news had an effect: {actions:?}")
            })?;
        }
        self.across_crashes(world, event, actions)?;
        self.hear(world, before, event);
        for place in 0..actions.len() {
            self.action(world, (before, after), event, actions, place)?;
        }
        self.farewell(world, after)?;
        self.clock(world, event, after)?;
        self.routes(after)?;
        self.lives(world, before, after)?;
        self.devices.check(world, after)?;
        self.service(world, after)?;
        self.rules.step(&Step { world, before, truth, event, actions, after, shut_down: self.shut_down })
    }

    fn hear(&mut self, world: &World, before: &Seen, event: &Event) {
        match event {
            Event::Engine(run, EngineEvent::ComputesOn(found)) => {
                let over = self.devices.hear(before, *run, matches!(found, Processor::Cpu { .. }));
                *self.happened.entry("CPU fallbacks over").or_default() += u64::from(over);
            }
            Event::Engine(run, EngineEvent::Ended(Remains::Nothing) | EngineEvent::SpawnFailed { .. }) => {
                if self.live.get(&run.engine) == Some(run) {
                    self.live.remove(&run.engine);
                }
            }
            Event::Engine(run, EngineEvent::Exited(_)) => {
                self.count("exits");
                self.excused.insert(run.engine);
            }
            Event::Operator(tier, command) => {
                if let Place::Local(engine) = world.settings.tiers[usize::from(tier.0)].place {
                    self.starts.remove(&engine);
                    self.excused.insert(engine);
                    match command {
                        Command::Stop => self.stopped.insert(engine),
                        Command::Start | Command::Restart => self.stopped.remove(&engine),
                    };
                }
            }
            Event::Shutdown(shutdown) => {
                self.shut_down = true;
                self.shut_down_at.get_or_insert(world.now);
                self.hurried |= *shutdown == Shutdown::Now;
            }
            Event::Tier(tier, TierEvent::Sampled(sample)) => {
                let remote = world.settings.tiers[usize::from(tier.0)].place == Place::Remote;
                if remote && self.shut_down_at.is_some_and(|at| at < world.now) {
                    self.open_answers.insert(*tier, (world.now, sample.in_flight));
                }
                let answered = self.answered.insert(*tier, sample.answered).unwrap_or_default();
                if sample.answered > answered {
                    self.vain.retain(|of, (_, at)| of != tier || world.now.since(*at) < 60 * S);
                }
            }
            Event::Done(ticket, Outcome::Tried(Tried::Passed)) => {
                if let Some(tier) = self.trials.remove(ticket) {
                    let (times, at) = self.vain.entry(tier).or_default();
                    (*times, *at) = (*times + 1, world.now);
                }
            }
            Event::Engine(
                _,
                EngineEvent::Spawned { .. }
                | EngineEvent::Activity
                | EngineEvent::Still(_)
                | EngineEvent::Ended(Remains::Processes(_)),
            )
            | Event::Tier(_, TierEvent::Refused { .. })
            | Event::Done(..)
            | Event::Deadline => {}
        }
    }

    fn action(
        &mut self,
        world: &World,
        (before, after): (&Seen, &Seen),
        event: &Event,
        actions: &[Action],
        place: usize,
    ) -> Verdict {
        match &actions[place] {
            Action::Start { run } => {
                let intent = place.checked_sub(1).map(|place| &actions[place]);
                ensure(intent == Some(&Action::SaveIntent { run: *run }), || {
                    format!("{run} was started before its intent was saved")
                })?;
                self.start(world, before, event, *run)
            }
            Action::Terminate { run, .. } | Action::Kill { run } | Action::KillWorkers { run } => {
                self.count(match &actions[place] {
                    Action::KillWorkers { .. } => "workers replaced",
                    Action::Kill { .. } => "kills",
                    _ => "terminations",
                });
                ensure(self.live.get(&run.engine) == Some(run), || {
                    format!("{run} is not live, and was hit")
                })?;
                self.harm(world, before, *run)
            }
            Action::Check { ticket, .. }
            | Action::Prepare { ticket, .. }
            | Action::Count { ticket, .. }
            | Action::Try { ticket, .. } => {
                if let Action::Try { tier, .. } = &actions[place] {
                    self.trials.insert(*ticket, *tier);
                }
                ensure(self.tickets.insert(ticket.0), || format!("{ticket:?} was given out twice"))
            }
            Action::Finish => {
                self.finished = true;
                self.finish(world, after)
            }
            Action::Tell(notice) => self.notice(notice),
            Action::SaveIntent { .. } | Action::Cut { .. } => Ok(()),
        }
    }

    fn start(&mut self, world: &World, before: &Seen, event: &Event, run: RunId) -> Verdict {
        self.count("starts");
        let alive = world.processes.iter().find(|process| process.run.engine == run.engine);
        ensure(alive.is_none() && !self.live.contains_key(&run.engine), || {
            format!("two live runs: {run} beside {:?}", alive.map(|process| process.run))
        })?;
        let last = self.last_run.insert(run.engine, run.number).unwrap_or_default();
        let told = self.exits.get(&run.engine).copied().unwrap_or_default();
        ensure(told == last, || format!("{run} was started, and the exit of {last} was not told"))?;
        ensure(run.number == last + 1, || format!("{run} follows {last}"))?;
        ensure(!self.shut_down, || format!("{run} was started in a shutdown"))?;
        ensure(!self.stopped.contains(&run.engine), || {
            format!("{run} was started, but an operator stopped it")
        })?;
        let by_operator = matches!(event, Event::Operator(..));
        for (_, _, engine) in engines(&before.status).filter(|(_, _, engine)| engine_id(engine) == run.engine)
        {
            let early = engine.next_start.is_some_and(|at| at > world.now);
            ensure(!early || by_operator, || format!("{run} was started before its deadline"))?;
        }
        self.live.insert(run.engine, run);
        self.began.insert(run.engine, world.now);
        self.excused.remove(&run.engine);
        let starts = self.starts.entry(run.engine).or_default();
        starts.push(world.now);
        starts.retain(|at| world.now.since(*at) < 3_600 * S);
        ensure(starts.len() <= STARTS_PER_HOUR, || format!("crash loop: {} starts in an hour", starts.len()))
    }

    /// A process that works is not ended for nothing.
    fn harm(&self, world: &World, before: &Seen, run: RunId) -> Verdict {
        let engine = &world.settings.engines[usize::from(run.engine.0)];
        let ready = engines(&before.status)
            .any(|(_, _, engine)| engine.run == Some(run) && engine.state == EngineState::Ready);
        let excused = self.shut_down
            || !ready
            || self.excused.contains(&run.engine)
            || engine.start == StartMode::OnDemand
            || world.now.since(world.unfair_at) < 300 * S;
        let well = world.processes.iter().any(|process| process.run == run && process.unhurt);
        ensure(excused || !well, || format!("{run} works, and was hit"))
    }

    fn notice(&mut self, notice: &Notice) -> Verdict {
        match notice {
            Notice::Engine { run, from, to, .. } => {
                let was = self.states.insert(run.engine, *to).unwrap_or(EngineState::Stopped);
                match to {
                    EngineState::Held => self.count("held"),
                    EngineState::Wedged => self.count("wedged"),
                    EngineState::Ready => self.count("ready"),
                    EngineState::Stopped
                    | EngineState::Starting
                    | EngineState::Stopping
                    | EngineState::Backoff => {}
                }
                ensure(was == *from && from != to, || {
                    format!("engine {run}: {was:?}, told {from:?} → {to:?}")
                })
            }
            Notice::Exit { run, .. } => {
                let before = self.exits.insert(run.engine, run.number).unwrap_or_default();
                let live = self.last_run.get(&run.engine) == Some(&run.number);
                ensure(live && before < run.number, || {
                    format!("the exit of {run} was told twice, or of none")
                })
            }
            Notice::Health { tier, from, to, why, .. } => {
                if why.starts_with("hang proven") {
                    self.count("suspects");
                }
                let was = self.health.insert(*tier, *to).unwrap_or(Health::Down);
                ensure(was == *from && from != to, || format!("{tier:?}: {was:?}, told {from:?} → {to:?}"))
            }
            Notice::Failover { from, to, .. } => {
                self.count("failovers");
                self.failed_over = true;
                ensure(from < to, || format!("a failover upwards, {from:?} → {to:?}"))
            }
            Notice::Return { from, to } => {
                self.count("returns");
                ensure(self.failed_over && from > to, || format!("no return: {from:?} → {to:?}"))
            }
            Notice::AllDown { .. } => {
                self.count("all down");
                Ok(())
            }
            Notice::CpuFallback { run, .. } => {
                self.count("CPU fallbacks");
                self.devices.told(*run)
            }
            Notice::Waiting { .. } => {
                self.count("waiting in vain");
                Ok(())
            }
            Notice::LastResort { .. }
            | Notice::Worker { .. }
            | Notice::Serving { .. }
            | Notice::Operator { .. } => Ok(()),
        }
    }

    /// The next deadline is in the future, and the loop is not hot.
    fn clock(&mut self, world: &World, event: &Event, after: &Seen) -> Verdict {
        ensure(after.deadline.is_none_or(|at| at > world.now), || {
            format!("the next deadline {:?} is not after {:?}", after.deadline, world.now)
        })?;
        if world.now.since(self.deadlines_since) >= S {
            (self.deadlines, self.deadlines_since) = (0, world.now);
        }
        self.deadlines += u32::from(*event == Event::Deadline);
        ensure(self.deadlines <= 60, || "a hot loop of deadlines".to_owned())
    }

    fn routes(&self, after: &Seen) -> Verdict {
        let (status, routes) = (&after.status, &after.routes);
        ensure(routes.len() == status.tiers.len(), || "a tier without a route".to_owned())?;
        for (rank, (route, tier)) in routes.iter().zip(&status.tiers).enumerate() {
            ensure(usize::from(route.tier.0) == rank, || "routes out of order".to_owned())?;
            if let Some(engine) = &tier.engine {
                let ready = engine.state == EngineState::Ready;
                ensure(route.standing == Standing::Closed || (ready && route.run == engine.run), || {
                    format!("{route:?} names an engine that is {:?}", engine.state)
                })?;
            }
            let is_open = route.standing == Standing::Open;
            ensure(is_open == tier.routable && (is_open == route.reason.is_empty()), || {
                format!("{route:?} and {tier:?} disagree")
            })?;
            ensure(tier.health == Health::Down || is_open, || {
                format!("{tier:?} can answer, and is not open")
            })?;
        }
        let open = routes.iter().find(|route| route.standing == Standing::Open);
        ensure(open.map(|route| route.tier) == status.serving, || {
            format!("serving {:?}, open {open:?}", status.serving)
        })
    }
}

/// The engine behind a tier; `None` for a remote one.
pub fn engine_of(world: &World, tier: TierId) -> Option<EngineId> {
    match world.settings.tiers[usize::from(tier.0)].place {
        Place::Local(engine) => Some(engine),
        Place::Remote => None,
    }
}

fn engine_id(engine: &EngineStatus) -> EngineId {
    engine.run.map_or(EngineId(u16::MAX), |run| run.engine)
}

fn engine_id_of(world: &World, tier: TierId) -> EngineId {
    match world.settings.tiers[usize::from(tier.0)].place {
        Place::Local(engine) => engine,
        Place::Remote => EngineId(u16::MAX),
    }
}

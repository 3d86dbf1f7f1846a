//! What must always hold, checked after every step. The checker knows the contract of policy and the truth about the
//! world, and nothing of the code.
use super::Seen;
use super::devices::Devices;
use super::fake::Mood;
use super::world::{Truth, World};
use mainstay::policy::{
    Action, Command, EngineEvent, EngineId, EngineState, EngineStatus, Event, Health, HostState, HostStatus,
    Moment, Notice, Outcome, Place, Processor, Remains, RunId, Shutdown, Standing, StartMode, Ticket,
    TierEvent, TierId, TierStatus, Tried,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const S: Duration = Duration::from_secs(1);
/// From Stopping to ended or wedged, beyond drain and grace: the end of the main process behind a late TERM, late KILL, and
/// the limit for what follows it.
const STOP_SLACK: Duration = Duration::from_secs(5 + 7 + 35 + 2);
/// From "works perfectly" to `Open`: one trial every ten seconds, which may just have failed, and some.
const WELL_AFTER: Duration = Duration::from_secs(30);
/// A remote tier that stayed DOWN is checked this seldom.
const CHECK_SELDOM: Duration = Duration::from_secs(30);
/// Trials that pass while clients get no answer become rare: each doubles the pause, up to this.
const TRY_SELDOM: Duration = Duration::from_secs(300);
const STARTS_PER_HOUR: usize = 60;

pub type Verdict = Result<(), String>;

#[derive(Default)]
pub struct Checker {
    /// Runs that were started and have not ended, as the host was told.
    live: BTreeMap<EngineId, RunId>,
    last_run: BTreeMap<EngineId, u64>,
    /// The latest run whose exit was told.
    exits: BTreeMap<EngineId, u64>,
    devices: Devices,
    starts: BTreeMap<EngineId, Vec<Moment>>,
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
        self.hear(world, before, event);
        for place in 0..actions.len() {
            self.action(world, (before, after), event, actions, place)?;
        }
        self.farewell(world, after)?;
        self.clock(world, event, after)?;
        self.routes(after)?;
        self.lives(world, before, after)?;
        self.devices.check(world, after)?;
        self.service(world, after)
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
            | Event::Tier(_, TierEvent::Refused)
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
            Notice::LastResort { .. }
            | Notice::Worker { .. }
            | Notice::Serving { .. }
            | Notice::Operator { .. } => Ok(()),
        }
    }

    fn finish(&mut self, world: &World, after: &Seen) -> Verdict {
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
    fn farewell(&mut self, world: &World, after: &Seen) -> Verdict {
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

    /// Every state that is not rest ends within a bounded time, and nothing that is wanted rests.
    fn lives(&self, world: &World, before: &Seen, after: &Seen) -> Verdict {
        if world.now.since(world.unfair_at) < 60 * S {
            return Ok(());
        }
        let grace = world.settings.engines.iter().map(|engine| engine.stop_grace).max().unwrap_or_default();
        let limit = world.settings.drain + grace + STOP_SLACK;
        let draining = after.status.state == HostState::Draining;
        let began = self.shut_down_at.filter(|_| draining);
        ensure(began.is_none_or(|began| world.now.since(began) <= limit), || {
            format!("the shutdown does not end: {:?}", after.status)
        })?;
        for (id, _, engine) in engines(&after.status) {
            let settings = &world.settings.engines[usize::from(engine_id_of(world, id).0)];
            let age = world.now.since(engine.since);
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

    /// Clients get answers where there are any to get, and a hang is noticed in time.
    fn service(&mut self, world: &World, after: &Seen) -> Verdict {
        if self.shut_down || world.now.since(world.unfair_at) < 120 * S {
            return Ok(());
        }
        let any_able = after.status.tiers.iter().any(|tier| tier.health != Health::Down);
        for (rank, (route, tier)) in after.routes.iter().zip(&after.status.tiers).enumerate() {
            let id = TierId(rank as u16);
            let (mood, since) = world.mood(id);
            let since = tier.engine.as_ref().map_or(since, |engine| since.max(engine.since));
            let ready = tier.engine.as_ref().is_none_or(|engine| engine.state == EngineState::Ready);
            let vain = self.vain.get(&id).map_or(0, |(times, _)| times.saturating_sub(1).min(9));
            let checked = if tier.engine.is_none() { CHECK_SELDOM } else { Duration::ZERO };
            let rare = (10 * S * (1 << vain)).min(TRY_SELDOM) - 10 * S + checked;
            let well = ready
                && matches!(mood, Mood::Fine | Mood::Slow)
                && world.now.since(since) > WELL_AFTER + rare;
            ensure(!well || route.standing == Standing::Open, || {
                format!("{id:?} works since {since:?}, and is {tier:?}")
            })?;
            let flow = &world.flows[rank];
            // A busy server is never DOWN, whatever its health page says, as long as requests of ours keep it busy.
            let busy = ready && mood == Mood::Busy && tier.health == Health::Down;
            let began = flow.waiting_since.map(|waiting| waiting.max(since) + 10 * S);
            ensure(!busy || began.is_none_or(|began| tier.since < began), || {
                format!("{id:?} is only busy, since {began:?}: {tier:?}")
            })?;
            let hung = tier.engine.is_some() && ready && matches!(mood, Mood::Hung | Mood::Frozen);
            if let (true, Some(waiting)) = (hung, flow.waiting_since) {
                let settings = &world.settings.tiers[rank];
                let silence = if settings.wants_gpu { settings.silence_on_cpu } else { settings.silence };
                // Progress is a second old when it is read.
                let asked = since.max(waiting).max(flow.sample.last_progress).max(world.unfair_at);
                // What spins is believed for a while.
                let spins = mood == Mood::Frozen && world.process(id).is_some_and(|process| process.spins);
                let believed = if spins { silence * 7 } else { Duration::ZERO };
                let moved = world.now.since(asked) > believed + silence + 6 * S + S;
                if moved && spins && any_able && route.standing != Standing::Open {
                    self.count("spins seen through");
                }
                ensure(!moved || !any_able || route.standing != Standing::Open, || {
                    format!("{id:?} hangs since {asked:?}, and requests still go there")
                })?;
                let limit = believed + silence + settings.suspect * 3 + 60 * S;
                ensure(world.now.since(asked) < limit, || format!("{id:?} hangs for ever: {tier:?}"))?;
            }
        }
        Ok(())
    }
}

fn remotes(world: &World) -> impl Iterator<Item = TierId> {
    let tiers = world.settings.tiers.iter().enumerate();
    tiers.filter(|(_, tier)| tier.place == Place::Remote).map(|(rank, _)| TierId(rank as u16))
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

//! The world around a host: engines that spawn, load, hang, crash and refuse to die, remote servers, clients, a clock,
//! and the late and doubled news that a real agent could deliver.
mod crash;
mod perform;

use super::dice::Dice;
use super::fake::{Flow, Mood, Process, ending};
use crash::{Crashes, Earlier, Waiting};
use mainstay::policy::{
    Cause, Command, Ending, EngineEvent, EngineId, Event, Moment, Nature, Outcome, Place, Prepared,
    Processor, Remains, Route, RunId, Settings, Shutdown, Standing, Ticket, TierEvent, TierId,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// Something that will happen, and what it does to the world just before the host hears of it.
#[derive(Debug)]
enum Coming {
    Event(Event),
    /// The main process ends.
    Exit(RunId, Ending),
    /// The rest of the tree ends, if it can be killed.
    End(RunId),
    /// The agent's question reaches the server.
    Question(Ticket, Question),
    /// A server becomes well by itself.
    Recover(TierId),
    Loading(RunId),
    /// Something of an earlier agent's run withstands KILL, and this run waits for its end.
    Withstood(RunId),
    /// Nothing is left of the runs that this run waits for.
    Alone(RunId),
}

#[derive(Clone, Copy, Debug)]
enum Question {
    Check(TierId, Duration),
    Prepare(RunId),
    Count(TierId, Duration),
    Try(TierId, Duration),
}

/// How an event is meant, for the checker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    Fresh,
    /// News of a run that is over, or an outcome that was delivered before: nothing may follow from it.
    Stale,
}

pub struct World {
    pub now: Moment,
    pub dice: Dice,
    pub settings: Settings,
    pub processes: Vec<Process>,
    pub remotes: BTreeMap<TierId, (Mood, Moment)>,
    pub flows: Vec<Flow>,
    /// The last moment at which the world itself was unfair to the agent (lost answers, sleep).
    pub unfair_at: Moment,
    /// When the agent began that lives.
    pub agent_since: Moment,
    crashes: Crashes,
    /// The number of each engine's latest run that was written down.
    last_runs: Vec<u64>,
    /// What crashed agents left.
    earlier: Vec<Earlier>,
    waiting: BTreeMap<EngineId, Waiting>,
    queue: BTreeMap<(Moment, u64), (Truth, Coming)>,
    entered: u64,
    /// Starts of this engine fail until then.
    cursed: BTreeMap<EngineId, Moment>,
    asleep_until: Moment,
    next_sample: Option<Moment>,
    next_fault: Moment,
    /// Mean time between faults, in seconds.
    calm: u64,
    /// Runs that are over, for late news.
    over: Vec<RunId>,
    /// The agent accepts no new requests.
    closing: bool,
}

impl World {
    pub fn new(settings: Settings, mut dice: Dice) -> Self {
        let now = Moment::from_nanos(1_000_000_000_000);
        let remote = |(rank, tier): (usize, &mainstay::policy::TierSettings)| {
            (tier.place == Place::Remote).then_some((TierId(rank as u16), (Mood::Fine, now)))
        };
        let calm = dice.pick(&[10, 30, 60, 200]);
        Self {
            now,
            processes: Vec::new(),
            remotes: settings.tiers.iter().enumerate().filter_map(remote).collect(),
            flows: vec![Flow::default(); settings.tiers.len()],
            unfair_at: Moment::default(),
            agent_since: now,
            crashes: Crashes::new(settings.seed),
            last_runs: vec![0; settings.engines.len()],
            earlier: Vec::new(),
            waiting: BTreeMap::new(),
            queue: BTreeMap::new(),
            entered: 0,
            cursed: BTreeMap::new(),
            asleep_until: now,
            next_sample: None,
            next_fault: now + Duration::from_secs(1),
            calm,
            over: Vec::new(),
            closing: false,
            settings,
            dice,
        }
    }

    pub fn process(&self, tier: TierId) -> Option<&Process> {
        match self.settings.tiers[usize::from(tier.0)].place {
            Place::Local(engine) => self.processes.iter().rev().find(|process| process.run.engine == engine),
            Place::Remote => None,
        }
    }

    fn process_mut(&mut self, run: RunId) -> Option<&mut Process> {
        self.processes.iter_mut().find(|process| process.run == run)
    }

    fn tier_of(&self, engine: EngineId) -> TierId {
        let place = Place::Local(engine);
        let rank = self.settings.tiers.iter().position(|tier| tier.place == place);
        TierId(rank.expect("every engine has a tier") as u16)
    }

    /// How the server behind a tier behaves, and since when.
    pub fn mood(&self, tier: TierId) -> (Mood, Moment) {
        match self.remotes.get(&tier) {
            Some(remote) => *remote,
            None => self.process(tier).map_or((Mood::Refusing, self.now), |process| {
                (process.seen(self.now), process.mood_since.max(process.loaded_at))
            }),
        }
    }

    fn after(&mut self, delay: Duration, coming: Coming) {
        self.enter(delay, Truth::Fresh, coming);
    }

    fn enter(&mut self, delay: Duration, truth: Truth, coming: Coming) {
        self.entered += 1;
        self.queue.insert((self.now + delay, self.entered), (truth, coming));
    }

    /// Lets time pass until the host has to hear of something.
    pub fn next(
        &mut self,
        deadline: Option<Moment>,
        interval: Option<Duration>,
        routes: &[Route],
    ) -> (Truth, Event) {
        match interval {
            Some(interval) => {
                let latest = self.now + interval;
                self.next_sample = Some(self.next_sample.map_or(latest, |at| at.min(latest)));
            }
            None => self.next_sample = None,
        }
        loop {
            let queued = self.queue.first_key_value().map(|(&(at, _), _)| at);
            let far = Moment::from_nanos(u64::MAX);
            let at = [queued, deadline, self.next_sample, Some(self.next_fault)];
            let at = at.into_iter().flatten().min().unwrap_or(far);
            self.now = self.now.max(at).max(self.asleep_until);
            if queued == Some(at) {
                let (_, (truth, coming)) = self.queue.pop_first().expect("it was just seen");
                if let Some(event) = self.happen(coming) {
                    return (truth, event);
                }
            } else if deadline == Some(at) {
                return (Truth::Fresh, Event::Deadline);
            } else if self.next_sample == Some(at) {
                self.next_sample = interval.map(|interval| self.now + interval);
                self.sample(routes);
            } else {
                let pause = self.dice.seconds(1, self.calm * 2);
                self.next_fault = self.now + pause;
                if let Some(event) = self.fault() {
                    return (Truth::Fresh, event);
                }
            }
        }
    }

    fn happen(&mut self, coming: Coming) -> Option<Event> {
        let now = self.now;
        match coming {
            Coming::Event(event) => Some(event),
            Coming::Exit(run, ending) => {
                let process = self.process_mut(run)?;
                process.main_alive.then(|| {
                    process.main_alive = false;
                    Event::Engine(run, EngineEvent::Exited(ending))
                })
            }
            Coming::End(run) => {
                let process = self.process_mut(run)?;
                if let Some(until) = process.wedged_until.filter(|until| *until > now) {
                    self.after(until.since(now), Coming::End(run));
                    return Some(Event::Engine(run, EngineEvent::Ended(Remains::Processes(vec![4_711]))));
                }
                self.gone(run);
                Some(Event::Engine(run, EngineEvent::Ended(Remains::Nothing)))
            }
            Coming::Question(ticket, question) => {
                self.answer(ticket, question);
                None
            }
            Coming::Recover(tier) => {
                if let Some(remote) = self.remotes.get_mut(&tier) {
                    *remote = (Mood::Fine, now);
                }
                if let Some(run) = self.process(tier).map(|process| process.run)
                    && let Some(process) = self.process_mut(run)
                {
                    process.feel(Mood::Fine, now);
                }
                None
            }
            Coming::Loading(run) => {
                let process = self.process(self.tier_of(run.engine)).filter(|process| process.run == run)?;
                if process.is_loaded(now) || !process.main_alive {
                    return None;
                }
                self.after(Duration::from_secs(20), Coming::Loading(run));
                Some(Event::Engine(run, EngineEvent::Activity))
            }
            Coming::Withstood(run) => self.withstood(run),
            Coming::Alone(run) => self.alone(run),
        }
    }

    /// Nothing is left of a run. What is said of it from now on is late.
    fn gone(&mut self, run: RunId) {
        self.processes.retain(|process| process.run != run);
        let tier = self.tier_of(run.engine);
        self.flows[usize::from(tier.0)] = Flow::default();
        self.over.push(run);
        if self.over.len() > 8 {
            self.over.remove(0);
        }
        for _ in 0..2 {
            let (delay, news) = (self.dice.seconds(0, 60), self.late_news());
            self.enter(delay, Truth::Stale, Coming::Event(Event::Engine(run, news)));
        }
    }

    fn late_news(&mut self) -> EngineEvent {
        match self.dice.below(7) {
            0 => EngineEvent::Spawned { pid: 1 },
            1 => EngineEvent::SpawnFailed {
                cause: Cause::PortInUse,
                nature: Nature::Environment,
                evidence: "late".to_owned(),
            },
            2 => EngineEvent::Activity,
            3 => EngineEvent::Exited(ending(&mut self.dice)),
            4 => EngineEvent::ComputesOn(Processor::Cpu { evidence: "late".to_owned() }),
            5 => EngineEvent::Ended(Remains::Nothing),
            _ => EngineEvent::Ended(Remains::Processes(vec![1])),
        }
    }

    fn answer(&mut self, ticket: Ticket, question: Question) {
        let now = self.now;
        let (delay, outcome) = match question {
            Question::Check(tier, timeout) => {
                let (delay, checked) = self.mood(tier).0.check(timeout, &mut self.dice);
                (delay, Outcome::Checked(checked))
            }
            Question::Prepare(run) => {
                let process = self.processes.iter().find(|process| process.run == run);
                let prepared = process.map_or(Prepared::NotYet, |process| process.prepare(now));
                (self.dice.millis(1, 50), Outcome::Prepared(prepared))
            }
            Question::Count(tier, timeout) => {
                let figure = self.process(tier).and_then(|process| process.count(now));
                let delay = if figure.is_some() { self.dice.millis(1, 50) } else { timeout };
                (delay, Outcome::Counted(figure))
            }
            Question::Try(tier, timeout) => {
                let (delay, tried) = self.mood(tier).0.attempt(timeout, &mut self.dice);
                (delay, Outcome::Tried(tried))
            }
        };
        if self.dice.permille(20) {
            self.enter(
                delay + Duration::from_secs(30),
                Truth::Stale,
                Coming::Event(Event::Done(ticket, outcome.clone())),
            );
        }
        self.after(delay, Coming::Event(Event::Done(ticket, outcome)));
    }

    fn sample(&mut self, routes: &[Route]) {
        let serving = routes.iter().find(|route| route.standing == Standing::Open).map(|route| route.tier);
        for rank in 0..self.flows.len() {
            let tier = TierId(rank as u16);
            let standing = routes.iter().find(|route| route.tier == tier).map(|route| route.standing);
            let mood = self.mood(tier).0;
            let mut new = self.dice.below(3) as u32;
            if mood == Mood::Busy {
                new += 10;
            }
            if serving != Some(tier) || self.closing {
                new = 0;
            }
            let leaving = standing != Some(Standing::Open);
            let worked = self.flows[rank].advance(mood, new, leaving, self.now, &mut self.dice);
            let step = 1 + self.dice.below(50);
            if worked
                && let Some(run) = self.process(tier).map(|process| process.run)
                && let Some(process) = self.process_mut(run)
            {
                process.counter += step;
            }
            let sample = self.flows[rank].sample;
            self.after(Duration::ZERO, Coming::Event(Event::Tier(tier, TierEvent::Sampled(sample))));
            if mood == Mood::Refusing && new > 0 {
                self.after(
                    Duration::ZERO,
                    Coming::Event(Event::Tier(tier, TierEvent::Refused { at: self.now })),
                );
            }
        }
    }

    /// Something goes wrong, or somebody does something.
    fn fault(&mut self) -> Option<Event> {
        let tier = TierId(self.dice.below(self.settings.tiers.len() as u64) as u16);
        match self.dice.below(100) {
            0..20 => self.crash(tier),
            20..70 => self.change_mood(tier),
            70..75 => {
                let command = self.dice.pick(&[Command::Start, Command::Stop, Command::Restart]);
                // Nobody leaves a tier stopped for ever.
                let (again, delay) = (Event::Operator(tier, Command::Start), self.dice.seconds(1, 900));
                if command == Command::Stop {
                    self.after(delay, Coming::Event(again));
                }
                return Some(Event::Operator(tier, command));
            }
            75..77 => {
                if let Place::Local(engine) = self.settings.tiers[usize::from(tier.0)].place {
                    let until = self.now + self.dice.seconds(10, 1_500);
                    self.cursed.insert(engine, until);
                }
            }
            77..79 => {
                self.asleep_until = self.now + self.dice.seconds(20, 4_000);
                self.unfair_at = self.asleep_until;
            }
            79..90 => {
                if let Some(&run) = self.over.last() {
                    let (delay, news) = (self.dice.seconds(0, 20), self.late_news());
                    self.enter(delay, Truth::Stale, Coming::Event(Event::Engine(run, news)));
                }
            }
            _ => {
                let run = self.process(tier).filter(|process| process.is_loaded(self.now))?.run;
                let news = |found| Event::Engine(run, EngineEvent::ComputesOn(found));
                let delay = self.dice.seconds(1, 60);
                self.after(delay, Coming::Event(news(Processor::Unknown)));
                return Some(news(Processor::Cpu { evidence: "offloaded 0/33 layers to GPU".to_owned() }));
            }
        }
        None
    }

    fn crash(&mut self, tier: TierId) {
        let Some(run) = self.process(tier).map(|process| process.run) else { return };
        let ending = ending(&mut self.dice);
        self.exit(run, Duration::ZERO, ending);
    }

    /// The main process ends after a while; what it leaves behind ends by itself, or waits for KILL.
    fn exit(&mut self, run: RunId, delay: Duration, ending: Ending) {
        self.after(delay, Coming::Exit(run, ending));
        if self.dice.permille(700) {
            let more = self.dice.millis(0, 900);
            self.after(delay + more, Coming::End(run));
        }
    }

    fn change_mood(&mut self, tier: TierId) {
        let now = self.now;
        let mood = if self.remotes.contains_key(&tier) {
            self.dice.pick(&Mood::REMOTE)
        } else if self.dice.permille(400) {
            self.dice.pick(&[Mood::Slow, Mood::Busy])
        } else {
            self.dice.pick(&Mood::BAD)
        };
        if let Some(remote) = self.remotes.get_mut(&tier) {
            *remote = (mood, now);
        } else if let Some(run) = self.process(tier).map(|process| process.run)
            && let Some(process) = self.process_mut(run)
        {
            process.feel(mood, now);
        }
        if self.remotes.contains_key(&tier) || self.dice.permille(600) {
            let lasts = self.dice.seconds(1, 180);
            self.after(lasts, Coming::Recover(tier));
        }
    }

    pub fn shut_down(&mut self, shutdown: Shutdown) {
        self.closing = true;
        self.after(Duration::ZERO, Coming::Event(Event::Shutdown(shutdown)));
    }
}

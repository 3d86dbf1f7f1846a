//! The world of the two hosts: their engines, the network between them, the server outside, and clients.
mod faults;

use super::S;
use super::journey::{Goal, Reply, Request};
use super::mainstay::{Mainstay, Role};
use crate::simulation::dice::Dice;
use crate::simulation::fake::{Mood, Process, Start, ending};
use mainstay::kinds::peer;
use mainstay::policy::{
    Action, Checked, Ending, EngineEvent, Event, InstanceId, Leads, Moment, Notice, Outcome, Path, Prepared,
    Remains, RunId, Standing, Ticket, TierEvent, TierId, Tried,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    Nothing,
    /// A host does not write itself into the path of a request.
    OwnIdMissing,
    /// A peer that says 200 is taken for an engine.
    BelievesHealth,
    /// A peer tells no paths, now and then.
    Forgets,
    /// What the peer cannot reach is taken for what this host cannot reach.
    BlamesThird,
    /// The first tier alone is ever asked.
    FirstOnly,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Fine,
    /// Connections are refused, and those that are open are reset.
    Refusing,
    /// Nothing comes through.
    Dropping,
}

#[derive(Clone, Copy, Debug)]
pub enum Question {
    Check(TierId, Duration),
    Prepare(RunId),
    Count(Duration),
    Try(TierId, Duration),
}

/// Something that will happen. A number after the host is the life of its agent, and of a request that of the attempt.
pub enum Coming {
    News(usize, u64, Event),
    Told(usize, u64, TierId, Leads, Event),
    Question(usize, u64, Ticket, Question),
    Exit(usize, RunId, Ending),
    End(usize, RunId),
    Loading(usize, RunId),
    Recover(usize, RunId),
    Sample(usize, u64),
    Client(usize),
    Arrive(u64, u64),
    Reply(u64, u64, Reply),
    GiveUp(u64, Ticket),
    Back(usize),
    Fault,
}

/// What the checker has to hear of.
#[derive(Debug)]
pub enum Heard {
    Told(usize, Notice),
    /// A host ends its engine, or a part of it.
    Stops(usize),
    Ended {
        place: usize,
        came: Moment,
        reply: Reply,
    },
    /// A request was taken by a host that had taken it before.
    Twice(usize),
    /// The same, but it was refused.
    CameBack,
}

pub struct World {
    pub now: Moment,
    pub dice: Dice,
    pub plant: Plant,
    pub hosts: Vec<Mainstay>,
    /// Between the two hosts, and from each to the server outside.
    pub link: Link,
    pub outside: [Link; 2],
    pub third: Mood,
    pub requests: BTreeMap<u64, Request>,
    pub numbered: u64,
    pub heard: Vec<Heard>,
    pub entered: u64,
    /// When anything last became different, but for requests.
    pub changed_at: Moment,
    /// When an agent last began.
    pub agent_at: Moment,
    queue: BTreeMap<(Moment, u64), Coming>,
    standings: [Vec<Standing>; 2],
    /// Starts of the engine fail until then.
    cursed: [Moment; 2],
    /// Agents so far.
    instances: u64,
}

impl World {
    pub fn new(seed: u64, plant: Plant) -> Self {
        let mut dice = Dice::new(seed);
        let now = Moment::from_nanos(1_000_000_000_000);
        let (mut hosts, mut first) = (Vec::new(), Vec::new());
        for place in 0..2 {
            let (host, actions) = Mainstay::new(seed + place, InstanceId::new(place + 1), &mut dice, now);
            hosts.push(host);
            first.push(actions);
        }
        let mut world = Self {
            now,
            dice,
            plant,
            hosts,
            link: Link::Fine,
            outside: [Link::Fine; 2],
            third: Mood::Fine,
            requests: BTreeMap::new(),
            numbered: 0,
            heard: Vec::new(),
            entered: 0,
            changed_at: now,
            agent_at: now,
            queue: BTreeMap::new(),
            standings: [Vec::new(), Vec::new()],
            cursed: [now; 2],
            instances: 2,
        };
        for (place, actions) in first.into_iter().enumerate() {
            world.begin(place, actions);
            world.enter(S, Coming::Client(place));
        }
        world.enter(60 * S, Coming::Fault);
        world
    }

    fn begin(&mut self, place: usize, first: Vec<Action>) {
        let life = self.hosts[place].life;
        self.enter(S, Coming::Sample(place, life));
        self.perform(place, first);
        (self.changed_at, self.agent_at) = (self.now, self.now);
    }

    pub fn enter(&mut self, delay: Duration, coming: Coming) {
        self.entered += 1;
        self.queue.insert((self.now + delay, self.entered), coming);
    }

    fn news(&mut self, delay: Duration, place: usize, event: Event) {
        let life = self.hosts[place].life;
        self.enter(delay, Coming::News(place, life, event));
    }

    fn step(&mut self, place: usize, event: Event) {
        let actions = self.hosts[place].host.step(self.now, event);
        self.perform(place, actions);
        let routes = self.hosts[place].host.routes();
        let standings: Vec<Standing> = routes.iter().map(|route| route.standing).collect();
        if standings != self.standings[place] {
            self.standings[place] = standings;
            self.move_on(place);
        }
    }

    /// Lets the next thing happen.
    pub fn turn(&mut self) {
        let up = (0..2).filter(|place| self.hosts[*place].up);
        let due = up.filter_map(|place| Some((self.hosts[place].host.next_deadline()?, place))).min();
        let queued = self.queue.first_key_value().map(|(&(at, _), _)| at).expect("clients come for ever");
        match due.filter(|(deadline, _)| *deadline < queued) {
            Some((deadline, place)) => {
                self.now = self.now.max(deadline);
                self.step(place, Event::Deadline);
            }
            None => {
                self.now = self.now.max(queued);
                let (_, coming) = self.queue.pop_first().expect("it was just seen");
                self.happen(coming);
            }
        }
    }

    fn lives(&self, place: usize, life: u64) -> bool {
        self.hosts[place].up && self.hosts[place].life == life
    }

    fn happen(&mut self, coming: Coming) {
        match coming {
            Coming::News(place, life, event) if self.lives(place, life) => self.step(place, event),
            Coming::Told(place, life, tier, leads, event) if self.lives(place, life) => {
                self.hosts[place].hears(tier, leads);
                self.step(place, event);
            }
            Coming::Question(place, life, ticket, question) if self.lives(place, life) => {
                self.answer(place, ticket, question);
            }
            Coming::Sample(place, life) if self.lives(place, life) => self.sample(place),
            Coming::News(..) | Coming::Told(..) | Coming::Question(..) | Coming::Sample(..) => {}
            Coming::Exit(place, run, ending) => self.exit(place, run, ending),
            Coming::End(place, run) => {
                let main_gone = |process: &Process| process.run == run && !process.main_alive;
                if self.hosts[place].engine.as_ref().is_some_and(main_gone) {
                    self.hosts[place].engine = None;
                    self.changed_at = self.now;
                    self.step(place, Event::Engine(run, EngineEvent::Ended(Remains::Nothing)));
                }
            }
            Coming::Loading(place, run) => {
                let now = self.now;
                let Some(process) = self.process(place, run).filter(|process| process.main_alive) else {
                    return;
                };
                if process.is_loaded(now) {
                    self.changed_at = now;
                } else {
                    let rest = process.loaded_at.since(now).min(20 * S);
                    self.enter(rest, Coming::Loading(place, run));
                    self.step(place, Event::Engine(run, EngineEvent::Activity));
                }
            }
            Coming::Recover(place, run) => {
                if self.process(place, run).is_some_and(|process| process.main_alive) {
                    self.feel(place, Mood::Fine);
                }
            }
            Coming::Client(place) => {
                if self.hosts[place].up {
                    self.send(place, Goal::Client, Path::default());
                }
                let pause = self.dice.millis(50, 5_000);
                self.enter(pause, Coming::Client(place));
            }
            Coming::Arrive(id, serial) => self.arrived(id, serial),
            Coming::Reply(id, serial, reply) => self.replied(id, serial, reply),
            Coming::GiveUp(id, ticket) => {
                let Some(Request { goal: Goal::Trial(place, ..), .. }) = self.requests.get(&id) else {
                    return;
                };
                let place = *place;
                self.hang_up(id);
                self.step(place, Event::Done(ticket, Outcome::Tried(Tried::TimedOut)));
            }
            Coming::Back(place) => {
                self.instances += 1;
                let id = InstanceId::new(self.instances);
                let first = self.hosts[place].resume(id, self.now);
                self.begin(place, first);
            }
            Coming::Fault => {
                self.fault();
                // Now and then it is quiet for long.
                let pause = if self.dice.permille(250) { (300, 1_500) } else { (0, 60) };
                let pause = self.dice.seconds(pause.0, pause.1);
                self.enter(pause, Coming::Fault);
            }
        }
    }

    fn process(&mut self, place: usize, run: RunId) -> Option<&mut Process> {
        self.hosts[place].engine.as_mut().filter(|process| process.run == run)
    }

    fn feel(&mut self, place: usize, mood: Mood) {
        let now = self.now;
        let Some(process) = &mut self.hosts[place].engine else { return };
        process.feel(mood, now);
        self.changed_at = now;
        if mood.works() {
            self.say(|_, at, role| (at, role) == (place, Role::Own), Reply::Answered);
        }
    }

    fn exit(&mut self, place: usize, run: RunId, ending: Ending) {
        let Some(process) = self.process(place, run).filter(|process| process.main_alive) else { return };
        process.main_alive = false;
        self.changed_at = self.now;
        self.say(|_, at, role| (at, role) == (place, Role::Own), Reply::Lost);
        let (told, ended) = (self.dice.millis(1, 20), self.dice.millis(30, 900));
        self.news(told, place, Event::Engine(run, EngineEvent::Exited(ending)));
        self.enter(ended, Coming::End(place, run));
    }

    fn sample(&mut self, place: usize) {
        let now = self.now;
        let host = &mut self.hosts[place];
        let busy = host.samples[0].in_flight > 0;
        if let Some(process) = host.engine.as_mut().filter(|process| busy && process.seen(now).works()) {
            process.counter += 1;
        }
        for rank in 0..self.hosts[place].roles.len() as u16 {
            let sample = *self.hosts[place].sample(TierId(rank));
            self.step(place, Event::Tier(TierId(rank), TierEvent::Sampled(sample)));
        }
        self.move_on(place);
        let (life, pause) = (self.hosts[place].life, self.hosts[place].host.sample_interval().unwrap_or(S));
        self.enter(pause, Coming::Sample(place, life));
    }

    fn perform(&mut self, place: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::SaveIntent { .. } | Action::Finish => {}
                Action::Tell(notice) => self.heard.push(Heard::Told(place, notice)),
                Action::Start { run } => self.start(place, run),
                Action::Cut { .. } => self.say(|_, at, role| (at, role) == (place, Role::Own), Reply::Lost),
                Action::Terminate { run, .. } | Action::Kill { run } => {
                    self.heard.push(Heard::Stops(place));
                    let delay = self.dice.millis(20, 3_000);
                    let ending = ending(&mut self.dice);
                    self.enter(delay, Coming::Exit(place, run, ending));
                }
                Action::KillWorkers { run } => {
                    self.heard.push(Heard::Stops(place));
                    self.say(|_, at, role| (at, role) == (place, Role::Own), Reply::Lost);
                    let (helps, load) = (self.dice.permille(700), self.dice.seconds(1, 15));
                    let at = self.now + load;
                    if let Some(process) = self.process(place, run).filter(|_| helps) {
                        process.feel(Mood::Fine, at);
                        process.loaded_at = at;
                        self.enter(load, Coming::Loading(place, run));
                    }
                }
                Action::Check { ticket, tier, timeout } => {
                    self.ask(place, ticket, Question::Check(tier, timeout));
                }
                Action::Prepare { ticket, run } => self.ask(place, ticket, Question::Prepare(run)),
                Action::Count { ticket, timeout, .. } => self.ask(place, ticket, Question::Count(timeout)),
                Action::Try { ticket, tier, timeout } => {
                    self.ask(place, ticket, Question::Try(tier, timeout));
                }
            }
        }
    }

    fn ask(&mut self, place: usize, ticket: Ticket, question: Question) {
        let (life, delay) = (self.hosts[place].life, self.dice.millis(1, 20));
        self.enter(delay, Coming::Question(place, life, ticket, question));
    }

    fn start(&mut self, place: usize, run: RunId) {
        let fails = self.cursed[place] > self.now || self.dice.permille(50);
        let after = self.dice.millis(100, if fails { 10_000 } else { 40_000 });
        let start = if fails { Start::ExitsAfter(after) } else { Start::ReadyAfter(after) };
        let mut process = Process::new(run, self.now, start, &mut self.dice);
        (process.spins, process.deaf, process.mute, process.wedged_until) = (false, false, 0, None);
        self.hosts[place].start(run, Some(process));
        self.changed_at = self.now;
        let delay = self.dice.millis(1, 20);
        self.news(delay, place, Event::Engine(run, EngineEvent::Spawned { pid: 99 }));
        self.enter(after.min(20 * S), Coming::Loading(place, run));
        if fails {
            let ending = ending(&mut self.dice);
            self.enter(delay + after, Coming::Exit(place, run, ending));
        }
    }

    fn answer(&mut self, place: usize, ticket: Ticket, question: Question) {
        let now = self.now;
        let quick = self.dice.millis(1, 20);
        let (delay, outcome) = match question {
            Question::Check(tier, timeout) => return self.check(place, ticket, tier, timeout),
            Question::Prepare(run) => {
                let prepared = self.process(place, run).map(|process| process.prepare(now));
                (quick, Outcome::Prepared(prepared.unwrap_or(Prepared::NotYet)))
            }
            Question::Count(timeout) => {
                let figure = self.hosts[place].engine.as_ref().and_then(|process| process.count(now));
                (if figure.is_some() { quick } else { timeout }, Outcome::Counted(figure))
            }
            Question::Try(tier, timeout) => {
                let role = self.hosts[place].role(tier);
                let link = self.link_to(place, role);
                if (role, link) == (Role::Peer, Link::Fine) && self.hosts[1 - place].up {
                    let (life, own) = (self.hosts[place].life, self.hosts[place].id);
                    let via = Path::default().onward(own).expect("a way of one");
                    let id = self.send(1 - place, Goal::Trial(place, life, ticket), via);
                    return self.enter(timeout, Coming::GiveUp(id, ticket));
                }
                let mood = if role == Role::Peer { Mood::Refusing } else { self.mood(place, role) };
                let (delay, tried) = through(link, mood).attempt(timeout, &mut self.dice);
                (delay, Outcome::Tried(tried))
            }
        };
        self.news(delay, place, Event::Done(ticket, outcome));
    }

    fn link_to(&self, place: usize, role: Role) -> Link {
        match role {
            Role::Own => Link::Fine,
            Role::Peer => self.link,
            Role::Third => self.outside[place],
        }
    }

    /// A health page is asked for. That of the peer says what the product says, and is judged by the product.
    fn check(&mut self, place: usize, ticket: Ticket, tier: TierId, timeout: Duration) {
        let role = self.hosts[place].role(tier);
        let link = self.link_to(place, role);
        if role != Role::Peer || link != Link::Fine || !self.hosts[1 - place].up {
            let mood = if role == Role::Peer { Mood::Refusing } else { self.mood(place, role) };
            let (delay, checked) = through(link, mood).check(timeout, &mut self.dice);
            return self.news(delay, place, Event::Done(ticket, Outcome::Checked(checked)));
        }
        let (asker, asked) = (&self.hosts[place], &self.hosts[1 - place]);
        let via = Path::default().onward(asker.id).expect("a way of one");
        let (paths, instance) = match self.plant {
            Plant::BelievesHealth => (asked.health(&Path::default()), None),
            Plant::Forgets if self.entered.is_multiple_of(5) => (Vec::new(), Some(asked.id)),
            _ => (asked.health(&via), Some(asked.id)),
        };
        let status = if paths.is_empty() { 503 } else { 200 };
        let told: Vec<String> = paths.iter().map(Path::to_string).collect();
        let body = json!({ peer::PATHS: told }).to_string();
        let (leads, failure) = peer::judge(asker.id, instance, status, body.as_bytes());
        let (life, latency) = (asker.life, self.dice.millis(1, 50));
        let third = asker.roles.iter().position(|role| *role == Role::Third);
        if let Some(rank) = third.filter(|_| self.plant == Plant::BlamesThird && failure.is_some()) {
            let refused = TierEvent::Refused { at: self.now };
            self.news(latency, place, Event::Tier(TierId(rank as u16), refused));
        }
        let checked = failure.map_or(Checked::Passed { latency }, Checked::Failed);
        let event = Event::Done(ticket, Outcome::Checked(checked));
        self.enter(latency, Coming::Told(place, life, tier, leads, event));
    }
}

/// How a server seems to be, seen through this link.
fn through(link: Link, mood: Mood) -> Mood {
    match link {
        Link::Fine => mood,
        Link::Refusing => Mood::Refusing,
        Link::Dropping => Mood::Frozen,
    }
}

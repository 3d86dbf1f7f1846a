//! Hosts that are each other's fallback, each a real `Host`, with one engine each that comes and goes. What they answer
//! each other, and how that is taken, are the product's own pure functions.
use super::dice::Dice;
use mainstay::kinds::peer;
use mainstay::policy::{
    self, Action, Check, CheckFailure, Checked, Event, Host, InstanceId, Leads, Moment, Outcome, Path, Place,
    Saved, Settings, Standing, Ticket, TierId, TierSettings,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

const S: Duration = Duration::from_secs(1);
/// From the end of the last engine until every host knows: one check for each host on the way.
const KNOWN_DEAD: Duration = Duration::from_secs(45);
/// From an engine's return until every host knows: a tier that is DOWN is checked seldom.
const KNOWN_ALIVE: Duration = Duration::from_secs(180);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    Nothing,
    /// A peer that says 200 is taken for an engine.
    BelievesHealth,
    /// Nobody leaves out the paths that lead back.
    Unfiltered,
}

struct Mainstay {
    id: InstanceId,
    host: Host,
    /// Of its tiers: the first is the engine of this host, the others are the other hosts.
    leads: Vec<Leads>,
    peers: Vec<usize>,
    engine: bool,
    /// Can the others reach it?
    reachable: bool,
}

impl Mainstay {
    fn open(&self) -> impl Iterator<Item = &Leads> {
        let routes = self.host.routes().into_iter().filter(|route| route.standing == Standing::Open);
        routes.map(|route| &self.leads[usize::from(route.tier.0)])
    }

    /// The paths that `GET /health` tells of.
    fn health(&self, via: &Path) -> Vec<Path> {
        policy::paths(self.id, self.open(), via)
    }
}

/// A question that reaches a server, and its answer that reaches the host.
enum Coming {
    Question(usize, Ticket, TierId),
    Answer(usize, Ticket, TierId, Leads, Checked),
    Fault,
}

struct World {
    now: Moment,
    dice: Dice,
    plant: Plant,
    hosts: Vec<Mainstay>,
    queue: BTreeMap<(Moment, u64), Coming>,
    entered: u64,
    /// Since when no engine runs; since when one does and every host can be reached.
    dead_since: Option<Moment>,
    fine_since: Option<Moment>,
    /// How often each of the two was long enough to be seen.
    seen: [u64; 2],
}

fn settings(peers: usize, seed: u64) -> Settings {
    let check = Check { interval: 10 * S, timeout: 5 * S, slow: 2 * S, failures: 3 };
    let tier = |rank: usize| TierSettings {
        name: format!("tier{rank}"),
        place: Place::Remote,
        check,
        silence: 10 * S,
        silence_on_cpu: 120 * S,
        silence_on_gpu: 10 * S,
        wants_gpu: false,
        suspect: 60 * S,
    };
    Settings { engines: Vec::new(), tiers: (0..=peers).map(tier).collect(), drain: S, seed }
}

impl World {
    fn new(seed: u64, plant: Plant) -> Self {
        let mut dice = Dice::new(seed);
        let now = Moment::from_nanos(1_000_000_000_000);
        let count = 2 + dice.below(2) as usize;
        let mut world = Self {
            now,
            plant,
            hosts: Vec::new(),
            queue: BTreeMap::new(),
            entered: 0,
            dead_since: None,
            fine_since: None,
            seen: [0; 2],
            dice,
        };
        for place in 0..count {
            let ring = world.dice.permille(500);
            let others: Vec<usize> = (1..count).map(|step| (place + step) % count).collect();
            let peers = if ring { others[..1].to_vec() } else { others };
            let (host, first) =
                Host::resume(settings(peers.len(), seed + place as u64), &Saved::default(), now);
            let leads = vec![Leads::Engine; 1 + peers.len()];
            let id = InstanceId::new(place as u64 + 1);
            let engine = world.dice.permille(500);
            world.hosts.push(Mainstay { id, host, leads, peers, engine, reachable: true });
            world.perform(place, first);
        }
        world.enter(S, Coming::Fault);
        world.note();
        world
    }

    fn enter(&mut self, delay: Duration, coming: Coming) {
        self.entered += 1;
        self.queue.insert((self.now + delay, self.entered), coming);
    }

    fn perform(&mut self, place: usize, actions: Vec<Action>) {
        for action in actions {
            if let Action::Check { ticket, tier, .. } = action {
                let delay = self.dice.millis(1, 50);
                self.enter(delay, Coming::Question(place, ticket, tier));
            }
        }
    }

    fn step(&mut self, place: usize, event: Event) {
        let actions = self.hosts[place].host.step(self.now, event);
        self.perform(place, actions);
    }

    /// Lets the next thing happen.
    fn turn(&mut self) -> Result<(), String> {
        let due =
            (0..self.hosts.len()).filter_map(|place| Some((self.hosts[place].host.next_deadline()?, place)));
        let (deadline, place) = due.min().expect("remote tiers are checked for ever");
        match self.queue.first_key_value().map(|(&(at, _), _)| at).filter(|at| *at <= deadline) {
            Some(at) => {
                self.now = self.now.max(at);
                let (_, coming) = self.queue.pop_first().expect("it was just seen");
                self.happen(coming);
            }
            None => {
                self.now = self.now.max(deadline);
                self.step(place, Event::Deadline);
            }
        }
        self.check()
    }

    fn happen(&mut self, coming: Coming) {
        match coming {
            Coming::Question(place, ticket, tier) => {
                let (leads, failure) = self.ask(place, tier);
                let latency = self.dice.millis(1, 50);
                let checked = failure.map_or(Checked::Passed { latency }, Checked::Failed);
                self.enter(latency, Coming::Answer(place, ticket, tier, leads, checked));
            }
            Coming::Answer(place, ticket, tier, leads, checked) => {
                self.hosts[place].leads[usize::from(tier.0)] = leads;
                self.step(place, Event::Done(ticket, Outcome::Checked(checked)));
            }
            Coming::Fault => {
                let place = self.dice.below(self.hosts.len() as u64) as usize;
                let reachable = self.dice.permille(850) || !self.hosts[place].reachable;
                let engine = self.dice.permille(350);
                let host = &mut self.hosts[place];
                (host.reachable, host.engine) = (reachable, engine);
                self.note();
                let pause = self.dice.seconds(1, 400);
                self.enter(pause, Coming::Fault);
            }
        }
    }

    /// What the server behind a tier answers.
    fn ask(&self, place: usize, tier: TierId) -> (Leads, Option<CheckFailure>) {
        let asker = &self.hosts[place];
        let Some(at) = usize::from(tier.0).checked_sub(1) else {
            return (Leads::Engine, (!asker.engine).then_some(CheckFailure::Refused));
        };
        let asked = &self.hosts[asker.peers[at]];
        if !asked.reachable || !asker.reachable {
            return (asker.leads[usize::from(tier.0)].clone(), Some(CheckFailure::Refused));
        }
        let via = Path::default().onward(asker.id).expect("a way of one");
        let paths = match self.plant {
            Plant::Nothing => asked.health(&via),
            Plant::BelievesHealth | Plant::Unfiltered => asked.health(&Path::default()),
        };
        let status = if paths.is_empty() { 503 } else { 200 };
        match self.plant {
            Plant::Nothing => {
                let told: Vec<String> = paths.iter().map(Path::to_string).collect();
                let body = json!({ peer::PATHS: told }).to_string();
                peer::judge(asker.id, Some(asked.id), status, body.as_bytes())
            }
            Plant::BelievesHealth => peer::judge(asker.id, None, status, b""),
            Plant::Unfiltered => {
                let dead_end = paths.is_empty().then_some(CheckFailure::DeadEnd);
                (Leads::Peer(paths), dead_end)
            }
        }
    }

    fn note(&mut self) {
        let engines = self.hosts.iter().any(|host| host.engine);
        let whole = self.hosts.iter().all(|host| host.reachable);
        let now = self.now;
        self.dead_since = if engines { None } else { self.dead_since.or(Some(now)) };
        // An engine that has just come may be the only one.
        self.fine_since = (engines && whole).then_some(now);
    }

    fn check(&mut self) -> Result<(), String> {
        let now = self.now;
        let healthy: Vec<bool> =
            self.hosts.iter().map(|host| !host.health(&Path::default()).is_empty()).collect();
        if self.dead_since.is_some_and(|since| now.since(since) > KNOWN_DEAD) {
            self.seen[0] += 1;
            if healthy.contains(&true) {
                return Err(format!("healthy without an engine: {healthy:?}"));
            }
        }
        if self.fine_since.is_some_and(|since| now.since(since) > KNOWN_ALIVE) {
            self.seen[1] += 1;
            if healthy.contains(&false) {
                return Err(format!("not healthy with an engine: {healthy:?}"));
            }
        }
        Ok(())
    }
}

fn trial(seed: u64, plant: Plant) -> Result<[u64; 2], String> {
    let mut world = World::new(seed, plant);
    for event in 0..5_000 {
        world.turn().map_err(|what| format!("seed {seed}, event {event} at {:?}: {what}", world.now))?;
    }
    Ok(world.seen)
}

#[test]
fn hosts_that_are_each_others_fallback_are_healthy_only_with_an_engine() {
    let mut seen = [0; 2];
    for seed in 1..60 {
        let more = trial(seed, Plant::Nothing).unwrap_or_else(|what| panic!("{what}"));
        seen = [seen[0] + more[0], seen[1] + more[1]];
    }
    println!("looked at {seen:?} states");
    assert!(seen.iter().all(|looks| *looks > 1_000), "{seen:?}");
}

#[test]
fn a_planted_circle_is_caught() {
    for plant in [Plant::BelievesHealth, Plant::Unfiltered] {
        let caught = (1..60).find_map(|seed| trial(seed, plant).err());
        let caught = caught.unwrap_or_else(|| panic!("{plant:?} was not caught"));
        assert!(caught.contains("healthy without an engine"), "{plant:?} was caught as: {caught}");
    }
}

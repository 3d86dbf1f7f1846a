//! A request on its way through the two hosts. Each of them asks the tiers that its own plan names, one after the other.
use super::S;
use super::mainstay::Role;
use super::world::{Coming, Heard, Link, Plant, World};
use crate::simulation::fake::Mood;
use mainstay::policy::{Cause, Event, Moment, Outcome, Path, Standing, Ticket, TierEvent, TierId, Tried};
use std::time::Duration;

/// `timeouts.connect`
const CONNECT: Duration = Duration::from_secs(2);
/// `timeouts.first_content`
const FIRST_CONTENT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Answered,
    /// 503: no tier can answer.
    Unavailable,
    /// 508: it was here before.
    Loop,
    Refused,
    /// Its connection ended, or none could be made in time.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    Client,
    /// Of this host, in this life of its agent.
    Trial(usize, u64, Ticket),
}

pub struct Request {
    pub came: Moment,
    pub goal: Goal,
    /// The hosts that took it. What the path says is the product's affair.
    visited: Vec<usize>,
    hops: Vec<Hop>,
}

/// It is at a tier of this host.
struct Hop {
    place: usize,
    via: Path,
    tried: Vec<TierId>,
    at: TierId,
    /// Tells one attempt from another; `None` between two.
    serial: Option<u64>,
    asked: Moment,
    overdue: bool,
}

impl World {
    pub fn send(&mut self, place: usize, goal: Goal, before: Path) -> u64 {
        self.numbered += 1;
        let visited = match goal {
            Goal::Client => Vec::new(),
            Goal::Trial(asker, ..) => vec![asker],
        };
        let id = self.numbered;
        self.requests.insert(id, Request { came: self.now, goal, visited, hops: Vec::new() });
        self.arrive(id, place, before);
        id
    }

    /// It comes to a host, after it went through the instances of `before`.
    fn arrive(&mut self, id: u64, place: usize, before: Path) {
        let onward = before.clone().onward(self.hosts[place].id);
        let request = self.requests.get_mut(&id).expect("it is on its way");
        let Ok(via) = onward else {
            self.heard.push(Heard::CameBack);
            return self.finish(id, Reply::Loop);
        };
        if request.visited.contains(&place) {
            self.heard.push(Heard::Twice(place));
        }
        request.visited.push(place);
        let via = if self.plant == Plant::OwnIdMissing { before } else { via };
        request.hops.push(Hop {
            place,
            via,
            tried: Vec::new(),
            at: TierId(0),
            serial: None,
            asked: self.now,
            overdue: false,
        });
        self.advance(id);
    }

    pub fn arrived(&mut self, id: u64, serial: u64) {
        let Some(hop) = self.requests.get(&id).and_then(|request| request.hops.last()) else { return };
        if hop.serial != Some(serial) {
            return;
        }
        let (to, before) = (1 - hop.place, hop.via.clone());
        match self.link {
            Link::Fine if self.hosts[to].up => self.arrive(id, to, before),
            Link::Fine | Link::Refusing => self.replied(id, serial, Reply::Lost),
            Link::Dropping => {}
        }
    }

    /// The next tier that the plan names, or the end.
    fn advance(&mut self, id: u64) {
        let hop = self.requests[&id].hops.last().expect("it is somewhere");
        let table = self.hosts[hop.place].table(self.plant != Plant::FirstOnly);
        let next = table.ways(&hop.via, self.now).into_iter().find(|tier| !hop.tried.contains(tier));
        match next {
            Some(tier) => self.ask_tier(id, tier),
            None => {
                self.hop(id).expect("it is somewhere").serial = None;
                self.requests.get_mut(&id).expect("it is on its way").hops.pop();
                self.finish(id, Reply::Unavailable);
            }
        }
    }

    fn hop(&mut self, id: u64) -> Option<&mut Hop> {
        self.requests.get_mut(&id)?.hops.last_mut()
    }

    fn ask_tier(&mut self, id: u64, tier: TierId) {
        self.entered += 1;
        let (now, serial) = (self.now, self.entered);
        let hop = self.hop(id).expect("it is somewhere");
        hop.tried.push(tier);
        (hop.at, hop.serial, hop.asked, hop.overdue) = (tier, Some(serial), now, false);
        let place = hop.place;
        let sample = self.hosts[place].sample(tier);
        if sample.in_flight == 0 {
            sample.last_progress = now;
        }
        sample.in_flight += 1;
        let refused = |world: &mut Self| {
            let delay = world.dice.millis(1, 3);
            world.enter(delay, Coming::Reply(id, serial, Reply::Refused));
        };
        match self.hosts[place].role(tier) {
            Role::Peer => match self.link {
                Link::Fine if self.hosts[1 - place].up => {
                    let delay = self.dice.millis(1, 5);
                    self.enter(delay, Coming::Arrive(id, serial));
                }
                Link::Fine | Link::Refusing => refused(self),
                Link::Dropping => self.enter(CONNECT, Coming::Reply(id, serial, Reply::Lost)),
            },
            role @ (Role::Own | Role::Third) => {
                let link = if role == Role::Own { Link::Fine } else { self.outside[place] };
                match (link, self.mood(place, role)) {
                    (Link::Dropping, _) => self.enter(CONNECT, Coming::Reply(id, serial, Reply::Lost)),
                    (Link::Refusing, _) | (Link::Fine, Mood::Refusing) => refused(self),
                    (Link::Fine, mood) => {
                        if mood.works() {
                            let delay = self.dice.millis(50, 900);
                            self.enter(delay, Coming::Reply(id, serial, Reply::Answered));
                        }
                    }
                }
            }
        }
    }

    pub fn mood(&self, place: usize, role: Role) -> Mood {
        if role == Role::Own { self.hosts[place].mood(self.now) } else { self.third }
    }

    /// A tier, or whoever is between, says this.
    pub fn replied(&mut self, id: u64, serial: u64, reply: Reply) {
        let Some(request) = self.requests.get(&id) else { return };
        let Some(depth) = request.hops.iter().position(|hop| hop.serial == Some(serial)) else { return };
        let (place, tier) = (request.hops[depth].place, request.hops[depth].at);
        let role = self.hosts[place].role(tier);
        if reply == Reply::Answered && role != Role::Peer && !self.mood(place, role).works() {
            // It began, and stands still.
            return;
        }
        self.cut_short(id, depth);
        let now = self.now;
        match reply {
            Reply::Answered => {
                let sample = self.hosts[place].sample(tier);
                sample.answered += 1;
                (sample.answered_at, sample.last_byte, sample.last_progress) = (now, now, now);
                (sample.failures_in_row, sample.repeats_in_row, sample.turned_away_in_row) = (0, 0, 0);
                if let Some(process) = self.hosts[place].engine.as_mut().filter(|_| role == Role::Own) {
                    process.counter += 20;
                }
                self.requests.get_mut(&id).expect("it was just there").hops.pop();
                return self.finish(id, Reply::Answered);
            }
            Reply::Unavailable => self.hosts[place].sample(tier).turned_away_in_row += 1,
            // The way is at fault, not who found out.
            Reply::Loop => {}
            Reply::Refused | Reply::Lost => {
                let sample = self.hosts[place].sample(tier);
                sample.failures_in_row += 1;
                sample.repeats_in_row += 1;
            }
        }
        self.advance(id);
        if reply == Reply::Refused {
            let event = Event::Tier(tier, TierEvent::Refused { at: now });
            let life = self.hosts[place].life;
            self.enter(Duration::ZERO, Coming::News(place, life, event));
        }
    }

    /// The attempt of this hop is over, and with it everything that was asked for its sake.
    fn cut_short(&mut self, id: u64, depth: usize) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        for hop in &mut request.hops[depth..] {
            if hop.serial.take().is_some() {
                let sample = self.hosts[hop.place].sample(hop.at);
                sample.in_flight = sample.in_flight.saturating_sub(1);
            }
        }
        request.hops.truncate(depth + 1);
    }

    /// The host that it came to last has nothing more to do with it, and says `reply` to whoever asked.
    fn finish(&mut self, id: u64, reply: Reply) {
        let request = &self.requests[&id];
        let Some(serial) = request.hops.last().map(|hop| hop.serial.expect("it waits for this")) else {
            return self.end(id, reply);
        };
        match self.link {
            Link::Fine => {
                let delay = self.dice.millis(1, 3);
                self.enter(delay, Coming::Reply(id, serial, reply));
            }
            Link::Refusing => self.replied(id, serial, Reply::Lost),
            Link::Dropping => {}
        }
    }

    fn end(&mut self, id: u64, reply: Reply) {
        let request = self.requests.remove(&id).expect("it was on its way");
        match request.goal {
            Goal::Client => {
                let place = request.visited[0];
                self.heard.push(Heard::Ended { place, came: request.came, reply });
            }
            Goal::Trial(place, life, ticket) => {
                let failed = |why: &str| Tried::Failed { cause: Cause::Unknown, why: why.to_owned() };
                let tried = match reply {
                    Reply::Answered => Tried::Passed,
                    Reply::Unavailable => failed("HTTP 503"),
                    Reply::Loop => failed("HTTP 508"),
                    Reply::Refused => failed("connection refused"),
                    Reply::Lost => failed("connection ended before the answer did"),
                };
                if self.link != Link::Dropping {
                    let event = Event::Done(ticket, Outcome::Tried(tried));
                    self.enter(S / 1_000, Coming::News(place, life, event));
                }
            }
        }
    }

    /// Nobody waits for it any more.
    pub fn hang_up(&mut self, id: u64) {
        self.cut_short(id, 0);
        self.requests.remove(&id);
    }

    /// What the hosts' tiers that `which` names say to all that they were asked, and when.
    pub fn say(&mut self, which: impl Fn(&Self, usize, Role) -> bool, reply: Reply) {
        let mut all = Vec::new();
        for (id, request) in &self.requests {
            for hop in &request.hops {
                if let Some(serial) = hop.serial
                    && which(self, hop.place, self.hosts[hop.place].role(hop.at))
                {
                    all.push((*id, serial));
                }
            }
        }
        for (id, serial) in all {
            if reply == Reply::Answered {
                let delay = self.dice.millis(50, 900);
                self.enter(delay, Coming::Reply(id, serial, reply));
            } else {
                self.replied(id, serial, reply);
            }
        }
    }

    /// The agent of this host is gone, and every connection with it.
    pub fn desert(&mut self, place: usize) {
        let ids: Vec<u64> = self.requests.keys().copied().collect();
        for id in ids {
            let Some(request) = self.requests.get(&id) else { continue };
            let asked_by = matches!(request.goal, Goal::Trial(asker, ..) if asker == place);
            match request.hops.iter().position(|hop| hop.place == place) {
                _ if asked_by => self.hang_up(id),
                None => {}
                Some(0) => match request.goal {
                    Goal::Client => self.hang_up(id),
                    Goal::Trial(..) => {
                        self.cut_short(id, 0);
                        self.end(id, Reply::Lost);
                    }
                },
                Some(depth) => {
                    let serial = request.hops[depth - 1].serial.expect("it waits for the next one");
                    self.replied(id, serial, Reply::Lost);
                }
            }
        }
    }

    /// Requests at a tier that takes no new ones, or that did not begin in time, go on where another one is open.
    pub fn move_on(&mut self, place: usize) {
        let now = self.now;
        let table = self.hosts[place].table(self.plant != Plant::FirstOnly);
        let mut leaving = Vec::new();
        for (id, request) in &mut self.requests {
            for (depth, hop) in request.hops.iter_mut().enumerate() {
                if hop.place != place || hop.serial.is_none() {
                    continue;
                }
                let route = &table.tiers[usize::from(hop.at.0)];
                hop.overdue |= hop.at.0 > 0 && now.since(hop.asked) >= FIRST_CONTENT;
                let leaves = route.standing != Standing::Open || hop.overdue;
                if leaves && table.ways(&hop.via, now).iter().any(|tier| !hop.tried.contains(tier)) {
                    leaving.push((*id, depth, hop.at, hop.overdue));
                }
            }
        }
        for (id, depth, tier, overdue) in leaving {
            let still = self.requests.get(&id).and_then(|request| request.hops.get(depth));
            if still.is_some_and(|hop| hop.place == place && hop.at == tier) {
                self.cut_short(id, depth);
                self.hosts[place].sample(tier).failures_in_row += u32::from(overdue);
                self.advance(id);
            }
        }
    }
}

//! The whole host as one machine. It owns the engines, the tiers and the chain, and is the only place where one
//! machine's answer becomes another's input.
//!
//! Every step goes the same way: take the event; then, until nothing is due: what tiers have proven goes to the
//! engines, what became of the engines goes to the tiers, on-demand engines hear whether they are needed; at the end the
//! chain is told, once.
mod absence;
#[cfg(test)]
mod tests;

use super::chain::{self, Chain};
use super::engine::{Engine, Outlook};
use super::silence::Patience;
use super::tier::Tier;
use super::turn::{Errand, Turn};
use super::{
    Action, CheckFailure, Checked, EngineEvent, EngineId, EngineState, Event, HostState, HostStatus, Moment,
    Notice, Outcome, Place, Prepared, Retry, Route, RunId, Saved, Settings, Shutdown, Standing, StartMode,
    TierEvent, TierId, Tried, Unasked,
};
use std::time::Duration;

const SAMPLE_READY: Duration = Duration::from_secs(1);
const SAMPLE_DRAINING: Duration = Duration::from_millis(100);
/// A request may have borrowed the routes just before they changed. Its start is seen in a sample that is this much
/// younger than the drain.
const ROUTES_SETTLE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct Host {
    state: HostState,
    engines: Vec<Engine>,
    tiers: Vec<Tier>,
    /// For each engine that is on-demand: its best tier.
    on_demand: Vec<(EngineId, TierId)>,
    chain: Chain,
    turn: Turn,
    /// How long open answers may take to finish when the agent ends.
    drain: Duration,
    farewell: Option<Farewell>,
}

/// The agent ends, and open answers of remote tiers are waited for, as those of engines are in their own drains.
#[derive(Clone, Copy, Debug)]
struct Farewell {
    began: Moment,
    until: Moment,
}

impl Host {
    /// How every start of the agent begins. Nothing is adopted yet: all engines are started anew.
    pub fn resume(settings: Settings, saved: &Saved, now: Moment) -> (Self, Vec<Action>) {
        let engine = |(place, engine): (usize, &super::EngineSettings)| {
            let last_run = saved.last_runs.get(place).copied().unwrap_or(0);
            Engine::new(EngineId(place as u16), engine.clone(), last_run, settings.drain, now)
        };
        let tier = |(rank, tier): (usize, &super::TierSettings)| {
            let engine = match tier.place {
                Place::Local(engine) => settings.engines.get(usize::from(engine.0)),
                Place::Remote => None,
            };
            let patience = Patience {
                silence: tier.silence,
                suspect: tier.suspect,
                replaceable_worker: engine.is_some_and(|engine| engine.replaceable_worker),
                cap: engine.map_or(tier.suspect, |engine| engine.startup.cap),
            };
            Tier::new(TierId(rank as u16), tier.clone(), patience, now)
        };
        let mut host = Self {
            state: HostState::Serving,
            engines: settings.engines.iter().enumerate().map(engine).collect(),
            tiers: settings.tiers.iter().enumerate().map(tier).collect(),
            on_demand: on_demand(&settings),
            chain: Chain::default(),
            turn: Turn::new(now, settings.seed),
            drain: settings.drain,
            farewell: None,
        };
        for engine in &mut host.engines {
            engine.resume(&mut host.turn);
        }
        host.settle();
        let actions = std::mem::take(&mut host.turn.actions);
        (host, actions)
    }

    /// Takes one event and says what to do about it, in order. Total: every event has an answer in every state, and
    /// none after `Action::Finish`.
    pub fn step(&mut self, now: Moment, event: Event) -> Vec<Action> {
        if self.state == HostState::Finished {
            return Vec::new();
        }
        let late = self.next_deadline().map_or(Duration::ZERO, |deadline| now.since(deadline));
        self.turn.now = self.turn.now.max(now);
        self.overslept(late);
        self.take(event);
        self.settle();
        self.finish_if_over();
        std::mem::take(&mut self.turn.actions)
    }

    /// When to send `Event::Deadline`; always later than the last step.
    pub fn next_deadline(&self) -> Option<Moment> {
        if self.state == HostState::Finished {
            return None;
        }
        let engines = self.engines.iter().filter_map(Engine::deadline);
        let tiers = self.tiers.iter().filter_map(Tier::deadline);
        let own = engines.chain(tiers).chain(self.turn.deadline()).chain(self.remotes_drain_until());
        own.chain(self.pulse()).min()
    }

    /// Every tier, best first, and what may go there.
    pub fn routes(&self) -> Vec<Route> {
        let standings = chain::standings(&self.tiers);
        let route = |(rank, (tier, standing))| {
            chain::route(TierId(rank as u16), tier, self.engine_of(tier), standing)
        };
        self.tiers.iter().zip(standings).enumerate().map(route).collect()
    }

    pub fn status(&self) -> HostStatus {
        let tier = |tier: &Tier| tier.status(self.engine_of(tier).map(Engine::status));
        HostStatus {
            state: self.state,
            serving: self.chain.serving(),
            tiers: self.tiers.iter().map(tier).collect(),
            retry: self.retry(),
        }
    }

    /// How often the agent should send `TierEvent::Sampled` for each tier. `None`: there is nothing to read.
    pub fn sample_interval(&self) -> Option<Duration> {
        if self.state == HostState::Finished {
            None
        } else if self.remotes_drain_until().is_some()
            || self.engines.iter().any(|engine| engine.draining_since().is_some())
        {
            Some(SAMPLE_DRAINING)
        } else {
            self.tiers.iter().any(Tier::is_present).then_some(SAMPLE_READY)
        }
    }

    fn engine_of(&self, tier: &Tier) -> Option<&Engine> {
        match tier.place() {
            Place::Local(engine) => self.engines.get(usize::from(engine.0)),
            Place::Remote => None,
        }
    }

    /// When something may answer again: the earliest that is foreseen.
    fn retry(&self) -> Option<Retry> {
        if self.chain.serving().is_some() {
            return None;
        }
        // A remote tier that is DOWN may be back at any time.
        let mut unforeseen = self.tiers.iter().any(|tier| tier.place() == Place::Remote);
        let mut first: Option<Moment> = None;
        for engine in &self.engines {
            match engine.outlook(&self.turn) {
                Outlook::Nothing => {}
                Outlook::Unknown => unforeseen = true,
                Outlook::At(at) => first = Some(first.map_or(at, |first| first.min(at))),
            }
        }
        first.map(|at| Retry { at, unforeseen })
    }

    fn take(&mut self, event: Event) {
        let turn = &mut self.turn;
        match event {
            // The one place where news of a run that is over is dropped.
            Event::Engine(run, event) => match self.engines.get_mut(usize::from(run.engine.0)) {
                Some(engine) if engine.live_run() == Some(run) => {
                    if let EngineEvent::ComputesOn(found) = &event {
                        let mine = self.tiers.iter_mut().filter(|tier| tier.run() == Some(run));
                        mine.for_each(|tier| tier.looked_at_device(found.clone(), turn));
                    }
                    engine.event(event, turn);
                }
                Some(_) | None => {}
            },
            Event::Tier(id, event) => {
                if let Some(tier) = self.tiers.get_mut(usize::from(id.0)) {
                    match event {
                        TierEvent::Sampled(sample) => tier.sampled(sample, turn),
                        TierEvent::Refused { at } => tier.refused(at, turn),
                    }
                }
            }
            Event::Operator(tier, command) => {
                let place = self.tiers.get(usize::from(tier.0)).map(Tier::place);
                if let (Some(Place::Local(engine)), HostState::Serving) = (place, self.state)
                    && let Some(engine) = self.engines.get_mut(usize::from(engine.0))
                {
                    turn.tell(Notice::Operator { tier, command });
                    engine.operator(command, turn);
                }
            }
            // The one place where the outcome of a forgotten ticket is dropped.
            Event::Done(ticket, outcome) => {
                match turn.close(ticket).map(|(errand, missed)| (errand, absence::heard(outcome, missed))) {
                    Some((errand, Some(outcome))) => self.done(errand, outcome),
                    Some((errand, None)) => self.ask_again(errand),
                    None => {}
                }
            }
            Event::Shutdown(shutdown) => self.shutdown(shutdown),
            Event::Deadline => {}
        }
    }

    /// An outcome of another kind than was asked for is no answer.
    fn done(&mut self, errand: Errand, outcome: Outcome) {
        match (errand, outcome) {
            (Errand::Check(tier), Outcome::Checked(checked)) => self.checked(tier, checked),
            (Errand::Prepare(run), Outcome::Prepared(prepared)) => self.prepared(run, &prepared),
            (Errand::Count(tier), Outcome::Counted(figure)) => self.counted(tier, figure),
            (Errand::Try(tier), Outcome::Tried(tried)) => self.tried(tier, &tried),
            (errand, Outcome::NotAsked(why)) => self.not_asked(errand, why),
            (Errand::Check(_), Outcome::Prepared(_) | Outcome::Counted(_) | Outcome::Tried(_))
            | (Errand::Prepare(_), Outcome::Checked(_) | Outcome::Counted(_) | Outcome::Tried(_))
            | (Errand::Count(_), Outcome::Checked(_) | Outcome::Prepared(_) | Outcome::Tried(_))
            | (Errand::Try(_), Outcome::Checked(_) | Outcome::Prepared(_) | Outcome::Counted(_)) => {
                self.unanswered(errand);
            }
        }
    }

    /// This host could not ask. What is not known changes nothing: it is asked again later.
    fn not_asked(&mut self, errand: Errand, why: Unasked) {
        let asked = match errand {
            Errand::Check(id) | Errand::Count(id) | Errand::Try(id) => id,
            Errand::Prepare(run) => return self.prepared(run, &Prepared::NotYet),
        };
        let Some(tier) = self.tiers.get_mut(usize::from(asked.0)) else { return };
        match errand {
            Errand::Check(_) => tier.not_checked(why, &mut self.turn),
            Errand::Count(_) => tier.not_counted(&self.turn),
            Errand::Try(_) => tier.not_tried(&self.turn),
            Errand::Prepare(_) => {}
        }
    }

    fn unanswered(&mut self, errand: Errand) {
        match errand {
            Errand::Check(tier) => self.checked(tier, Checked::Failed(CheckFailure::TimedOut)),
            Errand::Prepare(run) => self.prepared(run, &Prepared::NotYet),
            Errand::Count(tier) => self.counted(tier, None),
            Errand::Try(tier) => self.tried(tier, &Tried::TimedOut),
        }
    }

    fn checked(&mut self, id: TierId, checked: Checked) {
        if let Some(tier) = self.tiers.get_mut(usize::from(id.0)) {
            tier.checked(checked, &mut self.turn);
        }
    }

    fn counted(&mut self, id: TierId, figure: Option<u64>) {
        if let Some(tier) = self.tiers.get_mut(usize::from(id.0)) {
            tier.counted(figure, &mut self.turn);
        }
    }

    fn tried(&mut self, id: TierId, tried: &Tried) {
        if let Some(tier) = self.tiers.get_mut(usize::from(id.0)) {
            tier.tried(tried, &mut self.turn);
        }
    }

    /// A starting engine was asked, or a ready one that got a new worker.
    fn prepared(&mut self, run: RunId, outcome: &Prepared) {
        if let Some(engine) = self.engines.get_mut(usize::from(run.engine.0))
            && engine.live_run() == Some(run)
        {
            engine.prepared(outcome.clone(), &mut self.turn);
        }
        for tier in self.tiers.iter_mut().filter(|tier| tier.run() == Some(run)) {
            tier.prepared(outcome, &mut self.turn);
        }
    }

    fn shutdown(&mut self, shutdown: Shutdown) {
        let began = self.turn.now;
        match (shutdown, self.state) {
            (Shutdown::Drain, HostState::Serving) => {
                self.farewell = Some(Farewell { began, until: began + self.drain });
            }
            (Shutdown::Drain, HostState::Draining | HostState::Finished) => {}
            (Shutdown::Now, HostState::Serving | HostState::Draining | HostState::Finished) => {
                self.farewell = None;
            }
        }
        self.state = HostState::Draining;
        for engine in &mut self.engines {
            engine.shutdown(shutdown, &mut self.turn);
        }
    }

    /// Carries answers from machine to machine, and does what is due, until nothing is.
    fn settle(&mut self) {
        loop {
            self.join();
            let now = self.turn.now;
            if self.next_deadline().is_none_or(|deadline| deadline > now) {
                break;
            }
            for engine in &mut self.engines {
                if engine.deadline().is_some_and(|at| at <= now) {
                    engine.due(&mut self.turn);
                }
            }
            for tier in &mut self.tiers {
                if tier.deadline().is_some_and(|at| at <= now) {
                    tier.due(&mut self.turn);
                }
            }
            while let Some(errand) = self.turn.lost() {
                self.unanswered(errand);
            }
        }
        self.publish();
    }

    fn join(&mut self) {
        for place in 0..self.engines.len() {
            self.join_engine(EngineId(place as u16));
        }
        for (id, best) in &self.on_demand {
            let needed = !self.tiers.iter().take(usize::from(best.0)).any(Tier::is_sound);
            if let Some(engine) = self.engines.get_mut(usize::from(id.0)) {
                engine.demand(needed, &mut self.turn);
                // They looked at it before; what it was told now must not wait for the next event.
                follow(&mut self.tiers, *id, engine, &mut self.turn);
            }
        }
        let sound = self.tiers.iter().filter(|tier| tier.is_sound()).count();
        for tier in &mut self.tiers {
            let others = sound - usize::from(tier.is_sound());
            tier.stands_alone(others == 0, &mut self.turn);
        }
    }

    fn join_engine(&mut self, id: EngineId) {
        let Some(engine) = self.engines.get_mut(usize::from(id.0)) else { return };
        let turn = &mut self.turn;
        let mine = |tier: &&mut Tier| tier.place() == Place::Local(id);
        for tier in self.tiers.iter_mut().filter(mine) {
            if let Some(blame) = tier.proven() {
                engine.condemn(blame, turn);
            }
        }
        follow(&mut self.tiers, id, engine, turn);
        if let Some(began) = engine.draining_since() {
            let settled = began + ROUTES_SETTLE;
            if self.tiers.iter_mut().filter(mine).all(|tier| tier.in_flight(settled) == Some(0)) {
                engine.drained(turn);
            }
        }
    }

    /// Works out who may be asked, and tells when another tier serves.
    fn publish(&mut self) {
        let standings = chain::standings(&self.tiers);
        for (tier, standing) in self.tiers.iter_mut().zip(&standings) {
            tier.take_new(*standing == Standing::Open);
        }
        let first = standings.iter().position(|standing| *standing == Standing::Open);
        let first = first.map(|rank| TierId(rank as u16));
        if first.is_none() {
            self.tiers.iter_mut().for_each(|tier| tier.is_needed(self.turn.now));
        }
        match self.state {
            HostState::Serving => {
                let hopeless = self.is_hopeless();
                self.chain.serve(first, &self.tiers, hopeless, &mut self.turn);
            }
            // What happens to serving while mainstay ends is no news.
            HostState::Draining | HostState::Finished => self.chain.serve_untold(first),
        }
    }

    /// Every engine was tried in vain, or every remote tier checked: at a first start, too, that is something to be told.
    fn is_hopeless(&self) -> bool {
        let resting = |engine: &Engine| engine.state() == EngineState::Stopped || engine.is_given_up();
        let mut remotes = self.tiers.iter().filter(|tier| tier.place() == Place::Remote).peekable();
        let in_vain = remotes.peek().is_some() && remotes.all(Tier::is_checked_in_vain);
        (in_vain || self.engines.iter().any(Engine::is_given_up)) && self.engines.iter().all(resting)
    }

    /// Until when open answers of remote tiers are waited for at the latest; `None` when there is nothing to wait for.
    /// As with engines, only a sample that is younger than the shutdown tells.
    fn remotes_drain_until(&self) -> Option<Moment> {
        let Farewell { began, until } = self.farewell.filter(|farewell| farewell.until > self.turn.now)?;
        let settled = began + ROUTES_SETTLE;
        let mut remotes = self.tiers.iter().filter(|tier| tier.place() == Place::Remote);
        remotes.any(|tier| tier.in_flight(settled) != Some(0)).then_some(until)
    }

    fn finish_if_over(&mut self) {
        let over = |engine: &Engine| match engine.state() {
            EngineState::Stopped | EngineState::Wedged => true,
            EngineState::Starting
            | EngineState::Ready
            | EngineState::Stopping
            | EngineState::Backoff
            | EngineState::Held => false,
        };
        let drained = self.remotes_drain_until().is_none();
        if self.state == HostState::Draining && drained && self.engines.iter().all(over) {
            self.state = HostState::Finished;
            self.turn.act(Action::Finish);
        }
    }
}

/// The tiers of an engine look at what became of it.
fn follow(tiers: &mut [Tier], id: EngineId, engine: &Engine, turn: &mut Turn) {
    for tier in tiers.iter_mut().filter(|tier| tier.place() == Place::Local(id)) {
        tier.follow(engine, turn);
    }
}

fn on_demand(settings: &Settings) -> Vec<(EngineId, TierId)> {
    let engines = settings.engines.iter().enumerate();
    let wanted = engines.filter(|(_, engine)| engine.start == StartMode::OnDemand);
    let best = |(place, _): (usize, &super::EngineSettings)| {
        let id = EngineId(place as u16);
        let rank = settings.tiers.iter().position(|tier| tier.place == Place::Local(id))?;
        Some((id, TierId(rank as u16)))
    };
    wanted.filter_map(best).collect()
}

//! Planted bugs: a host whose input or output is bent the way a plausible mistake would bend it. Each must be caught by
//! the checker, or the checker is blind. The host itself has no hook for this.
use mainstay::policy::{
    Action, EngineState, Event, Host, HostStatus, Moment, Outcome, Route, RunId, Sample, Saved, Settings,
    Standing, TierEvent, TierId,
};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    Nothing,
    /// News of an older run is taken for news of the live one.
    OldNews,
    /// A dead main process is taken for the end of the run: the next one starts beside what is left.
    TwoRuns,
    /// A route stays open for a moment after its engine has stopped being ready.
    StaleRoute,
    /// A start that is due later happens now.
    EarlyStart,
    /// KILL and TERM get lost.
    LostKill,
    /// A counter that moves is taken for one that does not answer: the busy are taken for dead.
    BlindCount,
    /// A timer is armed for now, again and again.
    HotLoop,
    /// A hang is never looked for.
    NoProof,
    /// Requests that are open at remote tiers are overlooked.
    TornAnswers,
    /// What a step changed of a tier's reason is shown after the next one only.
    HalfDone,
    /// The agent begins as if none had been there before it.
    NoMemory,
}

impl Plant {
    pub const ALL: [Self; 11] = [
        Self::OldNews,
        Self::TwoRuns,
        Self::StaleRoute,
        Self::EarlyStart,
        Self::LostKill,
        Self::BlindCount,
        Self::HotLoop,
        Self::NoProof,
        Self::TornAnswers,
        Self::HalfDone,
        Self::NoMemory,
    ];
}

pub struct Saboteur {
    host: Host,
    plant: Plant,
    routes_before: Vec<Route>,
    status_before: HostStatus,
    now: Moment,
}

impl Saboteur {
    pub fn resume(settings: Settings, saved: &Saved, now: Moment, plant: Plant) -> (Self, Vec<Action>) {
        let forgotten = Saved::default();
        let saved = if plant == Plant::NoMemory { &forgotten } else { saved };
        let (host, actions) = Host::resume(settings, saved, now);
        let (routes_before, status_before) = (host.routes(), host.status());
        (Self { host, plant, routes_before, status_before, now }, actions)
    }

    pub fn step(&mut self, now: Moment, event: Event) -> Vec<Action> {
        self.now = now;
        if self.plant != Plant::Nothing {
            (self.routes_before, self.status_before) = (self.host.routes(), self.host.status());
        }
        let (now, event) = self.bend(now, event);
        let mut actions = self.host.step(now, event);
        if self.plant == Plant::LostKill {
            actions.retain(|action| !matches!(action, Action::Terminate { .. } | Action::Kill { .. }));
        }
        actions
    }

    fn bend(&self, now: Moment, event: Event) -> (Moment, Event) {
        use mainstay::policy::EngineEvent::{Ended, Exited};
        match (self.plant, event) {
            (Plant::OldNews, Event::Engine(run, news)) => {
                (now, Event::Engine(self.live(run).unwrap_or(run), news))
            }
            (Plant::TwoRuns, Event::Engine(run, Exited(_))) => {
                (now, Event::Engine(run, Ended(mainstay::policy::Remains::Nothing)))
            }
            (Plant::EarlyStart, Event::Tier(tier, event)) => {
                (self.waiting().unwrap_or(now), Event::Tier(tier, event))
            }
            (Plant::BlindCount, Event::Done(ticket, Outcome::Counted(_))) => {
                (now, Event::Done(ticket, Outcome::Counted(None)))
            }
            (Plant::TornAnswers, Event::Tier(tier, TierEvent::Sampled(sample))) if self.is_remote(tier) => {
                (now, Event::Tier(tier, TierEvent::Sampled(Sample { in_flight: 0, ..sample })))
            }
            (Plant::NoProof, Event::Done(ticket, Outcome::Counted(_))) => {
                (now, Event::Done(ticket, Outcome::Counted(Some(now.as_nanos()))))
            }
            (_, event) => (now, event),
        }
    }

    fn is_remote(&self, tier: TierId) -> bool {
        self.host.status().tiers.get(usize::from(tier.0)).is_some_and(|tier| tier.engine.is_none())
    }

    fn live(&self, of: RunId) -> Option<RunId> {
        let tiers = self.host.status().tiers;
        let runs = tiers.iter().filter_map(|tier| tier.engine.as_ref()?.run);
        runs.into_iter().find(|run| run.engine == of.engine)
    }

    fn waiting(&self) -> Option<Moment> {
        let tiers = self.host.status().tiers;
        let engines = tiers.iter().filter_map(|tier| tier.engine.as_ref());
        engines
            .filter(|engine| engine.state == EngineState::Backoff)
            .filter_map(|engine| engine.next_start)
            .min()
    }

    pub fn next_deadline(&self) -> Option<Moment> {
        match self.plant {
            Plant::HotLoop => self.host.next_deadline().map(|_| self.now),
            _ => self.host.next_deadline(),
        }
    }

    pub fn routes(&self) -> Vec<Route> {
        let mut routes = self.host.routes();
        if self.plant == Plant::StaleRoute {
            for (route, before) in routes.iter_mut().zip(&self.routes_before) {
                if before.standing == Standing::Open && route.standing == Standing::Closed {
                    *route = before.clone();
                }
            }
        }
        routes
    }

    pub fn status(&self) -> HostStatus {
        let mut status = self.host.status();
        if self.plant == Plant::HalfDone {
            for (tier, before) in status.tiers.iter_mut().zip(&self.status_before.tiers) {
                tier.reason.clone_from(&before.reason);
            }
        }
        status
    }

    pub fn sample_interval(&self) -> Option<Duration> {
        self.host.sample_interval()
    }
}

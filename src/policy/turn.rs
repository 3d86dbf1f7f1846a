//! What one step may use besides the machine it is about: the time, chance, tickets, and the list of actions that the
//! step returns. `Host` owns the only one, and empties its list at the end of every step.
use super::chance::Chance;
use super::{Action, Moment, Notice, RunId, Ticket, TierId};
use std::collections::BTreeMap;
use std::time::Duration;

/// The agent answers a ticket within its time-out. One that is this much later is lost (its task died), and counts as
/// unanswered: a machine never waits for ever.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// What a ticket was given out for, and so, to whom its outcome goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    Check(TierId),
    Prepare(RunId),
    Count(TierId),
    Try(TierId),
}

#[derive(Debug)]
struct Open {
    errand: Errand,
    lost_at: Option<Moment>,
    /// For so long the agent did not run since it was given out.
    missed: Duration,
}

#[derive(Debug)]
pub(super) struct Turn {
    pub(super) now: Moment,
    pub(super) chance: Chance,
    pub(super) actions: Vec<Action>,
    last_ticket: u64,
    /// Bounded: at most one of each errand is open.
    open: BTreeMap<Ticket, Open>,
}

impl Turn {
    pub(super) fn new(now: Moment, seed: u64) -> Self {
        let (actions, open) = (Vec::new(), BTreeMap::new());
        Self { now, chance: Chance::new(seed), actions, last_ticket: 0, open }
    }

    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn tell(&mut self, notice: Notice) {
        self.actions.push(Action::Tell(notice));
    }

    pub(super) fn check(&mut self, tier: TierId, timeout: Duration) {
        let ticket = self.ticket(Errand::Check(tier), Some(timeout));
        self.act(Action::Check { ticket, tier, timeout });
    }

    /// Has no time-out: loading a model takes what it takes, and a client that leaves aborts an Ollama load. The limits
    /// of the start itself end it.
    pub(super) fn prepare(&mut self, run: RunId) {
        let ticket = self.ticket(Errand::Prepare(run), None);
        self.act(Action::Prepare { ticket, run });
    }

    pub(super) fn count(&mut self, tier: TierId, timeout: Duration) {
        let ticket = self.ticket(Errand::Count(tier), Some(timeout));
        self.act(Action::Count { ticket, tier, timeout });
    }

    pub(super) fn attempt(&mut self, tier: TierId, timeout: Duration) {
        let ticket = self.ticket(Errand::Try(tier), Some(timeout));
        self.act(Action::Try { ticket, tier, timeout });
    }

    fn ticket(&mut self, errand: Errand, timeout: Option<Duration>) -> Ticket {
        // Whoever asks again has lost interest in the older answer; two answers at once would look like two looks.
        self.open.retain(|_, open| open.errand != errand);
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        let lost_at = timeout.map(|timeout| self.now + timeout + LOST_AFTER);
        self.open.insert(ticket, Open { errand, lost_at, missed: Duration::ZERO });
        ticket
    }

    /// Takes a ticket back, with how long the agent did not run meanwhile. `None`: it was forgotten, or its outcome came
    /// before.
    pub(super) fn close(&mut self, ticket: Ticket) -> Option<(Errand, Duration)> {
        self.open.remove(&ticket).map(|open| (open.errand, open.missed))
    }

    /// Is an answer awaited?
    pub(super) fn asks(&self) -> bool {
        !self.open.is_empty()
    }

    /// The outcomes of this tier's errands are no longer of interest: they are about a run that is over.
    pub(super) fn forget_tier(&mut self, tier: TierId) {
        self.open.retain(|_, open| match open.errand {
            Errand::Check(of) | Errand::Count(of) | Errand::Try(of) => of != tier,
            Errand::Prepare(_) => true,
        });
    }

    pub(super) fn forget_run(&mut self, run: RunId) {
        self.open.retain(|_, open| open.errand != Errand::Prepare(run));
    }

    /// Takes back one ticket whose outcome is overdue.
    pub(super) fn lost(&mut self) -> Option<Errand> {
        let now = self.now;
        let (&ticket, _) = self.open.iter().find(|(_, open)| open.lost_at.is_some_and(|at| at <= now))?;
        self.close(ticket).map(|(errand, _)| errand)
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        self.open.values().filter_map(|open| open.lost_at).min()
    }

    /// The agent did not run for so long: nothing could be heard in that time.
    pub(super) fn overslept(&mut self, late: Duration) {
        let later = self.now + LOST_AFTER;
        for open in self.open.values_mut() {
            open.lost_at = open.lost_at.map(|at| at.max(later));
            open.missed += late;
        }
    }
}

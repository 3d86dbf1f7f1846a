//! One engine's life.
//!
//! ```text
//!            wanted                Spawned, Prepared::Ready
//!  Stopped ─────────► Starting ──────────────────────────► Ready
//!     ▲                │  │ unasked exit, stall, cap,        │ unasked exit,
//!     │                │  │ impossible, operator             │ proven hang, operator, no longer needed
//!     │   SpawnFailed  │  ▼                                  ▼
//!     │◄───────────────┤  Stopping: Draining → Terminating → Reaping → Killed     (engine/stopping.rs)
//!     │                │     │ Ended{Nothing}                      │ Ended{Processes}, or nothing for REAP_LIMIT
//!     │   not wanted   ▼     ▼                                     ▼
//!     └───────────── judged ◄──────────────────────────────────  Wedged (KILL again, slowly)
//!                      │ asked: Starting again;  strike: Starting at once, Backoff, or Held
//!                      ▼
//!         Backoff{until}, Held{until} ──── until, or an operator ────► Starting
//! ```
//!
//! | | Spawned | SpawnFailed | Activity, Still | Exited | Ended | operator start | restart | stop |
//! |---|---|---|---|---|---|---|---|---|
//! | Stopped, Backoff, Held | · | · | · | · | · | Starting, forgiven | Starting, forgiven | Stopped |
//! | Starting | ask whether it answers | judged | noted | Stopping (reaping) | judged | · | Stopping, then again | Stopping |
//! | Ready | · | judged | · | Stopping (reaping) | judged | · | Stopping, then again | Stopping |
//! | Stopping | · | judged | · | reaping | judged, or Wedged | again afterwards | again afterwards | stay down |
//! | Wedged | · | judged | · | noted | judged | KILL now | KILL now | stay down |
//!
//! `·` is ignored on purpose. A run is over when it has `Ended`; only then can the next one start, so there are never
//! two. An operator's `stop` bars the engine until a `start` or `restart`.
mod outlook;
mod starting;
mod stopping;
#[cfg(test)]
mod tests;

use super::strikes::{Failure, Strikes};
use super::turn::Turn;
use super::words::spell;
use super::{
    Action, Cause, Command, EngineEvent, EngineId, EngineSettings, EngineState, EngineStatus, Exit, LastExit,
    Moment, Notice, Remains, RunId, Shutdown, StartMode, Still,
};
pub(super) use outlook::Outlook;
use starting::Starting;
use std::time::Duration;
pub(super) use stopping::Blame;
use stopping::{Reason, Stopping, Wedged};

/// How long an on-demand engine goes on after a tier above it is ready again.
const UNNEEDED: Duration = Duration::from_secs(10 * 60);

#[derive(Debug)]
pub(super) struct Engine {
    id: EngineId,
    settings: EngineSettings,
    drain: Duration,
    life: Life,
    since: Moment,
    /// Why it is in this state, for people.
    why: String,
    /// Moves on whenever `life` or `why` does, so that its tiers can see that cheaply.
    version: u64,
    /// The number of the latest run; 0 before the first of all.
    latest: u64,
    /// The number of the latest run of an earlier agent.
    before: u64,
    /// Should it run when it can?
    wanted: bool,
    /// Stopped by an operator (or for good, in a shutdown): nothing but an operator starts it again.
    barred: bool,
    /// For an on-demand engine: since when a tier above is ready.
    unneeded_since: Option<Moment>,
    strikes: Strikes,
    /// How long its last start took that came to an end, from Starting to Ready.
    started_in: Option<Duration>,
    last_exit: Option<LastExit>,
}

#[derive(Debug)]
enum Life {
    Stopped,
    Starting(Starting),
    Ready(Ready),
    Stopping(Stopping),
    Backoff { until: Moment },
    Held { until: Moment },
    Wedged(Wedged),
}

#[derive(Clone, Copy, Debug)]
struct Ready {
    run: RunId,
    /// When its strikes are forgiven; `None` once they are.
    stable_at: Option<Moment>,
}

impl Engine {
    pub(super) fn new(
        id: EngineId,
        settings: EngineSettings,
        last_run: u64,
        drain: Duration,
        now: Moment,
    ) -> Self {
        let wanted = settings.start == StartMode::Always;
        let strikes = Strikes::new(settings.restart, now);
        Self {
            id,
            settings,
            drain,
            life: Life::Stopped,
            since: now,
            why: "stopped".to_owned(),
            version: 1,
            latest: last_run,
            before: last_run,
            wanted,
            barred: false,
            unneeded_since: None,
            strikes,
            started_in: None,
            last_exit: None,
        }
    }

    /// The first thing in a host's life.
    pub(super) fn resume(&mut self, turn: &mut Turn) {
        if self.wanted {
            self.begin("mainstay started".to_owned(), turn);
        }
    }

    pub(super) fn state(&self) -> EngineState {
        match self.life {
            Life::Stopped => EngineState::Stopped,
            Life::Starting(_) => EngineState::Starting,
            Life::Ready(_) => EngineState::Ready,
            Life::Stopping(_) => EngineState::Stopping,
            Life::Backoff { .. } => EngineState::Backoff,
            Life::Held { .. } => EngineState::Held,
            Life::Wedged(_) => EngineState::Wedged,
        }
    }

    /// The run of which processes exist or may exist.
    pub(super) fn live_run(&self) -> Option<RunId> {
        match &self.life {
            Life::Starting(starting) => Some(starting.run),
            Life::Ready(ready) => Some(ready.run),
            Life::Stopping(stopping) => Some(stopping.run),
            Life::Wedged(wedged) => Some(wedged.stopping.run),
            Life::Stopped | Life::Backoff { .. } | Life::Held { .. } => None,
        }
    }

    pub(super) fn ready_run(&self) -> Option<RunId> {
        match &self.life {
            Life::Ready(ready) => Some(ready.run),
            Life::Stopped
            | Life::Starting(_)
            | Life::Stopping(_)
            | Life::Backoff { .. }
            | Life::Held { .. }
            | Life::Wedged(_) => None,
        }
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Should it run when it can?
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Why its tiers cannot answer, when they cannot.
    pub(super) fn excuse(&self) -> String {
        match &self.life {
            Life::Stopped | Life::Starting(_) | Life::Ready(_) => self.state_name().to_owned(),
            Life::Stopping(_) => format!("stopping: {}", self.why),
            Life::Backoff { .. } | Life::Held { .. } | Life::Wedged(_) => self.why.clone(),
        }
    }

    /// What its tiers' absence is due to, where something is.
    pub(super) fn blame(&self) -> Option<Cause> {
        match &self.life {
            Life::Ready(_) => None,
            Life::Stopping(stopping) => Some(stopping.verdict().cause),
            Life::Stopped
            | Life::Starting(_)
            | Life::Backoff { .. }
            | Life::Held { .. }
            | Life::Wedged(_) => self.last_exit.as_ref().map(LastExit::cause),
        }
    }

    /// Is it not counted on for now, whatever it does? It is tried again all the same.
    pub(super) fn is_given_up(&self) -> bool {
        match self.life {
            Life::Held { .. } | Life::Wedged(_) => true,
            Life::Starting(_) | Life::Stopping(_) | Life::Backoff { .. } => self.strikes.waits_in_vain(),
            Life::Stopped | Life::Ready(_) => false,
        }
    }

    fn state_name(&self) -> &'static str {
        match self.life {
            Life::Stopped => "stopped",
            Life::Starting(_) => "starting",
            Life::Ready(_) => "ready",
            Life::Stopping(_) => "stopping",
            Life::Backoff { .. } => "backoff",
            Life::Held { .. } => "held",
            Life::Wedged(_) => "wedged",
        }
    }

    /// When the next start is due, where that is known.
    pub(super) fn next_start(&self) -> Option<Moment> {
        match self.life {
            Life::Backoff { until } | Life::Held { until } => Some(until),
            Life::Stopped | Life::Starting(_) | Life::Ready(_) | Life::Stopping(_) | Life::Wedged(_) => None,
        }
    }

    pub(super) fn status(&self) -> EngineStatus {
        EngineStatus {
            run: (self.starts() > 0).then_some(self.latest_run()),
            state: self.state(),
            since: self.since,
            restarts: self.starts().saturating_sub(1),
            strikes: self.strikes.count(),
            next_start: self.next_start(),
            last_exit: self.last_exit.clone(),
        }
    }

    /// Starts in this agent's life.
    fn starts(&self) -> u64 {
        self.latest - self.before
    }

    fn latest_run(&self) -> RunId {
        RunId { engine: self.id, number: self.latest }
    }

    /// News of the live run.
    pub(super) fn event(&mut self, event: EngineEvent, turn: &mut Turn) {
        match (&mut self.life, event) {
            (Life::Starting(starting), EngineEvent::Spawned { .. }) => {
                starting.active = turn.now;
                starting.prepare = Some(turn.now);
            }
            (Life::Starting(starting), EngineEvent::Activity) => starting.active = turn.now,
            (Life::Starting(starting), EngineEvent::Still(still)) => starting.still = still,
            (Life::Starting(_) | Life::Ready(_), EngineEvent::SpawnFailed { cause, nature, evidence }) => {
                self.vanished(Blame::start(cause, nature, evidence), turn);
            }
            (Life::Starting(_) | Life::Ready(_), EngineEvent::Exited(ending)) => self.died(ending, turn),
            (Life::Starting(_) | Life::Ready(_), EngineEvent::Ended(Remains::Nothing)) => {
                self.vanished(Blame::unknown(), turn);
            }
            (Life::Starting(_) | Life::Ready(_), EngineEvent::Ended(Remains::Processes(pids))) => {
                self.died(Blame::unknown().ending(Exit::Unknown), turn);
                self.wedge(&pids, turn);
            }
            (Life::Stopping(_) | Life::Wedged(_), EngineEvent::Exited(ending)) => self.reaped(ending, turn),
            (Life::Stopping(_), EngineEvent::Ended(Remains::Processes(pids))) => self.wedge(&pids, turn),
            (Life::Stopping(_), EngineEvent::SpawnFailed { .. } | EngineEvent::Ended(Remains::Nothing)) => {
                self.ended(turn);
            }
            (Life::Wedged(_), EngineEvent::SpawnFailed { .. } | EngineEvent::Ended(Remains::Nothing)) => {
                self.released(turn);
            }
            (
                Life::Ready(_) | Life::Stopping(_) | Life::Wedged(_),
                EngineEvent::Spawned { .. } | EngineEvent::Activity | EngineEvent::Still(_),
            )
            // What that means for its tiers is theirs to say.
            | (
                Life::Starting(_) | Life::Ready(_) | Life::Stopping(_) | Life::Wedged(_),
                EngineEvent::ComputesOn(_),
            )
            | (Life::Wedged(_), EngineEvent::Ended(Remains::Processes(_))) => {}
            // There is no live run, so `Host::step` has dropped the event before.
            (
                Life::Stopped | Life::Backoff { .. } | Life::Held { .. },
                EngineEvent::Spawned { .. }
                | EngineEvent::SpawnFailed { .. }
                | EngineEvent::Activity
                | EngineEvent::Still(_)
                | EngineEvent::ComputesOn(_)
                | EngineEvent::Exited(_)
                | EngineEvent::Ended(_),
            ) => {}
        }
    }

    /// A tier has proof that the ready run cannot go on.
    pub(super) fn condemn(&mut self, blame: Blame, turn: &mut Turn) {
        if self.ready_run().is_some() {
            self.stop(Reason::Failed(blame), turn);
        }
    }

    pub(super) fn operator(&mut self, command: Command, turn: &mut Turn) {
        self.barred = command == Command::Stop;
        self.wanted = command != Command::Stop;
        // An on-demand engine that was asked for gets its ten minutes, whoever is ready above it.
        self.unneeded_since = None;
        if self.wanted {
            self.strikes.forgive();
        }
        match (&mut self.life, command) {
            (Life::Stopped | Life::Backoff { .. } | Life::Held { .. }, Command::Start | Command::Restart) => {
                self.begin("an operator asked".to_owned(), turn);
            }
            (Life::Backoff { .. } | Life::Held { .. }, Command::Stop) => {
                self.turn_into(Life::Stopped, "an operator stopped it".to_owned(), turn);
            }
            (Life::Starting(_) | Life::Ready(_), Command::Restart) => {
                self.stop(Reason::Asked("an operator restarts it"), turn);
            }
            (Life::Starting(_) | Life::Ready(_), Command::Stop) => {
                self.stop(Reason::Asked("an operator stopped it"), turn);
            }
            (Life::Wedged(wedged), Command::Start | Command::Restart) => wedged.retry = turn.now,
            // What `wanted` says is done when the run has ended.
            (Life::Stopping(_), Command::Start | Command::Restart | Command::Stop)
            | (Life::Wedged(_) | Life::Stopped, Command::Stop)
            | (Life::Starting(_) | Life::Ready(_), Command::Start) => {}
        }
    }

    /// For an on-demand engine: is no tier above it ready?
    pub(super) fn demand(&mut self, needed: bool, turn: &mut Turn) {
        if self.settings.start != StartMode::OnDemand || self.barred {
            return;
        }
        if !needed {
            self.unneeded_since.get_or_insert(turn.now);
            return;
        }
        self.unneeded_since = None;
        self.wanted = true;
        if matches!(self.life, Life::Stopped) {
            self.begin("no tier above it is ready".to_owned(), turn);
        }
    }

    /// The agent ends: nothing is started any more.
    pub(super) fn shutdown(&mut self, shutdown: Shutdown, turn: &mut Turn) {
        self.barred = true;
        self.wanted = false;
        match (&self.life, shutdown) {
            (Life::Stopped, Shutdown::Drain | Shutdown::Now)
            | (Life::Stopping(_) | Life::Wedged(_), Shutdown::Drain) => {}
            (Life::Backoff { .. } | Life::Held { .. }, Shutdown::Drain | Shutdown::Now) => {
                self.turn_into(Life::Stopped, "mainstay ends".to_owned(), turn);
            }
            (Life::Starting(_) | Life::Ready(_), Shutdown::Drain) => {
                self.stop(Reason::Asked("mainstay ends"), turn);
            }
            (Life::Starting(_) | Life::Ready(_) | Life::Stopping(_), Shutdown::Now) => {
                self.kill_now("mainstay ends at once", turn);
            }
            (Life::Wedged(wedged), Shutdown::Now) => turn.act(Action::Kill { run: wedged.stopping.run }),
        }
    }

    /// The agent did not run for so long. That time counts neither against a start nor for a stop.
    pub(super) fn overslept(&mut self, late: Duration) {
        self.strikes.overslept(late);
        match &mut self.life {
            Life::Starting(starting) => starting.overslept(late),
            Life::Stopping(stopping) => stopping.overslept(late),
            Life::Stopped | Life::Ready(_) | Life::Backoff { .. } | Life::Held { .. } | Life::Wedged(_) => {}
        }
    }

    /// Is it on the way, by clocks of seconds?
    pub(super) fn is_timed(&self) -> bool {
        match self.life {
            Life::Starting(_) | Life::Stopping(_) => true,
            Life::Stopped | Life::Ready(_) | Life::Backoff { .. } | Life::Held { .. } | Life::Wedged(_) => {
                false
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        let life = match &self.life {
            Life::Stopped => None,
            Life::Starting(starting) => Some(starting.deadline(self.settings.startup)),
            Life::Ready(ready) => ready.stable_at,
            Life::Stopping(stopping) => Some(stopping.deadline()),
            Life::Backoff { until } | Life::Held { until } => Some(*until),
            Life::Wedged(wedged) => Some(wedged.retry),
        };
        life.into_iter().chain(self.unneeded_at()).min()
    }

    fn unneeded_at(&self) -> Option<Moment> {
        self.unneeded_since.filter(|_| self.wanted).map(|since| since + UNNEEDED)
    }

    /// Does what is due. Afterwards its deadline is in the future.
    pub(super) fn due(&mut self, turn: &mut Turn) {
        let now = turn.now;
        if self.unneeded_at().is_some_and(|at| at <= now) {
            self.wanted = false;
            self.stop(Reason::Asked("a tier above it is ready"), turn);
        }
        match &mut self.life {
            Life::Stopped => {}
            Life::Starting(_) => self.starting_due(turn),
            Life::Ready(ready) => {
                if ready.stable_at.is_some_and(|at| at <= now) {
                    ready.stable_at = None;
                    self.strikes.forgive();
                }
            }
            Life::Stopping(_) => self.stopping_due(turn),
            Life::Backoff { until } | Life::Held { until } => {
                if *until <= now && self.wanted {
                    self.begin("its pause is over".to_owned(), turn);
                } else if *until <= now {
                    self.turn_into(Life::Stopped, "a tier above it is ready".to_owned(), turn);
                }
            }
            Life::Wedged(_) => self.wedged_due(turn),
        }
    }

    fn begin(&mut self, why: String, turn: &mut Turn) {
        self.latest += 1;
        let run = self.latest_run();
        turn.act(Action::SaveIntent { run });
        turn.act(Action::Start { run });
        self.turn_into(Life::Starting(Starting::new(run, turn.now)), why, turn);
    }

    /// The only door into another state: every change is told, once.
    fn turn_into(&mut self, life: Life, why: String, turn: &mut Turn) {
        let from = self.state();
        self.pause_is_over(&life, turn.now);
        if matches!(life, Life::Stopped) {
            self.strikes.rest();
        }
        self.life = life;
        self.version += 1;
        let to = self.state();
        if from != to {
            self.since = turn.now;
            turn.tell(Notice::Engine { run: self.latest_run(), from, to, why: why.clone() });
        }
        self.why = why;
    }
}

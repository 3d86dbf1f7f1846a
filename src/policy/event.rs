//! Everything that can happen to a host. Events nest so that a match over them stays readable.
use super::{Cause, Moment, Nature, RunId, Still, Ticket, TierId};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// News of one run. Dropped in one place (`Host::step`) when it is not of the engine's live run.
    Engine(RunId, EngineEvent),
    Tier(TierId, TierEvent),
    /// An operator asked, through the control socket.
    Operator(TierId, Command),
    /// A long action has ended.
    Done(Ticket, Outcome),
    /// The agent was told to end.
    Shutdown(Shutdown),
    /// The moment that `Host::next_deadline` named has come.
    Deadline,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineEvent {
    /// The engine's main process exists.
    Spawned { pid: u32 },
    /// It could not be started, and no process of it exists.
    SpawnFailed { cause: Cause, nature: Nature, evidence: String },
    /// While it starts: it said something new, or its CPU, memory or disk moved.
    Activity,
    /// While it starts: a look found nothing that moved.
    Still(Still),
    /// A ready run was looked at.
    ComputesOn(Processor),
    /// Its main process is reaped. The rest of the tree may still live: `Ended` follows.
    Exited(Ending),
    /// Nothing that can be killed is left of the run.
    Ended(Remains),
}

/// What a run computes on, as far as its engine shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Processor {
    Unknown,
    Gpu,
    /// With what shows that.
    Cpu {
        evidence: String,
    },
}

/// How a main process ended, with the diagnosis that exit code and log allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    pub exit: Exit,
    pub cause: Cause,
    pub nature: Nature,
    /// The same start will fail the same way; `None` when the lines do not tell. For people: `nature` decides.
    pub deterministic: Option<bool>,
    /// The log line that the cause was read from.
    pub evidence: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// The shim died before it could say.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remains {
    /// No process, no port, no file in /dev/shm.
    Nothing,
    /// These pids are left after the whole reap deadline: of the run, and then they survived SIGKILL, or of others who hold
    /// its listener. The run is wedged.
    Processes(Vec<u32>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TierEvent {
    /// What the data plane shows just now.
    Sampled(Sample),
    /// A real request found the tier's address refusing connections then.
    Refused { at: Moment },
}

/// The data plane's figures of one tier, read by the agent at `Host::sample_interval`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    pub in_flight: u32,
    /// When it last delivered a byte, or, if later, when its first request in flight began.
    pub last_progress: Moment,
    /// The same without beginnings: they are the clients' doing.
    pub last_byte: Moment,
    /// Different real requests that failed in a row, or were refused, up to now.
    pub failures_in_row: u32,
    /// The same, where one that fails again counts again, and one that asked for what is not served there counts, too.
    pub repeats_in_row: u32,
    /// Real requests in a row that were turned away for want of room.
    pub turned_away_in_row: u32,
    /// Real requests answered since the run began.
    pub answered: u64,
    /// When the last of them was: a sample is read up to a second later, and what failed meanwhile is not undone by it.
    pub answered_at: Moment,
}

impl Sample {
    /// When it last delivered anything.
    pub(super) fn sign_of_life(&self) -> Moment {
        self.last_byte.max(self.answered_at)
    }
}

/// Marks a counted figure as the engine's CPU time, which stands in for a counter that does not answer. It says less:
/// what spins burns CPU time too.
pub const STAND_IN: u64 = 1 << 63;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Start,
    Stop,
    Restart,
}

/// How a long action ended. Each kind of ticket has its own kind of outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// of `Action::Check`
    Checked(Checked),
    /// of `Action::Prepare`
    Prepared(Prepared),
    /// of `Action::Count`: a figure that moves while the engine works; `None` when it did not answer in time. With
    /// [`STAND_IN`] set it is no counter's.
    Counted(Option<u64>),
    /// of `Action::Try`
    Tried(Tried),
    /// of any: this host could not ask. Nothing was learnt; it is asked again later.
    NotAsked(Unasked),
}

/// What this host had too little of to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unasked {
    pub cause: Cause,
    /// For people, with the limit's name.
    pub why: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    Passed { latency: Duration },
    Failed(CheckFailure),
}

/// How a one-token request went, judged as a client's would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    Passed,
    TimedOut,
    Failed {
        cause: Cause,
        /// For people, without the upstream's own words.
        why: String,
    },
    /// It is there, and refuses what it is asked.
    Refused {
        cause: Cause,
        why: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckFailure {
    /// Nobody listens: DOWN at once.
    Refused,
    TimedOut,
    Reset,
    Status(u16),
    /// There is no key to ask it with, for this reason: DOWN at once.
    NoKey(String),
    /// The remote server is this very mainstay: DOWN at once.
    Itself,
    /// It is a mainstay that reaches no engine without this one: DOWN at once.
    DeadEnd,
}

/// One attempt to make a starting engine answer: reach its health page, and for Ollama load the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prepared {
    Ready,
    /// Not yet; ask again.
    NotYet,
    /// It runs, and does not serve this model. With `deterministic` `Some(true)` the next start will not either.
    Impossible {
        cause: Cause,
        nature: Nature,
        deterministic: Option<bool>,
        evidence: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Open answers, of remote tiers too, may finish within `Settings::drain`, then every engine is stopped. The agent
    /// accepts nothing new.
    Drain,
    /// A second signal: kill everything now.
    Now,
}

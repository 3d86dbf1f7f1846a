//! A plain picture of a host, and the order in which its tiers are tried: the only doors through which others learn
//! what policy thinks.
use super::{Cause, Ending, Moment, RunId, TierId};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostStatus {
    pub state: HostState,
    /// The tier that the next request of the chain would go to.
    pub serving: Option<TierId>,
    /// In rank order.
    pub tiers: Vec<TierStatus>,
    /// When nothing can answer: when something may, where anything of that is known.
    pub retry: Option<Retry>,
}

/// When a request that nobody can answer now may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The earliest that can be foreseen; in the past when it is overdue.
    pub at: Moment,
    /// Something else is on the way too, for a time that nobody knows.
    pub unforeseen: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostState {
    Serving,
    Draining,
    Finished,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierStatus {
    pub health: Health,
    pub routable: bool,
    /// For people: "answered in 12 ms", "connection refused", "starting", …
    pub reason: String,
    pub since: Moment,
    pub check: CheckStatus,
    /// Why it cannot answer, or not well, where that is known.
    pub cause: Option<Cause>,
    /// It fails the requests of its clients, and is open only because no other tier is.
    pub last_resort: bool,
    /// Does the ready run compute on the CPU although it was to use a GPU? `None` where there is none, or as long as nobody
    /// has looked.
    pub cpu_fallback: Option<bool>,
    /// `None` for a remote tier.
    pub engine: Option<EngineStatus>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckStatus {
    pub last: Option<Moment>,
    pub latency: Option<Duration>,
    pub failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    Healthy,
    Degraded,
    Down,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineStatus {
    /// The live run, or the last one; `None` before the first.
    pub run: Option<RunId>,
    pub state: EngineState,
    pub since: Moment,
    /// Starts after the first, whoever asked.
    pub restarts: u64,
    /// Ends that nobody asked for, since they were last forgiven.
    pub strikes: u32,
    pub next_start: Option<Moment>,
    pub last_exit: Option<LastExit>,
}

/// The names of the contract's `process.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EngineState {
    Stopped,
    Starting,
    Ready,
    /// Out of the routes: draining, terminating or being reaped.
    Stopping,
    Backoff,
    Held,
    /// Processes of it survived SIGKILL.
    Wedged,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastExit {
    pub run: RunId,
    pub at: Moment,
    pub ending: Ending,
    /// What is done about it: "restart in 4 s", "held; next try in 15 min"; afterwards what was: "restarted at once",
    /// "restarted after 4 s", …
    pub action: String,
}

impl LastExit {
    pub fn cause(&self) -> Cause {
        self.ending.cause
    }
}

/// One entry of the route table, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub tier: TierId,
    /// The run behind it; `None` for a remote tier.
    pub run: Option<RunId>,
    pub standing: Standing,
    /// It is to serve when it can. Not so: an engine that an operator stopped, or that is started on demand and not needed.
    pub wanted: bool,
    /// Why it is not open, for operators; empty when it is.
    pub reason: String,
    /// The same for clients: of a closed list of phrases, so that it holds neither hosts nor words of an engine.
    pub brief: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// New requests may go there.
    Open,
    /// No new requests, and those that are not committed move at once; committed ones may go on.
    Leaving,
    /// No new requests; those of a run that drains go on until its `Cut`.
    Closed,
}

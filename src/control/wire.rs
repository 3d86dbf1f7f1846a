//! The JSON of `GET /v1/status`. Other programs rely on every name in here (contract "Sockets"), so these types change
//! only by addition and share nothing with policy's own. A figure that is not known is `null`, never 0; bytes and
//! seconds unless the name says otherwise; times are RFC 3339 UTC with milliseconds.
//!
//! The client reads the same types. It may be older or newer than the agent, so it ignores fields it does not know.
use crate::clock;
use crate::policy;
use serde::{Deserialize, Serialize};

/// The value of [`Status::schema`]; it changes only when a name in here loses its meaning.
pub const SCHEMA: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub schema: u32,
    pub agent: Agent,
    /// The tier that the next request of the default chain would go to; `None` when no tier can answer.
    pub serving: Option<String>,
    /// Best first.
    pub tiers: Vec<Tier>,
    pub gpu_probe: GpuProbe,
    pub gpus: Vec<Gpu>,
    pub host: Host,
    /// From the instant at which an attempt was known lost to the last request byte written to the next tier.
    #[serde(default)]
    pub failover_seconds: Distribution,
    /// Those that are not over, the oldest first.
    #[serde(default)]
    pub incidents: Vec<OpenIncident>,
    /// `None`: nobody is mailed.
    #[serde(default)]
    pub mail: Option<Mail>,
}

/// What is not over; `mainstay incident ID` has all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenIncident {
    pub id: u64,
    pub tier: String,
    /// "failure", "gpu", "failover", "held", "all-down".
    pub kind: String,
    pub opened: String,
    /// A name of the closed list (contract "Causes").
    pub cause: String,
}

/// How mail stands. Counts are since the agent began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mail {
    /// In the outbox.
    pub waiting: u64,
    pub sent: u64,
    /// Given up, or dropped from a full outbox.
    pub lost: u64,
    /// Why the last try failed; `None` when it did not.
    pub trouble: Option<String>,
    /// No mail got through since.
    pub trouble_since: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    pub version: String,
    pub pid: u32,
    pub started: String,
    pub state: AgentState,
    pub listen: Vec<String>,
    /// The watchdog limit that systemd holds the agent to; `None` where there is no watchdog.
    pub watchdog_s: Option<u64>,
    pub config: String,
    /// Where incidents, events and waiting mail are kept.
    #[serde(default)]
    pub state_dir: String,
    /// Why incidents, events and mail are not kept just now; `None`: they are.
    #[serde(default)]
    pub state_problem: Option<String>,
    /// Why the file as it lies on disk would be refused, where that is known.
    pub config_problem: Option<String>,
    /// Connections of clients that ended in a defect of ours.
    #[serde(default)]
    pub panics: u64,
    /// Requests that were refused because two engines had died while they were at them.
    #[serde(default)]
    pub poison_refused: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentState {
    Starting,
    Serving,
    Draining,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tier {
    pub name: String,
    /// 0 is the best.
    pub rank: u16,
    pub engine: String,
    /// A remote tier whose answers are those of a mainstay.
    #[serde(default)]
    pub mainstay: bool,
    pub model: Option<String>,
    /// `None` while no run of a local engine has an address.
    pub url: Option<String>,
    pub health: Health,
    pub routable: bool,
    /// For people: "answered in 12 ms", "connection refused", "starting", …
    pub reason: String,
    /// A name of the closed list (contract "Causes"): why it cannot answer, or not well, where that is known.
    #[serde(default)]
    pub cause: Option<String>,
    /// Since when it has this health.
    pub since: String,
    pub check: Check,
    pub traffic: Traffic,
    /// `None` for a remote tier.
    pub process: Option<Process>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    Healthy,
    Degraded,
    Down,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Check {
    pub last: Option<String>,
    pub latency_ms: Option<f64>,
    /// Failed checks in a row.
    pub failures: u32,
}

/// Requests of clients that this tier was tried for, since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    pub in_flight: u64,
    pub requests: u64,
    pub answered: u64,
    /// Moved on to another tier, unseen by the client.
    pub failed_over: u64,
    /// Lost after their commit point.
    pub cut: u64,
    /// Of the answered: the engine said that the request itself is wrong.
    #[serde(default)]
    pub client_errors: u64,
    /// It was the last tier that could be asked, and the client got an error.
    #[serde(default)]
    pub refused: u64,
    /// It said that it cannot carry the request, which another tier then got.
    #[serde(default)]
    pub skipped: u64,
    /// The client left before its answer was whole.
    #[serde(default)]
    pub abandoned: u64,
    /// Answers that were begun under the tier's `degrade` table.
    #[serde(default)]
    pub weakened: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// The live run, or the last one; `None` before the first.
    pub run: Option<u64>,
    pub state: ProcessState,
    pub since: String,
    /// The engine's main process.
    pub pid: Option<u32>,
    pub shim_pid: Option<u32>,
    /// Starts after the first, whoever asked.
    pub restarts: u64,
    /// Ends that nobody asked for.
    pub strikes: u32,
    pub next_start: Option<String>,
    /// Of the whole tree.
    pub rss: Option<u64>,
    /// Of the processes of the tree that live now.
    pub cpu_s: Option<f64>,
    pub progress: Option<Progress>,
    pub last_exit: Option<LastExit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessState {
    Stopped,
    Starting,
    Ready,
    Stopping,
    Backoff,
    Held,
    Wedged,
    Fenced,
}

/// How far a start has come, as read from the engine's log and from the last starts of the same engine and model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub stage: String,
    /// Of the whole start; where no earlier one is known, of the stage. It never runs backwards.
    pub percent: Option<u8>,
    /// Of the stage.
    #[serde(default)]
    pub stage_percent: Option<u8>,
    /// Seconds until it is ready.
    #[serde(default)]
    pub eta_s: Option<u64>,
    /// So many files, shards or graphs …
    #[serde(default)]
    pub n: Option<u64>,
    /// … of so many.
    #[serde(default)]
    pub of: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    pub run: u64,
    pub at: String,
    pub code: Option<i32>,
    /// "SIGKILL"; `None` when it exited by itself.
    pub signal: Option<String>,
    /// A name of the closed list (contract "Causes").
    pub cause: String,
    /// The log line that the cause was read from.
    pub evidence: Option<String>,
    /// What was done about it.
    pub action: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuProbe {
    pub state: GpuProbeState,
    pub driver: Option<String>,
    pub since: Option<String>,
    /// For people: why it is in this state.
    #[serde(default)]
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GpuProbeState {
    Ok,
    NoDriver,
    Unresponsive,
    Wedged,
    Starting,
    Off,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    pub index: u32,
    pub uuid: Option<String>,
    pub pci: Option<String>,
    pub name: Option<String>,
    pub verdict: GpuVerdict,
    pub reason: String,
    pub since: String,
    pub temperature_c: Option<f64>,
    pub memory_used: Option<u64>,
    pub memory_total: Option<u64>,
    /// 0 to 1.
    pub utilization: Option<f64>,
    pub power_w: Option<f64>,
    /// What slows its clocks: "sw-power", "hw-thermal", …
    pub throttle: Option<Vec<String>>,
    /// 0 to 1: for how much of the last minute heat slowed it down.
    pub throttle_share: Option<f64>,
    pub ecc: Option<Ecc>,
    pub xids: Vec<Xid>,
    /// Who holds its memory.
    #[serde(default)]
    pub processes: Option<Vec<GpuHolder>>,
}

/// A process that holds memory of a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuHolder {
    pub pid: u32,
    pub memory: Option<u64>,
    /// The tier to whose run it belongs; `None` for somebody else's.
    pub tier: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GpuVerdict {
    Ok,
    Note,
    Degraded,
    Draining,
    Fenced,
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ecc {
    pub corrected: Option<u64>,
    pub uncorrected: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Xid {
    pub xid: u32,
    pub at: String,
    pub count: u64,
    pub action: String,
}

/// Figures of the host; `None` where they could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    pub memory_total: Option<u64>,
    pub memory_available: Option<u64>,
    /// Mean number of runnable processes over the last minute.
    pub load: Option<f64>,
}

/// What a few numbers say of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    pub count: u64,
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub max: Option<f64>,
}

/// The answer to a command: its place among the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    pub seq: u64,
}

/// An error in the form that OpenAI's clients know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub error: Details,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    pub message: String,
    #[serde(rename = "type")]
    pub class: String,
    pub param: Option<String>,
    pub code: String,
}

impl GpuProbe {
    /// Nobody looks at GPUs.
    pub const fn off() -> Self {
        Self { state: GpuProbeState::Off, driver: None, since: None, reason: None }
    }
}

impl GpuProbeState {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NoDriver => "no-driver",
            Self::Unresponsive => "unresponsive",
            Self::Wedged => "wedged",
            Self::Starting => "starting",
            Self::Off => "off",
        }
    }
}

impl GpuVerdict {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Degraded => "degraded",
            Self::Draining => "draining",
            Self::Fenced => "fenced",
            Self::Unknown => "unknown",
        }
    }
}

impl AgentState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

impl Health {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

impl ProcessState {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Held => "held",
            Self::Wedged => "wedged",
            Self::Fenced => "fenced",
        }
    }
}

impl From<policy::Health> for Health {
    fn from(health: policy::Health) -> Self {
        match health {
            policy::Health::Healthy => Self::Healthy,
            policy::Health::Degraded => Self::Degraded,
            policy::Health::Down => Self::Down,
        }
    }
}

impl From<policy::EngineState> for ProcessState {
    fn from(state: policy::EngineState) -> Self {
        match state {
            policy::EngineState::Stopped => Self::Stopped,
            policy::EngineState::Starting => Self::Starting,
            policy::EngineState::Ready => Self::Ready,
            policy::EngineState::Stopping => Self::Stopping,
            policy::EngineState::Backoff => Self::Backoff,
            policy::EngineState::Held => Self::Held,
            policy::EngineState::Wedged => Self::Wedged,
        }
    }
}

impl From<&policy::CheckStatus> for Check {
    fn from(check: &policy::CheckStatus) -> Self {
        Self {
            last: check.last.map(clock::rfc3339_of),
            latency_ms: check.latency.map(|d| (d.as_secs_f64() * 1e4).round() / 10.0),
            failures: check.failures,
        }
    }
}

impl From<&policy::LastExit> for LastExit {
    fn from(exit: &policy::LastExit) -> Self {
        let (code, signal) = match exit.ending.exit {
            policy::Exit::Code(code) => (Some(code), None),
            policy::Exit::Signal(number) => (None, Some(signal_name(number))),
            policy::Exit::Unknown => (None, None),
        };
        Self {
            run: exit.run.number,
            at: clock::rfc3339_of(exit.at),
            code,
            signal,
            cause: exit.cause().name().to_owned(),
            evidence: exit.ending.evidence.clone(),
            action: exit.action.clone(),
        }
    }
}

/// "SIGKILL" for 9; "SIG35" for a signal that has no name of its own.
pub fn signal_name(number: i32) -> String {
    nix::sys::signal::Signal::try_from(number)
        .map_or_else(|_| format!("SIG{number}"), |signal| signal.as_str().to_owned())
}

#[cfg(test)]
mod tests;

//! What policy needs to know of the configuration: numbers and names, never argv, environment or secrets.
use super::EngineId;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub engines: Vec<EngineSettings>,
    /// Best first; `TierId` is the place in this list.
    pub tiers: Vec<TierSettings>,
    /// How long open answers may take to finish before an engine is stopped, or the agent ends (`server.drain`).
    pub drain: Duration,
    /// Seed of everything random (jitter).
    pub seed: u64,
}

/// What is known from before the agent started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// The number of each engine's latest run, in the order of [`Settings::engines`]; an engine that has none here
    /// begins at 1. Run numbers are never reused while anything of an older run may still be around.
    pub last_runs: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSettings {
    /// For notices; today the name of its one tier.
    pub name: String,
    pub start: StartMode,
    pub restart: Restart,
    pub startup: Startup,
    /// From TERM to KILL.
    pub stop_grace: Duration,
    /// The engine runs the model in a worker process of its own that can be replaced alone (Ollama's runner): a proven
    /// hang kills that worker first, and the engine only when that did not help.
    pub replaceable_worker: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartMode {
    Always,
    /// Started while no tier above is ready; stopped 10 min after one is.
    OnDemand,
    Manual,
}

/// Backoff and hold; DESIGN "Health and routing", last line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    pub first: Duration,
    pub base: Duration,
    pub max: Duration,
    /// Ready for max(this, 2 × its start time) forgives all strikes.
    pub stable: Duration,
    pub hold_after: u32,
    /// First retry of a held engine; × 2 up to 2 h.
    pub hold_retry: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Startup {
    /// Longest time without any sign of progress.
    pub stall: Duration,
    /// Longest start, progress or not.
    pub cap: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierSettings {
    pub name: String,
    pub place: Place,
    pub check: Check,
    /// A ready tier with requests in flight that delivered no byte for this long is asked for proof of life.
    pub silence: Duration,
    /// The same for a run that is found on the CPU although it was to use a GPU.
    pub silence_on_cpu: Duration,
    /// The same for a run that is found on a GPU.
    pub silence_on_gpu: Duration,
    /// Its engine is to use a GPU.
    pub wants_gpu: bool,
    /// From a proven hang to the restart.
    pub suspect: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Local(EngineId),
    Remote,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    pub interval: Duration,
    pub timeout: Duration,
    /// A 200 that took longer makes the tier DEGRADED.
    pub slow: Duration,
    /// Failures in a row that make it DOWN.
    pub failures: u32,
}

//! PURE: `(now, Event) → Vec<Action>`. No clock, no I/O, no async, no serde.
//!
//! `Host` owns one machine per engine and one per tier, and is the only place where one machine's answer becomes
//! another's input. The agent feeds it events, performs the actions, and reads `Host::routes` and `Host::status`
//! after every step.
mod action;
mod cause;
mod chain;
mod chance;
mod engine;
mod event;
mod gpu;
mod host;
mod ids;
pub mod incident;
mod movement;
mod nature;
mod peers;
mod prober;
mod settings;
mod silence;
mod status;
mod stop;
mod strikes;
mod tier;
mod turn;
mod words;

pub use action::{Action, Notice};
pub use cause::Cause;
pub use event::{
    CheckFailure, Checked, Command, Ending, EngineEvent, Event, Exit, Outcome, Prepared, Processor, Remains,
    STAND_IN, Sample, Shutdown, TierEvent, Tried, Unasked,
};
pub use gpu::{
    GPUS_MAX, GpuFault, GpuFigures, GpuIdentity, GpuProcess, GpuReading, GpuStatus, GpuVerdict, Gpus,
    Throttle,
};
pub use host::Host;
pub use ids::{EngineId, Moment, RunId, Ticket, TierId};
pub use movement::{Figures, Measure, Still, moved};
pub use nature::Nature;
pub use peers::{InstanceId, Leads, Misled, Path, paths};
pub use prober::{Pace, ProbeAction, ProbeEvent, ProbeState, ProbeStatus, Prober, Said};
pub use settings::{
    Check, EngineSettings, Place, Restart, Saved, Settings, StartMode, Startup, TierSettings,
};
pub use status::{
    CheckStatus, EngineState, EngineStatus, Health, HostState, HostStatus, LastExit, Retry, Route, Standing,
    TierStatus,
};
pub use stop::{REAP_DEADLINE, SETTLE};

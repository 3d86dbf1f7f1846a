//! The probe of the GPUs: a process of its own that calls NVML, and the agent's side of it.
//!
//! NVML calls can hang in the driver, also in a way that no signal ends, and the library can crash. So nothing of it is
//! ever loaded into the agent: `mainstay gpu-probe` is asked over a socket, and given up when it does not answer.
//!
//! | file | runs in | what it holds |
//! | --- | --- | --- |
//! | `protocol` | both | questions and answers, one JSON object a line |
//! | `helper` | probe | the session with the driver; `reading`: one GPU's figures |
//! | `client` | agent | the task that performs what `policy::Prober` decides, and publishes the picture |
//! | `process` | agent | a probe's process: its birth, its answers, its end |
mod client;
mod helper;
mod process;
mod protocol;
mod reading;

pub use client::{Picture, Probe};
pub use helper::run;

//! The agent: the one loop that joins policy to the world.
//!
//! | file | what it does for the loop |
//! | --- | --- |
//! | `start`, `failure` | brings everything up, in the order that makes each later step safe; why that failed |
//! | `turn` | the loop: wait → events → step → perform → publish → beat |
//! | `world` | one arm per action; `seat`: one tier as the agent sees it |
//! | `runs`, `launch`, `keeper`, `unstarted` | one run: how it begins or why not, its shim's spec, the agent's side of its life |
//! | `watch`, `starts` | a start: does it still move, how far has it come, how long did the last ones take |
//! | `previous`, `past` | what an earlier agent left: its runs; its events, incidents and start times |
//! | `sockets` | the thread that serves the status and control sockets |
//! | `diagnosis` | why a run ended: its log, its exit, and the kernel's word |
//! | `oom` | what the kernel says when it killed a process of ours for memory |
//! | `probe`, `workers` | health, readiness, counters, trials |
//! | `cpu_fallback`, `devices` | what a ready run computes on; which GPUs this host shows |
//! | `inbox`, `signals`, `reaper` | what reaches the loop |
//! | `picture`, `counters`, `scrape`, `notice`, `log`, `echo` | what people and programs see |
//! | `recorder`, `scene`, `mail` | incidents: their records, how the machine was, how mail stands |
//! | `state_dir`, `tmpdir` | the state directory, as far as it can be had; temporary files of runs |
//! | `secrets`, `late_key`, `late_env` | what nobody may see; keys and variables that were not there at the start |
//! | `gpus` | what is watched and shown of the GPUs |
//! | `ports`, `lock`, `settings`, `faults` | the small things |
mod counters;
mod cpu_fallback;
mod devices;
mod diagnosis;
mod echo;
mod failure;
mod faults;
mod gpus;
mod inbox;
mod keeper;
mod late_env;
mod late_key;
mod launch;
mod lock;
mod log;
pub mod mail;
mod notice;
mod oom;
mod past;
mod picture;
mod ports;
mod previous;
mod probe;
mod reaper;
mod recorder;
mod runs;
mod scene;
mod scrape;
mod seat;
mod secrets;
mod settings;
mod signals;
mod sockets;
mod start;
mod starts;
mod state_dir;
mod tmpdir;
mod turn;
mod unstarted;
mod watch;
mod workers;
mod world;

pub use failure::StartError;
pub use start::{STATE_LINK, run};

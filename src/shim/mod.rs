//! The keeper of one run: `mainstay shim TIER`, a tiny single-threaded process that is the direct parent of one engine.
//!
//! It starts the engine, pumps its output into a ring, ends its whole tree when told to or when the lifeline closes,
//! proves that nothing of it is left, and records how it ended. It knows no policy and nothing of engines.
//!
//! | file | runs in | what it holds |
//! | --- | --- | --- |
//! | `protocol` | both | the spec of a run, the messages, the names of the files |
//! | `keeper` | shim | the one poll(2) loop and what it performs |
//! | `life` | shim, PURE | from TERM to "ended": what to do next, and by when |
//! | `engine` | shim | everything an engine starts with |
//! | `pump`, `lines` | shim | pipes → lines, without ever making the engine wait |
//! | `sink`, `journal` | shim | where lines go: secrets blacked out, then into the ring and to journald |
//! | `onset` | shim | the first lines of the last burst of trouble, which a flood pushes out of the ring |
//! | `ring` | both | the log file: written by the shim, read by whoever wants to |
//! | `record` | both | `exit.json` |
//! | `tree`, `cgroup`, `listeners` | both | which processes and listeners belong to a run |
//! | `sweep`, `shm` | shim | the last look: survivors, /dev/shm, tmp, by a child that may hang in place of the shim |
//! | `lock` | both | the lock by which a shim is known to live |
//! | `clients` | shim | the socket's far ends |
//! | `spawn`, `link`, `leftovers` | agent | starting a shim, talking to it, cleaning up after one that died |
//!
//! A shim may outlive many agents, so what it says and writes is versioned, and unknown fields are ignored.
mod cgroup;
mod clients;
mod engine;
mod journal;
mod keeper;
pub mod leftovers;
mod life;
mod lines;
mod link;
mod listeners;
pub mod lock;
mod onset;
mod protocol;
mod pump;
mod record;
pub mod ring;
mod shm;
mod sink;
mod spawn;
mod sweep;
mod sys;
mod tree;

pub use keeper::run;
pub use link::{Link, LinkReader, LinkWriter};
pub use protocol::{
    Asked, Exited, FromShim, Hello, LOCK, LOG, ONSET, PROTO, RECORD, SOCKET, Spec, TMP, ToShim,
};
pub use record::ExitRecord;
pub use spawn::{LastWords, Lifeline, Spawned, gone, spawn, spawn_as};

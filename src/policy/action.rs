//! Everything that policy may ask of the world. The agent performs each without awaiting it; what takes long carries a
//! ticket and comes back as one `Event::Done`.
use super::{Cause, Ending, EngineState, Health, RunId, Ticket, TierId};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write down what is about to happen, before the next action of the same list.
    SaveIntent { run: RunId },
    /// Start a shim, and the engine under it, as this run. Answered by `Spawned` or `SpawnFailed`.
    Start { run: RunId },
    /// Close the upstream connections of this run: requests that are still open end now.
    Cut { run: RunId },
    /// TERM to the main process, after `grace` KILL to the tree. Answered by `Exited` and `Ended`.
    Terminate { run: RunId, grace: Duration },
    /// KILL to the tree. Answered by `Exited` and `Ended`.
    Kill { run: RunId },
    /// KILL to the engine's worker processes only (Ollama's runner); the main process goes on.
    KillWorkers { run: RunId },
    /// GET the tier's health page.
    Check { ticket: Ticket, tier: TierId, timeout: Duration },
    /// Find out whether a starting engine answers, and load its model where that is a step of its own.
    Prepare { ticket: Ticket, run: RunId },
    /// Read the counters that move while the engine works.
    Count { ticket: Ticket, tier: TierId, timeout: Duration },
    /// Send a one-token request.
    Try { ticket: Ticket, tier: TierId, timeout: Duration },
    /// Something that an operator would want one line about.
    Tell(Notice),
    /// Every engine has ended (or is wedged), and no remote tier is waited for any more: the agent may exit.
    Finish,
}

/// A state change, for log, events, incidents and mail. A `cause` is `None` where nothing is known to have gone wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    Engine {
        run: RunId,
        from: EngineState,
        to: EngineState,
        why: String,
    },
    /// The main process of a run is gone, or could not be started. Told once for each run, as soon as it is known.
    Exit {
        run: RunId,
        ending: Ending,
    },
    /// For ten minutes every start has failed for something that passes by itself, or for a limit of this host: not counted
    /// on for now, and started again every minute or sooner. Told once until one was ready.
    Waiting {
        run: RunId,
        cause: Cause,
        why: String,
    },
    Health {
        tier: TierId,
        from: Health,
        to: Health,
        cause: Option<Cause>,
        why: String,
    },
    /// A ready run computes on the CPU although it was to use a GPU. Told once for each run.
    CpuFallback {
        run: RunId,
        evidence: String,
    },
    /// It passes its trial, fails the requests of its clients, and is open only because no other tier is. Told when that begins.
    LastResort {
        tier: TierId,
        cause: Option<Cause>,
        why: String,
    },
    /// The worker processes of a ready run hang and are replaced; the engine goes on.
    Worker {
        run: RunId,
        why: String,
    },
    /// Where the next request of the chain goes.
    Serving {
        from: Option<TierId>,
        to: Option<TierId>,
        why: String,
    },
    /// Serving moved down from a tier that had been ready.
    Failover {
        from: TierId,
        to: TierId,
        cause: Option<Cause>,
        why: String,
    },
    /// The way back up after a failover.
    Return {
        from: TierId,
        to: TierId,
    },
    /// No tier can answer. `from` served last; `None` when none ever did.
    AllDown {
        from: Option<TierId>,
        cause: Option<Cause>,
        why: String,
    },
    Operator {
        tier: TierId,
        command: super::Command,
    },
}

//! Why a run has no engine, as policy is told it: with its cause, and whose fault it was.
use crate::descriptors;
use crate::policy::{Cause, EngineEvent};
use crate::shortage::{self, Shortage};
use std::io;

/// Somebody else has the port, or all ports.
pub fn port_in_use(evidence: String) -> EngineEvent {
    EngineEvent::SpawnFailed { cause: Cause::PortInUse, evidence }
}

/// This host has nothing left to do it with: the next try may well find some.
pub fn short(shortage: Shortage, doing: &str) -> EngineEvent {
    let evidence = format!("{doing}: {}", shortage.words(descriptors::limit()));
    EngineEvent::SpawnFailed { cause: shortage.cause(), evidence }
}

/// A call that was to make a process of the run failed. `evidence` says which, and how.
pub fn not_spawned(why: &io::Error, evidence: String) -> EngineEvent {
    match shortage::of_a_start(why) {
        Some(shortage) => short(shortage, &evidence),
        None => EngineEvent::SpawnFailed { cause: cause(why), evidence },
    }
}

fn cause(why: &io::Error) -> Cause {
    match why.kind() {
        io::ErrorKind::NotFound => Cause::BrokenInstall,
        io::ErrorKind::PermissionDenied => Cause::Permission,
        _ => Cause::Unknown,
    }
}

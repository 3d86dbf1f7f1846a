//! Why a run has no engine, as policy is told it: with its cause, and whose fault it was.
use crate::descriptors;
use crate::policy::{Cause, EngineEvent, Nature};
use crate::shortage::{self, Shortage};
use std::io;

/// Somebody else has the port, or all ports.
pub fn port_in_use(evidence: String) -> EngineEvent {
    EngineEvent::SpawnFailed { cause: Cause::PortInUse, nature: Nature::Environment, evidence }
}

/// A key that the engine is to be given is not there, or not good: its file may be on a mount that is late.
pub fn no_secret(evidence: String) -> EngineEvent {
    EngineEvent::SpawnFailed { cause: Cause::AuthGated, nature: Nature::Environment, evidence }
}

/// This host has nothing left to do it with: the next try may well find some.
pub fn short(shortage: Shortage, doing: &str) -> EngineEvent {
    let evidence = format!("{doing}: {}", shortage.words(descriptors::limit()));
    EngineEvent::SpawnFailed { cause: shortage.cause(), nature: Nature::Shortage, evidence }
}

/// A call that was to make a process of the run failed. `evidence` says which, and how.
pub fn not_spawned(why: &io::Error, evidence: String) -> EngineEvent {
    match shortage::of_a_start(why) {
        Some(shortage) => short(shortage, &evidence),
        None => {
            let (cause, nature) = blame(why);
            EngineEvent::SpawnFailed { cause, nature, evidence }
        }
    }
}

/// Nobody said why, and the shim hung before there was an engine: in the disk or the other host that has the program, as a
/// rule. That passes by itself, or somebody else mends it.
pub fn hung(evidence: String) -> EngineEvent {
    EngineEvent::SpawnFailed { cause: Cause::Unknown, nature: Nature::Environment, evidence }
}

fn blame(why: &io::Error) -> (Cause, Nature) {
    match why.kind() {
        // The program, or the directory that it is to run in, may be on a mount that is late.
        io::ErrorKind::NotFound => (Cause::BrokenInstall, Nature::Environment),
        io::ErrorKind::PermissionDenied => (Cause::Permission, Nature::Configuration),
        _ => (Cause::Unknown, Nature::Engine),
    }
}

//! Why a tier takes no requests, for clients of the endpoint: phrases of a closed list. What status says of it may name
//! hosts and hold words of an engine, which are the operator's affair.
use super::{Fault, Tier};
use crate::policy::silence::Proof;
use crate::policy::{CheckFailure, EngineState};

impl Tier {
    /// `engine`: the state of its engine; `None` for a remote tier.
    pub(in crate::policy) fn brief(&self, engine: Option<EngineState>) -> &'static str {
        if !self.present {
            return match engine {
                Some(EngineState::Starting) => "its engine is starting",
                Some(EngineState::Ready) => "its engine has just become ready",
                Some(EngineState::Stopping) => "its engine is being stopped",
                Some(EngineState::Backoff) => "its engine is about to be restarted",
                Some(EngineState::Held) => "its engine is held after repeated failures",
                Some(EngineState::Wedged) => "its engine cannot be ended",
                Some(EngineState::Stopped) | None => "its engine is stopped",
            };
        }
        if self.proof.as_ref().and_then(Proof::suspicion).is_some() {
            return "hang proven";
        }
        match self.fault {
            Some(Fault::Unchecked) => "not checked yet",
            Some(Fault::Refused { .. }) => "connection refused",
            Some(Fault::Checks(CheckFailure::NoKey(_))) => "its key is not there",
            Some(Fault::Checks(CheckFailure::Itself | CheckFailure::DeadEnd)) => "leads back to this host",
            Some(Fault::Checks(_)) => "its health checks fail",
            None if self.traffic.broken().is_some() => "requests fail there",
            None => "not asked",
        }
    }
}

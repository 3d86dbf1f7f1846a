//! From what is known of a tier to its health, the reason for it and the cause.
use super::device::Device;
use super::{Fault, Tier};
use crate::policy::silence::Proof;
use crate::policy::words::{self, spell};
use crate::policy::{Cause, CheckFailure, Health, Place};

impl Tier {
    /// Why it cannot answer, or not well, where that is known; `None` while nothing speaks against it.
    pub(in crate::policy) fn cause(&self) -> Option<Cause> {
        if !self.present {
            return self.blame;
        }
        if self.proof.as_ref().and_then(Proof::suspicion).is_some() {
            return Some(Cause::Hang);
        }
        let Some(fault) = &self.fault else {
            let doubted = self.traffic.doubt().is_some() || self.check.failures > 0;
            let fallback = (self.device == Device::Cpu && !doubted).then_some(Cause::CpuFallback);
            let of_this_host = self.asking.cause(self.settings.check.failures);
            return self.traffic.broken().map(|(cause, _)| cause).or(fallback).or(of_this_host);
        };
        let remote = self.settings.place == Place::Remote;
        match fault {
            Fault::Unchecked => None,
            Fault::Checks(CheckFailure::TimedOut) => Some(Cause::Hang),
            Fault::Checks(CheckFailure::Itself) => Some(Cause::BadArgument),
            Fault::Checks(CheckFailure::NoKey(_)) => Some(Cause::AuthGated),
            // Nobody else's process could be at fault than a remote one, or what is between.
            Fault::Refused { .. } | Fault::Checks(CheckFailure::Reset) if remote => Some(Cause::Network),
            Fault::Checks(CheckFailure::Status(401..=403 | 407)) if remote => Some(Cause::AuthGated),
            Fault::Checks(CheckFailure::Status(404)) if remote => Some(Cause::BadArgument),
            Fault::Refused { .. }
            | Fault::Checks(
                CheckFailure::Refused | CheckFailure::Reset | CheckFailure::Status(_) | CheckFailure::DeadEnd,
            ) => Some(Cause::Unknown),
        }
    }

    pub(super) fn assess(&self) -> (Health, String) {
        self.asking.beside(self.judged(), self.settings.check.failures)
    }

    /// From what was heard of it.
    fn judged(&self) -> (Health, String) {
        if !self.present {
            return (Health::Down, self.absence.clone());
        }
        if let Some((proof, why)) = self.proof.as_ref().and_then(|proof| Some((proof, proof.suspicion()?))) {
            return (Health::Down, format!("hang proven: {why}{}", proof.outlook()));
        }
        if let Some(fault) = &self.fault {
            let reason = match fault {
                Fault::Unchecked => "not checked yet".to_owned(),
                Fault::Refused { .. } => "connection refused".to_owned(),
                Fault::Checks(
                    last @ (CheckFailure::Itself | CheckFailure::DeadEnd | CheckFailure::NoKey(_)),
                ) => words::check_failure(last),
                Fault::Checks(last) => {
                    let times = if self.check.failures == 1 { "check" } else { "checks" };
                    format!("{} {times} failed: {}", self.check.failures, words::check_failure(last))
                }
            };
            return (Health::Down, reason);
        }
        if let Some((_, why)) = self.traffic.broken() {
            // Its trial passes, so others may well be answered: they have nobody else to ask.
            let is_spared = self.alone && self.traffic.is_broken_by_requests();
            let health = if is_spared { Health::Degraded } else { Health::Down };
            return (health, why.to_owned());
        }
        if let Some(why) = self.traffic.doubt() {
            return (Health::Degraded, why);
        }
        if let (1.., Some(failure)) = (self.check.failures, &self.last_failure) {
            let (failed, limit) = (self.check.failures, self.settings.check.failures);
            let why = words::check_failure(failure);
            return (Health::Degraded, format!("{failed} of {limit} checks failed: {why}"));
        }
        if self.device == Device::Cpu {
            return (Health::Degraded, "it runs on the CPU, although it was to use a GPU".to_owned());
        }
        match self.check.latency {
            Some(latency) if self.slow => (Health::Degraded, format!("slow: answered in {}", spell(latency))),
            Some(latency) => (Health::Healthy, format!("answered in {}", spell(latency))),
            None => (Health::Healthy, "ready".to_owned()),
        }
    }
}

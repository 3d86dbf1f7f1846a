//! What the loop counts for metrics: changes of state, from the agent's start on.
use crate::policy::{Cause, EngineState, Notice, RunId, TierId};
use std::collections::BTreeMap;

/// Counts that only grow, whatever happens to engines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Starts after an engine's first, by the cause of the end before.
    pub restarts: BTreeMap<(TierId, Cause), u64>,
    /// Serving moved down, from one tier to the other.
    pub failovers: BTreeMap<(TierId, TierId), u64>,
    /// And back up.
    pub returns: BTreeMap<(TierId, TierId), u64>,
    /// No tier could answer any more.
    pub outages: u64,
    /// How each tier's last run ended.
    ends: BTreeMap<TierId, Cause>,
}

impl Counters {
    /// Takes a notice in. `engines` says which tier each engine belongs to.
    pub fn note(&mut self, told: &Notice, engines: &[TierId]) {
        let of = |run: &RunId| engines.get(usize::from(run.engine.0)).copied();
        match told {
            Notice::Exit { run, ending } => {
                if let Some(tier) = of(run) {
                    self.ends.insert(tier, ending.cause);
                }
            }
            Notice::Engine { run, to: EngineState::Starting, .. } => {
                // Nothing has ended before an engine's first start.
                if let Some(tier) = of(run)
                    && let Some(cause) = self.ends.get(&tier)
                {
                    *self.restarts.entry((tier, *cause)).or_default() += 1;
                }
            }
            Notice::Failover { from, to, .. } => *self.failovers.entry((*from, *to)).or_default() += 1,
            Notice::Return { from, to } => *self.returns.entry((*from, *to)).or_default() += 1,
            Notice::AllDown { .. } => self.outages += 1,
            Notice::Engine { .. }
            | Notice::Waiting { .. }
            | Notice::CpuFallback { .. }
            | Notice::LastResort { .. }
            | Notice::Worker { .. }
            | Notice::Health { .. }
            | Notice::Serving { .. }
            | Notice::Operator { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Ending, EngineId, Exit, Nature};

    const TIER: TierId = TierId(1);

    fn engine(number: u64, to: EngineState) -> Notice {
        let run = RunId { engine: EngineId(0), number };
        Notice::Engine { run, from: EngineState::Backoff, to, why: String::new() }
    }

    fn exit(number: u64, cause: Cause) -> Notice {
        let ending = Ending {
            exit: Exit::Unknown,
            cause,
            nature: Nature::Engine,
            deterministic: None,
            evidence: None,
        };
        Notice::Exit { run: RunId { engine: EngineId(0), number }, ending }
    }

    #[test]
    fn a_restart_counts_under_the_cause_of_the_end_before() {
        let mut counters = Counters::default();
        for told in [
            engine(1, EngineState::Starting),
            engine(1, EngineState::Ready),
            exit(1, Cause::GpuOom),
            engine(2, EngineState::Starting),
            exit(2, Cause::Asked),
            engine(3, EngineState::Starting),
            engine(3, EngineState::Ready),
        ] {
            counters.note(&told, &[TIER]);
        }
        let expected = BTreeMap::from([((TIER, Cause::GpuOom), 1), ((TIER, Cause::Asked), 1)]);
        assert_eq!(counters.restarts, expected);
    }

    #[test]
    fn moves_count_by_their_way() {
        let (up, down) = (TierId(0), TierId(1));
        let failover = || Notice::Failover { from: up, to: down, cause: None, why: String::new() };
        let all_down = Notice::AllDown { from: None, cause: None, why: String::new() };
        let mut counters = Counters::default();
        for told in [failover(), Notice::Return { from: down, to: up }, failover(), all_down] {
            counters.note(&told, &[]);
        }
        assert_eq!(counters.failovers, BTreeMap::from([((up, down), 2)]));
        assert_eq!((counters.returns, counters.outages), (BTreeMap::from([((down, up), 1)]), 1));
    }
}

//! What the limit on open descriptors allows. Those that the agent needs are kept back first: a client that is turned away
//! comes again, while an agent without any can look after no engine.
use crate::descriptors;
use std::sync::LazyLock;

/// Listeners, sockets of the control plane and whoever asks there, files, the GPU probe, mail.
const OF_THE_AGENT: u64 = 48;
/// The link to a shim, its pidfd, the kernel's log, checks and trials; while a run begins also its spec, lock and log.
const OF_A_TIER: u64 = 12;
/// Idle connections kept per run, where there is no shortage.
const IDLE_MAX: u64 = 32;
/// Connections above the limits that are being told so at one time, where there is no shortage.
const TURNED_AWAY_MAX: u64 = 64;
/// No more than one in so many descriptors is for the one, and for the other.
const ONE_IN: u64 = 32;

/// How many idle connections each run may keep. The limit is as it was when the first one was kept.
pub(super) static IDLE_COUNT: LazyLock<usize> = LazyLock::new(|| idle_within(descriptors::limit()) as usize);

/// What clients may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    /// Clients at one time, each of them with an upstream connection of its own.
    pub clients: usize,
    /// Further ones that are being told at one time that they are too many.
    pub turned_away: usize,
}

impl Shares {
    /// Of this process, with so many tiers.
    pub fn here(tiers: usize) -> Self {
        Self::within(descriptors::limit(), tiers as u64)
    }

    fn within(limit: u64, tiers: u64) -> Self {
        let kept = OF_A_TIER.saturating_add(idle_within(limit)).saturating_mul(tiers);
        let turned_away = (limit / ONE_IN).clamp(1, TURNED_AWAY_MAX);
        let others = OF_THE_AGENT.saturating_add(kept).saturating_add(turned_away);
        // One client at least: it costs nothing to try.
        let clients = (limit.saturating_sub(others) / 2).max(1);
        let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Self { clients: count(clients), turned_away: count(turned_away) }
    }
}

fn idle_within(limit: u64) -> u64 {
    (limit / ONE_IN).min(IDLE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_needs_is_kept_back_first() {
        let table = [
            ((524_288, 3), (262_022, 64)),
            ((1024, 0), (472, 32)),
            ((1024, 3), (406, 32)),
            ((1024, 20), (32, 32)),
            ((256, 3), (70, 8)),
            ((64, 2), (1, 2)),
            ((0, 2), (1, 1)),
            ((u64::MAX, u64::MAX), (1, 64)),
        ];
        for ((limit, tiers), (clients, turned_away)) in table {
            assert_eq!(Shares::within(limit, tiers), Shares { clients, turned_away }, "{limit} {tiers}");
        }
    }

    #[test]
    fn clients_their_upstreams_and_idle_connections_leave_each_tier_what_it_needs() {
        for (limit, tiers) in [(256, 2), (1024, 1), (1024, 12), (4096, 40), (524_288, 200)] {
            let Shares { clients, turned_away } = Shares::within(limit, tiers);
            let taken = 2 * clients as u64 + turned_away as u64 + tiers * idle_within(limit);
            assert!(limit - taken >= OF_THE_AGENT + tiers * OF_A_TIER, "{limit} {tiers}");
        }
    }
}

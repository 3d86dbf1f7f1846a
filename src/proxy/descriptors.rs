//! What the limit on open descriptors allows. Those that the agent needs are kept back first: a client that is turned away
//! comes again, while an agent without any can look after no engine.
use crate::descriptors::{self, share};
use std::sync::LazyLock;

/// Listeners, files, the GPU probe, mail.
const OF_THE_AGENT: u64 = 48;
/// Conversations at the two sockets of the control plane (`control/server.rs`), where there is no shortage.
const GUESTS_MAX: u64 = 64;
/// The link to a shim, its pidfd, the kernel's log, checks and trials; while a run begins also its spec, lock and log.
const OF_A_TIER: u64 = 12;
/// Idle connections kept per run, where there is no shortage.
const IDLE_MAX: u64 = 32;
/// Connections above the limits that are being told so at one time, where there is no shortage.
const TURNED_AWAY_MAX: u64 = 64;

/// How many idle connections each run may keep. The limit is as it was when the first one was kept.
pub(super) static IDLE_COUNT: LazyLock<usize> =
    LazyLock::new(|| share(descriptors::limit(), IDLE_MAX) as usize);

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
        let of_tiers = OF_A_TIER.saturating_add(share(limit, IDLE_MAX)).saturating_mul(tiers);
        let turned_away = share(limit, TURNED_AWAY_MAX);
        let others = OF_THE_AGENT + 2 * share(limit, GUESTS_MAX) + turned_away;
        // One client at least: it costs nothing to try.
        let clients = (limit.saturating_sub(others).saturating_sub(of_tiers) / 2).max(1);
        let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Self { clients: count(clients), turned_away: count(turned_away) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_needs_is_kept_back_first() {
        let table = [
            ((524_288, 3), (261_958, 64)),
            ((1024, 0), (440, 32)),
            ((1024, 3), (374, 32)),
            ((1024, 20), (1, 32)),
            ((256, 3), (62, 8)),
            ((64, 2), (1, 2)),
            ((0, 2), (1, 1)),
            ((u64::MAX, u64::MAX), (1, 64)),
        ];
        for ((limit, tiers), (clients, turned_away)) in table {
            assert_eq!(Shares::within(limit, tiers), Shares { clients, turned_away }, "{limit} {tiers}");
        }
    }

    #[test]
    fn whatever_clients_take_each_tier_has_what_it_needs() {
        for (limit, tiers) in [(256, 2), (1024, 1), (1024, 12), (4096, 40), (524_288, 200)] {
            let Shares { clients, turned_away } = Shares::within(limit, tiers);
            let guests = 2 * share(limit, GUESTS_MAX);
            let taken = 2 * clients as u64 + turned_away as u64 + guests + tiers * share(limit, IDLE_MAX);
            assert!(limit - taken >= OF_THE_AGENT + tiers * OF_A_TIER, "{limit} {tiers}");
        }
    }
}

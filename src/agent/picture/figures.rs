//! The figures that metrics need beside a status.
use super::{Picture, TierPicture, View};
use crate::agent::log;
use crate::clock;
use crate::control::metrics::{self, Figures, Histogram, Moves, TierFigures};
use crate::control::process;
use crate::heart::Heart;
use crate::policy::{Cause, TierId};
use crate::proxy;
use std::collections::BTreeMap;
use std::time::Duration;

/// A data plane that was quiet for this long is asked for a beat of its heart, so that an idle one does not look stuck.
const QUIET: Duration = Duration::from_secs(1);
/// How long it may take for that before its age is shown as it is.
const BEAT: Duration = Duration::from_secs(1);

impl Picture {
    /// The metrics of this moment. `heart` is the policy loop's.
    pub async fn metrics(&self, heart: &Heart) -> String {
        let view = self.view.load_full();
        let (status, own, hearts) = (self.status().await, process::own().await, self.hearts(heart).await);
        let refusals = self.proxy.refusals();
        let mut figures = Figures {
            started: self.identity.started_ms as f64 / 1e3,
            own,
            hearts,
            failover_times: histogram(self.proxy.failover_times()),
            errors: refusals.by_code().map(|(code, count)| (code.name(), count)).collect(),
            dropped_log_lines: log::dropped(),
            ..Figures::default()
        };
        if let Some(view) = &view {
            figures.outages = view.counters.outages;
            figures.unwritten = view.told.unwritten;
            figures.failovers = moves(view.tiers.len(), &view.counters.failovers, |from, to| from < to);
            figures.returns = moves(view.tiers.len(), &view.counters.returns, |from, to| from > to);
            figures.tiers =
                (0..).zip(&view.tiers).map(|(rank, tier)| tier.figures(TierId(rank), view)).collect();
        }
        metrics::text(&status, &figures)
    }

    /// How long ago each critical loop's heart beat, in seconds.
    async fn hearts(&self, policy: &Heart) -> Vec<(&'static str, f64)> {
        let proxy = self.proxy.heart();
        if proxy.age(clock::now()) > QUIET
            && let Some(driven) = self.proxy.drive()
        {
            // A data plane that does not answer shows in the age.
            let _ = tokio::time::timeout(BEAT, driven).await;
        }
        let now = clock::now();
        [policy, &proxy].map(|heart| (heart.name(), heart.age(now).as_secs_f64())).to_vec()
    }
}

impl TierPicture {
    fn figures(&self, tier: TierId, view: &View) -> TierFigures {
        let known = view.host.tiers.get(usize::from(tier.0));
        let is_local = known.is_some_and(|known| known.engine.is_some());
        let restarts = |cause: &Cause| {
            let count = view.counters.restarts.get(&(tier, *cause)).copied().unwrap_or(0);
            (cause.name(), count)
        };
        TierFigures {
            first_content: histogram(self.totals.first_content()),
            restarts: Cause::ALL.iter().filter(|_| is_local).map(restarts).collect(),
        }
    }
}

/// Every way that there is, also those that were never gone: a count that appears with its first event would hide it from
/// whoever looks for an increase.
fn moves(
    tiers: usize,
    counted: &BTreeMap<(TierId, TierId), u64>,
    is_way: impl Fn(TierId, TierId) -> bool,
) -> Vec<Moves> {
    let ids = || (0..tiers).map(|rank| TierId(u16::try_from(rank).unwrap_or(u16::MAX)));
    let ways = ids().flat_map(|from| ids().map(move |to| (from, to)));
    let ways = ways.filter(|(from, to)| is_way(*from, *to));
    let count = |way: (TierId, TierId)| counted.get(&way).copied().unwrap_or(0);
    ways.map(|way| Moves { from: way.0.0, to: way.1.0, count: count(way) }).collect()
}

fn histogram(from: proxy::Histogram) -> Histogram {
    Histogram { buckets: from.buckets, sum: from.sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_down_is_there_from_the_start() {
        let counted = BTreeMap::from([((TierId(0), TierId(2)), 3)]);
        let shown: Vec<_> = moves(3, &counted, |from, to| from < to)
            .iter()
            .map(|way| (way.from, way.to, way.count))
            .collect();
        assert_eq!(shown, [(0, 1, 0), (0, 2, 3), (1, 2, 0)]);
    }
}

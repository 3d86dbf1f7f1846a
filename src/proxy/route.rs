//! The route table: an immutable picture of the chain, made by the agent, borrowed by every request.
use super::live::Live;
use super::upstream::Upstream;
use crate::kinds::{Degrade, Kind};
use crate::policy::{self, InstanceId, Path, Retry, RunId, Standing, TierId};
use std::sync::Arc;
use std::time::Duration;

/// The tiers of the chain, best first.
#[derive(Clone, Debug)]
pub struct RouteTable {
    pub tiers: Vec<TierRoute>,
    /// When some tier may answer, where that is known and none can now.
    pub retry: Option<Retry>,
    /// `false` only by a test fault: then the first tier alone is ever tried.
    pub failover: bool,
}

impl Default for RouteTable {
    /// No tiers yet.
    fn default() -> Self {
        Self { tiers: Vec::new(), retry: None, failover: true }
    }
}

/// One rung.
#[derive(Clone, Debug)]
pub struct TierRoute {
    pub tier: TierId,
    /// The run behind `upstream`; `None` for a remote tier, or where there is none.
    pub run: Option<RunId>,
    pub name: String,
    pub kind: Kind,
    /// What the engine is asked for.
    pub model: String,
    /// Further names that lead into the chain.
    pub aliases: Vec<String>,
    /// `None` while nothing runs.
    pub upstream: Option<Upstream>,
    /// Longest time to connect.
    pub connect: Duration,
    /// Longest time to the first content, where another tier is open. Remote tiers only.
    pub first_content: Option<Duration>,
    /// Longest silence inside an answer that has begun. Remote tiers only.
    pub between_chunks: Option<Duration>,
    /// Present: this tier's answers are weakened.
    pub degrade: Option<Degrade>,
    pub standing: Standing,
    /// It is to serve when it can: where it does not, that may pass.
    pub wanted: bool,
    /// Why it is not open, for the log.
    pub reason: String,
    /// The same for clients: neither hosts nor words of an engine.
    pub brief: &'static str,
    pub live: Arc<Live>,
}

impl RouteTable {
    /// What `GET /health` of `own` tells who asks through `via`: the first tier that does not lead back there, and the paths
    /// on which engines are reached. `None`: nobody who asks this way can be answered.
    pub fn reach(&self, own: InstanceId, via: &Path) -> Option<(&TierRoute, Vec<Path>)> {
        let open = self.tiers.iter().filter(|route| route.standing_now() == Standing::Open);
        let open: Vec<_> = open.map(|route| (route, route.live.leads())).collect();
        let paths = policy::paths(own, open.iter().map(|(_, leads)| &**leads), via);
        let mut open = open.into_iter();
        let (serving, _) = open.find(|(_, leads)| !leads.is_dead_end() && !leads.leads_back(via))?;
        (!paths.is_empty()).then_some((serving, paths))
    }

    pub(super) fn tier(&self, id: TierId) -> Option<&TierRoute> {
        self.tiers.iter().find(|t| t.tier == id)
    }

    /// Every name of the chain, in rank order: models first, then aliases, each once.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        let models = self.tiers.iter().map(|t| t.model.as_str());
        let aliases = self.tiers.iter().flat_map(|t| t.aliases.iter().map(String::as_str));
        for name in models.chain(aliases) {
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

impl TierRoute {
    /// The tier is a mainstay that would bring a request back to where it was.
    pub(super) fn leads_back(&self, via: &Path) -> bool {
        self.live.leads().leads_back(via)
    }

    /// The stricter of what the table says and what the run has learned since. Nothing that has no address is open.
    pub(super) fn standing_now(&self) -> Standing {
        let fate = self.live.fate_now();
        if self.upstream.is_none() || fate.cut {
            return Standing::Closed;
        }
        match (self.standing, fate.standing) {
            (Standing::Closed, _) | (_, Standing::Closed) => Standing::Closed,
            (Standing::Leaving, _) | (_, Standing::Leaving) => Standing::Leaving,
            (Standing::Open, Standing::Open) => Standing::Open,
        }
    }
}

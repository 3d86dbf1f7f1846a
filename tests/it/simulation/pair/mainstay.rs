//! One of the two hosts: the real `Host` and the real route table, and what its data plane and its shims know.
use crate::simulation::dice::Dice;
use crate::simulation::fake::{Mood, Process};
use crate::simulation::{S, engine, tier};
use mainstay::kinds::{Api, Kind};
use mainstay::policy::{
    Action, EngineId, Host, InstanceId, Leads, Moment, Path, Place, RunId, Sample, Saved, Settings,
    StartMode, TierId,
};
use mainstay::proxy::{Live, RouteTable, TierRoute, Upstream};
use std::sync::Arc;

/// What a tier of the two hosts is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Own,
    Peer,
    /// A server outside, which is no mainstay.
    Third,
}

pub struct Mainstay {
    pub id: InstanceId,
    pub host: Host,
    settings: Settings,
    /// Of its tiers, best first.
    pub roles: Vec<Role>,
    /// Its agent runs.
    pub up: bool,
    /// Which life of the agent this is. News of an older one reaches nobody.
    pub life: u64,
    pub engine: Option<Process>,
    last_run: u64,
    lives: Vec<Arc<Live>>,
    pub samples: Vec<Sample>,
}

impl Mainstay {
    pub fn new(seed: u64, id: InstanceId, dice: &mut Dice, now: Moment) -> (Self, Vec<Action>) {
        let orders: [&[Role]; 3] = [
            &[Role::Own, Role::Peer],
            &[Role::Own, Role::Peer, Role::Third],
            &[Role::Own, Role::Third, Role::Peer],
        ];
        let roles = dice.pick(&orders).to_vec();
        let tiers = roles.iter().enumerate().map(|(rank, role)| {
            let place = if *role == Role::Own { Place::Local(EngineId(0)) } else { Place::Remote };
            let mut tier = tier(&format!("tier{rank}"), place, dice);
            (tier.silence, tier.silence_on_cpu, tier.silence_on_gpu) = (10 * S, 10 * S, 10 * S);
            (tier.suspect, tier.wants_gpu) = (60 * S, false);
            tier
        });
        let tiers = tiers.collect();
        let engines = vec![engine("tier0", StartMode::Always, dice)];
        let settings = Settings { engines, tiers, drain: S, seed };
        let (host, first) = Host::resume(settings.clone(), &Saved::default(), now);
        let mut new = Self {
            id,
            host,
            settings,
            roles,
            up: true,
            life: 0,
            engine: None,
            last_run: 0,
            lives: Vec::new(),
            samples: Vec::new(),
        };
        new.begin();
        (new, first)
    }

    /// Another agent in the place of the one that is gone.
    pub fn resume(&mut self, id: InstanceId, now: Moment) -> Vec<Action> {
        let saved = Saved { last_runs: vec![self.last_run] };
        let (host, first) = Host::resume(self.settings.clone(), &saved, now);
        (self.id, self.host, self.up) = (id, host, true);
        self.begin();
        first
    }

    fn begin(&mut self) {
        self.life += 1;
        self.lives = self.roles.iter().map(|_| Live::new(Arc::default(), None)).collect();
        self.samples = vec![Sample::default(); self.roles.len()];
    }

    /// A new run of its engine: nothing that was read of an older one holds.
    pub fn start(&mut self, run: RunId, process: Option<Process>) {
        self.last_run = run.number;
        self.engine = process;
        self.samples[0] = Sample::default();
    }

    pub fn role(&self, tier: TierId) -> Role {
        self.roles[usize::from(tier.0)]
    }

    pub fn sample(&mut self, tier: TierId) -> &mut Sample {
        &mut self.samples[usize::from(tier.0)]
    }

    pub fn hears(&self, tier: TierId, leads: Leads) {
        self.lives[usize::from(tier.0)].set_leads(leads);
    }

    /// How its engine behaves, as far as the network can tell.
    pub fn mood(&self, now: Moment) -> Mood {
        self.engine.as_ref().map_or(Mood::Refusing, |process| process.seen(now))
    }

    pub fn table(&self, failover: bool) -> RouteTable {
        let route = |route: mainstay::policy::Route| {
            let own = self.role(route.tier) == Role::Own;
            TierRoute {
                tier: route.tier,
                run: route.run,
                name: format!("tier{}", route.tier.0),
                kind: if own { Kind::Vllm } else { Kind::Remote(Api::OpenAi) },
                model: "m".to_owned(),
                aliases: Vec::new(),
                upstream: Some(Upstream {
                    host: "host".to_owned(),
                    port: 1,
                    base_path: String::new(),
                    api_key: None,
                }),
                connect: 2 * S,
                first_content: None,
                between_chunks: None,
                degrade: None,
                standing: route.standing,
                wanted: route.wanted,
                reason: route.reason,
                brief: route.brief,
                live: Arc::clone(&self.lives[usize::from(route.tier.0)]),
            }
        };
        let tiers = self.host.routes().into_iter().map(route).collect();
        RouteTable { tiers, retry: None, failover }
    }

    /// The paths that `GET /health` tells one who asks through `via`; none where it says 503.
    pub fn health(&self, via: &Path) -> Vec<Path> {
        self.table(true).reach(self.id, via).map(|(_, paths)| paths).unwrap_or_default()
    }
}

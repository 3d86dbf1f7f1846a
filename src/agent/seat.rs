//! One tier as the agent sees it: its configuration, its traffic, and what is known of its live run.
use super::cpu_fallback::Looks;
use super::devices::Gpus;
use super::late_key::LateKey;
use super::probe::Target;
use super::settings;
use crate::config::{Key, Pull, Secret, Tier, Upstream};
use crate::kinds::{self, Climb, Device, Height, PastStart};
use crate::policy::{Route, RunId, Standing};
use crate::proxy::{self, Live, TierRoute, Totals};
use crate::shim::ToShim;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// A tier's place in the agent.
pub struct Seat {
    pub tier: Arc<Tier>,
    /// Its engine is to compute on the CPU.
    on_cpu: bool,
    /// Its engine may be found to compute on a GPU.
    pub may_use_gpu: bool,
    /// Of a remote tier.
    api_key: Option<Secret>,
    /// Where the key will be, as long as it is not known.
    pub late_key: Option<LateKey>,
    pub totals: Arc<Totals>,
    /// Renewed with every run, so that nothing that belonged to the run before is counted to this one, or cut with it.
    pub live: Arc<Live>,
    pub run: Option<LiveRun>,
    /// The last starts of this engine and model that came to their end, the oldest first.
    pub starts: Vec<PastStart>,
}

/// What the agent remembers of a run from its start until the next one.
pub struct LiveRun {
    pub run: RunId,
    pub port: u16,
    pub pid: Option<u32>,
    pub shim_pid: Option<u32>,
    /// How far its start has come; and what of that is shown, once its log has said anything.
    pub climb: Climb,
    pub height: Option<Height>,
    /// Its start has been remembered: it came to an end.
    pub remembered: bool,
    /// Orders to its keeper.
    pub orders: mpsc::Sender<ToShim>,
    /// Has it ever answered? Shared with its keeper, whose diagnosis depends on it.
    pub was_ready: Rc<Cell<bool>>,
    /// What it computes on, as far as somebody has looked.
    pub looks: Rc<Looks>,
    /// Probes that make no sense after it: ended with it.
    pub probes: Vec<AbortHandle>,
    /// Its keeper is done with it.
    pub over: bool,
}

impl LiveRun {
    /// It is over: nothing listens at its port any more, and nothing about it is worth asking.
    pub fn end(&mut self) {
        self.over = true;
        self.pid = None;
        self.shim_pid = None;
        self.probes.drain(..).for_each(|probe| probe.abort());
    }
}

impl Seat {
    pub fn new(tier: Arc<Tier>, gpus: Gpus) -> Self {
        let on_cpu = settings::is_for_cpu(&tier, gpus);
        let totals = Arc::new(Totals::default());
        let live = Live::new(Arc::clone(&totals), tier.max_concurrent);
        let may_use_gpu = settings::may_use_gpu(&tier);
        let key = tier.remote().and_then(|remote| remote.api_key.as_ref());
        let api_key = key.and_then(Key::known).cloned();
        let late_key = key.and_then(Key::missing).cloned().map(LateKey::new);
        let (run, starts) = (None, Vec::new());
        Self { tier, on_cpu, may_use_gpu, api_key, late_key, totals, live, run, starts }
    }

    /// Its key is there at last.
    pub fn take_key(&mut self, key: Secret) {
        self.api_key = Some(key);
        self.late_key = None;
    }

    /// Takes a new run in: whatever still hangs on the run before is cut.
    pub fn begin(&mut self, run: LiveRun) {
        self.live.cut();
        self.live = Live::new(Arc::clone(&self.totals), self.tier.max_concurrent);
        if let Some(mut before) = self.run.replace(run) {
            before.end();
        }
    }

    /// The run, if it is still the one that is meant.
    pub fn run_mut(&mut self, run: RunId) -> Option<&mut LiveRun> {
        self.run.as_mut().filter(|live| live.run == run)
    }

    /// Where the tier can be asked; `None` while a local one has no run.
    pub fn upstream(&self) -> Option<proxy::Upstream> {
        match &self.tier.upstream {
            Upstream::Local(_) => {
                let run = self.run.as_ref().filter(|run| !run.over)?;
                Some(proxy::Upstream {
                    host: "127.0.0.1".to_owned(),
                    port: run.port,
                    base_path: String::new(),
                    api_key: None,
                })
            }
            Upstream::Remote(remote) => Some(proxy::Upstream {
                host: remote.url.host.clone(),
                port: remote.url.port,
                base_path: remote.url.base_path.clone(),
                api_key: self.api_key.as_ref().map(|key| key.expose().to_owned()),
            }),
        }
    }

    /// The name that the engine knows its model by: the configured one, unless the operator's `args` give it another.
    fn served_name(&self) -> &str {
        let args = self.tier.local().map_or(&[][..], |local| &local.args);
        kinds::served_name(self.tier.kind, &self.tier.model, args)
    }

    /// The address in status; `None` while a local tier has no run.
    pub fn url(&self) -> Option<String> {
        self.upstream().map(|at| at.url())
    }

    /// What a probe of this tier needs to know.
    pub fn target(&self) -> Option<Target> {
        let shown = self.run.as_ref().and_then(|run| run.looks.shown());
        Some(Target {
            kind: self.tier.kind,
            url: self.url()?,
            model: self.served_name().to_owned(),
            health_path: match &self.tier.upstream {
                Upstream::Local(_) => None,
                Upstream::Remote(remote) => Some(remote.health_path.clone()),
            },
            api_key: self.upstream()?.api_key,
            pull: self.tier.local().is_some_and(|local| local.pull == Some(Pull::Missing)),
            main_pid: self.run.as_ref().and_then(|run| run.pid),
            on_cpu: shown.map_or(self.on_cpu, |device| device != Device::Gpu),
        })
    }

    /// The tier as the data plane is to see it.
    pub fn route(&self, route: &Route, standing: Standing) -> TierRoute {
        let typed = &self.tier;
        TierRoute {
            tier: route.tier,
            run: self.run.as_ref().map(|live| live.run),
            name: typed.name.clone(),
            kind: typed.kind,
            model: self.served_name().to_owned(),
            aliases: std::iter::once(&typed.model).chain(&typed.aliases).cloned().collect(),
            upstream: self.upstream(),
            connect: typed.timeouts.connect,
            first_content: typed.remote().map(|_| typed.timeouts.first_content),
            between_chunks: typed.remote().map(|_| typed.timeouts.between_chunks),
            degrade: typed.degrade.clone(),
            standing,
            wanted: route.wanted,
            reason: route.reason.clone(),
            brief: route.brief,
            live: Arc::clone(&self.live),
        }
    }
}

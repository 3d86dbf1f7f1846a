//! The picture of the agent that the status socket shows: made of policy's status, the seats, and figures that are
//! read when somebody asks.
//!
//! The loop puts the first two here after each turn; the control sockets are served on a thread of their own, so a
//! stuck loop can still be looked at.
use super::counters::Counters;
use super::gpus;
use super::world::World;
use crate::clock;
use crate::control::process::{Gauge, Reading};
use crate::control::wire::{self, AgentState};
use crate::gpu;
use crate::kinds::Height;
use crate::policy::{EngineState, HostState, HostStatus, Leads, TierStatus};
use crate::proxy::{Code, Failovers, Live, Proxy, Totals};
use crate::redact::Redactor;
use crate::systemd::{Notifier, status_text};
use arc_swap::{ArcSwap, ArcSwapOption};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

mod figures;

/// What does not change while the agent lives.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Wall clock, milliseconds.
    pub started_ms: i64,
    pub listen: Vec<String>,
    pub config: String,
    pub state_dir: String,
    pub watchdog: Option<Duration>,
}

/// What the loop knows of one tier.
#[derive(Clone)]
struct TierPicture {
    name: String,
    engine: &'static str,
    model: String,
    url: Option<String>,
    pid: Option<u32>,
    shim_pid: Option<u32>,
    progress: Option<wire::Progress>,
    live: Arc<Live>,
    totals: Arc<Totals>,
}

/// One turn's view.
struct View {
    host: HostStatus,
    tiers: Vec<TierPicture>,
    counters: Arc<Counters>,
    told: Told,
}

/// What operators have been told, and what keeps them from it.
#[derive(Default)]
pub struct Told {
    pub incidents: Vec<wire::OpenIncident>,
    /// `None`: nobody is mailed.
    pub mail: Option<wire::Mail>,
    /// Records and events that are lost.
    pub unwritten: u64,
    /// Why nothing is kept.
    pub state_problem: Option<String>,
}

/// The picture, and the means to complete it.
pub struct Picture {
    identity: Identity,
    view: ArcSwapOption<View>,
    config_problem: Mutex<Option<String>>,
    gauge: Gauge,
    proxy: Arc<Proxy>,
    notifier: Notifier,
    redactor: Arc<Redactor>,
    /// `None`: nobody looks at GPUs.
    gpus: Option<Arc<ArcSwap<gpu::Picture>>>,
    told_systemd: Mutex<String>,
}

impl Picture {
    pub fn new(
        identity: Identity,
        proxy: Arc<Proxy>,
        notifier: Notifier,
        gpus: Option<Arc<ArcSwap<gpu::Picture>>>,
        redactor: Arc<Redactor>,
    ) -> Arc<Self> {
        Arc::new(Self {
            identity,
            view: ArcSwapOption::empty(),
            config_problem: Mutex::new(None),
            gauge: Gauge::default(),
            proxy,
            notifier,
            redactor,
            gpus,
            told_systemd: Mutex::new(String::new()),
        })
    }

    /// Takes in what the loop knows after a turn, and tells systemd when the sentence about it has changed.
    pub fn show(&self, host: HostStatus, world: &World, counters: &Arc<Counters>, told: Told) {
        let names: Vec<&str> = world.names.iter().map(String::as_str).collect();
        let text = status_text(&names, &host);
        let mut said = self.told_systemd.lock().unwrap_or_else(PoisonError::into_inner);
        if *said != text {
            self.notifier.status(&text);
            *said = text;
        }
        drop(said);
        let tiers = world.seats.iter().map(|seat| {
            let run = seat.run.as_ref();
            let progress = run.and_then(|run| run.height).map(on_the_wire);
            TierPicture {
                name: seat.tier.name.clone(),
                engine: seat.tier.kind.name(),
                model: seat.tier.model.clone(),
                url: seat.url(),
                pid: run.and_then(|run| run.pid),
                shim_pid: run.and_then(|run| run.shim_pid),
                progress,
                live: Arc::clone(&seat.live),
                totals: Arc::clone(&seat.totals),
            }
        });
        let counters = Arc::clone(counters);
        self.view.store(Some(Arc::new(View { host, tiers: tiers.collect(), counters, told })));
    }

    /// What is known of the GPUs; `None` when nobody looks.
    pub fn gpus(&self) -> Option<Arc<gpu::Picture>> {
        self.gpus.as_ref().map(|gpus| gpus.load_full())
    }

    pub fn config_problem(&self, problem: Option<String>) {
        *self.config_problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// The status of this moment.
    pub async fn status(&self) -> wire::Status {
        let view = self.view.load_full();
        let roots: BTreeSet<u32> =
            view.iter().flat_map(|view| view.tiers.iter().filter_map(|tier| tier.shim_pid)).collect();
        let reading = self.gauge.read(roots).await;
        let failovers = self.proxy.failovers();
        let shims: Vec<(u32, &str)> = view
            .iter()
            .flat_map(|view| &view.tiers)
            .filter_map(|tier| Some((tier.shim_pid?, tier.name.as_str())))
            .collect();
        let gpus = self.gpus.as_ref().map(|gpus| gpus.load());
        let (gpu_probe, gpus) =
            gpus::on_the_wire(gpus.as_ref().map(|it| &***it), gpus::owner(&reading, &shims));
        let mut status = wire::Status {
            schema: wire::SCHEMA,
            agent: self.agent(view.as_deref()),
            serving: None,
            tiers: Vec::new(),
            gpu_probe,
            gpus,
            host: reading.host,
            failover_seconds: distribution(&failovers),
            incidents: Vec::new(),
            mail: None,
        };
        let Some(view) = view else { return status };
        status.incidents.clone_from(&view.told.incidents);
        status.mail.clone_from(&view.told.mail);
        let serving = view.host.serving.and_then(|tier| view.tiers.get(usize::from(tier.0)));
        status.serving = serving.map(|tier| tier.name.clone());
        status.tiers = view
            .tiers
            .iter()
            .zip(&view.host.tiers)
            .enumerate()
            .map(|(rank, (tier, known))| tier.on_the_wire(rank, known, &reading))
            .collect();
        // What engines said is clean when it gets here (see `inbox`); this is what the operator typed.
        for tier in &mut status.tiers {
            let typed = tier.model.iter_mut().chain(&mut tier.url).chain([&mut tier.reason]);
            typed.for_each(|text| self.redactor.clean(text));
        }
        status
    }

    fn agent(&self, view: Option<&View>) -> wire::Agent {
        let identity = &self.identity;
        let state = match view.map(|view| view.host.state) {
            None => AgentState::Starting,
            Some(HostState::Serving) => AgentState::Serving,
            Some(HostState::Draining | HostState::Finished) => AgentState::Draining,
        };
        wire::Agent {
            panics: self.proxy.panics(),
            poison_refused: self.proxy.refusals().of(Code::PoisonRequest),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: clock::rfc3339(identity.started_ms),
            state,
            listen: identity.listen.clone(),
            watchdog_s: identity.watchdog.map(|limit| limit.as_secs()),
            config: identity.config.clone(),
            state_dir: identity.state_dir.clone(),
            state_problem: view.and_then(|view| view.told.state_problem.clone()),
            config_problem: self.config_problem.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

fn on_the_wire(height: Height) -> wire::Progress {
    wire::Progress {
        stage: height.stage.to_owned(),
        percent: height.percent,
        stage_percent: height.stage_percent,
        eta_s: height.eta.map(|eta| eta.as_secs_f64().round() as u64),
        n: height.count.map(|(n, _)| n),
        of: height.count.map(|(_, of)| of),
    }
}

/// Where nothing was measured, nothing is known.
fn distribution(times: &Failovers) -> wire::Distribution {
    let known = |seconds: f64| (times.count > 0).then_some(seconds);
    let (p50, p99, max) = (known(times.p50), known(times.p99), known(times.max));
    wire::Distribution { count: times.count, p50, p99, max }
}

impl TierPicture {
    fn on_the_wire(&self, rank: usize, known: &TierStatus, reading: &Reading) -> wire::Tier {
        let tally = self.totals.tally();
        wire::Tier {
            name: self.name.clone(),
            rank: u16::try_from(rank).unwrap_or(u16::MAX),
            engine: self.engine.to_owned(),
            mainstay: matches!(*self.live.leads(), Leads::Peer(_)),
            model: Some(self.model.clone()),
            url: self.url.clone(),
            health: known.health.into(),
            routable: known.routable,
            reason: known.reason.clone(),
            cause: known.cause.map(|cause| cause.name().to_owned()),
            since: clock::rfc3339_of(known.since),
            check: (&known.check).into(),
            traffic: wire::Traffic {
                in_flight: u64::from(self.live.sample().in_flight),
                requests: tally.requests,
                answered: tally.answered,
                failed_over: tally.failed_over,
                cut: tally.cut,
                client_errors: tally.client_errors,
                refused: tally.refused,
                skipped: tally.skipped,
                abandoned: tally.abandoned,
                weakened: tally.weakened,
            },
            process: known.engine.as_ref().map(|engine| {
                let usage = self.shim_pid.and_then(|pid| reading.trees.get(&pid));
                wire::Process {
                    run: engine.run.map(|run| run.number),
                    state: engine.state.into(),
                    since: clock::rfc3339_of(engine.since),
                    pid: self.pid,
                    shim_pid: self.shim_pid,
                    restarts: engine.restarts,
                    strikes: engine.strikes,
                    next_start: engine.next_start.map(clock::rfc3339_of),
                    rss: usage.map(|u| u.rss),
                    cpu_s: usage.map(|u| u.cpu_s),
                    progress: self.progress.clone().filter(|_| engine.state == EngineState::Starting),
                    last_exit: engine.last_exit.as_ref().map(Into::into),
                }
            }),
        }
    }
}

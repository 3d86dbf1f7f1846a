//! A status and its figures, sorted into families.
use super::families::{self as family, Family};
use super::{Figures, Moves, Sample, TierFigures, Value};
use crate::control::process::Usage;
use crate::control::wire::{
    Agent, AgentState, Gpu, GpuProbeState, GpuVerdict, Health, Host, Process, ProcessState, Status, Tier,
};
use crate::policy::incident::Gravity;

/// The samples of each family, in the catalogue's order.
#[derive(Debug)]
pub struct Page(Vec<(Family, Vec<Sample>)>);

/// For a value that is true or not.
fn flag(is: bool) -> Value {
    Value::Gauge(f64::from(u8::from(is)))
}

impl Page {
    pub fn new(status: &Status, figures: &Figures) -> Self {
        let mut page = Self(family::ALL.iter().map(|family| (*family, Vec::new())).collect());
        page.agent(&status.agent, figures);
        for tier in &status.tiers {
            page.tier(tier, status.serving.as_deref());
        }
        for (tier, figures) in status.tiers.iter().zip(&figures.tiers) {
            page.tier_figures(&tier.name, figures);
        }
        page.moves(&status.tiers, figures);
        page.operator(status, figures);
        page.host(&status.host);
        page.one_of(&family::GPU_PROBE, &[], PROBE_STATES, status.gpu_probe.state, GpuProbeState::name);
        // After a GPU was lost the driver may give its index to another one; a series is of one GPU only.
        let has_followed = |lost: &Gpu| {
            let good = |gpu: &Gpu| gpu.index == lost.index && gpu.verdict != GpuVerdict::Unknown;
            lost.verdict == GpuVerdict::Unknown && status.gpus.iter().any(good)
        };
        for gpu in status.gpus.iter().filter(|gpu| !has_followed(gpu)) {
            page.gpu(gpu);
        }
        page
    }

    /// What there is to say of each family.
    pub fn families(&self) -> impl Iterator<Item = (&Family, &[Sample])> {
        self.0
            .iter()
            .filter(|(_, samples)| !samples.is_empty())
            .map(|(family, samples)| (family, samples.as_slice()))
    }

    fn put(&mut self, family: &Family, labels: &[&str], value: Value) {
        debug_assert_eq!(labels.len(), family.labels.len(), "{}", family.name);
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        if let Some((_, samples)) = self.0.iter_mut().find(|(known, _)| known == family) {
            samples.push(Sample { labels, value });
        }
    }

    fn gauge(&mut self, family: &Family, labels: &[&str], value: Option<f64>) {
        if let Some(value) = value {
            self.put(family, labels, Value::Gauge(value));
        }
    }

    /// 1 for the case that holds, 0 for the others.
    fn one_of<T: Copy + PartialEq>(
        &mut self,
        family: &Family,
        labels: &[&str],
        cases: &[T],
        holds: T,
        name: impl Fn(T) -> &'static str,
    ) {
        for case in cases {
            let labels: Vec<&str> = labels.iter().copied().chain([name(*case)]).collect();
            self.put(family, &labels, flag(*case == holds));
        }
    }

    fn agent(&mut self, agent: &Agent, figures: &Figures) {
        self.put(&family::BUILD, &[&agent.version], Value::Info);
        self.put(&family::START_TIME, &[], Value::Gauge(figures.started));
        self.one_of(&family::AGENT_STATE, &[], AGENT_STATES, agent.state, AgentState::name);
        self.put(&family::CONFIG_PROBLEM, &[], flag(agent.config_problem.is_some()));
        for (heart, age) in &figures.hearts {
            self.put(&family::HEART_AGE, &[heart], Value::Gauge(*age));
        }
        if let Some(Usage { rss, cpu_s }) = figures.own {
            self.put(&family::AGENT_MEMORY, &[], Value::Gauge(rss as f64));
            self.put(&family::AGENT_CPU, &[], Value::Spent(cpu_s));
        }
        self.put(&family::PANICS, &[], Value::Count(agent.panics));
        self.put(&family::LOG_DROPPED, &[], Value::Count(figures.dropped_log_lines));
        for (code, count) in &figures.errors {
            self.put(&family::ERRORS, &[code], Value::Count(*count));
        }
    }

    fn operator(&mut self, status: &Status, figures: &Figures) {
        for kind in Gravity::ALL.map(Gravity::name) {
            let open = status.incidents.iter().filter(|incident| incident.kind == kind).count();
            self.put(&family::INCIDENTS, &[kind], Value::Gauge(open as f64));
        }
        self.put(&family::STATE_PROBLEM, &[], flag(status.agent.state_problem.is_some()));
        self.put(&family::UNWRITTEN, &[], Value::Count(figures.unwritten));
        let Some(mail) = &status.mail else { return };
        self.put(&family::MAIL_WAITING, &[], Value::Gauge(mail.waiting as f64));
        self.put(&family::MAIL_FAILING, &[], flag(mail.trouble.is_some()));
        self.put(&family::MAIL, &["sent"], Value::Count(mail.sent));
        self.put(&family::MAIL, &["lost"], Value::Count(mail.lost));
    }

    fn tier(&mut self, tier: &Tier, serving: Option<&str>) {
        let name = tier.name.as_str();
        self.put(&family::TIER, &[name, &tier.engine, tier.model.as_deref().unwrap_or("")], Value::Info);
        self.put(&family::RANK, &[name], Value::Gauge(f64::from(tier.rank)));
        self.one_of(&family::HEALTH, &[name], HEALTHS, tier.health, Health::name);
        self.put(&family::ROUTABLE, &[name], flag(tier.routable));
        self.put(&family::SERVING, &[name], flag(serving == Some(name)));
        self.gauge(&family::CHECK_LATENCY, &[name], tier.check.latency_ms.map(|ms| ms / 1e3));
        let checked = tier.check.last.is_some();
        self.gauge(&family::CHECK_FAILURES, &[name], checked.then_some(f64::from(tier.check.failures)));
        let traffic = &tier.traffic;
        let outcomes = [
            ("answered", traffic.answered.saturating_sub(traffic.client_errors)),
            ("client_error", traffic.client_errors),
            ("failed_over", traffic.failed_over),
            ("cut", traffic.cut),
            ("refused", traffic.refused),
            ("skipped", traffic.skipped),
            ("abandoned", traffic.abandoned),
        ];
        for (outcome, count) in outcomes {
            self.put(&family::REQUESTS, &[name, outcome], Value::Count(count));
        }
        self.put(&family::WEAKENED, &[name], Value::Count(traffic.weakened));
        self.put(&family::IN_FLIGHT, &[name], Value::Gauge(traffic.in_flight as f64));
        if let Some(process) = &tier.process {
            self.process(name, process);
        }
    }

    fn process(&mut self, tier: &str, process: &Process) {
        self.one_of(&family::ENGINE_STATE, &[tier], STATES, process.state, ProcessState::name);
        self.gauge(&family::RUN, &[tier], process.run.map(|run| run as f64));
        let percent = process.progress.as_ref().and_then(|progress| progress.percent);
        self.gauge(&family::PROGRESS, &[tier], percent.map(|percent| f64::from(percent) / 100.0));
        self.put(&family::STRIKES, &[tier], Value::Gauge(f64::from(process.strikes)));
        self.gauge(&family::ENGINE_MEMORY, &[tier], process.rss.map(|bytes| bytes as f64));
        self.gauge(&family::ENGINE_CPU, &[tier], process.cpu_s);
    }

    fn tier_figures(&mut self, tier: &str, figures: &TierFigures) {
        self.put(&family::FIRST_CONTENT, &[tier], Value::Histogram(figures.first_content.clone()));
        for (cause, count) in &figures.restarts {
            self.put(&family::RESTARTS, &[tier, cause], Value::Count(*count));
        }
    }

    fn moves(&mut self, tiers: &[Tier], figures: &Figures) {
        let name = |rank: u16| tiers.get(usize::from(rank)).map(|tier| tier.name.as_str());
        for (family, moves) in
            [(&family::FAILOVERS, &figures.failovers), (&family::RETURNS, &figures.returns)]
        {
            for Moves { from, to, count } in moves {
                if let (Some(from), Some(to)) = (name(*from), name(*to)) {
                    self.put(family, &[from, to], Value::Count(*count));
                }
            }
        }
        self.put(&family::OUTAGES, &[], Value::Count(figures.outages));
        self.put(&family::FAILOVER_TIME, &[], Value::Histogram(figures.failover_times.clone()));
    }

    fn host(&mut self, host: &Host) {
        self.gauge(&family::HOST_MEMORY, &[], host.memory_total.map(|bytes| bytes as f64));
        self.gauge(&family::HOST_AVAILABLE, &[], host.memory_available.map(|bytes| bytes as f64));
        self.gauge(&family::HOST_LOAD, &[], host.load);
    }

    fn gpu(&mut self, gpu: &Gpu) {
        let index = gpu.index.to_string();
        let index = index.as_str();
        let known = |word: &Option<String>| word.clone().unwrap_or_default();
        let (uuid, pci, name) = (known(&gpu.uuid), known(&gpu.pci), known(&gpu.name));
        self.put(&family::GPU, &[index, &uuid, &pci, &name], Value::Info);
        self.one_of(&family::GPU_VERDICT, &[index], VERDICTS, gpu.verdict, GpuVerdict::name);
        self.gauge(&family::GPU_TEMPERATURE, &[index], gpu.temperature_c);
        self.gauge(&family::GPU_MEMORY_USED, &[index], gpu.memory_used.map(|bytes| bytes as f64));
        self.gauge(&family::GPU_MEMORY, &[index], gpu.memory_total.map(|bytes| bytes as f64));
        self.gauge(&family::GPU_UTILIZATION, &[index], gpu.utilization);
        self.gauge(&family::GPU_POWER, &[index], gpu.power_w);
        for reason in gpu.throttle.iter().flatten() {
            self.put(&family::GPU_THROTTLE, &[index, reason], flag(true));
        }
        self.gauge(&family::GPU_THROTTLE_SHARE, &[index], gpu.throttle_share);
        let ecc = |kind, count: Option<u64>| count.map(|count| (kind, count));
        let errors =
            gpu.ecc.iter().flat_map(|e| [ecc("corrected", e.corrected), ecc("uncorrected", e.uncorrected)]);
        for (kind, count) in errors.flatten() {
            self.put(&family::GPU_ECC, &[index, kind], Value::Count(count));
        }
    }
}

const AGENT_STATES: &[AgentState] = &[AgentState::Starting, AgentState::Serving, AgentState::Draining];
const HEALTHS: &[Health] = &[Health::Healthy, Health::Degraded, Health::Down];
const STATES: &[ProcessState] = &[
    ProcessState::Stopped,
    ProcessState::Starting,
    ProcessState::Ready,
    ProcessState::Stopping,
    ProcessState::Backoff,
    ProcessState::Held,
    ProcessState::Wedged,
    ProcessState::Fenced,
];
const PROBE_STATES: &[GpuProbeState] = &[
    GpuProbeState::Ok,
    GpuProbeState::NoDriver,
    GpuProbeState::Unresponsive,
    GpuProbeState::Wedged,
    GpuProbeState::Starting,
    GpuProbeState::Off,
];
const VERDICTS: &[GpuVerdict] = &[
    GpuVerdict::Ok,
    GpuVerdict::Note,
    GpuVerdict::Degraded,
    GpuVerdict::Draining,
    GpuVerdict::Fenced,
    GpuVerdict::Unknown,
];

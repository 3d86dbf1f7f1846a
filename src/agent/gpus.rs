//! The GPUs, as the agent watches and shows them.
use super::faults::Faults;
use super::launch;
use crate::clock;
use crate::config::Config;
use crate::control::process::Reading;
use crate::control::wire;
use crate::gpu::{Picture, Probe};
use crate::policy::{GpuFigures, GpuProcess, GpuStatus, GpuVerdict, Pace, ProbeState};
use crate::redact;
use crate::systemd;
use arc_swap::ArcSwap;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

/// What the probe has seen last.
pub type Seen = Arc<ArcSwap<Picture>>;

/// Divides the pauses between probes and readings, for a test that sees a hundred of them.
const HURRY: &str = "MAINSTAY_TEST_GPU_HURRY";
const HURRIED_MIN: Duration = Duration::from_millis(200);

/// Begins to watch the GPUs, if that is wanted.
pub fn watch(config: &Config) -> Option<Probe> {
    config.gpu.probe.then(|| Probe::start(pace(), environment()))
}

fn pace() -> Pace {
    let pace = Pace::default();
    let hurry = std::env::var(HURRY).ok().filter(|_| Faults::allowed());
    match hurry.and_then(|n| n.parse::<u32>().ok()).filter(|n| *n > 0) {
        Some(n) => {
            let every = (pace.every / n).max(HURRIED_MIN);
            Pace { every, again: pace.again / n, again_max: pace.again_max / n, ..pace }
        }
        None => pace,
    }
}

/// The agent's environment, so that the driver's library is found where the operator says it is, without what was said
/// to the agent alone, and without secrets: it is the process that is expected to crash.
fn environment() -> Vec<(OsString, OsString)> {
    let withheld = |name: &OsString| {
        systemd::OURS_ALONE.iter().chain(launch::OURS).any(|ours| name == ours)
            || redact::names_a_secret(&name.to_string_lossy())
    };
    std::env::vars_os().filter(|(name, _)| !withheld(name)).collect()
}

/// `gpu_probe` and `gpus` of a status. `None`: nobody looks at GPUs. `owner` names the tier to which a process belongs.
pub fn on_the_wire(
    picture: Option<&Picture>,
    owner: impl Fn(u32) -> Option<String>,
) -> (wire::GpuProbe, Vec<wire::Gpu>) {
    let Some(Picture { probe, gpus, .. }) = picture else { return (wire::GpuProbe::off(), Vec::new()) };
    let stale = picture.is_some_and(|picture| picture.is_stale(clock::now()));
    let state = match probe.state {
        ProbeState::Ok if stale => wire::GpuProbeState::Unresponsive,
        ProbeState::Ok => wire::GpuProbeState::Ok,
        ProbeState::Starting => wire::GpuProbeState::Starting,
        ProbeState::NoDriver => wire::GpuProbeState::NoDriver,
        ProbeState::Unresponsive => wire::GpuProbeState::Unresponsive,
        ProbeState::Wedged => wire::GpuProbeState::Wedged,
    };
    let reason = if stale { STALE.to_owned() } else { probe.reason.clone() };
    let shown = wire::GpuProbe {
        state,
        driver: probe.driver.clone(),
        since: Some(clock::rfc3339_of(probe.since)),
        reason: Some(reason),
    };
    (shown, gpus.iter().map(|gpu| one(gpu, stale, &owner)).collect())
}

/// The bytes that these processes hold on the GPUs; `None` when none of them is known to hold any, as on the CPU.
pub fn held_by(picture: &Picture, tree: &[u32]) -> Option<u64> {
    if picture.is_stale(clock::now()) {
        return None;
    }
    let holders = picture.gpus.iter().flat_map(|gpu| gpu.figures.processes.iter().flatten());
    let ours = holders.filter(|holder| tree.contains(&holder.pid));
    // What a process in a container holds is often not told.
    ours.map(|holder| holder.memory).fold(None, |sum, memory| match (sum, memory) {
        (Some(sum), Some(memory)) => Some(sum + memory),
        (sum, memory) => sum.or(memory),
    })
}

/// What is told of the GPUs as events: whether the probe gets its answers, and what is found.
#[derive(Debug, Default)]
pub struct Told {
    probe: Option<ProbeState>,
    verdicts: Vec<GpuVerdict>,
}

impl Told {
    /// One sentence for each thing that has changed since it was asked last. Nothing is said of a beginning that goes well.
    pub fn news(&mut self, picture: &Picture) -> Vec<String> {
        let mut news = Vec::new();
        let Picture { probe, gpus, .. } = picture;
        let before = self.probe.replace(probe.state);
        if before != Some(probe.state) {
            match (before, probe.state) {
                (_, ProbeState::Starting)
                // Most hosts of a CPU tier have no driver; the probe has said so in the log.
                | (None | Some(ProbeState::Starting), ProbeState::Ok | ProbeState::NoDriver) => {}
                (_, ProbeState::Ok) => news.push("the GPU probe gets answers again".to_owned()),
                (_, ProbeState::NoDriver | ProbeState::Unresponsive | ProbeState::Wedged) => {
                    news.push(format!("GPU probe: {}", probe.reason));
                }
            }
        }
        self.verdicts.resize(gpus.len(), GpuVerdict::Ok);
        for (told, gpu) in self.verdicts.iter_mut().zip(gpus) {
            // That nothing is known of any is the probe's news, and told above.
            if *told != gpu.verdict && (gpu.verdict != GpuVerdict::Unknown || probe.state == ProbeState::Ok) {
                *told = gpu.verdict;
                news.push(format!("GPU {}: {}", gpu.index, gpu.reason));
            }
        }
        news
    }
}

const STALE: &str = "the agent itself has not looked for too long";

fn one(gpu: &GpuStatus, stale: bool, owner: &impl Fn(u32) -> Option<String>) -> wire::Gpu {
    let unknown = GpuFigures::default();
    let figures = if stale { &unknown } else { &gpu.figures };
    let verdict = match gpu.verdict {
        GpuVerdict::Ok | GpuVerdict::Note if stale => wire::GpuVerdict::Unknown,
        GpuVerdict::Ok => wire::GpuVerdict::Ok,
        GpuVerdict::Note => wire::GpuVerdict::Note,
        GpuVerdict::Unknown => wire::GpuVerdict::Unknown,
    };
    let holder = |process: &GpuProcess| wire::GpuHolder {
        pid: process.pid,
        memory: process.memory,
        tier: owner(process.pid),
    };
    let ecc = wire::Ecc { corrected: figures.ecc_corrected, uncorrected: figures.ecc_uncorrected };
    wire::Gpu {
        index: gpu.index,
        uuid: gpu.identity.uuid.clone(),
        pci: gpu.identity.pci.clone(),
        name: gpu.identity.name.clone(),
        verdict,
        reason: if stale { STALE.to_owned() } else { gpu.reason.clone() },
        since: clock::rfc3339_of(gpu.since),
        temperature_c: figures.temperature_c.map(f64::from),
        memory_used: figures.memory_used,
        memory_total: figures.memory_total,
        utilization: figures.utilization,
        power_w: figures.power_w,
        throttle: figures.throttle.as_ref().map(|all| all.iter().map(|it| it.name().to_owned()).collect()),
        throttle_share: gpu.throttle_share.filter(|_| !stale),
        ecc: (ecc.corrected.is_some() || ecc.uncorrected.is_some()).then_some(ecc),
        xids: Vec::new(),
        processes: figures.processes.as_ref().map(|all| all.iter().map(holder).collect()),
    }
}

/// The tier to whose run a process belongs, by the shims' process trees.
pub fn owner<'a>(reading: &'a Reading, shims: &'a [(u32, &'a str)]) -> impl Fn(u32) -> Option<String> + 'a {
    move |pid| {
        let (_, tier) = shims
            .iter()
            .find(|(shim, _)| reading.members.get(shim).is_some_and(|tree| tree.contains(&pid)))?;
        Some((*tier).to_owned())
    }
}

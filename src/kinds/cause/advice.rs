//! What follows from a cause: what mainstay does by itself, and what an operator can do.
use crate::policy::{Cause, Nature};

pub(super) struct Counsel {
    pub action: &'static str,
    pub advice: &'static str,
}

const BACKOFF: &str = "restarted, later each time; held after repeated failures";
const HOLD: &str = "held after two such starts; tried again slowly, or when an operator says so";
/// Also for other causes whose evidence shows that they may pass by themselves (`nature`).
pub(super) const WAIT: &str = "tried again, at first every 10 s, after 10 minutes every minute";
const NOTHING: &str = "nothing";

/// What mainstay does about the end of a run.
pub(super) fn action(cause: Cause, nature: Nature) -> &'static str {
    let usual = on(cause).action;
    match nature {
        Nature::Environment if cause != Cause::PortInUse => WAIT,
        Nature::Engine if usual == WAIT => BACKOFF,
        Nature::Engine | Nature::Configuration | Nature::Environment | Nature::Shortage => usual,
    }
}

pub(super) const fn on(cause: Cause) -> Counsel {
    let (action, advice) = match cause {
        Cause::Asked => (NOTHING, "nothing to do: mainstay stopped it"),
        Cause::KilledFromOutside => (
            "restarted at once",
            "look who sent the signal: `journalctl -k` for the OOM killer, then other supervisors, scripts and people",
        ),
        Cause::GpuOom => (
            BACKOFF,
            "see `nvidia-smi` for who holds the memory; lower --gpu-memory-utilization or context, or use a smaller model",
        ),
        Cause::HostOom => {
            (BACKOFF, "give the host or the unit more memory, or run a smaller model, context or fewer tiers")
        }
        Cause::ShmFull => {
            (HOLD, "enlarge /dev/shm (in a container: --shm-size) and remove what was left there")
        }
        Cause::DiskFull => {
            (BACKOFF, "free disk space (model cache, temporary directory), or raise the limit of open files")
        }
        Cause::KvCacheTooSmall => (HOLD, "lower --max-model-len, or raise --gpu-memory-utilization"),
        Cause::ContextTooSmall => (
            NOTHING,
            "the request was too long for this context; enlarge it if such requests are to be served",
        ),
        Cause::ModelMissing => (
            HOLD,
            "check `model`: a path that the engine may read, a repository that exists, or a name that the remote tier knows",
        ),
        Cause::ModelCorrupt => (HOLD, "delete the model and fetch it again"),
        Cause::ModelUnsupported => (HOLD, "upgrade the engine, or take a model that this version knows"),
        Cause::AuthGated => (
            HOLD,
            "accept the model's licence on the hub, and give the tier a token (HF_TOKEN in `env`); remote: check `api_key`",
        ),
        Cause::BadArgument => (
            HOLD,
            "correct `args` of the tier, or `url` of a remote one; the evidence names what was refused",
        ),
        Cause::PortInUse => (
            "tried again soon, on another port where the tier has no fixed one",
            "nothing, unless the tier has a fixed `port`, or its container a fixed name: then stop whoever holds it",
        ),
        Cause::Permission => (HOLD, "let the unit's user read the named file or device"),
        Cause::Network => (
            WAIT,
            "check name resolution, proxy and firewall; a model on the local disk needs no hub (HF_HUB_OFFLINE=1)",
        ),
        Cause::BrokenInstall => (
            HOLD,
            "install the engine again in one piece: a module, library or compiler is missing, or not of its version. Was \
             the program not found? Install it, or set `command`",
        ),
        Cause::DriverMissing => {
            (WAIT, "install the GPU driver, or hand its devices and libraries into the container")
        }
        Cause::DriverTooOld => (
            HOLD,
            "upgrade the GPU driver and reboot, so that kernel module and libraries are of one version",
        ),
        Cause::NoGpu => (WAIT, "see `nvidia-smi` and `gpus` of the tier: the engine saw none"),
        Cause::GpuUnsupported => {
            (HOLD, "take a build of the engine, or a number format, that is made for this GPU")
        }
        Cause::CpuFallback => (
            NOTHING,
            "see why the engine found no GPU: driver, devices, layers, or a start before the driver; then restart the tier. \
             Is it to use the CPU? Write gpus = []",
        ),
        Cause::CudaFault => (
            BACKOFF,
            "once is the process; when it comes back, test the GPU and look for Xids in `journalctl -k`",
        ),
        Cause::GpuHwFault => {
            (BACKOFF, "drain the host and reset the GPU or reboot; when it comes back, have the GPU replaced")
        }
        Cause::GpuInitFailed => {
            (BACKOFF, "see `journalctl -k` and `nvidia-smi`; check the fabric manager, then reboot")
        }
        Cause::Thermal => (BACKOFF, "see to the cooling"),
        Cause::Nccl => (BACKOFF, "run with NCCL_DEBUG=INFO; check the links between the GPUs and /dev/shm"),
        Cause::EngineBug => {
            (BACKOFF, "the evidence and the lines around it are for the engine's issue tracker")
        }
        Cause::Hang => (
            BACKOFF,
            "when it happens again, read its log; of an engine on a GPU look at `mainstay gpus` and for Xids in `journalctl -k`",
        ),
        Cause::None => (NOTHING, "nothing to do"),
        Cause::Unknown => (BACKOFF, "read the log: `mainstay logs TIER`"),
    };
    Counsel { action, advice }
}

/// What an operator can do about a remote tier: process, log and model are another server's affair, the way there and the
/// keys of the tier are ours.
pub(super) const fn on_remote(cause: Cause) -> &'static str {
    match cause {
        Cause::Network => {
            "see whether this host reaches the tier's `url` (curl -v): the server there, name resolution, proxy, firewall"
        }
        Cause::Hang => {
            "see whether the server at the tier's `url` answers at all (curl -v); if not, its own log says why"
        }
        Cause::AuthGated => "check `api_key` of the tier, and the account at that server",
        Cause::ModelMissing => "check `model` of the tier: the server does not know the name",
        Cause::BadArgument => {
            "check `url`, `health_path` and `model` of the tier; the evidence says what was refused"
        }
        Cause::Asked | Cause::None => on(cause).advice,
        _ => "look at that server: its own log, or `mainstay status` there if it is a mainstay",
    }
}

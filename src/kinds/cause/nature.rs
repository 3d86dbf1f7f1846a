//! What has to change before a start that failed can succeed: the engine, what the operator wrote, or what is around it.
//!
//! Only what can pass by itself is the environment's: a driver, a device, a mount, a name service, a port or a container's
//! name that another holds, memory of a GPU that another process holds. A file that is not there may be on a mount that is
//! late; a name that a hub does not know is wrong.
use crate::policy::{Cause, Nature};

/// The nature of a start that failed; the end of a run that was ready is the engine's.
pub fn nature(cause: Cause, deterministic: Option<bool>, evidence: Option<&str>) -> Nature {
    let said = evidence.unwrap_or_default().to_lowercase();
    if is_of_environment(cause, &said) {
        Nature::Environment
    } else if deterministic == Some(true) {
        Nature::Configuration
    } else {
        Nature::Engine
    }
}

/// `said` is in lower case.
fn is_of_environment(cause: Cause, said: &str) -> bool {
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| said.contains(phrase));
    let absent_file = says(ABSENT) && names_a_path(said);
    match cause {
        Cause::DriverMissing | Cause::NoGpu | Cause::Network | Cause::PortInUse => true,
        Cause::GpuInitFailed => !says(BROKEN_ADAPTER),
        Cause::GpuOom => says(FREE_AT_START) || (says(&["this process has"]) && another_process_has(said)),
        Cause::ModelMissing => {
            names_a_path(said) || says(ABSENT) || says(LOCAL_STORES) || is_unknown_to_ollama(said)
        }
        Cause::BrokenInstall => absent_file || says(NO_PROGRAM),
        Cause::BadArgument => absent_file || says(&["assign requested address", "errno 99"]),
        Cause::ModelCorrupt => absent_file,
        Cause::Permission => says(&["/dev/"]),
        Cause::Nccl => says(&["no socket interface found"]),
        Cause::Asked
        | Cause::KilledFromOutside
        | Cause::HostOom
        | Cause::ShmFull
        | Cause::DiskFull
        | Cause::KvCacheTooSmall
        | Cause::ContextTooSmall
        | Cause::ModelUnsupported
        | Cause::AuthGated
        | Cause::DriverTooOld
        | Cause::GpuUnsupported
        | Cause::CpuFallback
        | Cause::CudaFault
        | Cause::GpuHwFault
        | Cause::Thermal
        | Cause::EngineBug
        | Cause::Hang
        | Cause::None
        | Cause::Unknown => false,
    }
}

const ABSENT: &[&str] = &["no such file", "does not exist", "not a directory"];
/// The driver's own word that this adapter cannot be started: nothing else will come and change that.
const BROKEN_ADAPTER: &[&str] =
    &["rminitadapter", "rm_init_adapter", "start the adapter", "i/o region", "device handle"];
/// vLLM looks before it takes memory: what it misses then, another process holds.
const FREE_AT_START: &[&str] =
    &["on startup is less than", "less than desired gpu memory", "error in memory profiling"];
/// Caches and stores of models on this host.
const LOCAL_STORES: &[&str] = &[
    "failed to open gguf",
    "cached snapshot",
    "disk cache",
    "outgoing traffic has been disabled",
    "available in cache",
    "offline",
    "try pulling it",
];
const NO_PROGRAM: &[&str] = &["exit 127", "command not found"];

/// A place on this host, `/models/m` or `~/m`: no address of a hub, and no name of a repository.
fn names_a_path(said: &str) -> bool {
    let begins = |word: &str| ["/", "./", "../", "~/"].iter().any(|start| word.starts_with(start));
    said.split([' ', '\'', '"', '`', '(', '=', ','])
        .any(|word| begins(word) && word.len() > 1 && !word.starts_with("//"))
}

/// Asked for without a pull: its own store does not hold it.
fn is_unknown_to_ollama(said: &str) -> bool {
    said.contains("model '") && said.contains("' not found")
}

/// "Process 4711 has 20.00 GiB memory in use", as PyTorch writes of each process that it does not know as its own.
fn another_process_has(said: &str) -> bool {
    said.split("process ").skip(1).any(|rest| {
        let number = rest.bytes().take_while(u8::is_ascii_digit).count();
        number > 0 && rest[number..].starts_with(" has ")
    })
}

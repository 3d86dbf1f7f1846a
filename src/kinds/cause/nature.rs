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
        Cause::ModelMissing => names_a_path(said) || says(LOCAL_STORES) || is_unknown_to_ollama(said),
        Cause::BrokenInstall => {
            says(NO_PROGRAM) || (absent_file && !says(&["shared librar", "shared object"]))
        }
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
    "no such file",
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

#[cfg(test)]
mod tests {
    use super::super::{Evidence, diagnose};
    use super::*;
    use crate::kinds::Kind;
    use crate::policy::Exit;

    fn of(kind: Kind, code: i32, was_ready: bool, log: &str) -> (Cause, Nature) {
        let lines: Vec<&str> = log.lines().collect();
        let (exit, asked) = (Some(Exit::Code(code)), Some(false));
        let known = Evidence {
            kind: Some(kind),
            exit,
            asked,
            was_ready,
            out_of_memory: None,
            survived: 0,
            lines: &lines,
        };
        let found = diagnose(&known);
        (found.cause, found.nature)
    }

    macro_rules! excerpts {
        ($($kind:ident $code:literal $name:literal => $cause:ident $nature:ident;)*) => {
            [$(($name, Kind::$kind, $code, include_str!(concat!("../../../tests/corpus/", $name, ".log")),
                Cause::$cause, Nature::$nature)),*]
        };
    }

    #[test]
    fn what_engines_wrote_has_a_nature() {
        let excerpts = excerpts! {
            Vllm 125 "docker-no-driver" => DriverMissing Environment;
            Vllm 125 "docker-device-not-there" => DriverMissing Environment;
            Vllm 125 "docker-daemon-not-there" => Network Environment;
            Vllm 125 "docker-mount-not-there" => ModelMissing Environment;
            Vllm 125 "docker-name-in-use" => PortInUse Environment;
            Vllm 125 "podman-name-in-use" => PortInUse Environment;
            Vllm 1 "vllm-no-driver" => DriverMissing Environment;
            Vllm 1 "vllm-no-device-type" => NoGpu Environment;
            Vllm 1 "vllm-fabric-manager" => GpuInitFailed Environment;
            Vllm 1 "vllm-devices-busy" => GpuInitFailed Environment;
            Vllm 1 "rm-init" => GpuInitFailed Engine;
            Vllm 1 "vllm-dns" => Network Environment;
            Vllm 1 "vllm-hub-refused" => Network Environment;
            Vllm 1 "vllm-port-in-use" => PortInUse Environment;
            LlamaServer 1 "llama-port-in-use" => PortInUse Environment;
            Vllm 1 "vllm-oom-free-memory" => GpuOom Environment;
            Vllm 1 "vllm-oom-free-memory-old" => GpuOom Environment;
            Vllm 1 "vllm-oom-weights" => GpuOom Engine;
            Vllm 1 "vllm-model-missing" => ModelMissing Environment;
            Vllm 1 "vllm-config-missing" => ModelMissing Environment;
            Vllm 1 "vllm-weights-missing" => ModelMissing Environment;
            Vllm 1 "vllm-model-offline" => ModelMissing Environment;
            Vllm 1 "short-model-missing-1" => ModelMissing Environment;
            LlamaServer 1 "llama-model-missing" => ModelMissing Environment;
            Vllm 1 "vllm-hub-no-repo" => ModelMissing Configuration;
            Ollama 1 "ollama-pull-missing" => ModelMissing Configuration;
            Ollama 1 "ollama-address-not-local" => BadArgument Environment;
            LlamaServer 1 "llama-flag-unknown" => BadArgument Configuration;
            LlamaServer 1 "llama-model-garbage" => ModelCorrupt Configuration;
            LlamaServer 1 "llama-architecture-unknown" => ModelUnsupported Configuration;
            LlamaServer 127 "llama-library-missing" => BrokenInstall Configuration;
            Vllm 1 "short-broken-install-1" => BrokenInstall Configuration;
            Vllm 1 "vllm-undefined-symbol" => BrokenInstall Configuration;
            LlamaServer 1 "llama-model-unreadable" => Permission Configuration;
            LlamaServer 134 "llama-assert" => EngineBug Engine;
        };
        for (name, kind, code, log, cause, nature) in excerpts {
            assert_eq!(of(kind, code, false, log), (cause, nature), "{name}");
            assert_eq!(of(kind, code, true, log).1, Nature::Engine, "it was ready: {name}");
        }
    }

    #[track_caller]
    fn check(cause: Cause, deterministic: Option<bool>, evidence: &str, expected: Nature) {
        assert_eq!(nature(cause, deterministic, Some(evidence)), expected, "{evidence}");
    }

    #[test]
    fn what_is_not_there_may_come_and_what_is_wrong_stays_wrong() {
        use Nature::{Configuration, Engine, Environment};
        let again = Some(true);
        check(Cause::ModelMissing, again, "model 'llama3:8b' not found", Environment);
        check(
            Cause::ModelMissing,
            again,
            "404 Client Error for url: https://huggingface.co/a/b",
            Configuration,
        );
        check(
            Cause::BrokenInstall,
            again,
            "exit 127: the program, or one that it calls, was not found",
            Environment,
        );
        check(
            Cause::BrokenInstall,
            again,
            "/opt/v/bin/vllm: /mnt/python: bad interpreter: No such file",
            Environment,
        );
        check(Cause::Permission, again, "Failed to open /dev/nvidiactl: Permission denied", Environment);
        check(Cause::Permission, again, "Permission denied: '/models/config.json'", Configuration);
        let (own, other) = ("this process has 1.00 GiB", "Process 4711 has 20.00 GiB memory in use");
        check(Cause::GpuOom, None, &format!("CUDA out of memory. {own}"), Engine);
        // In a container a process does not know itself by the number that the driver tells.
        check(Cause::GpuOom, None, &format!("CUDA out of memory. {other}"), Engine);
        check(
            Cause::GpuOom,
            None,
            &format!("CUDA out of memory. {other}. Including more, {own}"),
            Environment,
        );
        check(Cause::Nccl, None, "NCCL WARN Bootstrap : no socket interface found", Environment);
        check(Cause::Unknown, None, "/dev/nvidia0: no such file or directory", Engine);
    }
}

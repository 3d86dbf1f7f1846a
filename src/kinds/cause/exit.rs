//! What an exit status says by itself, where the log says nothing (or only that somebody died).
use super::Evidence;
use crate::kinds::Kind;
use crate::policy::{Cause, Exit};

/// What can be read from an exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub cause: Cause,
    pub evidence: String,
    pub line: Option<usize>,
    pub deterministic: Option<bool>,
    /// Does it say more than another process's notice of the death?
    pub is_certain: bool,
}

/// Names of signals, and what it means to die of each: by itself, or sent by somebody.
const SIGNALS: &[(i32, &str, Cause)] = &[
    (1, "SIGHUP", Cause::KilledFromOutside),
    (2, "SIGINT", Cause::KilledFromOutside),
    (3, "SIGQUIT", Cause::KilledFromOutside),
    (4, "SIGILL", Cause::BrokenInstall),
    (5, "SIGTRAP", Cause::EngineBug),
    (6, "SIGABRT", Cause::EngineBug),
    (7, "SIGBUS", Cause::EngineBug),
    (8, "SIGFPE", Cause::EngineBug),
    (9, "SIGKILL", Cause::KilledFromOutside),
    (10, "SIGUSR1", Cause::KilledFromOutside),
    (11, "SIGSEGV", Cause::EngineBug),
    (12, "SIGUSR2", Cause::KilledFromOutside),
    (13, "SIGPIPE", Cause::KilledFromOutside),
    (14, "SIGALRM", Cause::KilledFromOutside),
    (15, "SIGTERM", Cause::KilledFromOutside),
    (24, "SIGXCPU", Cause::KilledFromOutside),
    (25, "SIGXFSZ", Cause::DiskFull),
    (31, "SIGSYS", Cause::Permission),
];

/// The signal of this name, with or without its `SIG`.
pub fn signal_number(name: &str) -> Option<i32> {
    let wanted = name.to_ascii_uppercase();
    let wanted = wanted.strip_prefix("SIG").unwrap_or(&wanted);
    SIGNALS.iter().find(|(_, name, _)| &name[3..] == wanted).map(|(number, _, _)| *number)
}

/// The name of this signal, `SIG` included.
pub fn signal_name(number: i32) -> Option<&'static str> {
    SIGNALS.iter().find(|(known, _, _)| *known == number).map(|(_, name, _)| *name)
}

/// What this exit says, given that nobody of ours asked for it. `None` when it says nothing.
pub(super) fn reading(evidence: &Evidence, exit: Exit) -> Option<Reading> {
    let kind = evidence.kind;
    match exit {
        // It ended in good order. Only who knows that nobody asked for it can call that a failure.
        Exit::Code(0) if evidence.asked.is_none() => None,
        Exit::Signal(signal) => by_signal(kind, signal),
        // How a shell, and a wrapper written in it, hands on a signal.
        Exit::Code(code @ 129..=192) => by_signal(kind, code - 128),
        Exit::Code(code) if code < 0 => by_signal(kind, -code),
        Exit::Code(code) => by_code(kind, code, evidence.lines),
        Exit::Unknown => None,
    }
}

fn by_signal(kind: Option<Kind>, signal: i32) -> Option<Reading> {
    let (_, name, cause) = SIGNALS.iter().find(|(number, _, _)| *number == signal)?;
    let cause = match (signal, kind) {
        // vLLM's processes talk through /dev/shm; a page that has no room there is a bus error.
        (7, Some(Kind::Vllm) | None) => Cause::ShmFull,
        // The others map the model's file; a page that cannot be read from it is one as well.
        (7, Some(Kind::LlamaServer | Kind::Ollama)) => Cause::ModelCorrupt,
        _ => *cause,
    };
    let evidence = match signal {
        4 => format!("{name}: this build uses instructions that this processor does not have"),
        13 => format!("{name}: whoever read its log went away"),
        31 => format!("{name}: a system call that is forbidden to it"),
        _ => format!("died of {name}"),
    };
    let deterministic = (signal == 4 || signal == 31).then_some(true);
    Some(Reading {
        cause,
        evidence,
        line: None,
        deterministic,
        is_certain: cause != Cause::KilledFromOutside,
    })
}

/// Lines of an orderly stop. When nobody of ours asked for it, somebody else did.
const ORDERLY: &[&str] = &[
    "[shutdown]",
    "Shutting down",
    "cleaning up before exit",
    "Received second interrupt",
    "shutdown triggered",
];

fn by_code(kind: Option<Kind>, code: i32, lines: &[&str]) -> Option<Reading> {
    let told = |cause, evidence: &str, deterministic| {
        Some(Reading { cause, evidence: evidence.to_owned(), line: None, deterministic, is_certain: true })
    };
    match (code, kind) {
        (0, _) => {
            let line = lines.iter().rposition(|line| ORDERLY.iter().any(|words| line.contains(words)));
            // Ollama ends at once, and says nothing.
            let orderly = line.is_some() || kind == Some(Kind::Ollama);
            orderly.then(|| Reading {
                cause: Cause::KilledFromOutside,
                evidence: line
                    .map_or("exit 0: it was told to stop, and not by mainstay", |at| lines[at])
                    .to_owned(),
                line,
                deterministic: None,
                is_certain: false,
            })
        }
        (2, Some(Kind::Vllm)) => told(Cause::BadArgument, "exit 2: the command line was refused", Some(true)),
        (126, _) => told(Cause::Permission, "exit 126: the program may not be executed", Some(true)),
        (127, _) => told(
            Cause::BrokenInstall,
            "exit 127: the program, or one that it calls, was not found",
            Some(true),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name() {
        assert_eq!(signal_number("SIGKILL"), Some(9));
        assert_eq!(signal_number("segv"), Some(11));
        assert_eq!(signal_number("SIG"), None);
        assert_eq!(signal_number("9"), None);
    }

    #[track_caller]
    fn check(kind: Kind, exit: Exit, expected: Option<(Cause, Option<bool>)>) {
        let evidence = Evidence {
            kind: Some(kind),
            exit: Some(exit),
            asked: Some(false),
            was_ready: false,
            out_of_memory: None,
            survived: 0,
            lines: &[],
        };
        let found = reading(&evidence, exit).map(|reading| (reading.cause, reading.deterministic));
        assert_eq!(found, expected, "{kind:?} {exit:?}");
    }

    #[test]
    fn an_exit_is_evidence() {
        check(Kind::Vllm, Exit::Code(2), Some((Cause::BadArgument, Some(true))));
        check(Kind::Ollama, Exit::Code(2), None);
        check(Kind::Vllm, Exit::Code(1), None);
        check(Kind::Vllm, Exit::Code(0), None);
        check(Kind::Ollama, Exit::Code(0), Some((Cause::KilledFromOutside, None)));
        check(Kind::LlamaServer, Exit::Code(127), Some((Cause::BrokenInstall, Some(true))));
        check(Kind::LlamaServer, Exit::Signal(9), Some((Cause::KilledFromOutside, None)));
        check(Kind::LlamaServer, Exit::Code(137), Some((Cause::KilledFromOutside, None)));
        check(Kind::Vllm, Exit::Code(-2), Some((Cause::KilledFromOutside, None)));
        check(Kind::LlamaServer, Exit::Signal(4), Some((Cause::BrokenInstall, Some(true))));
        check(Kind::Vllm, Exit::Signal(7), Some((Cause::ShmFull, None)));
        check(Kind::LlamaServer, Exit::Signal(7), Some((Cause::ModelCorrupt, None)));
        check(Kind::LlamaServer, Exit::Code(134), Some((Cause::EngineBug, None)));
        check(Kind::LlamaServer, Exit::Signal(64), None);
        check(Kind::Vllm, Exit::Unknown, None);
    }
}

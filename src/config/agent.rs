//! `[agent]`: directories and log.
use super::section::Section;
use super::tier::Tier;
use super::value::{Wrong, absolute_path, flag, one_of};
use std::path::{Path, PathBuf};

/// In bytes; the kernel's room for a socket's path, without the NUL at its end.
const LONGEST_SOCKET_PATH: usize = 107;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    pub run_dir: PathBuf,
    pub state_dir: PathBuf,
    pub log: LogLevel,
    pub log_format: LogFormat,
    /// What engines print goes to the agent's own log as well.
    pub engine_log: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// The section, with the place that the rule over runtime directory and tiers points at.
pub(super) struct Placed {
    pub(super) agent: Agent,
    /// `run_dir`, or the section that does not have it; `None` when there is none either.
    pub(super) run_dir_at: Option<usize>,
}

pub(super) fn read(mut section: Section<'_>) -> Placed {
    use LogLevel::{Debug, Error, Info, Warn};
    let environment = section.context.environment;
    let levels = [("error", Error), ("warn", Warn), ("info", Info), ("debug", Debug)];
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let agent = Agent {
        run_dir: directory(&mut section, "run_dir", environment.run_dir(), "/run/mainstay"),
        state_dir: directory(&mut section, "state_dir", Some(environment.state_dir()), "/var/lib/mainstay"),
        log: section.read("log", one_of(&levels)).unwrap_or(Info),
        log_format: section.read("log_format", one_of(&formats)).unwrap_or(LogFormat::Text),
        engine_log: section.read("engine_log", flag).unwrap_or(true),
    };
    let header_at = section.is_written().then_some(section.at);
    let run_dir_at = section.take("run_dir").map(|given| given.at).or(header_at);
    section.finish();
    Placed { agent, run_dir_at }
}

/// What is wrong with this runtime directory for these tiers: the sockets in it must have names that fit.
pub(super) fn misfit(run_dir: &Path, tiers: &[Tier]) -> Option<Wrong> {
    let local = || tiers.iter().filter(|tier| tier.local().is_some());
    let longest = local().max_by_key(|tier| tier.name.len());
    // Seven digits number the runs of three years, one every ten seconds.
    let socket = match longest {
        Some(tier) => run_dir.join(format!("runs/{}-9999999/shim.sock", tier.name)),
        None => run_dir.join("control.sock"),
    };
    let (length, taken) = (run_dir.as_os_str().len(), socket.as_os_str().len());
    if taken <= LONGEST_SOCKET_PATH {
        return None;
    }
    let room = (length + LONGEST_SOCKET_PATH).saturating_sub(taken);
    let what = format!("the runtime directory's path is {length} bytes long, and sockets in it have no room");
    let remedy = match longest {
        Some(tier) => {
            format!("choose one of at most {room} bytes, or a shorter name for tier \"{}\"", tier.name)
        }
        None => format!("choose one of at most {room} bytes"),
    };
    Some(Wrong::new(what, remedy))
}

/// As written, else as the environment has it; one that nobody names is a problem. Empty where it is not known.
fn directory(section: &mut Section<'_>, key: &'static str, found: Option<PathBuf>, example: &str) -> PathBuf {
    if section.has(key) {
        return section.read(key, absolute_path).unwrap_or_default();
    }
    if !section.is_whole() {
        return PathBuf::new();
    }
    if found.is_none() {
        let what = format!("no `{key}` is given, {example} is not writable, and the environment names none");
        section.report_at(key, what, format!("write {key} = \"/…\" into [agent]"));
    }
    found.unwrap_or_default()
}

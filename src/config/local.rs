//! The keys of a tier whose engine we own.
use super::limits::{self, WAIT};
use super::secret::{self, Key, MissingKey, Secret};
use super::section::Section;
use super::value::{Given, Wrong, absolute_path, clipped, duration, one_of, text, whole};
use crate::kinds::{self, Kind};
use crate::policy::{Restart, StartMode, Startup};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeValue;

const GPU_FORM: &str = r#"write an index such as 0, or a UUID such as "GPU-8f6e…""#;

/// An engine that runs under a shim of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Program and leading arguments; never empty.
    pub command: Vec<String>,
    /// Appended after the arguments that mainstay adds.
    pub args: Vec<String>,
    /// Added to the agent's own environment.
    pub env: BTreeMap<String, Secret>,
    /// Variables whose file or credential was not there, or not good, when this was read: read at each start.
    pub late_env: BTreeMap<String, MissingKey>,
    /// Working directory; the agent's own when `None`.
    pub dir: Option<PathBuf>,
    /// Index or UUID of each GPU. `Some` of none is the CPU; `None` lets the engine see all.
    pub gpus: Option<Vec<String>>,
    /// `None` takes one from `server.engine_ports`, a new one per run.
    pub port: Option<u16>,
    pub start: StartMode,
    /// From TERM to KILL.
    pub stop_grace: Duration,
    pub nice: i32,
    pub oom_score_adj: i32,
    pub restart: Restart,
    pub startup: Startup,
    /// `None` for engines that cannot pull.
    pub pull: Option<Pull>,
}

/// May Ollama fetch a model that it does not have?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull {
    Never,
    Missing,
}

impl Local {
    /// The operator took every GPU away from it, or the host has none and the operator named none.
    pub fn runs_on_cpu(&self, host_has_gpu: bool) -> bool {
        self.gpus.as_ref().map_or(!host_has_gpu, Vec::is_empty)
    }

    /// Arguments or variables of the operator's keep the engine on the CPU, whatever GPUs there are.
    pub fn asks_for_cpu(&self, kind: Kind) -> bool {
        let words = [self.command.as_slice(), &self.args].concat();
        kinds::asks_for_cpu(kind, &words, |name| self.env.get(name).map(Secret::expose))
    }
}

pub(super) fn read(section: &mut Section<'_>, kind: Kind) -> Local {
    let starts =
        [("always", StartMode::Always), ("on-demand", StartMode::OnDemand), ("manual", StartMode::Manual)];
    let pulls = [("never", Pull::Never), ("missing", Pull::Missing)];
    let pull = section.read("pull", one_of(&pulls)).unwrap_or(Pull::Missing);
    let (env, late_env) = env(section, kind);
    Local {
        command: command(section, kind),
        args: section.list("args", r#"["--max-model-len", "8192"]"#, argument(kind)).unwrap_or_default(),
        env,
        late_env,
        dir: section.read("dir", absolute_path),
        gpus: gpus(section),
        port: section.read("port", whole(0..=u16::MAX)).filter(|port| *port > 0),
        start: section.read("start", one_of(&starts)).unwrap_or(StartMode::Always),
        stop_grace: section.read("stop_grace", duration(WAIT)).unwrap_or(Duration::from_secs(30)),
        nice: section.read("nice", whole(-20..=19)).unwrap_or(0),
        oom_score_adj: section.read("oom_score_adj", whole(-1000..=1000)).unwrap_or(0),
        restart: limits::restart(section.table("restart", "`restart`")),
        startup: limits::startup(section.table("startup", "`startup`")),
        pull: (kind == Kind::Ollama).then_some(pull),
    }
}

/// What an operator without a `command` means.
fn default_command(kind: Kind) -> Vec<String> {
    let words: &[&str] = match kind {
        Kind::Vllm => &["vllm", "serve"],
        Kind::Ollama => &["ollama", "serve"],
        Kind::LlamaServer => &["llama-server"],
        Kind::Remote(_) => &[],
    };
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn command(section: &mut Section<'_>, kind: Kind) -> Vec<String> {
    let example = r#"["vllm", "serve"]"#;
    let Some(words) = section.list("command", example, text) else { return default_command(kind) };
    if words.first().is_none_or(|program| program.trim().is_empty()) {
        section.report_at("command", "`command` names no program", format!("write one, such as {example}"));
    }
    words
}

/// mainstay tells the engine where to listen and what its model is, and asks it there, without a key; what says otherwise
/// in `args` would leave it deaf, or open to everybody. The value is not shown: it may be a secret.
fn argument(kind: Kind) -> impl Fn(&Given<'_>) -> Result<String, Wrong> {
    move |given| {
        let text = text(given)?;
        if let Some((flag, remedy)) = kinds::owned_flag(kind, &text) {
            return Err(given.wrong_unshown(format!("has the flag {}", clipped(flag)), remedy));
        }
        if let Some(flag) = kinds::flag_with_value(&text) {
            let why = format!("has a flag and its value in one string, {}", clipped(flag));
            return Err(given.wrong_unshown(why, "write two strings, the flag and the value"));
        }
        Ok(text)
    }
}

/// Those that are there, and those that are not there yet.
fn env(section: &mut Section<'_>, kind: Kind) -> (BTreeMap<String, Secret>, BTreeMap<String, MissingKey>) {
    let environment = section.context.environment;
    let table = section.table("env", "`env`");
    let (mut variables, mut late) = (BTreeMap::new(), BTreeMap::new());
    for (name, at, value) in table.entries() {
        let reserved = name == "MAINSTAY_RUN" || (kind == Kind::Ollama && name == "OLLAMA_HOST");
        if name.is_empty() || name.contains(['=', '\0']) {
            let what = format!("\"{}\" is no name of a variable", clipped(name));
            section.context.problems.add(at, what, "write a name without =");
        } else if reserved {
            let what = format!("mainstay sets the variable `{name}` by itself");
            section.context.problems.add(at, what, "remove it");
        } else {
            let given = Given::new(name, at, value);
            match secret::plain_or_kept(&given, environment) {
                Ok(Key::Known(secret)) => drop(variables.insert(name.to_owned(), secret)),
                Ok(Key::Missing(missing)) => {
                    let what = format!("`{name}` {}", missing.lack.what);
                    section.context.problems.add_pending(at, what, &missing.lack.remedy);
                    late.insert(name.to_owned(), missing);
                }
                Err(wrong) => section.report(&given, wrong),
            }
        }
    }
    (variables, late)
}

fn gpus(section: &mut Section<'_>) -> Option<Vec<String>> {
    let gpus = section.places("gpus", "[0, 1], or [] for none", gpu)?;
    let mut seen = BTreeSet::new();
    for (at, gpu) in &gpus {
        if !seen.insert(gpu.to_lowercase()) {
            section.context.problems.add(*at, format!("`gpus` has {gpu} twice"), "remove one of them");
        }
    }
    Some(gpus.into_iter().map(|(_, gpu)| gpu).collect())
}

/// An index or a `GPU-…` UUID, as `CUDA_VISIBLE_DEVICES` takes them.
fn gpu(given: &Given<'_>) -> Result<String, Wrong> {
    let id = match given.value {
        DeValue::Integer(_) => return whole(0..=255)(given).map(|index: i64| index.to_string()),
        DeValue::String(id) => id.as_ref(),
        _ => return Err(given.of_wrong_type(GPU_FORM)),
    };
    let hex_or_dash = |rest: &str| rest.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if id.strip_prefix("GPU-").is_some_and(|rest| rest.len() >= 4 && hex_or_dash(rest)) {
        return Ok(id.to_owned());
    }
    if is_pci_address(id) {
        return Err(given.wrong("and PCI addresses are not supported yet", GPU_FORM));
    }
    if !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(given.wrong("an index in quotes", format!("write {id} without quotes")));
    }
    if id.starts_with("MIG-") {
        return Err(given.wrong("and MIG instances are not supported yet", GPU_FORM));
    }
    Err(given.wrong("which names no GPU", GPU_FORM))
}

/// `0000:01:00.0`, or without the domain.
fn is_pci_address(id: &str) -> bool {
    let hex = |text: &str, lengths: &[usize]| {
        lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let Some((rest, function)) = id.split_once('.') else { return false };
    let parts: Vec<&str> = rest.split(':').collect();
    let place = match parts.as_slice() {
        [bus, device] => hex(bus, &[2]) && hex(device, &[2]),
        [domain, bus, device] => hex(domain, &[4, 8]) && hex(bus, &[2]) && hex(device, &[2]),
        _ => false,
    };
    place && matches!(function.as_bytes(), [b'0'..=b'7'])
}

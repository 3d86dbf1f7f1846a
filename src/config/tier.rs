//! `[[tier]]`: one model on one engine or remote upstream.
use super::limits::{self, Timeouts, WAIT};
use super::local::{self, Local};
use super::remote::{self, Remote};
use super::section::Section;
use super::value::{Given, Wrong, duration, one_of, text, whole, words};
use crate::kinds::{self, Api, Degrade, Kind};
use crate::policy::Check;
use std::time::Duration;

/// Names become parts of file, cgroup and header names.
const LONGEST_NAME: usize = 40;

#[derive(Clone, Debug, PartialEq)]
pub struct Tier {
    /// `[a-z0-9-]`, unlike every other tier's.
    pub name: String,
    pub kind: Kind,
    /// What this tier is asked for.
    pub model: String,
    /// Further names of the chain; the same name is never listed twice.
    pub aliases: Vec<String>,
    /// Requests at a time; `None` sets no limit of ours.
    pub max_concurrent: Option<u32>,
    pub check: Check,
    /// Without a byte for this long, an engine with requests in flight is asked for proof of life. `None`: it depends on
    /// whether the engine has a GPU.
    pub silence: Option<Duration>,
    /// From a proven hang to the restart.
    pub suspect: Duration,
    pub timeouts: Timeouts,
    /// Set when this tier's answers are weakened.
    pub degrade: Option<Degrade>,
    pub upstream: Upstream,
}

/// Where a tier's answers come from. Always agrees with `Tier::kind`.
#[derive(Clone, Debug, PartialEq)]
pub enum Upstream {
    Local(Local),
    Remote(Remote),
}

impl Tier {
    pub fn local(&self) -> Option<&Local> {
        match &self.upstream {
            Upstream::Local(local) => Some(local),
            Upstream::Remote(_) => None,
        }
    }

    pub fn remote(&self) -> Option<&Remote> {
        match &self.upstream {
            Upstream::Local(_) => None,
            Upstream::Remote(remote) => Some(remote),
        }
    }
}

/// A tier as it was read, with the places that rules over the whole chain point at.
pub(super) struct Placed {
    /// Empty in `name` and `model` where those are missing or wrong.
    pub(super) tier: Tier,
    /// The header.
    pub(super) at: usize,
    pub(super) name_at: usize,
    pub(super) port_at: usize,
    pub(super) url_at: usize,
    /// A remote tier that is asked for the first tier's model.
    pub(super) wants_model: bool,
}

const LOCAL_ONLY: [&str; 14] = [
    "command",
    "args",
    "env",
    "dir",
    "gpus",
    "port",
    "start",
    "stop_grace",
    "nice",
    "oom_score_adj",
    "restart",
    "startup",
    "silence",
    "suspect",
];
const REMOTE_ONLY: [&str; 4] = ["url", "api", "api_key", "health_path"];

pub(super) fn read(mut section: Section<'_>) -> Placed {
    let name = section.read("name", name).unwrap_or_default();
    if !section.has("name") {
        section.report_missing("name", "write name = \"…\", of a-z, 0-9 and -");
    }
    let kind = kind(&mut section);
    if let Some(kind) = kind {
        refuse_misfits(&mut section, kind);
        require(&mut section, kind);
    }
    let api = remote::api(&mut section);
    // Where the engine is not known, both sets of keys are read, for what is wrong in them.
    let local = local::read(&mut section, kind.unwrap_or(Kind::Vllm));
    let remote = remote::read(&mut section, api);
    let kind = match kind {
        Some(Kind::Remote(_)) => Kind::Remote(api),
        Some(kind) => kind,
        None => Kind::Vllm,
    };
    let aliases = section.places("aliases", r#"["gpt-4o"]"#, words).unwrap_or_default();
    let tier = Tier {
        name,
        kind,
        model: section.read("model", words).unwrap_or_default(),
        aliases: aliases.into_iter().map(|(_, alias)| alias).collect(),
        max_concurrent: section.read("max_concurrent", whole(0..=100_000)).filter(|most| *most > 0),
        check: limits::check(section.table("health", "`health`")),
        silence: section.read("silence", duration(WAIT)),
        suspect: section.read("suspect", duration(WAIT)).unwrap_or(Duration::from_secs(60)),
        timeouts: limits::timeouts(section.table("timeouts", "`timeouts`")),
        degrade: section.table_if_given("degrade", "`degrade`").map(limits::degrade),
        upstream: if kind.is_local() { Upstream::Local(local) } else { Upstream::Remote(remote) },
    };
    let place = |section: &mut Section<'_>, key| section.take(key).map_or(section.at, |given| given.at);
    refuse_second_model(&mut section, &tier);
    let placed = Placed {
        at: section.at,
        name_at: place(&mut section, "name"),
        port_at: place(&mut section, "port"),
        url_at: place(&mut section, "url"),
        wants_model: !kind.is_local() && !section.has("model") && section.is_whole(),
        tier,
    };
    section.finish();
    placed
}

/// `None` when the engine is missing or wrong, which is reported.
fn kind(section: &mut Section<'_>) -> Option<Kind> {
    let kinds = [Kind::Vllm, Kind::Ollama, Kind::LlamaServer, Kind::Remote(Api::OpenAi)];
    let named = kinds.map(|kind| (kind.name(), kind));
    if !section.has("engine") {
        section.report_missing("engine", r#"write engine = "vllm", "ollama", "llama-server" or "remote""#);
    }
    section.read("engine", one_of(&named))
}

/// Keys that mean nothing for this kind are refused, rather than read and ignored.
fn refuse_misfits(section: &mut Section<'_>, kind: Kind) {
    if kind.is_local() {
        for key in REMOTE_ONLY {
            let what = format!("`{key}` is for remote tiers only");
            section.refuse(key, what, "remove it, or write engine = \"remote\"");
        }
    } else {
        for key in LOCAL_ONLY {
            let what = format!("`{key}` is for engines of this host, not for a remote tier");
            let remedy = match key {
                "silence" | "suspect" => "remove it, or write timeouts = { first_content = \"…\" }",
                _ => "remove it",
            };
            section.refuse(key, what, remedy);
        }
    }
    if kind != Kind::Ollama {
        section.refuse("pull", format!("`pull` is for ollama, not for {}", kind.name()), "remove it");
    }
}

fn require(section: &mut Section<'_>, kind: Kind) {
    let (key, remedy) = match kind {
        Kind::Vllm => ("model", "write model = \"…\", the name or directory that vllm serve is given"),
        Kind::Ollama => ("model", "write model = \"…\", as `ollama list` names it"),
        Kind::LlamaServer => ("model", "write model = \"…\", the path of a .gguf file"),
        Kind::Remote(_) => ("url", "write url = \"http://HOST:PORT\""),
    };
    if !section.has(key) {
        section.report_missing(key, remedy);
    }
}

/// A file that is never loaded, because `args` name another source, would only be the name of what is.
fn refuse_second_model(section: &mut Section<'_>, tier: &Tier) {
    let args = tier.local().map_or(&[][..], |local| &local.args);
    let is_file = tier.model.starts_with('/') || tier.model.ends_with(".gguf");
    if let Some(flag) = kinds::source_flag(tier.kind, args).filter(|_| is_file) {
        let what = format!("`args` has the flag {flag}, and `model` names a file");
        section.report_at(
            "args",
            what,
            "leave the flag out, or let `model` be just a name for what it loads",
        );
    }
}

fn name(given: &Given<'_>) -> Result<String, Wrong> {
    let text = text(given)?;
    let remedy = "write a name of a-z, 0-9 and -, such as \"primary\"";
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text.is_empty() || !text.bytes().all(allowed) {
        return Err(given.wrong("which is no name of a tier", remedy));
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err(given.wrong("which begins or ends with -", "begin and end it with a letter or digit"));
    }
    if text.len() > LONGEST_NAME {
        return Err(given.wrong("which is too long", format!("write at most {LONGEST_NAME} characters")));
    }
    Ok(text)
}

//! What was typed → a checked [`Config`], or every problem at once.
//!
//! ```text
//! file ─ document ─→ spanned tables ─ section, value ─→ server, agent, alert, tier ─ chain ─→ Config
//!            └───────────────┴─── problem: offset, what is wrong, what would be right ──────┘
//! ```
//!
//! serde stops at its first error, so the spanned document is walked by hand: each room asks a [`section::Section`] for
//! the keys it knows, and whatever nobody asked for is an unknown key. Nothing in here starts, binds or writes anything;
//! the only files that are read are the configuration itself and the secrets that it names.
mod address;
mod agent;
mod alert;
mod chain;
mod document;
mod environment;
mod forwarding;
mod gpu;
mod keys;
mod limits;
mod local;
mod passthrough;
mod problem;
mod remote;
mod secret;
mod section;
mod server;
mod tier;
mod value;

pub use agent::{Agent, LogFormat, LogLevel};
pub use alert::{Login, Mail, Occasion, Relay, Security};
pub use environment::Environment;
pub use gpu::Gpu;
pub use limits::Timeouts;
pub use local::{Local, Pull};
pub use problem::{Problem, Refusal};
pub use remote::{Remote, Url};
pub use secret::{Key, MissingKey, Secret};
pub use server::Server;
pub use tier::{Tier, Upstream};
pub use value::typed_duration as duration;

use problem::Problems;
use section::{Context, Section};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeTable;
use value::Wrong;

/// A configuration is a few kilobytes; what is larger is another file by mistake, and is not read to its end.
const LARGEST_FILE: u64 = 256 * 1024;

/// A configuration in which every value has been checked and every default is filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file it was read from, absolute.
    pub path: PathBuf,
    pub server: Server,
    pub agent: Agent,
    pub gpu: Gpu,
    /// `None`: nobody is mailed.
    pub mail: Option<Mail>,
    /// Best first; never empty.
    pub tiers: Vec<Tier>,
    /// Keys of single tiers, and the password for mail, that are not there, or not good: what needs one waits for it.
    /// `mainstay check` refuses them.
    pub pending: Vec<Problem>,
}

/// Reads and checks the file at `path`. Problems carry the path as it was given.
pub fn read(path: &Path, environment: &Environment) -> Result<Config, Refusal> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| Refusal::Unreadable(format!("{}: {error}", path.display())))?;
    let file_name = path.display().to_string();
    let text = decoded(&file_name, bytes).map_err(|problem| Refusal::Wrong(vec![problem]))?;
    parse(&file_name, &text, environment).map_err(Refusal::Wrong)
}

/// Checks `text`; `file_name` is what its problems are reported under. All problems, in file order.
pub fn parse(file_name: &str, text: &str, environment: &Environment) -> Result<Config, Vec<Problem>> {
    let problems = Problems::default();
    let mended = document::mend(text, &problems);
    let (document, errors) = DeTable::parse_recoverable(&mended.text);
    document::report(text, &errors, &problems);
    let context = Context { environment, problems: &problems, lost: &mended.lost };
    let config = whole(Section::new(&context, "the file", 0, document.get_ref()), file_name);
    let is_good = problems.all_pending();
    let found = problems.in_file_order(file_name, text);
    if is_good { Ok(Config { pending: found, ..config }) } else { Err(found) }
}

/// Reads every section. Where a value is wrong its default stands in, so that reading can go on: nobody sees it, because
/// a configuration with problems is never handed out.
fn whole(mut root: Section<'_>, file_name: &str) -> Config {
    let server = server::read(root.table("server", "[server]"));
    let agent = agent::read(root.table("agent", "[agent]"));
    let gpu = gpu::read(root.table("gpu", "[gpu]"));
    let tiers = chain::read(&mut root, &server, &agent);
    let mail = alert::read(root.table("alert", "[alert]"));
    root.finish();
    Config {
        path: absolute(Path::new(file_name)),
        server: server.server,
        agent: agent.agent,
        gpu,
        mail,
        tiers,
        pending: Vec::new(),
    }
}

impl Config {
    /// The tier whose engine may take longest from TERM to its end, and how long that is.
    pub fn slowest_to_stop(&self) -> Option<(&Tier, Duration)> {
        let graces = self.tiers.iter().filter_map(|tier| Some((tier, tier.local()?.stop_grace)));
        graces.max_by_key(|(_, grace)| *grace)
    }

    /// Does `new` say what this one says? A key that was missing when this one was read may have come since. May hang with
    /// that key's file system.
    pub fn says_the_same(&self, new: &Self) -> bool {
        let mut own = Self { pending: new.pending.clone(), ..self.clone() };
        for tier in &mut own.tiers {
            let Upstream::Remote(remote) = &mut tier.upstream else { continue };
            let come = remote.api_key.as_ref().and_then(Key::missing).and_then(|missing| missing.look().ok());
            remote.api_key = come.map(Key::Known).or(remote.api_key.take());
        }
        own == *new
    }

    /// Another runtime directory in place of the configured one, as `--run-dir` asks for it; a relative one is taken from
    /// the working directory. An error says in one line what is wrong with it and what would be right.
    pub fn replace_run_dir(&mut self, run_dir: &Path) -> Result<(), String> {
        let run_dir =
            std::path::absolute(run_dir).map_err(|error| format!("{}: {error}", run_dir.display()))?;
        if let Some(Wrong { what, remedy }) = agent::misfit(&run_dir, &self.tiers) {
            return Err(format!("{what}; {remedy}"));
        }
        self.agent.run_dir = run_dir;
        Ok(())
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The file as text, or the one problem that it is none.
fn decoded(file_name: &str, bytes: Vec<u8>) -> Result<String, Problem> {
    let problems = Problems::default();
    let too_large = bytes.len() as u64 > LARGEST_FILE;
    let text = match String::from_utf8(bytes) {
        Ok(text) if !too_large => return Ok(text),
        Ok(text) => text,
        Err(error) if too_large => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            problems.add(valid, "this byte is not UTF-8", "save the file as UTF-8 text");
            String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned()
        }
    };
    if too_large {
        problems.add(0, "the file is larger than 256 KiB", "name the configuration file");
    }
    Err(problems.in_file_order(file_name, &text).remove(0))
}

#[cfg(test)]
mod tests;

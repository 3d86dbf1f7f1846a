//! `mainstay check --config FILE`: every problem of a configuration, and nothing else happens.
use super::exit::Exit;
use super::screen::{complain, report, show};
use crate::config::{self, Config, Environment, Mail, Refusal, Security, Tier};
use crate::kinds::Kind;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// `TimeoutStopSec=` of the unit as shipped.
const UNIT_STOPS_WITHIN: Duration = Duration::from_secs(120);
/// What a stop takes beside waiting: the end of an engine's processes.
const STOP_ROOM: Duration = Duration::from_secs(10);

/// Problems go to the standard error, one a line, so that editors and scripts can read them.
pub fn main(file: &Path) -> Exit {
    match config::read(file, &Environment::of_process()) {
        Ok(config) if !config.pending.is_empty() => {
            report(Refusal::Wrong(config.pending));
            Exit::Misconfigured
        }
        Ok(config) => {
            let names: Vec<&str> = config.tiers.iter().map(|tier| tier.name.as_str()).collect();
            let good = format!("{}: good; tiers, best first: {}\n", file.display(), names.join(", "));
            let notes: String = config.tiers.iter().flat_map(missing_here).collect();
            let stop = long_stop(&config).unwrap_or_default();
            show(good + &notes + &stop + config.mail.as_ref().and_then(of_password).unwrap_or_default())
                .into()
        }
        Err(Refusal::Unreadable(why)) => {
            complain(format_args!("{why}; give --config a file that this account may read"));
            Exit::Unreadable
        }
        Err(wrong @ Refusal::Wrong(_)) => {
            report(wrong);
            Exit::Misconfigured
        }
    }
}

/// What a tier needs and this host lacks. No problem of the file: it may be for another host, or what it names may be
/// installed later.
fn missing_here(tier: &Tier) -> Vec<String> {
    let Some(local) = tier.local() else { return Vec::new() };
    // What may not be looked at may be there.
    let is_missing = |path: &Path| matches!(path.try_exists(), Ok(false));
    let program = local.command.first().map_or("", String::as_str);
    let path =
        local.env.get("PATH").map(|path| OsString::from(path.expose())).or_else(|| std::env::var_os("PATH"));
    let in_no_directory =
        |path: &OsString| std::env::split_paths(path).all(|dir| is_missing(&dir.join(program)));
    let mut lacks = Vec::new();
    if program.starts_with('/') && is_missing(Path::new(program)) {
        lacks.push(format!("the program {program:?} of `command` is not on this host"));
    } else if !program.contains('/') && path.as_ref().is_some_and(in_no_directory) {
        lacks.push(format!("the program {program:?} is not in PATH here: install it, or set `command`"));
    }
    if let Some(dir) = local.dir.as_deref().filter(|dir| is_missing(dir)) {
        lacks.push(format!("the directory {dir:?} of `dir` is not on this host"));
    }
    let is_file = tier.model.starts_with('/') && matches!(tier.kind, Kind::Vllm | Kind::LlamaServer);
    if is_file && is_missing(Path::new(&tier.model)) {
        lacks.push(format!("{:?} of `model` is not on this host", tier.model));
    }
    lacks.iter().map(|lack| format!("warning: tier \"{}\": {lack}\n", tier.name)).collect()
}

/// A stop that does not fit into what the unit allows. Whether it is this unit that will run it cannot be known here.
fn long_stop(config: &Config) -> Option<String> {
    let (tier, grace) = config.slowest_to_stop()?;
    let (drain, takes) = (config.server.drain, config.server.drain + grace);
    let needs = (takes + STOP_ROOM).as_secs();
    (needs > UNIT_STOPS_WITHIN.as_secs()).then(|| {
        format!(
            "warning: a stop may take {} s (server.drain = {} s, then stop_grace = {} s of tier \"{}\"), and the unit as \
             shipped allows TimeoutStopSec={}: write TimeoutStopSec={needs} into a drop-in (systemctl edit mainstay), or \
             lower one of the two. The agent asks systemd for more time while it stops; other supervisors are not asked\n",
            takes.as_secs(),
            drain.as_secs(),
            grace.as_secs(),
            tier.name,
            UNIT_STOPS_WITHIN.as_secs()
        )
    })
}

/// What is not seen in the file: smtp:// promises less than a password needs.
fn of_password(mail: &Mail) -> Option<&'static str> {
    let silent = mail.relay.security == Security::Offered && mail.login.is_some() && mail.ca.is_none();
    silent.then_some(
        "[alert.mail]: a password is sent only to a relay whose certificate can be verified: with the certificates of \
         authorities that this host has; else write ca = \"/...\" with the authority of the relay. \
         relay = \"smtp+starttls://...\" or \"smtps://...\" say the same. To try it: mainstay alert test\n",
    )
}

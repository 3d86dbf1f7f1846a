//! What nobody may see: the values that the redactors of the agent and of its shims look for.
use super::launch;
use crate::config::{Config, Local, Tier};
use crate::redact::{SHORTEST_GUESSED, in_arguments, names_a_secret};

/// Every value that came from a file or credential, or belongs to a variable or flag whose name says that it is one.
/// All engines' for each of them: their shims are as private as the agent is.
pub fn known(config: &Config) -> Vec<String> {
    let inherited = launch::inherited();
    let named = inherited.iter().filter(|(name, value)| is_guessed(name, value));
    let mut known: Vec<String> = named.map(|(_, value)| value.clone()).collect();
    known.extend(config.tiers.iter().flat_map(of_tier));
    let login = config.mail.as_ref().and_then(|mail| mail.login.as_ref());
    known.extend(login.and_then(|login| Some(login.password.known()?.expose().to_owned())));
    known.sort_unstable();
    known.dedup();
    known
}

fn of_tier(tier: &Tier) -> Vec<String> {
    let key = tier.remote().and_then(|remote| remote.api_key.as_ref()?.known());
    let mut known: Vec<String> = key.into_iter().map(|key| key.expose().to_owned()).collect();
    known.extend(tier.local().into_iter().flat_map(of_engine));
    known
}

fn of_engine(local: &Local) -> Vec<String> {
    let variables =
        local.env.iter().filter(|(name, value)| value.is_kept() || is_guessed(name, value.expose()));
    let variables = variables.map(|(_, value)| value.expose());
    let arguments = in_arguments(&local.command).chain(in_arguments(&local.args));
    variables.chain(arguments).map(str::to_owned).collect()
}

fn is_guessed(name: &str, value: &str) -> bool {
    names_a_secret(name) && value.len() >= SHORTEST_GUESSED
}

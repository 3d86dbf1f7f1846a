//! `mainstay check --config FILE`: every problem of a configuration, and nothing else happens.
use super::exit::Exit;
use super::screen::{complain, report, show};
use crate::config::{self, Environment, Refusal};
use std::path::Path;

/// Problems go to the standard error, one a line, so that editors and scripts can read them.
pub fn main(file: &Path) -> Exit {
    match config::read(file, &Environment::of_process()) {
        Ok(config) => {
            let names: Vec<&str> = config.tiers.iter().map(|tier| tier.name.as_str()).collect();
            show(format!("{}: good; tiers, best first: {}\n", file.display(), names.join(", "))).into()
        }
        Err(Refusal::Unreadable(why)) => {
            complain(format_args!("{why}; --config names a file that this account may read"));
            Exit::Unreadable
        }
        Err(wrong @ Refusal::Wrong(_)) => {
            report(wrong);
            Exit::Misconfigured
        }
    }
}

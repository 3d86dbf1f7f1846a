//! `mainstay run`: the agent.
use super::exit::Exit;
use super::screen::{complain, report};
use crate::agent::{self, StartError};
use crate::config::{self, Environment, Refusal};
use std::path::Path;

/// Runs the agent until it is told to stop. `run_dir` is the command line's, and wins over the configuration's.
pub fn main(file: &Path, run_dir: Option<&Path>) -> Exit {
    let environment = Environment::of_process();
    let mut config = match config::read(file, &environment) {
        Ok(config) => config,
        Err(Refusal::Unreadable(why)) => {
            complain(format_args!("{why}; give --config a file that this account may read"));
            return Exit::Unreadable;
        }
        Err(wrong @ Refusal::Wrong(_)) => {
            report(wrong);
            return Exit::Misconfigured;
        }
    };
    if let Some(Err(why)) = run_dir.map(|dir| config.replace_run_dir(dir)) {
        complain(format_args!("--run-dir: {why}"));
        return Exit::Usage;
    }
    match agent::run(config, environment) {
        Ok(true) => Exit::Done,
        // The agent's log has told why.
        Ok(false) => Exit::Failed,
        Err(why) => {
            complain(&why);
            match why {
                StartError::Held { .. } => Exit::Taken,
                StartError::NotPermitted(_) => Exit::NotPermitted,
                StartError::Failed(_) => Exit::Failed,
            }
        }
    }
}

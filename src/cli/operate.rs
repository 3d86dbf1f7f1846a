//! `mainstay restart|start|stop TIER`.
use super::exit::Exit;
use super::screen::{complain, show};
use crate::control::client::Client;
use crate::policy::Command;

/// Gives the command and returns once the agent has taken it; `mainstay status` shows what comes of it.
pub fn main(client: &Client, tier: &str, command: Command) -> Exit {
    match client.operate(tier, command) {
        Ok(_) => show(format!("{} {tier}\n", gerund(command))).into(),
        Err(failure) => {
            complain(&failure);
            Exit::from(&failure)
        }
    }
}

const fn gerund(command: Command) -> &'static str {
    match command {
        Command::Start => "starting",
        Command::Stop => "stopping",
        Command::Restart => "restarting",
    }
}

//! `mainstay wait`: until somebody answers, with a line about what is still missing. It replaces every wait-for-healthy
//! script.
//!
//! Without `--tier` the endpoint is waited for, so any tier will do. It gives up early only where waiting is pointless:
//! when the tiers that are waited for are held, stopped or stuck, so that nothing but an operator, or a retry much later,
//! changes that. A restart, a pause before one, an agent that is only just starting: all these are waited for.
mod line;
mod outlook;

use super::exit::Exit;
use super::screen::{Screen, complain, show, wait_for_reader_to_go};
use super::status::paint::{fit, span};
use crate::clock;
use crate::control::client::{Client, Failure};
use line::{bar, changes, remains};
use outlook::{Outlook, outlook};
use std::time::Duration;

/// Between two looks.
const AGAIN: Duration = Duration::from_millis(500);
/// An agent that is well answers in far less.
const LEAST: Duration = Duration::from_secs(1);

pub fn main(client: &Client, tier: Option<&str>, timeout: Duration) -> Exit {
    let (screen, began) = (Screen::of_stdout(), clock::now());
    let mut told = String::new();
    loop {
        let spent = clock::now().since(began);
        let is_over = spent >= timeout;
        let (line, wide) = match client.status_within(timeout.saturating_sub(spent).max(LEAST)) {
            Ok((status, _)) => match outlook(&status, tier) {
                Outlook::Ready(name) => return ready(&name, spent, screen),
                Outlook::Pointless(why) => return fail(&why, screen),
                Outlook::OnTheWay(_) if is_over => {
                    let why = format!(
                        "not ready after {}\n{}",
                        in_words(timeout),
                        remains(&status, tier, clock::wall_ms())
                    );
                    return fail(why.trim_end(), screen);
                }
                Outlook::OnTheWay(tiers) => (changes(&tiers), bar(&tiers)),
            },
            Err(failure) if is_over || !may_come(&failure) => {
                let _ = clear(screen);
                complain(&failure);
                return Exit::from(&failure);
            }
            Err(Failure::Hung { .. }) => {
                ("the agent does not answer".to_owned(), "the agent does not answer".to_owned())
            }
            Err(_) => ("no agent answers yet".to_owned(), "no agent answers yet".to_owned()),
        };
        let shown = match screen.terminal {
            true => {
                show(format!("\r{}\x1b[K", fit(&format!("{:>8}  {wide}", in_words(spent)), screen.width)))
            }
            false if line != told => show(format!("{:>8}  {line}\n", in_words(spent))),
            false => Ok(()),
        };
        told = line;
        // Nobody knows whether it became ready, so this is no success.
        if shown.is_err() || wait_for_reader_to_go(AGAIN.min(timeout.saturating_sub(spent))) {
            return Exit::Failed;
        }
    }
}

/// An agent that is starting, or between two, is not there, or breaks off; rights do not come by themselves.
fn may_come(failure: &Failure) -> bool {
    match failure {
        Failure::NoAgent { .. }
        | Failure::Hung { .. }
        | Failure::Garbled { .. }
        | Failure::Refused { .. } => true,
        Failure::NotPermitted { .. } => false,
    }
}

fn ready(name: &str, spent: Duration, screen: Screen) -> Exit {
    match clear(screen).and_then(|()| show(format!("{name} is ready ({})\n", in_words(spent)))) {
        // A reader that has gone takes nothing from what was found.
        Ok(()) | Err(Exit::Done) => Exit::Done,
        Err(failed) => failed,
    }
}

fn fail(why: &str, screen: Screen) -> Exit {
    let _ = clear(screen);
    complain(why);
    Exit::Failed
}

/// The line that is redrawn makes room for the last word.
fn clear(screen: Screen) -> Result<(), Exit> {
    if screen.terminal { show("\r\x1b[K") } else { Ok(()) }
}

fn in_words(duration: Duration) -> String {
    span(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

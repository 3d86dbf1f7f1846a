//! `mainstay status`: the agent's picture of itself, for people or (`--json`) for programs. The exit status says the
//! same in one number.
pub(super) mod paint;
mod render;
mod tier;

pub use render::render;
pub use tier::progress;

use super::exit::Exit;
use super::screen::{Screen, complain, show, wait_for_reader_to_go};
use crate::clock;
use crate::control::client::{Client, Failure};
use crate::control::wire::Status;
use crate::printable;
use std::time::Duration;

/// Between two pictures of `--watch`.
const AGAIN: Duration = Duration::from_secs(1);

/// `--watch` runs until Ctrl-C, and goes on asking while no agent answers: that is when somebody watches.
pub fn main(client: &Client, json: bool, watch: bool) -> Exit {
    let screen = Screen::of_stdout();
    if !watch {
        return once(client, json, screen);
    }
    loop {
        let text = match picture(client, json, true, screen) {
            Ok((text, _)) => text,
            // A reader of JSON lines is told on the standard error, so that each line stays a status.
            Err(failure) if json => {
                complain(&failure);
                String::new()
            }
            Err(failure) => format!("mainstay: {}\n", printable::lines(&failure.to_string())),
        };
        let redrawn = if screen.terminal && !json { over_the_last(&text) } else { text };
        if let Err(exit) = show(redrawn) {
            return exit;
        }
        if wait_for_reader_to_go(AGAIN) {
            return Exit::Done;
        }
    }
}

fn once(client: &Client, json: bool, screen: Screen) -> Exit {
    match picture(client, json, false, screen) {
        // A reader that has gone takes nothing from what was found.
        Ok((text, exit)) => match show(text) {
            Ok(()) | Err(Exit::Done) => exit,
            Err(failed) => failed,
        },
        Err(failure) => {
            complain(&failure);
            Exit::from(&failure)
        }
    }
}

fn picture(client: &Client, json: bool, watch: bool, screen: Screen) -> Result<(String, Exit), Failure> {
    let (status, whole) = client.status()?;
    let text = match (json, watch) {
        (false, _) => render(&status, clock::wall_ms(), screen.width, screen.colour),
        (true, false) => printable::json(&format!("{whole:#}\n")).into_owned(),
        (true, true) => printable::json(&format!("{whole}\n")).into_owned(),
    };
    Ok((text, verdict(&status)))
}

/// What the contract's exit statuses say of a status.
fn verdict(status: &Status) -> Exit {
    match (&status.serving, status.tiers.first()) {
        (Some(serving), Some(best)) if *serving == best.name => Exit::Done,
        (Some(_), _) => Exit::Failed,
        (None, _) => Exit::NoneCanAnswer,
    }
}

/// The text drawn from the top left corner, each line to its end, without clearing first: nothing flickers.
fn over_the_last(text: &str) -> String {
    format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
}

//! One test per rule: what is written, and what is said about it.
use super::*;
use crate::kinds::{Api, Kind};
use crate::policy::{Check, Restart, StartMode, Startup};
use crate::redact::Redactor;
use std::net::SocketAddr;
use std::time::Duration;

mod alert;
mod defaults;
mod document;
mod never_panics;
mod secrets;
mod server;
mod tier;

const FIRST: &str = "[[tier]]\nname = 'a'\nengine = 'vllm'\nmodel = 'm'\n";

fn unit() -> Environment {
    Environment {
        runtime_directory: Some(PathBuf::from("/run/mainstay")),
        state_directory: Some(PathBuf::from("/var/lib/mainstay")),
        ..Environment::empty()
    }
}

/// What is said, one problem per line, as `LINE:COLUMN: what; remedy`.
fn said_in(text: &str, environment: &Environment) -> String {
    let problems = parse("", text, environment).map_or_else(|problems| problems, |config| config.pending);
    for problem in &problems {
        // Where it is shown, whatever looks like a secret is blacked out; our own words must not.
        let said = problem.to_string();
        assert_eq!(Redactor::of_forms().text(&said), said, "{text}");
    }
    let lines: Vec<String> = problems.iter().map(|it| it.to_string()[1..].to_owned()).collect();
    lines.join("\n")
}

/// A whole configuration and everything that is said about it; nothing when it is right.
#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(said_in(text, &unit()), expected, "{text}");
}

/// Lines of `[server]`; line 1 is the first of them.
#[track_caller]
fn server(lines: &str, expected: &str) {
    check(&format!("server.{lines}\n{FIRST}"), expected);
}

/// Keys of a second tier of this engine, from its line 4 on; lines are counted within that tier.
#[track_caller]
fn tier(engine: &str, lines: &str, expected: &str) {
    let head = match engine {
        "remote" => "name = 'b'\nengine = 'remote'".to_owned(),
        other => format!("name = 'b'\nengine = '{other}'\nmodel = 'm'"),
    };
    let said = said_in(&format!("{FIRST}[[tier]]\n{head}\n{lines}\n"), &unit());
    let relative: Vec<String> = said
        .lines()
        .map(|line| {
            let (number, rest) = line.split_once(':').expect("a line number");
            let number: usize = number.parse().expect("a line number");
            format!("{}:{rest}", number as i64 - 5)
        })
        .collect();
    assert_eq!(relative.join("\n"), expected, "{lines}");
}

fn config(text: &str) -> Config {
    parse("/etc/mainstay/mainstay.toml", text, &unit()).expect("it is right")
}

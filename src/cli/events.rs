//! `mainstay events`: what happened, one line each; with `-f` what comes too, also from the agent after this one.
use super::exit::Exit;
use super::screen::{Screen, complain, show, show_json, wait_for_reader_to_go};
use super::status::paint::{Colour, fit, paint};
use crate::control::client::{Client, Failure};
use crate::control::feed::Event;
use crate::printable;
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;

/// Between two tries to reach an agent that is not there.
const AGAIN: Duration = Duration::from_secs(1);

pub fn main(client: &Client, follow: bool, json: bool) -> Exit {
    let screen = Screen::of_stdout();
    let mut printed = Ok(());
    let mut last = 0;
    let mut was_there = false;
    loop {
        let heard = client.events(last, follow, |line| match line {
            None => !wait_for_reader_to_go(Duration::ZERO),
            Some(line) => {
                let event = read(line);
                last = last.max(event.seq);
                printed = if json { show_json(&format!("{line}\n")) } else { show(text(&event, screen)) };
                printed.is_ok()
            }
        });
        match heard {
            _ if printed.is_err() => return printed.into(),
            Ok(()) if !follow => return Exit::Done,
            // Between two agents nobody answers.
            Ok(()) => was_there = true,
            Err(Failure::NoAgent { .. } | Failure::Hung { .. }) if was_there => {}
            Err(failure) => {
                complain(&failure);
                return Exit::from(&failure);
            }
        }
        if wait_for_reader_to_go(AGAIN) {
            return Exit::Done;
        }
    }
}

/// An event with texts that are safe to show.
fn read(line: &str) -> Event {
    let mut event: Value = serde_json::from_str(line).unwrap_or_default();
    printable::value(&mut event);
    Event::deserialize(event).unwrap_or_default()
}

/// "2026-11-23T03:00:00.123Z failover  primary → cpu  killed-from-outside: …".
fn text(event: &Event, screen: Screen) -> String {
    let kind = paint(&format!("{:<8}", event.kind), colour(event), screen.colour);
    let tier = event.tier.as_deref().unwrap_or("-");
    let who = match (event.kind.as_str(), &event.to) {
        ("failover" | "return", Some(to)) => format!("{tier} -> {to}"),
        _ => tier.to_owned(),
    };
    let cause = event.cause.as_ref().map(|cause| format!("{cause}: ")).unwrap_or_default();
    // The reason mostly begins with the cause.
    let said = event.text.contains(cause.trim_end_matches(": "));
    let told = if said { event.text.clone() } else { format!("{cause}{}", event.text) };
    let evidence = event.evidence.as_ref().filter(|line| !told.contains(line.as_str()));
    let evidence = evidence.map(|line| format!(" | {line}")).unwrap_or_default();
    let room = screen.width.saturating_sub(event.at.len() + 8 + 2 + who.len() + 2).max(20);
    format!("{} {kind} {who}  {}\n", event.at, fit(&format!("{told}{evidence}"), room))
}

fn colour(event: &Event) -> Colour {
    match event.kind.as_str() {
        "all-down" | "last-resort" | "held" | "wedged" => Colour::Red,
        "failover" | "exit" | "backoff" | "state" | "cpu-fallback" => Colour::Yellow,
        "ready" | "return" => Colour::Green,
        _ => Colour::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Screen = Screen { terminal: false, width: 100_000, colour: false };

    fn event() -> Event {
        Event {
            seq: 7,
            at: "2026-11-23T03:00:00.123Z".to_owned(),
            kind: "failover".to_owned(),
            tier: Some("primary".to_owned()),
            to: Some("cpu".to_owned()),
            cause: Some("gpu-oom".to_owned()),
            text: "stopping: gpu-oom (exit status 1)".to_owned(),
            ..Event::default()
        }
    }

    #[test]
    fn an_event_is_one_line_that_says_who_what_and_why() {
        let expected =
            "2026-11-23T03:00:00.123Z failover primary -> cpu  stopping: gpu-oom (exit status 1)\n";
        assert_eq!(text(&event(), FILE), expected);
        let exit =
            Event { kind: "exit".to_owned(), evidence: Some("CUDA out of memory".to_owned()), ..event() };
        let exit = Event { text: "ended".to_owned(), to: None, ..exit };
        let expected = "2026-11-23T03:00:00.123Z exit     primary  gpu-oom: ended | CUDA out of memory\n";
        assert_eq!(text(&exit, FILE), expected);
    }

    #[test]
    fn evidence_that_is_the_reason_is_told_once() {
        let why = "hang: 2 requests open, no byte for 12 s".to_owned();
        let evidence = Some("2 requests open, no byte for 12 s".to_owned());
        let event = Event { text: why, evidence, cause: Some("hang".to_owned()), ..event() };
        assert_eq!(text(&event, FILE).matches("no byte for 12 s").count(), 1);
    }

    #[test]
    fn a_narrow_terminal_cuts_the_reason_and_nothing_else() {
        let narrow = Screen { width: 72, ..FILE };
        let line = text(&event(), narrow);
        assert!(line.starts_with("2026-11-23T03:00:00.123Z failover primary -> cpu  stopping"), "{line}");
        assert!(line.trim_end().chars().count() <= 72 && line.ends_with("…\n"), "{line}");
    }
}

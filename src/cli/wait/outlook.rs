//! What a status says to somebody who waits. Pure.
use super::super::status::paint::{instant, span, time_of_day};
use crate::control::wire::{AgentState, Process, ProcessState, Status, Tier};

#[derive(Debug, PartialEq)]
pub enum Outlook<'s> {
    /// This tier can answer.
    Ready(String),
    /// These are waited for, best first.
    OnTheWay(Vec<&'s Tier>),
    /// Waiting would not help; the whole reason, and what would.
    Pointless(String),
}

/// For the endpoint, or for one tier.
pub fn outlook<'s>(status: &'s Status, name: Option<&str>) -> Outlook<'s> {
    let wanted: Vec<&Tier> =
        status.tiers.iter().filter(|tier| name.is_none_or(|name| tier.name == name)).collect();
    // Before its first turn an agent does not know its tiers.
    if wanted.is_empty() && !status.tiers.is_empty() {
        let names: Vec<&str> = status.tiers.iter().map(|tier| tier.name.as_str()).collect();
        let wrong =
            format!("there is no tier {:?}; there is: {}", name.unwrap_or_default(), names.join(", "));
        return Outlook::Pointless(wrong);
    }
    let ready = match name {
        Some(_) => wanted.iter().find(|tier| tier.routable).map(|tier| tier.name.clone()),
        None => status.serving.clone(),
    };
    if let Some(ready) = ready {
        return Outlook::Ready(ready);
    }
    // An agent that ends has stopped its tiers, and the next one will start them.
    if status.agent.state != AgentState::Draining
        && let Some(reasons) = wanted.iter().map(|tier| hopeless(tier)).collect::<Option<Vec<String>>>()
        && !reasons.is_empty()
    {
        return Outlook::Pointless(reasons.join("\n"));
    }
    Outlook::OnTheWay(wanted)
}

/// Why it is no use to wait for a tier; `None` when it may be ready soon. A remote tier may come back at any time.
fn hopeless(tier: &Tier) -> Option<String> {
    let process = tier.process.as_ref()?;
    let next = match process.state {
        ProcessState::Starting | ProcessState::Ready | ProcessState::Stopping | ProcessState::Backoff => {
            return None;
        }
        ProcessState::Held => {
            let at = process.next_start.as_deref().and_then(instant);
            let retry =
                at.map_or_else(String::new, |at| format!("it is tried again at {}; ", time_of_day(at)));
            format!("{retry}to try now: mainstay start {}", tier.name)
        }
        ProcessState::Stopped => format!("to start it: mainstay start {}", tier.name),
        ProcessState::Wedged | ProcessState::Fenced => "see mainstay status".to_owned(),
    };
    let why = if process.state == ProcessState::Stopped { String::new() } else { because(process) };
    Some(format!("{} is {}{why}; {next}", tier.name, process.state.name()))
}

/// ": bad-argument: the line that says so".
fn because(process: &Process) -> String {
    let Some(exit) = process.last_exit.as_ref().filter(|exit| exit.cause != "asked") else {
        return String::new();
    };
    let evidence = exit.evidence.as_ref().map_or_else(String::new, |line| format!(": {}", plain(line)));
    format!(": {}{evidence}", exit.cause)
}

/// What a terminal would obey is made visible.
fn plain(text: &str) -> String {
    super::fit(text, 300)
}

/// How it stands with a tier that is on its way.
pub fn standing(tier: &Tier, now_ms: i64) -> String {
    let process = tier.process.as_ref();
    let next = process.and_then(|process| process.next_start.as_deref()).and_then(instant);
    match process.map(|process| process.state) {
        Some(ProcessState::Backoff) => {
            let when = next.map_or_else(String::new, |at| format!("; starts again in {}", span(at - now_ms)));
            format!("backoff{}{when}", process.map_or_else(String::new, because))
        }
        Some(ProcessState::Ready) | None => tier.reason.clone(),
        // What the run before ended with says nothing about an end that is under way.
        Some(ProcessState::Stopping | ProcessState::Stopped) => tier.reason.clone(),
        Some(state) => format!("{}{}", state.name(), process.map_or_else(String::new, because)),
    }
}

//! A status as text: pure, so that a test can show every line of it.
use super::paint::{Colour, bytes, fit, instant, paint, span};
use super::tier::{self, Row};
use crate::cli::gpus;
use crate::control::wire::{AgentState, Distribution, GpuProbeState, GpuVerdict, Host, OpenIncident, Status};

/// The longest name that keeps its table within 80 columns.
const LONGEST_NAME: usize = 20;

/// Columns of a fact behind its label, where nothing is wrong: what is of no importance is not worth a cut line.
const ROOM: usize = 80 - 11;

/// The whole picture. `now_ms` is the wall clock in milliseconds since 1970, `width` is in columns.
pub fn render(status: &Status, now_ms: i64, width: usize, colour: bool) -> String {
    let mut text = headline(status, width, colour);
    if let Some(hint) = hint(status) {
        text.push_str(&fit(&format!("  → {hint}"), width));
        text.push('\n');
    }
    for (label, fact, mark) in agent_facts(status, now_ms) {
        let colon = if label.is_empty() { ' ' } else { ':' };
        let line = fit(&format!("{label:>9}{colon} {fact}"), width);
        text.push_str(&paint(&line, mark, colour));
        text.push('\n');
    }
    let longest = status.tiers.iter().map(|tier| tier.name.chars().count()).max().unwrap_or(0);
    let name_width = longest.clamp("TIER".len(), LONGEST_NAME);
    text.push('\n');
    text.push_str(&paint(&heading(name_width), Colour::Dim, colour));
    text.push('\n');
    for tier in &status.tiers {
        let row = Row::of(tier, now_ms);
        let serves = status.serving.as_deref() == Some(tier.name.as_str());
        text.push_str(&row.show(name_width, serves, colour));
        text.push('\n');
        for (fact, mark) in tier::details(tier, now_ms) {
            text.push_str(&paint(&fit(&format!("    {fact}"), width), mark, colour));
            text.push('\n');
        }
    }
    text
}

fn headline(status: &Status, width: usize, colour: bool) -> String {
    let best = status.tiers.first().map(|tier| tier.name.as_str());
    let (sentence, mark) = match (status.serving.as_deref(), best) {
        (Some(serving), Some(best)) if serving != best => {
            (format!("{serving} serves in place of {best}"), Colour::Yellow)
        }
        (Some(serving), _) => (format!("{serving} serves"), Colour::Green),
        // While it ends, that is as it should be.
        (None, _) if status.agent.state == AgentState::Draining => ("ending".to_owned(), Colour::Yellow),
        (None, _) => ("no tier can answer".to_owned(), Colour::Red),
    };
    let rest = fit(&format!("mainstay {}: {sentence}", status.agent.version), width.saturating_sub(2));
    format!("{} {}\n", paint("●", mark, colour), paint(&rest, Colour::Bold, colour))
}

/// Label, fact and colour of the lines above the table.
fn agent_facts(status: &Status, now_ms: i64) -> Vec<(&'static str, String, Colour)> {
    let agent = &status.agent;
    let age = instant(&agent.started).map_or_else(String::new, |at| format!(", up {}", span(now_ms - at)));
    let watchdog = agent.watchdog_s.map_or_else(String::new, |s| format!(", watchdog {s}s"));
    let mark = match agent.state {
        AgentState::Serving => Colour::Plain,
        AgentState::Starting | AgentState::Draining => Colour::Yellow,
    };
    let mut facts = vec![
        ("Agent", format!("{}, pid {}{age}{watchdog}", agent.state.name(), agent.pid), mark),
        ("Listen", agent.listen.join(", "), Colour::Plain),
        ("Config", agent.config.clone(), Colour::Plain),
    ];
    if let Some(problem) = &agent.config_problem {
        facts.push(("Problem", problem.clone(), Colour::Red));
        facts.push(("", format!("→ all of it: mainstay check --config {}", agent.config), Colour::Plain));
    }
    let unkept =
        |why: &String| ("History", format!("incidents, events and mail are not kept: {why}"), Colour::Red);
    facts.extend(agent.state_problem.as_ref().map(unkept));
    facts.extend(status.incidents.iter().map(|open| ("Incident", incident(open, now_ms), Colour::Yellow)));
    facts.extend(mail(status, now_ms).map(|fact| ("Mail", fact, Colour::Red)));
    if agent.poison_refused > 0 {
        let refused = tier::counted(agent.poison_refused, "request").unwrap_or_default();
        let fact = format!("{refused} refused (422); → mainstay help clients");
        facts.push(("Poison", fact, Colour::Yellow));
    }
    facts.extend(failovers(&status.failover_seconds).map(|fact| ("Failover", fact, Colour::Plain)));
    facts.extend(host(&status.host).map(|fact| ("Host", fact, Colour::Plain)));
    facts.extend(graphics(status, now_ms).map(|(fact, mark)| ("GPUs", fact, mark)));
    facts
}

/// Where to look when something has failed: nothing while tiers are only on their way up, or the agent ends.
fn hint(status: &Status) -> Option<&'static str> {
    let is_ending = status.agent.state == AgentState::Draining;
    (!is_ending && !status.incidents.is_empty()).then_some("what to do: mainstay help troubleshooting")
}

fn incident(open: &OpenIncident, now_ms: i64) -> String {
    let OpenIncident { id, tier, kind, cause, .. } = open;
    let age = instant(&open.opened).map_or_else(String::new, |at| format!(" for {}", span(now_ms - at)));
    format!("{id} open{age}: {kind} of {tier}, {cause}; → mainstay incident {id}")
}

/// Only what keeps it from operators.
fn mail(status: &Status, now_ms: i64) -> Option<String> {
    let mail = status.mail.as_ref()?;
    let why = mail.trouble.as_ref()?;
    let since = mail.trouble_since.as_deref().and_then(instant);
    let age = since.map_or_else(String::new, |at| format!(" for {}", span(now_ms - at)));
    Some(format!("no mail was sent{age}, {} waiting; → mainstay alert test: {why}", mail.waiting))
}

/// Nothing where nobody looks, or where there is nothing to see yet.
fn graphics(status: &Status, now_ms: i64) -> Option<(String, Colour)> {
    match status.gpu_probe.state {
        GpuProbeState::Ok => {}
        GpuProbeState::Off | GpuProbeState::Starting => return None,
        GpuProbeState::NoDriver | GpuProbeState::Unresponsive | GpuProbeState::Wedged => {
            let (sentence, mark) = gpus::sentence(&status.gpu_probe, now_ms);
            return Some(match mark {
                Colour::Plain if sentence.chars().count() > ROOM => {
                    ("no driver; why: mainstay gpus".to_owned(), mark)
                }
                Colour::Plain => (sentence, mark),
                _ => (format!("{sentence}; → mainstay gpus"), mark),
            });
        }
    }
    let (good, bad): (Vec<_>, Vec<_>) = status.gpus.iter().partition(|gpu| gpu.verdict == GpuVerdict::Ok);
    let Some(first) = bad.first() else { return Some((format!("{} ok", good.len()), Colour::Plain)) };
    let (index, verdict, why) = (first.index, first.verdict.name(), &first.reason);
    let rest =
        if bad.len() > 1 { format!("; {} more: `mainstay gpus`", bad.len() - 1) } else { String::new() };
    Some((format!("{} ok; GPU {index} {verdict}: {why}{rest}", good.len()), Colour::Yellow))
}

fn failovers(seconds: &Distribution) -> Option<String> {
    let ms = |figure: Option<f64>| figure.map(|s| format!("{:.1} ms", s * 1e3));
    let (p50, p99, max) = (ms(seconds.p50)?, ms(seconds.p99)?, ms(seconds.max)?);
    let moved = tier::counted(seconds.count, "request")?;
    Some(format!("{moved} moved; p50 {p50}, p99 {p99}, longest {max}"))
}

fn host(host: &Host) -> Option<String> {
    let memory = match (host.memory_available, host.memory_total) {
        (Some(available), Some(total)) => {
            Some(format!("{} of {} memory available", bytes(available), bytes(total)))
        }
        _ => None,
    };
    let load = host.load.map(|load| format!("load {load:.2}"));
    let known: Vec<String> = memory.into_iter().chain(load).collect();
    (!known.is_empty()).then(|| known.join(", "))
}

fn heading(name_width: usize) -> String {
    format!(
        "  {:<name_width$}  {:<8}  {:<8}  {:<9}{:>5}{:>10}{:>7}{:>5}",
        "TIER", "HEALTH", "STATE", "FOR", "OPEN", "ANSWERED", "MOVED", "CUT"
    )
}

#[cfg(test)]
mod tests;

//! The lines that are shown meanwhile. Pure.
use super::outlook::{Outlook, outlook, standing};
use crate::cli::status::progress;
use crate::control::wire::{ProcessState, Progress, Status, Tier};

/// Cells of the bar.
const BAR: usize = 20;

/// For a file: what is worth a new line when it changes, and nothing that changes with every look.
pub fn changes(tiers: &[&Tier]) -> String {
    let each = tiers.iter().map(|tier| {
        let process = tier.process.as_ref();
        let stage =
            process.and_then(|process| process.progress.as_ref()).map(|progress| progress.stage.as_str());
        match (process.map(|process| process.state), stage) {
            (Some(ProcessState::Starting), Some(stage)) => format!("{}: {stage}", tier.name),
            (Some(state), _) => format!("{}: {}", tier.name, state.name()),
            (None, _) => format!("{}: {}", tier.name, tier.health.name()),
        }
    });
    let line = each.collect::<Vec<String>>().join("; ");
    if line.is_empty() { "the agent is starting".to_owned() } else { line }
}

/// For a terminal: the tier that is likely to be ready first.
pub fn bar(tiers: &[&Tier]) -> String {
    let starting = |tier: &&&Tier| tier.process.as_ref().is_some_and(|p| p.state == ProcessState::Starting);
    let rest = |tier: &&&Tier| progress_of(tier).and_then(|progress| progress.eta_s).unwrap_or(u64::MAX);
    let Some(tier) = tiers.iter().filter(starting).min_by_key(rest) else { return changes(tiers) };
    let Some(known) = progress_of(tier) else { return format!("{}: starting", tier.name) };
    let filled = known.percent.map(|percent| BAR * usize::from(percent.min(100)) / 100);
    let bar = filled.map_or_else(String::new, |n| format!("[{}{}] ", "#".repeat(n), ".".repeat(BAR - n)));
    format!("{}: {bar}{}", tier.name, progress(known))
}

fn progress_of(tier: &Tier) -> Option<&Progress> {
    tier.process.as_ref()?.progress.as_ref()
}

/// What it was still waiting for, a line each.
pub fn remains(status: &Status, name: Option<&str>, now_ms: i64) -> String {
    let Outlook::OnTheWay(tiers) = outlook(status, name) else { return String::new() };
    let line = |tier: &&Tier| {
        let stage = progress_of(tier).map_or_else(String::new, |known| format!(" ({})", progress(known)));
        format!("{}: {}{stage}\n", tier.name, standing(tier, now_ms))
    };
    tiers.iter().map(line).collect()
}

#[cfg(test)]
mod tests;

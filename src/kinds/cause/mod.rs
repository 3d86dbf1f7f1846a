//! Why a run ended, read from its exit and its log.
//!
//! The wordings are data (`gpu`, `model`, `host`, `engine`), each with a real line that its test holds it to. A log is
//! read like this:
//! 1. Lines that only look bad, and those of a quiet level, are left out.
//! 2. Of the rest, only the last burst counts: an engine that went on for long after a line did not die of it.
//! 3. The strongest class of wording in the burst decides, and within it the *earliest* line: the root is printed
//!    before what follows from it. Warnings stand behind errors.
//! 4. What is left open, the exit status answers (`exit`).
mod advice;
mod engine;
mod entry;
mod exit;
mod gpu;
mod host;
mod line;
mod model;

use crate::kinds::Kind;
use crate::policy::{Cause, Exit};
use entry::{Entry, Weight};
pub use exit::signal_number;
use line::Level;
use regex::bytes::{RegexSet, RegexSetBuilder};
use std::sync::OnceLock;

/// Everything that a diagnosis is made from.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// `None`: nobody says whose lines these are, so every engine's wording is looked for.
    pub kind: Option<Kind>,
    /// `None`: it has not ended, or nobody says how.
    pub exit: Option<Exit>,
    /// Was it mainstay that stopped it?
    pub asked: bool,
    /// Was this run ever ready? Then the same start does not always fail.
    pub was_ready: bool,
    /// The last lines of both its streams, oldest first.
    pub lines: &'a [&'a str],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    pub cause: Cause,
    /// The line that the cause was read from, without colours and cut to a readable length, or what the exit says.
    pub evidence: Option<String>,
    /// The place of that line in `Evidence::lines`, from 0.
    pub line: Option<usize>,
    /// Will the same start fail the same way? `None` when that cannot be told.
    pub deterministic: Option<bool>,
    /// What mainstay does about it.
    pub action: &'static str,
    /// What an operator can do about it.
    pub advice: &'static str,
}

/// A burst ends where this many lines say nothing bad: longer than any traceback between two lines that do.
const BURST_GAP: usize = 120;
/// Longest evidence, in characters.
const EVIDENCE_MAX: usize = 400;

/// Reads the cause from exit and log. Total: it always has an answer, if only "unknown".
pub fn diagnose(evidence: &Evidence) -> Diagnosis {
    if evidence.asked {
        return told(Cause::Asked, None, None, Some(false));
    }
    let found = root(evidence.kind, evidence.lines, evidence.exit.is_some());
    let by_exit = evidence.exit.and_then(|exit| exit::reading(evidence.kind, exit, evidence.lines));
    let exit_knows = by_exit.as_ref().is_some_and(|reading| reading.is_certain);
    let diagnosis = match (found, by_exit) {
        // Somebody else's notice of a death says less than the exit status of the dead.
        (Some(found), Some(reading)) if found.entry.weight >= Weight::Consequence && exit_knows => {
            from_exit(reading)
        }
        (Some(found), _) => {
            let line = evidence.lines[found.line];
            told(found.entry.cause, Some(readable(line)), Some(found.line), found.entry.deterministic)
        }
        (None, Some(reading)) => from_exit(reading),
        (None, None) => silent(evidence),
    };
    // It has started once, so the same start can succeed.
    let proven = evidence.was_ready && diagnosis.deterministic == Some(true);
    Diagnosis { deterministic: if proven { None } else { diagnosis.deterministic }, ..diagnosis }
}

/// The cause that one line alone speaks of, and whether the same start will fail the same way; `None` when it speaks
/// of none. For an error text that came with an answer instead of a log.
pub fn of_line(kind: Option<Kind>, line: &str) -> Option<(Cause, Option<bool>)> {
    let entry = catalogue().entry(kind, line)?;
    Some((entry.cause, entry.deterministic))
}

/// What an operator can do about a cause.
pub fn advice_on(cause: Cause) -> &'static str {
    advice::on(cause).advice
}

fn told(
    cause: Cause,
    evidence: Option<String>,
    line: Option<usize>,
    deterministic: Option<bool>,
) -> Diagnosis {
    let counsel = advice::on(cause);
    Diagnosis { cause, evidence, line, deterministic, action: counsel.action, advice: counsel.advice }
}

fn from_exit(reading: exit::Reading) -> Diagnosis {
    told(reading.cause, Some(readable(&reading.evidence)), reading.line, reading.deterministic)
}

/// No wording is known. Without an exit, lines that do not even look bad are fine.
fn silent(evidence: &Evidence) -> Diagnosis {
    let loud =
        |(_, line): &(usize, &&str)| line::looks_bad(line) && !catalogue().is_benign(evidence.kind, line);
    let suspicious = evidence.lines.iter().enumerate().find(loud);
    match suspicious {
        Some((at, line)) => told(Cause::Unknown, Some(readable(line)), Some(at), None),
        None if evidence.exit.is_none() => told(Cause::None, None, None, None),
        None => told(Cause::Unknown, None, None, None),
    }
}

/// One line of the log that the catalogue knows.
#[derive(Clone, Copy, Debug)]
struct Finding {
    line: usize,
    entry: &'static Entry,
    level: Level,
}

impl Finding {
    /// Smaller is more telling. A warning was survived when it was printed, so it stands behind news of a death.
    fn rank(&self) -> (u8, usize) {
        let class = match (self.entry.weight, self.level) {
            (Weight::Benign | Weight::Decisive, _) => 0,
            (Weight::Specific, Level::Loud | Level::Quiet) => 1,
            (Weight::Symptom, Level::Loud | Level::Quiet) => 2,
            (Weight::Consequence, _) => 3,
            (Weight::Specific | Weight::Symptom, Level::Warning) => 4,
            (Weight::Aftermath, _) => 5,
            (Weight::Note, _) => 6,
        };
        (class, self.line)
    }
}

/// The most telling line of the last burst.
fn root(kind: Option<Kind>, lines: &[&str], has_ended: bool) -> Option<Finding> {
    let mut findings: Vec<Finding> = lines
        .iter()
        .enumerate()
        .filter_map(|(at, line)| {
            let level = line::level(line);
            let entry = catalogue().entry(kind, line)?;
            (level != Level::Quiet || may_be_quiet(entry)).then_some(Finding { line: at, entry, level })
        })
        // What an engine lives with is not what it died of.
        .filter(|finding| !(has_ended && finding.entry.weight == Weight::Note))
        .collect();
    // A log that holds several runs is read from where the last one begins, unless that one left nothing.
    if let Some(begin) = lines.iter().rposition(|line| line::begins_a_run(line))
        && findings.last().is_some_and(|last| last.line >= begin)
    {
        findings.retain(|finding| finding.line >= begin);
    }
    let last = findings.last()?.line;
    if has_ended && lines.len() - last > BURST_GAP {
        return None;
    }
    let mut burst_begins = last;
    for finding in findings.iter().rev() {
        if burst_begins - finding.line > BURST_GAP {
            break;
        }
        burst_begins = finding.line;
    }
    findings.into_iter().filter(|finding| finding.line >= burst_begins).min_by_key(Finding::rank)
}

/// Wordings that engines and kernel print at a quiet level although they matter.
fn may_be_quiet(entry: &Entry) -> bool {
    matches!(entry.weight, Weight::Decisive | Weight::Note) || entry.cause == Cause::Hang
}

fn readable(line: &str) -> String {
    let plain = line::without_colours(line);
    let mut text: String = plain.trim().chars().take(EVIDENCE_MAX).collect();
    if plain.trim().chars().count() > EVIDENCE_MAX {
        text.push('…');
    }
    text
}

/// All wordings, compiled at the first diagnosis: an agent whose engines never fail does not pay for them.
struct Catalogue {
    parts: Vec<Part>,
}

/// A few neighbouring entries. Compiled all in one, the catalogue would take three times the memory.
struct Part {
    set: RegexSet,
    entries: Vec<&'static Entry>,
}

const PART: usize = 8;

fn catalogue() -> &'static Catalogue {
    static CATALOGUE: OnceLock<Catalogue> = OnceLock::new();
    CATALOGUE.get_or_init(|| {
        let tables = [engine::BENIGN, gpu::ENTRIES, model::ENTRIES, host::ENTRIES, engine::ENTRIES];
        let entries: Vec<&Entry> = tables.into_iter().flatten().collect();
        Catalogue { parts: entries.chunks(PART).map(Part::compiled).collect() }
    })
}

impl Part {
    fn compiled(entries: &[&'static Entry]) -> Self {
        let set = RegexSetBuilder::new(entries.iter().map(|entry| entry.patterns.join("|")))
            .case_insensitive(true)
            .unicode(false)
            .build()
            .expect("the patterns of the catalogue are constants that a test compiles");
        Self { set, entries: entries.to_vec() }
    }
}

impl Catalogue {
    /// What a line speaks of: the first entry that knows it, or nothing when it only looks bad.
    fn entry(&self, kind: Option<Kind>, line: &str) -> Option<&'static Entry> {
        self.first(kind, line).filter(|entry| entry.weight != Weight::Benign)
    }

    fn is_benign(&self, kind: Option<Kind>, line: &str) -> bool {
        self.first(kind, line).is_some_and(|entry| entry.weight == Weight::Benign)
    }

    fn first(&self, kind: Option<Kind>, line: &str) -> Option<&'static Entry> {
        let plain = line::without_colours(line);
        self.parts.iter().find_map(|part| {
            let matches = part.set.matches(plain.as_bytes());
            matches.into_iter().map(|at| part.entries[at]).find(|entry| entry.engines.hold(kind))
        })
    }
}

#[cfg(test)]
mod tests;

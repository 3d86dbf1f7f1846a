//! Why a run ended, read from its exit and its log.
//!
//! The wordings are data (`gpu`, `model`, `host`, `engine`), each with a real line that its test holds it to. A log is
//! read like this:
//! 1. What journald, containers and others put before each line is taken off.
//! 2. Lines that only look bad, and those of a quiet level, are left out.
//! 3. What clients wrote is left out (`client`), and what the run survived, or only says again (`survived`).
//! 4. Of the rest, only the last burst counts: an engine that went on for long after a line did not die of it.
//! 5. The strongest class of wording in the burst decides, within it what has the form of a message, and among those the
//!    *earliest* line: the root is printed before what follows from it. Warnings stand behind errors.
//! 6. What says little by itself is read by its traceback (`phase`).
//! 7. What is left open, the exit status answers (`exit`), and what the kernel says of its memory (`oom`).
mod advice;
mod client;
mod device;
mod engine;
mod entry;
mod exit;
mod gpu;
mod guess;
mod host;
mod line;
mod model;
mod nature;
mod oom;
mod phase;
mod survived;

use crate::kinds::Kind;
use crate::policy::{Cause, Exit, Nature};
use crate::printable;
pub use device::{Device, device};
use entry::{Entry, Weight};
pub use exit::{signal_name, signal_number};
pub use guess::guess;
use line::Level;
pub use nature::nature;
pub use oom::{killed_by_kernel, kills_rose};
use regex::bytes::{RegexSet, RegexSetBuilder};
use std::borrow::Cow;
use std::sync::OnceLock;

/// Everything that a diagnosis is made from.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// `None`: nobody says whose lines these are, so every engine's wording is looked for.
    pub kind: Option<Kind>,
    /// `None`: it has not ended, or nobody says how.
    pub exit: Option<Exit>,
    /// Was it mainstay that stopped it? `None`: nobody knows, as with a log from elsewhere.
    pub asked: Option<bool>,
    /// Was this run ever ready? Then the same start does not always fail.
    pub was_ready: bool,
    /// What the kernel says about running out of memory during this run: `killed_by_kernel` or `kills_rose`.
    pub out_of_memory: Option<&'a str>,
    /// So many of the first lines were printed a minute or more before the end. 0 where their times are not known.
    pub survived: usize,
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
    pub nature: Nature,
    /// Will the same start fail the same way? `None` when that cannot be told.
    pub deterministic: Option<bool>,
    /// What mainstay does about it.
    pub action: &'static str,
    /// What an operator can do about it.
    pub advice: &'static str,
}

/// A burst ends where this many lines show that the engine went on: more than are printed on the way down.
const BURST_GAP: usize = 120;
/// Longest evidence, in characters.
const EVIDENCE_MAX: usize = 400;

/// Reads the cause from exit and log. Total: it always has an answer, if only "unknown".
pub fn diagnose(evidence: &Evidence) -> Diagnosis {
    if evidence.asked == Some(true) {
        return told(Cause::Asked, None, None, Some(false));
    }
    let lines: Vec<Cow<str>> =
        evidence.lines.iter().map(|line| client::without_requests(line::bare(line))).collect();
    let found = root(evidence, &lines);
    let by_exit = evidence.exit.and_then(|exit| exit::reading(evidence, exit));
    if let Some(word) = evidence.out_of_memory
        && oom::explains(evidence.exit, found.map(|found| found.entry))
    {
        return told(Cause::HostOom, Some(word.to_owned()), None, None);
    }
    let exit_knows = by_exit.as_ref().is_some_and(|reading| reading.is_certain);
    let diagnosis = match (found, by_exit) {
        // Somebody else's notice of a death says less than the exit status of the dead.
        (Some(found), Some(reading)) if found.entry.weight >= Weight::Consequence && exit_knows => {
            from_exit(reading)
        }
        // Words in no form of a message may be anybody's: they do not explain a signal that somebody sent.
        (Some(found), Some(reading))
            if !found.formed
                && found.entry.weight < Weight::Consequence
                && reading.cause == Cause::KilledFromOutside =>
        {
            from_exit(reading)
        }
        (Some(found), _) => {
            let line = evidence.lines[found.line];
            let of_entry = (found.entry.cause, found.entry.deterministic);
            let read = if evidence.was_ready { None } else { phase::cause(found.entry, &lines, found.line) };
            let (cause, deterministic) = read.unwrap_or(of_entry);
            told(cause, Some(readable(line)), Some(found.line), deterministic)
        }
        (None, Some(reading)) => from_exit(reading),
        (None, None) => silent(evidence, &lines),
    };
    // It has started once, so the same start can succeed.
    let proven = evidence.was_ready && diagnosis.deterministic == Some(true);
    let deterministic = if proven { None } else { diagnosis.deterministic };
    // What it needs was there, and its end is a strike.
    let nature = if evidence.was_ready { Nature::Engine } else { diagnosis.nature };
    let action = advice::action(diagnosis.cause, nature);
    Diagnosis { deterministic, nature, action, ..diagnosis }
}

/// The cause that one line alone speaks of, and whether the same start will fail the same way; `None` when it speaks
/// of none. For an error text that came with an answer instead of a log.
pub fn of_line(kind: Option<Kind>, line: &str) -> Option<(Cause, Option<bool>)> {
    let entry = catalogue().entry(kind, &line::bare(line))?;
    Some((entry.cause, entry.deterministic))
}

/// What mainstay does about a cause, and what an operator can do.
pub fn counsel(cause: Cause) -> (&'static str, &'static str) {
    let counsel = advice::on(cause);
    (counsel.action, counsel.advice)
}

/// What an operator can do about a tier of this name.
pub fn advice(cause: Cause, tier: &str, is_remote: bool) -> String {
    if is_remote {
        advice::on_remote(cause).to_owned()
    } else {
        advice::on(cause).advice.replace("`mainstay logs TIER`", &format!("`mainstay logs {tier}`"))
    }
}

fn told(
    cause: Cause,
    evidence: Option<String>,
    line: Option<usize>,
    deterministic: Option<bool>,
) -> Diagnosis {
    let counsel = advice::on(cause);
    let nature = nature(cause, deterministic, evidence.as_deref());
    Diagnosis { cause, evidence, line, nature, deterministic, action: counsel.action, advice: counsel.advice }
}

fn from_exit(reading: exit::Reading) -> Diagnosis {
    told(reading.cause, Some(readable(&reading.evidence)), reading.line, reading.deterministic)
}

/// No wording is known. Where nothing says that it ended badly, lines that do not even look bad are fine.
fn silent(evidence: &Evidence, lines: &[Cow<str>]) -> Diagnosis {
    let loud = |line: &Cow<str>| line::looks_bad(line) && !catalogue().is_benign(evidence.kind, line);
    let served = lines.iter().rposition(|line| line::says_ready(line)).unwrap_or(0);
    let of_kernel = |at: usize| line::is_of_kernel(evidence.lines[at]);
    let ended_well = evidence.asked.is_none() && evidence.exit == Some(Exit::Code(0));
    match (served..lines.len()).find(|at| loud(&lines[*at]) && !of_kernel(*at)) {
        Some(at) => told(Cause::Unknown, Some(readable(evidence.lines[at])), Some(at), None),
        None if evidence.exit.is_none() || ended_well => told(Cause::None, None, None, None),
        None => told(Cause::Unknown, None, None, None),
    }
}

/// One line of the log that the catalogue knows.
#[derive(Clone, Copy, Debug)]
struct Finding {
    line: usize,
    entry: &'static Entry,
    level: Level,
    /// It has the form of a message.
    formed: bool,
}

impl Finding {
    /// Does it stay true while the engine serves?
    fn lasts(&self) -> bool {
        matches!(self.entry.weight, Weight::Decisive | Weight::Note)
    }

    /// Smaller is more telling. A warning was survived when it was printed, so it stands behind news of a death.
    fn rank(&self) -> (u8, bool, usize) {
        let class = match (self.entry.weight, self.level) {
            (Weight::Benign | Weight::Decisive, _) => 0,
            (Weight::Specific, Level::Loud | Level::Quiet) => 1,
            (Weight::Symptom, Level::Loud | Level::Quiet) => 2,
            (Weight::Consequence, _) => 3,
            (Weight::Specific | Weight::Symptom, Level::Warning) => 4,
            (Weight::Aftermath, _) => 5,
            (Weight::Note, _) => 6,
        };
        (class, !self.formed, self.line)
    }
}

/// The most telling line of the last burst.
/// `lines` are those of the evidence, bare.
fn root(evidence: &Evidence, lines: &[Cow<str>]) -> Option<Finding> {
    let has_ended = evidence.exit.is_some();
    let mut findings = findings(evidence, lines);
    // What an engine lives with is not what it died of.
    findings.retain(|finding| !(has_ended && finding.entry.weight == Weight::Note));
    // A log that holds several runs is read from where the last one begins, unless that one left nothing.
    if let Some(begin) = lines.iter().rposition(|line| line::begins_a_run(line))
        && findings.last().is_some_and(|last| last.line >= begin)
    {
        findings.retain(|finding| finding.line >= begin);
    }
    // What was printed before the engine served did not end it. Broken hardware stays broken. (Ollama serves all the
    // while, and each of its runners says that it does.)
    let ready = lines.iter().rposition(|line| line::says_ready(line));
    if has_ended {
        survived::drop(&mut findings, evidence, lines, ready);
    }
    if let Some(ready) = ready
        && evidence.kind.or_else(|| guess(evidence.lines)) != Some(Kind::Ollama)
    {
        findings.retain(|finding| finding.line > ready || finding.lasts());
    }
    let last = findings.last()?.line;
    if has_ended && signs_of_life(&lines[last + 1..]) >= BURST_GAP {
        return None;
    }
    let mut burst_begins = last;
    for finding in findings.iter().rev() {
        if signs_of_life(&lines[finding.line..burst_begins]) > BURST_GAP {
            break;
        }
        burst_begins = finding.line;
    }
    findings.into_iter().filter(|finding| finding.line >= burst_begins).min_by_key(Finding::rank)
}

/// All lines that the catalogue knows, but for what clients wrote and what is only said in passing.
fn findings(evidence: &Evidence, lines: &[Cow<str>]) -> Vec<Finding> {
    let mut reading = client::Continuation::default();
    let of_client: Vec<bool> = lines.iter().map(|line| reading.take(line)).collect();
    let mut frames = phase::Frames::default();
    let is_code: Vec<bool> = lines.iter().map(|line| frames.take(line)).collect();
    let own = lines.iter().enumerate().filter(|(at, _)| !of_client[*at] && !is_code[*at]);
    own.filter_map(|(at, line)| {
        let level = line::level(line);
        let entry = catalogue().entry(evidence.kind, line)?;
        let counts = level != Level::Quiet || may_be_quiet(entry);
        counts.then(|| Finding { line: at, entry, level, formed: line::has_form(line) })
    })
    .collect()
}

fn signs_of_life(lines: &[Cow<str>]) -> usize {
    lines.iter().filter(|line| line::shows_life(line)).count()
}

/// Wordings that engines and kernel print at a quiet level although they matter.
fn may_be_quiet(entry: &Entry) -> bool {
    matches!(entry.weight, Weight::Decisive | Weight::Note) || entry.cause == Cause::Hang
}

/// For people: without colours, safe to show, and not too long.
fn readable(line: &str) -> String {
    let plain = line::without_colours(line);
    let plain = printable::line(plain.trim()).replace('\t', " ");
    let mut text: String = plain.chars().take(EVIDENCE_MAX).collect();
    if plain.chars().count() > EVIDENCE_MAX {
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
        let tables = [
            gpu::FATES,
            engine::BENIGN,
            host::LIMITS,
            gpu::ENTRIES,
            model::ENTRIES,
            host::ENTRIES,
            engine::ENTRIES,
        ];
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
    /// What a bare line speaks of: the first entry that knows it, or nothing when it only looks bad.
    fn entry(&self, kind: Option<Kind>, line: &str) -> Option<&'static Entry> {
        self.first(kind, line).filter(|entry| entry.weight != Weight::Benign)
    }

    fn is_benign(&self, kind: Option<Kind>, line: &str) -> bool {
        self.first(kind, line).is_some_and(|entry| entry.weight == Weight::Benign)
    }

    fn first(&self, kind: Option<Kind>, line: &str) -> Option<&'static Entry> {
        self.parts.iter().find_map(|part| {
            let matches = part.set.matches(line.as_bytes());
            matches.into_iter().map(|at| part.entries[at]).find(|entry| entry.engines.hold(kind))
        })
    }
}

#[cfg(test)]
mod tests;

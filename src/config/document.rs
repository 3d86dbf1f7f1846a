//! TOML that is broken in places: what is broken is reported, and the rest is read all the same.
//!
//! The parser's own recovery gives up on some slips (a key without `=` drops the rest of the file) and lets others leak
//! (an array that is not closed swallows the sections after it). So a text with syntax errors is cut into statements, each
//! is parsed alone, and the broken ones are overwritten with spaces, which keeps every offset where it was.
use super::problem::Problems;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;
use toml::de::{DeTable, Error};

/// One operator's slips are few; a file that is no TOML at all shall not print thousands of lines.
const MOST_SYNTAX_PROBLEMS: usize = 40;
/// A statement may span lines that look like statements of their own (strings, nested arrays): this many pieces are
/// joined at most to make a whole one.
const MOST_PIECES: usize = 32;
/// Lines that begin nothing end a piece all the same after this many, or a file of them would be parsed again and again.
const LONGEST_PIECE: usize = 16;

/// A text that parses, but for repeated keys.
pub(super) struct Mended<'t> {
    pub(super) text: Cow<'t, str>,
    pub(super) lost: Lost,
}

/// What could not be read, so that nobody calls it missing.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Offsets of the headers whose sections lost a statement; 0 for the part before the first header.
    sections: BTreeSet<usize>,
    /// A header was lost, and its section with it.
    header: bool,
}

impl Lost {
    /// Was nothing lost of the section whose header is at this offset?
    pub(super) fn spared(&self, header_at: usize) -> bool {
        !self.sections.contains(&header_at)
    }

    /// Is every section that was written still there?
    pub(super) fn has_every_section(&self) -> bool {
        !self.header
    }
}

/// Reports each broken statement once, and takes it out of the text.
pub(super) fn mend<'t>(text: &'t str, problems: &Problems) -> Mended<'t> {
    if !syntax_errors(text) {
        return Mended { text: Cow::Borrowed(text), lost: Lost::default() };
    }
    let mut starts = statement_starts(text);
    let mut lost = Lost::default();
    let mut mended = text.to_owned();
    let mut header_at = 0;
    let mut reported = 0;
    let mut next = 0;
    while next + 1 < starts.len() {
        let statement = starts[next]..starts[next + 1];
        let at = statement.start + indent(&text[statement.clone()]);
        let is_header = text[at..].starts_with('[');
        if let Some(end) = sound_end(text, &starts, next) {
            header_at = if is_header { at } else { header_at };
            next = end;
            continue;
        }
        let start = statement.start;
        let (broken, problem_at, error) = broken_part(text, statement);
        if reported == MOST_SYNTAX_PROBLEMS {
            blank(&mut mended, broken.start..text.len());
            lost.header = true;
            lost.sections.insert(header_at);
            break;
        }
        let (what, remedy) = worded(text, &error, start);
        problems.add(problem_at, what, remedy);
        reported += 1;
        next += 1;
        if broken.end < starts[next] {
            starts.insert(next, broken.end);
        }
        if is_header && broken.start <= at {
            // The keys below belong to a section whose name is not known: reading them elsewhere would be wrong.
            while next + 1 < starts.len() && !text[starts[next]..].trim_start().starts_with('[') {
                next += 1;
            }
            lost.header = true;
            blank(&mut mended, broken.start..starts[next]);
        } else {
            lost.sections.insert(header_at);
            blank(&mut mended, broken);
        }
    }
    Mended { text: Cow::Owned(mended), lost }
}

/// Reports what the parser still says about a mended text: keys and sections that are written twice.
pub(super) fn report(text: &str, errors: &[Error], problems: &Problems) {
    let mut lines = BTreeSet::new();
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        let line_start =
            text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
        // The parser may meet one repetition twice.
        if lines.insert(line_start) {
            let (what, remedy) = worded(text, error, 0);
            problems.add(at, what, remedy);
        }
    }
}

/// Has the text errors other than repeated keys?
fn syntax_errors(text: &str) -> bool {
    DeTable::parse_recoverable(text).1.iter().any(|error| !is_repetition(error))
}

fn is_repetition(error: &Error) -> bool {
    error.message() == "duplicate key" || error.message().starts_with("cannot extend value of type")
}

/// The index in `starts` behind the statement that begins at `starts[first]`, if it parses: alone, or joined with the
/// lines that follow it.
fn sound_end(text: &str, starts: &[usize], first: usize) -> Option<usize> {
    let last = (first + MOST_PIECES).min(starts.len() - 1);
    (first + 1..=last).find(|end| !syntax_errors(&text[starts[first]..starts[*end]]))
}

/// The part of a broken statement to take out, where to point at, and the parser's first error in it.
fn broken_part(text: &str, statement: Range<usize>) -> (Range<usize>, usize, Error) {
    let content = without_trailing_comments(&text[statement.clone()]);
    let errors = DeTable::parse_recoverable(content).1;
    let first = errors
        .into_iter()
        .filter(|error| !is_repetition(error))
        .min_by_key(|error| error.span().map_or(usize::MAX, |span| span.start));
    let Some(error) = first else {
        // Only the comments below it are broken.
        let errors = DeTable::parse_recoverable(&text[statement.clone()]).1;
        let at = errors.first().and_then(Error::span).map_or(content.len(), |span| span.start);
        let error = errors.into_iter().next().unwrap_or_else(unreadable);
        return (statement.start + content.len()..statement.end, statement.start + at, error);
    };
    let at = error.span().map_or(0, |span| span.start).min(content.trim_end().len());
    // Nothing promises that the parser points between two characters.
    let at = content.floor_char_boundary(at);
    let line_start = content[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let line_end = content[at..].find('\n').map_or(content.len(), |newline| at + newline + 1);
    // A stray line below a sound statement costs only itself, and so does one that opens nothing.
    let start = if syntax_errors(&content[..line_start]) { 0 } else { line_start };
    let end = if leaves_open(&content[start..line_end]) { statement.len() } else { line_end };
    (statement.start + start..statement.start + end, statement.start + at, error)
}

/// Do the lines after these belong to an array or table that begins in them?
fn leaves_open(lines: &str) -> bool {
    let errors = DeTable::parse_recoverable(lines).1;
    errors
        .iter()
        .any(|error| error.message().starts_with("unclosed") || error.message().contains("multi-line"))
}

fn unreadable() -> Error {
    serde::de::Error::custom("unreadable text")
}

/// Overwrites with spaces, byte by byte; newlines stay.
fn blank(text: &mut String, range: Range<usize>) {
    let spaces: String =
        text[range.clone()].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect();
    text.replace_range(range, &spaces);
}

fn indent(statement: &str) -> usize {
    statement.len() - statement.trim_start().len()
}

/// Without the blank lines and whole-line comments at its end: those belong to what follows.
fn without_trailing_comments(statement: &str) -> &str {
    let mut kept = statement;
    loop {
        let lines = kept.strip_suffix('\n').unwrap_or(kept);
        let Some(newline) = lines.rfind('\n') else { return kept };
        let last = lines[newline..].trim();
        if !(last.is_empty() || last.starts_with('#')) {
            return kept;
        }
        kept = &lines[..=newline];
    }
}

/// Offsets of the lines on which a statement may begin, from 0, and the text's end.
fn statement_starts(text: &str) -> Vec<usize> {
    let mut starts = vec![0];
    let mut at = 0;
    let mut lines = 0;
    for line in text.split_inclusive('\n') {
        if at > 0 && (begins_statement(line) || lines == LONGEST_PIECE) {
            starts.push(at);
            lines = 0;
        }
        lines += 1;
        at += line.len();
    }
    starts.push(text.len());
    starts
}

/// A header, or `key =`. A wrong yes costs little, because pieces are joined until they parse.
fn begins_statement(line: &str) -> bool {
    let line = line.trim_start();
    let of_a_key = |c: char| c.is_alphanumeric() || "_-.\"' \t".contains(c);
    // An argument such as "--seed=1" in a list is no key: its quote is still open at the equals sign.
    let is_closed = |key: &str| key.matches(['"', '\'']).count().is_multiple_of(2);
    let is_key = |key: &str| !key.trim().is_empty() && key.chars().all(of_a_key) && is_closed(key);
    line.starts_with('[') || line.split_once('=').is_some_and(|(key, _)| is_key(key))
}

/// The parser's error in our words: what is wrong, what would be right.
fn worded(text: &str, error: &Error, offset: usize) -> (String, String) {
    let message = error.message();
    let (what, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    let named = error.span().and_then(|span| text.get(span.start + offset..span.end + offset)).unwrap_or("");
    let line_is_header = error.span().is_some_and(|span| {
        let before = text.get(..span.start + offset).unwrap_or("");
        before.rsplit('\n').next().is_some_and(|line| line.trim_start().starts_with('['))
    });
    match what {
        "duplicate key" if line_is_header => (
            format!("the section `{named}` is here a second time"),
            "put its keys into one section".to_owned(),
        ),
        "duplicate key" => (format!("`{named}` is given a second time"), "keep one of them".to_owned()),
        "string values must be quoted" => {
            ("a value without quotes".to_owned(), "write text, durations and sizes in \"…\"".to_owned())
        }
        "key with no value" => ("a key without a value".to_owned(), "write it as key = value".to_owned()),
        _ if expected.is_empty() || expected == "nothing" => {
            (what.to_owned(), "write it as TOML, see `mainstay help configuration`".to_owned())
        }
        _ => (what.to_owned(), format!("expected {}", expected.replace(", ", " or "))),
    }
}

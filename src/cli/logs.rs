//! `mainstay logs TIER`: what an engine wrote, read from the ring files of its live or last run and of those before it
//! that are kept. No agent is asked, so this works when there is none.
use super::exit::Exit;
use super::screen::{self, Screen, complain, wait_for_reader_to_go};
use crate::clock;
use crate::control::client::Client;
use crate::control::wire::Tier;
use crate::printable;
use crate::shim::LOG;
use crate::shim::ring::{Follow, Line, Reader, Stream};
use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two looks at what is new.
const LOOK: Duration = Duration::from_millis(200);
/// For an agent that may not be there.
const PATIENCE: Duration = Duration::from_secs(2);

/// The log of one run, as far as it was printed.
struct Open {
    number: u64,
    reader: Reader,
    next: u64,
    /// Lines that the run ever had up to there.
    so_far: u64,
}

impl Open {
    fn new(number: u64, reader: Reader) -> Self {
        Self { number, reader, next: 0, so_far: 0 }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub tier: &'a str,
    /// The last lines to begin with, back into earlier runs where the newest has fewer.
    pub count: usize,
    /// What comes after them too, until Ctrl-C.
    pub follow: bool,
    /// Byte for byte also on a terminal, which obeys what an engine or its client made the line hold.
    pub raw: bool,
}

pub fn main(run_dir: &Path, wanted: Wanted<'_>) -> Exit {
    let out = Out { plain: Screen::of_stdout().terminal && !wanted.raw };
    print(run_dir, wanted, out).into()
}

/// The standard output.
#[derive(Clone, Copy)]
struct Out {
    /// What a terminal would obey is spelled out.
    plain: bool,
}

impl Out {
    fn show(self, bytes: impl AsRef<[u8]>) -> Result<(), Exit> {
        screen::show(self.form(bytes.as_ref()))
    }

    fn form(self, bytes: &[u8]) -> Cow<'_, [u8]> {
        if self.plain { printable::bytes(bytes) } else { Cow::Borrowed(bytes) }
    }
}

fn print(run_dir: &Path, wanted: Wanted<'_>, out: Out) -> Result<(), Exit> {
    let Wanted { tier, count, follow, .. } = wanted;
    let runs = run_dir.join("runs");
    let Some(number) = newest(&runs, tier)? else {
        complain(why_none(run_dir, tier));
        return Err(Exit::Failed);
    };
    let path = log_of(&runs, tier, number);
    let reader = Reader::open(&path).map_err(|error| unreadable(&path, &error))?;
    let tail = reader.tail(count).map_err(|error| unreadable(&path, &error))?;
    let earlier = before(&runs, tier, number, count - tail.lines.len())?;
    if !earlier.is_empty() {
        out.show(earlier)?;
        out.show(heading(number))?;
    }
    out.show(part(&tail))?;
    let Follow { next, so_far, .. } = tail;
    if follow { go_on(&runs, tier, Open { number, reader, next, so_far }, out) } else { Ok(()) }
}

/// Why a tier has no log. Only an agent knows its tiers; where there is none, less is said.
fn why_none(run_dir: &Path, tier: &str) -> String {
    let tiers =
        Client::new(run_dir).status_within(PATIENCE).map(|(status, _)| status.tiers).unwrap_or_default();
    match tiers.iter().find(|known| known.name == tier) {
        Some(Tier { process: None, url, .. }) => {
            let at = url.as_ref().map_or_else(String::new, |url| format!(" at {url}"));
            format!("tier {tier:?} is remote: its log is on the server{at}; `mainstay status` says how it is")
        }
        None if !tiers.is_empty() => {
            let names: Vec<&str> = tiers.iter().map(|known| known.name.as_str()).collect();
            format!("there is no tier {tier:?}; there is: {}", names.join(", "))
        }
        Some(_) | None => format!(
            "no run of a tier {tier:?} has a log in {}; `mainstay status` lists the tiers, and --run-dir names another \
             runtime directory",
            run_dir.join("runs").display()
        ),
    }
}

/// The last `count` lines of the runs before `number`, each run behind its heading: the one that is wanted after a crash
/// is the one that crashed.
fn before(runs: &Path, tier: &str, number: u64, count: usize) -> Result<Vec<u8>, Exit> {
    let mut parts = Vec::new();
    let mut wanted = count;
    for older in numbers(runs, tier)?.into_iter().rev().filter(|older| *older < number) {
        // A run whose directory is being tidied away has nothing more to say.
        let Ok(tail) = Reader::open(&log_of(runs, tier, older)).and_then(|reader| reader.tail(wanted)) else {
            continue;
        };
        wanted -= tail.lines.len();
        if !tail.lines.is_empty() {
            parts.push([heading(older).into_bytes(), part(&tail)].concat());
        }
        if wanted == 0 {
            break;
        }
    }
    parts.reverse();
    Ok(parts.concat())
}

fn heading(number: u64) -> String {
    format!("-- run {number} --\n")
}

/// Prints what comes, until nobody reads it.
fn go_on(runs: &Path, tier: &str, mut open: Open, out: Out) -> Result<(), Exit> {
    while !wait_for_reader_to_go(LOOK) {
        // Asked before the old run is read for the last time: a run that has a successor writes no more.
        let newer = newest(runs, tier)?.filter(|number| *number > open.number);
        let path = log_of(runs, tier, open.number);
        out.show(news(&mut open, &path)?)?;
        if let Some(number) = newer
            // A log that is just being made cannot be read yet: then the next look finds it.
            && let Ok(reader) = Reader::open(&log_of(runs, tier, number))
        {
            open = Open::new(number, reader);
            out.show(heading(number))?;
        }
    }
    Ok(())
}

fn news(open: &mut Open, path: &Path) -> Result<Vec<u8>, Exit> {
    let follow = open.reader.follow(open.next).map_err(|error| unreadable(path, &error))?;
    let mut bytes = Vec::new();
    // Lines that are missing for another reason have been dropped, and a note among the others tells of them.
    if follow.missed {
        let missing = follow.so_far.saturating_sub(open.so_far + follow.lines.len() as u64);
        let note = format!(
            "-- lines that are missing here, because they came faster than they were read: {missing} --\n"
        );
        bytes.extend_from_slice(note.as_bytes());
    }
    bytes.append(&mut text(&follow.lines));
    (open.next, open.so_far) = (follow.next, follow.so_far);
    Ok(bytes)
}

/// The last lines of a run, below a word on those that are not there. The run's own notes of it are not enough: a flood
/// overwrites them like all else.
fn part(tail: &Follow) -> Vec<u8> {
    let mut bytes = Vec::new();
    if tail.dropped > 0 {
        let why = "they came too fast or could not be written";
        let note = format!("-- lines of this run that were dropped, because {why}: {} --\n", tail.dropped);
        bytes.extend_from_slice(note.as_bytes());
    }
    if tail.missed {
        bytes.extend_from_slice(
            b"-- older lines of this run were overwritten: the log holds its newest MiB --\n",
        );
    }
    bytes.append(&mut text(&tail.lines));
    bytes
}

fn log_of(runs: &Path, tier: &str, number: u64) -> PathBuf {
    runs.join(format!("{tier}-{number}")).join(LOG)
}

fn newest(runs: &Path, tier: &str) -> Result<Option<u64>, Exit> {
    Ok(numbers(runs, tier)?.last().copied())
}

/// The numbers of the runs of this tier that have a log, in rising order.
fn numbers(runs: &Path, tier: &str) -> Result<Vec<u64>, Exit> {
    let entries = match fs::read_dir(runs) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(runs, &error)),
    };
    let number = |name: &str| run_number(name, tier).filter(|number| log_of(runs, tier, *number).exists());
    let mut found: Vec<u64> =
        entries.flatten().filter_map(|entry| number(entry.file_name().to_str()?)).collect();
    found.sort_unstable();
    Ok(found)
}

/// The number in a run's directory name. The tier `cpu` has no part in the runs of a tier `cpu-2`.
fn run_number(directory: &str, tier: &str) -> Option<u64> {
    let digits = directory.strip_prefix(tier)?.strip_prefix('-')?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn unreadable(path: &Path, error: &io::Error) -> Exit {
    let (remedy, exit) = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            ("use the account that the agent runs as, or root", Exit::NotPermitted)
        }
        _ => ("the journal may have the same lines: journalctl -t mainstay-TIER", Exit::Failed),
    };
    complain(format_args!("cannot read {}: {error}; {remedy}", path.display()));
    exit
}

/// Each line behind its time, byte for byte as it was written.
fn text(lines: &[Line]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines {
        bytes.extend_from_slice(clock::rfc3339(line.at_ms).as_bytes());
        bytes.extend_from_slice(match line.stream {
            Stream::Out | Stream::Err => b" ".as_slice(),
            Stream::Note => b" mainstay: ",
        });
        bytes.extend_from_slice(&line.bytes);
        bytes.push(b'\n');
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::ring::Writer;

    #[test]
    fn a_runs_directory_belongs_to_exactly_one_tier() {
        let check = |directory: &str, tier: &str, expected: Option<u64>| {
            assert_eq!(run_number(directory, tier), expected, "{directory} of {tier}");
        };
        check("cpu-12", "cpu", Some(12));
        check("cpu-2-1", "cpu", None);
        check("cpu-2-1", "cpu-2", Some(1));
        check("cpu-", "cpu", None);
        check("cpu-+1", "cpu", None);
        check("cpux-1", "cpu", None);
        check("cpu-99999999999999999999", "cpu", None);
        check("1", "", None);
    }

    /// Those that were dropped count too.
    #[test]
    fn what_came_faster_than_it_was_read_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = Writer::create(&path).unwrap();
        writer.push(0, Stream::Out, b"first");
        writer.flush();
        let mut open = Open::new(1, Reader::open(&path).unwrap());
        assert!(news(&mut open, &path).unwrap().ends_with(b" first\n"));
        (0..2000).for_each(|_| writer.push(0, Stream::Out, &[b'x'; 1000]));
        writer.count_dropped(30);
        writer.flush();
        let shown = String::from_utf8(news(&mut open, &path).unwrap()).unwrap();
        let (note, lines) = shown.split_once('\n').unwrap();
        let missing: usize = note.trim_end_matches(" --").rsplit(' ').next().unwrap().parse().unwrap();
        assert_eq!(missing + lines.lines().count(), 2030, "{note}");
        assert_eq!(news(&mut open, &path).unwrap(), b"");
    }

    #[test]
    fn lines_carry_their_time_and_keep_their_bytes() {
        let line = |stream: Stream, bytes: &[u8]| Line { at_ms: 1250, stream, bytes: bytes.to_vec() };
        let shown = text(&[line(Stream::Err, b"\xff ok"), line(Stream::Note, b"12 lines were dropped")]);
        let expected = b"1970-01-01T00:00:01.250Z \xff ok\n\
            1970-01-01T00:00:01.250Z mainstay: 12 lines were dropped\n";
        assert_eq!(shown, expected);
    }
}

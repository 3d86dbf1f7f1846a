//! What engines print, for whoever reads the agent's own output. Under systemd that is the journal, which the shims write to
//! themselves; anywhere else (a shell, a container, a file) the agent passes their lines on to its stderr.
use super::log;
use crate::shim::ring::{Follow, Line, Reader};
use std::path::Path;

const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";
/// Of each run, at most once a second: the newest lines, in bytes of its ring and in number.
const BYTES_MAX: u64 = 128 * 1024;
const LINES_MAX: usize = 500;

/// Where what engines print goes, beside their rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineLog {
    Nowhere,
    Journal,
    Stderr,
}

impl EngineLog {
    /// `wanted` by the configuration; the rest is the agent's standard error's to say.
    pub fn choose(wanted: bool) -> Self {
        match (wanted, log::is_journal()) {
            (false, _) => Self::Nowhere,
            (true, true) => Self::Journal,
            (true, false) => Self::Stderr,
        }
    }

    pub fn journal(self) -> Option<&'static Path> {
        (self == Self::Journal).then(|| Path::new(JOURNAL_SOCKET))
    }

    pub fn echo(self) -> Option<Echo> {
        (self == Self::Stderr).then(Echo::default)
    }
}

/// How far one run's output was passed on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo {
    /// In the ring.
    next: u64,
    /// Lines that were passed on or said to be skipped.
    told: u64,
}

impl Echo {
    /// Passes on what is new: no more than a bounded part, the newest, and the number of lines that were left out.
    pub fn turn(&mut self, log: &Path, tier: &str, run: u64) {
        let Ok(follow) = Reader::open(log).and_then(|ring| ring.newest(self.next, BYTES_MAX)) else { return };
        let told = self.told;
        let (skipped, lines) = self.take(&follow);
        if !log::engine(tier, run, skipped, lines) {
            // They are among those that the next turn says were skipped.
            self.told = told;
        }
    }

    fn take<'f>(&mut self, follow: &'f Follow) -> (u64, &'f [Line]) {
        let lines = &follow.lines[follow.lines.len().saturating_sub(LINES_MAX)..];
        let skipped = follow.so_far.saturating_sub(self.told + lines.len() as u64);
        *self = Self { next: follow.next, told: follow.so_far };
        (skipped, lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::ring::{Stream, Writer};

    #[test]
    fn the_newest_lines_are_passed_on_and_the_rest_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = Writer::create(&path).unwrap();
        let reader = Reader::open(&path).unwrap();
        let mut echo = Echo::default();
        let mut turn = |writer: &mut Writer, lines: usize, long: usize| {
            (0..lines).for_each(|n| writer.push(0, Stream::Out, format!("{n:>long$}").as_bytes()));
            writer.flush();
            let follow = reader.newest(echo.next, BYTES_MAX).unwrap();
            let (skipped, kept) = echo.take(&follow);
            let last = kept.last().map(|line| String::from_utf8_lossy(&line.bytes).trim().to_owned());
            (skipped, kept.len(), last.unwrap_or_default())
        };
        assert_eq!(turn(&mut writer, 0, 0), (0, 0, String::new()));
        assert_eq!(turn(&mut writer, 3, 0), (0, 3, "2".into()));
        // Too many, and then too long.
        assert_eq!(turn(&mut writer, 700, 0), (200, 500, "699".into()));
        let (skipped, kept, last) = turn(&mut writer, 300, 1000);
        assert_eq!((skipped + kept as u64, last.as_str()), (300, "299"));
        assert!((100..=130).contains(&kept), "{kept}");
        // More than the ring holds, and lines that never came so far.
        writer.count_dropped(40);
        let (skipped, kept, last) = turn(&mut writer, 2000, 1000);
        assert_eq!((skipped + kept as u64, last.as_str()), (2040, "1999"));
    }
}

//! The agent's own log: one line per state change on stderr, as text or JSON; and, where no journal takes them, the lines
//! of engines.
//!
//! A reader of stderr that stops reading must never stop the loop, so lines go through a bounded channel to a thread of
//! their own; what does not fit is dropped, and the next line that does fit says how many were lost. Secrets are blacked
//! out on the way in, whoever logs them.
use crate::clock;
use crate::printable;
use crate::redact::Redactor;
use crate::shim::ring::{Line, Stream};
use serde_json::json;
use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tracing::level_filters::LevelFilter;

/// Lines that may wait for a slow reader.
const WAITING_MAX: usize = 1024;
/// Bytes of engines' lines that may wait for it.
const ENGINES_WAITING_MAX: usize = 512 * 1024;

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Is standard error connected to the journal? `$JOURNAL_STREAM` names device and inode of what systemd connected; where
/// a shell or a container engine has redirected it since, they are others.
pub fn is_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let stderr = std::fs::metadata("/proc/self/fd/2");
    stderr.is_ok_and(|file| named == format!("{}:{}", file.dev(), file.ino()))
}

enum Entry {
    Line(Vec<u8>),
    /// Lines of an engine.
    Engine(Vec<u8>),
    /// Everything before it has been written once the sender hears from this.
    Mark(SyncSender<()>),
}

/// Sends lines to the writer thread; one is cloned for each line.
#[derive(Clone)]
struct Lines {
    queue: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
    redactor: Arc<Redactor>,
    format: Format,
}

impl Format {
    /// The line that says how many lines are missing before it.
    fn lost(self, lines: u64) -> String {
        let said = format!("{lines} lines of this log were dropped");
        match self {
            Self::Text => format!("({said})\n"),
            Self::Json => format!("{}\n", json!({ "level": "WARN", "message": said })),
        }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let lost = self.dropped.swap(0, Ordering::Relaxed);
        let mut whole = Vec::with_capacity(line.len() + 48);
        if lost > 0 {
            whole.extend_from_slice(self.format.lost(lost).as_bytes());
        }
        whole.extend_from_slice(&self.redactor.bytes(line));
        if self.queue.try_send(Entry::Line(whole)).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
            self.dropped.fetch_add(lost + 1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Lines of this log that nobody will ever read, since the agent began.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// The way to the writer thread for those who have no tracing to go by.
struct Writer {
    queue: SyncSender<Entry>,
    format: Format,
    /// Bytes of engines' lines that wait.
    waiting: Arc<AtomicUsize>,
}

static WRITER: OnceLock<Writer> = OnceLock::new();

/// Starts the log. Times are left out when the journal takes the lines: it has its own.
pub fn start(level: LevelFilter, format: Format, redactor: Arc<Redactor>) {
    let (queue, lines) = sync_channel(WAITING_MAX);
    let waiting = Arc::new(AtomicUsize::new(0));
    let _ = WRITER.set(Writer { queue: queue.clone(), format, waiting: Arc::clone(&waiting) });
    let spawned = std::thread::Builder::new().name("log".into()).spawn(move || {
        let form = Form { of: format, terminal: io::stderr().is_terminal() };
        write_out(&lines, &waiting, form);
    });
    if spawned.is_err() {
        return;
    }
    let writer = Lines { queue, dropped: Arc::new(AtomicU64::new(0)), redactor, format };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_target(false).with_ansi(false);
    let builder = builder.with_writer(move || writer.clone());
    match (format, is_journal()) {
        (Format::Json, _) => builder.json().flatten_event(true).init(),
        (Format::Text, true) => builder.without_time().init(),
        (Format::Text, false) => builder.init(),
    }
}

/// How lines are put on standard error.
#[derive(Clone, Copy)]
struct Form {
    of: Format,
    terminal: bool,
}

impl Form {
    /// Lines of text hold what engines, clients and upstreams wrote: a terminal must not obey it.
    fn shown(self, lines: &[u8]) -> Cow<'_, [u8]> {
        match (self.terminal, self.of) {
            (false, _) => Cow::Borrowed(lines),
            (true, Format::Text) => printable::bytes(lines),
            (true, Format::Json) => {
                Cow::Owned(printable::json(&String::from_utf8_lossy(lines)).into_owned().into_bytes())
            }
        }
    }
}

fn write_out(entries: &Receiver<Entry>, waiting: &AtomicUsize, form: Form) {
    while let Ok(entry) = entries.recv() {
        match entry {
            Entry::Line(line) => drop(io::stderr().write_all(&form.shown(&line))),
            Entry::Engine(lines) => {
                drop(io::stderr().write_all(&form.shown(&lines)));
                waiting.fetch_sub(lines.len(), Ordering::Relaxed);
            }
            Entry::Mark(written) => drop(written.send(())),
        }
    }
}

/// Passes lines of an engine on, which its shim has freed of secrets; before them were `skipped` others. Never waits: false
/// when there was no room for them.
pub fn engine(tier: &str, run: u64, skipped: u64, lines: &[Line]) -> bool {
    let Some(writer) = WRITER.get() else { return false };
    if lines.is_empty() && skipped == 0 {
        return true;
    }
    let mut text = Vec::new();
    if skipped > 0 {
        let note = format!("{skipped} lines were skipped, see `mainstay logs {tier}`");
        let at_ms = lines.first().map_or_else(clock::wall_ms, |line| line.at_ms);
        writer.format.engine(&mut text, tier, run, at_ms, Stream::Note, note.as_bytes());
    }
    for line in lines {
        writer.format.engine(&mut text, tier, run, line.at_ms, line.stream, &line.bytes);
    }
    let len = text.len();
    let before = writer.waiting.fetch_add(len, Ordering::Relaxed);
    let taken = before + len <= ENGINES_WAITING_MAX && writer.queue.try_send(Entry::Engine(text)).is_ok();
    if !taken {
        writer.waiting.fetch_sub(len, Ordering::Relaxed);
    }
    taken
}

impl Format {
    /// One line of an engine, as `tier | line`, or as an object like those of the agent itself.
    fn engine(self, text: &mut Vec<u8>, tier: &str, run: u64, at_ms: i64, stream: Stream, line: &[u8]) {
        let stream = match stream {
            Stream::Out => "stdout",
            Stream::Err => "stderr",
            Stream::Note => "mainstay",
        };
        match self {
            Self::Text => {
                text.extend_from_slice(tier.as_bytes());
                text.extend_from_slice(b" | ");
                if stream == "mainstay" {
                    text.extend_from_slice(b"mainstay: ");
                }
                text.extend_from_slice(line);
            }
            Self::Json => {
                let (timestamp, message) = (clock::rfc3339(at_ms), String::from_utf8_lossy(line));
                let object = json!({
                    "timestamp": timestamp, "level": "INFO", "message": message, "tier": tier, "run": run,
                    "stream": stream,
                });
                text.extend_from_slice(object.to_string().as_bytes());
            }
        }
        text.push(b'\n');
    }
}

/// Waits until what was logged has been written, for the last words before an exit; not for ever, because the reader
/// of stderr may have stopped.
pub fn settle() {
    let Some(writer) = WRITER.get() else { return };
    let (written, heard) = sync_channel(1);
    if writer.queue.try_send(Entry::Mark(written)).is_ok() {
        let _ = heard.recv_timeout(Duration::from_millis(500));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_commanded_and_a_file_gets_each_byte() {
        let line = "cpu | \x1b]0;owned\x07 \u{202e}\n".as_bytes();
        let shown = |of, terminal| String::from_utf8(Form { of, terminal }.shown(line).into_owned()).unwrap();
        assert_eq!(shown(Format::Text, false).as_bytes(), line);
        assert_eq!(shown(Format::Json, false).as_bytes(), line);
        assert_eq!(shown(Format::Text, true), "cpu | \\x1b]0;owned\\x07 \\u202e\n");
        let object = "{\"message\":\"\u{9b}31m\u{202e}\"}\n".as_bytes();
        let shown = Form { of: Format::Json, terminal: true }.shown(object).into_owned();
        assert_eq!(String::from_utf8(shown).unwrap(), "{\"message\":\"\\u009b31m\\u202e\"}\n");
    }
}

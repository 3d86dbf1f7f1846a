//! The agent's own log: one line per state change on stderr, as text or JSON.
//!
//! A reader of stderr that stops reading must never stop the loop, so lines go through a bounded channel to a thread of
//! their own; what does not fit is dropped, and the next line that does fit says how many were lost.
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tracing::level_filters::LevelFilter;

/// Lines that may wait for a slow reader.
const WAITING_MAX: usize = 1024;

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

enum Entry {
    Line(Vec<u8>),
    /// Everything before it has been written once the sender hears from this.
    Mark(SyncSender<()>),
}

/// Sends lines to the writer thread; one is cloned for each line.
#[derive(Clone)]
struct Lines {
    queue: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let lost = self.dropped.swap(0, Ordering::Relaxed);
        let mut whole = Vec::with_capacity(line.len() + 48);
        if lost > 0 {
            whole.extend_from_slice(format!("({lost} lines of this log were dropped)\n").as_bytes());
        }
        whole.extend_from_slice(line);
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

static QUEUE: OnceLock<SyncSender<Entry>> = OnceLock::new();

/// Starts the log. Times are left out when the journal takes the lines: it has its own.
pub fn start(level: LevelFilter, format: Format) {
    let (queue, lines) = sync_channel(WAITING_MAX);
    let _ = QUEUE.set(queue.clone());
    let spawned = std::thread::Builder::new().name("log".into()).spawn(move || write_out(&lines));
    if spawned.is_err() {
        return;
    }
    let writer = Lines { queue, dropped: Arc::new(AtomicU64::new(0)) };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_target(false).with_ansi(false);
    let builder = builder.with_writer(move || writer.clone());
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    match (format, journal) {
        (Format::Json, _) => builder.json().flatten_event(true).init(),
        (Format::Text, true) => builder.without_time().init(),
        (Format::Text, false) => builder.init(),
    }
}

fn write_out(entries: &Receiver<Entry>) {
    while let Ok(entry) = entries.recv() {
        match entry {
            Entry::Line(line) => drop(io::stderr().write_all(&line)),
            Entry::Mark(written) => drop(written.send(())),
        }
    }
}

/// Waits until what was logged has been written, for the last words before an exit; not for ever, because the reader
/// of stderr may have stopped.
pub fn settle() {
    let Some(queue) = QUEUE.get() else { return };
    let (written, heard) = sync_channel(1);
    if queue.try_send(Entry::Mark(written)).is_ok() {
        let _ = heard.recv_timeout(Duration::from_millis(500));
    }
}

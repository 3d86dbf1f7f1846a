//! `exit.json`: how a run ended, for an agent that was not there. Written whole, by rename, when the main process is
//! reaped and again when the rest has ended.
use super::protocol::{Exited, RECORD};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Most that the last lines take, in bytes of the engine's output.
pub(super) const LAST_LINES_MAX: usize = 128 * 1024;

/// Fields that a version does not know are ignored; those added later are optional.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    pub run: u64,
    pub nonce: String,
    pub boot_id: String,
    /// The engine's main process; absent when it could not be started.
    #[serde(default)]
    pub pid: Option<u32>,
    /// Why there never was one.
    #[serde(default)]
    pub start_error: Option<String>,
    #[serde(default)]
    pub exit: Option<Exited>,
    /// CPU time of the main process and of those children that it reaped, in milliseconds.
    #[serde(default)]
    pub user_ms: u64,
    #[serde(default)]
    pub system_ms: u64,
    /// The largest resident set among them.
    #[serde(default)]
    pub max_rss_bytes: u64,
    /// Wall clock, milliseconds since 1970.
    pub started_ms: i64,
    /// When nothing was left of the run any more; absent while something is.
    #[serde(default)]
    pub ended_ms: Option<i64>,
    /// What withstood KILL for the whole reap deadline.
    #[serde(default)]
    pub left: Vec<u32>,
    #[serde(default)]
    pub lines_dropped: u64,
    /// The engine's last lines, oldest first; invalid UTF-8 is replaced here (not in the log).
    #[serde(default)]
    pub last_lines: Vec<String>,
}

impl ExitRecord {
    /// Reads the record of the run that has this directory.
    pub fn read(run_dir: &Path) -> io::Result<Self> {
        let text = std::fs::read(run_dir.join(RECORD))?;
        serde_json::from_slice(&text).map_err(io::Error::from)
    }

    /// Without fsync: the runtime directory is a tmpfs, and on a disk one must not wait for it here. A record lost with
    /// the machine's power would be of another boot anyway.
    pub(super) fn write(&self, run_dir: &Path) -> io::Result<()> {
        let new = run_dir.join("exit.json.new");
        let mut file = BufWriter::new(File::create(&new)?);
        serde_json::to_writer(&mut file, self)?;
        file.write_all(b"\n")?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?;
        std::fs::rename(new, run_dir.join(RECORD))
    }
}

//! The incidents on disk: one file each in `incidents/` of the state directory, the newest 100 and at most 64 MiB.
//!
//! A file is written beside its place and then renamed, so a crash leaves the record as it was before or as it is now,
//! never half of it.
use super::record::Record;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Records that are kept.
pub const RECORDS_MAX: usize = 100;
/// What all of them may take, in bytes.
pub const BYTES_MAX: u64 = 64 << 20;
/// One record: with 200 lines of timeline and 200 of a log it stays far below.
const RECORD_MAX: u64 = 4 << 20;
/// Records hold log lines: readable by the agent's group, by nobody else.
const MODE: u32 = 0o640;

/// Makes the state directory this agent's alone, unless it is already; an error says why it cannot. Before that nothing is
/// written there, and no mail sent from it.
pub type Ground = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Makes nothing.
    pub fn at(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("incidents") }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The numbers of the kept records, the oldest first. None when there is no directory yet.
    ///
    /// # Errors
    /// When the directory is there and cannot be read.
    pub fn ids(&self) -> io::Result<Vec<u64>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut ids: Vec<u64> = entries.filter_map(|entry| number(&entry.ok()?.path())).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// # Errors
    /// `NotFound` when it is not kept (any more); `InvalidData` when its file is damaged.
    pub fn load(&self, id: u64) -> io::Result<Record> {
        let path = self.path(id);
        let named = |why: io::Error| io::Error::new(why.kind(), format!("{}: {why}", path.display()));
        let mut text = Vec::new();
        File::open(&path).and_then(|f| f.take(RECORD_MAX).read_to_end(&mut text)).map_err(named)?;
        serde_json::from_slice(&text).map_err(|why| named(io::Error::from(why)))
    }

    /// Every record that can be read, the oldest first. A damaged file is left where it is, and out.
    ///
    /// # Errors
    /// As [`Store::ids`].
    pub fn load_all(&self) -> io::Result<Vec<Record>> {
        Ok(self.ids()?.into_iter().filter_map(|id| self.load(id).ok()).collect())
    }

    /// Writes a record in the place of what was there, and lets the oldest ones go where there are too many, those that are
    /// not over last.
    ///
    /// # Errors
    /// When it cannot be written; what was there is still there.
    pub fn save(&self, record: &Record) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(record)?;
        replace(&self.path(record.id), &text)?;
        self.prune()
    }

    fn path(&self, id: u64) -> PathBuf {
        // Ten digits keep `ls` in order.
        self.dir.join(format!("{id:010}.json"))
    }

    fn prune(&self) -> io::Result<()> {
        let ids = self.ids()?;
        let (mut kept, mut bytes) = (0, 0);
        for id in ids.iter().rev() {
            let path = self.path(*id);
            let size = fs::metadata(&path).map_or(0, |m| m.len());
            let is_too_many = |records: usize, bytes: u64| kept >= records || bytes + size > BYTES_MAX;
            // One tier has one open incident, so these are few.
            let goes = is_too_many(RECORDS_MAX, bytes)
                && (is_too_many(2 * RECORDS_MAX, 0) || !self.load(*id).is_ok_and(|record| record.is_open()));
            if goes {
                fs::remove_file(&path)?;
            } else {
                (kept, bytes) = (kept + 1, bytes + size);
            }
        }
        Ok(())
    }
}

/// Writes `text` as the file at `path`: whole or not at all, also when the machine stops. Makes its directory.
///
/// # Errors
/// When it cannot be; the old file is untouched.
pub(super) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let write = || -> io::Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&new)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|why| io::Error::new(why.kind(), format!("cannot write {}: {why}", path.display())))
}

fn number(path: &Path) -> Option<u64> {
    let is_record = path.extension()? == "json";
    path.file_stem()?.to_str()?.parse().ok().filter(|_| is_record)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u64) -> Record {
        let closed = Some("2026-11-23T03:16:16.500Z".to_owned());
        Record { id, tier: "primary".to_owned(), closed, ..Record::default() }
    }

    #[test]
    fn what_was_saved_is_loaded_and_the_newest_are_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::at(dir.path());
        assert!(store.ids().expect("no directory is no records").is_empty());
        for id in 1..=130 {
            store.save(&record(id)).expect("a writable directory");
        }
        let ids = store.ids().expect("a directory");
        assert_eq!((ids.len(), ids[0], ids[99]), (100, 31, 130));
        assert_eq!(store.load(77).expect("a record"), record(77));
        assert_eq!(store.load(30).expect_err("it was pruned").kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_is_not_over_is_kept_while_others_come_and_go() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::at(dir.path());
        let open = Record { closed: None, ..record(1) };
        store.save(&open).expect("a writable directory");
        for id in 2..=250 {
            store.save(&record(id)).expect("a writable directory");
        }
        assert_eq!(store.load(1).expect("it is kept"), open);
        assert_eq!(store.ids().expect("a directory").len(), 101);
    }

    #[test]
    fn a_damaged_file_hides_no_other_and_half_a_write_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::at(dir.path());
        for id in 1..=3 {
            store.save(&record(id)).expect("a writable directory");
        }
        fs::write(store.path(2), "{\"id\": 2, ").expect("a writable file");
        fs::write(store.dir().join("0000000004.new"), "{\"id\"").expect("a writable file");
        let ids: Vec<u64> = store.load_all().expect("a directory").iter().map(|r| r.id).collect();
        assert_eq!(ids, [1, 3]);
    }

    #[test]
    fn what_cannot_be_written_says_where() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("incidents"), "no directory").expect("a writable file");
        let why = Store::at(dir.path()).save(&record(1)).expect_err("a file is in the way");
        assert!(why.to_string().contains("incidents/0000000001.json"), "{why}");
    }
}

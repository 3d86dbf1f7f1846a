//! The events on disk, so that their numbers go on and a follower misses nothing when the agent is replaced:
//! `events.jsonl` in the state directory, one JSON object a line, and the file before it. Not synced: what a power
//! failure takes are the last lines, and a torn one is skipped.
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// One file; there are two at most.
const FILE_MAX: u64 = 2 << 20;

#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Option<File>,
    length: u64,
}

impl Journal {
    /// Opens nothing yet.
    pub fn at(state_dir: &Path) -> Self {
        Self { path: state_dir.join("events.jsonl"), file: None, length: 0 }
    }

    /// The last `most` lines that were written, the oldest first. A damaged file is as good as none.
    pub fn tail(&self, most: usize) -> Vec<String> {
        let mut text = Vec::new();
        for path in [self.before(), self.path.clone()] {
            let Ok(mut file) = File::open(path) else { continue };
            // What is larger was not written by us.
            let from = file.metadata().map_or(0, |m| m.len().saturating_sub(2 * FILE_MAX));
            let read = file.seek(SeekFrom::Start(from)).and_then(|_| file.read_to_end(&mut text));
            if read.is_ok() && text.last().is_some_and(|last| *last != b'\n') {
                text.push(b'\n');
            }
        }
        let text = String::from_utf8_lossy(&text);
        let whole = text.lines().filter(|line| line.starts_with('{') && line.ends_with('}'));
        let lines: Vec<String> = whole.map(str::to_owned).collect();
        lines[lines.len().saturating_sub(most)..].to_vec()
    }

    /// # Errors
    /// When it cannot be written; the line is lost, the next one is tried again.
    pub fn append(&mut self, line: &str) -> io::Result<()> {
        let written = self.write(line);
        if written.is_err() {
            self.file = None;
        }
        written
            .map_err(|why| io::Error::new(why.kind(), format!("cannot write {}: {why}", self.path.display())))
    }

    /// In one piece: whatever happens to the agent, the line is there or it is not.
    fn write(&mut self, line: &str) -> io::Result<()> {
        if self.length > FILE_MAX {
            self.file = None;
            match fs::rename(&self.path, self.before()) {
                // Somebody else has moved it.
                Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
                Ok(()) | Err(_) => self.length = 0,
            }
        }
        let whole = format!("{line}\n");
        self.open()?.write_all(whole.as_bytes())?;
        self.length += whole.len() as u64;
        Ok(())
    }

    fn open(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            let mut file = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)?;
            self.length = file.metadata()?.len();
            // Whatever was torn off in a crash ends here.
            if self.length > 0 && !ends_with_newline(&self.path)? {
                file.write_all(b"\n")?;
            }
            self.file = Some(file);
        }
        self.file.as_mut().ok_or_else(|| io::Error::other("it was just opened"))
    }

    fn before(&self) -> PathBuf {
        self.path.with_extension("jsonl.1")
    }
}

fn ends_with_newline(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(dir: &Path, numbers: std::ops::Range<u64>) -> Journal {
        let mut journal = Journal::at(dir);
        for seq in numbers {
            journal.append(&format!("{{\"seq\":{seq}}}")).expect("a writable directory");
        }
        journal
    }

    #[test]
    fn what_one_wrote_the_next_one_reads_and_goes_on() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(Journal::at(dir.path()).tail(5), Vec::<String>::new());
        drop(filled(dir.path(), 1..4));
        // A crash in the middle of a line.
        let path = dir.path().join("events.jsonl");
        let torn =
            OpenOptions::new().append(true).open(&path).and_then(|mut f| f.write_all(b"{\"seq\":4,\"k"));
        torn.expect("a writable file");
        let journal = filled(dir.path(), 5..7);
        let expected: Vec<String> = [2, 3, 5, 6].iter().map(|n| format!("{{\"seq\":{n}}}")).collect();
        assert_eq!(journal.tail(4), expected);
    }

    #[test]
    fn it_does_not_grow_for_ever_and_keeps_the_newest() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut journal = Journal::at(dir.path());
        let filler = "x".repeat(1_000);
        for seq in 0..10_000 {
            journal.append(&format!("{{\"seq\":{seq},\"t\":\"{filler}\"}}")).expect("a writable directory");
        }
        let bytes: u64 = fs::read_dir(dir.path())
            .expect("a directory")
            .map(|entry| entry.expect("an entry").metadata().expect("its metadata").len())
            .sum();
        assert!(bytes <= 2 * FILE_MAX + 2_000, "{bytes}");
        let last = journal.tail(2_000);
        assert_eq!(last.len(), 2_000);
        assert!(last[1_999].starts_with("{\"seq\":9999,"), "{}", &last[1_999][..20]);
    }
}

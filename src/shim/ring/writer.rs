//! The shim's end of the ring. Nothing here can fail or wait: what cannot be written is counted.
use super::{
    BATCH_MAX, DATA_AT, FILE_LEN, Header, RECORD_HEAD, Stream, Totals, decode_head, encode, record_len,
};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How many of the engine's last lines [`Writer::tail`] can give back.
const TAIL_LINES: usize = 200;

/// Writes the log of one run.
#[derive(Debug)]
pub struct Writer {
    /// `None`: there is no file, and every line counts as dropped.
    file: Option<File>,
    capacity: u64,
    totals: Totals,
    batch: Vec<u8>,
    batch_lines: u64,
    /// Offsets of the engine's last lines, the shim's own notes left out.
    recent: VecDeque<u64>,
}

impl Writer {
    /// Makes the file anew and takes all its space. The error is for a note somewhere; see [`Writer::without_file`].
    pub fn create(path: &Path) -> io::Result<Self> {
        Self::of_len(path, FILE_LEN)
    }

    /// The same, with a file of this many bytes.
    pub fn of_len(path: &Path, len: u64) -> io::Result<Self> {
        let _ = std::fs::remove_file(path);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
        // A filesystem without fallocate may run out of space later: then lines are counted as dropped.
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len) {
            Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(len)?,
            answer => answer?,
        }
        let mut writer = Self::without_file();
        (writer.file, writer.capacity) = (Some(file), len - DATA_AT);
        writer.write_header()?;
        Ok(writer)
    }

    /// A writer that only counts: an engine does not go unstarted because its log has no place.
    pub fn without_file() -> Self {
        Self {
            file: None,
            capacity: FILE_LEN - DATA_AT,
            totals: Totals::default(),
            batch: Vec::new(),
            batch_lines: 0,
            recent: VecDeque::with_capacity(TAIL_LINES),
        }
    }

    /// Adds a line. It can be read after the next [`Writer::flush`].
    pub fn push(&mut self, at_ms: i64, stream: Stream, line: &[u8]) {
        if self.file.is_none() {
            self.totals.dropped += 1;
            return;
        }
        if self.batch.len() + record_len(line.len()) > BATCH_MAX {
            self.flush();
        }
        let offset = self.totals.end + self.batch.len() as u64;
        encode(&mut self.batch, offset, at_ms, stream, line);
        self.batch_lines += 1;
        if stream != Stream::Note {
            if self.recent.len() == TAIL_LINES {
                self.recent.pop_front();
            }
            self.recent.push_back(offset);
        }
    }

    /// Begins anew, as if nothing had been written; readers see that from the next flush on.
    pub fn restart(&mut self) {
        self.totals = Totals::default();
        (self.batch_lines, self.batch) = (0, Vec::new());
        self.recent.clear();
    }

    /// Does a line of so many bytes fit without one of before being overwritten?
    pub fn has_room(&self, line: usize) -> bool {
        let taken = self.totals.end + (self.batch.len() + record_len(line)) as u64;
        // A reader takes what the writer's next batch could touch for overwritten.
        taken + BATCH_MAX as u64 <= self.capacity
    }

    /// Counts lines that somebody else had to drop.
    pub fn count_dropped(&mut self, lines: u64) {
        self.totals.dropped += lines;
    }

    /// Makes what was pushed readable.
    pub fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let before = self.totals;
        self.totals.end += self.batch.len() as u64;
        self.totals.lines += self.batch_lines;
        if self.write_batch(before.end).and_then(|()| self.write_header()).is_err() {
            // What was half written lies where a reader does not look, and the next batch goes over it.
            self.totals = before;
            self.totals.dropped += self.batch_lines;
            self.recent.retain(|offset| *offset < before.end);
        }
        self.batch.clear();
        self.batch_lines = 0;
    }

    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The engine's last lines, oldest first: at most 200, and at most `bytes_max` bytes in all.
    pub fn tail(&mut self, bytes_max: usize) -> Vec<Vec<u8>> {
        self.flush();
        let (mut lines, mut bytes) = (VecDeque::new(), 0);
        for offset in self.recent.iter().rev() {
            let Some(line) = self.line_at(*offset) else { break };
            bytes += line.len();
            if bytes > bytes_max {
                break;
            }
            lines.push_front(line);
        }
        lines.into()
    }

    fn line_at(&self, offset: u64) -> Option<Vec<u8>> {
        // Overwritten since.
        if self.totals.end - offset > self.capacity {
            return None;
        }
        let mut head = [0; RECORD_HEAD];
        self.read(&mut head, offset)?;
        let head = decode_head(&head, offset)?;
        let mut line = vec![0; head.len];
        self.read(&mut line, offset + RECORD_HEAD as u64)?;
        Some(line)
    }

    fn read(&self, bytes: &mut [u8], offset: u64) -> Option<()> {
        let file = self.file.as_ref()?;
        let place = offset % self.capacity;
        let first = bytes.len().min((self.capacity - place) as usize);
        let (head, tail) = bytes.split_at_mut(first);
        file.read_exact_at(head, DATA_AT + place).ok()?;
        file.read_exact_at(tail, DATA_AT).ok()
    }

    fn write_batch(&self, offset: u64) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let place = offset % self.capacity;
        let first = self.batch.len().min((self.capacity - place) as usize);
        let (head, tail) = self.batch.split_at(first);
        file.write_all_at(head, DATA_AT + place)?;
        file.write_all_at(tail, DATA_AT)
    }

    fn write_header(&self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        file.write_all_at(&Header { capacity: self.capacity, totals: self.totals }.encode(), 0)
    }
}

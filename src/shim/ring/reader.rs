//! Reading a ring while its writer goes on, or after it is gone.
use super::{
    ALIGN, BATCH_MAX, DATA_AT, HEADER_LEN, Header, Line, RECORD_HEAD, Totals, decode_head, record_len,
};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How often a torn header is read anew. Each try is another chance of one in thousands to be torn again.
const HEADER_TRIES: usize = 8;
/// How often a read is begun anew because the writer overwrote all of it meanwhile: it does only where the reader had to
/// wait for a CPU in the midst of it.
const LAPPED_TRIES: usize = 16;

/// Reads the log of one run. Every method looks at the file as it is now.
#[derive(Debug)]
pub struct Reader {
    file: File,
}

/// What has been written since an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follow {
    pub lines: Vec<Line>,
    /// Where to go on.
    pub next: u64,
    /// Lines that the log ever had up to there, those that were dropped or overwritten too.
    pub so_far: u64,
    /// Of those, the ones that were dropped and never came into the file.
    pub dropped: u64,
    /// Lines between the offset asked for and the first one here had been overwritten.
    pub missed: bool,
}

impl Reader {
    /// Opens a log. `InvalidData` when the file is not one.
    pub fn open(path: &Path) -> io::Result<Self> {
        let reader = Self { file: File::open(path)? };
        reader.header()?;
        Ok(reader)
    }

    /// How much was written and dropped so far.
    pub fn totals(&self) -> io::Result<Totals> {
        Ok(self.header()?.totals)
    }

    /// The last `n` lines, oldest first; fewer when there are no more.
    pub fn last(&self, n: usize) -> io::Result<Vec<Line>> {
        Ok(self.tail(n)?.lines)
    }

    /// The last `n` lines. Missed are older ones, if there are fewer than `n` for that reason.
    pub fn tail(&self, n: usize) -> io::Result<Follow> {
        let capacity = self.header()?.capacity;
        // The less is read, the less a flood can overwrite meanwhile.
        let mut bytes_max = BATCH_MAX as u64;
        loop {
            let mut tail = self.newest(0, bytes_max)?;
            if let Some(more) = tail.lines.len().checked_sub(n) {
                tail.lines.drain(..more);
                tail.missed = false;
            }
            if !tail.missed || bytes_max >= capacity {
                return Ok(tail);
            }
            bytes_max *= 4;
        }
    }

    /// Everything that is there from offset `from` on: 0, or an earlier answer's `next`. A beginning that was
    /// overwritten is left out, and said so.
    pub fn follow(&self, from: u64) -> io::Result<Follow> {
        self.newest(from, u64::MAX)
    }

    /// [`Self::follow`], but no more than the newest `bytes_max` bytes of the file: what lies before them is missed.
    pub fn newest(&self, from: u64, bytes_max: u64) -> io::Result<Follow> {
        let (mut follow, mut looked_at) = self.look(from, bytes_max)?;
        for _ in 1..LAPPED_TRIES {
            if !(follow.lines.is_empty() && looked_at > 0) {
                break;
            }
            // The writer went all the way round meanwhile: be quicker.
            (follow, looked_at) = self.look(from, bytes_max.min((looked_at / 2).max(BATCH_MAX as u64)))?;
        }
        Ok(follow)
    }

    /// One look at the newest `bytes_max` bytes from `from` on: what was whole in them, and how many bytes they were.
    fn look(&self, from: u64, bytes_max: u64) -> io::Result<(Follow, u64)> {
        let Header { capacity, totals } = self.header()?;
        let end = totals.end;
        // A log that ends before the offset is another one than the caller knew.
        let from = if from > end { 0 } else { from.next_multiple_of(ALIGN as u64) };
        let newest = end.saturating_sub(bytes_max).next_multiple_of(ALIGN as u64);
        let begin = from.max(oldest(end, capacity)).max(newest.min(end));
        let bytes = self.read(begin, end, capacity)?;
        // The writer went on meanwhile, and may be in the middle of a batch: what that can touch does not count.
        let begin_now = begin.max(oldest(self.header()?.totals.end, capacity));

        let mut lines = Vec::new();
        let mut offset = begin_now.min(end);
        while offset < end {
            let rest = &bytes[(offset - begin) as usize..];
            let record = decode_head(rest, offset)
                .and_then(|head| Some((rest.get(RECORD_HEAD..RECORD_HEAD + head.len)?.to_vec(), head)));
            match record {
                Some((bytes, head)) => {
                    offset += record_len(bytes.len()) as u64;
                    lines.push(Line { at_ms: head.at_ms, stream: head.stream, bytes });
                }
                None => offset += ALIGN as u64,
            }
        }
        let Totals { lines: written, dropped, .. } = totals;
        let missed = begin_now > from;
        Ok((Follow { lines, next: end, so_far: written + dropped, dropped, missed }, end - begin))
    }

    fn read(&self, begin: u64, end: u64, capacity: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; (end - begin) as usize];
        let place = begin % capacity;
        let first = bytes.len().min((capacity - place) as usize);
        let (head, tail) = bytes.split_at_mut(first);
        self.file.read_exact_at(head, DATA_AT + place)?;
        self.file.read_exact_at(tail, DATA_AT)?;
        Ok(bytes)
    }

    fn header(&self) -> io::Result<Header> {
        for _ in 0..HEADER_TRIES {
            let mut bytes = [0; HEADER_LEN];
            match self.file.read_exact_at(&mut bytes, 0) {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => break,
                answer => answer?,
            }
            if let Some(header) = Header::decode(&bytes) {
                return Ok(header);
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "not a log of mainstay"))
    }
}

/// The first offset that the writer does not touch before it has announced more than `end`.
fn oldest(end: u64, capacity: u64) -> u64 {
    (end + BATCH_MAX as u64).saturating_sub(capacity)
}

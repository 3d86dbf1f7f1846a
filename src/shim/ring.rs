//! The log of one run: the last 1 MiB of its lines in a file that is written at one end and may be read at any time.
//!
//! The file is preallocated and written with pwrite(2), never mapped: on a full tmpfs a write fails and is counted,
//! where a mapped page would be a SIGBUS in the one process that may not die.
//!
//! Layout, little-endian: a header of 56 bytes, data from byte 4096 on. Offsets count bytes of data since the beginning;
//! offset `o` lies at `o % capacity`. A record is `own offset u64, wall clock ms i64, length u16, stream u8, 0 u8,
//! RECORD_MAGIC u32`, the bytes of the line, and zeroes up to a multiple of 8. Because every record names its own
//! offset, a reader finds the first whole one by looking, and takes no stale or torn one for real.
//!
//! The writer puts down at most [`BATCH_MAX`] bytes of data, then the header. So whatever is at least that much younger
//! than a full round is safe to read while the writer goes on.
mod reader;
mod writer;

pub use reader::{Follow, Reader};
pub use writer::Writer;

/// One line of a run's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Wall clock, milliseconds since 1970.
    pub at_ms: i64,
    pub stream: Stream,
    /// As the engine wrote it: not necessarily UTF-8; no line end.
    pub bytes: Vec<u8>,
}

/// Who wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
    /// The shim itself, about the log or the run.
    Note,
}

impl Stream {
    const fn letter(self) -> u8 {
        match self {
            Self::Out => b'o',
            Self::Err => b'e',
            Self::Note => b'm',
        }
    }

    const fn of_letter(letter: u8) -> Option<Self> {
        match letter {
            b'o' => Some(Self::Out),
            b'e' => Some(Self::Err),
            b'm' => Some(Self::Note),
            _ => None,
        }
    }
}

/// What the header says about the log as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of data ever written: the offset at which the next record will begin.
    pub end: u64,
    pub lines: u64,
    /// Lines that were skipped because they came too fast, or that could not be written.
    pub dropped: u64,
}

const MAGIC: &[u8; 8] = b"mainstay";
const VERSION: u32 = 1;
const HEADER_LEN: usize = 56;
const DATA_AT: u64 = 4096;
const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"line");
const RECORD_HEAD: usize = 24;
/// Records begin at multiples of this.
const ALIGN: usize = 8;
/// Most that is written between two headers, in bytes.
const BATCH_MAX: usize = 64 * 1024;
/// Of the file, header included.
const FILE_LEN: u64 = 1024 * 1024;
/// The same, of the file that keeps how trouble began.
pub(super) const ONSET_LEN: u64 = 256 * 1024;
/// A header that asks for more is not ours.
const CAPACITY_MAX: u64 = 64 * 1024 * 1024;

struct Header {
    capacity: u64,
    totals: Totals,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(DATA_AT as u32).to_le_bytes());
        let Totals { end, lines, dropped } = self.totals;
        for (place, value) in [self.capacity, end, lines, dropped].iter().enumerate() {
            bytes[16 + place * 8..24 + place * 8].copy_from_slice(&value.to_le_bytes());
        }
        let check = checksum(&bytes[..HEADER_LEN - 8]);
        bytes[HEADER_LEN - 8..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// `None` for anything but a whole header of this version.
    fn decode(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        let version = (VERSION as u64) | (DATA_AT << 32);
        let whole = &bytes[..8] == MAGIC
            && word(8) == version
            && word(HEADER_LEN - 8) == checksum(&bytes[..HEADER_LEN - 8]);
        let capacity = word(16);
        let sane = (BATCH_MAX as u64 * 2..=CAPACITY_MAX).contains(&capacity) && capacity % ALIGN as u64 == 0;
        (whole && sane)
            .then(|| Self { capacity, totals: Totals { end: word(24), lines: word(32), dropped: word(40) } })
    }
}

/// FNV-1a. Tells a torn header from a whole one; nobody here is an adversary.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// Length of the whole record of a line, padding included.
const fn record_len(line: usize) -> usize {
    (RECORD_HEAD + line).next_multiple_of(ALIGN)
}

/// Appends a record to `batch`; a line longer than a record can hold is cut.
fn encode(batch: &mut Vec<u8>, offset: u64, at_ms: i64, stream: Stream, line: &[u8]) {
    let line = &line[..line.len().min(usize::from(u16::MAX) - ALIGN)];
    let begins = batch.len();
    batch.extend_from_slice(&offset.to_le_bytes());
    batch.extend_from_slice(&at_ms.to_le_bytes());
    batch.extend_from_slice(&(line.len() as u16).to_le_bytes());
    batch.extend_from_slice(&[stream.letter(), 0]);
    batch.extend_from_slice(&RECORD_MAGIC.to_le_bytes());
    batch.extend_from_slice(line);
    batch.resize(begins + record_len(line.len()), 0);
}

struct RecordHead {
    at_ms: i64,
    stream: Stream,
    len: usize,
}

/// `None` unless these bytes are the head of the record that belongs at `offset`.
fn decode_head(bytes: &[u8], offset: u64) -> Option<RecordHead> {
    let bytes: &[u8; RECORD_HEAD] = bytes.get(..RECORD_HEAD)?.try_into().ok()?;
    let ours = bytes[..8] == offset.to_le_bytes() && bytes[20..24] == RECORD_MAGIC.to_le_bytes();
    let stream = Stream::of_letter(bytes[18])?;
    ours.then(|| RecordHead {
        at_ms: i64::from_le_bytes(bytes[8..16].try_into().unwrap_or_default()),
        stream,
        len: usize::from(u16::from_le_bytes([bytes[16], bytes[17]])),
    })
}

#[cfg(test)]
mod tests;

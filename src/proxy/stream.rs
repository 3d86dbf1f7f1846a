//! PURE. Cutting a byte stream into server-sent events, or into lines, and reading what one event says.
use crate::kinds::{self, Endpoint, Verdict};
use bytes::{Bytes, BytesMut};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// An event or line grew past the limit: the stream cannot be trusted any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// What ends a piece of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// A blank line (server-sent events).
    BlankLine,
    /// Every line end (NDJSON).
    Line,
}

/// Cuts a stream into pieces, whatever the boundaries of the chunks it comes in. Pieces keep their line ends: joined,
/// they are the stream.
#[derive(Debug)]
pub(super) struct Splitter {
    cut: Cut,
    longest: usize,
    held: BytesMut,
    /// So much of the piece being read was handed on before its end.
    let_go: Option<usize>,
    /// The line being read has no byte yet.
    line_empty: bool,
    /// The last byte was a carriage return: a line feed now belongs to the same line end.
    after_return: bool,
}

impl Splitter {
    pub fn new(cut: Cut, longest: usize) -> Self {
        Self { cut, longest, held: BytesMut::new(), let_go: None, line_empty: true, after_return: false }
    }

    /// The memory that the piece being read takes.
    pub fn held(&self) -> usize {
        self.held.capacity()
    }

    /// The piece being read as far as it came. The rest of it has to be asked for with `rest_of`.
    pub fn let_go(&mut self) -> Option<Bytes> {
        let part = self.rest()?;
        self.let_go = Some(self.let_go.unwrap_or(0) + part.len());
        Some(part)
    }

    /// The end of the piece that was let go is still to come.
    pub fn is_letting_go(&self) -> bool {
        self.let_go.is_some()
    }

    /// What of `data` belongs to a piece that was let go; it is taken off `data`.
    pub fn rest_of(&mut self, data: &mut Bytes) -> Result<Option<Bytes>, TooLong> {
        let Some(before) = self.let_go else { return Ok(None) };
        let end = data.iter().position(|&byte| self.ends_piece(byte)).map(|at| at + 1);
        let part = data.split_to(end.unwrap_or(data.len()));
        self.let_go = end.is_none().then_some(before + part.len());
        if before + part.len() > self.longest { Err(TooLong) } else { Ok(Some(part)) }
    }

    /// The pieces that `data` completes.
    pub fn push(&mut self, data: &Bytes) -> Result<Vec<Bytes>, TooLong> {
        let mut pieces = Vec::new();
        let mut start = 0;
        for (at, &byte) in data.iter().enumerate() {
            if self.ends_piece(byte) {
                let tail = data.slice(start..=at);
                start = at + 1;
                pieces.push(if self.held.is_empty() {
                    tail
                } else {
                    self.held.extend_from_slice(&tail);
                    self.taken()
                });
            }
        }
        self.held.extend_from_slice(&data[start..]);
        if self.held.len() > self.longest { Err(TooLong) } else { Ok(pieces) }
    }

    /// What came after the last complete piece.
    pub fn rest(&mut self) -> Option<Bytes> {
        (!self.held.is_empty()).then(|| self.taken())
    }

    /// Not `split`: the room behind it would keep all of its memory for as long as the stream lasts.
    fn taken(&mut self) -> Bytes {
        std::mem::take(&mut self.held).freeze()
    }

    fn ends_piece(&mut self, byte: u8) -> bool {
        let second_half = byte == b'\n' && self.after_return;
        self.after_return = byte == b'\r';
        if second_half {
            return false;
        }
        if byte != b'\n' && byte != b'\r' {
            self.line_empty = false;
            return false;
        }
        let blank = self.line_empty;
        self.line_empty = true;
        match self.cut {
            Cut::BlankLine => blank,
            Cut::Line => !blank,
        }
    }
}

/// The `data` of a server-sent event; `None` for one that has none (a comment, a ping).
pub(super) fn data_of(event: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut data: Option<Cow<'_, [u8]>> = None;
    for line in event.split(|&b| b == b'\n' || b == b'\r') {
        let Some(value) = line.strip_prefix(b"data:") else { continue };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &mut data {
            None => data = Some(Cow::Borrowed(value)),
            // In place: an event may have a million lines.
            Some(data) => {
                let data = data.to_mut();
                data.push(b'\n');
                data.extend_from_slice(value);
            }
        }
    }
    data
}

/// `json` as one server-sent event. A line end in it stands between its tokens, and would end the event's line.
pub(super) fn event_of(json: &[u8]) -> Bytes {
    let on_one_line = json.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte });
    Bytes::from_iter(b"data: ".iter().copied().chain(on_one_line).chain(*b"\n\n"))
}

/// The same event with a line feed at the end of each line: many clients know no other line end.
pub(super) fn with_line_feeds(event: Bytes) -> Bytes {
    if !event.contains(&b'\r') {
        return event;
    }
    let mut plain = Vec::with_capacity(event.len());
    // The second half of the line end before it.
    let event = event.strip_prefix(b"\n").unwrap_or(&event);
    for (at, &byte) in event.iter().enumerate() {
        match byte {
            b'\n' if at > 0 && event[at - 1] == b'\r' => {}
            b'\r' => plain.push(b'\n'),
            byte => plain.push(byte),
        }
    }
    plain.into()
}

/// What one event of an OpenAI stream means for the request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Meaning {
    /// No data: a comment or ping.
    Nothing,
    /// A chunk that carries no content and brings the answer no further: the role, or nothing at all.
    Opening,
    /// The first chunk that ends a choice, or the one with the usage; without content.
    Ending,
    /// A chunk with content: once it went out the request cannot move any more.
    Content,
    /// Content that is kept until the answer is whole.
    Gathered,
    /// `[DONE]`.
    Done,
    /// An error inside an answer that began as a success, or a finish reason by which the engine says that it gave up;
    /// with the event's JSON.
    Failed(Verdict, Bytes),
    /// Data that is not a JSON object.
    Garbage,
}

impl Meaning {
    /// It brings the answer further. What only says that somebody is there lifts no limit.
    pub fn is_progress(&self) -> bool {
        match self {
            Self::Nothing | Self::Opening => false,
            Self::Ending | Self::Content | Self::Gathered | Self::Done | Self::Failed(..) | Self::Garbage => {
                true
            }
        }
    }
}

/// One event, read.
#[derive(Debug)]
pub(super) struct Said {
    pub meaning: Meaning,
    /// Its data; null where it has none.
    pub chunk: Value,
    /// Its data as a client can read it, where it came otherwise.
    pub mended: Option<Vec<u8>>,
}

impl From<Meaning> for Said {
    fn from(meaning: Meaning) -> Self {
        Self { meaning, chunk: Value::Null, mended: None }
    }
}

/// Which of an answer's choices have been seen, and which have ended.
#[derive(Debug)]
pub(super) struct Choices {
    endpoint: Endpoint,
    /// As many as the client asked for.
    asked: usize,
    begun: BTreeSet<u64>,
    open: BTreeSet<u64>,
    finished: BTreeSet<u64>,
    has_usage: bool,
}

/// More choices than any engine gives; further ones are not tracked.
const CHOICES_MAX: usize = 1024;

impl Choices {
    pub fn new(endpoint: Endpoint, asked: usize) -> Self {
        Self {
            endpoint,
            asked: asked.min(CHOICES_MAX),
            begun: BTreeSet::new(),
            open: BTreeSet::new(),
            finished: BTreeSet::new(),
            has_usage: false,
        }
    }

    /// Every choice that began has a finish reason, and there is one.
    pub fn complete(&self) -> bool {
        self.open.is_empty() && !self.finished.is_empty()
    }

    /// The same, and none is missing of those that were asked for: the answer is whole even if nobody says so.
    pub fn certain(&self) -> bool {
        self.complete() && self.finished.len() >= self.asked
    }

    /// Each choice that ended had begun with a message or text, even if an empty one.
    pub fn hold_answer(&self) -> bool {
        self.finished.is_subset(&self.begun)
    }

    pub fn has_usage(&self) -> bool {
        self.has_usage
    }

    /// True when it is news that the choice has finished.
    fn note(&mut self, index: u64, finished: bool) -> bool {
        if finished {
            self.open.remove(&index);
            return self.finished.len() < CHOICES_MAX && self.finished.insert(index);
        }
        if !self.finished.contains(&index) && self.open.len() < CHOICES_MAX {
            self.open.insert(index);
        }
        false
    }

    /// Reads the data of one event.
    pub fn read(&mut self, data: Option<&[u8]>) -> Said {
        let Some(data) = data else { return Meaning::Nothing.into() };
        match kinds::without_mark(data).trim_ascii() {
            b"" => return Meaning::Nothing.into(),
            b"[DONE]" => return Meaning::Done.into(),
            _ => {}
        }
        match kinds::read_json(data) {
            Some(kinds::Json { value: chunk @ Value::Object(_), mended }) => {
                let meaning = self.read_chunk(&chunk, data);
                Said { meaning, chunk, mended }
            }
            Some(_) | None => Meaning::Garbage.into(),
        }
    }

    /// Reads a chunk; `data` is its text.
    pub fn read_chunk(&mut self, chunk: &Value, data: &[u8]) -> Meaning {
        if let Some(verdict) = kinds::verdict_of_event(chunk) {
            return Meaning::Failed(verdict, Bytes::copy_from_slice(data));
        }
        let choices = chunk.get("choices").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let (mut has_content, mut ends) = (false, false);
        for choice in choices {
            let index = choice.get("index").and_then(Value::as_u64).unwrap_or(0);
            ends |= self.note(index, kinds::finish_reason(choice).is_some());
            has_content |= kinds::carries_content(self.endpoint, choice);
            if kinds::begins_answer(self.endpoint, choice) && self.begun.len() < CHOICES_MAX {
                self.begun.insert(index);
            }
        }
        let has_usage = choices.is_empty() && chunk.get("usage").is_some_and(Value::is_object);
        ends |= has_usage && !std::mem::replace(&mut self.has_usage, true);
        match (has_content, ends) {
            (true, _) => Meaning::Content,
            (false, true) => Meaning::Ending,
            (false, false) => Meaning::Opening,
        }
    }
}

#[cfg(test)]
mod tests;

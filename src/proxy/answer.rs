//! PURE. Reading an upstream's 2xx answer: a stream of events, Ollama's lines, or one JSON object. What comes out is
//! what the client asked for, stream or object, piece by piece, each with what it means for the request.
mod events;
mod object;

use self::events::Events;
use super::limits::{EVENT_BYTES, HELD_ANSWER_BYTES};
use super::marks::Marks;
use super::plan::Candidate;
use super::stream::{Choices, Cut, Meaning, Splitter, TooLong, event_of};
use super::terms::Terms;
use crate::kinds::{Api, Endpoint, Kind, ollama};
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use std::time::Duration;

/// A part of the answer as the client gets it, but for the marks.
#[derive(Debug)]
pub(super) struct Piece {
    pub bytes: Bytes,
    pub meaning: Meaning,
}

/// What some bytes of the answer held.
#[derive(Debug)]
pub(super) enum Reading {
    Pieces(Vec<Piece>),
    /// The answer cannot be understood.
    Damaged(&'static str),
}

/// Why an answer is given up that has to be whole to be read.
pub(super) const NO_ROOM: &str = "gave more than there is memory to hold now";

impl Reading {
    fn gathered(some: bool) -> Self {
        let piece = || Piece { bytes: Bytes::new(), meaning: Meaning::Gathered };
        Self::Pieces(some.then(piece).into_iter().collect())
    }

    /// The answer came further by it.
    pub fn is_progress(&self) -> bool {
        match self {
            Self::Pieces(pieces) => pieces.iter().any(|piece| piece.meaning.is_progress()),
            Self::Damaged(_) => true,
        }
    }
}

/// An answer being read.
#[derive(Debug)]
pub(super) struct Answer {
    wants: Box<Wants>,
    form: Form,
}

/// What the client asked for, and of whom.
#[derive(Debug)]
struct Wants {
    endpoint: Endpoint,
    kind: Kind,
    /// A stream of events, rather than one object.
    events: bool,
    include_usage: bool,
    choices: usize,
    naming: ollama::Naming,
}

/// What the upstream sends.
#[derive(Debug)]
enum Form {
    /// Nothing but blanks so far. `says_events`: its type is that of a stream.
    Blank { says_events: bool },
    /// OpenAI's server-sent events.
    Events(Events),
    /// Ollama's NDJSON, translated.
    Lines { splitter: Splitter, translated: ollama::Stream },
    /// One JSON object, held until it is whole. `unripe`: at this length it was found not to be.
    Object { body: BytesMut, unripe: usize },
    /// An object that is too large to be held: handed on as it comes.
    Large { ended: bool },
}

/// How long the end of an answer is waited for that is whole without it.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same while the usage that the client asked for is missing.
const PATIENCE_FOR_USAGE: Duration = Duration::from_secs(5);

impl Answer {
    pub fn begin(terms: &Terms, from: &Candidate, headers: &HeaderMap) -> Self {
        let naming = ollama::Naming {
            id: terms.answer_id.clone(),
            created: terms.created,
            model: from.marks.model.clone(),
        };
        let wants = Box::new(Wants {
            endpoint: terms.endpoint,
            kind: from.kind,
            events: terms.streaming && terms.endpoint.generates(),
            include_usage: terms.include_usage,
            choices: if from.marks.notice.is_some() { terms.weakened_choices } else { terms.choices },
            naming,
        });
        Self { wants, form: Form::Blank { says_events: is_type(headers, "text/event-stream") } }
    }

    /// The head that goes with the answer: the upstream's own, but for a type that is not the answer's.
    pub fn headers(&self, upstream: HeaderMap) -> HeaderMap {
        let (name, written) = match self.wants.events {
            true => ("text/event-stream", "text/event-stream; charset=utf-8"),
            false => ("application/json", "application/json"),
        };
        let is_translated = self.wants.kind.api() == Api::Ollama;
        if !is_translated && is_type(&upstream, name) {
            return upstream;
        }
        let mut headers = if is_translated { HeaderMap::new() } else { upstream };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(written));
        headers
    }

    /// The client reads server-sent events: an error can be said in band.
    pub fn is_events(&self) -> bool {
        self.wants.events
    }

    /// With the upstream's own word that it is done, everything that makes the answer whole was there.
    pub fn complete(&self) -> bool {
        match &self.form {
            Form::Blank { .. } => false,
            Form::Events(events) => events.choices.complete(),
            Form::Lines { translated, .. } => translated.has_ended(),
            Form::Object { .. } => true,
            Form::Large { ended } => *ended,
        }
    }

    /// A complete answer holds one.
    pub fn holds_answer(&self) -> bool {
        match &self.form {
            Form::Events(events) => events.choices.hold_answer(),
            // Objects are judged when they are read.
            Form::Blank { .. } | Form::Lines { .. } | Form::Object { .. } | Form::Large { .. } => true,
        }
    }

    /// The upstream's body has ended, and nothing of the answer is missing.
    pub fn is_whole(&self) -> bool {
        match &self.form {
            Form::Events(events) => events.choices.certain(),
            Form::Blank { .. } | Form::Lines { .. } | Form::Object { .. } | Form::Large { .. } => {
                self.complete()
            }
        }
    }

    /// How long to wait for an end that may never come: the answer is, or seems to be, whole without it.
    pub fn patience(&self) -> Option<Duration> {
        match &self.form {
            Form::Events(events) if events.choices.certain() => {
                let lacks_usage = self.wants.include_usage && !events.choices.has_usage();
                Some(if lacks_usage { PATIENCE_FOR_USAGE } else { PATIENCE })
            }
            Form::Object { body, unripe } => {
                (body.trim_ascii_end().ends_with(b"}") && body.len() != *unripe).then_some(PATIENCE)
            }
            Form::Blank { .. } | Form::Events(_) | Form::Lines { .. } | Form::Large { .. } => None,
        }
    }

    /// `bytes`, which are the first of the answer that the client gets, with the marks in them.
    pub fn marked(&self, marks: &Marks, bytes: Bytes) -> Bytes {
        match &self.form {
            Form::Large { .. } => marks.spliced_into(&bytes).unwrap_or(bytes),
            _ if self.wants.events => marks.on_event(&bytes),
            _ => marks.on_object(&bytes).unwrap_or(bytes),
        }
    }

    /// The memory that is taken by what was read and not given out yet.
    pub fn held(&self) -> usize {
        match &self.form {
            Form::Events(events) => events.held(),
            Form::Lines { splitter, .. } => splitter.held(),
            Form::Object { body, .. } => body.capacity(),
            Form::Blank { .. } | Form::Large { .. } => 0,
        }
    }

    /// Gives out what is held, although it is not whole. `Damaged`: it cannot be.
    pub fn let_go(&mut self) -> Reading {
        let is_translated = self.wants.kind.api() == Api::Ollama || self.wants.events;
        let part = match &mut self.form {
            Form::Events(events) => match events.let_go() {
                Ok(part) => part,
                Err(why) => return Reading::Damaged(why),
            },
            Form::Object { body, .. } if !is_translated => {
                let part = std::mem::take(body).freeze();
                self.form = Form::Large { ended: false };
                Some(part)
            }
            Form::Object { .. } | Form::Lines { .. } => return Reading::Damaged(NO_ROOM),
            Form::Blank { .. } | Form::Large { .. } => None,
        };
        Reading::Pieces(part.map(|bytes| Piece { bytes, meaning: Meaning::Content }).into_iter().collect())
    }

    /// The client has a part of an event whose end is still to come.
    pub fn is_within_event(&self) -> bool {
        matches!(&self.form, Form::Events(events) if events.is_letting_go())
    }

    pub fn push(&mut self, data: Bytes) -> Reading {
        let data = match self.open(data) {
            Ok(data) => data,
            Err(why) => return Reading::Damaged(why),
        };
        match &mut self.form {
            Form::Blank { .. } => Reading::gathered(false),
            Form::Events(events) => events.push(data),
            Form::Lines { splitter, translated } => match splitter.push(&data) {
                Ok(lines) => {
                    Reading::Pieces(lines.iter().flat_map(|line| translate(translated, line)).collect())
                }
                Err(TooLong) => Reading::Damaged("sent a line without end"),
            },
            Form::Object { body, .. } => {
                body.extend_from_slice(&data);
                if body.len() <= HELD_ANSWER_BYTES {
                    return Reading::gathered(!data.trim_ascii().is_empty());
                }
                if self.wants.kind.api() == Api::Ollama || self.wants.events {
                    return Reading::Damaged("sent an answer that is too large to be translated");
                }
                let bytes = std::mem::take(body).freeze();
                self.form = Form::Large { ended: false };
                Reading::Pieces(vec![Piece { bytes, meaning: Meaning::Content }])
            }
            Form::Large { .. } => {
                let is_blank = data.trim_ascii().is_empty();
                let meaning = if is_blank { Meaning::Opening } else { Meaning::Content };
                Reading::Pieces(vec![Piece { bytes: data, meaning }])
            }
        }
    }

    /// Finds out by its first byte that is not blank what the answer is: upstreams name the wrong type, or none. What
    /// comes before that byte is dropped, a byte-order mark too.
    fn open(&mut self, data: Bytes) -> Result<Bytes, &'static str> {
        let Form::Blank { says_events } = self.form else { return Ok(data) };
        let is_blank = |byte: &u8| byte.is_ascii_whitespace() || "\u{feff}".as_bytes().contains(byte);
        let Some(begin) = data.iter().position(|byte| !is_blank(byte)) else { return Ok(Bytes::new()) };
        let wants = &self.wants;
        self.form = match (wants.kind.api(), data[begin]) {
            (Api::Ollama, b'{') if wants.events => Form::Lines {
                splitter: Splitter::new(Cut::Line, EVENT_BYTES),
                translated: ollama::Stream::new(wants.naming.clone(), wants.include_usage),
            },
            (_, b'{') => Form::Object { body: BytesMut::new(), unripe: 0 },
            // The first letters of the fields of an event, and the colon of a comment.
            (Api::OpenAi, b'd' | b'e' | b'i' | b'r' | b':') => Form::Events(Events::new(wants)),
            (Api::OpenAi, _) if says_events => Form::Events(Events::new(wants)),
            (Api::OpenAi | Api::Ollama, _) => return Err("gave an answer that is neither JSON nor a stream"),
        };
        Ok(data.slice(begin..))
    }

    /// What is left when the upstream's body has ended.
    pub fn finish(&mut self) -> Reading {
        match &mut self.form {
            Form::Blank { .. } => Reading::Damaged("gave an empty answer"),
            Form::Events(events) => Reading::Pieces(events.finish()),
            Form::Lines { splitter, translated } => {
                let rest = splitter.rest();
                Reading::Pieces(rest.iter().flat_map(|line| translate(translated, line)).collect())
            }
            Form::Object { body, .. } => object::read(&std::mem::take(body).freeze(), &self.wants),
            Form::Large { ended } => {
                *ended = true;
                Reading::Pieces(Vec::new())
            }
        }
    }

    /// What is left of an answer that is whole although its end did not come; `None` when it is not whole. An object
    /// may still go on then.
    pub fn salvage(&mut self) -> Option<Vec<Piece>> {
        match &mut self.form {
            Form::Blank { .. } | Form::Large { .. } => None,
            Form::Events(events) => {
                let pieces = events.finish();
                events.choices.certain().then_some(pieces)
            }
            Form::Lines { splitter, translated } => {
                let rest = splitter.rest();
                let pieces = rest.iter().flat_map(|line| translate(translated, line)).collect();
                translated.has_ended().then_some(pieces)
            }
            Form::Object { body, unripe } => {
                *unripe = body.len();
                if !body.trim_ascii_end().ends_with(b"}") {
                    return None;
                }
                match object::read(&Bytes::copy_from_slice(body), &self.wants) {
                    Reading::Pieces(pieces) => Some(pieces),
                    Reading::Damaged(_) => None,
                }
            }
        }
    }
}

fn is_type(headers: &HeaderMap, name: &str) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let given = content_type.split(|&b| b == b';').next().unwrap_or_default();
    given.trim_ascii().eq_ignore_ascii_case(name.as_bytes())
}

/// The events that one line of NDJSON stands for.
fn translate(stream: &mut ollama::Stream, line: &Bytes) -> Vec<Piece> {
    let had_ended = stream.has_ended();
    let chunks = match stream.line(line) {
        Ok(chunks) => chunks,
        Err(broken) => {
            let meaning = Meaning::Failed(broken.verdict, Bytes::copy_from_slice(line.trim_ascii()));
            return vec![Piece { bytes: Bytes::new(), meaning }];
        }
    };
    let mut choices = Choices::new(Endpoint::Chat, 1);
    let mut pieces: Vec<Piece> = chunks
        .iter()
        .map(|chunk| Piece {
            bytes: event_of(chunk.to_string().as_bytes()),
            meaning: choices.read_chunk(chunk, &[]),
        })
        .collect();
    if stream.has_ended() && !had_ended {
        pieces.push(Piece { bytes: event_of(b"[DONE]"), meaning: Meaning::Done });
    }
    pieces
}

#[cfg(test)]
mod tests;

//! PURE. Reading an upstream's 2xx answer: a stream of events, Ollama's lines, or one JSON object. What comes out is
//! what the client would get, piece by piece, each with what it means for the request.
use super::exchange::Terms;
use super::limits::{EVENT_BYTES, HELD_ANSWER_BYTES};
use super::marks::Marks;
use super::plan::Candidate;
use super::stream::{Choices, Cut, Meaning, Splitter, TooLong, data_of, event_of};
use crate::kinds::{self, Api, Kind, ollama};
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::Value;

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

/// An answer being read.
#[derive(Debug)]
pub(super) enum Answer {
    /// OpenAI's server-sent events, handed on as they are.
    Events { splitter: Splitter, choices: Choices },
    /// Ollama's NDJSON, translated.
    Lines { splitter: Splitter, translated: ollama::Stream },
    /// One JSON object, held until it is whole.
    Object { body: BytesMut, kind: Kind, naming: ollama::Naming },
    /// An object that is too large to be held: handed on as it comes.
    Large { ended: bool },
}

impl Answer {
    pub fn begin(terms: &Terms, from: &Candidate, headers: &HeaderMap) -> Self {
        let naming = || ollama::Naming {
            id: terms.answer_id.clone(),
            created: terms.created,
            model: from.marks.model.clone(),
        };
        match from.kind.api() {
            Api::OpenAi if is_events(headers) => Self::Events {
                splitter: Splitter::new(Cut::BlankLine, EVENT_BYTES),
                choices: Choices::default(),
            },
            Api::Ollama if terms.streaming => Self::Lines {
                splitter: Splitter::new(Cut::Line, EVENT_BYTES),
                translated: ollama::Stream::new(naming(), terms.include_usage),
            },
            Api::OpenAi | Api::Ollama => {
                Self::Object { body: BytesMut::new(), kind: from.kind, naming: naming() }
            }
        }
    }

    /// The head that goes with the answer: the upstream's own where its bytes are handed on.
    pub fn headers(&self, upstream: HeaderMap) -> HeaderMap {
        let content_type = match self {
            Self::Events { .. } | Self::Large { .. } => return upstream,
            Self::Object { kind, .. } if kind.api() == Api::OpenAi => return upstream,
            Self::Object { .. } => "application/json",
            Self::Lines { .. } => "text/event-stream; charset=utf-8",
        };
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))])
    }

    /// The client reads server-sent events: an error can be said in band.
    pub fn is_events(&self) -> bool {
        matches!(self, Self::Events { .. } | Self::Lines { .. })
    }

    /// Everything that makes the answer whole was there.
    pub fn complete(&self) -> bool {
        match self {
            Self::Events { choices, .. } => choices.complete(),
            Self::Lines { translated, .. } => translated.has_ended(),
            Self::Object { .. } => true,
            Self::Large { ended } => *ended,
        }
    }

    /// `bytes`, which are the first of the answer that the client gets, with the marks in them.
    pub fn marked(&self, marks: &Marks, bytes: Bytes) -> Bytes {
        match self {
            Self::Events { .. } | Self::Lines { .. } => marks.on_event(&bytes),
            Self::Object { .. } => marks.on_object(&bytes).unwrap_or(bytes),
            Self::Large { .. } => marks.spliced_into(&bytes).unwrap_or(bytes),
        }
    }

    /// The memory that is taken by what was read and not given out yet.
    pub fn held(&self) -> usize {
        match self {
            Self::Events { splitter, .. } | Self::Lines { splitter, .. } => splitter.held(),
            Self::Object { body, .. } => body.capacity(),
            Self::Large { .. } => 0,
        }
    }

    /// Gives out what is held, although it is not whole. `Damaged`: it cannot be.
    pub fn let_go(&mut self) -> Reading {
        let part = match self {
            Self::Events { splitter, .. } => splitter.let_go(),
            Self::Object { body, kind, .. } if kind.api() == Api::OpenAi => {
                let part = std::mem::take(body).freeze();
                *self = Self::Large { ended: false };
                Some(part)
            }
            Self::Object { .. } | Self::Lines { .. } => return Reading::Damaged(NO_ROOM),
            Self::Large { .. } => None,
        };
        Reading::Pieces(part.map(|bytes| Piece { bytes, meaning: Meaning::Content }).into_iter().collect())
    }

    /// The client has a part of an event whose end is still to come.
    pub fn is_within_event(&self) -> bool {
        matches!(self, Self::Events { splitter, .. } if splitter.is_letting_go())
    }

    pub fn push(&mut self, mut data: Bytes) -> Reading {
        match self {
            Self::Events { splitter, choices } => {
                let read = splitter.rest_of(&mut data).and_then(|rest| Ok((rest, splitter.push(&data)?)));
                let Ok((rest, events)) = read else { return Reading::Damaged("sent an event without end") };
                let rest = rest.map(|bytes| Piece { bytes, meaning: Meaning::Content });
                Reading::Pieces(
                    rest.into_iter().chain(events.into_iter().map(|e| read_event(choices, e))).collect(),
                )
            }
            Self::Lines { splitter, translated } => match splitter.push(&data) {
                Ok(lines) => Reading::Pieces(lines.iter().flat_map(|l| translate(translated, l)).collect()),
                Err(TooLong) => Reading::Damaged("sent a line without end"),
            },
            Self::Object { body, kind, .. } => {
                body.extend_from_slice(&data);
                if body.len() <= HELD_ANSWER_BYTES {
                    return Reading::Pieces(Vec::new());
                }
                if kind.api() == Api::Ollama {
                    return Reading::Damaged("sent an answer that is too large to be translated");
                }
                let bytes = std::mem::take(body).freeze();
                *self = Self::Large { ended: false };
                Reading::Pieces(vec![Piece { bytes, meaning: Meaning::Content }])
            }
            Self::Large { .. } => Reading::Pieces(vec![Piece { bytes: data, meaning: Meaning::Content }]),
        }
    }

    /// What is left when the upstream's body has ended.
    pub fn finish(&mut self) -> Reading {
        match self {
            Self::Events { splitter, choices } => {
                let rest = splitter.rest().filter(|rest| !rest.trim_ascii().is_empty());
                // The client needs the blank line that the engine left out.
                let rest = rest.map(|rest| Bytes::from([&rest, &b"\n\n"[..]].concat()));
                Reading::Pieces(rest.map(|event| read_event(choices, event)).into_iter().collect())
            }
            Self::Lines { splitter, translated } => {
                let rest = splitter.rest();
                Reading::Pieces(rest.iter().flat_map(|line| translate(translated, line)).collect())
            }
            Self::Object { body, kind, naming } => read_object(&std::mem::take(body).freeze(), *kind, naming),
            Self::Large { ended } => {
                *ended = true;
                Reading::Pieces(Vec::new())
            }
        }
    }
}

fn is_events(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let name = content_type.split(|&b| b == b';').next().unwrap_or_default();
    name.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

fn read_event(choices: &mut Choices, event: Bytes) -> Piece {
    let meaning = choices.read(data_of(&event).as_deref());
    Piece { bytes: event, meaning }
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
    let mut choices = Choices::default();
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

/// A whole answer, judged: the client's object, or what is wrong with it.
fn read_object(body: &Bytes, kind: Kind, naming: &ollama::Naming) -> Reading {
    let Ok(object @ Value::Object(_)) = serde_json::from_slice::<Value>(body) else {
        return Reading::Damaged("gave an answer that is not a JSON object");
    };
    let one = |bytes: Bytes, meaning| Reading::Pieces(vec![Piece { bytes, meaning }]);
    match kind.api() {
        Api::OpenAi => match kinds::verdict_on(Api::OpenAi, kind, 200, &object) {
            kinds::Verdict::Answer if is_unfinished(&object) => {
                Reading::Damaged("gave an answer without a finish reason")
            }
            kinds::Verdict::Answer => one(body.clone(), Meaning::Done),
            verdict => one(Bytes::new(), Meaning::Failed(verdict, body.clone())),
        },
        Api::Ollama => match ollama::whole(&object, naming) {
            Ok(answer) => one(Bytes::from(answer.to_string()), Meaning::Done),
            Err(broken) => one(Bytes::new(), Meaning::Failed(broken.verdict, body.clone())),
        },
    }
}

/// A choice that says itself that it has no finish reason ended because its engine did.
fn is_unfinished(object: &Value) -> bool {
    let choices = object.get("choices").and_then(Value::as_array);
    choices.is_some_and(|choices| choices.iter().any(|c| c.get("finish_reason") == Some(&Value::Null)))
}

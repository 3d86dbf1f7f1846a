//! PURE. A whole answer that came as one JSON object, judged: the client's object or stream, or what is wrong with it.
use super::{Piece, Reading, Wants};
use crate::kinds::{self, Api, Assembly, Verdict, ollama};
use crate::proxy::stream::{Choices, Meaning, event_of};
use bytes::Bytes;
use serde_json::Value;

pub(super) fn read(body: &Bytes, wants: &Wants) -> Reading {
    let kind = wants.kind;
    let Some(kinds::Json { value: object @ Value::Object(_), mended }) = kinds::read_json(body) else {
        return match lines(body, wants) {
            Some(reading) => reading,
            None => Reading::Damaged("gave an answer that is not a JSON object"),
        };
    };
    match kind.api() {
        Api::OpenAi => match kinds::verdict_on(Api::OpenAi, kind, 200, &object) {
            Verdict::Answer if is_unfinished(&object) => {
                Reading::Damaged("gave an answer without a finish reason")
            }
            Verdict::Answer => match kinds::holds_answer(wants.endpoint, &object) {
                Ok(()) if wants.events => as_stream(&object, wants),
                Ok(()) => one(mended.map_or_else(|| body.clone(), Bytes::from), Meaning::Done),
                Err(why) => Reading::Damaged(why),
            },
            verdict => one(Bytes::new(), Meaning::Failed(verdict, body.clone())),
        },
        Api::Ollama => match ollama::whole(&object, &wants.naming) {
            Ok(answer) => one(Bytes::from(answer.to_string()), Meaning::Done),
            Err(broken) => one(Bytes::new(), Meaning::Failed(broken.verdict, body.clone())),
        },
    }
}

fn one(bytes: Bytes, meaning: Meaning) -> Reading {
    Reading::Pieces(vec![Piece { bytes, meaning }])
}

/// A choice that says itself that it has no finish reason ended because its engine did.
fn is_unfinished(object: &Value) -> bool {
    let says_so =
        |choice: &Value| choice.get("finish_reason").is_some() && kinds::finish_reason(choice).is_none();
    let choices = object.get("choices").and_then(Value::as_array);
    choices.is_some_and(|choices| choices.iter().any(says_so))
}

/// The client asked for a stream.
fn as_stream(object: &Value, wants: &Wants) -> Reading {
    let mut choices = Choices::new(wants.endpoint, wants.choices);
    let piece = |chunk: &Value| Piece {
        bytes: event_of(chunk.to_string().as_bytes()),
        meaning: choices.read_chunk(chunk, &[]),
    };
    let chunks = kinds::chunks_of(wants.endpoint, object, wants.include_usage);
    let mut pieces: Vec<Piece> = chunks.iter().map(piece).collect();
    pieces.push(Piece { bytes: event_of(b"[DONE]"), meaning: Meaning::Done });
    Reading::Pieces(pieces)
}

/// An Ollama that streams although it was asked not to.
fn lines(body: &Bytes, wants: &Wants) -> Option<Reading> {
    if wants.kind.api() != Api::Ollama {
        return None;
    }
    let mut stream = ollama::Stream::new(wants.naming.clone(), true);
    let mut assembly = Assembly::new(wants.endpoint);
    for line in body.split(|byte| *byte == b'\n') {
        match stream.line(line) {
            Ok(chunks) => chunks.iter().for_each(|chunk| assembly.take(chunk)),
            Err(broken) => {
                let error = Bytes::copy_from_slice(line.trim_ascii());
                return Some(one(Bytes::new(), Meaning::Failed(broken.verdict, error)));
            }
        }
    }
    stream.has_ended().then(|| one(Bytes::from(assembly.whole().to_string()), Meaning::Done))
}

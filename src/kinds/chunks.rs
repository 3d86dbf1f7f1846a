//! A whole answer in OpenAI's form as the chunks of a stream, and the chunks of a stream as a whole answer: for an
//! upstream that answers in the other way than it was asked to.
use super::Endpoint;
use super::content::finish_reason;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Fields that an answer of one form does not hand on to the other.
const NOT_OF_THE_FRAME: [&str; 3] = ["object", "choices", "usage"];

fn object_name(endpoint: Endpoint, chunk: bool) -> &'static str {
    match (endpoint, chunk) {
        (Endpoint::Completions, _) => "text_completion",
        (Endpoint::Chat | Endpoint::Embeddings | Endpoint::Passthrough, true) => "chat.completion.chunk",
        (Endpoint::Chat | Endpoint::Embeddings | Endpoint::Passthrough, false) => "chat.completion",
    }
}

/// The chunks that say what a whole answer says, for each choice: the role, the message or text, the finish reason. The
/// usage comes last, when the client asked for it.
pub fn chunks_of(endpoint: Endpoint, answer: &Value, include_usage: bool) -> Vec<Value> {
    let mut frame: Map<String, Value> = answer.as_object().cloned().unwrap_or_default();
    frame.retain(|name, _| !NOT_OF_THE_FRAME.contains(&name.as_str()));
    let chunk = |choices: Value| {
        let mut chunk = frame.clone();
        chunk.insert("object".into(), object_name(endpoint, true).into());
        chunk.insert("choices".into(), choices);
        chunk
    };
    let choices = answer.get("choices").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut chunks: Vec<Value> = choices
        .iter()
        .enumerate()
        .flat_map(|(at, choice)| match endpoint {
            Endpoint::Completions if choice.get("text").is_some() => parts_of_text(at, choice),
            Endpoint::Completions | Endpoint::Chat | Endpoint::Embeddings | Endpoint::Passthrough => {
                parts_of_message(at, choice)
            }
        })
        .map(|part| Value::Object(chunk(json!([part]))))
        .collect();
    if let Some(usage) = answer.get("usage").filter(|usage| include_usage && usage.is_object()) {
        let mut last = chunk(json!([]));
        last.insert("usage".into(), usage.clone());
        chunks.push(Value::Object(last));
    }
    chunks
}

/// One part of a choice, of which nothing says yet that it has ended.
fn part_of(at: usize, choice: &Value, name: &str, said: Value, logprobs: &Value) -> Value {
    let index = choice.get("index").filter(|index| index.is_u64()).cloned().unwrap_or_else(|| at.into());
    json!({ "index": index, name: said, "logprobs": logprobs, "finish_reason": null })
}

fn parts_of_message(at: usize, choice: &Value) -> Vec<Value> {
    let part = |delta, logprobs: &Value| part_of(at, choice, "delta", delta, logprobs);
    let mut delta = choice.get("message").and_then(Value::as_object).cloned().unwrap_or_default();
    let role = delta.shift_remove("role").filter(Value::is_string).unwrap_or_else(|| "assistant".into());
    delta.retain(|_, value| !value.is_null());
    if let Some(calls) = delta.get_mut("tool_calls").and_then(Value::as_array_mut) {
        for (at, call) in calls.iter_mut().enumerate() {
            if let Some(call) = call.as_object_mut() {
                call.insert("index".into(), at.into());
            }
        }
    }
    let logprobs = choice.get("logprobs").unwrap_or(&Value::Null);
    let mut parts = vec![part(json!({"role": role, "content": ""}), &Value::Null)];
    if !delta.is_empty() {
        parts.push(part(Value::Object(delta), logprobs));
    }
    let mut last = part(json!({}), &Value::Null);
    end(&mut last, choice, &["message"]);
    parts.push(last);
    parts
}

fn parts_of_text(at: usize, choice: &Value) -> Vec<Value> {
    let part = |text, logprobs: &Value| part_of(at, choice, "text", text, logprobs);
    let text = choice.get("text").cloned().unwrap_or_default();
    let mut last = part("".into(), &Value::Null);
    end(&mut last, choice, &["text"]);
    vec![part(text, choice.get("logprobs").unwrap_or(&Value::Null)), last]
}

/// Puts what else a choice says beside its message, and why it ended, into its last part.
fn end(last: &mut Value, choice: &Value, said: &[&str]) {
    for (name, value) in choice.as_object().into_iter().flatten() {
        if !said.contains(&name.as_str()) && last.get(name).is_none() {
            last[name] = value.clone();
        }
    }
    last["finish_reason"] = finish_reason(choice).unwrap_or("stop").into();
}

/// A stream being put together.
#[derive(Debug)]
pub struct Assembly {
    endpoint: Endpoint,
    frame: Map<String, Value>,
    choices: BTreeMap<u64, Choice>,
}

#[derive(Debug, Default)]
struct Choice {
    /// A chat's message, or a completion's text.
    said: Value,
    logprobs: Value,
    finish_reason: Value,
    rest: Map<String, Value>,
}

impl Assembly {
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, frame: Map::new(), choices: BTreeMap::new() }
    }

    pub fn take(&mut self, chunk: &Value) {
        for (name, value) in chunk.as_object().into_iter().flatten() {
            let is_known = self.frame.get(name).is_some_and(|known| !known.is_null());
            // Some engines count on with every chunk.
            let is_newer = name == "usage" && !value.is_null();
            if name != "object" && name != "choices" && (!is_known || is_newer) {
                self.frame.insert(name.clone(), value.clone());
            }
        }
        for choice in chunk.get("choices").and_then(Value::as_array).into_iter().flatten() {
            let index = choice.get("index").and_then(Value::as_u64).unwrap_or(0);
            let whole = self.choices.entry(index).or_default();
            for (name, value) in choice.as_object().into_iter().flatten() {
                match name.as_str() {
                    "index" => {}
                    "finish_reason" if finish_reason(choice).is_none() => {}
                    "finish_reason" => whole.finish_reason = value.clone(),
                    "delta" | "text" => merge(&mut whole.said, name, value),
                    "logprobs" => merge(&mut whole.logprobs, name, value),
                    _ => merge(whole.rest.entry(name.clone()).or_insert(Value::Null), name, value),
                }
            }
        }
    }

    /// The whole answer.
    pub fn whole(&mut self) -> Value {
        let (mut frame, endpoint) = (std::mem::take(&mut self.frame), self.endpoint);
        let usage = frame.shift_remove("usage");
        frame.insert("object".into(), object_name(endpoint, false).into());
        let choices = std::mem::take(&mut self.choices).into_iter();
        frame
            .insert("choices".into(), choices.map(|(index, choice)| choice.whole(endpoint, index)).collect());
        frame.extend(usage.map(|usage| ("usage".to_owned(), usage)));
        Value::Object(frame)
    }
}

impl Choice {
    fn whole(self, endpoint: Endpoint, index: u64) -> Value {
        let (name, said) = match endpoint {
            Endpoint::Completions => ("text", Value::from(self.said.as_str().unwrap_or_default())),
            Endpoint::Chat | Endpoint::Embeddings | Endpoint::Passthrough => {
                ("message", message_of(self.said))
            }
        };
        let mut choice = json!({ "index": index });
        choice[name] = said;
        choice["logprobs"] = self.logprobs;
        choice["finish_reason"] = self.finish_reason;
        for (name, value) in self.rest {
            choice[name] = value;
        }
        choice
    }
}

/// The message of what all deltas said. Beside calls, OpenAI has null for no content.
fn message_of(said: Value) -> Value {
    let mut fields = match said {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    let role = fields.shift_remove("role").unwrap_or_else(|| "assistant".into());
    let calls = fields.contains_key("tool_calls") || fields.contains_key("function_call");
    let content = match fields.shift_remove("content") {
        Some(Value::String(text)) if text.is_empty() && calls => Value::Null,
        None if calls => Value::Null,
        None => "".into(),
        Some(content) => content,
    };
    if let Some(calls) = fields.get_mut("tool_calls").and_then(Value::as_array_mut) {
        calls.iter_mut().filter_map(Value::as_object_mut).for_each(|call| drop(call.shift_remove("index")));
    }
    let mut message = json!({ "role": role, "content": content });
    for (name, value) in fields {
        message[name] = value;
    }
    message
}

/// Strings that come once, or again and again, but never in pieces.
const ONCE: [&str; 5] = ["role", "id", "type", "name", "format"];

/// Adds what a chunk says under `name` to what was said there before: text goes on, lists grow.
fn merge(into: &mut Value, name: &str, more: &Value) {
    // The first list or object goes the same way, so that calls in it are told apart and nulls are left out.
    match more {
        Value::Object(_) if into.is_null() => *into = json!({}),
        Value::Array(_) if into.is_null() => *into = json!([]),
        _ => {}
    }
    match (into, more) {
        (_, Value::Null) => {}
        (Value::String(text), Value::String(more)) if !ONCE.contains(&name) => text.push_str(more),
        (Value::String(text), Value::String(_)) if !text.is_empty() => {}
        (Value::Array(list), Value::Array(more)) if name == "tool_calls" => {
            more.iter().for_each(|call| merge_call(list, call));
        }
        (Value::Array(list), Value::Array(more)) => list.extend_from_slice(more),
        (Value::Object(fields), Value::Object(more)) => {
            for (name, value) in more.iter().filter(|(_, value)| !value.is_null()) {
                merge(fields.entry(name.clone()).or_insert(Value::Null), name, value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}

/// Adds a piece of a tool call to the call that it belongs to: by its index, else by its id, else the last one.
fn merge_call(calls: &mut Vec<Value>, piece: &Value) {
    let named = |name: &str| piece.get(name).filter(|value| !value.is_null() && *value != "");
    let of = |name: &str, value: &Value| calls.iter().position(|call| call.get(name) == Some(value));
    let at = match (named("index"), named("id")) {
        (Some(index), _) => of("index", index),
        (None, Some(id)) => of("id", id),
        (None, None) => calls.len().checked_sub(1),
    };
    let at = at.unwrap_or_else(|| {
        calls.push(json!({}));
        calls.len() - 1
    });
    merge(&mut calls[at], "", piece);
}

#[cfg(test)]
mod tests;

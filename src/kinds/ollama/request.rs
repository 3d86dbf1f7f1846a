//! OpenAI chat request → `/api/chat`.
use super::pin;
use crate::kinds::Endpoint;
use crate::kinds::carry::is_given;
use serde_json::{Map, Value, json};

/// Options that have the same meaning on both sides. Any number will do.
pub(super) const NUMBERS: &[(&str, &str)] = &[
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("frequency_penalty", "frequency_penalty"),
    ("presence_penalty", "presence_penalty"),
    ("seed", "seed"),
    // Not OpenAI's, but vLLM and llama-server take them, so clients of the chain may send them.
    ("top_k", "top_k"),
    ("min_p", "min_p"),
    ("repetition_penalty", "repeat_penalty"),
];

/// The name of a client's field that is a number, among Ollama's options.
pub fn option(field: &str) -> Option<&'static str> {
    NUMBERS.iter().find(|(theirs, _)| *theirs == field).map(|(_, native)| *native)
}

/// Does the dialect have this endpoint?
pub(in crate::kinds) fn translates(endpoint: Endpoint) -> Result<(), &'static str> {
    match endpoint {
        Endpoint::Chat => Ok(()),
        Endpoint::Completions => Err("completions are not translated"),
        Endpoint::Embeddings => Err("embeddings are not translated"),
        Endpoint::Passthrough => Err("this path is not translated"),
    }
}

/// Is every part of a chat [without mistakes](super::mistake) something that Ollama knows?
pub(in crate::kinds) fn understands(body: &Value) -> Result<(), String> {
    for name in ["max_tokens", "max_completion_tokens"] {
        // Ollama takes a negative limit as none at all.
        if body
            .get(name)
            .is_some_and(|limit| !limit.is_null() && limit.as_u64().is_none_or(|limit| limit == 0))
        {
            return Err(format!("{name} is not a positive whole number"));
        }
    }
    match body.get("messages").and_then(Value::as_array) {
        // Without messages Ollama answers that it has loaded the model, and nothing else.
        Some(messages) if !messages.is_empty() => messages.iter().try_for_each(understands_message),
        Some(_) | None => Err("messages are empty".into()),
    }
}

fn understands_message(message: &Value) -> Result<(), String> {
    if message.get("role").and_then(Value::as_str).and_then(native_role).is_none() {
        return Err("tool messages not translated".into());
    }
    if ["tool_calls", "function_call"].iter().any(|name| message.get(name).is_some_and(is_given)) {
        return Err("tool calls not translated".into());
    }
    let parts = message.get("content").and_then(Value::as_array).into_iter().flatten();
    match parts.into_iter().find(|part| part_text(part).is_none()) {
        None => Ok(()),
        Some(other) => match other.get("type").and_then(Value::as_str) {
            Some("image_url" | "input_image") => Err("images not translated".into()),
            Some("input_audio" | "audio_url") => Err("audio not translated".into()),
            _ => Err("content other than text not translated".into()),
        },
    }
}

fn native_role(role: &str) -> Option<&'static str> {
    match role {
        // Templates know "system" only.
        "system" | "developer" => Some("system"),
        "user" => Some("user"),
        "assistant" => Some("assistant"),
        _ => None,
    }
}

/// The text of one content part; `None` when it is something else.
fn part_text(part: &Value) -> Option<&str> {
    match part.get("type").and_then(Value::as_str) {
        Some("text" | "input_text" | "output_text") | None => part.get("text").and_then(Value::as_str),
        Some(_) => None,
    }
}

/// The `/api/chat` request for a chat that the tier [carries](crate::kinds::carries). What it does not carry is left out.
/// `ours`: the server belongs to a run of ours, so that its model may be pinned in memory.
pub fn request(body: &Value, model: &str, ours: bool) -> Value {
    let messages: Vec<Value> =
        body.get("messages").and_then(Value::as_array).into_iter().flatten().map(message).collect();
    let stream = body.get("stream").and_then(Value::as_bool).unwrap_or(false);
    // Always said: Ollama streams unless told not to.
    let mut native = json!({ "model": model, "messages": messages, "stream": stream });
    let options = options(body);
    if !options.is_empty() {
        native["options"] = Value::Object(options);
    }
    // "Do not think" is understood by every model. The other levels are refused by models that cannot think at all,
    // so they are left to the model.
    let thinks = body.pointer("/chat_template_kwargs/enable_thinking").and_then(Value::as_bool);
    if body.get("reasoning_effort").and_then(Value::as_str) == Some("none") || thinks == Some(false) {
        native["think"] = false.into();
    }
    pin(&mut native, ours);
    native
}

fn message(message: &Value) -> Value {
    let role = message.get("role").and_then(Value::as_str).and_then(native_role).unwrap_or("user");
    let content = match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts.iter().filter_map(part_text).collect(),
        _ => String::new(),
    };
    let mut native = json!({ "role": role, "content": content });
    let thinking =
        message.get("reasoning").or_else(|| message.get("reasoning_content")).and_then(Value::as_str);
    if let Some(thinking) = thinking.filter(|text| role == "assistant" && !text.is_empty()) {
        native["thinking"] = thinking.into();
    }
    native
}

fn options(body: &Value) -> Map<String, Value> {
    let mut options = Map::new();
    for (theirs, native) in NUMBERS {
        if let Some(number) = body.get(theirs).filter(|value| value.is_number()) {
            options.insert((*native).to_owned(), number.clone());
        }
    }
    // The newer name wins, as it does in vLLM.
    let limits = ["max_completion_tokens", "max_tokens"];
    if let Some(limit) = limits.iter().find_map(|name| body.get(name)?.as_u64()) {
        options.insert("num_predict".into(), limit.into());
    }
    if let Some(stops) = body.get("stop").and_then(stops).filter(|stops| !stops.is_empty()) {
        options.insert("stop".into(), stops.into());
    }
    options
}

/// Stop strings, given as one or as a list.
pub(super) fn stops(stop: &Value) -> Option<Vec<&str>> {
    match stop {
        Value::String(one) => Some(vec![one]),
        Value::Array(list) => list.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

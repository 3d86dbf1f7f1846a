//! OpenAI chat request → `/api/chat`.
use super::pin;
use crate::kinds::{Api, Endpoint};
use serde_json::{Map, Value, json};

/// Options that have the same meaning on both sides. Any number will do.
const NUMBERS: &[(&str, &str)] = &[
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

/// Fields that promise something about the answer which would be silently broken.
const PROMISES: &[(&str, &str)] = &[
    ("tools", "tools"),
    ("functions", "functions"),
    ("function_call", "functions"),
    ("logit_bias", "logit_bias"),
    ("allowed_token_ids", "allowed_token_ids"),
    ("bad_words", "bad_words"),
    ("stop_token_ids", "stop_token_ids"),
    ("ignore_eos", "ignore_eos"),
    ("top_logprobs", "logprobs"),
    ("prompt_logprobs", "prompt_logprobs"),
    ("grammar", "a grammar"),
    ("json_schema", "a JSON schema"),
    ("structured_outputs", "structured outputs"),
    ("guided_json", "guided decoding"),
    ("guided_regex", "guided decoding"),
    ("guided_choice", "guided decoding"),
    ("guided_grammar", "guided decoding"),
    ("audio", "audio"),
    ("prediction", "a predicted output"),
    ("continue_final_message", "continuing the last message"),
    ("echo", "echo"),
];

/// Can an upstream of this dialect be asked for this? If not, why not: a short reason for `x-mainstay-skipped`.
pub fn carries(api: Api, endpoint: Endpoint, body: &Value) -> Result<(), String> {
    match (api, endpoint) {
        (Api::OpenAi, _) => Ok(()),
        (Api::Ollama, Endpoint::Chat) => carries_chat(body),
        (Api::Ollama, Endpoint::Completions) => Err("completions are not translated".into()),
        (Api::Ollama, Endpoint::Embeddings) => Err("embeddings are not translated".into()),
        (Api::Ollama, Endpoint::Passthrough) => Err("this path is not translated".into()),
    }
}

fn carries_chat(body: &Value) -> Result<(), String> {
    let no = |what: &str| Err(format!("{what} not translated"));
    if let Some((_, what)) = PROMISES.iter().find(|(name, _)| is_given(body.get(name))) {
        return no(what);
    }
    match body.pointer("/response_format/type").and_then(Value::as_str) {
        None | Some("text") => {}
        Some(_) => return no("response_format"),
    }
    if body.get("logprobs").is_some_and(|logprobs| !matches!(logprobs, Value::Null | Value::Bool(false))) {
        return no("logprobs");
    }
    if body.get("n").is_some_and(|n| !n.is_null() && n.as_u64() != Some(1)) {
        return no("n other than 1");
    }
    if body
        .get("modalities")
        .and_then(Value::as_array)
        .is_some_and(|list| list.iter().any(|one| one != "text"))
    {
        return no("modalities other than text");
    }
    let numbers = NUMBERS.iter().map(|(name, _)| *name);
    if let Some(name) =
        numbers.into_iter().find(|name| body.get(name).is_some_and(|v| !v.is_null() && !v.is_number()))
    {
        return Err(format!("{name} is not a number"));
    }
    for name in ["max_tokens", "max_completion_tokens"] {
        // Ollama takes a negative limit as none at all.
        if body
            .get(name)
            .is_some_and(|limit| !limit.is_null() && limit.as_u64().is_none_or(|limit| limit == 0))
        {
            return Err(format!("{name} is not a positive whole number"));
        }
    }
    if body.get("stop").is_some_and(|stop| !stop.is_null() && stops(stop).is_none()) {
        return Err("stop is neither a string nor a list of strings".into());
    }
    if body.get("stream").is_some_and(|stream| !stream.is_null() && !stream.is_boolean()) {
        return Err("stream is not true or false".into());
    }
    match body.get("messages").and_then(Value::as_array) {
        // Without messages Ollama answers that it has loaded the model, and nothing else.
        None => Err("messages are not a list".into()),
        Some(messages) if messages.is_empty() => Err("messages are empty".into()),
        Some(messages) => messages.iter().try_for_each(carries_message),
    }
}

/// Is a field there and asking for something? `"tools": []` and `"echo": false` are not.
fn is_given(field: Option<&Value>) -> bool {
    match field {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(fields)) => !fields.is_empty(),
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::Bool(true) | Value::String(_)) => true,
    }
}

fn carries_message(message: &Value) -> Result<(), String> {
    let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
    if native_role(role).is_none() {
        return Err(match role {
            "tool" | "function" => "tool messages not translated".into(),
            _ => "a message with an unknown role".into(),
        });
    }
    if is_given(message.get("tool_calls")) || is_given(message.get("function_call")) {
        return Err("tool calls not translated".into());
    }
    match message.get("content") {
        None | Some(Value::Null | Value::String(_)) => Ok(()),
        Some(Value::Array(parts)) if parts.iter().all(|part| part_text(part).is_some()) => Ok(()),
        Some(Value::Array(parts)) => {
            let other = parts.iter().find(|part| part_text(part).is_none()).and_then(|part| part.get("type"));
            match other.and_then(Value::as_str) {
                Some("image_url" | "input_image") => Err("images not translated".into()),
                Some("input_audio" | "audio_url") => Err("audio not translated".into()),
                _ => Err("content other than text not translated".into()),
            }
        }
        Some(_) => Err("content is neither a string nor a list of parts".into()),
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

/// The `/api/chat` request for a chat that the tier [`carries`]. What it does not carry is left out.
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
fn stops(stop: &Value) -> Option<Vec<&str>> {
    match stop {
        Value::String(one) => Some(vec![one]),
        Value::Array(list) => list.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

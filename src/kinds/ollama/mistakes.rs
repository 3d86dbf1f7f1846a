//! What is wrong with a chat by OpenAI's API, whichever tier gets it. Engines with that API say so themselves; Ollama's
//! dialect has no words for it.
use super::request::{NUMBERS, stops};
use serde_json::{Map, Value};

/// A field of a chat, and what its value has to be. (vLLM and llama-server take -1 as a limit: that is no mistake.)
struct Form {
    field: &'static str,
    is: fn(&Value) -> bool,
    /// Goes on from "is not".
    what: &'static str,
}

const fn form(field: &'static str, is: fn(&Value) -> bool, what: &'static str) -> Form {
    Form { field, is, what }
}

const FORMS: &[Form] = &[
    form("max_tokens", Value::is_number, "a number"),
    form("max_completion_tokens", Value::is_number, "a number"),
    form("n", |count| count.as_f64().is_some_and(|count| count >= 1.0), "a number of at least 1"),
    form("stop", |stop| stops(stop).is_some(), "a string or a list of strings"),
    form("stream", Value::is_boolean, "true or false"),
    form("tools", Value::is_array, "a list"),
    form("tool_choice", |choice| choice.is_string() || choice.is_object(), "a string or an object"),
    form("response_format", Value::is_object, "an object"),
    form("logit_bias", Value::is_object, "an object"),
    form("top_logprobs", Value::is_number, "a number"),
];

/// The field that is wrong, and how: `max_tokens is not a number`. Nothing of the request is quoted.
pub(in crate::kinds) fn mistake(body: &Value) -> Option<(&'static str, String)> {
    let fields = body.as_object()?;
    let given = |field: &str| fields.get(field).filter(|value| !value.is_null());
    let numbers = NUMBERS.iter().map(|(field, _)| form(field, Value::is_number, "a number"));
    let forms = FORMS.iter().map(|form| Form { ..*form });
    let wrong = numbers.chain(forms).find(|form| given(form.field).is_some_and(|value| !(form.is)(value)));
    if let Some(Form { field, what, .. }) = wrong {
        return Some((field, format!("{field} is not {what}")));
    }
    let what = match given("messages").map(Value::as_array) {
        None => "messages are missing",
        Some(None) => "messages are not a list",
        Some(Some(messages)) => messages.iter().find_map(in_message)?,
    };
    Some(("messages", what.to_owned()))
}

fn in_message(message: &Value) -> Option<&'static str> {
    let nothing = Map::new();
    let message = message.as_object().unwrap_or(&nothing);
    match message.get("role").and_then(Value::as_str) {
        Some("system" | "developer" | "user" | "assistant" | "tool" | "function") => {}
        Some(_) => return Some("a message has an unknown role"),
        None => return Some("a message has no role"),
    }
    match message.get("content") {
        None | Some(Value::Null | Value::String(_)) => None,
        Some(Value::Array(parts)) => {
            let is_wrong = |part: &Value| {
                part.get("type").is_some_and(|kind| kind == "text") && !part["text"].is_string()
            };
            parts.iter().any(is_wrong).then_some("a part of a message is a text without text")
        }
        Some(_) => Some("a message's content is neither a string nor a list of parts"),
    }
}

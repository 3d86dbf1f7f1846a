//! What makes a 2xx an answer, by endpoint. The data plane and a tier's trial judge by the same functions.
use super::Endpoint;
use serde_json::Value;

/// Does a whole 2xx answer in OpenAI's form hold an answer to what `endpoint` was asked? If not, what is wrong with
/// it, as words that go on from the tier's name. A pass-through's answers are not judged.
pub fn holds_answer(endpoint: Endpoint, answer: &Value) -> Result<(), &'static str> {
    match endpoint {
        Endpoint::Chat => each(answer, "choices", |choice| holds_message(choice, answer)),
        // Some upstreams answer with messages there too.
        Endpoint::Completions => each(answer, "choices", |choice| {
            holds_text(choice).or_else(|why| holds_message(choice, answer).map_err(|_| why))
        }),
        Endpoint::Embeddings => each(answer, "data", holds_embedding),
        Endpoint::Passthrough => Ok(()),
    }
}

fn each(
    answer: &Value,
    list: &str,
    holds: impl Fn(&Value) -> Result<(), &'static str>,
) -> Result<(), &'static str> {
    match answer.get(list).and_then(Value::as_array) {
        Some(entries) if !entries.is_empty() => entries.iter().try_for_each(holds),
        Some(_) | None if list == "data" => Err("gave an answer without embeddings"),
        Some(_) | None => Err("gave an answer without choices"),
    }
}

fn holds_message(choice: &Value, answer: &Value) -> Result<(), &'static str> {
    let message = choice.get("message").unwrap_or(&Value::Null);
    let reason = finish_reason(choice);
    if !message.is_object() {
        return Err("gave an answer whose choice has no message");
    }
    // A model may end at once. vLLM with a reasoning parser then gives null where the others give "".
    let said_nothing = || message.get("content").is_some_and(Value::is_string) || has_generated(answer);
    match reason {
        _ if says(message) => Ok(()),
        Some("content_filter") => Ok(()),
        Some(_) if said_nothing() => Ok(()),
        Some(_) | None => Err("gave an answer whose message is empty"),
    }
}

fn holds_text(choice: &Value) -> Result<(), &'static str> {
    match choice.get("text").and_then(Value::as_str) {
        Some("") if finish_reason(choice).is_none() => Err("gave an answer whose text is empty"),
        Some(_) => Ok(()),
        None => Err("gave an answer whose choice has no text"),
    }
}

fn holds_embedding(entry: &Value) -> Result<(), &'static str> {
    match entry.get("embedding") {
        Some(Value::String(base64)) if !base64.is_empty() => Ok(()),
        // A list of lists has a vector for each token.
        Some(Value::Array(vector)) if !vector.is_empty() => {
            let is_sound = |figure: &Value| figure.is_number() || figure.is_array();
            if vector.iter().all(is_sound) { Ok(()) } else { Err("gave an embedding that is not of numbers") }
        }
        Some(_) | None => Err("gave an entry without an embedding"),
    }
}

fn has_generated(answer: &Value) -> bool {
    answer.pointer("/usage/completion_tokens").and_then(Value::as_u64).is_some_and(|tokens| tokens > 0)
}

/// Why a choice ended; `None` while it has not. Some upstreams write "" until then.
pub fn finish_reason(choice: &Value) -> Option<&str> {
    choice.get("finish_reason").and_then(Value::as_str).filter(|reason| !reason.trim().is_empty())
}

/// Is there anything in a message, or in a stream's delta, that a client waits for? Everything but who speaks is, so
/// that what engines add later (reasoning, audio, refusals) counts.
pub fn says(message: &Value) -> bool {
    const NO_CONTENT: [&str; 3] = ["role", "name", "annotations"];
    let fields = message.as_object();
    fields.is_some_and(|fields| {
        fields.iter().any(|(name, value)| !NO_CONTENT.contains(&name.as_str()) && is_something(value))
    })
}

fn is_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) | Value::Number(_) => true,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// Does this choice of a stream's chunk carry content?
pub fn carries_content(endpoint: Endpoint, choice: &Value) -> bool {
    match endpoint {
        Endpoint::Completions if choice.get("text").is_some_and(is_something) => true,
        Endpoint::Completions | Endpoint::Chat | Endpoint::Embeddings | Endpoint::Passthrough => {
            choice.get("delta").is_some_and(says)
        }
    }
}

/// Does this choice of a stream's chunk begin a message or text, even an empty one? llama-server begins with a role
/// and `content: null`, and an answer of no token has nothing more.
pub fn begins_answer(endpoint: Endpoint, choice: &Value) -> bool {
    match endpoint {
        Endpoint::Completions if choice.get("text").is_some_and(Value::is_string) => true,
        Endpoint::Completions | Endpoint::Chat | Endpoint::Embeddings | Endpoint::Passthrough => {
            let delta = choice.get("delta");
            let has = |name| delta.and_then(|delta| delta.get(name)).is_some_and(Value::is_string);
            has("role") || has("content") || carries_content(endpoint, choice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn holds(endpoint: Endpoint, answer: &Value) -> bool {
        holds_answer(endpoint, answer).is_ok()
    }

    #[test]
    fn what_real_engines_answer_in_a_chat() {
        for (message, reason) in [
            (json!({"role": "assistant", "content": "hi"}), "stop"),
            // vLLM, llama-server and Ollama when the first token ends the answer.
            (json!({"role": "assistant", "content": ""}), "stop"),
            (json!({"role": "assistant", "content": "", "tool_calls": [], "refusal": null}), "length"),
            (json!({"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]}), "tool_calls"),
            (json!({"role": "assistant", "content": null, "function_call": {"name": "f"}}), "function_call"),
            (json!({"role": "assistant", "content": null, "reasoning": "hm"}), "length"),
            (json!({"role": "assistant", "content": null, "reasoning_content": "hm"}), "length"),
            (json!({"role": "assistant", "content": null, "refusal": "no"}), "stop"),
            (json!({"role": "assistant", "content": null, "audio": {"id": "1"}}), "stop"),
            (json!({"role": "assistant", "content": [{"type": "text", "text": "hi"}]}), "stop"),
            (json!({"role": "assistant", "content": null}), "content_filter"),
        ] {
            let answer = json!({"choices": [{"index": 0, "message": message, "finish_reason": reason}]});
            assert!(holds(Endpoint::Chat, &answer), "{answer}");
        }
        // vLLM with a reasoning parser, when the answer's only token is its end.
        let message = json!({"role": "assistant", "content": null, "reasoning": null, "tool_calls": []});
        let choices = json!([{"message": message, "finish_reason": "stop"}]);
        assert!(holds(Endpoint::Chat, &json!({"choices": choices, "usage": {"completion_tokens": 1}})));
        assert!(!holds(Endpoint::Chat, &json!({"choices": choices, "usage": {"completion_tokens": 0}})));
    }

    #[test]
    fn what_is_no_answer_in_a_chat() {
        let whole = json!({"message": {"content": "hi"}, "finish_reason": "stop"});
        for choices in [
            Value::Null,
            json!([]),
            json!({}),
            json!("hi"),
            json!([null]),
            json!([{"finish_reason": "stop"}]),
            json!([{"message": null, "finish_reason": "stop"}]),
            json!([{"message": "hi", "finish_reason": "stop"}]),
            json!([{"message": {}, "finish_reason": "stop"}]),
            json!([{"message": {"role": "assistant"}, "finish_reason": "stop"}]),
            json!([{"message": {"role": "assistant", "content": null}, "finish_reason": "stop"}]),
            json!([{"message": {"role": "assistant", "content": ""}}]),
            json!([{"message": {"role": "assistant", "content": ""}, "finish_reason": ""}]),
            json!([{"text": "hi", "finish_reason": "stop"}]),
            json!([whole, {"message": {}, "finish_reason": "stop"}]),
        ] {
            let answer = json!({ "choices": choices });
            assert!(!holds(Endpoint::Chat, &answer), "{answer}");
        }
        assert!(!holds(Endpoint::Chat, &json!({})));
        assert!(!holds(Endpoint::Chat, &json!({"object": "chat.completion", "usage": {}})));
    }

    #[test]
    fn completions() {
        for (choice, expected) in [
            (json!({"text": "hi", "finish_reason": "stop"}), true),
            (json!({"text": "", "finish_reason": "length"}), true),
            (json!({"text": ""}), false),
            (json!({"text": null, "finish_reason": "stop"}), false),
            (json!({"message": {"content": "hi"}, "finish_reason": "stop"}), true),
            (json!({"message": {}, "finish_reason": "stop"}), false),
        ] {
            let answer = json!({ "choices": [choice] });
            assert_eq!(holds(Endpoint::Completions, &answer), expected, "{answer}");
        }
        assert!(!holds(Endpoint::Completions, &json!({"choices": []})));
    }

    #[test]
    fn embeddings() {
        for (data, expected) in [
            (json!([{"embedding": [0.1, -2]}]), true),
            (json!([{"embedding": "AACAPw=="}]), true),
            (json!([{"embedding": [[0.1], [0.2]]}]), true),
            (json!([]), false),
            (json!([{}]), false),
            (json!([{"embedding": []}]), false),
            (json!([{"embedding": ""}]), false),
            (json!([{"embedding": [0.1, null]}]), false),
            (json!([{"embedding": [0.1]}, {"embedding": null}]), false),
        ] {
            assert_eq!(holds(Endpoint::Embeddings, &json!({"data": data})), expected, "{data}");
        }
        assert!(!holds(Endpoint::Embeddings, &json!({"choices": [{"text": "hi"}]})));
        assert!(holds(Endpoint::Passthrough, &json!({})));
    }

    #[test]
    fn a_reason_to_end_is_a_word() {
        for (reason, expected) in [
            (json!("stop"), Some("stop")),
            (json!(""), None),
            (json!(" "), None),
            (json!(null), None),
            (json!(0), None),
            (json!(false), None),
        ] {
            assert_eq!(finish_reason(&json!({"finish_reason": reason})), expected);
        }
        assert_eq!(finish_reason(&json!({})), None);
    }

    #[test]
    fn chunks_of_a_stream() {
        let chunk = |delta: Value| json!({"index": 0, "delta": delta, "finish_reason": null});
        for (delta, begins, carries) in [
            (json!({}), false, false),
            (json!({"role": "assistant", "content": null}), true, false),
            (json!({"content": ""}), true, false),
            (json!({"content": "x"}), true, true),
            (json!({"reasoning": "x"}), true, true),
            (json!({"tool_calls": []}), false, false),
        ] {
            let choice = chunk(delta);
            assert_eq!(begins_answer(Endpoint::Chat, &choice), begins, "{choice}");
            assert_eq!(carries_content(Endpoint::Chat, &choice), carries, "{choice}");
        }
        assert!(begins_answer(Endpoint::Completions, &json!({"text": ""})));
        assert!(!carries_content(Endpoint::Completions, &json!({"text": ""})));
        assert!(carries_content(Endpoint::Completions, &json!({"text": "x"})));
        assert!(!carries_content(Endpoint::Chat, &json!({"text": "x"})));
    }
}

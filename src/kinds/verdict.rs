//! Whose fault an upstream's answer is: which one moves a request to the next tier, which is the client's own, which
//! is overload, and which counts against the tier. The table is data ([`ROWS`]), read from the top.
use super::content::finish_reason;
use super::{Api, Kind};
use serde_json::Value;
use std::ops::RangeInclusive;

/// What to do about one upstream's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// A proper answer.
    Answer,
    /// The request is wrong wherever it goes: the upstream's answer is the client's, a 500 as a 400. No strike.
    ClientError,
    /// This tier cannot do what was asked, another may. No strike; the upstream's answer goes out when none can.
    Capability,
    /// A remote does not serve this path, or somebody in front of it answered, who speaks no JSON: it may lack the endpoint,
    /// or our address of it may be wrong, which its trial tells. Else as `Capability`.
    NotServed,
    /// Too long for this tier; one with a larger context may do it. No strike; this goes out as a 400 else.
    ContextTooLong,
    /// Full, or still loading. No strike; passed on with its Retry-After when no tier is left.
    Overloaded,
    /// The upstream failed. Moves on; `strike` counts against the tier's health.
    Failure { strike: bool },
    /// The upstream does not know the name, path or key that we ourselves sent. Moves on, no strike, and is never the
    /// client's error.
    Misconfigured,
    /// A 500 that reads like bad input. One other tier is tried, without a strike: when that says the same, or there is
    /// none, the client gets it as a 400.
    BadInput,
}

const STRIKE: Verdict = Verdict::Failure { strike: true };
const NO_STRIKE: Verdict = Verdict::Failure { strike: false };

/// Whose wording a row knows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaker {
    Vllm,
    Llama,
    Ollama,
    /// Whoever is behind a remote tier: the account, the key, the model's name and the route are ours there, not the client's.
    Remote,
    Any,
}

/// An answer matches when its status is in the range and its error text, type or code holds one of the phrases
/// (lower case; none given: any text).
struct Row {
    speaker: Speaker,
    status: RangeInclusive<u16>,
    says: &'static [&'static str],
    verdict: Verdict,
}

const fn row(
    speaker: Speaker,
    status: RangeInclusive<u16>,
    says: &'static [&'static str],
    verdict: Verdict,
) -> Row {
    Row { speaker, status, says, verdict }
}

/// The first row that matches decides.
#[rustfmt::skip]
const ROWS: &[Row] = {
    use Speaker::{Any, Llama, Ollama, Remote, Vllm};
    use Verdict::{BadInput, Capability, ClientError, ContextTooLong, Misconfigured, NotServed, Overloaded};
    &[
        // The request does not fit this tier's context.
        row(Any, 400..=422, &[
            "maximum context length", "exceed_context_size_error", "exceeds the available context size",
            "longer than the maximum model length", "longer than the context length",
            "exceeds the context length", "exceeds maximum context length", "cannot be greater than max_model_len",
            "context_length_exceeded", "too large to process",
        ], ContextTooLong),
        // Of vectors: they are made in one physical batch.
        row(Llama, 500..=500, &["too large to process"], ContextTooLong),
        row(Remote, 404..=404, &AT_ANOTHER_PATH, NotServed),
        // The name that we put into the request ourselves.
        row(Vllm, 404..=404, &["` does not exist"], Misconfigured),
        row(Any, 404..=404, &["model_not_found"], Misconfigured),
        row(Remote, 400..=422, &[
            "model_not_found", "invalid_model", "invalid model:", "invalid model name", "model not exist", "unknown model",
            "not a valid model id", "deploymentnotfound",
        ], Misconfigured),
        row(Remote, 404..=404, &["model", "no endpoints found for"], Misconfigured),
        row(Ollama, 404..=404, &["model '", "model \""], Misconfigured),
        // Our account, our proxy, our address of it.
        row(Remote, 402..=402, &[], Misconfigured),
        row(Remote, 407..=407, &[], Misconfigured),
        row(Remote, 410..=410, &[], Misconfigured),
        row(Remote, 421..=421, &[], Misconfigured),
        // A Host header that it does not like: ours.
        row(Ollama, 403..=403, &[], Misconfigured),
        // What this tier, or this build of it, does not have.
        row(Llama, 403..=403, &["feature_disabled"], Capability),
        row(Ollama, 400..=400, &["does not support"], Capability),
        row(Vllm, 400..=400, &[
            "--enable-auto-tool-choice", "--tool-call-parser", "is not a multimodal model", "at most 0 ",
            "does not support", "default chat template is no longer allowed", "--trust-request-chat-template",
            "suffix is only supported", "suffix is not currently supported", "content part type",
            "greater than max allowed",
        ], Capability),
        // A field that this server does not know, or not for its model. Others know it, or ignore what they do not know.
        row(Vllm, 400..=422, &[
            "unrecognized request argument", "unknown_parameter", "unsupported_parameter", "unsupported_value",
            "extra_forbidden", "extra inputs are not permitted",
        ], Capability),
        // "value must be between 1 <= value <= 4, but got -1": no engine gives fewer than one answer.
        row(Llama, 400..=400, &["but got -", "but got 0"], ClientError),
        row(Llama, 400..=400, &[
            "is not supported", "does not support", "requires --jinja", "field 'n': value must be",
            "field 'n_cmpl': value must be", "unsupported content part type",
            "unsupported content[].type", "response_format type must be one of",
            "cannot use custom grammar constraints with tools",
        ], Capability),
        // What somebody in front of a remote engine takes at most.
        row(Remote, 413..=414, &[], Capability),
        row(Remote, 431..=431, &[], Capability),
        row(Remote, 404..=404, &["no endpoints found that"], Capability),
        row(Remote, 404..=405, &[], NotServed),
        row(Any, 404..=404, &["not found"], Capability),
        row(Any, 405..=405, &[], Capability),
        row(Any, 501..=501, &[], Capability),
        // Full, or not there yet.
        row(Any, 408..=408, &[], Overloaded),
        row(Any, 429..=429, &[], Overloaded),
        row(Any, 503..=503, &[], Overloaded),
        row(Any, 529..=529, &[], Overloaded),
        row(Remote, 409..=409, &[], Overloaded),
        row(Remote, 425..=425, &[], Overloaded),
        row(Llama, 500..=500, &["context size has been exceeded"], Overloaded),
        // We went away ourselves, or somebody is stopping it.
        row(Any, 499..=499, &[], NO_STRIKE),
        row(Ollama, 500..=500, &["request canceled", "context canceled"], NO_STRIKE),
        row(Vllm, 500..=500, &["cannot schedule new futures after shutdown"], NO_STRIKE),
        // It computes no more.
        row(Llama, 500..=500, &["compute error", "invalid input batch", "decode() failed"], STRIKE),
        // It cannot write what its model said.
        row(Llama, 500..=500, &["[json.exception.type_error.316]"], STRIKE),
        // Thrown while reading the request, and wrong for every engine: a field that is missing, of the wrong type, or
        // has a value that nobody knows.
        row(Llama, 500..=500, &[
            "unknown reasoning format", "invalid tool_choice", "[json.exception.type_error.302]",
            "[json.exception.type_error.304]", "[json.exception.type_error.305]", "[json.exception.out_of_range.403]",
            "missing 'role' in message", "expected 'messages' to be", "expected 'message' to be",
            "expected 'tools' to be", "missing tool type", "missing tool function",
            "cannot use both json_schema and grammar", "cannot set both add_generation_prompt and continue_final_message",
        ], ClientError),
        // Thrown while reading the request, and another engine may understand it.
        row(Llama, 500..=500, &[
            "input is not supported", "[json.exception", "parse error",
            "failed to parse", "unable to generate parser", "jinja", "chat template", "does not support multimodal",
        ], BadInput),
        row(Ollama, 500..=500, &["must be of type", "does not support", "failed to process inputs"], BadInput),
        // Whatever is left.
        row(Any, 400..=499, &[], ClientError),
        row(Any, 500..=599, &[], STRIKE),
    ]
};

impl Row {
    fn matches(&self, speaks: &dyn Fn(Speaker) -> bool, status: u16, said: &str) -> bool {
        speaks(self.speaker)
            && self.status.contains(&status)
            && (self.says.is_empty() || self.says.iter().any(|phrase| said.contains(phrase)))
    }
}

/// The verdict on a whole answer.
pub fn verdict(api: Api, kind: Kind, status: u16, body: &[u8]) -> Verdict {
    match serde_json::from_slice::<Value>(body) {
        Ok(answer) => verdict_on(api, kind, status, &answer),
        Err(_) => of_text(api, kind, status, &String::from_utf8_lossy(body)),
    }
}

/// The same for an answer that was parsed already.
pub fn verdict_on(api: Api, kind: Kind, status: u16, answer: &Value) -> Verdict {
    if (200..=299).contains(&status) {
        return match api {
            Api::Ollama if answer.get("error").is_none() && !has_ended(answer) => STRIKE,
            Api::OpenAi | Api::Ollama => verdict_of_event(answer).unwrap_or(Verdict::Answer),
        };
    }
    let said = error_text(answer);
    if refuses_the_model(answer, status, &said.to_ascii_lowercase()) {
        return Verdict::Misconfigured;
    }
    of_error(api, kind, status, &said)
}

/// An answer that is not JSON. With a 2xx status that is a pass-through's business (audio, plain text), unless the
/// dialect has nothing but JSON.
fn of_text(api: Api, kind: Kind, status: u16, text: &str) -> Verdict {
    match (status, api) {
        (200..=299, Api::OpenAi) => Verdict::Answer,
        (200..=299, Api::Ollama) => STRIKE,
        // An upstream of an OpenAI kind that says 404 in prose has no such route.
        (404, _) if kind.is_local() => Verdict::Capability,
        (404 | 501, _) if !kind.is_local() => Verdict::NotServed,
        _ => match of_error(api, kind, status, text) {
            // Engines that are asked from afar answer in JSON: this is somebody between.
            Verdict::ClientError if !kind.is_local() => Verdict::NotServed,
            verdict => verdict,
        },
    }
}

/// What the guards of vLLM and of llama-server say, which stand before everything else.
const WANTS_A_KEY: [&str; 3] = ["unauthorized", "authentication_error", "invalid api key"];

fn of_error(api: Api, kind: Kind, status: u16, said: &str) -> Verdict {
    let said = said.to_ascii_lowercase();
    let remote = !kind.is_local();
    match status {
        // The key is ours there, not the client's.
        401 | 403 if remote => return Verdict::Misconfigured,
        // And here: what a client sends as a key stays with us, so none of them can satisfy an engine that wants one.
        401 if WANTS_A_KEY.iter().any(|words| said.contains(words)) => return Verdict::Misconfigured,
        // A mainstay that the request went through before, or too many of them: the way is at fault, not who found out.
        508 => return NO_STRIKE,
        400..=599 => {}
        // Neither an answer nor an error: whoever is there is not an inference engine.
        _ => return Verdict::Misconfigured,
    }
    let speaks = |speaker| match (speaker, kind) {
        (Speaker::Any, _) => true,
        (Speaker::Remote, _) => remote,
        (Speaker::Vllm, Kind::Vllm) | (Speaker::Llama, Kind::LlamaServer) => true,
        // Nobody knows what is behind a remote of that dialect.
        (Speaker::Vllm | Speaker::Llama, Kind::Remote(Api::OpenAi)) => true,
        (Speaker::Ollama, _) => api == Api::Ollama,
        // Ollama's runner is a llama-server, and its words come through.
        (Speaker::Llama, Kind::Ollama | Kind::Remote(Api::Ollama)) => status >= 500,
        (Speaker::Vllm | Speaker::Llama, _) => false,
    };
    let row = ROWS.iter().find(|row| row.matches(&speaks, status, &said));
    row.map_or(STRIKE, |row| row.verdict)
}

/// The verdict on one event of a stream with status 200, or on one line of NDJSON; `None` when nothing is wrong with
/// it. vLLM reports the death of its engine like this, followed by a proper `[DONE]`.
pub fn verdict_of_event(event: &Value) -> Option<Verdict> {
    if event.get("error").is_some_and(|error| !error.is_null()) {
        let said = error_text(event).to_ascii_lowercase();
        let status = inner_status(event, &said);
        let verdict = refuses_the_model(event, status, &said).then_some(Verdict::Misconfigured);
        let row = || ROWS.iter().find(|row| row.matches(&|_| true, status, &said)).map(|row| row.verdict);
        return Some(verdict.or_else(row).unwrap_or(STRIKE));
    }
    let broken = event
        .get("choices")
        .and_then(Value::as_array)
        .is_some_and(|choices| choices.iter().filter_map(|choice| choice.get("finish_reason")).any(gave_up));
    // An answer that says "the model was loaded" instead of anything else holds nothing for the client.
    let ended_by = event.get("done_reason").and_then(Value::as_str);
    let empty = event.get("message").is_some() && matches!(ended_by, Some("load" | "unload"));
    (broken || empty).then_some(STRIKE)
}

/// Did the engine, and not the model, end this answer? `abort` is what vLLM says to new requests while it shuts down.
fn gave_up(finish_reason: &Value) -> bool {
    matches!(finish_reason.as_str(), Some("abort" | "error"))
}

/// Does this event, or whole answer, hold the proper end of a choice? A stream in which none did is cut, even when
/// `[DONE]` follows.
pub fn has_ended(event: &Value) -> bool {
    let choices = event.get("choices").and_then(Value::as_array);
    let finished =
        |choice: &Value| finish_reason(choice).is_some() && !choice.get("finish_reason").is_some_and(gave_up);
    choices.is_some_and(|choices| choices.iter().any(finished))
        || event.get("done") == Some(&Value::Bool(true))
}

/// Of a model that OpenAI knows, and serves at another path.
const AT_ANOTHER_PATH: [&str; 2] = ["not a chat model", "only supported in v1/"];

/// Was it the model's name that was refused, which is ours? A missing route is a 404 too.
fn refuses_the_model(answer: &Value, status: u16, said: &str) -> bool {
    let param = answer.pointer("/error/param").or_else(|| answer.get("param"));
    let is_about_the_model = param.and_then(Value::as_str) == Some("model")
        && !AT_ANOTHER_PATH.iter().any(|words| said.contains(words));
    (status == 404 && is_about_the_model) || (matches!(status, 400 | 404) && says_model_unknown(said))
}

/// `model 'x' not found`, `The model x does not exist`, at the beginning (lower case): what comes later may be quoted
/// from the request.
fn says_model_unknown(said: &str) -> bool {
    let said = said.strip_prefix("the ").unwrap_or(said);
    let Some(named) = said.strip_prefix("model ").or_else(|| said.strip_prefix("model: ")) else {
        return false;
    };
    // The name may be missing. A quoted one may hold blanks.
    let quote = named.chars().next().filter(|first| matches!(first, '\'' | '"' | '`'));
    let name_and_rest = match quote {
        Some(quote) => named[1..].split_once(quote),
        None => named.split_once(' '),
    };
    let after = name_and_rest.map_or("", |(_name, after)| after.trim_start());
    let unknown = ["not found", "is not found", "was not found", "does not exist", "not exist"];
    unknown.iter().any(|words| named.starts_with(words) || after.starts_with(words))
}

/// Everything that an error says, in one string: OpenAI's object, Ollama's bare string, old vLLM's flat object and
/// FastAPI's `detail`.
fn error_text(answer: &Value) -> String {
    let error = match answer.get("error") {
        Some(Value::String(text)) => return text.clone(),
        Some(object @ Value::Object(_)) => object,
        _ => answer,
    };
    let mut said = String::new();
    for name in ["message", "type", "code", "detail", "error"] {
        match error.get(name) {
            Some(Value::String(text)) => said.push_str(text),
            Some(Value::Null) | None => continue,
            Some(other) => said.push_str(&other.to_string()),
        }
        said.push(' ');
    }
    said
}

/// The status that an error inside a 200 stands for: its own code, else what its type means, else 500.
fn inner_status(event: &Value, said: &str) -> u16 {
    const TYPES: &[(&str, u16)] = &[
        ("badrequest", 400),
        ("invalid_request", 400),
        ("notfound", 404),
        ("not_found", 404),
        ("rate_limit", 429),
        ("serviceunavailable", 503),
        ("service unavailable", 503),
        ("unavailable_error", 503),
        ("server busy", 503),
        ("overloaded", 503),
    ];
    let code = event.pointer("/error/code").or_else(|| event.pointer("/error/status"));
    let number = code.and_then(|code| code.as_u64().or_else(|| code.as_str()?.parse().ok()));
    match number.and_then(|number| u16::try_from(number).ok()) {
        Some(status @ 400..=599) => status,
        _ => TYPES.iter().find(|(name, _)| said.contains(name)).map_or(500, |(_, status)| *status),
    }
}

#[cfg(test)]
mod tests;

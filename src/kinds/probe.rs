//! What to ask an upstream to learn whether it is alive, works and has its model, and how to read the answers.
//! Nothing here sends anything.
use super::verdict::{Verdict, verdict};
use super::{Api, Device, Endpoint, Kind, cause, holds_answer};
use crate::policy::{Cause, Tried};
use serde_json::{Value, json};

/// One request to an upstream. A body is sent as `application/json`.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeRequest {
    pub method: &'static str,
    pub path: String,
    pub body: Option<Value>,
}

impl ProbeRequest {
    fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), body: None }
    }

    fn post(path: &str, body: Value) -> Self {
        Self { method: "POST", path: path.to_owned(), body: Some(body) }
    }
}

/// The cheapest question that a serving process answers with 200. It proves the HTTP half of an engine only: all
/// three go on saying 200 while the half that computes hangs.
pub fn health(kind: Kind, health_path: Option<&str>) -> ProbeRequest {
    ProbeRequest::get(health_path.unwrap_or_else(|| default_health_path(kind)))
}

pub const fn default_health_path(kind: Kind) -> &'static str {
    match kind.api() {
        Api::OpenAi => "/health",
        Api::Ollama => "/api/version",
    }
}

/// Where to read figures that move while the engine works, best first. The caller keeps to the first that ever gave a
/// figure for the rest of a run: two sources cannot be compared with each other.
///
/// Empty for Ollama, which has none (the CPU time of its [`worker_names`] stands in), and for a remote.
pub fn counters(kind: Kind) -> Vec<ProbeRequest> {
    match kind {
        Kind::Vllm => vec![ProbeRequest::get("/metrics")],
        Kind::LlamaServer => vec![ProbeRequest::get("/metrics"), ProbeRequest::get("/slots")],
        Kind::Ollama | Kind::Remote(_) => Vec::new(),
    }
}

/// vLLM counts a step's tokens when the step has ended.
const VLLM_COUNTERS: &[&str] =
    &["vllm:generation_tokens_total", "vllm:prompt_tokens_total", "vllm:iteration_tokens_total_count"];
/// The first moves with every batch; the others are flushed later. `tokens_predicted_total` alone stands still through
/// a long answer.
const LLAMA_COUNTERS: &[&str] =
    &["llamacpp:n_decode_total", "llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total"];

/// The figure in an answer to the `which`th of [`counters`]. It only means something beside another one from the same
/// place: different means that the engine worked in between. `None`: the answer holds no such figure.
pub fn read_counters(kind: Kind, which: usize, body: &str) -> Option<u64> {
    match (kind, which) {
        (Kind::Vllm, 0) => sum_of(VLLM_COUNTERS, &VLLM_COUNTERS[..1], body),
        (Kind::LlamaServer, 0) => sum_of(LLAMA_COUNTERS, &LLAMA_COUNTERS[..1], body),
        (Kind::LlamaServer, 1) => slots_key(body),
        _ => None,
    }
}

/// The sum of these metrics over all their labels. `None` when one of the `needed` ones is not there.
fn sum_of(names: &[&str], needed: &[&str], exposition: &str) -> Option<u64> {
    let mut sum = 0.0_f64;
    let mut seen = Vec::new();
    for line in exposition.lines() {
        let Some(name) = names
            .iter()
            .find(|name| line.strip_prefix(**name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        else {
            continue;
        };
        // Label values may hold blanks, so the figure is looked for behind the labels. A time may follow it.
        let figures = line.rsplit_once('}').map_or(&line[name.len()..], |(_, figures)| figures);
        let figure = figures.split_whitespace().next().and_then(|figure| figure.parse::<f64>().ok());
        if let Some(figure) = figure.filter(|figure| figure.is_finite() && *figure >= 0.0) {
            sum += figure;
            seen.push(*name);
        }
    }
    needed.iter().all(|name| seen.contains(name)).then_some(sum as u64)
}

/// A hash over what moves in llama-server's slots: the task, the prompt tokens processed, the tokens decoded.
fn slots_key(body: &str) -> Option<u64> {
    let slots: Value = serde_json::from_str(body).ok()?;
    let slots = slots.as_array().filter(|slots| !slots.is_empty())?;
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut mix = |figure: Option<&Value>| {
        let figure = figure.and_then(Value::as_f64).unwrap_or(-1.0);
        for byte in figure.to_bits().to_le_bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for slot in slots {
        mix(slot.get("id_task"));
        mix(slot.get("n_prompt_tokens_processed"));
        mix(slot.get("n_past"));
        // A list of one in new versions, a plain object in old ones.
        let next = slot.get("next_token").map(|next| next.get(0).unwrap_or(next));
        mix(next.and_then(|next| next.get("n_decoded")));
    }
    Some(hash)
}

/// Names (`comm`, cut to 15 bytes by the kernel) of the worker processes that hold the model and can be replaced
/// alone, leaving the main process. Empty where the engine dies with its worker.
pub const fn worker_names(kind: Kind) -> &'static [&'static str] {
    match kind {
        // Since 0.30 a llama-server; before that `ollama runner`, and before 0.4 a `ollama_llama_server`. The main process is
        // an `ollama` too, and not among its own descendants.
        Kind::Ollama => &["llama-server", "ollama", "ollama_llama_se"],
        Kind::Vllm | Kind::LlamaServer | Kind::Remote(_) => &[],
    }
}

/// Requests for one token: proof that the whole way works, from the socket to the model. The next one is asked where what the
/// one before asks for is not served ([`TrialAnswer::NotServed`]).
pub fn trials(kind: Kind, model: &str) -> Vec<ProbeRequest> {
    let mut trials = vec![trial(kind, model)];
    if kind == Kind::Remote(Api::OpenAi) {
        let complete = json!({ "model": model, "prompt": "ping", "max_tokens": 1 });
        let further = [
            (Endpoint::Completions, complete),
            (Endpoint::Embeddings, json!({ "model": model, "input": "ping" })),
        ];
        trials
            .extend(further.into_iter().filter_map(|(at, body)| Some(ProbeRequest::post(at.path()?, body))));
        trials.extend(OTHER_TASKS.map(|path| ProbeRequest::post(path, json!({ "model": model }))));
    }
    trials
}

/// What a remote may have in place of [`Endpoint::SERVED`]. It is asked for nothing: where it has the path, it says what is
/// missing.
const OTHER_TASKS: [&str; 10] = [
    "/v1/responses",
    "/v1/messages",
    "/v1/rerank",
    "/rerank",
    "/score",
    "/tokenize",
    "/detokenize",
    "/v1/audio/transcriptions",
    "/v1/audio/speech",
    "/v1/images/generations",
];

fn trial(kind: Kind, model: &str) -> ProbeRequest {
    match kind {
        Kind::Vllm => ProbeRequest::post(
            "/v1/completions",
            json!({ "model": model, "prompt": "ping", "max_tokens": 1, "temperature": 0 }),
        ),
        // Without the cache the prompt is really computed.
        Kind::LlamaServer => ProbeRequest::post(
            "/completion",
            json!({ "prompt": "ping", "n_predict": 1, "cache_prompt": false }),
        ),
        Kind::Ollama | Kind::Remote(Api::Ollama) => {
            let mut body = json!({ "model": model, "prompt": "ping", "raw": true, "stream": false });
            body["options"] = json!({ "num_predict": 1 });
            super::ollama::pin(&mut body, kind.is_local());
            ProbeRequest::post("/api/generate", body)
        }
        Kind::Remote(Api::OpenAi) => ProbeRequest::post(
            "/v1/chat/completions",
            json!({ "model": model, "messages": [{ "role": "user", "content": "ping" }], "max_tokens": 1 }),
        ),
    }
}

/// May a trial have to wait until the model is loaded? Who hangs up before aborts the load, and the next one begins anew.
/// A local Ollama has loaded it before it is ready, and keeps it.
pub const fn trial_loads(kind: Kind) -> bool {
    matches!(kind, Kind::Remote(Api::Ollama))
}

/// What an answer to one of [`trials`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrialAnswer {
    Tried(Tried),
    /// There is no such path. What it says when none of the others is there either.
    NotServed(Tried),
}

/// What the answer to the `which`th of [`trials`] says of the upstream, judged as a client's answer is. One that cannot do
/// what a trial asks for (an embedding model) read the request and had an opinion: of a remote that is the best word that
/// can be had, of a local engine it is the word of its HTTP half, which goes on talking while the half that computes hangs.
pub fn trial_answer(kind: Kind, which: usize, status: u16, body: &[u8]) -> TrialAnswer {
    let failed = |why: String| Tried::Failed { cause: Cause::Unknown, why };
    let refused =
        |(cause, why): (Cause, &str)| Tried::Refused { cause, why: format!("{why} (HTTP {status})") };
    let verdict = verdict(kind.api(), kind, status, body);
    if which >= Endpoint::SERVED.len() && shows_its_path(verdict, status) {
        return TrialAnswer::Tried(Tried::Passed);
    }
    TrialAnswer::Tried(match verdict {
        Verdict::Answer => match holds(kind, which, body) {
            Ok(()) => Tried::Passed,
            Err(wrong) => failed(format!("its answer {wrong}")),
        },
        Verdict::NotServed if !kind.is_local() => return TrialAnswer::NotServed(refused(NOT_SERVED)),
        Verdict::ClientError | Verdict::Capability | Verdict::ContextTooLong if is_opinion(kind, status) => {
            Tried::Passed
        }
        Verdict::ClientError | Verdict::Capability | Verdict::ContextTooLong if !kind.is_local() => refused(
            (Cause::BadArgument, "it refuses the shortest of requests: check `url` and the server there"),
        ),
        Verdict::Misconfigured => refused(misconfigured(kind, status)),
        Verdict::Overloaded if !kind.is_local() => refused((Cause::Unknown, "it turns requests away")),
        Verdict::Failure { .. } if (200..300).contains(&status) => {
            failed("an error in its answer".to_owned())
        }
        Verdict::ClientError
        | Verdict::Capability
        | Verdict::NotServed
        | Verdict::ContextTooLong
        | Verdict::Overloaded
        | Verdict::Failure { .. }
        | Verdict::BadInput => failed(format!("HTTP {status}")),
    })
}

/// Does a remote say with this status that it has read the request, and does not like something in it?
fn is_opinion(kind: Kind, status: u16) -> bool {
    !kind.is_local() && matches!(status, 200..=299 | 400 | 415 | 422 | 424 | 501)
}

/// Does the answer to a request for nothing show that somebody serves the path? It need not be a good one: a server may say in
/// prose what is missing, fail for want of it, or answer all the same.
fn shows_its_path(verdict: Verdict, status: u16) -> bool {
    match verdict {
        Verdict::NotServed => matches!(status, 415 | 422),
        Verdict::Misconfigured | Verdict::Overloaded => false,
        Verdict::Answer
        | Verdict::ClientError
        | Verdict::Capability
        | Verdict::ContextTooLong
        | Verdict::Failure { .. }
        | Verdict::BadInput => matches!(status, 200..=299 | 400 | 415 | 422 | 424 | 500 | 501),
    }
}

const NOT_SERVED: (Cause, &str) =
    (Cause::BadArgument, "it serves none of the paths that are asked for: check the path in `url`");

/// What of our own it refuses.
fn misconfigured(kind: Kind, status: u16) -> (Cause, &'static str) {
    if kind.is_local() {
        let cause = match status {
            401..=403 | 407 => Cause::AuthGated,
            404 => Cause::ModelMissing,
            _ => Cause::BadArgument,
        };
        return (cause, "it refuses what it is asked");
    }
    match status {
        401 | 403 => (Cause::AuthGated, "it refuses the key: check `api_key`"),
        402 => (Cause::AuthGated, "it wants to be paid: check the account of `api_key`"),
        407 => (Cause::AuthGated, "a proxy in front of it wants a login: check `url`"),
        400 | 404 | 422 => (Cause::ModelMissing, "it does not know the model: check `model`"),
        _ => (Cause::BadArgument, "it is not at this address: check `url`"),
    }
}

/// Is there an answer in what the `which`th of [`trials`] got, and if not, what is wrong with it?
fn holds(kind: Kind, which: usize, body: &[u8]) -> Result<(), &'static str> {
    let Ok(answer) = serde_json::from_slice::<Value>(body) else { return Err("is not JSON") };
    // One token may be no text at all.
    let text =
        |name| if answer.get(name).is_some_and(Value::is_string) { Ok(()) } else { Err("holds no text") };
    match kind {
        Kind::Vllm => holds_answer(Endpoint::Completions, &answer),
        // Further ones are asked for nothing.
        Kind::Remote(Api::OpenAi) => {
            Endpoint::SERVED.get(which).map_or(Ok(()), |&endpoint| holds_answer(endpoint, &answer))
        }
        // What stands in for it may know OpenAI's form only.
        Kind::LlamaServer => text("content").or_else(|_| holds_answer(Endpoint::Completions, &answer)),
        Kind::Ollama | Kind::Remote(Api::Ollama) => text("response"),
    }
}

/// Where an engine tells for how many tokens of prompt and answer together it was started. `None`: it does not, or it is not
/// ours to ask.
pub fn context(kind: Kind) -> Option<ProbeRequest> {
    match kind {
        Kind::Vllm => Some(ProbeRequest::get("/v1/models")),
        Kind::LlamaServer => Some(ProbeRequest::get("/props")),
        Kind::Ollama | Kind::Remote(_) => None,
    }
}

/// That number in the answer to [`context`].
pub fn read_context(kind: Kind, body: &[u8]) -> Option<u64> {
    let place = match kind {
        Kind::Vllm => "/data/0/max_model_len",
        Kind::LlamaServer => "/default_generation_settings/n_ctx",
        Kind::Ollama | Kind::Remote(_) => return None,
    };
    serde_json::from_slice::<Value>(body).ok()?.pointer(place)?.as_u64().filter(|&tokens| tokens > 0)
}

/// Does Ollama have this model? 200 when it does, 404 when not ([`load_answer`] reads a missing one).
pub fn installed(model: &str) -> ProbeRequest {
    ProbeRequest::post("/api/show", json!({ "model": model }))
}

/// What is loaded, and where it lies: an answer that costs no load. Only Ollama has one.
pub fn loaded(kind: Kind) -> Option<ProbeRequest> {
    match kind {
        Kind::Ollama => Some(ProbeRequest::get("/api/ps")),
        Kind::Vllm | Kind::LlamaServer | Kind::Remote(_) => None,
    }
}

/// What the answer to [`loaded`] says of this model; `None` when it is not loaded. A name without a tag means `latest`.
pub fn read_loaded(model: &str, body: &[u8]) -> Option<Device> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let is_it = |known: &str| known == model || known.strip_suffix(":latest") == Some(model);
    let named = |entry: &&Value| {
        let names = ["name", "model"].iter().filter_map(|key| entry.get(key)?.as_str());
        names.into_iter().any(is_it)
    };
    let entry = answer.get("models")?.as_array()?.iter().find(named)?;
    let size = entry.get("size")?.as_u64().filter(|&size| size > 0)?;
    let on_gpu = entry.get("size_vram").and_then(Value::as_u64).unwrap_or_default();
    let evidence =
        || format!("Ollama has {on_gpu} of {size} bytes of {model} on a GPU (size_vram of /api/ps)");
    Some(Device::of_share(on_gpu, size, evidence))
}

/// Makes Ollama load the model and keep it. The answer comes when it is loaded, however long that takes; who hangs up
/// before aborts the load.
pub fn load(model: &str) -> ProbeRequest {
    let mut body = json!({ "model": model, "stream": false });
    super::ollama::pin(&mut body, true);
    ProbeRequest::post("/api/generate", body)
}

/// Makes Ollama fetch the model. Answered by lines of progress, one JSON object each; see [`pull_line`].
pub fn pull(model: &str) -> ProbeRequest {
    ProbeRequest::post("/api/pull", json!({ "model": model, "stream": true }))
}

/// What Ollama said to [`installed`] or [`load`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Load {
    Loaded,
    /// The model is not installed.
    Missing {
        evidence: String,
    },
    /// It was tried and did not work. With `deterministic` `Some(true)` another try will end the same way.
    Failed {
        cause: Cause,
        deterministic: Option<bool>,
        evidence: String,
    },
    /// Not now; ask again.
    Busy,
}

/// Reads an answer to [`load`], or to [`installed`] (where `Loaded` says that it is there).
pub fn load_answer(status: u16, body: &[u8]) -> Load {
    let answer: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let said = answer.get("error").and_then(Value::as_str).map(str::to_owned);
    let evidence = said
        .clone()
        .unwrap_or_else(|| format!("Ollama answered {status} {}", String::from_utf8_lossy(body).trim()));
    match status {
        200..=299 if said.is_none() && answer.get("done") != Some(&Value::Bool(false)) => Load::Loaded,
        404 => Load::Missing { evidence },
        // 499: our own connection went away while it was loading.
        429 | 499 | 503 => Load::Busy,
        _ => failed(evidence, status),
    }
}

fn failed(evidence: String, status: u16) -> Load {
    match cause::of_line(Some(Kind::Ollama), &evidence) {
        Some((cause, deterministic)) => Load::Failed { cause, deterministic, evidence },
        None if (400..500).contains(&status) => {
            Load::Failed { cause: Cause::BadArgument, deterministic: Some(true), evidence }
        }
        None => Load::Failed { cause: Cause::EngineBug, deterministic: None, evidence },
    }
}

/// One line of the answer to [`pull`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pull {
    /// `percent` of the layer that is being fetched.
    Going {
        percent: Option<u8>,
    },
    Done,
    Failed {
        cause: Cause,
        deterministic: Option<bool>,
        evidence: String,
    },
}

/// Reads one line of the answer to [`pull`]. An answer that ends without `Done` has failed.
pub fn pull_line(line: &str) -> Pull {
    let line: Value = serde_json::from_str(line).unwrap_or(Value::Null);
    if let Some(error) = line.get("error").and_then(Value::as_str) {
        // Not `does not exist` alone: a registry that cannot be reached may be reached later.
        let (cause, deterministic) =
            cause::of_line(Some(Kind::Ollama), error).unwrap_or((Cause::Network, Some(false)));
        return Pull::Failed { cause, deterministic, evidence: error.to_owned() };
    }
    if line.get("status").and_then(Value::as_str) == Some("success") {
        return Pull::Done;
    }
    let figure = |name| line.get(name).and_then(Value::as_u64);
    let percent = match (figure("completed"), figure("total")) {
        (Some(completed), Some(total)) if total > 0 => {
            Some((u128::from(completed.min(total)) * 100 / u128::from(total)) as u8)
        }
        _ => None,
    };
    Pull::Going { percent }
}

#[cfg(test)]
mod tests;

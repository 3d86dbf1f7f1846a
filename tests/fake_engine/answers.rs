//! What the fake engine says, in the words of llama-server and vLLM.
use super::http::{Chunks, Request};
use super::knobs::{Knobs, Shared};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::time::Duration;

pub enum Answer<'a> {
    Whole {
        status: u16,
        /// More header lines, each with its line end.
        headers: String,
        body: String,
    },
    Stream(Box<dyn FnOnce(&mut Chunks<'_>) + 'a>),
    Reset,
    Cut,
}

impl Answer<'_> {
    fn json(status: u16, body: &Value) -> Self {
        Self::Whole { status, headers: String::new(), body: body.to_string() }
    }
}

pub fn answer<'a>(request: &Request, shared: &'a Shared) -> Answer<'a> {
    let knobs = shared.knobs();
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/health") => health(&knobs, shared),
        ("GET", "/v1/models") => {
            Answer::json(200, &json!({"object": "list", "data": [{"id": shared.model, "object": "model"}]}))
        }
        ("GET", "/props") => Answer::json(200, &json!({"default_generation_settings": {"n_ctx": 4096}})),
        ("GET", "/metrics") => Answer::Whole { status: 200, headers: String::new(), body: metrics(shared) },
        ("GET", "/knobs") => Answer::json(
            200,
            &json!({"knobs": knobs, "flooded_bytes": shared.flooded_bytes.load(Ordering::Relaxed),
                    "answered": shared.answered.load(Ordering::Relaxed)}),
        ),
        ("POST", "/knobs") => match shared.change_from_json(&request.body) {
            Ok(()) => Answer::json(200, &json!({})),
            Err(e) => Answer::json(400, &error(400, &e)),
        },
        ("POST", "/v1/chat/completions") => complete(request, shared, knobs, true),
        ("POST", "/v1/completions" | "/completion") => complete(request, shared, knobs, false),
        _ => Answer::json(404, &error(404, "File Not Found")),
    }
}

fn error(code: u16, message: &str) -> Value {
    json!({"error": {"message": message, "type": "fake_error", "param": null, "code": code}})
}

fn health<'a>(knobs: &Knobs, shared: &Shared) -> Answer<'a> {
    std::thread::sleep(Duration::from_millis(knobs.health_ms));
    if knobs.never_ready || shared.age() < knobs.ready_after {
        return Answer::json(503, &error(503, "Loading model"));
    }
    match knobs.health_status {
        0 | 200 => Answer::json(200, &json!({"status": "ok"})),
        status => Answer::json(status, &error(status, "unhealthy")),
    }
}

fn metrics(shared: &Shared) -> String {
    let read = |figure: &std::sync::atomic::AtomicU64| figure.load(Ordering::Relaxed);
    let (prompt, generated) = (read(&shared.prompt_tokens), read(&shared.generated_tokens));
    let (running, model) = (read(&shared.running), &shared.model);
    format!(
        "# TYPE vllm:generation_tokens_total counter\n\
         vllm:generation_tokens_total{{model_name=\"{model}\"}} {generated}.0\n\
         vllm:prompt_tokens_total{{model_name=\"{model}\"}} {prompt}.0\n\
         vllm:num_requests_running{{model_name=\"{model}\"}} {running}.0\n\
         llamacpp:prompt_tokens_total {prompt}\n\
         llamacpp:tokens_predicted_total {generated}\n\
         llamacpp:n_decode_total {generated}\n\
         llamacpp:requests_processing {running}\n"
    )
}

/// One answer in the making.
struct Completion<'a> {
    shared: &'a Shared,
    chat: bool,
    tokens: u32,
    finish_reason: &'static str,
    usage_asked: bool,
}

fn complete<'a>(request: &Request, shared: &'a Shared, knobs: Knobs, chat: bool) -> Answer<'a> {
    let Ok(asked) = serde_json::from_slice::<Value>(&request.body) else {
        return Answer::json(400, &error(400, "not JSON"));
    };
    let holds = |text: &String| String::from_utf8_lossy(&request.body).contains(text);
    if !knobs.die_on.is_empty() && holds(&knobs.die_on) {
        std::process::exit(1);
    }
    let status = if knobs.fail_on.is_empty() {
        knobs.status
    } else if !holds(&knobs.fail_on) {
        200
    } else if knobs.status == 0 {
        500
    } else {
        knobs.status
    };
    if !matches!(status, 0 | 200) {
        let body = match knobs.error_body.as_str() {
            "" => error(status, "the fake engine was told to fail").to_string(),
            body => body.to_owned(),
        };
        let headers = match knobs.retry_after.as_str() {
            "" => String::new(),
            seconds => format!("Retry-After: {seconds}\r\n"),
        };
        return Answer::Whole { status, headers, body };
    }
    let willing = if knobs.tokens == 0 { 8 } else { knobs.tokens };
    let most = ["max_tokens", "max_completion_tokens"].iter().find_map(|key| asked[*key].as_u64());
    let tokens = willing.min(most.map_or(u32::MAX, |most| most as u32));
    let completion = Completion {
        shared,
        chat,
        tokens,
        finish_reason: if tokens < willing { "length" } else { "stop" },
        usage_asked: asked["stream_options"]["include_usage"] == true,
    };
    // A hung device reads no prompt either, so no counter moves.
    if !knobs.freeze {
        shared.prompt_tokens.fetch_add(PROMPT_TOKENS, Ordering::Relaxed);
    }
    if asked["stream"] == true {
        return Answer::Stream(Box::new(move |chunks| {
            let _running = Running::begin(shared);
            completion.stream(chunks);
        }));
    }
    let _running = Running::begin(shared);
    completion.whole()
}

const PROMPT_TOKENS: u64 = 5;

/// Counts a request as running for as long as it lives.
struct Running<'a>(&'a Shared);

impl<'a> Running<'a> {
    fn begin(shared: &'a Shared) -> Self {
        shared.running.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
        self.0.answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the knobs, as they are now, make of the next token.
enum Fate {
    Token,
    Error,
    Cut,
    Reset,
}

impl Completion<'_> {
    /// Waits as long as the token takes, for ever if it must.
    fn next(&self, index: u32) -> Fate {
        let delay =
            if index == 0 { self.shared.knobs().first_token_ms } else { self.shared.knobs().token_ms };
        std::thread::sleep(Duration::from_millis(delay));
        loop {
            let knobs = self.shared.knobs();
            let due = |at: Option<u32>| at.is_some_and(|at| at <= index);
            if due(knobs.error_at) {
                return Fate::Error;
            } else if due(knobs.cut_at) {
                return Fate::Cut;
            } else if due(knobs.reset_at) {
                return Fate::Reset;
            } else if !due(knobs.silent_at) && !knobs.freeze && !knobs.hang {
                break;
            }
            // Until the next look at the knobs: somebody may turn them.
            std::thread::sleep(Duration::from_millis(20));
        }
        if index < self.tokens {
            self.shared.generated_tokens.fetch_add(1, Ordering::Relaxed);
        }
        Fate::Token
    }

    fn whole<'a>(&self) -> Answer<'a> {
        let mut text = String::new();
        for index in 0..self.tokens {
            match self.next(index) {
                Fate::Token => text.push_str(&word(index)),
                Fate::Error => return Answer::json(500, &error(500, DEAD)),
                Fate::Cut => return Answer::Cut,
                Fate::Reset => return Answer::Reset,
            }
        }
        let finish = self.finish();
        let choice = if self.chat {
            json!({"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish})
        } else {
            json!({"index": 0, "text": text, "finish_reason": finish})
        };
        let object = if self.chat { "chat.completion" } else { "text_completion" };
        Answer::json(200, &self.envelope(object, &json!([choice]), self.usage()))
    }

    fn stream(&self, chunks: &mut Chunks<'_>) {
        if self.chat && !self.say(chunks, json!({"role": "assistant", "content": null}), &Value::Null) {
            return;
        }
        // One more look after the last token: a stream can break before its end too.
        for index in 0..=self.tokens {
            match self.next(index) {
                Fate::Token if index < self.tokens => {
                    let word = word(index);
                    let piece = if self.chat { json!({"content": word}) } else { json!(word) };
                    if !self.say(chunks, piece, &Value::Null) {
                        return;
                    }
                }
                Fate::Token => {}
                Fate::Error => {
                    chunks.event(&error(500, DEAD).to_string());
                    chunks.event("[DONE]");
                    return;
                }
                Fate::Cut => return chunks.cut(),
                Fate::Reset => return chunks.reset(),
            }
        }
        let finish = self.finish();
        if !finish.is_null() {
            self.say(chunks, if self.chat { json!({}) } else { json!("") }, &finish);
        }
        if self.usage_asked {
            chunks.event(&self.envelope(self.chunk_object(), &json!([]), self.usage()).to_string());
        }
        chunks.event("[DONE]");
    }

    fn say(&self, chunks: &mut Chunks<'_>, piece: Value, finish: &Value) -> bool {
        let key = if self.chat { "delta" } else { "text" };
        let choices = json!([{"index": 0, key: piece, "finish_reason": finish}]);
        chunks.event(&self.envelope(self.chunk_object(), &choices, Value::Null).to_string())
    }

    fn chunk_object(&self) -> &'static str {
        if self.chat { "chat.completion.chunk" } else { "text_completion" }
    }

    fn finish(&self) -> Value {
        if self.shared.knobs().no_finish { Value::Null } else { json!(self.finish_reason) }
    }

    fn usage(&self) -> Value {
        let generated = u64::from(self.tokens);
        json!({"prompt_tokens": PROMPT_TOKENS, "completion_tokens": generated,
               "total_tokens": PROMPT_TOKENS + generated})
    }

    fn envelope(&self, object: &str, choices: &Value, usage: Value) -> Value {
        let mut envelope = json!({"id": "chatcmpl-fake", "object": object, "created": 1_700_000_000,
                                  "model": self.shared.model, "choices": choices});
        if !usage.is_null() {
            envelope["usage"] = usage;
        }
        envelope
    }
}

/// What vLLM says when its core is dead.
const DEAD: &str = "EngineCore encountered an issue. See stack trace (above) for the root cause.";

fn word(index: u32) -> String {
    format!("w{index} ")
}

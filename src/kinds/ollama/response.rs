//! `/api/chat` answers → OpenAI's.
use crate::kinds::verdict::{Verdict, verdict_of_event};
use serde_json::{Value, json};

/// What every chunk of one answer says of itself. Made by the caller, who has a clock and knows the tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// `chatcmpl-…`
    pub id: String,
    /// Seconds since 1970.
    pub created: i64,
    /// The model that really answers.
    pub model: String,
}

/// An answer that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub verdict: Verdict,
    /// For people: Ollama's own words, or what is missing.
    pub evidence: String,
}

impl Broken {
    fn failure(evidence: &str) -> Self {
        Self { verdict: Verdict::Failure { strike: true }, evidence: evidence.to_owned() }
    }
}

/// Translates a streamed answer, line by line.
#[derive(Debug)]
pub struct Stream {
    naming: Naming,
    include_usage: bool,
    begun: bool,
    ended: bool,
}

impl Stream {
    /// `include_usage`: the client's `stream_options.include_usage`.
    pub fn new(naming: Naming, include_usage: bool) -> Self {
        Self { naming, include_usage, begun: false, ended: false }
    }

    /// The chunks that one line of NDJSON (with or without its newline) stands for, in order, and maybe none.
    /// The first chunk of an answer holds the role only, the last but for usage the finish reason.
    pub fn line(&mut self, line: &[u8]) -> Result<Vec<Value>, Broken> {
        let line = line.trim_ascii();
        if line.is_empty() || self.ended {
            return Ok(Vec::new());
        }
        let said: Value =
            serde_json::from_slice(line).map_err(|_| Broken::failure("a line that is not JSON"))?;
        sound(&said)?;
        let mut chunks = Vec::new();
        if !self.begun {
            self.begun = true;
            chunks.push(self.chunk(json!({ "role": "assistant", "content": "" }), Value::Null));
        }
        if let Some(thought) = text(&said, "thinking") {
            chunks
                .push(self.chunk(json!({ "reasoning": thought, "reasoning_content": thought }), Value::Null));
        }
        if let Some(content) = text(&said, "content") {
            chunks.push(self.chunk(json!({ "content": content }), Value::Null));
        }
        if is_done(&said) {
            self.ended = true;
            chunks.push(self.chunk(json!({}), finish_reason(&said).into()));
            if self.include_usage {
                let mut last = self.frame(json!([]));
                last["usage"] = usage(&said);
                chunks.push(last);
            }
        }
        Ok(chunks)
    }

    /// Has the answer come to its proper end? An upstream that closes before has died, whatever it sent.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    fn chunk(&self, delta: Value, finish_reason: Value) -> Value {
        self.frame(json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason }]))
    }

    fn frame(&self, choices: Value) -> Value {
        let Naming { id, created, model } = &self.naming;
        json!({ "id": id, "object": "chat.completion.chunk", "created": created, "model": model, "choices": choices })
    }
}

/// Translates an answer that was not streamed.
pub fn whole(answer: &Value, naming: &Naming) -> Result<Value, Broken> {
    sound(answer)?;
    if !is_done(answer) {
        return Err(Broken::failure("an answer without \"done\": true"));
    }
    let mut message = json!({ "role": "assistant", "content": text(answer, "content").unwrap_or_default() });
    if let Some(thought) = text(answer, "thinking") {
        message["reasoning"] = thought.into();
        message["reasoning_content"] = thought.into();
    }
    let Naming { id, created, model } = naming;
    let finish_reason = finish_reason(answer);
    Ok(json!({
        "id": id, "object": "chat.completion", "created": created, "model": model,
        "choices": [{ "index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason }],
        "usage": usage(answer),
    }))
}

/// Refuses a line that reports an error, or says something else than an answer.
fn sound(said: &Value) -> Result<(), Broken> {
    if let Some(verdict) = verdict_of_event(said) {
        let evidence = match said.get("error") {
            Some(Value::String(error)) => error.clone(),
            Some(error) => error.to_string(),
            None => format!("an answer that ended with {}", said["done_reason"]),
        };
        return Err(Broken { verdict, evidence });
    }
    if said.get("message").is_none() && !is_done(said) {
        return Err(Broken::failure("a line without a message"));
    }
    Ok(())
}

fn is_done(said: &Value) -> bool {
    said.get("done") == Some(&Value::Bool(true))
}

/// A part of the message, if there is anything in it.
fn text<'a>(said: &'a Value, name: &str) -> Option<&'a str> {
    said.get("message")?.get(name)?.as_str().filter(|text| !text.is_empty())
}

/// Versions before 0.1.38 give no reason.
fn finish_reason(said: &Value) -> &'static str {
    match said.get("done_reason").and_then(Value::as_str) {
        Some("length") => "length",
        _ => "stop",
    }
}

fn usage(said: &Value) -> Value {
    // Ollama leaves a count of nothing out.
    let count = |name: &str| said.get(name).and_then(Value::as_u64).unwrap_or(0);
    let (prompt, completion) = (count("prompt_eval_count"), count("eval_count"));
    let total = prompt.saturating_add(completion);
    json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total })
}

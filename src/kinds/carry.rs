//! What engines make of a request's fields. One that changes what the answer is, is obeyed or the tier is skipped: the table
//! ([`ROWS`]) says who obeys what. How an answer is sampled (temperature, penalties, seed) is no such field: whoever ignores
//! it answers all the same what was asked.
use super::{Api, Endpoint, Kind, ollama};
use serde_json::{Map, Value, json};
use std::fmt;

/// A field, and who obeys it. A field may have several rows: each of them has to hold.
struct Row {
    at: &'static [Endpoint],
    field: &'static str,
    /// Does this value ask for what the row is about?
    asks: fn(&Value) -> bool,
    /// Of the engines whose sources are known. What stands behind a remote OpenAI endpoint is not: it is taken to obey all.
    obeyed_by: &'static [Kind],
}

const GENERATING: &[Endpoint] = &[Endpoint::Chat, Endpoint::Completions];

const fn row(field: &'static str, asks: fn(&Value) -> bool, obeyed_by: &'static [Kind]) -> Row {
    Row { at: GENERATING, field, asks, obeyed_by }
}

const VLLM: &[Kind] = &[Kind::Vllm];
const LLAMA: &[Kind] = &[Kind::LlamaServer];
const BOTH: &[Kind] = &[Kind::Vllm, Kind::LlamaServer];
const NOBODY: &[Kind] = &[];

/// Of vLLM 0.32 and llama-server b11549. Ollama's native chat obeys none of these.
const ROWS: &[Row] = &[
    // What the answer may consist of. vLLM obeys `guided_*` by the help of `adapt`.
    row("response_format", asks_for_a_form, BOTH),
    row("response_format", |format| !is_json(format), VLLM),
    Row { at: &[Endpoint::Completions], ..row("response_format", asks_for_a_form, VLLM) },
    row("structured_outputs", is_given, VLLM),
    row("guided_json", is_given, VLLM),
    row("guided_regex", is_given, VLLM),
    row("guided_choice", is_given, VLLM),
    row("guided_grammar", is_given, VLLM),
    row("grammar", is_given, LLAMA),
    row("json_schema", is_given, LLAMA),
    row("logit_bias", is_given, BOTH),
    row("allowed_token_ids", is_given, VLLM),
    row("bad_words", is_given, VLLM),
    // Where it ends.
    row("stop_token_ids", is_given, VLLM),
    row("include_stop_str_in_output", is_given, VLLM),
    row("ignore_eos", is_given, BOTH),
    row("min_tokens", is_given, VLLM),
    // Tools. llama-server reads the name of one as "auto".
    row("tools", is_given, BOTH),
    row("tool_choice", asks_for_a_tool, BOTH),
    row("tool_choice", Value::is_object, VLLM),
    row("functions", is_given, NOBODY),
    row("function_call", asks_for_a_tool, NOBODY),
    // How many answers, and which of them.
    row("n", asks_for_several, BOTH),
    row("n_cmpl", asks_for_several, LLAMA),
    row("best_of", asks_for_several, NOBODY),
    row("use_beam_search", is_given, VLLM),
    // What comes with it.
    row("logprobs", is_given, BOTH),
    row("top_logprobs", is_given, BOTH),
    row("n_probs", is_given, LLAMA),
    row("prompt_logprobs", |count| is_given(count) || count.is_number(), VLLM),
    row("logprob_token_ids", is_given, VLLM),
    row("return_token_ids", is_given, VLLM),
    row("return_tokens_as_token_ids", is_given, VLLM),
    row("skip_special_tokens", is_denied, VLLM),
    row("echo", is_given, VLLM),
    row("audio", is_given, NOBODY),
    row("modalities", asks_for_more_than_text, NOBODY),
    // What the model is given to read, and which model it is.
    row("suffix", is_given, VLLM),
    row("prompt_embeds", is_given, VLLM),
    row("truncate_prompt_tokens", is_given, VLLM),
    row("documents", is_given, VLLM),
    row("chat_template", is_given, VLLM),
    row("chat_template_kwargs", asks_for_more_than_thinking, BOTH),
    row("add_generation_prompt", is_denied, BOTH),
    row("continue_final_message", is_given, BOTH),
    row("lora", is_given, LLAMA),
    Row { at: &[Endpoint::Embeddings], ..row("dimensions", is_given, VLLM) },
];

/// Why a tier is not asked, in words for `x-mainstay-skipped`: nothing of the request is quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// It does not have what is asked for; another tier may.
    Lacks(String),
    /// The request is wrong whoever gets it: a field, and what is wrong with it.
    Wrong { field: &'static str, what: String },
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lacks(what) | Self::Wrong { what, .. } => f.write_str(what),
        }
    }
}

/// Can a tier of this kind be asked for this? A mistake of the client is found only where the engine has no words for it.
pub fn carries(kind: Kind, endpoint: Endpoint, body: &Value) -> Result<(), Misfit> {
    if kind == Kind::Remote(Api::OpenAi) {
        return Ok(());
    }
    if kind.api() == Api::Ollama {
        ollama::translates(endpoint).map_err(|why| Misfit::Lacks(why.to_owned()))?;
        if let Some((field, what)) = ollama::mistake(body) {
            return Err(Misfit::Wrong { field, what });
        }
    }
    let asks = |row: &&Row| row.at.contains(&endpoint) && body.get(row.field).is_some_and(row.asks);
    if let Some(row) = ROWS.iter().filter(asks).find(|row| !row.obeyed_by.contains(&kind)) {
        return Err(Misfit::Lacks(format!("does not obey {}", row.field)));
    }
    if kind.api() == Api::Ollama { ollama::understands(body).map_err(Misfit::Lacks) } else { Ok(()) }
}

/// Is something asked for? `"tools": []`, `"echo": false` and `"suffix": ""` do not.
pub(super) fn is_given(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) => true,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

fn is_denied(value: &Value) -> bool {
    *value == Value::Bool(false)
}

fn asks_for_several(count: &Value) -> bool {
    !count.is_null() && count.as_f64() != Some(1.0)
}

fn asks_for_a_form(format: &Value) -> bool {
    is_given(format) && form(format) != Some("text")
}

fn is_json(format: &Value) -> bool {
    !is_given(format) || matches!(form(format), Some("text" | "json_object" | "json_schema"))
}

fn form(format: &Value) -> Option<&str> {
    format.get("type").and_then(Value::as_str)
}

/// "auto" and "none" are what holds without it: tools, if there are any, are another field.
fn asks_for_a_tool(choice: &Value) -> bool {
    is_given(choice) && !matches!(choice.as_str(), Some("auto" | "none"))
}

fn asks_for_more_than_text(modalities: &Value) -> bool {
    let is_text = |list: &Vec<Value>| list.iter().all(|one| one == "text");
    is_given(modalities) && !modalities.as_array().is_some_and(is_text)
}

/// Whether it thinks is a field of Ollama's too.
fn asks_for_more_than_thinking(arguments: &Value) -> bool {
    let is_thinking = |(name, value): (&String, &Value)| name == "enable_thinking" && value.is_boolean();
    is_given(arguments) && !arguments.as_object().is_some_and(|all| all.iter().all(is_thinking))
}

/// vLLM's old names of constraints, and what each is called inside `structured_outputs`, which has taken their place:
/// versions before 0.11 know the old names only, those since 0.12 ignore them.
const GUIDES: [(&str, &str); 5] = [
    ("guided_json", "json"),
    ("guided_regex", "regex"),
    ("guided_choice", "choice"),
    ("guided_grammar", "grammar"),
    ("guided_whitespace_pattern", "whitespace_pattern"),
];

/// Puts what a tier of this kind carries into words that every version of its engine understands.
pub fn adapt(kind: Kind, body: &mut Value) {
    let Some(fields) = body.as_object_mut() else { return };
    match kind {
        Kind::Vllm => {
            drop_what_asks_for_nothing(fields);
            guide(fields);
        }
        // Some versions refuse these even where they ask for nothing.
        Kind::LlamaServer => ["best_of", "suffix"].iter().for_each(|name| {
            fields.shift_remove(*name);
        }),
        Kind::Ollama | Kind::Remote(_) => {}
    }
}

/// vLLM refuses an empty list of tools, the choice among none, and an empty suffix.
fn drop_what_asks_for_nothing(fields: &mut Map<String, Value>) {
    let given = |fields: &Map<String, Value>, name| fields.get(name).is_some_and(is_given);
    for name in ["tools", "suffix"] {
        if !given(fields, name) {
            fields.shift_remove(name);
        }
    }
    if !given(fields, "tools") && !fields.get("tool_choice").is_some_and(asks_for_a_tool) {
        fields.shift_remove("tool_choice");
    }
}

fn guide(fields: &mut Map<String, Value>) {
    if fields.get("structured_outputs").is_some_and(is_given) {
        return;
    }
    let given = |(old, new)| Some((new, fields.get(old).filter(|value| is_given(value))?.clone()));
    let guides: Vec<(&str, Value)> = GUIDES.into_iter().filter_map(given).collect();
    if guides.iter().any(|(name, _)| *name != "whitespace_pattern") {
        fields.insert("structured_outputs".into(), json!({}));
        guides.into_iter().for_each(|(name, value)| fields["structured_outputs"][name] = value);
    }
}

#[cfg(test)]
mod tests;

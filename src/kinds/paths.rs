//! Paths of requests: the one spelling that ours have here, the further ones that ask an engine for inference, and those
//! that change an engine for everybody.
use std::borrow::Cow;

/// Before a model's name, in which slashes may stand as they are.
pub const MODEL_PATH: &str = "/v1/models/";

/// Paths of ours that clients also ask for without `/v1`, because their base URL lacks it.
const SHORT: [&str; 4] = ["/chat/completions", "/completions", "/embeddings", "/models"];

/// Further inference paths of vLLM, llama-server and OpenAI. None of them changes anything for another client. Ollama's own
/// (`/api/generate` and the like) are not among them: with `keep_alive` a request to them unloads the model.
const INFERENCE: &[&str] = &[
    "/apply-template",
    "/audio/transcriptions",
    "/chat/completions/input_tokens",
    "/classify",
    "/completion",
    "/detokenize",
    "/embedding",
    "/generative_scoring",
    "/infill",
    "/pooling",
    "/rerank",
    "/reranking",
    "/responses",
    "/responses/input_tokens",
    "/score",
    "/tokenize",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/chat/completions/input_tokens",
    "/v1/chat/completions/render",
    "/v1/completions/render",
    "/v1/images/edits",
    "/v1/images/generations",
    "/v1/images/variations",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/messages/render",
    "/v1/moderations",
    "/v1/rerank",
    "/v1/reranking",
    "/v1/responses",
    "/v1/responses/input_tokens",
    "/v1/responses/render",
    "/v1/score",
    "/v2/embed",
    "/v2/rerank",
];

/// Of those, the ones that take a file, and with it a form.
const FORMS: [&str; 5] = [
    "/audio/transcriptions",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/images/edits",
    "/v1/images/variations",
];

/// A path with one of these words in it manages an engine: of vLLM, SGLang, llama-server, Ollama and what stands in front of
/// them, in any version and below any prefix. Words are what stands between `/`, `_`, `-` and `.`.
const CHANGING_WORDS: &[&str] = &[
    "abort",
    "admin",
    "cancel",
    "delete",
    "destroy",
    "download",
    "elastic",
    "flush",
    "freeze",
    "hicache",
    "invocations",
    "load",
    "lora",
    "occupation",
    "pause",
    "profile",
    "props",
    "pull",
    "push",
    "release",
    "reload",
    "reset",
    "restart",
    "resume",
    "rpc",
    "shutdown",
    "signout",
    "sleep",
    "slots",
    "tools",
    "unload",
    "wake",
    "weight",
    "weights",
];

/// The same where the words by themselves are too common: whole segments, one after the other, with `_` for `-`.
const CHANGING_NAMES: &[&[&str]] = &[
    &["api", "blobs"],
    &["api", "copy"],
    &["api", "create"],
    &["api", "user"],
    &["backend"],
    &["close_session"],
    &["configure_logging"],
    &["continue_generation"],
    &["control"],
    &["cors_proxy"],
    &["dump_expert_distribution_record"],
    &["fault_tolerance"],
    &["models", "apply"],
    &["open_session"],
    &["server_info"],
    &["set_internal_state"],
    &["set_trace_level"],
    &["slow_down"],
    &["start_expert_distribution_record"],
    &["stop_expert_distribution_record"],
    &["streams"],
];

/// `path` as it is spelled here: without empty segments and a slash at its end, and with the `/v1` that some clients leave
/// out. A model's name in it stays as it is.
pub fn canonical(path: &str) -> Cow<'_, str> {
    if !path.starts_with('/') {
        return Cow::Borrowed(path);
    }
    let relative = path.trim_start_matches('/');
    let name = relative.strip_prefix("v1/models/").or_else(|| relative.strip_prefix("models/"));
    let spelled = match name {
        Some(name) if !name.is_empty() => format!("{MODEL_PATH}{name}"),
        _ => {
            let segments: Vec<&str> = relative.split('/').filter(|segment| !segment.is_empty()).collect();
            let plain = format!("/{}", segments.join("/"));
            if SHORT.contains(&plain.as_str()) { format!("/v1{plain}") } else { plain }
        }
    };
    if spelled == path { Cow::Borrowed(path) } else { Cow::Owned(spelled) }
}

/// Is it a path at which an engine does no more than infer?
pub fn is_inference(path: &str) -> bool {
    INFERENCE.contains(&path)
}

/// May a request to `path` be a form, because it uploads a file?
pub fn takes_form(path: &str) -> bool {
    FORMS.contains(&path)
}

/// Would a request to `path` change the engine, or does the path hide what it is (escapes, empty or dot segments)?
pub fn changes_engine(path: &str) -> bool {
    if !path.starts_with('/') || path.contains(['%', '\\', '?', '#', ';']) {
        return true;
    }
    let path = path.to_ascii_lowercase().replace('-', "_");
    let segments: Vec<&str> = path[1..].trim_end_matches('/').split('/').collect();
    let hides = |segment: &&str| matches!(*segment, "" | "." | "..");
    let is_word = |segment: &&str| segment.split(['_', '.', '~']).any(|word| CHANGING_WORDS.contains(&word));
    let is_name = |name: &&[&str]| segments.windows(name.len()).any(|here| here == *name);
    segments.iter().any(|segment| hides(segment) || is_word(segment)) || CHANGING_NAMES.iter().any(is_name)
}

#[cfg(test)]
mod tests;

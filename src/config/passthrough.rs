//! Which further paths may be let through: inference only.
use super::value::{Given, Wrong, text};

/// What `server.passthrough` is when it is not written.
pub(super) const DEFAULT: [&str; 8] = [
    "/v1/responses",
    "/v1/messages",
    "/tokenize",
    "/detokenize",
    "/rerank",
    "/v1/rerank",
    "/score",
    "/v1/audio/transcriptions",
];

/// Paths that change an engine or stop it from serving, each with everything below it. No setting lets them through.
const CHANGES_AN_ENGINE: [&str; 26] = [
    // vLLM
    "/sleep",
    "/wake_up",
    "/pause",
    "/resume",
    "/abort_requests",
    "/update_weights",
    "/collective_rpc",
    "/reset_prefix_cache",
    "/reset_mm_cache",
    "/release_kv_cache_memory",
    "/invocations",
    "/scale_elastic_ep",
    "/start_profile",
    "/stop_profile",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    // llama-server
    "/slots",
    "/props",
    "/lora-adapters",
    "/models",
    // Ollama
    "/api/pull",
    "/api/push",
    "/api/create",
    "/api/copy",
    "/api/delete",
    "/api/blobs",
];

/// Paths that mainstay answers itself.
const OURS: [&str; 6] =
    ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models", "/health", "/metrics"];

/// An exact path of an engine's own inference API.
pub(super) fn path(given: &Given<'_>) -> Result<String, Wrong> {
    let text = text(given)?;
    if !text.starts_with('/') {
        return Err(given.wrong("which does not begin with /", "write a path such as \"/v1/rerank\""));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    // Dots, empty segments and escapes are how one path is written as another.
    let segments_hold = text[1..].split('/').all(|segment| !matches!(segment, "" | "." | ".."));
    if !text.bytes().all(plain) || !segments_hold {
        return Err(given.wrong(
            "which is no plain path",
            "write an exact path of letters, digits, - _ . ~ and single slashes, without a slash at its end",
        ));
    }
    let path = text.to_ascii_lowercase();
    if CHANGES_AN_ENGINE.iter().any(|root| is_or_is_below(&path, root)) {
        return Err(given.wrong("which changes an engine and is never let through", "remove it"));
    }
    if OURS.contains(&path.as_str()) {
        return Err(given.wrong("which mainstay answers by itself", "remove it"));
    }
    Ok(text)
}

fn is_or_is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

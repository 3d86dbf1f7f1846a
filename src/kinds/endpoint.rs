//! What clients may ask for, and where each upstream dialect answers it.
use super::Api;

/// An inference endpoint of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    Chat,
    Completions,
    Embeddings,
    /// A path of `server.passthrough`: handed on as it is, to the first ready tier that has it.
    Passthrough,
}

impl Endpoint {
    /// The endpoints that every chain serves.
    pub const SERVED: [Self; 3] = [Self::Chat, Self::Completions, Self::Embeddings];

    /// Our path; `None` for a pass-through, whose path is whatever the client asked for.
    pub const fn path(self) -> Option<&'static str> {
        match self {
            Self::Chat => Some("/v1/chat/completions"),
            Self::Completions => Some("/v1/completions"),
            Self::Embeddings => Some("/v1/embeddings"),
            Self::Passthrough => None,
        }
    }

    /// The endpoint served at `path` (no query); `None` when it is not one of [`Self::SERVED`].
    pub fn of_path(path: &str) -> Option<Self> {
        Self::SERVED.into_iter().find(|endpoint| endpoint.path() == Some(path))
    }

    /// The path at which an upstream of this dialect answers; `None` when it has none that we can translate to, or
    /// for a pass-through, which keeps its own.
    pub const fn upstream_path(self, api: Api) -> Option<&'static str> {
        match (api, self) {
            (Api::OpenAi, _) => self.path(),
            (Api::Ollama, Self::Chat) => Some("/api/chat"),
            (Api::Ollama, Self::Completions | Self::Embeddings | Self::Passthrough) => None,
        }
    }

    /// Does this endpoint answer with generated text, which a `degrade` table can weaken?
    pub const fn generates(self) -> bool {
        matches!(self, Self::Chat | Self::Completions)
    }
}

/// Paths that change an engine for everybody. No setting may let a client reach them, so the configuration refuses a
/// pass-through that [`changes_engine`]. Each stands for itself and everything below it.
const CHANGING: &[&str] = &[
    // vLLM
    "/abort_requests",
    "/collective_rpc",
    "/fault_tolerance",
    "/init_weight_transfer_engine",
    "/invocations",
    "/load_lora_adapter",
    "/pause",
    "/release_kv_cache_memory",
    "/reset_encoder_cache",
    "/reset_mm_cache",
    "/reset_prefix_cache",
    "/resume",
    "/scale_elastic_ep",
    "/server_info",
    "/sleep",
    "/start_profile",
    "/stop_profile",
    "/unload_lora_adapter",
    "/update_weights",
    "/wake_up",
    // llama-server
    "/cors-proxy",
    "/lora-adapters",
    "/models/load",
    "/models/unload",
    "/props",
    "/slots",
    // Ollama
    "/api/blobs",
    "/api/copy",
    "/api/create",
    "/api/delete",
    "/api/pull",
    "/api/push",
];

/// Would a request to `path` change the engine, or does the path hide what it is (escapes, empty or dot segments)?
pub fn changes_engine(path: &str) -> bool {
    if !path.starts_with('/') || path.contains(['%', '\\', '?', '#', ';']) {
        return true;
    }
    let path = path.to_ascii_lowercase();
    if path[1..].trim_end_matches('/').split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return true;
    }
    let path = path.strip_prefix("/v1").filter(|rest| rest.starts_with('/')).unwrap_or(&path);
    CHANGING.iter().any(|changing| {
        path.strip_prefix(changing).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_endpoints_agree() {
        for endpoint in Endpoint::SERVED {
            let path = endpoint.path().unwrap();
            assert_eq!(Endpoint::of_path(path), Some(endpoint));
            assert_eq!(endpoint.upstream_path(Api::OpenAi), Some(path));
        }
        assert_eq!(Endpoint::of_path("/v1/responses"), None);
        assert_eq!(Endpoint::Chat.upstream_path(Api::Ollama), Some("/api/chat"));
        assert_eq!(Endpoint::Embeddings.upstream_path(Api::Ollama), None);
    }

    #[test]
    fn what_changes_an_engine_is_known_under_every_spelling() {
        for path in CHANGING {
            assert!(changes_engine(path), "{path}");
            assert!(changes_engine(&format!("{path}/")), "{path}/");
            assert!(changes_engine(&format!("/v1{path}")), "/v1{path}");
            assert!(changes_engine(&path.to_ascii_uppercase()), "upper {path}");
        }
        for path in
            ["/slots/0", "/%73leep", "//sleep", "/x/../sleep", "/./sleep", "sleep", "", "/", "/sleep?level=1"]
        {
            assert!(changes_engine(path), "{path}");
        }
        for path in [
            "/v1/responses",
            "/v1/messages",
            "/tokenize",
            "/rerank",
            "/v1/audio/transcriptions",
            "/v1",
            "/sleeper",
        ] {
            assert!(!changes_engine(path), "{path}");
        }
    }
}

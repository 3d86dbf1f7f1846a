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
}

//! The keys of a tier that is a server elsewhere.
use super::address;
pub use super::address::Url;
use super::secret::{self, Key};
use super::section::Section;
use super::value::one_of;
use crate::kinds::Api;

/// A server that we do not own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    pub url: Url,
    /// Sent as a bearer token.
    pub api_key: Option<Key>,
    /// Below the URL's base path.
    pub health_path: String,
}

/// The dialect comes first, because it decides the tier's kind.
pub(super) fn api(section: &mut Section<'_>) -> Api {
    section.read("api", one_of(&[("openai", Api::OpenAi), ("ollama", Api::Ollama)])).unwrap_or(Api::OpenAi)
}

pub(super) fn read(section: &mut Section<'_>, api: Api) -> Remote {
    let environment = section.context.environment;
    let default_path = match api {
        Api::OpenAi => "/health",
        Api::Ollama => "/api/version",
    };
    let api_key = section.read("api_key", |given| secret::api_key(given, environment));
    if let Some(missing) = api_key.as_ref().and_then(Key::missing) {
        section.report_pending("api_key", &missing.lack.what, &missing.lack.remedy);
    }
    Remote {
        url: section.read("url", address::url).unwrap_or_default(),
        api_key,
        health_path: section.read("health_path", address::path).unwrap_or_else(|| default_path.to_owned()),
    }
}

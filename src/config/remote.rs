//! The keys of a tier that is a server elsewhere.
use super::address;
use super::secret::{self, Secret};
use super::section::Section;
use super::value::one_of;
use crate::kinds::Api;
use std::fmt;

/// A server that we do not own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    pub url: Url,
    /// Sent as a bearer token.
    pub api_key: Option<Secret>,
    /// Below the URL's base path.
    pub health_path: String,
}

/// `http://HOST:PORT/BASE`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Url {
    /// A name or a numeric address; IPv6 without brackets.
    pub host: String,
    pub port: u16,
    /// Empty, or `/…` without a slash at its end.
    pub base_path: String,
}

impl Url {
    /// `HOST:PORT`, as in a `Host` header.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.base_path)
    }
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
    Remote {
        url: section.read("url", address::url).unwrap_or_default(),
        api_key: section.read("api_key", |given| secret::api_key(given, environment)),
        health_path: section.read("health_path", address::path).unwrap_or_else(|| default_path.to_owned()),
    }
}

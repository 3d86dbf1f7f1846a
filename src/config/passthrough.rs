//! Which further paths may be let through: inference only.
use super::value::{Given, Wrong, text};
use crate::kinds::paths;

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

/// Paths that mainstay answers itself.
const OURS: [&str; 6] =
    ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models", "/health", "/metrics"];

/// A path of `passthrough`: one that is known to ask for inference only.
pub(super) fn known(given: &Given<'_>) -> Result<String, Wrong> {
    let path = path(given)?;
    if !paths::is_inference(&path) {
        return Err(given.wrong(
            "which is no inference path that mainstay knows",
            "remove it, or write it into `passthrough_unknown` if you know that it changes nothing for other \
             clients: at your own risk",
        ));
    }
    Ok(path)
}

/// A path of `passthrough_unknown`: any that is not known to change an engine.
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
    let lower = text.to_ascii_lowercase();
    let path = paths::canonical(&lower);
    if OURS.contains(&path.as_ref()) || path.starts_with(paths::MODEL_PATH) {
        return Err(given.wrong("which mainstay answers by itself", "remove it"));
    }
    if paths::changes_engine(&text) {
        return Err(given.wrong("which changes an engine and is never let through", "remove it"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::DEFAULT;
    use crate::kinds::{Api, Kind, probe};

    /// A tier that serves nothing else is not to be called wrong.
    #[test]
    fn a_trial_of_a_remote_asks_for_all_that_is_passed_through_by_itself() {
        let trials = probe::trials(Kind::Remote(Api::OpenAi), "m");
        for path in DEFAULT {
            assert!(trials.iter().any(|trial| trial.path == path), "{path}");
        }
    }
}

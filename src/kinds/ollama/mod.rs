//! OpenAI's chat in Ollama's native dialect and back. Ollama's own `/v1` is not used: it ignores fields, and a stream
//! whose runner died ends there cleanly and empty.
mod mistakes;
mod request;
mod response;

pub(super) use mistakes::mistake;
pub use request::{option, request};
pub(super) use request::{translates, understands};
pub use response::{Broken, Naming, Stream, whole};

use serde_json::Value;

/// What every request that touches a model must say alike, because Ollama reloads a model whose `shift`, context size
/// or thread count is asked for differently. So `num_ctx` and the like are never sent (they belong into the Modelfile),
/// and `shift: false` always is: a full context ends the answer with `length`, instead of forgetting its beginning.
/// `truncate: false` makes too long a prompt an error instead of a cut one; it reloads nothing.
///
/// A server that is not `ours` keeps its own idea of shifting and of how long models stay: others use it too.
pub(super) fn pin(body: &mut Value, ours: bool) {
    let Some(fields) = body.as_object_mut() else { return };
    fields.insert("truncate".into(), false.into());
    if ours {
        fields.insert("shift".into(), false.into());
        fields.insert("keep_alive".into(), (-1).into());
    }
}

#[cfg(test)]
mod tests;

//! Which further header fields of clients may go to remote upstreams.
use super::value::{Given, Wrong, clipped, text};
use crate::kinds;

/// The name of a field, in lower case.
pub(super) fn field(given: &Given<'_>) -> Result<String, Wrong> {
    let text = text(given)?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_token) {
        return Err(
            given.wrong("which is no name of a header field", "write a name such as \"x-session-id\"")
        );
    }
    let name = text.to_ascii_lowercase();
    if kinds::fields::ends_here(&name) {
        let why = "it belongs to one connection, names its sender or holds a credential";
        return Err(given.wrong_unshown(
            format!("has a field that never goes on ({}): {why}", clipped(&text)),
            "remove it; a key for the upstream is the tier's `api_key`",
        ));
    }
    Ok(name)
}

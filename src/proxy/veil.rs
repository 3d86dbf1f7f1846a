//! What upstreams say, without secrets, before a client gets it. An upstream that echoes the key which it was sent must
//! not make it known.
use crate::redact::{BLACK, Redactor, names_a_secret};
use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use serde_json::Value;
use std::sync::Arc;

/// A whole error body without its secrets; untouched when it has none. One that was JSON stays JSON.
pub(super) fn error_body(redactor: &Redactor, body: Bytes) -> Bytes {
    match serde_json::from_slice::<Value>(&body) {
        Ok(mut said) => match blacken(redactor, &mut said) {
            true => Bytes::from(said.to_string()),
            false => body,
        },
        Err(_) => Bytes::from(redactor.bytes(&body).into_owned()),
    }
}

/// Blacks out in every text of `said`, as it reads without its escapes. Was there anything?
fn blacken(redactor: &Redactor, said: &mut Value) -> bool {
    match said {
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => {
            let clean = redactor.text(text).into_owned();
            let changed = clean != *text;
            *text = clean;
            changed
        }
        Value::Array(list) => list.iter_mut().fold(false, |any, item| blacken(redactor, item) | any),
        Value::Object(fields) => {
            let mut changed = false;
            let given = std::mem::take(fields);
            for (name, mut value) in given {
                // What stands under the name of a secret is one, in whatever form.
                changed |= match &mut value {
                    Value::String(text) if names_a_secret(&name) && text != BLACK => {
                        BLACK.clone_into(text);
                        true
                    }
                    other => blacken(redactor, other),
                };
                let clean = redactor.text(&name).into_owned();
                changed |= clean != name;
                fields.insert(clean, value);
            }
            changed
        }
    }
}

/// The values of header fields, without secrets.
pub(super) fn fields(redactor: &Redactor, fields: &mut HeaderMap) {
    for value in fields.values_mut() {
        if let std::borrow::Cow::Owned(clean) = redactor.bytes(value.as_bytes()) {
            *value = HeaderValue::from_bytes(&clean).unwrap_or(HeaderValue::from_static(BLACK));
        }
    }
}

/// A veil over the known secrets in an answer that is handed on as it comes: with as many bytes as it came with, because
/// its length may have been told already. Only the last bytes of a piece wait for the next one, and only when a secret
/// may have begun there.
#[derive(Debug)]
pub(super) struct Veil {
    redactor: Arc<Redactor>,
    /// Not handed on yet: maybe the beginning of a secret.
    begun: Vec<u8>,
}

impl Veil {
    pub fn new(redactor: Arc<Redactor>) -> Self {
        Self { redactor, begun: Vec::new() }
    }

    /// What may be handed on now.
    pub fn push(&mut self, data: Bytes) -> Bytes {
        let begins = self.redactor.begun_value(&data);
        if self.begun.is_empty() && begins == 0 && !self.redactor.has_value(&data) {
            return data;
        }
        let mut text = std::mem::take(&mut self.begun);
        text.extend_from_slice(&data);
        let whole = text.len() - self.redactor.begun_value(&text);
        self.begun = text.split_off(whole);
        self.redactor.cover(&mut text);
        Bytes::from(text)
    }

    /// What is left when the answer has ended.
    pub fn finish(&mut self) -> Bytes {
        let mut text = std::mem::take(&mut self.begun);
        self.redactor.cover(&mut text);
        Bytes::from(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "tier-key/4711-abcdef";

    fn redactor() -> Redactor {
        Redactor::new([SECRET])
    }

    #[track_caller]
    fn check_error(given: &str, expected: &str) {
        let said = error_body(&redactor(), Bytes::copy_from_slice(given.as_bytes()));
        assert_eq!(std::str::from_utf8(&said).unwrap(), expected);
    }

    #[test]
    fn an_error_body_loses_its_secrets_and_nothing_else() {
        let harmless = r#"{ "error" : {"message": "no key for \"x\"", "code": 1.0} }"#;
        check_error(harmless, harmless);
        check_error(
            &format!(r#"{{"error":{{"message":"wrong key {SECRET}, sent","code":401}}}}"#),
            r#"{"error":{"message":"wrong key [redacted], sent","code":401}}"#,
        );
        // However its JSON spells it.
        check_error(r#"{"error":"Bearer tier-key\/4711-abcdef"}"#, r#"{"error":"Bearer [redacted]"}"#);
        check_error(
            r#"{"headers":{"Authorization":"tier-\u006bey/4711-abcdef"}}"#,
            r#"{"headers":{"Authorization":"[redacted]"}}"#,
        );
        check_error(r#"{"api_key":"x","n":null}"#, r#"{"api_key":"[redacted]","n":null}"#);
        check_error(&format!(r#"{{"{SECRET}":1}}"#), r#"{"[redacted]":1}"#);
        check_error(&format!("<h1>{SECRET}</h1>"), "<h1>[redacted]</h1>");
    }

    #[test]
    fn a_stream_keeps_its_length_and_loses_known_secrets_wherever_it_is_cut() {
        let given = format!("data: {{\"a\":\"{SECRET}\"}}\n\ndata: t {SECRET}{SECRET} tier-key/4711");
        let expected = "data: {\"a\":\"[redacted]**********\"}\n\ndata: t [redacted]**********[redacted]********** tier-key/4711";
        for size in 1..=given.len() {
            let mut veil = Veil::new(Arc::new(redactor()));
            let mut seen = Vec::new();
            for piece in given.as_bytes().chunks(size) {
                seen.extend_from_slice(&veil.push(Bytes::copy_from_slice(piece)));
            }
            seen.extend_from_slice(&veil.finish());
            // A beginning that is long enough to be told from other text is covered at the very end too.
            let seen = String::from_utf8(seen).unwrap().replace("[redacted]***", "tier-key/4711");
            let expected = expected.replace("[redacted]***", "tier-key/4711");
            assert_eq!((seen.len(), seen), (given.len(), expected), "pieces of {size}");
        }
    }

    #[test]
    fn what_is_harmless_is_handed_on_at_once_and_as_it_is() {
        let mut veil = Veil::new(Arc::new(redactor()));
        let piece = Bytes::from_static(b"data: password: hunter2 sk-0123456789abcdefghij\n\n");
        assert_eq!(veil.push(piece.clone()).as_ptr(), piece.as_ptr());
        assert!(veil.finish().is_empty());
    }

    #[test]
    fn header_values_lose_secrets() {
        let mut map = HeaderMap::new();
        map.insert("x-echo", HeaderValue::from_str(&format!("Bearer {SECRET}")).unwrap());
        map.insert("x-plain", HeaderValue::from_static("1"));
        fields(&redactor(), &mut map);
        assert_eq!(
            (map["x-echo"].as_bytes(), map["x-plain"].as_bytes()),
            (&b"Bearer [redacted]"[..], &b"1"[..])
        );
    }
}

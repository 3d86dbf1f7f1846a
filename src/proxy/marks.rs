//! PURE. The marks that an answer carries inside its JSON: which tier gave it, and whether it is weakened.
use super::stream::{data_of, event_of};
use crate::kinds;
use bytes::Bytes;
use serde_json::{Map, Value, json};

/// What is written into the answers of one tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    pub tier: String,
    /// The model of the tier: named where the engine does not name one itself.
    pub model: String,
    /// The notice of a weakened answer.
    pub notice: Option<String>,
}

const OWN_KEYS: [&str; 3] = ["_backend", "_degraded", "_notice"];

impl Marks {
    fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("_backend".into(), json!(self.tier));
        if let Some(notice) = &self.notice {
            fields.insert("_degraded".into(), json!(true));
            fields.insert("_notice".into(), json!(notice));
        }
        fields
    }

    /// `object` with the marks in it; `None` when it is not a JSON object.
    pub fn on_object(&self, object: &[u8]) -> Option<Bytes> {
        let Value::Object(mut parsed) = kinds::read_json(object)?.value else { return None };
        let names_model = parsed.get("model").and_then(Value::as_str).is_some_and(|m| !m.is_empty());
        if names_model && !OWN_KEYS.iter().any(|key| parsed.contains_key(*key)) {
            // The engine's own text is kept: a number printed again is not always the number that was read.
            return self.spliced_into(object);
        }
        if !names_model {
            parsed.insert("model".into(), json!(self.model));
        }
        for key in OWN_KEYS {
            parsed.shift_remove(key);
        }
        parsed.extend(self.fields());
        Some(Bytes::from(Value::Object(parsed).to_string()))
    }

    /// The marks as the first members of an object of which only the beginning is known; `None` when it does not begin
    /// like one.
    pub fn spliced_into(&self, object: &[u8]) -> Option<Bytes> {
        let open = object.iter().position(|b| !b.is_ascii_whitespace()).filter(|&at| object[at] == b'{')?;
        let fields = Value::Object(self.fields()).to_string();
        let first = object[open + 1..].iter().find(|b| !b.is_ascii_whitespace());
        let comma: &[u8] = if first == Some(&b'}') { b"" } else { b"," };
        let fields = fields.as_bytes().strip_suffix(b"}")?;
        Some(Bytes::from([&object[..open], fields, comma, &object[open + 1..]].concat()))
    }

    /// A server-sent event with the marks in its data; as it was when its data is no JSON object.
    pub fn on_event(&self, event: &Bytes) -> Bytes {
        let whole = data_of(event).and_then(|data| self.on_object(&data)).map(|marked| event_of(&marked));
        whole.or_else(|| self.on_part(event)).unwrap_or_else(|| event.clone())
    }

    /// The same for an event of which only the beginning is known.
    fn on_part(&self, event: &[u8]) -> Option<Bytes> {
        let data = event.strip_prefix(b"data:").filter(|_| !event.ends_with(b"\n"))?;
        Some(Bytes::from([b"data:", &self.spliced_into(data)?[..]].concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(notice: Option<&str>) -> Marks {
        Marks { tier: "cpu".into(), model: "tiny".into(), notice: notice.map(str::to_owned) }
    }

    fn check(given: &str, notice: Option<&str>, expected: Option<&str>) {
        let marked = marks(notice).on_object(given.as_bytes());
        assert_eq!(marked.as_deref().map(|b| std::str::from_utf8(b).unwrap()), expected, "{given}");
    }

    #[test]
    fn objects() {
        check(r#"{"model":"m","x":1}"#, None, Some(r#"{"_backend":"cpu","model":"m","x":1}"#));
        check(
            r#"{"model":"m"}"#,
            Some("slow {}"),
            Some(r#"{"_backend":"cpu","_degraded":true,"_notice":"slow {}","model":"m"}"#),
        );
        // A model that the engine does not name is filled in.
        check("{}", None, Some(r#"{"model":"tiny","_backend":"cpu"}"#));
        check(r#"{"model":""}"#, None, Some(r#"{"model":"tiny","_backend":"cpu"}"#));
        // An upstream that is a mainstay itself: the marks are ours, once.
        check(
            r#"{"_backend":"other","_notice":"theirs","model":"m"}"#,
            None,
            Some(r#"{"model":"m","_backend":"cpu"}"#),
        );
        check("[1]", None, None);
        check("{", None, None);
    }

    #[test]
    fn numbers_keep_their_digits() {
        let given = r#"{"model":"m","logprob":-0.10000000000000000555,"big":123456789012345678901234567890}"#;
        let marked = marks(None).on_object(given.as_bytes()).unwrap();
        assert!(std::str::from_utf8(&marked).unwrap().ends_with(&given[1..]));
    }

    #[test]
    fn a_notice_that_ends_in_a_brace_survives() {
        let marked = marks(Some("}")).on_object(br#"{"model":"m"}"#).unwrap();
        let value: Value = serde_json::from_slice(&marked).unwrap();
        assert_eq!(value["_notice"], "}");
    }

    #[test]
    fn events() {
        let event = Bytes::from_static(b"data: {\"model\":\"m\"}\n\n");
        assert_eq!(marks(None).on_event(&event), "data: {\"_backend\":\"cpu\",\"model\":\"m\"}\n\n");
        let ping = Bytes::from_static(b": ping\n\n");
        assert_eq!(marks(None).on_event(&ping), ping);
    }

    #[test]
    fn the_beginning_of_an_object() {
        let begun = marks(None).spliced_into(b" \n{\"a\":[1,").unwrap();
        assert_eq!(begun, " \n{\"_backend\":\"cpu\",\"a\":[1,");
        assert_eq!(marks(None).spliced_into(b"{ }").unwrap(), "{\"_backend\":\"cpu\" }");
        assert_eq!(marks(None).spliced_into(b"[1"), None);
    }
}

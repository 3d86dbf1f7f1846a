//! PURE. The numbers of a request as its client wrote them. Read and printed again, `0.70` would become 0.7, `1e5` 100000.0,
//! and what needs more than 64 bits another number.
use super::weight::string_length;
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;

/// The members of a JSON object that hold a number which would be printed otherwise, as text. Mostly there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Numerals(BTreeMap<String, Box<str>>);

/// More members than any engine knows. What is kept costs no more memory than the text itself did.
const KEPT: usize = 256;

/// Where the reading of an object is, and what it has found in the member at hand.
#[derive(Default)]
struct Place<'a> {
    depth: usize,
    /// With its quotes.
    name: Option<&'a str>,
    value_at: usize,
    is_altered: bool,
}

impl Numerals {
    /// Of a text that is known to be a JSON object.
    pub fn of(object: &str) -> Self {
        let mut found = BTreeMap::new();
        let mut place = Place::default();
        let bytes = object.as_bytes();
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            let mut length = 1;
            match byte {
                b'"' => {
                    length = (string_length(&bytes[at + 1..]) + 2).min(bytes.len() - at);
                    if place.depth == 1 && place.name.is_none() {
                        place.name = object.get(at..at + length);
                    }
                }
                b'{' | b'[' => place.depth += 1,
                b':' if place.depth == 1 => place.value_at = at + 1,
                b',' if place.depth == 1 => found.extend(place.member(object, at)),
                b'}' | b']' => {
                    place.depth = place.depth.saturating_sub(1);
                    if place.depth == 0 {
                        found.extend(place.member(object, at));
                    }
                }
                b'-' | b'0'..=b'9' => {
                    let rest = &bytes[at..];
                    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                    length = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
                    place.is_altered |= object.get(at..at + length).is_some_and(is_altered);
                }
                _ => {}
            }
            at += length;
            if found.len() == KEPT {
                break;
            }
        }
        Self(found)
    }

    /// The same under other names; what has none is left out.
    pub fn renamed(&self, name: impl Fn(&str) -> Option<&'static str>) -> Self {
        let renamed = self.0.iter().filter_map(|(old, text)| Some((name(old)?.to_owned(), text.clone())));
        Self(renamed.collect())
    }

    /// `object` as text, with the numbers as they were in every member that has not been changed since.
    pub fn print(&self, object: &Value) -> String {
        match object {
            Value::Object(fields) if !self.0.is_empty() => {
                members(fields, |name, value| self.unchanged(name, value).map(str::to_owned))
            }
            other => other.to_string(),
        }
    }

    /// The same for an object whose member `within` has the members that are meant.
    pub fn print_within(&self, within: &str, object: &Value) -> String {
        match object {
            Value::Object(fields) if !self.0.is_empty() => {
                members(fields, |name, value| (name == within).then(|| self.print(value)))
            }
            other => other.to_string(),
        }
    }

    fn unchanged(&self, name: &str, value: &Value) -> Option<&str> {
        let text = self.0.get(name)?;
        let read: Value = serde_json::from_str(text).ok()?;
        (read == *value).then_some(text)
    }
}

impl Place<'_> {
    /// Ends the member at hand: its name and its text, if they are to be kept.
    fn member(&mut self, object: &str, end: usize) -> Option<(String, Box<str>)> {
        let (name, is_altered) = (self.name.take()?, std::mem::take(&mut self.is_altered));
        let text = object.get(self.value_at..end).filter(|_| is_altered)?;
        Some((serde_json::from_str(name).ok()?, text.trim().into()))
    }
}

/// Would this number be printed otherwise?
fn is_altered(text: &str) -> bool {
    /// Digits that fit into 64 bits whatever they are.
    const SAFE: usize = 18;
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain = digits.len() <= SAFE && digits.bytes().all(|byte| byte.is_ascii_digit()) && text != "-0";
    let printed = || serde_json::from_str(text).map(|number: Number| number.to_string());
    !is_plain && printed().is_ok_and(|printed| printed != text)
}

/// An object whose members print themselves as `special` says, or else as they are.
fn members(fields: &Map<String, Value>, special: impl Fn(&str, &Value) -> Option<String>) -> String {
    let print = |(name, value): (&String, &Value)| {
        let value = special(name, value).unwrap_or_else(|| value.to_string());
        format!("{}:{value}", Value::from(name.as_str()))
    };
    format!("{{{}}}", fields.iter().map(print).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(object: &str) -> Vec<(String, Box<str>)> {
        assert!(serde_json::from_str::<Value>(object).is_ok(), "{object}");
        Numerals::of(object).0.into_iter().collect()
    }

    #[test]
    fn a_number_that_would_be_printed_otherwise_keeps_the_text_of_its_member() {
        for number in [
            "0.70",
            "1e5",
            "1E5",
            "1.50e+3",
            "-0",
            "18446744073709551616",
            "-9223372036854775809",
            "123456789012345678901234567890",
            "0.1000000000000000055511151231257827",
            "0.00",
        ] {
            let object = format!("{{ \"x\" : {number} , \"y\":1}}");
            assert_eq!(kept(&object), [("x".to_owned(), number.into())], "{object}");
            let nested = format!("{{\"y\":{{\"z\":2}},\"x\":[{{\"a\":\"}}\",\"b\":[ {number}]}}]}}");
            let text = &nested[nested.find("[{").unwrap()..nested.len() - 1];
            assert_eq!(kept(&nested), [("x".to_owned(), text.into())], "{nested}");
        }
        for number in
            ["0", "7", "-1", "0.7", "1.0", "-0.0", "1.5", "18446744073709551615", "-9223372036854775808"]
        {
            assert_eq!(kept(&format!("{{\"x\":{number}}}")), [], "{number}");
        }
    }

    #[test]
    fn what_only_looks_like_a_number_is_none() {
        for object in [
            "{}",
            "{\"1e5\":\"0.70\"}",
            r#"{"a\"0.70":"\\","b":"\"1e5, 0.70:"}"#,
            r#"{"a":["0.70",{"1e5":null}]}"#,
        ] {
            assert_eq!(kept(object), [], "{object}");
        }
        assert_eq!(kept(r#"{"a\"b\u0041":1e5}"#), [("a\"bA".to_owned(), "1e5".into())]);
    }

    #[test]
    fn no_client_makes_this_expensive() {
        let many: Vec<String> = (0..100_000).map(|n| format!("\"{n}\":0.70")).collect();
        let object = format!("{{{}}}", many.join(","));
        assert_eq!(kept(&object).len(), KEPT);
        let long = format!("{{\"x\":[{}1e5]}}", "1,".repeat(100_000));
        assert_eq!(kept(&long)[0].1.len(), long.len() - 6);
    }

    #[test]
    fn what_was_changed_is_printed_as_it_is_now() {
        let text = r#"{"a":0.70,"b":{"c":[1e5]},"d":"x\n","e":2.50,"a":0.5}"#;
        let numerals = Numerals::of(text);
        let mut object: Value = serde_json::from_str(text).unwrap();
        assert_eq!(numerals.print(&object), r#"{"a":0.5,"b":{"c":[1e5]},"d":"x\n","e":2.50}"#);
        object["b"]["c"][0] = 3.into();
        object["e"] = 1.into();
        object["f"] = "new".into();
        assert_eq!(numerals.print(&object), r#"{"a":0.5,"b":{"c":[3]},"d":"x\n","e":1,"f":"new"}"#);
        assert_eq!(Numerals::default().print(&object), object.to_string());
        assert_eq!(numerals.print(&Value::Null), "null");
    }

    #[test]
    fn members_that_moved_keep_their_numbers() {
        let numerals = Numerals::of(r#"{"a":0.70,"b":1.50}"#);
        let options = numerals.renamed(|name| (name == "a").then_some("A"));
        let native = serde_json::json!({"model": "m", "options": {"A": 0.7, "b": 1.5}, "A": 0.7});
        let printed = options.print_within("options", &native);
        assert_eq!(printed, r#"{"model":"m","options":{"A":0.70,"b":1.5},"A":0.7}"#);
    }
}

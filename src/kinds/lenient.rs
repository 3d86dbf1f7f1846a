//! JSON as upstreams really write it: with a byte-order mark, with Python's NaN and Infinity, with half of a surrogate
//! pair, or with bytes that are not UTF-8. None of it is a reason to lose what else it says.
use serde_json::Value;

/// What some text says, and the text that a client can read, where that is another one.
#[derive(Clone, Debug, PartialEq)]
pub struct Json {
    pub value: Value,
    pub mended: Option<Vec<u8>>,
}

const MARK: &[u8] = "\u{feff}".as_bytes();

/// `text` without the byte-order mark that it may begin with.
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(MARK).unwrap_or(text)
}

/// Reads one JSON value. Sound JSON is read as it is; only where that fails is anything mended.
pub fn read_json(text: &[u8]) -> Option<Json> {
    let bare = without_mark(text);
    let mended = |clean: &[u8]| (clean != text).then(|| clean.to_vec());
    if let Ok(value) = serde_json::from_slice(bare) {
        return Some(Json { value, mended: mended(bare) });
    }
    let Mended { shown, read } = mend(&String::from_utf8_lossy(bare));
    let value = serde_json::from_slice(&read).ok()?;
    Some(Json { value, mended: mended(&shown) })
}

/// Two texts that differ in lone halves of a surrogate pair only: a client gets those as they came, because the other
/// half may come with the next event; our own reader refuses them.
struct Mended {
    shown: Vec<u8>,
    read: Vec<u8>,
}

impl Mended {
    fn put(&mut self, bytes: &[u8]) {
        self.shown.extend_from_slice(bytes);
        self.read.extend_from_slice(bytes);
    }
}

/// What Python writes for numbers that JSON does not have.
const NO_NUMBERS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

fn mend(text: &str) -> Mended {
    let text = text.as_bytes();
    let mut mended = Mended { shown: Vec::with_capacity(text.len()), read: Vec::with_capacity(text.len()) };
    let mut in_string = false;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let length = match (in_string, rest[0]) {
            (true, b'\\') => put_escape(&mut mended, rest),
            (false, b'N' | b'I' | b'-') if NO_NUMBERS.iter().any(|word| rest.starts_with(word)) => {
                mended.put(b"null");
                NO_NUMBERS.iter().find(|word| rest.starts_with(word)).map_or(1, |word| word.len())
            }
            (_, byte) => {
                in_string ^= byte == b'"';
                mended.put(&[byte]);
                1
            }
        };
        at += length;
    }
    mended
}

/// Copies the escape that `rest` begins with; how long it is.
fn put_escape(mended: &mut Mended, rest: &[u8]) -> usize {
    let unit = |at: usize| {
        let digits = rest.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    match (unit(0), unit(6)) {
        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => {
            mended.put(&rest[..12]);
            12
        }
        (Some(0xd800..=0xdfff), _) => {
            mended.shown.extend_from_slice(&rest[..6]);
            mended.read.extend_from_slice(b"\\ufffd");
            6
        }
        _ => {
            let length = rest.len().min(2);
            mended.put(&rest[..length]);
            length
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(text: &[u8], value: Value, shown: Option<&[u8]>) {
        let expected = Some(Json { value, mended: shown.map(<[u8]>::to_vec) });
        assert_eq!(read_json(text), expected, "{}", String::from_utf8_lossy(text));
    }

    #[test]
    fn sound_json_is_left_alone() {
        check(br#"{"a":"NaN \ud83d\ude00 Infinity"}"#, json!({"a": "NaN \u{1f600} Infinity"}), None);
        check(b" [1] ", json!([1]), None);
    }

    #[test]
    fn what_json_does_not_have_becomes_null() {
        check(
            br#"{"a":NaN,"b":[-Infinity,Infinity,-1],"c":"NaN"}"#,
            json!({"a": null, "b": [null, null, -1], "c": "NaN"}),
            Some(br#"{"a":null,"b":[null,null,-1],"c":"NaN"}"#),
        );
        check(
            br#"{"a":NaN,"b":"x\"NaN"}"#,
            json!({"a": null, "b": "x\"NaN"}),
            Some(br#"{"a":null,"b":"x\"NaN"}"#),
        );
    }

    #[test]
    fn half_a_pair_is_passed_on_and_read_as_unknown() {
        check(br#"{"a":"x\ud83d"}"#, json!({"a": "x\u{fffd}"}), None);
        check(br#"{"a":"\ude00\\ud83d"}"#, json!({"a": "\u{fffd}\\ud83d"}), None);
        check(br#"{"a":"\ud83dx\ud83d\ude00"}"#, json!({"a": "\u{fffd}x\u{1f600}"}), None);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        check(b"{\"a\":\"x\xff\"}", json!({"a": "x\u{fffd}"}), Some("{\"a\":\"x\u{fffd}\"}".as_bytes()));
    }

    #[test]
    fn a_mark_at_the_beginning_is_left_out() {
        check(b"\xef\xbb\xbf{}", json!({}), Some(b"{}"));
    }

    #[test]
    fn what_is_no_json_stays_none() {
        for text in [&b""[..], b"{", b"{\"a\":Na}", b"NaNN", b"{\"a\":\"\\ud8", b"\\u", b"\"\\", b"<html>"] {
            assert_eq!(read_json(text), None, "{}", String::from_utf8_lossy(text));
        }
    }
}

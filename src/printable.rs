//! PURE. Text that others wrote (engines, clients, relays, the kernel), made safe for a terminal or a mail: what such a
//! program obeys, or what is there and not seen, is spelled out: `\x1b`, `\u202e`.
//!
//! A backslash stays as it is, so that ordinary text does not change and a text that went through here once is not
//! changed a second time.
use serde_json::Value;
use std::borrow::Cow;
use std::fmt::Write;

/// Characters that say how others are shown, and characters without a width. Emoji lose their joiners by this, and text
/// its order of writing: what stands there in truth matters more in a log.
const UNSEEN: &[(char, char)] = &[
    // Of Arabic: the mark that turns the direction.
    ('\u{61c}', '\u{61c}'),
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    // Zero width, marks and embeddings of direction, line and paragraph separators, isolates.
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    // Interlinear annotations.
    ('\u{fff0}', '\u{fffb}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    // Tags, and more variation selectors.
    ('\u{e0000}', '\u{e0fff}'),
];

/// Must this be spelled out? A tab need not be.
fn is_hidden(c: char) -> bool {
    match c {
        '\t' => false,
        ' '..='~' => false,
        _ => c.is_control() || UNSEEN.iter().any(|(first, last)| (*first..=*last).contains(&c)),
    }
}

fn spell(text: &mut String, c: char) {
    // Writing to a String cannot fail.
    let _ = match u32::from(c) {
        code @ ..0x80 => write!(text, "\\x{code:02x}"),
        code @ 0x80..0x1_0000 => write!(text, "\\u{code:04x}"),
        code => write!(text, "\\u{{{code:x}}}"),
    };
}

/// One line: a line feed is spelled out too.
pub fn line(text: &str) -> Cow<'_, str> {
    spelled(text, is_hidden)
}

/// Lines: their ends stay.
pub fn lines(text: &str) -> Cow<'_, str> {
    spelled(text, |c| c != '\n' && is_hidden(c))
}

fn spelled(text: &str, hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hidden(c) { spell(&mut shown, c) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

/// [`lines`] of what may not be UTF-8: a byte that is part of no character is spelled out, because a terminal may take it
/// for a control character of eight bits.
pub fn bytes(text: &[u8]) -> Cow<'_, [u8]> {
    if let Ok(text) = std::str::from_utf8(text) {
        return match lines(text) {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for chunk in text.utf8_chunks() {
        shown.push_str(&lines(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    Cow::Owned(shown.into_bytes())
}

/// Every string in it, for whoever shows parts of it.
pub fn value(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(shown) = line(text) {
                *text = shown;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(self::value),
        Value::Object(fields) => fields.values_mut().for_each(self::value),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// JSON as text, with the same meaning: JSON has escapes of its own for these characters.
pub fn json(text: &str) -> Cow<'_, str> {
    let hidden = |c: char| c != '\n' && is_hidden(c);
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if !hidden(c) {
            shown.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(shown, "\\u{unit:04x}");
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_or_does_not_show_is_spelled_out() {
        for (text, expected) in [
            ("plain ü 漢字 🦀 \\x1b", "plain ü 漢字 🦀 \\x1b"),
            ("a\tb", "a\tb"),
            ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
            ("\0\x08\r\x7f", "\\x00\\x08\\x0d\\x7f"),
            ("\u{80}\u{9b}31m\u{9f}", "\\u0080\\u009b31m\\u009f"),
            ("\u{61c}\u{200e}\u{200f}\u{202a}\u{202e}", "\\u061c\\u200e\\u200f\\u202a\\u202e"),
            ("\u{2066}\u{2069}", "\\u2066\\u2069"),
            ("\u{200b}\u{200c}\u{200d}\u{2060}\u{feff}", "\\u200b\\u200c\\u200d\\u2060\\ufeff"),
            ("\u{2028}\u{2029}\u{85}", "\\u2028\\u2029\\u0085"),
            ("\u{e0041}\u{e007f}\u{e0001}", "\\u{e0041}\\u{e007f}\\u{e0001}"),
            ("\u{ad}\u{180e}\u{fff9}\u{3164}", "\\u00ad\\u180e\\ufff9\\u3164"),
        ] {
            assert_eq!(line(text), expected);
            assert_eq!(line(&line(text)), expected, "the second time");
        }
        assert_eq!(line("a\nb"), "a\\x0ab");
        assert_eq!(lines("a\x1b\nb"), "a\\x1b\nb");
    }

    #[test]
    fn bytes_that_are_no_character_are_spelled_out_and_others_stay() {
        let check = |text: &[u8], expected: &str| {
            assert_eq!(String::from_utf8_lossy(&bytes(text)), expected);
        };
        check(b"\x9b31m \x1b[0m\n", "\\x9b31m \\x1b[0m\n");
        check("ü \u{9b}\u{202e}".as_bytes(), "ü \\u009b\\u202e");
        check(b"\xc3\xbc cut \xe2\x80", "ü cut \\xe2\\x80");
        check(b"\x90\x80\xff", "\\x90\\x80\\xff");
        assert!(matches!(bytes("plain ü\n".as_bytes()), Cow::Borrowed(_)));
    }

    #[test]
    fn a_value_is_changed_in_every_string_and_json_keeps_its_meaning() {
        let nasty = "a\x1b\u{9b}\u{202e}\u{e0041}";
        let mut found = serde_json::json!({ "a": nasty, "b": [{ "c": nasty }], "d": 1 });
        let written = serde_json::to_string_pretty(&found).expect("JSON");
        let shown = json(&written);
        assert!(!shown.contains(|c| c != '\n' && is_hidden(c)), "{shown}");
        assert_eq!(serde_json::from_str::<Value>(&shown).expect("JSON"), found);
        value(&mut found);
        let plain = "a\\x1b\\u009b\\u202e\\u{e0041}";
        assert_eq!(found, serde_json::json!({ "a": plain, "b": [{ "c": plain }], "d": 1 }));
    }

    /// All of them, whatever comes: nothing hidden is left, and what is left is in its place.
    #[test]
    fn no_character_gets_past() {
        for c in '\0'..=char::MAX {
            let shown = line(c.encode_utf8(&mut [0; 4])).into_owned();
            assert!(!shown.contains(is_hidden), "{c:?}");
            assert!(!shown.contains(char::is_control) || c == '\t', "{c:?}");
        }
    }
}

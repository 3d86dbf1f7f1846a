//! PURE. How much memory a JSON text takes once it is parsed: 23 MB of small objects become half a gigabyte of values.
use serde_json::{Number, Value};

/// What an allocation takes beyond what was asked for, rounding included.
const BLOCK: usize = 32;
/// A key with its value, and the hash that they are found by.
const ENTRY: usize = size_of::<(u64, String, Value)>();
/// A number has memory of its own when its text is kept.
const NUMBER: usize = if size_of::<Number>() > 16 { BLOCK } else { 0 };
/// serde_json gives up on what is nested more deeply.
const DEPTH: usize = 128;

/// An array or object that is being read.
struct Open {
    is_map: bool,
    commas: usize,
    empty: bool,
}

impl Open {
    /// What it takes itself. Arrays and tables grow by doubling.
    fn bytes(&self) -> usize {
        let count = self.commas + usize::from(!self.empty);
        match count {
            0 => 0,
            _ if !self.is_map => count.next_power_of_two().max(4) * size_of::<Value>() + BLOCK,
            // An index of seven eighths of its places, and as many entries as it has room for.
            _ => {
                let places = (count * 8).div_ceil(7).next_power_of_two().max(4);
                places * (size_of::<usize>() + 1) + places * 7 / 8 * ENTRY + 2 * BLOCK
            }
        }
    }
}

/// About how many bytes the values of `text` take, beside the text.
pub(super) fn weight(text: &[u8]) -> usize {
    let mut bytes = 0;
    let mut open: Vec<Open> = Vec::new();
    let mut at = 0;
    // What comes next begins a value or a key.
    let mut begins = true;
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => continue,
            b',' => {
                if let Some(within) = open.last_mut() {
                    within.commas += 1;
                }
                begins = true;
                continue;
            }
            b':' => {
                begins = true;
                continue;
            }
            b']' | b'}' => {
                bytes += open.pop().map_or(0, |closed| closed.bytes());
                begins = false;
                continue;
            }
            _ => {}
        }
        if let Some(within) = open.last_mut() {
            within.empty = false;
        }
        match byte {
            b'[' | b'{' if open.len() == DEPTH => break,
            b'[' | b'{' => {
                open.push(Open { is_map: byte == b'{', commas: 0, empty: true });
                begins = true;
                continue;
            }
            b'"' => {
                let length = string_length(&text[at..]);
                bytes += length + BLOCK;
                at += length + 1;
            }
            _ if begins => bytes += NUMBER,
            _ => {}
        }
        begins = false;
    }
    bytes + open.iter().map(Open::bytes).sum::<usize>()
}

/// How long the string is whose opening quote was before `text`.
pub(super) fn string_length(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(next) = text[at..].iter().position(|&byte| byte == b'"' || byte == b'\\') {
        at += next;
        if text[at] == b'"' {
            return at;
        }
        at = (at + 2).min(text.len());
    }
    text.len()
}

#[cfg(test)]
mod tests;

//! PURE. What has the form of a secret, whoever wrote it.
use super::BLACK;
use std::ops::Range;

/// What a mark in the text says about what stands near it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A token begins with it: letters and digits follow.
    Token,
    /// A key begins with it: letters, digits, `-` and `_` follow, and a digit is among them.
    Key,
    /// A token comes after it.
    Bearer,
    /// The name of a secret: what `=`, `:` or, for a flag, a space assigns to it.
    Name,
    /// A value of a URL's query comes after it.
    Query,
    /// A URL's authority comes after it, perhaps with user and password.
    Authority,
}

/// Marks, in small letters. All are found, also within each other.
pub(super) const FORMS: &[(&str, Form)] = &[
    ("hf_", Form::Token),
    ("sk-", Form::Key),
    ("bearer ", Form::Bearer),
    ("api-key", Form::Name),
    ("api_key", Form::Name),
    ("apikey", Form::Name),
    ("hf-token", Form::Name),
    ("hf_token", Form::Name),
    ("access_token", Form::Name),
    ("auth_token", Form::Name),
    ("access_key", Form::Name),
    ("secret_key", Form::Name),
    ("client_secret", Form::Name),
    ("password", Form::Name),
    ("passwd", Form::Name),
    ("authorization", Form::Name),
    ("?token=", Form::Query),
    ("&token=", Form::Query),
    ("?key=", Form::Query),
    ("&key=", Form::Query),
    ("://", Form::Authority),
];

/// Characters behind `hf_` or `sk-`: real ones have more than 30, `hf_transfer` and the like have fewer.
const TOKEN_SHORTEST: usize = 16;
/// Words that say how what follows is to be read.
const SCHEMES: [&str; 5] = ["bearer", "basic", "token", "digest", "negotiate"];

/// What to black out because mark number `which` stands at `at`.
pub(super) fn secret(which: usize, text: &[u8], at: Range<usize>) -> Option<Range<usize>> {
    match FORMS[which].1 {
        form @ (Form::Token | Form::Key) => token(form, text, at),
        Form::Bearer => value(text, skip(text, at.end, b" ")),
        Form::Name => value(text, assigned(text, at)?),
        Form::Query => value(text, at.end),
        Form::Authority => userinfo(text, at.end),
    }
}

/// The value that this mark announces reaches the end of the text, or is still to come.
pub(super) fn is_open(which: usize, text: &[u8], at: Range<usize>) -> bool {
    let begins = match FORMS[which].1 {
        // See `begun_token`.
        Form::Token | Form::Key => return false,
        Form::Name if text[at.end..].iter().all(|byte| is_between(*byte) || b"=:,".contains(byte)) => {
            return true;
        }
        Form::Name => assigned(text, at),
        Form::Authority => return authority_end(text, at.end) == text.len(),
        Form::Bearer | Form::Query => Some(at.end),
    };
    begins.is_some_and(|begins| value(text, begins).is_none_or(|value| value.end == text.len()))
}

/// How many of the last bytes are a token that may go on.
pub(super) fn begun_token(text: &[u8]) -> usize {
    let word = text.iter().rev().take_while(|byte| is_of_key(**byte)).count();
    let last = &text[text.len() - word..];
    let begins = [b"hf_", b"sk-"].iter().any(|mark| last.len() >= 3 && last[..3].eq_ignore_ascii_case(*mark));
    if begins { word } else { 0 }
}

fn is_of_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn token(form: Form, text: &[u8], at: Range<usize>) -> Option<Range<usize>> {
    let before = at.start.checked_sub(1).map(|before| text[before]);
    let rest = &text[at.end..];
    let len = match form {
        Form::Key => rest.iter().take_while(|byte| is_of_key(**byte)).count(),
        _ => rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count(),
    };
    let apart = match form {
        Form::Key => !before.is_some_and(is_of_key) && rest[..len].iter().any(u8::is_ascii_digit),
        _ => !before.is_some_and(|before| before.is_ascii_alphanumeric()),
    };
    (apart && len >= TOKEN_SHORTEST).then_some(at.start..at.end + len)
}

/// What may stand around `=` and `:`. A backslash is there where quotes are escaped.
fn is_between(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'"' | b'\'' | b'`' | b'\\')
}

/// Where the value of the name at `at` begins, if one is assigned to it.
fn assigned(text: &[u8], at: Range<usize>) -> Option<usize> {
    let is_flag = at.start >= 1 && text[at.start - 1] == b'-';
    let mut begins = at.end;
    let mut sign = false;
    while let Some(byte) = text.get(begins) {
        match byte {
            b'=' | b':' if !sign => sign = true,
            // A list of arguments, as a program prints it.
            b',' if is_flag && !sign => {}
            byte if is_between(*byte) => {}
            _ => break,
        }
        begins += 1;
    }
    (begins > at.end && (sign || is_flag)).then_some(begins)
}

fn skip(text: &[u8], from: usize, bytes: &[u8]) -> usize {
    from + text[from..].iter().take_while(|byte| bytes.contains(byte)).count()
}

/// The value that begins here: in quotes, in brackets, or up to where it can end.
fn value(text: &[u8], begins: usize) -> Option<Range<usize>> {
    let rest = &text[begins..];
    if rest.starts_with(BLACK.as_bytes()) {
        return Some(begins..begins + BLACK.len());
    }
    let ends = |byte: u8| is_between(byte) || byte.is_ascii_control() || b"&;)}]<>|".contains(&byte);
    let word = rest.iter().position(|byte| ends(*byte)).unwrap_or(rest.len());
    if rest.get(word) == Some(&b' ')
        && SCHEMES.iter().any(|s| s.as_bytes().eq_ignore_ascii_case(&rest[..word]))
    {
        return value(text, skip(text, begins + word, b" "));
    }
    let quote = begins.checked_sub(1).map(|before| text[before]).filter(|q| matches!(q, b'"' | b'\''));
    let escaped = begins >= 2 && text[begins - 2] == b'\\';
    let closed = match (quote, rest.first()) {
        (Some(quote), _) => rest.iter().position(|byte| *byte == quote || (escaped && *byte == b'\\')),
        (None, Some(open @ (b'[' | b'{' | b'('))) => {
            let close = match open {
                b'[' => b']',
                b'{' => b'}',
                _ => b')',
            };
            rest.iter().position(|byte| *byte == close).map(|at| at + 1)
        }
        (None, _) => None,
    };
    let len = closed.unwrap_or_else(|| {
        let commas = rest[..word].iter().rev().take_while(|byte| **byte == b',').count();
        word - commas
    });
    (len > 0).then_some(begins..begins + len)
}

fn authority_end(text: &[u8], begins: usize) -> usize {
    let ends = |byte: &u8| is_between(*byte) || byte.is_ascii_control() || b"/?#<>".contains(byte);
    text[begins..].iter().position(ends).map_or(text.len(), |len| begins + len)
}

/// `user:password` of `://user:password@host`; a user alone may be a token.
fn userinfo(text: &[u8], begins: usize) -> Option<Range<usize>> {
    let authority = &text[begins..authority_end(text, begins)];
    let at = authority.iter().rposition(|byte| *byte == b'@')?;
    (at > 0).then_some(begins..begins + at)
}

//! PURE. Blacks secrets out of text before it is kept or shown: the values that it was given, and what has the form of a
//! secret whoever wrote it (`forms`).
//!
//! One pass of one automaton over the text finds both, whatever its length: a shim does this to every line of an engine
//! that may write 100 MB/s, within its 1 MiB of memory. So the automaton knows of each value the first [`KNOWN`] bytes
//! only, and the rest is compared where those are found. Letter case does not matter.
//!
//! What is not caught: a value of fewer than [`SHORTEST`] bytes, because a secret "1" would black out every 1; a value
//! that an engine has cut or encoded in a way of its own; and the few bytes of a secret that stand before the place
//! where a line was cut.
mod forms;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind, StartKind};
use forms::FORMS;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::{PoisonError, RwLock};

/// What stands in place of a secret.
pub const BLACK: &str = "[redacted]";

/// A shorter value is not looked for. In bytes.
pub const SHORTEST: usize = 6;
/// A value that is a secret only by the name of its variable must be this long: `X_TOKEN=false` is none. In bytes.
pub const SHORTEST_GUESSED: usize = 8;

/// So many first bytes of each value are in the automaton: its size must not depend on the length of secrets.
const KNOWN: usize = 12;
/// A piece of a value that long is as good as the value: an engine may print "hf_abcdefgh…".
const TELLING: usize = 24;
/// At the end of a text whose rest is missing, so many first bytes of a value are blacked out. Fewer tell nothing.
const TELLING_AT_CUT: usize = 4;

/// Knows what to black out. Its `Debug` shows none of it.
pub struct Redactor {
    /// The forms first, then the values' beginnings. `None`: it could not be made, and nothing passes.
    automaton: Option<AhoCorasick>,
    values: Vec<Box<[u8]>>,
    /// What was learnt after it was made.
    later: RwLock<Option<Box<Later>>>,
}

struct Later {
    values: Vec<String>,
    redactor: Redactor,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor").field("values", &self.values.len()).finish_non_exhaustive()
    }
}

impl Redactor {
    /// Looks for these values too. A value of several lines is looked for line by line, as that is how text comes; and
    /// each also as JSON and a URL would spell it.
    pub fn new<V: AsRef<str>>(values: impl IntoIterator<Item = V>) -> Self {
        let mut wanted: Vec<Box<[u8]>> = Vec::new();
        for value in values {
            for line in value.as_ref().lines().map(str::trim) {
                wanted.extend(spellings(line).filter(|spelling| is_sought(spelling)).map(into_bytes));
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        let forms = FORMS.iter().map(|(mark, _)| mark.as_bytes());
        let patterns = forms.chain(wanted.iter().map(|value| &value[..value.len().min(KNOWN)]));
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .start_kind(StartKind::Unanchored)
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::DFA))
            .prefilter(false)
            .build(patterns);
        Self { automaton: automaton.ok(), values: wanted, later: RwLock::default() }
    }

    /// From now on looks for this value too.
    pub fn learn(&self, value: &str) {
        let mut later = self.later.write().unwrap_or_else(PoisonError::into_inner);
        // Whoever looks at each start, or before each mail, finds it again and again.
        if later.as_ref().is_some_and(|later| later.values.iter().any(|known| known == value)) {
            return;
        }
        let mut values = later.take().map(|later| later.values).unwrap_or_default();
        values.push(value.to_owned());
        *later = Some(Box::new(Later { redactor: Self::new(&values), values }));
    }

    /// Where values stand that were learnt.
    fn found_later(&self, text: &[u8]) -> Vec<Range<usize>> {
        let later = self.later.read().unwrap_or_else(PoisonError::into_inner);
        later.as_ref().map(|later| later.redactor.own_values(text).collect()).unwrap_or_default()
    }

    /// Knows no value, only what has the form of a secret.
    pub fn of_forms() -> Self {
        Self::new::<&str>([])
    }

    /// A line, without its secrets. Not copied when it has none.
    pub fn bytes<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        self.blacked(text, self.found(text))
    }

    /// The same, for text.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            // What is blacked out begins and ends between characters.
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// Blacks out in place.
    pub fn clean(&self, text: &mut String) {
        if let Cow::Owned(new) = self.text(text) {
            *text = new;
        }
    }

    /// As [`Self::bytes`], for a line whose end is missing: the beginning of a value at its end is blacked out too.
    pub fn cut_off<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        let mut found = self.found(text);
        let begun = self.begun(text);
        if begun >= TELLING_AT_CUT {
            found.push(text.len() - begun..text.len());
        }
        self.blacked(text, found)
    }

    /// A secret may have begun at the end of this text and go on in what follows it: to be shown together only.
    pub fn is_open(&self, text: &[u8]) -> bool {
        self.begun(text) > 0
            || self.matches(text).any(|(which, at)| which < FORMS.len() && forms::is_open(which, text, at))
    }

    /// How many of the last bytes are the beginning of a value or token that is not there in full.
    fn begun(&self, text: &[u8]) -> usize {
        self.begun_value(text).max(forms::begun_token(text))
    }

    /// Blacks these out, and what is seen to be a secret only then: a token that stood right behind another secret.
    fn blacked<'t>(&self, text: &'t [u8], found: Vec<Range<usize>>) -> Cow<'t, [u8]> {
        const PASSES: usize = 4;
        if found.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut black = blacked(text, found);
        for _ in 1..PASSES {
            let again = blacked(&black, self.found(&black));
            if again == black {
                break;
            }
            black = again;
        }
        Cow::Owned(black)
    }

    /// Covers the known values in place, each by as many bytes as it has: in a text whose length was told already. What
    /// only has the form of a secret stays, so that nothing is lost that merely looks like one.
    pub fn cover(&self, text: &mut [u8]) {
        let mut found: Vec<_> = self.found_values(text).collect();
        found.sort_unstable_by_key(|span| span.start);
        let mut done = 0;
        for span in found {
            let fresh = span.start.max(done)..span.end.max(done);
            done = fresh.end;
            let covered = &mut text[fresh];
            covered.fill(b'*');
            if let Some(named) = covered.get_mut(..BLACK.len()) {
                named.copy_from_slice(BLACK.as_bytes());
            }
        }
    }

    /// Is there anything that [`Self::cover`] would cover?
    pub fn has_value(&self, text: &[u8]) -> bool {
        self.found_values(text).next().is_some()
    }

    /// How many of the last bytes are the beginning of a known value that is not there in full.
    pub fn begun_value(&self, text: &[u8]) -> usize {
        let begun = self.values.iter().filter_map(|value| begun_of(value, text)).max().unwrap_or(0);
        let later = self.later.read().unwrap_or_else(PoisonError::into_inner);
        begun.max(later.as_ref().map_or(0, |later| later.redactor.begun_value(text)))
    }

    fn found_values<'t>(&self, text: &'t [u8]) -> impl Iterator<Item = Range<usize>> + use<'_, 't> {
        self.own_values(text).chain(self.found_later(text))
    }

    fn own_values<'t>(&self, text: &'t [u8]) -> impl Iterator<Item = Range<usize>> + use<'_, 't> {
        // Without an automaton nothing passes.
        let all = self.automaton.is_none().then_some(0..text.len()).filter(|all| !all.is_empty());
        let values = self.matches(text).filter_map(|(which, at)| {
            value_at(&self.values[which.checked_sub(FORMS.len())?], text, at.start)
        });
        all.into_iter().chain(values)
    }

    fn matches<'t>(&self, text: &'t [u8]) -> impl Iterator<Item = (usize, Range<usize>)> + use<'_, 't> {
        let automaton = self.automaton.iter();
        automaton.flat_map(move |automaton| {
            automaton.find_overlapping_iter(text).map(|found| (found.pattern().as_usize(), found.range()))
        })
    }

    /// What to black out, in no order.
    fn found(&self, text: &[u8]) -> Vec<Range<usize>> {
        if self.automaton.is_none() {
            return std::iter::once(0..text.len()).collect();
        }
        let span = |(which, at): (usize, Range<usize>)| match which.checked_sub(FORMS.len()) {
            None => forms::secret(which, text, at),
            Some(value) => value_at(&self.values[value], text, at.start),
        };
        self.matches(text).filter_map(span).chain(self.found_later(text)).collect()
    }
}

fn into_bytes(text: String) -> Box<[u8]> {
    text.into_bytes().into_boxed_slice()
}

/// The value as it is, and as it stands in JSON or a debug print, and in a URL, where those differ.
fn spellings(value: &str) -> impl Iterator<Item = String> {
    let quoted = format!("{value:?}");
    let escaped = quoted[1..quoted.len() - 1].to_owned();
    let mut url = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    [value.to_owned(), escaped, url].into_iter()
}

/// It is long enough, and is not itself a part of what it would be replaced with.
fn is_sought(value: &str) -> bool {
    value.len() >= SHORTEST && !BLACK.contains(&value.to_ascii_lowercase())
}

/// Where the value stands whose first bytes were found at `start`: all of it, a telling piece, or as much as there is.
fn value_at(value: &[u8], text: &[u8], start: usize) -> Option<Range<usize>> {
    let rest = &text[start..];
    let same = rest.iter().zip(value).take_while(|(a, b)| a.eq_ignore_ascii_case(b)).count();
    let enough = same == value.len() || same == rest.len() || same >= TELLING;
    enough.then_some(start..start + same)
}

/// How many of the last bytes of `text` are the first of `value`, if not all of it.
fn begun_of(value: &[u8], text: &[u8]) -> Option<usize> {
    let longest = text.len().min(value.len() - 1);
    (1..=longest).rev().find(|len| text[text.len() - len..].eq_ignore_ascii_case(&value[..*len]))
}

fn blacked(text: &[u8], mut found: Vec<Range<usize>>) -> Vec<u8> {
    found.sort_unstable_by_key(|span| span.start);
    let mut black = Vec::with_capacity(text.len() + BLACK.len());
    let mut spans = found.into_iter().peekable();
    let mut done = 0;
    while let Some(mut span) = spans.next() {
        while let Some(next) = spans.next_if(|next| next.start <= span.end) {
            span.end = span.end.max(next.end);
        }
        // A piece of a value may end within a character.
        while text.get(span.end).is_some_and(|byte| byte & 0xc0 == 0x80) {
            span.end += 1;
        }
        black.extend_from_slice(&text[done..span.start.max(done)]);
        black.extend_from_slice(BLACK.as_bytes());
        done = span.end.max(done);
    }
    black.extend_from_slice(&text[done..]);
    black
}

/// Does a variable of this name hold a secret? The words of its name decide: `HF_TOKEN` and `VLLM_API_KEY` do,
/// `TOKENIZERS_PARALLELISM` and `SSL_KEY_FILE` do not.
pub fn names_a_secret(name: &str) -> bool {
    const SECRETS: [&str; 11] = [
        "KEY",
        "APIKEY",
        "TOKEN",
        "SECRET",
        "SECRETS",
        "PASSWORD",
        "PASSWD",
        "PASS",
        "PASSPHRASE",
        "CREDENTIAL",
        "CREDENTIALS",
    ];
    const PLACES: [&str; 5] = ["FILE", "PATH", "DIR", "DIRECTORY", "URL"];
    let upper = name.to_ascii_uppercase();
    let mut words = upper.split(|c: char| !c.is_ascii_alphanumeric());
    let last = words.clone().next_back().unwrap_or_default();
    !PLACES.contains(&last) && words.any(|word| SECRETS.contains(&word))
}

/// The values of arguments that are secrets by their flag: `--api-key X`, `--hf-token=X`.
pub fn in_arguments(arguments: &[String]) -> impl Iterator<Item = &str> {
    const SHORT: [&str; 1] = ["-hft"];
    let is_secret = |flag: &str| SHORT.contains(&flag) || flag.strip_prefix("--").is_some_and(names_a_secret);
    // vLLM takes several keys behind one flag.
    let mut open = false;
    arguments.iter().filter_map(move |argument| match argument.split_once('=') {
        Some((flag, value)) if flag.starts_with('-') => {
            open = false;
            is_secret(flag).then_some(value)
        }
        _ if argument.starts_with('-') => {
            open = is_secret(argument);
            None
        }
        _ => open.then_some(argument.as_str()),
    })
}

#[cfg(test)]
mod tests;

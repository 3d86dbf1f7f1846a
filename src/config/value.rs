//! Single values: what was written → a checked Rust value, or why not.
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;
use toml::de::DeValue;

/// What is wrong with a value, and what would be right.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) remedy: String,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

/// A value as it stands in the file.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) key: &'a str,
    /// Offset of the key; of the value for an element of a list.
    pub(super) key_at: usize,
    /// Offset of the value.
    pub(super) at: usize,
    pub(super) value: &'a DeValue<'a>,
    /// `is` for a value, `has` for an element of a list.
    verb: &'static str,
}

impl<'a> Given<'a> {
    pub(super) fn new(key: &'a str, key_at: usize, value: &'a Spanned<DeValue<'a>>) -> Self {
        Self { key, key_at, at: value.span().start, value: value.get_ref(), verb: "is" }
    }

    pub(super) fn element(key: &'a str, value: &'a Spanned<DeValue<'a>>) -> Self {
        let at = value.span().start;
        Self { key, key_at: at, at, value: value.get_ref(), verb: "has" }
    }

    /// Where the header of a section begins, or the key when it is `key = { … }` or an implied table.
    pub(super) fn header_at(&self) -> usize {
        self.key_at.min(self.at)
    }

    pub(super) fn of_wrong_type(&self, remedy: &str) -> Wrong {
        let article = if matches!(self.value.type_str(), "integer" | "array") { "an" } else { "a" };
        Wrong::new(format!("`{}` {} {article} {}", self.key, self.verb, self.value.type_str()), remedy)
    }

    /// The right type, but not a right value: `why` follows the value as it was typed.
    pub(super) fn wrong(&self, why: impl Display, remedy: impl Into<String>) -> Wrong {
        Wrong::new(format!("`{}` {} {}, {why}", self.key, self.verb, self.shown()), remedy)
    }

    /// As [`Self::wrong`], without showing the value: it may be a secret.
    pub(super) fn wrong_unshown(&self, why: impl Display, remedy: impl Into<String>) -> Wrong {
        Wrong::new(format!("`{}` {why}", self.key), remedy)
    }

    fn shown(&self) -> String {
        match self.value {
            DeValue::String(text) => format!("\"{}\"", clipped(text)),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(flag) => flag.to_string(),
            other => other.type_str().to_owned(),
        }
    }
}

/// Typed text for a message: escaped, and not longer than a glance.
pub(super) fn clipped(text: &str) -> String {
    const LONGEST: usize = 60;
    let escaped: String = text.chars().flat_map(char::escape_debug).collect();
    match escaped.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &escaped[..end]),
        None => escaped,
    }
}

/// Any string without NUL, which neither an argument nor a path can hold.
pub(super) fn text(given: &Given<'_>) -> Result<String, Wrong> {
    match given.value {
        DeValue::String(text) if text.contains('\0') => Err(given.wrong("with a NUL byte", "remove the NUL")),
        DeValue::String(text) => Ok(text.clone().into_owned()),
        _ => Err(given.of_wrong_type("write a string in quotes")),
    }
}

/// A string with something in it.
pub(super) fn words(given: &Given<'_>) -> Result<String, Wrong> {
    let text = text(given)?;
    if text.trim().is_empty() {
        return Err(given.wrong("which says nothing", "write something, or remove the key"));
    }
    Ok(text)
}

/// An absolute path; whether something is there is for its user to find out.
pub(super) fn absolute_path(given: &Given<'_>) -> Result<PathBuf, Wrong> {
    let text = text(given)?;
    if !Path::new(&text).is_absolute() {
        return Err(given.wrong("which is no absolute path", "write a path that begins with /"));
    }
    Ok(PathBuf::from(text))
}

pub(super) fn flag(given: &Given<'_>) -> Result<bool, Wrong> {
    given.value.as_bool().ok_or_else(|| given.of_wrong_type("write true or false"))
}

/// A whole number within `range`.
pub(super) fn whole<T>(range: RangeInclusive<T>) -> impl Fn(&Given<'_>) -> Result<T, Wrong>
where
    T: Copy + Display + PartialOrd + TryFrom<i64>,
{
    move |given| {
        let remedy = format!("write a whole number from {} to {}", range.start(), range.end());
        let Some(number) = given.value.as_integer() else {
            return Err(given.of_wrong_type(&remedy));
        };
        i64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| range.contains(number))
            .ok_or_else(|| given.wrong("which is out of range", remedy))
    }
}

/// A number within `range`; `0` is as good as `0.0`.
pub(super) fn number(range: RangeInclusive<f64>) -> impl Fn(&Given<'_>) -> Result<f64, Wrong> {
    move |given| {
        let remedy = format!("write a number from {:?} to {:?}", range.start(), range.end());
        let parsed = match given.value {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(number) => {
                i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number as f64)
            }
            _ => return Err(given.of_wrong_type(&remedy)),
        };
        parsed
            .filter(|number| range.contains(number))
            .ok_or_else(|| given.wrong("which is out of range", remedy))
    }
}

/// One of a few words.
pub(super) fn one_of<T: Copy>(choices: &[(&str, T)]) -> impl Fn(&Given<'_>) -> Result<T, Wrong> {
    move |given| {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let remedy = format!("write {}", listed(&names));
        let Some(text) = given.value.as_str() else {
            return Err(given.of_wrong_type(&remedy));
        };
        let found = choices.iter().find(|(name, _)| *name == text);
        found.map(|(_, choice)| *choice).ok_or_else(|| given.wrong("which is none of the choices", remedy))
    }
}

/// `a`, `a or b`, `a, b or c`.
fn listed(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

const DURATION_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
const SIZE_UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];

/// `"250ms"`, `"10s"`, `"5m"`, `"2h"`, within `range`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&Given<'_>) -> Result<Duration, Wrong> {
    move |given| {
        let form =
            r#"write a whole number and ms, s, m or h in quotes, such as "250ms", "10s", "5m" or "2h""#;
        let Some(text) = given.value.as_str() else {
            return Err(given.of_wrong_type(form));
        };
        let millis =
            amount(text, &DURATION_UNITS).ok_or_else(|| given.wrong("which is no duration", form))?;
        Some(Duration::from_millis(millis)).filter(|duration| range.contains(duration)).ok_or_else(|| {
            let (low, high) = (spelled(*range.start()), spelled(*range.end()));
            given.wrong("which is out of range", format!("write a duration from \"{low}\" to \"{high}\""))
        })
    }
}

/// The same, or `"none"`: no limit.
pub(super) fn duration_or_none(
    range: RangeInclusive<Duration>,
) -> impl Fn(&Given<'_>) -> Result<Option<Duration>, Wrong> {
    let limit = duration(range);
    move |given| match given.value.as_str() {
        Some("none") => Ok(None),
        Some(_) | None => limit(given)
            .map(Some)
            .map_err(|Wrong { what, remedy }| Wrong::new(what, remedy + r#", or "none""#)),
    }
}

/// A duration, typed elsewhere than in a file.
///
/// # Errors
/// What would be right.
pub fn typed_duration(text: &str) -> Result<Duration, String> {
    let millis = amount(text, &DURATION_UNITS);
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| "write a whole number and ms, s, m or h, such as 90s or 10m".to_owned())
}

/// `"64KiB"`, `"32MiB"`, `"8GiB"` in bytes, within `range`.
pub(super) fn size(range: RangeInclusive<usize>) -> impl Fn(&Given<'_>) -> Result<usize, Wrong> {
    move |given| {
        let form =
            r#"write a whole number and KiB, MiB or GiB in quotes, such as "64KiB", "32MiB" or "8GiB""#;
        let Some(text) = given.value.as_str() else {
            return Err(given.of_wrong_type(form));
        };
        let bytes = amount(text, &SIZE_UNITS).ok_or_else(|| given.wrong("which is no size", form))?;
        usize::try_from(bytes).ok().filter(|bytes| range.contains(bytes)).ok_or_else(|| {
            let (low, high) = (bytes_spelled(*range.start()), bytes_spelled(*range.end()));
            given.wrong("which is out of range", format!("write a size from \"{low}\" to \"{high}\""))
        })
    }
}

/// Digits and a unit, nothing between or around them.
fn amount(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// As it would be typed.
pub(super) fn spelled(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    in_largest_unit(millis, &[("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)])
}

fn bytes_spelled(bytes: usize) -> String {
    if bytes == 0 {
        return "0KiB".to_owned();
    }
    in_largest_unit(bytes as u64, &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)])
}

fn in_largest_unit(amount: u64, units: &[(&str, u64)]) -> String {
    let fits = units.iter().find(|(_, factor)| amount.is_multiple_of(*factor));
    fits.map_or_else(|| amount.to_string(), |(unit, factor)| format!("{}{unit}", amount / factor))
}

#[cfg(test)]
mod tests;

//! Colours, and text that fits: the last step before a terminal.
use crate::printable;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    Plain,
    Dim,
    Bold,
    Green,
    Yellow,
    Red,
}

/// The text in this colour, or as it is.
pub fn paint(text: &str, colour: Colour, coloured: bool) -> String {
    let code = match colour {
        _ if !coloured || text.is_empty() => return text.to_owned(),
        Colour::Plain => return text.to_owned(),
        Colour::Dim => "2",
        Colour::Bold => "1",
        Colour::Green => "1;32",
        Colour::Yellow => "1;33",
        Colour::Red => "1;31",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// At most `width` columns; what was cut shows as an ellipsis. Text from engines may hold anything, so what a terminal
/// would obey is spelled out.
pub fn fit(text: &str, width: usize) -> String {
    let mut plain: String = printable::line(text).replace('\t', " ").chars().take(width + 1).collect();
    if plain.chars().count() > width {
        plain = plain.chars().take(width.saturating_sub(1)).chain(['…']).collect();
    }
    plain
}

/// "4s", "2h 3min", "5d 1h": the two largest units, as systemd writes them.
pub fn span(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    let units = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    let Some(first) = units.iter().position(|(_, length)| seconds >= *length) else {
        return "0s".to_owned();
    };
    let (name, length) = units[first];
    let mut text = format!("{}{name}", seconds / length);
    if let Some((name, shorter)) = units.get(first + 1) {
        let rest = seconds % length / shorter;
        if rest > 0 {
            text.push_str(&format!(" {rest}{name}"));
        }
    }
    text
}

/// "512 B", "1.5 GiB".
pub fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut figure = count as f64 / 1024.0;
    let mut unit = 0;
    while figure >= 1023.95 && unit + 1 < units.len() {
        figure /= 1024.0;
        unit += 1;
    }
    format!("{figure:.1} {}", units[unit])
}

/// Milliseconds since 1970 of an RFC 3339 time.
pub fn instant(rfc3339: &str) -> Option<i64> {
    rfc3339.parse::<jiff::Timestamp>().ok().map(|t| t.as_millisecond())
}

/// "21:47:04 UTC".
pub fn time_of_day(ms: i64) -> String {
    let seconds = ms.div_euclid(1000).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02} UTC", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_the_two_largest_units() {
        let check = |seconds: i64, expected: &str| assert_eq!(span(seconds * 1000 + 999), expected);
        check(-5, "0s");
        check(0, "0s");
        check(59, "59s");
        check(60, "1min");
        check(61, "1min 1s");
        check(3_600, "1h");
        check(3_659, "1h");
        check(7_380, "2h 3min");
        check(90_061, "1d 1h");
        check(86_400 * 400, "400d");
    }

    #[test]
    fn bytes_have_four_digits_at_most() {
        let check = |count: u64, expected: &str| assert_eq!(bytes(count), expected);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1536, "1.5 KiB");
        check(1024 * 1024 - 1, "1.0 MiB");
        check(3 << 30, "3.0 GiB");
        check(5000 << 40, "5000.0 TiB");
    }

    #[test]
    fn text_is_cut_at_the_width_and_cannot_command_the_terminal() {
        let check = |text: &str, width: usize, expected: &str| assert_eq!(fit(text, width), expected);
        check("abc", 3, "abc");
        check("abcd", 3, "ab…");
        check("äöüß", 3, "äö…");
        check("a\x1b[2Jb\tc\n", 80, "a\\x1b[2Jb c\\x0a");
    }

    #[test]
    fn an_instant_is_read_back_from_its_text() {
        assert_eq!(instant("1970-01-01T00:00:01.250Z"), Some(1250));
        assert_eq!(instant("yesterday"), None);
        assert_eq!(time_of_day(1_795_384_024_123), "21:47:04 UTC");
    }
}

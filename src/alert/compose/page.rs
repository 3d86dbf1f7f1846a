//! Plain text of a mail: wrapped words, rows with a label, and lines that stay as they are.
use crate::alert::said::Said;
use crate::printable;

/// Columns of wrapped text.
const WIDTH: usize = 76;
/// Where the text of a labelled row begins.
const LABEL: usize = 11;
/// Characters of one log line or piece of evidence; longer ones are cut.
const RAW_MAX: usize = 400;
/// Characters of one paragraph. With these two a mail stays far below what one may take.
const WORDS_MAX: usize = 2_000;

#[derive(Debug, Default)]
pub(super) struct Page(String, Said);

impl Page {
    pub(super) fn text(self) -> String {
        self.0
    }

    pub(super) fn blank(&mut self) {
        self.0.push('\n');
    }

    /// A paragraph.
    pub(super) fn words(&mut self, text: &str) {
        self.wrapped("", 0, text);
    }

    /// `Label:    text`, the rest below the text.
    pub(super) fn row(&mut self, label: &str, text: &str) {
        self.wrapped(&label_of(label), LABEL, text);
    }

    /// As [`Page::row`], not wrapped.
    pub(super) fn raw_row(&mut self, label: &str, text: &str) {
        self.line(&format!("{}{}", label_of(label), clipped(text)));
    }

    /// The text, without what the page has said before.
    pub(super) fn once(&mut self, text: &str) -> String {
        self.1.once(text)
    }

    pub(super) fn title(&mut self, text: &str) {
        self.blank();
        self.wrapped("", 0, &format!("{text}:"));
    }

    /// An indented line that stays as it is.
    pub(super) fn raw(&mut self, text: &str) {
        self.line(&format!("  {}", clipped(text)));
    }

    pub(super) fn item(&mut self, text: &str) {
        self.wrapped("  ", 4, text);
    }

    /// `03:12:04.123 exit      text`.
    pub(super) fn event(&mut self, at: &str, kind: &str, text: &str) {
        let time = at.get(11..23).unwrap_or(at);
        self.wrapped(&format!("  {time} {kind:<9} "), 4, text);
    }

    pub(super) fn commands(&mut self, commands: &[&str]) {
        commands.iter().for_each(|command| self.line(&format!("  {}", one_line(command))));
    }

    /// Everything comes this way, so nothing that a mail program would obey or hide gets past.
    fn line(&mut self, text: &str) {
        self.0.push_str(&one_line(text.trim_end()));
        self.0.push('\n');
    }

    /// Words behind `first`, and below it behind `indent` spaces. A word that is too long has a line of its own.
    fn wrapped(&mut self, first: &str, indent: usize, text: &str) {
        let text = one_line(text.char_indices().nth(WORDS_MAX).map_or(text, |(end, _)| &text[..end]));
        let mut line = first.to_owned();
        let mut has_words = false;
        for word in text.split_whitespace() {
            let space = usize::from(has_words);
            if has_words && line.chars().count() + space + word.chars().count() > WIDTH {
                self.line(&line);
                line = " ".repeat(indent);
                has_words = false;
            }
            if has_words {
                line.push(' ');
            }
            line.push_str(word);
            has_words = true;
        }
        self.line(&line);
    }
}

fn label_of(label: &str) -> String {
    format!("{:<LABEL$}", format!("{label}:"))
}

fn clipped(text: &str) -> String {
    let text = one_line(text);
    match text.char_indices().nth(RAW_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// What is no plain text is spelled out: engines print what they like, and a header must stay one line.
pub(super) fn one_line(text: &str) -> String {
    printable::line(text).replace('\t', " ")
}

/// RFC 3339 → "2026-11-23 03:12:04 UTC".
pub(super) fn clock(at: &str) -> String {
    match (at.get(..10), at.get(11..19)) {
        (Some(day), Some(time)) => format!("{day} {time} UTC"),
        _ => at.to_owned(),
    }
}

/// "2.4 s", "47 s", "4 min 12 s", "3 h 20 min", "2 d 3 h".
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        _ if seconds < 9.95 => format!("{:.1} s", seconds.max(0.0)),
        0..60 => format!("{whole} s"),
        60..3_600 => format!("{} min {} s", whole / 60, whole % 60),
        3_600..86_400 => format!("{} h {} min", whole / 3_600, whole % 3_600 / 60),
        86_400.. => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

pub(super) fn bytes(count: u64) -> String {
    match count {
        0..1_048_576 => format!("{} KiB", count / 1_024),
        1_048_576..1_073_741_824 => format!("{} MiB", count / 1_048_576),
        1_073_741_824.. => format!("{:.1} GiB", count as f64 / 1_073_741_824.0),
    }
}

/// "1 incident", "7 incidents".
pub(super) fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

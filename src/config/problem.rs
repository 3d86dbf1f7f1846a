//! What is wrong with a configuration, where, and what would be right.
use std::cell::RefCell;
use std::fmt;

/// One thing that is wrong. Shown as `FILE:LINE:COLUMN: what is wrong; what would be right`, always one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file as the operator named it.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub what: String,
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}; {}", self.file, self.line, self.column, self.what, self.remedy)
    }
}

/// Why there is no [`super::Config`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The file is not there or cannot be read; the operating system's words, with the path.
    Unreadable(String),
    /// Every problem, in file order; at least one.
    Wrong(Vec<Problem>),
}

impl Refusal {
    /// The contract's exit status: 66 (EX_NOINPUT) or 78 (EX_CONFIG, which the unit does not restart on).
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Unreadable(_) => 66,
            Self::Wrong(_) => 78,
        }
    }
}

/// One line per problem, without a newline at the end.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => f.write_str(why),
            Self::Wrong(problems) => {
                let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
        }
    }
}

impl std::error::Error for Refusal {}

/// Problems as they are found, in any order.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<Found>>);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    /// In bytes from the start of the text.
    at: usize,
    what: String,
    remedy: String,
    /// It may pass without a change of the configuration.
    pending: bool,
}

impl Problems {
    pub(super) fn add(&self, at: usize, what: impl Into<String>, remedy: impl Into<String>) {
        self.push(at, what.into(), remedy.into(), false);
    }

    pub(super) fn add_pending(&self, at: usize, what: impl Into<String>, remedy: impl Into<String>) {
        self.push(at, what.into(), remedy.into(), true);
    }

    fn push(&self, at: usize, what: String, remedy: String, pending: bool) {
        let (what, remedy) = (one_line(what), one_line(remedy));
        self.0.borrow_mut().push(Found { at, what, remedy, pending });
    }

    /// Is there nothing that only another configuration can put right?
    pub(super) fn all_pending(&self) -> bool {
        self.0.borrow().iter().all(|found| found.pending)
    }

    /// What was found, sorted by place, each thing once.
    pub(super) fn in_file_order(self, file: &str, text: &str) -> Vec<Problem> {
        let mut found = self.0.into_inner();
        found.sort();
        found.dedup();
        let places = Places::new(text);
        let problem = |Found { at, what, remedy, .. }| {
            let (line, column) = places.of(at);
            Problem { file: file.to_owned(), line, column, what, remedy }
        };
        found.into_iter().map(problem).collect()
    }
}

/// Problems quote what was typed, and that may hold anything.
fn one_line(text: String) -> String {
    if text.chars().any(char::is_control) {
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    } else {
        text
    }
}

/// Byte offset → line and column.
struct Places<'t> {
    text: &'t str,
    line_starts: Vec<usize>,
}

impl<'t> Places<'t> {
    fn new(text: &'t str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, line_starts: std::iter::once(0).chain(after_newlines).collect() }
    }

    /// Both from 1. An offset past the end, or inside a character, counts as the place before it.
    fn of(&self, at: usize) -> (usize, usize) {
        let at = self.text.floor_char_boundary(at);
        let line = self.line_starts.partition_point(|start| *start <= at);
        let before = &self.text[self.line_starts[line - 1]..at];
        // An editor shows no byte-order mark, and so counts none.
        let characters = before.strip_prefix('\u{feff}').unwrap_or(before).chars().count();
        (line, characters + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        for (text, at, expected) in [
            ("", 0, (1, 1)),
            ("ab\ncd", 0, (1, 1)),
            ("ab\ncd", 2, (1, 3)),
            ("ab\ncd", 3, (2, 1)),
            ("ab\r\ncd", 5, (2, 2)),
            ("é = 1", 3, (1, 3)),
            ("é = 1", 1, (1, 1)),
            ("\u{feff}a = 1", 3, (1, 1)),
            ("ab\n", 3, (2, 1)),
            ("ab", 99, (1, 3)),
        ] {
            assert_eq!(Places::new(text).of(at), expected, "{text:?} at {at}");
        }
    }

    #[test]
    fn problems_come_in_file_order_once_each_and_on_one_line() {
        let problems = Problems::default();
        problems.add(3, "second", "b\nc");
        problems.add(0, "first", "a");
        problems.add(3, "second", "b\nc");
        let shown: Vec<String> =
            problems.in_file_order("f.toml", "x\n\ny").iter().map(Problem::to_string).collect();
        assert_eq!(shown, ["f.toml:1:1: first; a", "f.toml:3:1: second; b c"]);
    }
}

//! Which lines of a starting engine's log are news.
//!
//! An engine that waits for peers, or tries a download again and again, writes for ever without coming further. So a line
//! counts as progress only when it is not one of the last 64 *normal forms*: every word that holds a digit (a time, a
//! pid, an address, the number of a try) is the same word there. A whole percentage stays as it is, because a bar that
//! grows is progress; when it starts again from 0 that was seen before.
use super::progress::last_drawing;
use std::collections::VecDeque;

/// Normal forms that are remembered. A loop that repeats more lines than this looks like progress, up to `startup.cap`.
const REMEMBERED: usize = 64;
/// Characters of a line that are compared.
const COMPARED: usize = 200;

/// The memory of one start.
#[derive(Debug, Default)]
pub struct Novelty {
    /// The oldest first.
    seen: VecDeque<String>,
}

impl Novelty {
    /// Takes a line in. False: it says what was said before.
    pub fn is_news(&mut self, line: &str) -> bool {
        let form = normal(line);
        let known = self.seen.iter().position(|seen| *seen == form);
        // What is repeated stays remembered, however much comes in between.
        if let Some(at) = known {
            self.seen.remove(at);
        }
        self.seen.push_back(form);
        if self.seen.len() > REMEMBERED {
            self.seen.pop_front();
        }
        known.is_none()
    }
}

/// A line without what differs from one repetition to the next.
pub(super) fn normal(line: &str) -> String {
    let mut form = String::new();
    let mut rest = last_drawing(line);
    while let Some(first) = rest.chars().next().filter(|_| form.len() < COMPARED) {
        let length = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
        if length == 0 {
            if !first.is_whitespace() {
                form.push(first);
            } else if !form.ends_with(' ') {
                form.push(' ');
            }
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (word, after) = rest.split_at(length);
        let is_percentage = after.starts_with('%') && word.bytes().all(|b| b.is_ascii_digit());
        let varies = word.contains(|c: char| c.is_ascii_digit()) && !is_percentage;
        match varies {
            true => form.push('#'),
            false => form.extend(word.chars().take(COMPARED)),
        }
        rest = after;
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &[&str], expected: &[bool]) {
        let mut novelty = Novelty::default();
        let news: Vec<bool> = lines.iter().map(|line| novelty.is_news(line)).collect();
        assert_eq!(news, expected, "{lines:?}");
    }

    #[test]
    fn times_counters_and_addresses_are_no_news() {
        check(
            &[
                "2026-11-23T04:00:01.123Z (EngineCore pid=17) waiting for peers, try 1/99 (0x7fa0)",
                "2026-11-23T04:00:02.456Z (EngineCore pid=18) waiting for peers, try 2/99 (0x7fb1)",
                "04:00:03 something else",
                "2026-11-23T04:00:04.789Z (EngineCore pid=17)   waiting for peers, try 100/99 (0xa)",
                "",
                "",
            ],
            &[true, false, true, false, true, false],
        );
    }

    #[test]
    fn a_bar_that_grows_is_news_and_one_that_starts_again_is_not() {
        check(
            &["x:  1%| 1/99", "x:  1%| 2/99", "x:  2%| 3/99", "x:  1%| 1/99", "\rx: 1%\rx: 3%\r"],
            &[true, false, true, false, true],
        );
    }

    #[test]
    fn what_is_repeated_is_not_forgotten_and_memory_is_bounded() {
        let mut novelty = Novelty::default();
        let word = |n: u32| char::from_u32(u32::from('\u{4e00}') + n).expect("a letter").to_string();
        assert!(novelty.is_news("again"));
        for n in 0..1_000 {
            assert!(novelty.is_news(&word(n)), "the {n}th");
            assert!(!novelty.is_news("again"), "after the {n}th");
        }
        assert_eq!(novelty.seen.len(), REMEMBERED);
        assert!(novelty.is_news(&word(0)), "it was forgotten");
        assert!(normal(&"word ".repeat(1 << 16)).len() < COMPARED + 8);
    }
}

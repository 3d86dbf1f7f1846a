//! PURE. What a page has said already: a reason is often the evidence, a line of the timeline the reason, and so on. The
//! same words are told once.

/// Shorter ones may well stand twice: "connection refused", "held".
const LONG: usize = 24;

#[derive(Debug, Default)]
pub struct Said(Vec<String>);

impl Said {
    /// Was this, or a text that holds it, told before?
    pub fn knows(&self, text: &str) -> bool {
        is_long(text) && self.0.iter().any(|said| find(said, text).is_some())
    }

    /// The text, with "as above" in place of what was told before.
    pub fn once(&mut self, text: &str) -> String {
        if self.knows(text) {
            return "as above".to_owned();
        }
        let mut shown = text.to_owned();
        for said in &self.0 {
            if let Some(at) = find(&shown, said) {
                shown.replace_range(at..at + said.len(), "as above");
            }
        }
        if is_long(text) {
            self.0.push(text.to_owned());
        }
        shown
    }
}

/// Where `part` stands in `text`, as whole words: "3 requests" is no part of "13 requests".
fn find(text: &str, part: &str) -> Option<usize> {
    let in_word = |letter: Option<char>| letter.is_some_and(char::is_alphanumeric);
    let cuts = |at: usize| {
        let (before, behind) = (&text[..at], &text[at + part.len()..]);
        in_word(before.chars().next_back()) && in_word(part.chars().next())
            || in_word(behind.chars().next()) && in_word(part.chars().next_back())
    };
    text.match_indices(part).map(|(at, _)| at).find(|at| !cuts(*at))
}

fn is_long(text: &str) -> bool {
    text.chars().count() >= LONG
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_told_once() {
        let mut said = Said::default();
        let evidence = "2 requests open, no byte for 12 s";
        assert_eq!(said.once(evidence), evidence);
        assert_eq!(said.once(evidence), "as above");
        assert_eq!(said.once(&format!("hang: {evidence}")), "hang: as above");
        assert_eq!(said.once("no byte for 12 s"), "no byte for 12 s", "short");
        assert_eq!(said.once("held"), "held");
        assert_eq!(said.once("held"), "held");
        assert_eq!(said.once(&format!("1{evidence}")), format!("1{evidence}"), "another number");
        assert!(said.knows(evidence) && !said.knows("something that was never told"));
    }
}

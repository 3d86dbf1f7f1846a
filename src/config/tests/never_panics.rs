//! Whatever is typed: an answer, in file order, with places that exist.
use super::{FIRST, unit};
use crate::config::parse;
use proptest::prelude::*;

/// Pieces that mean something to the parser or to us, so that texts get past the first character.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "[[tier]]\n",
        "[tier]\n",
        "[server]\n",
        "[agent]",
        "[alert.mail]\n",
        "[gpu]\n",
        "[tier.health]\n",
        "[[",
        "]]",
        "[",
        "]",
        "{",
        "}",
        "=",
        " = ",
        ",",
        ".",
        "\n",
        "\r\n",
        "\r",
        "\t",
        " ",
        "#",
        "\"",
        "'",
        "\"\"\"",
        "'''",
        "\\",
        "\\u12",
        "\0",
        "\u{feff}",
        "é",
        "name",
        "engine",
        "model",
        "url",
        "listen",
        "gpus",
        "degrade",
        "env",
        "health",
        "'a'",
        "'vllm'",
        "'remote'",
        "\"http://h:1\"",
        "0",
        "-1",
        "1.5",
        "nan",
        "1e999",
        "99999999999999999999",
        "0x",
        "1_",
        "true",
        "'10s'",
        "1979-05-27",
        "a.b",
        "name = 'x'\n",
        "engine = 'ollama'\n",
        "model = 'm'\n",
        "health.slow = '1s'\n",
    ];
    prop_oneof![8 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => ".{0,6}"]
}

fn answered(text: &str) -> Result<(), TestCaseError> {
    let Err(problems) = parse("f", text, &unit()) else { return Ok(()) };
    prop_assert!(!problems.is_empty());
    let places: Vec<(usize, usize)> = problems.iter().map(|it| (it.line, it.column)).collect();
    prop_assert!(places.is_sorted(), "{places:?}");
    let lines: Vec<&str> = text.split('\n').collect();
    for problem in &problems {
        prop_assert!(!problem.to_string().contains('\n'), "{problem}");
        let line = lines.get(problem.line - 1);
        prop_assert!(line.is_some_and(|line| problem.column <= line.chars().count() + 1), "{problem}");
    }
    Ok(())
}

proptest! {
    // A failure is printed whole; nothing is written beside the sources.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn on_any_text(text in any::<String>()) {
        answered(&text)?;
    }

    #[test]
    fn on_any_soup_of_toml(pieces in prop::collection::vec(piece(), 0..40)) {
        answered(&pieces.concat())?;
    }

    #[test]
    fn on_a_right_text_with_something_in_it(at in 0..FIRST.len(), piece in piece(), cut in 0..4_usize) {
        let rest = FIRST.get(at + cut..).unwrap_or("");
        answered(&format!("{}{piece}{rest}", &FIRST[..at]))?;
    }
}

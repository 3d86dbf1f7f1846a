//! Whatever comes, there is an answer.
use super::*;
use proptest::prelude::*;

/// Long lines, binary rubbish, and rubbish made of the words that count.
#[test]
fn a_huge_log_of_rubbish_has_an_answer() {
    let line = "x\0\x1b[3\x7f CUDA error: %| level=INFO msg=\"\u{fffd} ".repeat(3);
    let many: Vec<&str> = std::iter::repeat_n(line.as_str(), 100_000).collect();
    let found = diagnose(&evidence(None, None, &many));
    assert!(found.line.is_none_or(|at| at < many.len()));
    let wide = "(EngineCore pid=8) ERROR ".repeat(1 << 18);
    let wide = [wide.as_str()];
    assert!(diagnose(&evidence(None, Some(Exit::Code(1)), &wide)).line.is_none_or(|at| at == 0));
}

fn word() -> impl Strategy<Value = String> {
    let entries: Vec<&str> = entries().map(|entry| entry.sample).collect();
    prop_oneof![
        3 => proptest::sample::select(entries).prop_map(str::to_owned),
        2 => ".{0,40}",
        1 => Just("\0\x1b[31m\x1b(EngineCore pid=".to_owned()),
        1 => Just("Nov 23 03:00:00 h kernel: [1.2] vllm-1 | 2026-11-22T12:00:00Z ".to_owned()),
        1 => Just("INFO:     Application startup complete.".to_owned()),
        1 => Just("\u{fffd}é\t".to_owned()),
    ]
}

fn kind() -> impl Strategy<Value = Option<Kind>> {
    proptest::sample::select(vec![None, Some(Kind::Vllm), Some(Kind::LlamaServer), Some(Kind::Ollama)])
}

fn exit() -> impl Strategy<Value = Option<Exit>> {
    prop_oneof![
        Just(None),
        Just(Some(Exit::Unknown)),
        any::<i32>().prop_map(|code| Some(Exit::Code(code))),
        any::<i32>().prop_map(|signal| Some(Exit::Signal(signal))),
        (0..256).prop_map(|code| Some(Exit::Code(code))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_log_has_an_answer(
        kind in kind(),
        exit in exit(),
        asked in any::<Option<bool>>(),
        was_ready in any::<bool>(),
        log in prop::collection::vec(prop::collection::vec(word(), 0..4), 0..30),
    ) {
        let log: Vec<String> = log.into_iter().map(|words| words.concat()).collect();
        let lines: Vec<&str> = log.iter().map(String::as_str).collect();
        let found = diagnose(&Evidence { kind, exit, asked, was_ready, out_of_memory: None, survived: 0, lines: &lines });
        prop_assert!(found.line.is_none_or(|at| at < lines.len()));
        prop_assert!(found.line.is_none() || found.evidence.is_some());
        prop_assert!(!(was_ready && found.deterministic == Some(true)));
        prop_assert_eq!(found.cause == Cause::Asked, asked == Some(true));
    }
}

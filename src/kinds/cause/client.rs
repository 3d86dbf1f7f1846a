//! What in a log is a client's text, not the engine's: an engine that logs requests prints prompts and answers, and a
//! prompt may say anything, "CUDA out of memory" too.
use super::line;
use regex::bytes::Regex;
use std::borrow::Cow;
use std::sync::OnceLock;

/// The beginning of a line, without the client's text that follows.
pub(super) fn without_requests(line: Cow<'_, str>) -> Cow<'_, str> {
    static FIELD: OnceLock<Regex> = OnceLock::new();
    let field = FIELD.get_or_init(|| {
        // `prompt: '…'` (vLLM), `prompt="…"` (Ollama), `"messages":[…` (llama-server), in text or inside of JSON.
        line::compiled(concat!(
            r#"\b(?:prompt|messages|content|input|output|response|completion|text)"#,
            r#"(?:\\?["'])?\s*[:=]\s*(?:\\?["']|[\[{])|\bprompt[=:]"#,
        ))
    });
    match (field.find(line.as_bytes()).map(|found| found.start()), line) {
        (None, line) => line,
        (Some(at), Cow::Borrowed(line)) => Cow::Borrowed(line.get(..at).unwrap_or_default()),
        (Some(at), Cow::Owned(line)) => Cow::Owned(line.get(..at).unwrap_or_default().to_owned()),
    }
}

/// Which lines go on with a text of several lines: llama-server prints prompts and answers as they are when it is verbose,
/// and only the first line of them has its clock and level.
#[derive(Debug, Default)]
pub(super) struct Continuation {
    /// The last line with a clock was for debugging.
    inside: bool,
}

impl Continuation {
    /// The next line of a log. True: it goes on with what a line for debugging began.
    pub(super) fn take(&mut self, line: &str) -> bool {
        static CLOCK: OnceLock<Regex> = OnceLock::new();
        static LAST_WORDS: OnceLock<Regex> = OnceLock::new();
        let clock = CLOCK.get_or_init(|| line::compiled(r"^\d+\.\d\d\.\d{3}\.\d{3} (?:(?P<debug>D)|[IWE]) "));
        // What no logger prints: a failed assertion, an uncaught exception, a shell's word.
        let last_words = LAST_WORDS.get_or_init(|| {
            line::compiled(concat!(
                r"^\S+\.(?:c|cc|cpp|cu|cuh|h|hpp|m):\d+: |^terminate called|^ +what\(\):|^main thread",
                r"|^(?:Segmentation fault|Aborted|Killed|Terminated|Illegal instruction|Bus error)(?: \(core dumped\))?$",
            ))
        });
        match clock.captures(line.as_bytes()) {
            Some(found) => {
                self.inside = found.name("debug").is_some();
                false
            }
            None => {
                self.inside &= !last_words.is_match(line.as_bytes());
                self.inside
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_text_is_cut_off() {
        let check = |line: &str, expected: &str| assert_eq!(without_requests(line.into()), expected);
        check(
            "INFO Received request cmpl-1: prompt: 'CUDA out of memory', params",
            "INFO Received request cmpl-1: ",
        );
        check(
            r#"level=DEBUG msg="chat request" images=0 prompt="oom""#,
            r#"level=DEBUG msg="chat request" images=0 "#,
        );
        check("level=DEBUG prompt=oom", "level=DEBUG ");
        check("srv  log: prompt: torch.OutOfMemoryError: CUDA out of memory", "srv  log: ");
        check(r#"srv: request: {"model":"m","messages":[{"role""#, r#"srv: request: {"model":"m",""#);
        check(r#"{\"prompt\":\"x\"}"#, r#"{\""#);
        check(
            "torch.OutOfMemoryError: CUDA out of memory. ü",
            "torch.OutOfMemoryError: CUDA out of memory. ü",
        );
        check(
            "[type=value_error, input_value=ArgsKwargs((), {'a'",
            "[type=value_error, input_value=ArgsKwargs((), {'a'",
        );
        check(
            "RuntimeError: Ninja build failed. Ninja output:",
            "RuntimeError: Ninja build failed. Ninja output:",
        );
    }

    #[test]
    fn text_of_several_lines_is_quiet_up_to_the_engines_next_line() {
        let log = [
            ("0.10.929.937 D srv  params: prompt", false),
            ("CUDA error: out of memory", true),
            ("Error: model is corrupted", true),
            ("0.10.929.938 E srv  llama_server: x", false),
            ("CUDA error", false),
            ("0.10.929.939 I srv  x", false),
            ("/src/ggml-cuda.cu:88: CUDA error", false),
            ("CUDA error", false),
        ];
        let mut reading = Continuation::default();
        for (line, expected) in log {
            assert_eq!(reading.take(line), expected, "{line}");
        }
    }
}

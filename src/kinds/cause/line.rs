//! What a log line is before one asks what it says: its level, its colours, whether a run begins with it.
use regex::bytes::{Regex, RegexBuilder};
use std::borrow::Cow;
use std::sync::OnceLock;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// Debug and information: not evidence, whatever words it holds.
    Quiet,
    Warning,
    /// Errors, and everything that has no level.
    Loud,
}

/// How far into a line its level may stand: behind process name, pid, date and time.
const LEVEL_WITHIN: usize = 160;

/// The level that a line's own prefix claims, in any of the forms that the engines, their libraries and Go use.
pub(super) fn level(line: &str) -> Level {
    // Ollama reports a failed load as information.
    if line.contains("msg=\"Load failed\"") {
        return Level::Loud;
    }
    static WORD: OnceLock<Regex> = OnceLock::new();
    let word = WORD.get_or_init(|| {
        // A level word (not `NAME=INFO`), glog's letter and date, or llama.cpp's letter behind its clock.
        compiled(concat!(
            r"(?:^|[^=\w]|level=)",
            r"(?:(?P<quiet>INFO|DEBUG|TRACE)",
            r"|(?P<warning>WARNING|WARN|\w*(?:User|Future|Deprecation|Runtime)Warning)",
            r"|(?P<loud>ERROR|CRITICAL|FATAL|\w*Error|\w*Exception))\b",
            r"|^(?:\[rank\d+\]:)?\[(?:(?P<gquiet>I)|(?P<gwarning>W)|(?P<gloud>[EF]))\d{3,}",
            r"|^[\d.]+ (?:(?P<lquiet>[ID])|(?P<lwarning>W)|(?P<lloud>E)) ",
        ))
    });
    let head = &line.as_bytes()[..line.len().min(LEVEL_WITHIN)];
    let Some(found) = word.captures(head) else { return Level::Loud };
    let is = |names: [&str; 3]| names.iter().any(|name| found.name(name).is_some());
    if is(["quiet", "gquiet", "lquiet"]) {
        Level::Quiet
    } else if is(["warning", "gwarning", "lwarning"]) {
        Level::Warning
    } else {
        Level::Loud
    }
}

/// Does a line that the catalogue does not know look like trouble? Only then are unknown lines worth saying "unknown".
pub(super) fn looks_bad(line: &str) -> bool {
    static BAD: OnceLock<Regex> = OnceLock::new();
    let bad = BAD.get_or_init(|| {
        compiled(concat!(
            r"(?i)\b(error|fatal|exception|traceback|failed|failure|abort(ed)?|killed|segfault|panic|crash(ed)?",
            r"|cannot|unable to)\b",
        ))
    });
    level(line) == Level::Loud && bad.is_match(line.as_bytes())
}

/// Is this among the first lines that an engine prints after its start?
pub(super) fn begins_a_run(line: &str) -> bool {
    const FIRST: &[&str] =
        &["vLLM API server version", "vLLM server version", "msg=\"server config\"", "main: loading model"];
    FIRST.iter().any(|first| line.contains(first))
}

/// The line without terminal escapes.
pub(super) fn without_colours(line: &str) -> Cow<'_, str> {
    if !line.contains('\x1b') {
        return Cow::Borrowed(line);
    }
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, escape)) = rest.split_once('\x1b') {
        plain.push_str(before);
        // `ESC [ … letter`; anything else loses its escape only.
        rest = match escape.strip_prefix('[') {
            Some(code) => code.find(|c: char| c.is_ascii_alphabetic()).map_or("", |end| &code[end + 1..]),
            None => escape,
        };
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

fn compiled(pattern: &str) -> Regex {
    let built = RegexBuilder::new(pattern).unicode(false).build();
    built.expect("a constant that a test compiles")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Level) {
        assert_eq!(level(line), expected, "{line}");
    }

    #[test]
    fn levels_are_read_in_every_dialect() {
        check("(EngineCore pid=71) INFO 11-22 12:00:00 [core.py:77] error: none", Level::Quiet);
        check("(APIServer pid=71) WARNING 11-22 12:00:00 [x.py:1] hm", Level::Warning);
        check("(EngineCore pid=71) ERROR 11-22 12:00:00 [core.py:77] INFO", Level::Loud);
        check(
            "INFO:     127.0.0.1:5 - \"POST /v1/completions HTTP/1.1\" 500 Internal Server Error",
            Level::Quiet,
        );
        check("time=2026-11-22T12:00:00.000Z level=INFO source=x.go:1 msg=\"error\"", Level::Quiet);
        check("time=2026-11-22T12:00:00.000Z level=WARN source=x.go:1 msg=\"error\"", Level::Warning);
        check(
            "time=2026-11-22T12:00:00.000Z level=INFO source=sched.go:641 msg=\"Load failed\" error=\"x\"",
            Level::Loud,
        );
        check("[rank0]:[W1122 12:00:00.000 ProcessGroupNCCL.cpp:1] Warning", Level::Warning);
        check("[E1122 12:00:00.000 ProcessGroupNCCL.cpp:1] x", Level::Loud);
        check("0.10.929.937 I srv  llama_server: error", Level::Quiet);
        check("0.10.929.937 E srv  llama_server: x", Level::Loud);
        check("/x/torch/cuda/__init__.py:180: UserWarning: CUDA initialization", Level::Warning);
        check("RuntimeError: see INFO", Level::Loud);
        check("llama_model_load: error loading model", Level::Loud);
        check("", Level::Loud);
    }

    #[test]
    fn only_what_looks_like_trouble_does() {
        assert!(looks_bad("something failed badly"));
        assert!(!looks_bad("INFO something failed badly"));
        assert!(!looks_bad("llama_context: n_ctx = 4096"));
        assert!(!looks_bad("err"));
    }

    #[test]
    fn colours_go_and_text_stays() {
        assert_eq!(without_colours("\x1b[31mred\x1b[0m and \x1b plain ü"), "red and  plain ü");
        assert_eq!(without_colours("cut \x1b[3"), "cut ");
        assert!(matches!(without_colours("plain"), Cow::Borrowed(_)));
    }
}

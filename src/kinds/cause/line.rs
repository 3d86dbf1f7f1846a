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

/// Ollama reports loads and requests that failed as information.
fn is_quiet_failure(line: &str) -> bool {
    static FAILURE: OnceLock<Regex> = OnceLock::new();
    let failure = FAILURE.get_or_init(|| {
        compiled(concat!(
            r"(?i)level=INFO .*msg=\x22(?:[^\x22]*(?:failed|failure|unable to)[^\x22]*\x22.* error=|Load failed\x22)",
            r"|level=INFO .*msg=\x22(?:request failed: |http: Accept error: |unable to load |embedding generation failed: .*EOF)",
            // What is tried again is no failure, but a disk does not become empty by that.
            r"|level=INFO .*msg=\x22[^\x22]*failed: [^\x22]*(?:no space left on device|disk quota exceeded)",
        ))
    });
    line.contains("level=INFO") && failure.is_match(line.as_bytes())
}

/// The level that a line's own prefix claims, in any of the forms that the engines, their libraries and Go use.
pub(super) fn level(line: &str) -> Level {
    // NCCL has no higher level than this one.
    if line.contains("NCCL WARN") || is_quiet_failure(line) {
        return Level::Loud;
    }
    let head = &line.as_bytes()[..line.len().min(LEVEL_WITHIN)];
    let Some(found) = level_word().captures(head) else { return Level::Loud };
    let is = |names: [&str; 3]| names.iter().any(|name| found.name(name).is_some());
    if is(["quiet", "gquiet", "lquiet"]) {
        Level::Quiet
    } else if is(["warning", "gwarning", "lwarning"]) {
        Level::Warning
    } else {
        Level::Loud
    }
}

/// Does the line say its level?
fn has_level(line: &str) -> bool {
    level_word().is_match(&line.as_bytes()[..line.len().min(LEVEL_WITHIN)])
}

fn level_word() -> &'static Regex {
    static WORD: OnceLock<Regex> = OnceLock::new();
    WORD.get_or_init(|| {
        // A level word (not `NAME=INFO`), glog's letter and date, or llama.cpp's letter behind its clock.
        compiled(concat!(
            r"(?:^|[^=\w]|level=)",
            r"(?:(?P<quiet>INFO|DEBUG|TRACE)",
            r"|(?P<warning>WARNING|WARN|\w*(?:User|Future|Deprecation|Runtime)Warning)",
            r"|(?P<loud>ERROR|CRITICAL|FATAL|\w*Error|\w*Exception))\b",
            r"|^(?:\[rank\d+\]:)?\[(?:(?P<gquiet>I)|(?P<gwarning>W)|(?P<gloud>[EF]))(?:\d{3,}| \w+\.cpp)",
            r"|^[\d.]+ (?:(?P<lquiet>[ID])|(?P<lwarning>W)|(?P<lloud>E)) ",
        ))
    })
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

/// Has the line a form that programs give to their messages: a level, the name of an exception, or who speaks and a colon?
pub(super) fn has_form(line: &str) -> bool {
    static FORM: OnceLock<Regex> = OnceLock::new();
    let form = FORM.get_or_init(|| {
        compiled(concat!(
            r"^(?:\[rank\d+\]: )?(?:[a-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt)(?::|$)",
            r"|^ *[A-Za-z_][\w.:()]*(?: [\w()]+){0,3} *: |^\S+\.(?:c|cc|cpp|cu|cuh|h|hpp|py|go):\d+|^\w+\(\): |^\S+:\d+:\d+ ",
        ))
    });
    has_level(line) || form.is_match(line.as_bytes())
}

/// Is this among the first lines that an engine prints after its start?
pub(super) fn begins_a_run(line: &str) -> bool {
    const FIRST: &[&str] = &[
        "vLLM API server version",
        "vLLM server version",
        "msg=\"server config\"",
        "main: loading model",
        "load_model: loading model '",
    ];
    // The last as `mainstay logs` has it.
    FIRST.iter().any(|first| line.contains(first)) || line.trim_start().starts_with("-- run ")
}

/// Does this line say that the engine serves? What was printed before it was survived.
pub(super) fn says_ready(line: &str) -> bool {
    const READY: &[&str] =
        &["Application startup complete", "starting the main loop", "llama_server: listening on"];
    READY.iter().any(|ready| line.contains(ready))
}

/// Is this a line of the kernel's? Its log holds everybody's small troubles.
pub(super) fn is_of_kernel(line: &str) -> bool {
    static KERNEL: OnceLock<Regex> = OnceLock::new();
    let kernel = KERNEL.get_or_init(|| {
        compiled(concat!(
            r"(?:^|\s)kernel: |^(?:<\d+>)?\[ *\d+\.\d+\] |^NVRM: ",
            r"|^\[[A-Z][a-z]{2} [A-Z][a-z]{2} +\d+ \d\d:\d\d:\d\d(?: \d{4})?\] ",
        ))
    });
    kernel.is_match(&line.as_bytes()[..line.len().min(LEVEL_WITHIN)])
}

/// Is this a sign that the process went on living: a line that is neither trouble nor part of a dump (frames of a
/// traceback, registers, threads, the usage that follows a refused argument)?
pub(super) fn shows_life(line: &str) -> bool {
    static DUMP: OnceLock<Regex> = OnceLock::new();
    let dump = DUMP.get_or_init(|| {
        compiled(concat!(
            r"^\s|^$|^[-#~^|+]|^\[New LWP|^\[Thread |^goroutine |^created by |^r\w{1,5} +0x|^[a-z]s +0x|^\S+\(.*\)$",
            r"|^Traceback|^During handling|^The above exception|^frame #|^main thread|^\d+\s+in |^0x[0-9a-f]+ in ",
            r"|^usage:|^to show complete usage|^\[\w+:\d+\] |^\*\*\*",
        ))
    });
    match level(line) {
        Level::Quiet => true,
        Level::Warning => false,
        Level::Loud => !has_level(line) && !dump.is_match(line.as_bytes()),
    }
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

/// How many prefixes may stand one behind the other: a service manager's, a container's, a process group's.
const PREFIXES_MAX: usize = 4;

/// The line as the engine wrote it: without terminal escapes, and without what journald, syslog, dmesg, container
/// runtimes, Ray or vLLM's process names put before it.
pub(super) fn bare(line: &str) -> Cow<'_, str> {
    static PREFIX: OnceLock<Regex> = OnceLock::new();
    let prefix = PREFIX.get_or_init(|| {
        compiled(concat!(
            r"^(?:",
            // 2026-11-22T12:00:00.123Z, and what container runtimes put behind it
            r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?[ \t]+(?:std(?:out|err) [FP] )?",
            // Nov 22 12:00:00, in any language
            r"|[[:alpha:]]{3,4}\.? +\d{1,2} \d\d:\d\d:\d\d(?:\.\d+)? ",
            // host identifier[pid]:
            r"|[\w.-]+ [\w.@:/-]+\[\d+\]: |[\w.-]+ kernel: |kernel: ",
            // dmesg and dmesg -T
            r"|\[ *\d+\.\d+\] |\[[A-Z][a-z]{2} [A-Z][a-z]{2} +\d+ \d\d:\d\d:\d\d(?: \d{4})?\] ",
            // llama-server as a router, before the lines of its children
            r"|\[\d+\] +",
            // docker compose
            r"|[\w.-]+ +\| ",
            // (EngineCore_DP0 pid=71), (RayWorkerWrapper pid=71, ip=10.0.0.1)
            // what Ollama's runner for MLX wrote
            r"|time=\S+ level=\w+ source=\S+ msg=mlx-runner msg=\x22",
            r"|\([\w:.]+(?: rank=\d+)? pid=\d+(?:, ip=[\d.]+)?\) ",
            r")",
        ))
    });
    let mut plain = without_colours(line);
    for _ in 0..PREFIXES_MAX {
        let Some(end) = prefix.find(plain.as_bytes()).map(|found| found.end()) else { break };
        // Each pattern ends behind an ASCII character, so this is a boundary.
        plain = match plain {
            Cow::Borrowed(text) => Cow::Borrowed(&text[end..]),
            Cow::Owned(text) => Cow::Owned(text[end..].to_owned()),
        };
    }
    plain
}

pub(super) fn compiled(pattern: &str) -> Regex {
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

    #[test]
    fn what_others_put_before_a_line_goes() {
        for prefixed in [
            "Nov 23 03:00:00 gpu1 mainstay-primary[123]: ERROR x",
            "mar 15 11:39:07 box ollama[87551]: ERROR x",
            "2026-11-22T12:00:00.123456789Z ERROR x",
            "2026-11-22T12:00:00.123456789Z stderr F ERROR x",
            "2026-11-22T12:00:00+0000 gpu1 mainstay-primary[123]: ERROR x",
            "[12345.678901] ERROR x",
            "[Sun Nov 22 12:00:00 2026] ERROR x",
            "Nov 23 03:00:00 gpu1 kernel: [   12.345] ERROR x",
            "vllm-1  | (EngineCore_DP0 pid=71) ERROR x",
            "(VllmWorker rank=3 pid=5406) ERROR x",
            "\x1b[36m(RayWorkerWrapper pid=71, ip=10.0.0.1)\x1b[0m ERROR x",
            "ERROR x",
        ] {
            assert_eq!(bare(prefixed), "ERROR x", "{prefixed}");
        }
        assert_eq!(bare("[rank0]:[E1122 12:00:00 x.cpp:1] y"), "[rank0]:[E1122 12:00:00 x.cpp:1] y");
        assert_eq!(bare("0.10.929.937 E srv  x"), "0.10.929.937 E srv  x");
    }

    #[test]
    fn a_dump_is_no_sign_of_life() {
        for dump in [
            "  File \"/x/core.py\", line 8, in run",
            "net.(*conn).Read(0xc000619900, {0xc00035f000?, 0xc00029fad0?})",
            "\tnet/fd_posix.go:55 +0x25 fp=0xc00029faa8",
            "rax    0x0",
            "goroutine 7 [select]:",
            "[New LWP 20030]",
            "#2  0x00007fd9decdac3d in ggml_abort () from /x/libllama.so",
            "-c,    --ctx-size N                     size of the prompt context",
            "ERROR 11-22 12:00:00 [core.py:390]     self.start_layer, self.end_layer",
            "WARNING 11-22 12:00:00 [x.py:1] hm",
            "",
        ] {
            assert!(!shows_life(dump), "{dump}");
        }
        for life in
            ["INFO 11-22 12:00:00 [loggers.py:1] Engine 000", "slot launch_slot_: id 0", "[GIN] 2026/11/22"]
        {
            assert!(shows_life(life), "{life}");
        }
    }
}

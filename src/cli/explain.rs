//! `mainstay explain [FILE]`: the cause that an engine's log and exit status tell of, as the agent would read them. No
//! agent is asked.
mod tail;

use super::exit::Exit;
use super::screen::{complain, report, show, show_json};
use crate::kinds::{self, Diagnosis, Evidence, Kind};
use crate::policy::{self, Nature};
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use tail::Tail;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Whose log it is: vllm, ollama or llama-server. Absent: told by its lines
    #[arg(long, value_name = "KIND", value_parser = kind)]
    engine: Option<Kind>,
    /// How it ended: its exit status (0 to 255; 129 to 192 are a shell's 128 + signal), or a signal: KILL, SIGKILL or -9
    #[arg(long, value_name = "CODE|SIGNAL", value_parser = exit, allow_hyphen_values = true)]
    exit: Option<policy::Exit>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// The log; `-` or nothing: the standard input
    file: Option<PathBuf>,
}

/// What is printed with `--json` (contract "Causes").
#[derive(Serialize)]
struct Answer<'a> {
    cause: &'static str,
    evidence: Option<&'a str>,
    /// Of the evidence, from 1. `null` when the evidence is no line of the log.
    line: Option<u64>,
    deterministic: Option<bool>,
    action: &'static str,
    advice: &'static str,
    /// Whose log it was taken for. `null`: any engine's.
    engine: Option<&'static str>,
}

/// Reads a log and says what it tells.
pub fn main(options: &Options) -> Exit {
    let log = match read(options.file.as_deref()) {
        Ok(log) => log,
        Err(why) => {
            complain(why);
            return Exit::Unreadable;
        }
    };
    let lines: Vec<&str> = log.lines.iter().map(|line| line.text.as_str()).collect();
    let kind = options.engine.or_else(|| kinds::guess(&lines));
    let found = kinds::diagnose(&Evidence {
        kind,
        exit: options.exit,
        asked: None,
        was_ready: false,
        out_of_memory: None,
        survived: 0,
        lines: &lines,
    });
    let line = found.line.map(|at| log.lines[at].number);
    if options.json { json(&found, line, kind) } else { show(text(&found, line, kind, options, &log)).into() }
}

fn kind(typed: &str) -> Result<Kind, String> {
    let kinds = [Kind::Vllm, Kind::Ollama, Kind::LlamaServer];
    kinds
        .into_iter()
        .find(|kind| kind.name() == typed)
        .ok_or_else(|| "it is one of: vllm, ollama, llama-server".to_owned())
}

fn exit(typed: &str) -> Result<policy::Exit, String> {
    let wrong = || "it is an exit status from 0 to 255, or a signal: KILL, SIGKILL or -9".to_owned();
    match typed.parse::<i32>() {
        Ok(code @ 0..=255) => Ok(policy::Exit::Code(code)),
        Ok(signal @ -64..=-1) => Ok(policy::Exit::Signal(-signal)),
        Ok(_) => Err(wrong()),
        Err(_) => kinds::signal_number(typed).map(policy::Exit::Signal).ok_or_else(wrong),
    }
}

fn read(file: Option<&Path>) -> Result<Tail, String> {
    let Some(path) = file.filter(|path| *path != Path::new("-")) else {
        let stdin = io::stdin().lock();
        if stdin.is_terminal() {
            report("mainstay: reading a log from the terminal; end it with Ctrl-D");
        }
        return tail::read(stdin)
            .map_err(|why| format!("cannot read the standard input: {why}; name a file instead"));
    };
    let unreadable = |why: io::Error| {
        format!("cannot read {}: {why}; name a readable file, or - for the standard input", path.display())
    };
    tail::read(BufReader::new(File::open(path).map_err(unreadable)?)).map_err(unreadable)
}

fn json(found: &Diagnosis, line: Option<u64>, kind: Option<Kind>) -> Exit {
    let answer = Answer {
        cause: found.cause.name(),
        evidence: found.evidence.as_deref(),
        line,
        deterministic: found.deterministic,
        action: found.action,
        advice: found.advice,
        engine: kind.map(Kind::name),
    };
    match serde_json::to_string(&answer) {
        Ok(text) => show_json(&(text + "\n")).into(),
        Err(why) => {
            complain(format_args!("cannot print the answer: {why}"));
            Exit::Failed
        }
    }
}

/// Columns of the whole, and where the second column begins.
const WIDTH: usize = 80;
const INDENT: usize = 14;

fn text(found: &Diagnosis, line: Option<u64>, kind: Option<Kind>, options: &Options, log: &Tail) -> String {
    let mut page = format!("{}: {}\n\n", found.cause.name(), found.cause.meaning());
    match (&found.evidence, line) {
        (Some(evidence), Some(line)) => row(&mut page, "evidence", &format!("line {line}: {evidence}")),
        (Some(evidence), None) => row(&mut page, "evidence", evidence),
        (None, _) => {}
    }
    row(&mut page, "mainstay does", found.action);
    row(&mut page, "what to do", found.advice);
    row(&mut page, "next time", next_time(found.nature, found.deterministic));
    row(&mut page, "read as", &read_as(kind, options, log));
    page
}

fn next_time(nature: Nature, deterministic: Option<bool>) -> &'static str {
    match (nature, deterministic) {
        (_, Some(false)) => "it passes: the same start can succeed",
        (Nature::Environment | Nature::Shortage, _) => {
            "the same start can succeed once what it needs is there, and free"
        }
        (Nature::Engine | Nature::Configuration, Some(true)) => "the same start will fail the same way",
        (Nature::Engine | Nature::Configuration, None) => {
            "whether the same start will fail again cannot be told"
        }
    }
}

/// What the answer rests on, so that a wrong reading is seen.
fn read_as(kind: Option<Kind>, options: &Options, log: &Tail) -> String {
    let whose = match (options.engine, kind) {
        (Some(kind), _) => format!("a log of {}", kind.name()),
        (None, Some(kind)) => format!("a log of {}, by its marks", kind.name()),
        (None, None) => "a log of any engine".to_owned(),
    };
    let named = |signal| kinds::signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned);
    let ended = match options.exit {
        Some(policy::Exit::Code(code @ 129..=192)) => {
            format!("exit {code}, which is {} (128 + {})", named(code - 128), code - 128)
        }
        Some(policy::Exit::Code(code)) => format!("exit {code}"),
        Some(policy::Exit::Signal(signal)) => format!("killed by {}", named(signal)),
        Some(policy::Exit::Unknown) | None => "how it ended is not told (--exit)".to_owned(),
    };
    let part = match log.dropped {
        0 => String::new(),
        _ => format!("; only the end of its {} lines", log.total),
    };
    format!("{whose}; {ended}{part}")
}

/// One row of two columns. A word that is longer than a line is cut into pieces: nothing is left out.
fn row(page: &mut String, name: &str, text: &str) {
    let room = WIDTH - INDENT;
    let mut rows = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let mut letters: Vec<char> = word.chars().collect();
        while !letters.is_empty() {
            let gap = usize::from(used > 0);
            let fits = used + gap + letters.len() <= room;
            if !fits && used > 0 {
                rows.push(String::new());
                used = 0;
                continue;
            }
            let piece: Vec<char> = letters.drain(..letters.len().min(room)).collect();
            let row = rows.last_mut().expect("there is always a row");
            row.push_str(if gap == 1 { " " } else { "" });
            row.extend(&piece);
            used += gap + piece.len();
        }
    }
    for (at, line) in rows.iter().enumerate() {
        page.push_str(&format!("{:<INDENT$}{line}\n", if at == 0 { name } else { "" }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_a_status_or_a_signal() {
        use policy::Exit::{Code, Signal};
        let check = |typed, expected| assert_eq!(exit(typed).ok(), expected, "{typed}");
        check("0", Some(Code(0)));
        check("137", Some(Code(137)));
        check("255", Some(Code(255)));
        check("-9", Some(Signal(9)));
        check("SIGKILL", Some(Signal(9)));
        check("kill", Some(Signal(9)));
        check("256", None);
        check("-65", None);
        check("SIGNOPE", None);
        check("", None);
    }

    #[test]
    fn what_is_tried_for_ever_is_not_said_to_fail_for_ever() {
        let options = Options { engine: None, exit: None, json: false, file: None };
        let (mut waits, mut fails) = (0, 0);
        for line in [
            "CUDA error: no CUDA-capable device is detected",
            "docker: Error response from daemon: invalid mount config: bind source path does not exist: /models.",
            "gguf_init_from_file: failed to open GGUF file '/models/m.gguf' (No such file or directory)",
            "RuntimeError: No CUDA GPUs are available",
            "vllm: error: unrecognized arguments: --no-such-flag",
            "llama-server: error while loading shared libraries: libcudart.so.12: cannot open shared object file",
            "Cannot access gated repo for url https://huggingface.co/m",
        ] {
            let log = tail::read(line.as_bytes()).expect("it can be read");
            let found = kinds::diagnose(&Evidence {
                kind: None,
                exit: Some(policy::Exit::Code(1)),
                asked: None,
                was_ready: false,
                out_of_memory: None,
                survived: 0,
                lines: &[line],
            });
            let page = text(&found, Some(1), None, &options, &log);
            let (is_tried, fails_again) =
                (page.contains("tried again, at first"), page.contains("will fail the same way"));
            assert!(!(is_tried && fails_again), "{page}");
            (waits, fails) = (waits + u32::from(is_tried), fails + u32::from(fails_again));
        }
        assert!(waits > 0 && fails > 0, "{waits} {fails}");
    }

    #[test]
    fn rows_are_wrapped_and_complete() {
        let long = "x".repeat(200);
        let mut page = String::new();
        row(
            &mut page,
            "evidence",
            &format!("line 1: {long} and some words behind it, enough for a second line"),
        );
        assert!(page.lines().all(|line| line.chars().count() <= WIDTH), "{page}");
        assert_eq!(page.matches('x').count(), 200);
        assert!(page.starts_with("evidence      line 1:"), "{page}");
        assert!(page.contains("second line"), "{page}");
    }
}

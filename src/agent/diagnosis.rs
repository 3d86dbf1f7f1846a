//! Why a run ended: everything that its log still holds, its exit and the kernel's word go to `kinds::diagnose`.
//!
//! Away from the loop: a log that is full of tracebacks takes a while to read, and the line that tells may stand
//! thousands of lines before the last one (vLLM prints a traceback for each open request).
use crate::kinds::{self, Device, Evidence, Kind};
use crate::policy::{Ending, Exit, Nature};
use crate::shim::{self, Exited, ring};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// More than a ring of 1 MiB holds, unless an engine prints next to nothing on each line.
const LINES_MAX: usize = 50_000;

/// An engine that lived on for this long after a line did not die of it.
const HEALTHY_MS: i64 = 60_000;

/// How long the reading may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is known beside the log.
pub struct Circumstances {
    pub kind: Kind,
    pub exit: Exit,
    /// Mainstay asked for the end.
    pub asked: bool,
    pub was_ready: bool,
    /// What the kernel says about memory.
    pub out_of_memory: Option<String>,
    /// Wall clock of the end, in milliseconds.
    pub at_ms: i64,
}

pub fn exit(exited: &Exited) -> Exit {
    match (exited.code, exited.signal) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

/// Reads the log in `run_dir` and says what the run died of.
pub async fn ending(run_dir: PathBuf, known: Circumstances) -> Ending {
    let exit = known.exit;
    let read = tokio::task::spawn_blocking(move || diagnose(&printed(&run_dir), &known));
    // An end has to be told even when every thread is stuck somewhere.
    let read = tokio::time::timeout(PATIENCE, read).await;
    read.ok().and_then(Result::ok).unwrap_or(Ending {
        exit,
        cause: crate::policy::Cause::Unknown,
        nature: Nature::Engine,
        deterministic: None,
        evidence: None,
    })
}

/// What a run computes on, as far as its log tells.
pub async fn device(run_dir: PathBuf, kind: Kind) -> Option<Device> {
    let read = tokio::task::spawn_blocking(move || {
        let lines = printed(&run_dir);
        let lines: Vec<Cow<str>> = lines.iter().map(|line| String::from_utf8_lossy(&line.bytes)).collect();
        let lines: Vec<&str> = lines.iter().map(AsRef::as_ref).collect();
        kinds::device(kind, &lines)
    });
    tokio::time::timeout(PATIENCE, read).await.ok()?.ok()?
}

fn diagnose(lines: &[ring::Line], known: &Circumstances) -> Ending {
    let survived = lines.iter().take_while(|line| line.at_ms <= known.at_ms - HEALTHY_MS).count();
    let lines: Vec<Cow<str>> = lines.iter().map(|line| String::from_utf8_lossy(&line.bytes)).collect();
    let lines: Vec<&str> = lines.iter().map(AsRef::as_ref).collect();
    let found = kinds::diagnose(&Evidence {
        kind: Some(known.kind),
        exit: Some(known.exit),
        asked: Some(known.asked),
        was_ready: known.was_ready,
        out_of_memory: known.out_of_memory.as_deref(),
        survived,
        lines: &lines,
    });
    Ending {
        exit: known.exit,
        cause: found.cause,
        nature: found.nature,
        deterministic: found.deterministic,
        evidence: found.evidence,
    }
}

/// What the engine itself printed, oldest first: how trouble began, as far as the log no longer holds that, and the log.
fn printed(run_dir: &Path) -> Vec<ring::Line> {
    let log = lines_of(&run_dir.join(shim::LOG));
    let oldest = log.first().map_or(i64::MAX, |line| line.at_ms);
    let onset = lines_of(&run_dir.join(shim::ONSET)).into_iter().filter(|line| line.at_ms < oldest);
    onset.chain(log).collect()
}

/// Without the shim's own notes, which are no word of the engine.
fn lines_of(file: &Path) -> Vec<ring::Line> {
    let read = ring::Reader::open(file).and_then(|reader| reader.last(LINES_MAX));
    let mut lines = read.unwrap_or_default();
    lines.retain(|line| line.stream != ring::Stream::Note);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Cause;

    /// Lines that were printed at this time.
    fn at(at_ms: i64, lines: &[String]) -> Vec<ring::Line> {
        let line =
            |line: &String| ring::Line { at_ms, stream: ring::Stream::Err, bytes: line.as_bytes().to_vec() };
        lines.iter().map(line).collect()
    }

    /// Prompts say anything; what an engine says again that it said in a healthy minute is no reason for its end.
    #[test]
    fn a_line_of_a_healthy_minute_explains_nothing_and_neither_does_its_repetition() {
        let said = "RuntimeError: CUDA out of memory. Tried to allocate 1.00 GiB".to_owned();
        let life: Vec<String> =
            (0..5).map(|n| format!("INFO 11-22 12:00:0{n} [loggers.py:1] Engine 000")).collect();
        let run = |lines: &[(i64, &[String])], exit| {
            let lines: Vec<ring::Line> = lines.iter().flat_map(|(when, lines)| at(*when, lines)).collect();
            let known = Circumstances {
                kind: Kind::Vllm,
                exit,
                asked: false,
                was_ready: true,
                out_of_memory: None,
                at_ms: 100_000,
            };
            let ending = diagnose(&lines, &known);
            (ending.cause, ending.deterministic)
        };
        let (one, killed) = (std::slice::from_ref(&said), Exit::Signal(9));
        let outside = (Cause::KilledFromOutside, None);
        assert_eq!(run(&[(1_000, one), (2_000, &life)], killed), outside, "long ago");
        assert_eq!(run(&[(1_000, one), (2_000, &life), (99_000, one)], killed), outside, "again");
        assert_eq!(
            run(&[(1_000, one), (2_000, &life), (99_000, one)], Exit::Code(1)),
            (Cause::Unknown, None)
        );
        assert_eq!(run(&[(1_000, &life), (99_000, one)], killed), (Cause::GpuOom, None), "at the end");
        assert_eq!(run(&[(1_000, one), (99_000, one)], killed), (Cause::GpuOom, None), "it never recovered");
    }

    /// As vLLM prints it: the notice of the death first, and then one traceback after the other.
    #[test]
    fn the_line_that_tells_is_found_before_thousands_of_lines_that_follow_from_it() {
        let frame = |n: usize| {
            format!("(APIServer pid=7) ERROR 11-23 04:15:26 [x.py:{n}]     File \"/v/x.py\", line {n}, in f")
        };
        let core = "(EngineCore pid=9) ERROR 11-23 04:15:25 [core.py:1] torch.OutOfMemoryError: CUDA out of memory. \
                    Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 23.5 GiB";
        let dead = "(APIServer pid=7) ERROR 11-23 04:15:26 [serving.py:9] \
                    vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace \
                    (above) for the root cause.";
        let mut lines = vec![core.to_owned()];
        for traceback in 0..20 {
            lines.push(
                "(APIServer pid=7) ERROR 11-23 04:15:26 [serving.py:9] Traceback (most recent call last):"
                    .to_owned(),
            );
            lines.extend((0..30 + 15 * traceback).map(frame));
            lines.push(dead.to_owned());
        }
        assert!(lines.len() > 3_000);
        let known = Circumstances {
            kind: Kind::Vllm,
            exit: Exit::Code(0),
            asked: false,
            was_ready: true,
            out_of_memory: None,
            at_ms: 0,
        };
        let ending = diagnose(&at(0, &lines), &known);
        assert_eq!(
            (ending.cause, ending.evidence.is_some_and(|e| e.contains("CUDA out of memory"))),
            (Cause::GpuOom, true)
        );
    }
}

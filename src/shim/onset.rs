//! How trouble began. An engine with many open requests prints a traceback for each of them on its way down (vLLM), and
//! the line that tells stands before them all: in a ring of 1 MiB it may be overwritten by the time the engine has ended.
//! So the first lines of each burst of trouble are kept in a file of their own, which is not a ring: what is full is full.
use super::ring::{ONSET_LEN, Stream, Writer};
use crate::policy::Moment;
use aho_corasick::{AhoCorasick, AhoCorasickKind};
use std::path::Path;
use std::time::Duration;

/// A line with one of these, in either case, may be trouble; many more have one than are.
const TROUBLE: [&str; 11] = [
    "error",
    "fatal",
    "critical",
    "traceback",
    "exception",
    "panic",
    "abort",
    "fail",
    "died",
    "signal",
    "cannot",
];
/// Trouble after this long without any begins a burst of its own.
const QUIET: Duration = Duration::from_secs(5);
/// And so does trouble this long after the burst began: an engine that complains all day would else have its first
/// complaint kept for ever.
const LONG: Duration = Duration::from_secs(30);
/// The same for one that has filled the file, which no slow complaining does.
const LONG_WHEN_FULL: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Onset {
    words: AhoCorasick,
    file: Writer,
    burst: Option<Burst>,
    full: bool,
}

#[derive(Clone, Copy, Debug)]
struct Burst {
    began: Moment,
    last: Moment,
}

impl Onset {
    /// `None` where there is no place for it: no engine goes unstarted for that.
    pub fn create(path: &Path) -> Option<Self> {
        let words = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .prefilter(false)
            .build(TROUBLE);
        let file = Writer::of_len(path, ONSET_LEN);
        Some(Self { words: words.ok()?, file: file.ok()?, burst: None, full: false })
    }

    /// A line of the engine, as it went into the ring. It can be read after the next [`Onset::flush`].
    pub fn line(&mut self, now: Moment, at_ms: i64, stream: Stream, line: &[u8]) {
        let burst = self.burst.filter(|burst| self.goes_on(*burst, now));
        match (burst, self.words.is_match(line)) {
            (None, false) => return,
            (None, true) => {
                self.file.restart();
                self.full = false;
                self.burst = Some(Burst { began: now, last: now });
            }
            (Some(_), false) => {}
            (Some(burst), true) => self.burst = Some(Burst { last: now, ..burst }),
        }
        self.full |= !self.file.has_room(line.len());
        if !self.full {
            self.file.push(at_ms, stream, line);
        }
    }

    pub fn flush(&mut self) {
        self.file.flush();
    }

    fn goes_on(&self, burst: Burst, now: Moment) -> bool {
        let long = if self.full { LONG_WHEN_FULL } else { LONG };
        now.since(burst.last) <= QUIET && now.since(burst.began) <= long
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::ring::Reader;
    use tempfile::TempDir;

    struct Bench {
        dir: TempDir,
        onset: Onset,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let onset = Onset::create(&dir.path().join("onset")).expect("a place for it");
            Self { dir, onset }
        }

        fn say(&mut self, second: f64, line: &str) {
            let now = Moment::default() + Duration::from_secs_f64(second);
            self.onset.line(now, 0, Stream::Err, line.as_bytes());
        }

        fn kept(&mut self) -> Vec<String> {
            self.onset.flush();
            let lines = Reader::open(&self.dir.path().join("onset")).and_then(|reader| reader.last(100_000));
            let lines = lines.expect("it can be read").into_iter();
            lines.map(|line| String::from_utf8_lossy(&line.bytes).into_owned()).collect()
        }
    }

    #[test]
    fn ordinary_lines_are_not_kept_and_those_after_trouble_are() {
        let mut bench = Bench::new();
        bench.say(1.0, "GET /v1/models 200");
        assert_eq!(bench.kept(), Vec::<String>::new());
        bench.say(2.0, "RuntimeError: one");
        bench.say(3.0, "  what follows from it");
        assert_eq!(bench.kept(), ["RuntimeError: one", "  what follows from it"]);
    }

    #[test]
    fn the_first_lines_of_a_flood_stay_and_nothing_that_comes_behind_them_costs_more() {
        let mut bench = Bench::new();
        bench.say(1.0, "the root: a fatal thing");
        for n in 0..40_000 {
            bench.say(1.0 + f64::from(n) / 1e4, "ERROR [serving.py:9]   File \"/v/x.py\", line 1, in f");
        }
        let kept = bench.kept();
        assert_eq!(kept[0], "the root: a fatal thing");
        assert!((2_000..10_000).contains(&kept.len()), "{} lines", kept.len());
        let size = std::fs::metadata(bench.dir.path().join("onset")).expect("a file").len();
        assert!(size <= ONSET_LEN, "{size} bytes");
    }

    #[test]
    fn the_next_burst_takes_the_place_of_the_one_before() {
        let mut bench = Bench::new();
        bench.say(1.0, "error of a client");
        bench.say(7.0, "all is well");
        bench.say(8.0, "the end: CUDA error");
        assert_eq!(bench.kept(), ["the end: CUDA error"]);
    }

    #[test]
    fn one_that_complains_all_day_has_its_last_half_minute_kept() {
        let mut bench = Bench::new();
        for second in 0..1_000 {
            bench.say(f64::from(second), &format!("error {second}"));
        }
        let kept = bench.kept();
        assert_eq!(kept.last().map(String::as_str), Some("error 999"));
        assert!(kept.len() <= 31, "{kept:?}");
    }
}

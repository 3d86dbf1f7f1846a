//! The knobs, and what the threads of the fake engine share.
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// All default to a healthy, quick engine. Times are in seconds unless the name says `_ms`; an index of a token counts
/// from 0, so that 0 means "before the first".
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Knobs {
    // What it does at its start.
    /// Lines for standard output, and for standard error.
    pub print: Vec<String>,
    pub print_err: Vec<String>,
    /// Text without a line end, on standard output, after all else.
    pub partial: String,
    /// Says its arguments and its whole environment, on both.
    pub confess: bool,
    /// After what it prints, this many lines of a traceback on standard error.
    pub frames: u32,
    /// This many lines of 1 MiB.
    pub long_lines: u32,
    /// This many repaints of a progress bar, and its end.
    pub repaints: u32,
    pub invalid_utf8: bool,
    /// Resident memory to take, in MiB.
    pub alloc_mib: usize,
    /// Files in /dev/shm to have open as long as it runs, and to leave there. Made where they do not exist.
    pub shm_files: Vec<String>,
    /// A grandchild in a session of its own, by a double fork, that ignores TERM and lives on.
    pub double_fork: bool,
    /// The same, with an empty environment too.
    pub double_fork_bare: bool,
    /// A grandchild that keeps standard output and error open and lives on.
    pub hold_pipe: bool,
    /// Children with these command names, in its session, with an empty environment.
    pub workers: Vec<String>,
    /// A Unix socket to whose listener the TCP listener is handed over, for somebody else to hold.
    pub hand_listener: String,
    /// Nobody listens before that: connections are refused, as vLLM does it.
    pub bind_after: f64,

    /// Writes this line every `repeat_ms` (0 is 20), with a time and a count in front, until it is ready.
    pub repeat: String,
    pub repeat_ms: u64,
    /// Uses a whole core until it is ready.
    pub spin: bool,

    // How it ends.
    /// Exits with this code …
    pub exit_code: Option<i32>,
    /// … or sends this signal to itself …
    pub exit_signal: Option<i32>,
    /// … this long after its start, or after the knob was turned.
    pub exit_after: f64,
    pub ignore_term: bool,
    /// Takes so long from TERM to its exit.
    pub term_after: f64,

    // How it answers.
    /// /health says 503 before that.
    pub ready_after: f64,
    pub never_ready: bool,
    pub health_status: u16,
    pub health_ms: u64,
    /// Connections are accepted, and nothing is ever answered: a stopped process.
    pub hang: bool,
    /// No token is made any more, while /health stays good: a hung device.
    pub freeze: bool,
    /// Status of completions, 0 is 200; with it the body (default: an error in OpenAI's form) and Retry-After.
    pub status: u16,
    pub error_body: String,
    /// Only requests that hold this text get that status (default: 500).
    pub fail_on: String,
    /// A request that holds this text ends the engine, with status 1.
    pub die_on: String,
    pub retry_after: String,
    /// Tokens of an answer, unless the request's max_tokens are fewer; 0 is 8.
    pub tokens: u32,
    pub token_ms: u64,
    pub first_token_ms: u64,
    /// Before this token a stream says an error and then ends as if all were well: vLLM's dead core.
    pub error_at: Option<u32>,
    /// Before this token the connection is closed without an end.
    pub cut_at: Option<u32>,
    /// Before this token the connection is reset.
    pub reset_at: Option<u32>,
    /// Before this token it falls silent for ever.
    pub silent_at: Option<u32>,
    /// Streams end with `[DONE]`, and whole answers too, but without a finish_reason.
    pub no_finish: bool,

    // While it runs.
    /// Writes to standard output as fast as it goes.
    pub flood: bool,
}

/// What every thread sees.
pub struct Shared {
    pub model: String,
    started: Instant,
    knobs: Mutex<(Knobs, Instant)>,
    pub prompt_tokens: AtomicU64,
    pub generated_tokens: AtomicU64,
    pub running: AtomicU64,
    pub answered: AtomicU64,
    pub flooded_bytes: AtomicU64,
}

impl Shared {
    pub fn new(model: String) -> Self {
        let now = now();
        Self {
            model,
            started: now,
            knobs: Mutex::new((Knobs::default(), now)),
            prompt_tokens: AtomicU64::new(0),
            generated_tokens: AtomicU64::new(0),
            running: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            flooded_bytes: AtomicU64::new(0),
        }
    }

    pub fn knobs(&self) -> Knobs {
        self.knobs.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Seconds since the start.
    pub fn age(&self) -> f64 {
        now().duration_since(self.started).as_secs_f64()
    }

    /// Seconds since a knob was last turned, or since the start.
    pub fn since_change(&self) -> f64 {
        let changed = self.knobs.lock().unwrap_or_else(PoisonError::into_inner).1;
        now().duration_since(changed).as_secs_f64()
    }

    /// `KNOB=VALUE`, where the value is JSON, or else a string.
    pub fn change_one(&self, assignment: &str) -> Result<(), String> {
        let (knob, value) = assignment.split_once('=').unwrap_or((assignment, "true"));
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        self.change(Map::from_iter([(knob.to_owned(), value)]))
    }

    pub fn change_from_json(&self, json: &[u8]) -> Result<(), String> {
        self.change(serde_json::from_slice(json).map_err(|e| e.to_string())?)
    }

    fn change(&self, changes: Map<String, Value>) -> Result<(), String> {
        let mut knobs = self.knobs.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(Value::Object(mut all)) = serde_json::to_value(&knobs.0) else {
            return Err("knobs are an object".into());
        };
        all.extend(changes);
        *knobs = (serde_json::from_value(Value::Object(all)).map_err(|e| e.to_string())?, now());
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "the fake engine is a program of its own, with its own clock")]
fn now() -> Instant {
    Instant::now()
}

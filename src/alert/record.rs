//! One incident as it is kept and shown: the JSON of its file, of `mainstay incident` and of what mail is made from.
//!
//! Fields are only added, never renamed: a later agent reads what an earlier one wrote, and ignores what it does not
//! know. What is not known is `null`.
use serde::{Deserialize, Serialize};

/// The value of [`Record::schema`]; it changes only when a name in here loses its meaning.
pub const SCHEMA: u32 = 1;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    pub schema: u32,
    /// Never given out twice on a host.
    pub id: u64,
    pub host: String,
    /// The tier that failed.
    pub tier: String,
    /// "vllm", "ollama", "llama-server", "remote".
    pub engine: String,
    pub model: String,
    /// What it came to: "failure", "gpu", "failover", "held", "all-down".
    pub kind: String,
    /// RFC 3339, milliseconds, UTC; so are all times in here.
    pub opened: String,
    /// `None` while it goes on.
    pub closed: Option<String>,
    pub lasted_s: Option<f64>,
    /// The tier that serves instead; `None` where serving did not move, or nothing answers.
    pub to: Option<String>,
    /// A name of the closed list (contract "Causes").
    pub cause: String,
    /// The log line, or what else the cause was read from.
    pub evidence: Option<String>,
    /// The same start will fail the same way; `None` when nobody can tell.
    pub deterministic: Option<bool>,
    /// What an operator can do about it.
    pub advice: Option<String>,
    pub run: Option<u64>,
    pub code: Option<i32>,
    /// "SIGKILL".
    pub signal: Option<String>,
    /// What mainstay did last about it, and does next: "restart in 4 s", "held; next try in 15 min".
    pub action: Option<String>,
    pub timeline: Vec<Line>,
    /// Lines that were left out in the middle.
    pub timeline_skipped: u64,
    pub clients: Felt,
    /// How all tiers stood when this was last written, best first.
    pub tiers: Vec<Standing>,
    pub scene: Scene,
    pub mail: Mail,
}

/// How a tier stood.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    pub name: String,
    /// "serves", or its health, and the state of its engine where that is not plain "ready": "down, backoff".
    pub state: String,
    /// For people: "answered in 12 ms", "connection refused", …
    pub reason: String,
}

/// One thing that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Line {
    pub at: String,
    /// The number of its event.
    pub seq: u64,
    /// The event's kind: "exit", "failover", "starting", …
    pub kind: String,
    pub text: String,
}

/// What clients noticed while it lasted, and just before: requests. The first two are of the tier that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Felt {
    /// Went on to another tier, unseen.
    pub moved: u64,
    /// Ended in the middle of an answer.
    pub cut: u64,
    /// Answered by a tier that promises less, and marked so.
    pub weakened: u64,
    /// Got an error of ours: no tier could answer.
    pub refused: u64,
}

/// What the engine said last, and how the machine was at that moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scene {
    pub at: Option<String>,
    pub last_lines: Vec<String>,
    pub memory_total: Option<u64>,
    pub memory_available: Option<u64>,
    pub swap_used: Option<u64>,
    /// Mean number of runnable processes over the last minute.
    pub load: Option<f64>,
    pub shm_total: Option<u64>,
    pub shm_free: Option<u64>,
    /// Of the file system that holds the state directory.
    pub disk_free: Option<u64>,
    /// Most memory first.
    pub processes: Vec<Process>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    pub pid: u32,
    pub name: String,
    pub rss: u64,
}

/// How far the operator has been told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mail {
    /// What it came to that was mailed, or waits for the digest.
    pub told: Vec<String>,
    /// A mail of its own, or a digest, has told of it.
    pub mailed: bool,
    /// It waits for the digest.
    pub waiting: bool,
    /// When the last mail went out that told of it, other than its end.
    pub at: Option<String>,
    /// The Message-ID that the answer refers to.
    pub message_id: Option<String>,
}

impl Record {
    /// Lines of the timeline that are kept: the first ones, which tell how it began, and the last ones.
    pub const FIRST_LINES: usize = 60;
    const LAST_LINES: usize = 140;

    /// Of a tier whose process, log and model are another server's.
    pub fn is_of_remote(&self) -> bool {
        self.engine == "remote"
    }

    pub fn is_open(&self) -> bool {
        self.closed.is_none()
    }

    /// Adds a line; a long timeline loses its middle.
    pub fn note(&mut self, line: Line) {
        self.timeline.push(line);
        if self.timeline.len() > Self::FIRST_LINES + Self::LAST_LINES {
            self.timeline.remove(Self::FIRST_LINES);
            self.timeline_skipped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_timeline_keeps_its_beginning_and_its_end() {
        let mut record = Record::default();
        for seq in 1..=1_000 {
            record.note(Line { seq, ..Line::default() });
        }
        let kept: Vec<u64> = record.timeline.iter().map(|line| line.seq).collect();
        assert_eq!((kept.len(), record.timeline_skipped), (200, 800));
        assert_eq!((kept[0], kept[59], kept[60], kept[199]), (1, 60, 861, 1_000));
    }

    #[test]
    fn a_record_of_another_version_is_read() {
        let old: Record = serde_json::from_str(r#"{"id": 7, "later": {"added": 1}}"#).expect("a record");
        assert_eq!((old.id, old.is_open(), old.tier.as_str()), (7, true, ""));
    }
}

//! What agent and shim say to each other: one JSON object a line over a Unix stream socket, and the spec that a shim
//! reads from its standard input. Both sides ignore fields and messages that they do not know.
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Raised when a message changes its meaning; a new field or message does not raise it.
pub const PROTO: u32 = 1;

/// The files of a run, in its own directory.
pub const SOCKET: &str = "shim.sock";
pub const LOG: &str = "log";
/// How the last trouble in the log began, in the log's own format.
pub const ONSET: &str = "onset";
/// Device and inode of each file in /dev/shm that was seen in the run's hands, a line each.
pub const SHM_FILES: &str = "shm";
pub const RECORD: &str = "exit.json";
/// The file by whose lock the run's shim is known to live.
pub const LOCK: &str = "lock";
/// The engine's TMPDIR where the spec names none.
pub const TMP: &str = "tmp";

/// Names the descriptor of the lifeline's read end in the shim's own environment.
pub(super) const LIFELINE_VAR: &str = "MAINSTAY_LIFELINE";
/// Names the descriptor of the run's lock there.
pub(super) const LOCK_VAR: &str = "MAINSTAY_LOCK";
/// Marks every process of a run in /proc/*/environ.
pub(super) const RUN_VAR: &str = "MAINSTAY_RUN";

/// The longest line that either side takes from the other, in bytes. Our own are far shorter.
pub(super) const MESSAGE_MAX: usize = 64 * 1024;

/// Everything that a shim needs to know. Handed over in a memfd, never in argv, because `env` holds secrets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub proto: u32,
    /// Name of the tier, for people.
    pub tier: String,
    /// The run's number.
    pub run: u64,
    /// Unlike any other run's; every process of the run carries it as `MAINSTAY_RUN`.
    pub nonce: String,
    pub boot_id: String,
    /// Program and arguments. A program without a slash is looked up in the `PATH` of `env`.
    pub argv: Vec<String>,
    /// The complete environment. The shim adds `MAINSTAY_RUN`, adds `TMPDIR` where it is absent, and takes out what
    /// systemd meant for the agent alone.
    pub env: BTreeMap<String, String>,
    /// Working directory; absent: the agent's.
    #[serde(default)]
    pub dir: Option<PathBuf>,
    /// The run's own directory; made when it is not there. Holds [`LOCK`], [`SOCKET`], [`LOG`], [`RECORD`] and [`TMP`]. Its path
    /// must leave room for the socket's name in 107 bytes.
    pub run_dir: PathBuf,
    /// The engine's TMPDIR, deleted when the run has ended: a directory that is there. Absent: [`TMP`], made by the shim.
    #[serde(default)]
    pub tmp: Option<PathBuf>,
    /// cgroup v2 directory to make for the engine alone. Where that is not possible the run goes on without one.
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
    /// Where the engine listens: it must be free of the engine's listener before the run has ended.
    #[serde(default)]
    pub port: Option<u16>,
    /// Values that must not be seen in anything that the shim writes or says.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Where the engine's lines go too, in journald's own protocol: its datagram socket. Absent: nowhere.
    #[serde(default)]
    pub journal: Option<PathBuf>,
    #[serde(default)]
    pub nice: i32,
    #[serde(default)]
    pub oom_score_adj: i32,
    /// From TERM to KILL when nobody is left to ask: the lifeline closed, or the shim itself was sent TERM.
    pub stop_grace_ms: u64,
    /// From the first KILL until what is still there is reported as left.
    pub reap_deadline_ms: u64,
}

impl Spec {
    /// The engine's TMPDIR.
    pub fn tmp(&self) -> PathBuf {
        self.tmp.clone().unwrap_or_else(|| self.run_dir.join(TMP))
    }
}

/// Shows the program and the names of the environment only: arguments and values may be secrets.
impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spec")
            .field("tier", &self.tier)
            .field("run", &self.run)
            .field("nonce", &self.nonce)
            .field("program", &self.argv.first())
            .field("env", &self.env.keys())
            .field("run_dir", &self.run_dir)
            .finish_non_exhaustive()
    }
}

/// The shim's side. A client that connects late is told, in this order, everything that still holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromShim {
    /// Always the first message.
    Hello(Hello),
    /// The engine's main process exists.
    Started { pid: u32 },
    /// It could not be started, and no process of it exists. The last message of such a run.
    StartFailed { errno: i32, message: String },
    /// Output so far, in all. At most once a second, while it flows.
    Activity { lines: u64, bytes: u64 },
    /// The main process is reaped, and `exit.json` written. The rest of the tree may still live.
    Exited(Exited),
    /// Nothing of the run is left; or, with pids, these withstood KILL for the whole reap deadline. The shim goes on
    /// trying and says so again whenever the list changes.
    Ended { left: Vec<u32> },
    /// The answer to [`ToShim::Ping`].
    Pong,
    /// A message of a later version.
    #[serde(other)]
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub proto: u32,
    pub run: u64,
    pub nonce: String,
    pub boot_id: String,
    pub shim_pid: u32,
    /// It answers a [`ToShim::Ping`]; one that cannot is not judged by its silence.
    #[serde(default)]
    pub pongs: bool,
    /// The engine's main process; absent when it could not be started.
    #[serde(default)]
    pub pid: Option<u32>,
}

/// How the main process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// The wait status as the kernel gave it.
    pub raw: i32,
    /// One of the two is present.
    #[serde(default)]
    pub code: Option<i32>,
    #[serde(default)]
    pub signal: Option<i32>,
    /// Who had asked for the end before it came; absent: nobody.
    #[serde(default)]
    pub asked: Option<Asked>,
    /// Wall clock, milliseconds since 1970.
    pub at_ms: i64,
}

/// Who wanted a run to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// A message on the socket.
    Client,
    /// Every holder of the lifeline's write end is gone.
    Lifeline,
    /// The shim itself was sent TERM.
    Signal,
    /// Somebody whom this version does not know.
    #[serde(other)]
    Other,
}

/// The agent's side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToShim {
    /// TERM to the main process alone; `grace_ms` later KILL to the tree. Asked again, it can only shorten the grace.
    Term { grace_ms: u64 },
    /// KILL to the tree.
    Kill,
    /// KILL to the descendants of the main process whose command name (`comm`, 15 bytes) is one of these; never to the
    /// main process itself.
    KillWorkers { names: Vec<String> },
    /// The end is recorded: the shim may exit. Means nothing before `Ended` or `StartFailed`.
    Release,
    /// Are you there? Answered by [`FromShim::Pong`].
    Ping,
    /// A message of a later version.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What older and newer versions send must go on meaning the same: a shim outlives its agent's upgrade.
    #[test]
    fn messages_keep_their_form() {
        let exited = Exited { raw: 9, code: None, signal: Some(9), asked: Some(Asked::Lifeline), at_ms: 5 };
        let cases = [
            (FromShim::Started { pid: 7 }, r#"{"type":"started","pid":7}"#),
            (FromShim::Activity { lines: 1, bytes: 2 }, r#"{"type":"activity","lines":1,"bytes":2}"#),
            (
                FromShim::Exited(exited),
                r#"{"type":"exited","raw":9,"code":null,"signal":9,"asked":"lifeline","at_ms":5}"#,
            ),
            (FromShim::Ended { left: vec![3] }, r#"{"type":"ended","left":[3]}"#),
            (FromShim::Pong, r#"{"type":"pong"}"#),
        ];
        for (message, json) in cases {
            assert_eq!(serde_json::to_string(&message).unwrap(), json);
            assert_eq!(serde_json::from_str::<FromShim>(json).unwrap(), message);
        }
        let cases = [
            (ToShim::Term { grace_ms: 5 }, r#"{"type":"term","grace_ms":5}"#),
            (ToShim::Kill, r#"{"type":"kill"}"#),
            (ToShim::KillWorkers { names: vec!["a".into()] }, r#"{"type":"kill_workers","names":["a"]}"#),
            (ToShim::Release, r#"{"type":"release"}"#),
            (ToShim::Ping, r#"{"type":"ping"}"#),
        ];
        for (message, json) in cases {
            assert_eq!(serde_json::to_string(&message).unwrap(), json);
            assert_eq!(serde_json::from_str::<ToShim>(json).unwrap(), message);
        }
    }

    #[test]
    fn what_is_not_known_is_ignored() {
        let later = r#"{"type":"ended","left":[],"energy":5}"#;
        assert_eq!(serde_json::from_str::<FromShim>(later).unwrap(), FromShim::Ended { left: vec![] });
        let later = r#"{"type":"hibernate","until":{"x":1}}"#;
        assert_eq!(serde_json::from_str::<ToShim>(later).unwrap(), ToShim::Unknown);
        assert_eq!(serde_json::from_str::<FromShim>(later).unwrap(), FromShim::Unknown);
        assert_eq!(serde_json::from_str::<Asked>(r#""astrologer""#).unwrap(), Asked::Other);
    }

    #[test]
    fn a_spec_does_not_show_its_secrets_and_needs_only_what_it_must() {
        let json = r#"{"proto":1,"tier":"t","run":3,"nonce":"n","boot_id":"b","argv":["x","a-secret"],"run_dir":"/r",
                       "env":{"TOKEN":"a-secret"},"secrets":["a-secret"],"stop_grace_ms":1,"reap_deadline_ms":2,"later":true}"#;
        let spec: Spec = serde_json::from_str(json).unwrap();
        assert_eq!((spec.nice, spec.port, &spec.cgroup), (0, None, &None));
        let shown = format!("{spec:?}");
        assert!(shown.contains("TOKEN") && !shown.contains("a-secret"), "{shown}");
    }
}

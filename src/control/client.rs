//! One question to a running agent, for the command line. It blocks, and always ends: with the answer, or with a
//! [`Failure`] that says what was wrong and what to do.
mod follow;

use super::{CONTROL_SOCKET, STATUS_SOCKET, wire};
use crate::policy::Command;
use crate::printable;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// For the whole exchange; longer than the agent's own limit for an answer, so that its sentence arrives.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const LONGEST_ANSWER: usize = 16 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// No agent answers at this socket.
    NoAgent { socket: PathBuf, why: String },
    /// There is one, and it does not say a word.
    Hung { socket: PathBuf, waited: Duration },
    /// The socket is there, but not for this user.
    NotPermitted { socket: PathBuf },
    /// The agent answered that it will not; its own sentence.
    Refused { status: u16, why: String },
    /// The answer could not be understood.
    Garbled { socket: PathBuf, why: String },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAgent { socket, why } => write!(
                f,
                "no agent answers at {}: {why}; start one (systemctl start mainstay), or name its runtime \
                 directory with --run-dir or MAINSTAY_RUN_DIR",
                socket.display()
            ),
            Self::Hung { socket, waited } => write!(
                f,
                "the agent at {} took the connection and said nothing for {} s: it hangs, or somebody stopped it. Its \
                 watchdog ends it soon; else: systemctl restart mainstay. A command may still be carried out",
                socket.display(),
                waited.as_secs()
            ),
            Self::NotPermitted { socket } => write!(
                f,
                "not permitted to open {}; use the account that the agent runs as, or root",
                socket.display()
            ),
            Self::Refused { why, .. } => f.write_str(why),
            Self::Garbled { socket, why } => {
                write!(
                    f,
                    "what answers at {} is not a mainstay agent, or broke off: {why}; try again, and look whether it runs \
                 (systemctl status mainstay)",
                    socket.display()
                )
            }
        }
    }
}

/// The sockets of one runtime directory.
#[derive(Clone, Debug)]
pub struct Client {
    run_dir: PathBuf,
}

impl Client {
    /// Nothing is opened before something is asked.
    pub fn new(run_dir: &Path) -> Self {
        Self { run_dir: run_dir.to_owned() }
    }

    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// `GET /v1/status`: read, with texts that are safe to show; and as it was sent, so that what a newer agent says beside
    /// it is not lost.
    ///
    /// # Errors
    /// Whatever kept the answer away, or made it unreadable.
    pub fn status(&self) -> Result<(wire::Status, Value), Failure> {
        self.status_within(PATIENCE)
    }

    /// The same, for somebody who has not so long.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub fn status_within(&self, limit: Duration) -> Result<(wire::Status, Value), Failure> {
        let socket = self.run_dir.join(STATUS_SOCKET);
        let limit = limit.min(PATIENCE);
        let text = ask(&socket, Method::GET, "/v1/status", StatusCode::OK, limit)?;
        let whole: Value = read(&socket, &text)?;
        let mut shown = whole.clone();
        printable::value(&mut shown);
        let status = wire::Status::deserialize(shown).map_err(|why| garbled(&socket, &why))?;
        Ok((status, whole))
    }

    /// `GET /v1/events` after `since`: each line as it comes, and `None` in every pause, while `take` says that more are
    /// wanted. Ends with the conversation: at the last kept event, or with `follow` when the agent ends.
    ///
    /// # Errors
    /// Whatever kept the answer away, or broke it off.
    pub fn events(
        &self,
        since: u64,
        follow: bool,
        take: impl FnMut(Option<&str>) -> bool,
    ) -> Result<(), Failure> {
        let path = format!("/v1/events?since={since}&follow={}", u8::from(follow));
        follow::lines(&self.run_dir.join(STATUS_SOCKET), &path, take)
    }

    /// Gives a command to a tier; the event's `seq`.
    ///
    /// # Errors
    /// Whatever kept the answer away; `Refused` with the agent's reason when it will not.
    pub fn operate(&self, tier: &str, command: Command) -> Result<u64, Failure> {
        let word = match command {
            Command::Start => "start",
            Command::Stop => "stop",
            Command::Restart => "restart",
        };
        let socket = self.run_dir.join(CONTROL_SOCKET);
        let path = format!("/v1/tiers/{}/{word}", in_path(tier));
        let text = ask(&socket, Method::POST, &path, StatusCode::ACCEPTED, PATIENCE)?;
        Ok(read::<wire::Accepted>(&socket, &text)?.seq)
    }
}

/// A name as one segment of a path: what is typed may hold anything.
fn in_path(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn read<T: serde::de::DeserializeOwned>(socket: &Path, text: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(text).map_err(|why| garbled(socket, &why))
}

fn garbled(socket: &Path, why: &serde_json::Error) -> Failure {
    Failure::Garbled { socket: socket.to_owned(), why: why.to_string() }
}

fn ask(
    socket: &Path,
    method: Method,
    path: &str,
    expected: StatusCode,
    limit: Duration,
) -> Result<Bytes, Failure> {
    let garbled = |why: String| Failure::Garbled { socket: socket.to_owned(), why };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| garbled(format!("no event loop: {e}")))?;
    let (status, text) = runtime.block_on(async {
        match tokio::time::timeout(limit, exchange(socket, method, path)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Hung { socket: socket.to_owned(), waited: limit }),
        }
    })?;
    if status == expected {
        return Ok(text);
    }
    Err(refusal(status, &text))
}

/// The agent's own sentence, where it gave one.
fn refusal(status: StatusCode, text: &[u8]) -> Failure {
    let why = match serde_json::from_slice::<wire::Problem>(text) {
        Ok(problem) => problem.error.message,
        Err(_) => format!("the agent answered {status}; its log says more (journalctl -u mainstay)"),
    };
    Failure::Refused { status: status.as_u16(), why }
}

async fn exchange(socket: &Path, method: Method, path: &str) -> Result<(StatusCode, Bytes), Failure> {
    let garbled = |why: String| Failure::Garbled { socket: socket.to_owned(), why };
    let stream = UnixStream::connect(socket).await.map_err(|e| not_connected(socket, &e))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|e| garbled(e.to_string()))?;
    let talk = async {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "mainstay")
            .header("connection", "close")
            .body(Empty::<Bytes>::new())
            .map_err(|e| garbled(e.to_string()))?;
        let answer = sender.send_request(request).await.map_err(|e| garbled(e.to_string()))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await;
        Ok((status, body.map_err(|e| garbled(e.to_string()))?.to_bytes()))
    };
    tokio::pin!(talk);
    // The connection has to be driven while the answer is awaited; its own end is not the end of the answer.
    tokio::select! {
        answer = &mut talk => answer,
        _ = connection => talk.await,
    }
}

fn not_connected(socket: &Path, error: &io::Error) -> Failure {
    let socket = socket.to_owned();
    match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::NotPermitted { socket },
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Failure::NoAgent { socket, why: "there is no such socket".to_owned() }
        }
        io::ErrorKind::ConnectionRefused => {
            Failure::NoAgent { socket, why: "nobody listens there any more".to_owned() }
        }
        io::ErrorKind::WouldBlock => {
            Failure::NoAgent { socket, why: "it takes no more connections".to_owned() }
        }
        _ => Failure::NoAgent { socket, why: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_segment_whatever_it_holds() {
        let check = |given: &str, expected: &str| assert_eq!(in_path(given), expected);
        check("gpu-2", "gpu-2");
        check("a/../b", "a%2F..%2Fb");
        check("ü x?", "%C3%BC%20x%3F");
    }

    #[test]
    fn what_the_kernel_says_becomes_a_sentence_and_a_class() {
        let check = |kind: io::ErrorKind, permitted: bool| {
            let failure = not_connected(Path::new("/run/x/status.sock"), &io::Error::from(kind));
            assert_eq!(!matches!(failure, Failure::NotPermitted { .. }), permitted, "{failure:?}");
            assert!(failure.to_string().contains("/run/x/status.sock"), "{failure}");
        };
        check(io::ErrorKind::NotFound, true);
        check(io::ErrorKind::ConnectionRefused, true);
        check(io::ErrorKind::WouldBlock, true);
        check(io::ErrorKind::PermissionDenied, false);
    }
}

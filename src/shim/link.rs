//! The agent's side of a shim's socket, spawned or adopted.
use super::protocol::{FromShim, MESSAGE_MAX, SOCKET, ToShim};
use crate::shortage;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// Between two tries to reach a shim that is just starting.
const RETRY: Duration = Duration::from_millis(10);
/// The same when this host has nothing left to try with.
const SHORT: Duration = Duration::from_secs(1);

/// A connection to one shim.
#[derive(Debug)]
pub struct Link {
    pub from: LinkReader,
    pub to: LinkWriter,
}

#[derive(Debug)]
pub struct LinkReader {
    stream: OwnedReadHalf,
    received: Vec<u8>,
}

#[derive(Debug)]
pub struct LinkWriter {
    stream: OwnedWriteHalf,
}

impl Link {
    /// Connects to the shim of this run directory, trying again for `deadline` while it does not listen yet. A shortage of
    /// this host is waited for as long as it takes: it says nothing about the shim.
    ///
    /// # Errors
    /// `TimedOut` when it did not listen in time; whoever spawned it should watch its pidfd as well.
    pub async fn connect(run_dir: &Path, deadline: Duration) -> io::Result<Self> {
        let path = run_dir.join(SOCKET);
        let connect = async || loop {
            match UnixStream::connect(&path).await {
                Err(e) if is_early(&e) => tokio::time::sleep(RETRY).await,
                answer => return answer,
            }
        };
        let connected = loop {
            match tokio::time::timeout(deadline, connect()).await? {
                Err(why) if shortage::of(&why).is_some() => tokio::time::sleep(SHORT).await,
                answer => break answer?,
            }
        };
        Ok(Self::over(connected))
    }

    /// One try, whatever stands against it.
    pub async fn try_connect(run_dir: &Path) -> io::Result<Self> {
        UnixStream::connect(run_dir.join(SOCKET)).await.map(Self::over)
    }

    fn over(stream: UnixStream) -> Self {
        let (from, to) = stream.into_split();
        Self { from: LinkReader { stream: from, received: Vec::new() }, to: LinkWriter { stream: to } }
    }

    /// See [`LinkReader::recv`].
    pub async fn recv(&mut self) -> io::Result<FromShim> {
        self.from.recv().await
    }

    /// See [`LinkWriter::send`].
    pub async fn send(&mut self, message: &ToShim) -> io::Result<()> {
        self.to.send(message).await
    }
}

impl LinkReader {
    /// The next message. The first is always `Hello`, then comes everything that still holds. May be dropped and called
    /// again at any time (in a `select!`) without losing anything.
    ///
    /// # Errors
    /// `UnexpectedEof` when the shim is gone, or has dropped us because we did not read; `InvalidData` when it is no shim.
    pub async fn recv(&mut self) -> io::Result<FromShim> {
        loop {
            if let Some(end) = self.received.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return serde_json::from_slice(&line).map_err(io::Error::from);
            }
            if self.received.len() > MESSAGE_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a message without end"));
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl LinkWriter {
    /// Sends one message. Not to be dropped half way: the rest of the line would be missing.
    pub async fn send(&mut self, message: &ToShim) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.stream.write_all(&line).await
    }
}

/// The shim has not come so far as to listen.
fn is_early(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use std::process::Command;

    /// Set in the process of its own that the test runs in: a limit is the whole process's.
    const ALONE: &str = "MAINSTAY_TEST_ALONE";

    #[test]
    fn a_shim_is_not_given_up_for_want_of_a_descriptor() {
        if std::env::var_os(ALONE).is_none() {
            let mut child = Command::new(std::env::current_exe().unwrap());
            let name = "shim::link::tests::a_shim_is_not_given_up_for_want_of_a_descriptor";
            let output = child.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let _shim = std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let limit = getrlimit(Resource::Nofile);
        let connected = runtime.block_on(async {
            setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..limit }).unwrap();
            let link = Link::connect(dir.path(), Duration::from_millis(10));
            let more = async {
                // It has been tried in vain by now.
                tokio::task::yield_now().await;
                setrlimit(Resource::Nofile, limit).unwrap();
            };
            tokio::join!(link, more).0
        });
        assert!(connected.is_ok(), "{connected:?}");
    }
}

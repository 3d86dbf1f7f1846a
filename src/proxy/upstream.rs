//! Connections to upstreams: opening, a small pool of idle ones per run, and what each has written and read.
use super::descriptors::IDLE_COUNT;
use super::fate::Fate;
use super::guard;
use super::lost::Lost;
use super::outgoing::Outgoing;
use crate::policy::Moment;
use crate::{clock, descriptors, shortage};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// How long a connection that was used before may take to be ready for another request. One that is has nothing to do.
const READY: Duration = Duration::from_millis(100);
/// vLLM and llama-server close an idle connection after 5 s; one that is nearly as old is not worth the race.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// Where a tier is reached, over plain HTTP/1.1.
#[derive(Clone, PartialEq, Eq)]
pub struct Upstream {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    pub port: u16,
    /// Comes before every path: empty, or begins with a slash and does not end with one.
    pub base_path: String,
    /// Sent as `Authorization: Bearer`.
    pub api_key: Option<String>,
}

impl Upstream {
    /// Without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.authority(), self.base_path)
    }

    /// The address as it stands in a URL and in `Host`.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Upstream {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({})", self.url())
    }
}

/// What went over one connection.
#[derive(Debug, Default)]
pub(super) struct Wire {
    read: AtomicU64,
    last_write: AtomicU64,
}

impl Wire {
    /// When the last byte was written.
    pub fn last_write(&self) -> Moment {
        Moment::from_nanos(self.last_write.load(Relaxed))
    }
}

/// A connection that can take a request. Dropped, it is closed at once, whatever is in flight on it.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Outgoing>,
    pub wire: Arc<Wire>,
    task: AbortHandle,
    reused: bool,
    read_before: u64,
    idle_since: Moment,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    /// Opens one within `limit`. It is closed when its run is cut.
    pub async fn open(to: &Upstream, fate: watch::Receiver<Fate>, limit: Duration) -> Result<Self, Lost> {
        let opened = tokio::time::timeout(limit, connect(to)).await;
        let stream = opened.map_err(|_| Lost::ConnectTimeout)??;
        let wire = Arc::new(Wire::default());
        let socket = Socket { stream, wire: wire.clone() };
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(super::limits::HEAD_BYTES)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(|e| Lost::Unreachable(e.to_string()))?;
        let task = tokio::spawn(guard::connection(async move {
            tokio::select! {
                _ = connection => {}
                () = cut(fate) => {}
            }
        }));
        let task = task.abort_handle();
        Ok(Self { sender, wire, task, reused: false, read_before: 0, idle_since: Moment::default() })
    }

    /// Sends `request` and waits for the head of its answer.
    pub async fn send(&mut self, request: Request<Outgoing>) -> Result<Response<Incoming>, Lost> {
        if self.reused {
            // An answer that came before its request was read to the end leaves a connection that still writes. Whoever
            // would take such a one waits for nothing that he can see.
            match tokio::time::timeout(READY, self.sender.ready()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(self.ended()),
                Err(_) => return Err(Lost::Stale),
            }
        } else if self.sender.ready().await.is_err() {
            return Err(self.ended());
        }
        self.sender
            .send_request(request)
            .await
            .map_err(|e| if e.is_parse() { Lost::Malformed(e.to_string()) } else { self.ended() })
    }

    /// What the end of this connection before an answer means.
    fn ended(&self) -> Lost {
        let silent = self.wire.read.load(Relaxed) == self.read_before;
        if self.reused && silent { Lost::Stale } else { Lost::Reset }
    }
}

/// Resolves when the run's connections are to be closed.
async fn cut(mut fate: watch::Receiver<Fate>) {
    // An error is the end of the `Live`: its pool is gone, and nobody holds a connection of it.
    let _ = fate.wait_for(|fate| fate.cut).await;
}

async fn connect(to: &Upstream) -> Result<TcpStream, Lost> {
    let found = tokio::net::lookup_host((to.host.as_str(), to.port)).await.map_err(|e| {
        if shortage::of(&e).or_else(descriptors::used_up).is_some() {
            Lost::Shortage(e.to_string())
        } else {
            Lost::Unreachable(e.to_string())
        }
    })?;
    let mut failed = None;
    for address in found {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Without it a request that is written in two pieces waits for an acknowledgement.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => failed = Some(Lost::Refused),
            Err(e) if shortage::of_a_connect(&e, address.is_ipv4()).is_some() => {
                // What another of its addresses said about the tier itself counts more.
                failed.get_or_insert(Lost::Shortage(e.to_string()));
            }
            Err(e) => failed = Some(Lost::Unreachable(e.to_string())),
        }
    }
    Err(failed.unwrap_or_else(|| Lost::Unreachable("the name has no address".into())))
}

/// Idle connections of one run.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Vec<Connection>>);

impl Pool {
    /// The connection that was used last, when it may still be open.
    pub fn take(&self) -> Option<Connection> {
        let mut idle = self.lock();
        let now = clock::now();
        while let Some(mut connection) = idle.pop() {
            if now.since(connection.idle_since) < IDLE_MAX && !connection.sender.is_closed() {
                connection.reused = true;
                connection.read_before = connection.wire.read.load(Relaxed);
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose last answer was read to its end.
    pub fn put(&self, mut connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        let now = clock::now();
        connection.idle_since = now;
        let mut idle = self.lock();
        idle.retain(|other| now.since(other.idle_since) < IDLE_MAX && !other.sender.is_closed());
        if idle.len() < *IDLE_COUNT {
            idle.push(connection);
        }
    }

    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        // A panic while it was held cannot have left the list half changed.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A socket that notes when bytes move.
struct Socket {
    stream: TcpStream,
    wire: Arc<Wire>,
}

impl Socket {
    fn wrote(&self, written: &io::Result<usize>) {
        if written.is_ok() {
            self.wire.last_write.store(clock::now().as_nanos(), Relaxed);
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        let read = into.filled().len() - before;
        if read > 0 {
            self.wire.read.fetch_add(read as u64, Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, data));
        self.wrote(&written);
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, data));
        self.wrote(&written);
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

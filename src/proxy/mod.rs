//! The data plane: accept → plan → attempt → relay → outcome.
//!
//! It runs on threads of its own and borrows an immutable [`RouteTable`] for each request; what it shares with the
//! control plane beside that is one [`Live`] per tier and run. `exchange` is the heart of it, and pure: one request
//! as a machine. Around it: `accept` and `service` bring a client's request to it, `driver` joins it to sockets and
//! clocks, `attempt` and `upstream` are one tier at work, `answer` reads what an engine says.
//!
//! What always holds: a client gets at most one answer and no byte of it twice; a request goes to each tier at most
//! once (and once more where a reused connection was stale, and after a reset, 500, 502 or 504); a stream that was cut
//! never ends like a whole one; a client that hangs up ends its upstream request; nothing is read from an engine that its
//! client does not take.
mod accept;
mod answer;
mod attempt;
mod body;
mod budget;
mod caller;
mod client;
mod cors;
mod descriptors;
mod driver;
mod exchange;
mod fate;
mod fingerprint;
mod footprint;
mod guard;
mod headers;
mod heavy;
mod history;
mod intake;
mod level;
mod limits;
mod live;
mod lost;
mod marks;
mod memory;
mod metrics;
mod numerals;
mod origin;
mod outgoing;
mod overload;
mod pace;
mod passthrough;
mod peer;
mod pings;
mod places;
mod plan;
mod refusals;
mod reply;
mod route;
mod service;
mod shared;
mod stream;
mod suspects;
mod terms;
mod times;
mod totals;
mod upload;
mod upstream;
mod veil;
mod weight;
mod wording;

pub use guard::in_connection;
pub use limits::{BODY_STALL, HELD_ANSWER_BYTES, Limits};
pub use live::Live;
pub use metrics::{Metrics, MetricsSource};
pub use refusals::{Code, Refusals};
pub use route::{RouteTable, TierRoute};
pub use shared::Report;
pub use times::{Failovers, Histogram};
pub use totals::{Tally, Totals};
pub use upstream::Upstream;

use self::caller::Caller;
use self::client::ClientSocket;
use self::descriptors::Shares;
use self::heavy::Heavy;
use self::places::Places;
use self::shared::Shared;
use crate::clock;
use crate::heart::Heart;
use crate::policy::{InstanceId, TierId};
use crate::redact::Redactor;
use crate::threads;
use arc_swap::ArcSwap;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Relaying tokens is light work; more threads than these only cost memory.
const WORKERS: std::ops::RangeInclusive<usize> = 2..=4;
/// Longest time for the request that proves that the proxy turns.
const DRIVE_TIME: Duration = Duration::from_secs(5);
/// What of it may be on its way where there is no socket for it.
const DRIVE_BYTES: usize = 4096;
/// Edges for failover times: 64 µs to 34 s.
const FAILOVER_TIMES: std::ops::RangeInclusive<u32> = 6..=25;

/// The running data plane. Dropped, it ends at once: open answers are cut.
#[derive(Debug)]
pub struct Proxy {
    /// Taken only by `drop`.
    runtime: Option<Runtime>,
    shared: Arc<Shared>,
    places: Arc<Places>,
    stop: watch::Sender<bool>,
    driving: Arc<AtomicBool>,
}

/// Starts the threads of the mainstay `instance`; clients are served from [`Proxy::accept`] on. `reports` is the way back to
/// the agent's loop; it is never waited for. `metrics` answers `GET /metrics`; `redactor` knows what no client may be shown
/// of an upstream's words.
pub fn start(
    instance: InstanceId,
    limits: Limits,
    routes: Arc<ArcSwap<RouteTable>>,
    reports: mpsc::Sender<Report>,
    metrics: Metrics,
    redactor: Arc<Redactor>,
) -> io::Result<Proxy> {
    footprint::keep_little();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(*WORKERS.start(), *WORKERS.end()))
        // For name resolution of remote tiers.
        .max_blocking_threads(4)
        .thread_keep_alive(threads::FOR_EVER)
        .thread_name("proxy")
        .enable_all()
        .build()?;
    threads::keep_one(runtime.handle());
    let Shares { clients, turned_away } = Shares::here(limits.tiers);
    if clients < limits.max_connections {
        let (configured, limit) = (limits.max_connections, crate::descriptors::limit());
        tracing::warn!(
            clients,
            configured,
            limit,
            "the limit of open files (LimitNOFILE= of the unit) leaves room for fewer clients than server.max_connections"
        );
    }
    let places =
        Places::new(clients.min(limits.max_connections), limits.max_connections_per_client, turned_away);
    let shared = Shared::new(instance, limits, Heavy::start()?, routes, reports, metrics, redactor);
    runtime.spawn(footprint::watch(shared.clone()));
    let (stop, _) = watch::channel(false);
    Ok(Proxy { runtime: Some(runtime), shared, places, stop, driving: Arc::default() })
}

impl Proxy {
    /// Serves clients at these listeners. There must be a route table by now: what is asked at an empty one is refused.
    pub fn accept(&self, listeners: Vec<TcpListener>) -> io::Result<()> {
        let Some(runtime) = &self.runtime else { return Ok(()) };
        let _here = runtime.enter();
        for listener in listeners {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let (shared, places) = (self.shared.clone(), self.places.clone());
            tokio::spawn(accept::accept(listener, shared, places, self.stop.subscribe()));
        }
        Ok(())
    }

    /// Beats after every completed request.
    pub fn heart(&self) -> Arc<Heart> {
        self.shared.heart.clone()
    }

    /// Drives one `GET /health` through the code that serves clients, over a socketpair and outside all limits. Does
    /// not wait for it: the heart beats when it was answered, and the task that is given back ends. Does nothing while
    /// the one before is on its way.
    pub fn drive(&self) -> Option<JoinHandle<()>> {
        let runtime = self.runtime.as_ref()?;
        if self.driving.swap(true, Relaxed) {
            return None;
        }
        let (shared, driving) = (self.shared.clone(), self.driving.clone());
        Some(runtime.spawn(async move {
            // An error or a lack of time shows in the heart.
            let _ = tokio::time::timeout(DRIVE_TIME, drive(shared)).await;
            driving.store(false, Relaxed);
        }))
    }

    /// Closes the listeners, and idle connections with them. Requests that have begun go on.
    pub fn stop_accepting(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until no request is open.
    pub async fn idle(&self) {
        // It fails when the sender is gone, which is held here.
        let _ = self.shared.open.subscribe().wait_for(|open| *open == 0).await;
    }

    /// How long failovers took so far.
    pub fn failovers(&self) -> Failovers {
        self.shared.failovers.snapshot()
    }

    /// The same as a histogram.
    pub fn failover_times(&self) -> Histogram {
        self.shared.failovers.histogram(FAILOVER_TIMES)
    }

    /// Errors of our own so far. Answers to `/health` are none.
    pub fn refusals(&self) -> Refusals {
        self.shared.refusals.snapshot()
    }

    /// The engine behind `live`, of this tier, died and nobody asked it to. How many of the requests that were there have
    /// been at two deaths now, and are refused from now on?
    pub fn died(&self, tier: TierId, live: &Live) -> usize {
        let now = clock::now();
        self.shared.suspects().died(tier, live.at_death(now), now)
    }

    /// Panics in connections' tasks so far, in this process. Each ended one connection.
    pub fn panics(&self) -> u64 {
        guard::panics()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting here would panic where the agent's own runtime drops us.
            runtime.shutdown_background();
        }
    }
}

async fn drive(shared: Arc<Shared>) -> io::Result<()> {
    match UnixStream::pair() {
        Ok((ours, theirs)) => ask_ourselves(shared, ours, theirs).await,
        // The agent must not be restarted because it has no descriptor to prove that it turns: memory will do.
        Err(_) => {
            let (ours, theirs) = tokio::io::duplex(DRIVE_BYTES);
            ask_ourselves(shared, ours, theirs).await
        }
    }
}

async fn ask_ourselves<S>(shared: Arc<Shared>, mut ours: S, theirs: S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // The proxy has to prove that it turns while it drains, too: this connection is told to end only by our end of it.
    let (_held, stop) = watch::channel(false);
    let caller = Caller::ourselves(shared);
    let socket = ClientSocket::new(theirs, caller.clone(), DRIVE_TIME);
    tokio::spawn(guard::connection(accept::serve(socket, caller, stop)));
    ours.write_all(b"GET /health HTTP/1.1\r\nHost: mainstay\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    ours.read_to_end(&mut answer).await?;
    Ok(())
}

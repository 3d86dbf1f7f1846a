//! What every request of one proxy uses.
use super::budget::Budget;
use super::heavy::Heavy;
use super::level::Level;
use super::limits::Limits;
use super::memory::Pool;
use super::metrics::Metrics;
use super::pace::Pace;
use super::refusals::RefusalCounts;
use super::route::RouteTable;
use super::suspects::Suspects;
use super::times::Times;
use crate::clock;
use crate::heart::Heart;
use crate::policy::{InstanceId, Moment, Retry, RunId, TierId};
use crate::redact::Redactor;
use arc_swap::ArcSwap;
use http::HeaderValue;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// An outage refuses every request: the log gets one a second with its reasons, and how many others there were.
const REFUSALS_LOGGED_EVERY: Duration = Duration::from_secs(1);

/// News for the agent. Sent without waiting: when the agent does not keep up they are dropped, and the next request
/// brings them again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A request found nobody listening then.
    Refused { tier: TierId, run: Option<RunId>, at: Moment },
    /// The upstream refuses the model name, path or key that we are configured to use. `evidence`: its own words.
    Misconfigured { tier: TierId, run: Option<RunId>, evidence: String },
}

#[derive(Debug)]
pub(super) struct Shared {
    /// This process, among mainstays.
    pub instance: InstanceId,
    pub limits: Limits,
    pub routes: Arc<ArcSwap<RouteTable>>,
    pub reports: mpsc::Sender<Report>,
    pub heart: Arc<Heart>,
    pub metrics: Metrics,
    /// For what upstreams say, before a client gets it.
    pub redactor: Arc<Redactor>,
    /// Of the log's lines about requests that no tier answered.
    pub refused: Pace,
    pub failovers: Times,
    pub refusals: RefusalCounts,
    pub budget: Arc<Budget>,
    /// What clients' connections take.
    pub connections: Level,
    /// For what answers hold back.
    pub held_answers: Arc<Pool>,
    /// Requests whose answer is not finished.
    pub open: watch::Sender<usize>,
    suspects: Mutex<Suspects>,
    /// For fingerprints, so that nobody outside can make two of one.
    pub keys: RandomState,
    names: RandomState,
    named: AtomicU64,
}

impl Shared {
    pub fn new(
        instance: InstanceId,
        limits: Limits,
        heavy: Heavy,
        routes: Arc<ArcSwap<RouteTable>>,
        reports: mpsc::Sender<Report>,
        metrics: Metrics,
        redactor: Arc<Redactor>,
    ) -> Arc<Self> {
        Arc::new(Self {
            instance,
            budget: Budget::new(limits.replay_memory, limits.max_body, heavy),
            connections: Level::default(),
            held_answers: Arc::new(Pool::new(limits.held_answers)),
            limits,
            routes,
            reports,
            heart: Heart::new("proxy"),
            metrics,
            redactor,
            refused: Pace::new(REFUSALS_LOGGED_EVERY),
            failovers: Times::default(),
            refusals: RefusalCounts::default(),
            open: watch::channel(0).0,
            suspects: Mutex::default(),
            keys: RandomState::new(),
            names: RandomState::new(),
            named: AtomicU64::new(0),
        })
    }

    /// A name that no other request has: of this process by the counter, of others by its random key.
    pub fn new_name(&self) -> String {
        let count = self.named.fetch_add(1, Relaxed);
        format!("{:016x}{:016x}", self.names.hash_one(count), self.names.hash_one(!count))
    }

    /// Held for a few instructions.
    pub fn suspects(&self) -> MutexGuard<'_, Suspects> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When to try again if no tier can answer. What nobody can foresee is hoped for within the configured time.
    pub fn retry_after(&self, table: &RouteTable) -> Duration {
        let hoped = self.limits.all_down_retry_after;
        match table.retry {
            None => hoped,
            Some(Retry { at, unforeseen: true }) => at.since(clock::now()).min(hoped),
            Some(Retry { at, unforeseen: false }) => at.since(clock::now()),
        }
    }
}

/// The client's own request id where it can be handed on, else a new one.
pub(super) fn request_id(given: Option<&HeaderValue>, shared: &Shared) -> HeaderValue {
    const LONGEST: usize = 128;
    let usable = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        !bytes.is_empty() && bytes.len() <= LONGEST && bytes.iter().all(u8::is_ascii_graphic)
    };
    match given.filter(usable) {
        Some(id) => id.clone(),
        None => HeaderValue::try_from(shared.new_name()).unwrap_or(HeaderValue::from_static("-")),
    }
}

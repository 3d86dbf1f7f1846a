//! The data plane against scripted engines on raw sockets: what the client's bytes are, whatever the engines do.
mod answers;
mod blame;
mod circles;
mod client;
mod counting;
mod cutting;
mod descriptors;
mod engine;
mod fields;
mod leaving;
mod life;
mod limits;
mod mistakes;
mod moving;
mod overload;
mod pages;
mod passing;
mod paths;
mod routing;
mod secrets;
mod smuggling;

use self::client::{Answer, ask};
use crate::support::until_some;
use arc_swap::ArcSwap;
use mainstay::clock;
use mainstay::kinds::{Degrade, Kind};
use mainstay::policy::{InstanceId, Retry, RunId, Standing, TierId};
use mainstay::proxy::{
    self, Limits, Live, Metrics, Proxy, Report, RouteTable, Tally, TierRoute, Totals, Upstream,
};
use mainstay::redact::Redactor;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Longest wait for anything that is expected to happen; far more than it takes on the slowest machine. Shorter than the
/// limits of a bed: these would make some of it happen too.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the redactor of each bed knows: the key of a tier.
const KEY: &str = "tier-key/4711-abcdef";

/// Waits until `so` is true.
#[track_caller]
fn until(what: &str, mut so: impl FnMut() -> bool) {
    assert!(until_some(PATIENCE, || so().then_some(())).is_some(), "waited in vain: {what}");
}

fn limits() -> Limits {
    Limits {
        max_body: 1 << 20,
        replay_memory: 8 << 20,
        body_stall: Duration::from_secs(60),
        held_answers: 64 << 20,
        max_connections: 100,
        max_connections_per_client: 100,
        request_timeout: Some(Duration::from_secs(60)),
        all_down_retry_after: Duration::from_secs(30),
        passthrough: vec!["/tokenize".into(), "/sleep".into()],
        cors_origins: vec!["https://chat.example".into()],
        forward_headers: vec!["x-session-id".into()],
        hosts: vec!["gpu1".into()],
        any_model: false,
        tiers: 2,
    }
}

/// A tier of the chain to be built.
fn tier(name: &str, kind: Kind, port: u16) -> TierRoute {
    TierRoute {
        tier: TierId(0),
        run: None::<RunId>,
        name: name.into(),
        kind,
        model: format!("{name}-model"),
        aliases: vec![],
        upstream: Some(Upstream { host: "127.0.0.1".into(), port, base_path: String::new(), api_key: None }),
        connect: Duration::from_secs(2),
        first_content: None,
        between_chunks: None,
        degrade: None,
        standing: Standing::Open,
        wanted: true,
        reason: String::new(),
        brief: "",
        live: Live::new(Arc::new(Totals::default()), None),
    }
}

fn vllm(name: &str, port: u16) -> TierRoute {
    tier(name, Kind::Vllm, port)
}

fn weakened(name: &str, port: u16) -> TierRoute {
    let degrade = Degrade { max_tokens: Some(200), temperature: Some(0.0), notice: "slower".into() };
    TierRoute { degrade: Some(degrade), ..vllm(name, port) }
}

/// A port at which nobody listens.
fn dead_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Of a source that can give nothing.
fn no_metrics() -> Metrics {
    Metrics { content_type: "text/plain", source: Arc::new(|| Box::pin(std::future::ready(None))) }
}

/// A running proxy with its chain.
struct Bed {
    proxy: Proxy,
    port: u16,
    routes: Arc<ArcSwap<RouteTable>>,
    reports: mpsc::Receiver<Report>,
    /// One per tier of the chain that the bed began with.
    lives: Vec<(Arc<Live>, Arc<Totals>)>,
}

impl Bed {
    fn new(tiers: Vec<TierRoute>) -> Self {
        Self::with(limits(), tiers)
    }

    fn with(limits: Limits, mut tiers: Vec<TierRoute>) -> Self {
        let mut lives = Vec::new();
        for (rank, route) in tiers.iter_mut().enumerate() {
            route.tier = TierId(rank as u16);
            let totals = Arc::new(Totals::default());
            route.live = Live::new(totals.clone(), None);
            lives.push((route.live.clone(), totals));
        }
        let routes = Arc::new(ArcSwap::from_pointee(RouteTable { tiers, retry: None, failover: true }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, reports) = mpsc::channel(64);
        let instance = InstanceId::new(port.into());
        let redactor = Arc::new(Redactor::new([KEY]));
        let proxy = proxy::start(instance, limits, routes.clone(), sender, no_metrics(), redactor).unwrap();
        proxy.accept(vec![listener]).unwrap();
        Self { proxy, port, routes, reports, lives }
    }

    /// Publishes a changed table, as the agent does.
    fn change(&self, change: impl Fn(&mut RouteTable)) {
        let mut table = RouteTable::clone(&self.routes.load());
        change(&mut table);
        self.routes.store(Arc::new(table));
    }

    fn live(&self, rank: usize) -> &Arc<Live> {
        &self.lives[rank].0
    }

    fn tally(&self, rank: usize) -> Tally {
        self.lives[rank].1.tally()
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        ask(self.port, &client::post(path, body))
    }

    fn chat(&self, streaming: bool) -> Answer {
        self.post("/v1/chat/completions", &chat(streaming))
    }
}

fn chat(streaming: bool) -> Value {
    json!({"model": "first-model", "stream": streaming, "messages": [{"role": "user", "content": "hi"}]})
}

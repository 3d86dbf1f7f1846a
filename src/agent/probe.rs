//! Asks upstreams what policy wants to know: `kinds::probe` says what to send and how to read the answer, this sends it.
//!
//! Probes have connections of their own, so they never wait behind clients, and ignore proxy variables.
use super::workers;
use crate::clock;
use crate::kinds::Kind;
use crate::kinds::probe::{self as ask, Load, ProbeRequest, Pull};
use crate::policy::{Cause, CheckFailure, Checked, Prepared, STAND_IN};
use std::time::Duration;

/// For the first signs of a starting engine, and for Ollama's list of models.
const QUICK: Duration = Duration::from_secs(2);
/// An answer to a probe is never longer than this; vLLM's metrics are some tens of KiB.
const ANSWER_MAX: usize = 4 * 1024 * 1024;

/// Where and how a tier is asked.
#[derive(Clone, Debug)]
pub struct Target {
    pub kind: Kind,
    /// `http://HOST:PORT/BASE`, without a slash at its end.
    pub url: String,
    pub model: String,
    pub health_path: Option<String>,
    pub api_key: Option<String>,
    /// May a missing model be fetched?
    pub pull: bool,
    /// The engine's main process.
    pub main_pid: Option<u32>,
    /// No GPU: its work is CPU time of its own.
    pub on_cpu: bool,
}

/// A client for probes; cheap to clone.
#[derive(Clone, Debug)]
pub struct Probe {
    client: reqwest::Client,
}

/// Why a probe got no answer.
#[derive(Debug)]
enum Silence {
    Refused,
    TimedOut,
    Reset,
}

struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Probe {
    pub fn new() -> reqwest::Result<Self> {
        // No idle connections: a probe has to show that a new one can be made, and vLLM closes idle ones after 5 s.
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(Self { client })
    }

    /// GETs the health page.
    pub async fn check(&self, at: &Target, timeout: Duration) -> Checked {
        let began = clock::now();
        let request = ask::health(at.kind, at.health_path.as_deref());
        match self.ask(at, request, Some(timeout)).await {
            Ok(Answer { status: 200..=299, .. }) => Checked::Passed { latency: clock::now().since(began) },
            Ok(Answer { status, .. }) => Checked::Failed(CheckFailure::Status(status)),
            Err(Silence::Refused) => Checked::Failed(CheckFailure::Refused),
            Err(Silence::TimedOut) => Checked::Failed(CheckFailure::TimedOut),
            Err(Silence::Reset) => Checked::Failed(CheckFailure::Reset),
        }
    }

    /// Reads a figure that moves while the engine works. Only an answer without a figure makes way for the next
    /// source: figures of two sources cannot be compared.
    pub async fn count(&self, at: &Target, timeout: Duration) -> Option<u64> {
        let names = ask::worker_names(at.kind);
        if !names.is_empty() {
            return workers::cpu_ticks(at.main_pid?, names);
        }
        for (which, request) in ask::counters(at.kind).into_iter().enumerate() {
            let Ok(answer) = self.ask(at, request, Some(timeout)).await else { return cpu_figure(at) };
            let text = String::from_utf8_lossy(&answer.body);
            if let Some(figure) = ask::read_counters(at.kind, which, &text) {
                return Some(figure);
            }
        }
        None
    }

    /// Sends a one-token request. Did the engine answer as one that lives?
    pub async fn attempt(&self, at: &Target, timeout: Duration) -> bool {
        let request = ask::trial(at.kind, &at.model);
        match self.ask(at, request, Some(timeout)).await {
            Ok(answer) => ask::trial_passed(at.kind, answer.status, &answer.body),
            Err(Silence::Refused | Silence::TimedOut | Silence::Reset) => false,
        }
    }

    /// One try to make a starting engine answer. Loading a model takes as long as it takes: policy's stall and cap are
    /// the limits, and hanging up would make Ollama start over.
    pub async fn prepare(&self, at: &Target) -> Prepared {
        let health = ask::health(at.kind, at.health_path.as_deref());
        match self.ask(at, health, Some(QUICK)).await {
            Ok(Answer { status: 200..=299, .. }) => {}
            Ok(_) | Err(_) => return Prepared::NotYet,
        }
        match at.kind {
            Kind::Ollama => self.load(at).await,
            Kind::Vllm | Kind::LlamaServer | Kind::Remote(_) => Prepared::Ready,
        }
    }

    async fn load(&self, at: &Target) -> Prepared {
        let Ok(answer) = self.ask(at, ask::installed(&at.model), Some(QUICK)).await else {
            return Prepared::NotYet;
        };
        if let Load::Missing { evidence } = ask::load_answer(answer.status, &answer.body) {
            if !at.pull {
                return Prepared::Impossible { cause: Cause::ModelMissing, evidence };
            }
            if let Some(why_not) = self.fetch_model(at).await {
                return why_not;
            }
        }
        let Ok(answer) = self.ask(at, ask::load(&at.model), None).await else { return Prepared::NotYet };
        match ask::load_answer(answer.status, &answer.body) {
            Load::Loaded => Prepared::Ready,
            Load::Busy => Prepared::NotYet,
            Load::Missing { evidence } => Prepared::Impossible { cause: Cause::ModelMissing, evidence },
            Load::Failed { cause, evidence, .. } => Prepared::Impossible { cause, evidence },
        }
    }

    /// Fetches the model. `None` when it is there.
    async fn fetch_model(&self, at: &Target) -> Option<Prepared> {
        let Ok(mut answer) = self.send(at, ask::pull(&at.model), None).await else {
            return Some(Prepared::NotYet);
        };
        let mut rest = Vec::new();
        while let Ok(Some(piece)) = answer.chunk().await {
            rest.extend_from_slice(&piece);
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                match ask::pull_line(&String::from_utf8_lossy(&line)) {
                    Pull::Going { .. } => {}
                    Pull::Done => return None,
                    Pull::Failed { cause, evidence, .. } => {
                        return Some(Prepared::Impossible { cause, evidence });
                    }
                }
            }
            if rest.len() > ANSWER_MAX {
                break;
            }
        }
        let evidence = "the download of the model ended before it was complete".to_owned();
        Some(Prepared::Impossible { cause: Cause::Network, evidence })
    }

    async fn ask(
        &self,
        at: &Target,
        what: ProbeRequest,
        timeout: Option<Duration>,
    ) -> Result<Answer, Silence> {
        let mut answer = self.send(at, what, timeout).await?;
        let status = answer.status().as_u16();
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|e| silence(&e))? {
            body.extend_from_slice(&piece);
            if body.len() > ANSWER_MAX {
                return Err(Silence::Reset);
            }
        }
        Ok(Answer { status, body })
    }

    async fn send(
        &self,
        at: &Target,
        what: ProbeRequest,
        timeout: Option<Duration>,
    ) -> Result<reqwest::Response, Silence> {
        let url = format!("{}{}", at.url, what.path);
        let mut request = match what.method {
            "POST" => self.client.post(url),
            _ => self.client.get(url),
        };
        if let Some(limit) = timeout {
            request = request.timeout(limit);
        }
        if let Some(key) = &at.api_key {
            request = request.bearer_auth(key);
        }
        if let Some(body) = &what.body {
            request = request.json(body);
        }
        request.send().await.map_err(|e| silence(&e))
    }
}

/// What stands in for counters that do not answer: llama-server has one pool of HTTP threads, and a long queue fills it
/// while the engine works. Told apart from a counter's figure by its highest bit. Not with a GPU, for which a process may
/// wait by spinning. vLLM's API server has no such pool; when that does not answer, clients get no byte either, whatever
/// its engine computes.
fn cpu_figure(at: &Target) -> Option<u64> {
    let ticks = match at.kind {
        Kind::LlamaServer if at.on_cpu => workers::own_cpu_ticks(at.main_pid?)?,
        Kind::LlamaServer | Kind::Vllm | Kind::Ollama | Kind::Remote(_) => return None,
    };
    Some(ticks | STAND_IN)
}

fn silence(why: &reqwest::Error) -> Silence {
    if why.is_timeout() {
        return Silence::TimedOut;
    }
    let mut source = std::error::Error::source(why);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::ConnectionRefused
        {
            return Silence::Refused;
        }
        source = inner.source();
    }
    Silence::Reset
}

//! Asks upstreams what policy wants to know: `kinds::probe` says what to send and how to read the answer, this sends it.
//!
//! Probes have connections of their own, so they never wait behind clients, and ignore proxy variables.
use super::workers;
use crate::clock;
use crate::descriptors;
use crate::kinds::peer;
use crate::kinds::probe::{self as ask, Load, ProbeRequest, Pull, TrialAnswer};
use crate::kinds::{self, Device, Kind};
use crate::lookout;
use crate::policy::{
    Cause, CheckFailure, Checked, InstanceId, Leads, Moment, Prepared, STAND_IN, Tried, Unasked,
};
use crate::shortage::{self, Shortage};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// For the first signs of a starting engine, and for Ollama's list of models.
const QUICK: Duration = Duration::from_secs(2);
/// For a trial that may have to load the model first, while the health page is answered.
const LOADING: Duration = Duration::from_secs(5 * 60);
/// Between two lines of the log that say that this host cannot ask.
const SAY_AGAIN: Duration = Duration::from_secs(60);
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
    /// Who asks, among mainstays.
    instance: InstanceId,
    /// When it was last said that this host cannot ask.
    said: Rc<Cell<Option<Moment>>>,
}

/// Why a probe got no answer.
#[derive(Debug)]
enum Silence {
    Refused,
    TimedOut,
    Reset,
    /// This host could not ask: nothing is known of who was to be asked.
    Shortage(Shortage),
}

struct Answer {
    status: u16,
    /// The mainstay that answers, if it is one.
    instance: Option<InstanceId>,
    body: Vec<u8>,
}

impl Probe {
    pub fn new(instance: InstanceId) -> reqwest::Result<Self> {
        // No idle connections: a probe has to show that a new one can be made, and vLLM closes idle ones after 5 s.
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(Self { client, instance, said: Rc::default() })
    }

    /// GETs the health page. The second part: what the answer says is behind the tier.
    pub async fn check(&self, at: &Target, timeout: Duration) -> Result<(Checked, Option<Leads>), Unasked> {
        let began = clock::now();
        let request = ask::health(at.kind, at.health_path.as_deref());
        let another_page = request.path != peer::HEALTH;
        let mut answer = self.ask(at, request, Some(timeout)).await;
        if another_page && matches!(answer, Ok(Answer { instance: Some(_), .. })) {
            let rest = timeout.saturating_sub(clock::now().since(began));
            answer = self.ask(at, ask::health(at.kind, Some(peer::HEALTH)), Some(rest)).await;
        }
        let failure = match answer {
            Ok(Answer { status, instance, body }) => {
                let (leads, failure) = peer::judge(self.instance, instance, status, &body);
                let passed = Checked::Passed { latency: clock::now().since(began) };
                return Ok((failure.map_or(passed, Checked::Failed), Some(leads)));
            }
            Err(Silence::Refused) => CheckFailure::Refused,
            Err(Silence::TimedOut) => CheckFailure::TimedOut,
            Err(Silence::Reset) => CheckFailure::Reset,
            Err(Silence::Shortage(shortage)) => return Err(self.unasked(shortage)),
        };
        Ok((Checked::Failed(failure), None))
    }

    /// Reads a figure that moves while the engine works. Only an answer without a figure makes way for the next
    /// source: figures of two sources cannot be compared.
    pub async fn count(&self, at: &Target, timeout: Duration) -> Result<Option<u64>, Unasked> {
        let names = ask::worker_names(at.kind);
        if !names.is_empty() {
            let Some(pid) = at.main_pid else { return Ok(None) };
            // All of /proc is looked at for it, which takes its time on a host with many processes.
            let lookout = lookout::on(&format!("workers of {pid}"));
            return self.looked(timeout, lookout.look(move || workers::cpu_ticks(pid, names))).await;
        }
        for (which, request) in ask::counters(at.kind).into_iter().enumerate() {
            let answer = match self.ask(at, request, Some(timeout)).await {
                Ok(answer) => answer,
                Err(Silence::Shortage(shortage)) => return Err(self.unasked(shortage)),
                Err(Silence::Refused | Silence::TimedOut | Silence::Reset) => {
                    return cpu_figure(at).map_err(|shortage| self.unasked(shortage));
                }
            };
            let text = String::from_utf8_lossy(&answer.body);
            if let Some(figure) = ask::read_counters(at.kind, which, &text) {
                return Ok(Some(figure));
            }
        }
        Ok(None)
    }

    /// A look at the processes of this host that is late, or cannot be made, is this host's: a worker that is there may work
    /// all the same.
    async fn looked(
        &self,
        limit: Duration,
        look: impl Future<Output = Option<Result<Option<u64>, Shortage>>>,
    ) -> Result<Option<u64>, Unasked> {
        match tokio::time::timeout(limit, look).await {
            Ok(Some(figure)) => figure.map_err(|shortage| self.unasked(shortage)),
            Ok(None) | Err(_) => {
                let why = "the CPU time of its processes cannot be read in time (/proc of this host)";
                Err(self.conclude_nothing(Unasked { cause: Cause::Unknown, why: why.to_owned() }))
            }
        }
    }

    /// Sends a one-token request. What does its answer, or the want of one, say? Where a remote does not serve what is asked
    /// for, it is asked for what else it may serve.
    pub async fn attempt(&self, at: &Target, timeout: Duration) -> Result<Tried, Unasked> {
        let failed = |cause, why: &str| Ok(Tried::Failed { cause, why: why.to_owned() });
        let began = clock::now();
        let mut not_served = None;
        for (which, trial) in ask::trials(at.kind, &at.model).into_iter().enumerate() {
            let rest = timeout.saturating_sub(clock::now().since(began));
            let answer = if ask::trial_loads(at.kind) {
                tokio::select! {
                    answer = self.ask(at, trial, Some(LOADING)) => answer,
                    gone = self.until_it_is_gone(at, timeout) => Err(gone),
                }
            } else {
                self.ask(at, trial, Some(rest)).await
            };
            match answer {
                Ok(answer) => match ask::trial_answer(at.kind, which, answer.status, &answer.body) {
                    TrialAnswer::Tried(tried) => return Ok(tried),
                    TrialAnswer::NotServed(tried) => not_served = not_served.or(Some(tried)),
                },
                // The time is for all of them together. What was found out so far says more than that it is over.
                Err(Silence::TimedOut) => break,
                Err(Silence::Refused) => return failed(Cause::Unknown, "connection refused"),
                Err(Silence::Reset) => {
                    return failed(Cause::Unknown, "connection ended before the answer did");
                }
                Err(Silence::Shortage(shortage)) => return Err(self.unasked(shortage)),
            }
        }
        Ok(not_served.unwrap_or(Tried::TimedOut))
    }

    /// Waits until its health page is not answered any more.
    async fn until_it_is_gone(&self, at: &Target, timeout: Duration) -> Silence {
        loop {
            tokio::time::sleep(timeout).await;
            let health = ask::health(at.kind, at.health_path.as_deref());
            if let Err(gone) = self.ask(at, health, Some(timeout)).await {
                return gone;
            }
        }
    }

    /// One try to make a starting engine answer. Loading a model takes as long as it takes: policy's stall and cap are
    /// the limits, and hanging up would make Ollama start over. `fetching` is told each per cent of a model that has to be
    /// fetched first.
    pub async fn prepare(&self, at: &Target, fetching: impl AsyncFn(Option<u8>)) -> Prepared {
        let health = ask::health(at.kind, at.health_path.as_deref());
        match self.ask(at, health, Some(QUICK)).await {
            Ok(Answer { status: 200..=299, .. }) => {}
            Ok(_) | Err(_) => return Prepared::NotYet,
        }
        match at.kind {
            Kind::Ollama => self.load(at, fetching).await,
            Kind::Vllm | Kind::LlamaServer | Kind::Remote(_) => Prepared::Ready,
        }
    }

    /// For how many tokens the engine was started, where it tells.
    pub async fn context(&self, at: &Target) -> Option<u64> {
        let answer = self.ask(at, ask::context(at.kind)?, Some(QUICK)).await.ok()?;
        ask::read_context(at.kind, &answer.body)
    }

    /// What the model is computed on; `None` where that cannot be asked, or is not loaded.
    pub async fn loaded_on(&self, at: &Target) -> Option<Device> {
        let answer = self.ask(at, ask::loaded(at.kind)?, Some(QUICK)).await.ok()?;
        ask::read_loaded(&at.model, &answer.body)
    }

    async fn load(&self, at: &Target, fetching: impl AsyncFn(Option<u8>)) -> Prepared {
        let Ok(answer) = self.ask(at, ask::installed(&at.model), Some(QUICK)).await else {
            return Prepared::NotYet;
        };
        if let Load::Missing { evidence } = ask::load_answer(answer.status, &answer.body) {
            if !at.pull {
                return missing(evidence);
            }
            if let Some(why_not) = self.fetch_model(at, fetching).await {
                return why_not;
            }
        }
        let Ok(answer) = self.ask(at, ask::load(&at.model), None).await else { return Prepared::NotYet };
        match ask::load_answer(answer.status, &answer.body) {
            Load::Loaded => Prepared::Ready,
            Load::Busy => Prepared::NotYet,
            Load::Missing { evidence } => missing(evidence),
            Load::Failed { cause, deterministic, evidence } => impossible(cause, deterministic, evidence),
        }
    }

    /// Fetches the model. `None` when it is there.
    async fn fetch_model(&self, at: &Target, fetching: impl AsyncFn(Option<u8>)) -> Option<Prepared> {
        let Ok(mut answer) = self.send(at, ask::pull(&at.model), None).await else {
            return Some(Prepared::NotYet);
        };
        let (mut rest, mut told) = (Vec::new(), None);
        loop {
            let piece = match answer.chunk().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                // Ollama itself is gone; its exit says more.
                Err(_) => return Some(Prepared::NotYet),
            };
            rest.extend_from_slice(&piece);
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                match ask::pull_line(&String::from_utf8_lossy(&line)) {
                    // A line a second that says the same is no progress.
                    Pull::Going { percent } if told == Some(percent) => {}
                    Pull::Going { percent } => {
                        told = Some(percent);
                        fetching(percent).await;
                    }
                    Pull::Done => return None,
                    Pull::Failed { cause, deterministic, evidence } => {
                        return Some(impossible(cause, deterministic, evidence));
                    }
                }
            }
            if rest.len() > ANSWER_MAX {
                break;
            }
        }
        let evidence = "the download of the model ended before it was complete".to_owned();
        Some(impossible(Cause::Network, None, evidence))
    }

    async fn ask(
        &self,
        at: &Target,
        what: ProbeRequest,
        timeout: Option<Duration>,
    ) -> Result<Answer, Silence> {
        let mut answer = self.send(at, what, timeout).await?;
        let status = answer.status().as_u16();
        let instance =
            answer.headers().get(peer::INSTANCE).and_then(|id| InstanceId::parse(id.to_str().ok()?));
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|e| silence(&e))? {
            body.extend_from_slice(&piece);
            if body.len() > ANSWER_MAX {
                return Err(Silence::Reset);
            }
        }
        Ok(Answer { status, instance, body })
    }

    fn unasked(&self, shortage: Shortage) -> Unasked {
        self.conclude_nothing(Unasked { cause: shortage.cause(), why: shortage.words(descriptors::limit()) })
    }

    /// Says so, now and then: each tier's reason has it as well.
    fn conclude_nothing(&self, unasked: Unasked) -> Unasked {
        let (now, why) = (clock::now(), &unasked.why);
        if self.said.get().is_none_or(|at| now.since(at) >= SAY_AGAIN) {
            self.said.set(Some(now));
            tracing::warn!(why, "a tier cannot be asked from here; nothing is concluded about it");
        }
        unasked
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
        if !at.kind.is_local() {
            request = request.header(peer::VIA, self.instance.to_string());
        }
        if let Some(key) = &at.api_key {
            request = request.bearer_auth(key);
        }
        if let Some(body) = &what.body {
            request = request.json(body);
        }
        match request.send().await {
            Ok(answer) => Ok(answer),
            Err(why) if lacks_a_port(&why).await => Err(Silence::Shortage(Shortage::Ports)),
            Err(why) => Err(silence(&why)),
        }
    }
}

fn missing(evidence: String) -> Prepared {
    impossible(Cause::ModelMissing, Some(true), evidence)
}

fn impossible(cause: Cause, deterministic: Option<bool>, evidence: String) -> Prepared {
    let nature = kinds::nature(cause, deterministic, Some(&evidence));
    Prepared::Impossible { cause, nature, deterministic, evidence }
}

/// What stands in for counters that do not answer: llama-server has one pool of HTTP threads, and a long queue fills it
/// while the engine works. Told apart from a counter's figure by its highest bit. Not with a GPU, for which a process may
/// wait by spinning. vLLM's API server has no such pool; when that does not answer, clients get no byte either, whatever
/// its engine computes.
fn cpu_figure(at: &Target) -> Result<Option<u64>, Shortage> {
    let ticks = match (at.kind, at.main_pid) {
        (Kind::LlamaServer, Some(pid)) if at.on_cpu => workers::own_cpu_ticks(pid)?,
        (Kind::LlamaServer | Kind::Vllm | Kind::Ollama | Kind::Remote(_), _) => None,
    };
    Ok(ticks.map(|ticks| ticks | STAND_IN))
}

/// The connection was not made for want of a local port. Where there is no address but IPv6's it may be that which is turned
/// off (see [`shortage::of_a_connect`]).
async fn lacks_a_port(why: &reqwest::Error) -> bool {
    let Some(url) = why.url().filter(|_| io_errors(why).any(shortage::lacks_a_source)) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let found = tokio::net::lookup_host((host, url.port_or_known_default().unwrap_or_default())).await;
    found.is_ok_and(|mut addresses| addresses.any(|address| address.is_ipv4()))
}

/// What the system said, from the outside to the inside.
fn io_errors(why: &reqwest::Error) -> impl Iterator<Item = &std::io::Error> {
    let sources = std::iter::successors(std::error::Error::source(why), |inner| inner.source());
    sources.filter_map(|inner| inner.downcast_ref())
}

fn silence(why: &reqwest::Error) -> Silence {
    if why.is_timeout() {
        return Silence::TimedOut;
    }
    for io in io_errors(why) {
        if io.kind() == std::io::ErrorKind::ConnectionRefused {
            return Silence::Refused;
        }
        if let Some(shortage) = shortage::of(io) {
            return Silence::Shortage(shortage);
        }
    }
    // A resolver that finds no descriptor says only that it does not know the name.
    let shortage = if why.is_connect() { descriptors::used_up() } else { None };
    shortage.map_or(Silence::Reset, Silence::Shortage)
}

#[cfg(test)]
mod tests;

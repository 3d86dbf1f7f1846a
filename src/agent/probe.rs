//! Asks upstreams what policy wants to know: `kinds::probe` says what to send and how to read the answer, this sends it.
//!
//! Probes have connections of their own, so they never wait behind clients, and ignore proxy variables.
use super::workers;
use crate::clock;
use crate::kinds::peer;
use crate::kinds::probe::{self as ask, Load, ProbeRequest, Pull};
use crate::kinds::{Device, Kind};
use crate::policy::{Cause, CheckFailure, Checked, InstanceId, Leads, Prepared, STAND_IN, Tried};
use crate::proxy::{are_used_up, is_shortage};
use std::time::Duration;

/// For the first signs of a starting engine, and for Ollama's list of models.
const QUICK: Duration = Duration::from_secs(2);
/// For a trial that may have to load the model first, while the health page is answered.
const LOADING: Duration = Duration::from_secs(5 * 60);
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
}

/// This host had no descriptor or port left to ask with: nothing is known of who was to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage;

/// Why a probe got no answer.
#[derive(Debug)]
enum Silence {
    Refused,
    TimedOut,
    Reset,
    Shortage,
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
        Ok(Self { client, instance })
    }

    /// GETs the health page. The second part: what the answer says is behind the tier.
    pub async fn check(&self, at: &Target, timeout: Duration) -> Result<(Checked, Option<Leads>), Shortage> {
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
            Err(Silence::Shortage) => return Err(Shortage),
        };
        Ok((Checked::Failed(failure), None))
    }

    /// Reads a figure that moves while the engine works. Only an answer without a figure makes way for the next
    /// source: figures of two sources cannot be compared.
    pub async fn count(&self, at: &Target, timeout: Duration) -> Result<Option<u64>, Shortage> {
        match self.figure(at, timeout).await {
            // /proc cannot be read without a descriptor either.
            Ok(None) if are_used_up() => Err(Shortage),
            known => known,
        }
    }

    async fn figure(&self, at: &Target, timeout: Duration) -> Result<Option<u64>, Shortage> {
        let names = ask::worker_names(at.kind);
        if !names.is_empty() {
            let Some(pid) = at.main_pid else { return Ok(None) };
            // All of /proc is looked at for it, which takes its time on a host with many processes.
            let looked = tokio::task::spawn_blocking(move || workers::cpu_ticks(pid, names));
            return Ok(looked.await.ok().flatten());
        }
        for (which, request) in ask::counters(at.kind).into_iter().enumerate() {
            let answer = match self.ask(at, request, Some(timeout)).await {
                Ok(answer) => answer,
                Err(Silence::Shortage) => return Err(Shortage),
                Err(Silence::Refused | Silence::TimedOut | Silence::Reset) => return Ok(cpu_figure(at)),
            };
            let text = String::from_utf8_lossy(&answer.body);
            if let Some(figure) = ask::read_counters(at.kind, which, &text) {
                return Ok(Some(figure));
            }
        }
        Ok(None)
    }

    /// Sends a one-token request. What does its answer, or the want of one, say?
    pub async fn attempt(&self, at: &Target, timeout: Duration) -> Result<Tried, Shortage> {
        let failed = |cause, why: &str| Ok(Tried::Failed { cause, why: why.to_owned() });
        let trial = ask::trial(at.kind, &at.model);
        let answer = if ask::trial_loads(at.kind) {
            tokio::select! {
                answer = self.ask(at, trial, Some(LOADING)) => answer,
                gone = self.until_it_is_gone(at, timeout) => Err(gone),
            }
        } else {
            self.ask(at, trial, Some(timeout)).await
        };
        match answer {
            Ok(answer) => Ok(ask::trial_answer(at.kind, answer.status, &answer.body)),
            Err(Silence::TimedOut) => Ok(Tried::TimedOut),
            Err(Silence::Refused) => failed(Cause::Unknown, "connection refused"),
            Err(Silence::Reset) => failed(Cause::Unknown, "connection ended before the answer did"),
            Err(Silence::Shortage) => Err(Shortage),
        }
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
            Load::Failed { cause, deterministic, evidence } => {
                Prepared::Impossible { cause, deterministic, evidence }
            }
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
                        return Some(Prepared::Impossible { cause, deterministic, evidence });
                    }
                }
            }
            if rest.len() > ANSWER_MAX {
                break;
            }
        }
        let evidence = "the download of the model ended before it was complete".to_owned();
        Some(Prepared::Impossible { cause: Cause::Network, deterministic: None, evidence })
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
        request.send().await.map_err(|e| silence(&e))
    }
}

fn missing(evidence: String) -> Prepared {
    Prepared::Impossible { cause: Cause::ModelMissing, deterministic: Some(true), evidence }
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
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            if io.kind() == std::io::ErrorKind::ConnectionRefused {
                return Silence::Refused;
            }
            if is_shortage(io) {
                return short(why);
            }
        }
        source = inner.source();
    }
    // A resolver that finds no descriptor says only that it does not know the name.
    if why.is_connect() && are_used_up() { short(why) } else { Silence::Reset }
}

fn short(why: &reqwest::Error) -> Silence {
    let to = why.url().map(ToString::to_string);
    tracing::warn!(
        to,
        "no descriptor or port is left to ask with (LimitNOFILE of the unit); nothing is concluded"
    );
    Silence::Shortage
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Api;
    use std::fs::File;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::process::Command;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    /// Set in the process of its own that the test runs in: a limit is the whole process's.
    const ALONE: &str = "MAINSTAY_TEST_ALONE";

    fn alone() {
        let mut child = Command::new(std::env::current_exe().expect("this program"));
        let name = "agent::probe::tests::want_of_descriptors_says_nothing_about_a_tier";
        let output = child.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("1 passed"), "{said}");
    }

    fn lower_the_limit() {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..limit }).expect("it can be lowered");
    }

    fn asked_of(kind: Kind, host: &str, port: u16) -> Target {
        Target {
            kind,
            url: format!("http://{host}:{port}"),
            model: "m".into(),
            health_path: None,
            api_key: None,
            pull: false,
            main_pid: Some(std::process::id()),
            on_cpu: true,
        }
    }

    /// A remote Ollama: each request is answered by `answer`, which is told its path and may take its time.
    fn ollama(answer: fn(&str, &mut TcpStream)) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().expect("a copy")).lines();
                    let first = lines.next().and_then(Result::ok).unwrap_or_default();
                    lines.map_while(Result::ok).find(String::is_empty);
                    let mut stream = stream;
                    answer(first.split(' ').nth(1).unwrap_or_default(), &mut stream);
                });
            }
        });
        asked_of(Kind::Remote(Api::Ollama), "127.0.0.1", port)
    }

    fn say(stream: &mut TcpStream, json: &str) {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", json.len());
        let _ = stream.write_all(format!("{head}{json}").as_bytes());
    }

    fn tried(at: &Target) -> Tried {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let probe = Probe::new(InstanceId::new(1)).expect("a client");
        runtime.block_on(probe.attempt(at, Duration::from_millis(50))).expect("there is no shortage")
    }

    #[test]
    fn a_trial_waits_for_a_load_as_long_as_ollama_answers() {
        static LOOKS: AtomicU32 = AtomicU32::new(0);
        let loading = ollama(|path, stream| {
            if path == "/api/generate" {
                // It is loaded when it was looked at three times: long after the trial's own limit.
                while LOOKS.load(SeqCst) < 3 {
                    std::thread::yield_now();
                }
                return say(stream, r#"{"response":"x","done":true}"#);
            }
            LOOKS.fetch_add(1, SeqCst);
            say(stream, r#"{"version":"1"}"#);
        });
        assert_eq!(tried(&loading), Tried::Passed);
        // Both are taken in and not answered: nothing works there any more.
        let hung = ollama(|_, stream| {
            let _ = stream.read(&mut [0]);
        });
        assert_eq!(tried(&hung), Tried::TimedOut);
    }

    #[test]
    fn ollama_is_asked_where_its_model_lies_without_any_load() {
        fn answer(path: &str, stream: &mut TcpStream) {
            assert_eq!(path, "/api/ps");
            say(stream, r#"{"models":[{"name":"m:latest","model":"m:latest","size":1000,"size_vram":0}]}"#);
        }
        let ours = Target { kind: Kind::Ollama, ..ollama(answer) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let probe = Probe::new(InstanceId::new(1)).expect("a client");
        let found = runtime.block_on(probe.loaded_on(&ours));
        let is_cpu =
            matches!(&found, Some(Device::Cpu { evidence }) if evidence.contains("0 of 1000 bytes of m"));
        assert!(is_cpu, "{found:?}");
        // Of one that is not ours others say what it is to use.
        let theirs = Target { kind: Kind::Remote(Api::Ollama), ..ours };
        assert_eq!(runtime.block_on(probe.loaded_on(&theirs)), None);
    }

    #[test]
    fn want_of_descriptors_says_nothing_about_a_tier() {
        if std::env::var_os(ALONE).is_none() {
            return alone();
        }
        lower_the_limit();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let probe = Probe::new(InstanceId::new(1)).expect("a client");
        // Nobody answers there, but somebody listens.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        let second = Duration::from_secs(1);
        for (kind, host) in
            [(Kind::Vllm, "127.0.0.1"), (Kind::LlamaServer, "127.0.0.1"), (Kind::Vllm, "localhost")]
        {
            let at = asked_of(kind, host, port);
            assert_eq!(runtime.block_on(probe.check(&at, second)), Err(Shortage), "{at:?}");
            assert_eq!(runtime.block_on(probe.count(&at, second)), Err(Shortage), "{at:?}");
            assert_eq!(runtime.block_on(probe.attempt(&at, second)), Err(Shortage), "{at:?}");
        }
        let at = asked_of(Kind::Ollama, "127.0.0.1", port);
        assert_eq!(runtime.block_on(probe.count(&at, second)), Err(Shortage));
        drop((taken, listener));
        let at = asked_of(Kind::Vllm, "127.0.0.1", port);
        let refused = Checked::Failed(CheckFailure::Refused);
        assert_eq!(runtime.block_on(probe.check(&at, second)), Ok((refused, None)));
    }
}

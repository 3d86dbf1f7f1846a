//! A real agent over fake engines, and what a test asks of it.
use crate::support::tmpfs::Tmpfs;
use crate::support::{PATIENCE, fake_engine, mainstay, process, until, until_some};
use mainstay::control::client::{Client, Failure};
use mainstay::control::wire::{self, ProcessState};
use mainstay::policy::Command as Order;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Limits of a test are generous; this one only keeps a broken product from hanging the suite.
const ANSWER: Duration = Duration::from_secs(30);

/// A tier on a fake engine: `knobs` are the engine's, `keys` are further lines of its table.
pub fn tier(name: &str, knobs: &str, keys: &str) -> String {
    let program = fake_engine();
    format!(
        "[[tier]]\nname = \"{name}\"\nengine = \"llama-server\"\nmodel = \"{name}-model\"\ngpus = []\n\
         command = [\"{}\"]\nenv = {{ FAKE_ENGINE = '{{{knobs}}}' }}\n\
         health = {{ interval = \"200ms\", timeout = \"1s\" }}\n{keys}\n",
        program.display()
    )
}

/// An agent, its directory, and everything that it started.
pub struct Rig {
    dir: TempDir,
    agent: Child,
    env: Vec<(String, String)>,
    /// A program and its arguments that becomes the agent.
    through: Vec<String>,
    /// Over the runtime directory, where the test wants one.
    tmpfs: Option<Tmpfs>,
}

impl Rig {
    /// Starts an agent over these tiers and waits until it can be asked.
    pub fn start(tiers: &[String]) -> Self {
        Self::start_with("", tiers)
    }

    /// `server` are further lines of `[server]`.
    pub fn start_with(server: &str, tiers: &[String]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory"), server, "", tiers, &[])
    }

    /// `env` are further variables of the agent.
    pub fn start_with_env(env: &[(&str, &str)], server: &str, tiers: &[String]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory"), server, "", tiers, env)
    }

    /// By a program that prepares the ground and then becomes the agent, in its own process.
    pub fn start_through(through: &[&str], dir: TempDir, tiers: &[String], env: &[(&str, &str)]) -> Self {
        let through = through.iter().map(|word| (*word).to_owned()).collect();
        Self::start_all(through, None, dir, "", "", tiers, env)
    }

    /// With a tmpfs of these mount options for its runtime directory.
    pub fn start_on_tmpfs(options: &str, tiers: &[String]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let run = dir.path().join("run");
        fs::create_dir(&run).expect("a directory");
        let tmpfs = Tmpfs::over(&run, options);
        Self::start_all(tmpfs.entrance(), Some(tmpfs), dir, "", "", tiers, &[])
    }

    /// In a directory that the test has prepared, with further lines of `[agent]` and variables of the agent's own.
    pub fn start_in(dir: TempDir, server: &str, agent: &str, tiers: &[String], env: &[(&str, &str)]) -> Self {
        Self::start_all(Vec::new(), None, dir, server, agent, tiers, env)
    }

    fn start_all(
        through: Vec<String>,
        tmpfs: Option<Tmpfs>,
        dir: TempDir,
        server: &str,
        agent: &str,
        tiers: &[String],
        env: &[(&str, &str)],
    ) -> Self {
        let env: Vec<_> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let (run, state) = (dir.path().join("run"), dir.path().join("state"));
        let head = format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\ndrain = \"20s\"\n{server}\n[agent]\nrun_dir = \"{}\"\nstate_dir = \"{}\"\n{agent}\n",
            run.display(),
            state.display()
        );
        fs::write(dir.path().join("mainstay.toml"), head + &tiers.concat()).expect("a configuration");
        let agent = spawn(dir.path(), &env, &through);
        let mut rig = Self { dir, agent, env, through, tmpfs };
        rig.awake();
        rig
    }

    /// Another agent over the same directory, when this one has ended.
    pub fn start_again(&mut self) {
        self.spawn_again();
        self.awake();
    }

    /// The same, without waiting for it.
    pub fn spawn_again(&mut self) {
        self.agent = spawn(self.dir.path(), &self.env, &self.through);
    }

    fn awake(&mut self) {
        until("the agent answers", || {
            if let Ok(Some(ended)) = self.agent.try_wait() {
                panic!("the agent has ended with {ended}:\n{}", self.log());
            }
            self.client().status().ok()
        });
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("mainstay.toml")
    }

    /// As it is seen from here.
    pub fn run_dir(&self) -> PathBuf {
        self.tmpfs.as_ref().map_or_else(|| self.dir.path().join("run"), Tmpfs::inside)
    }

    pub fn tmpfs(&self) -> &Tmpfs {
        self.tmpfs.as_ref().expect("started with one")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// What the agent takes for its unit's cgroup; it is not there unless a test makes it.
    pub fn cgroup(&self) -> PathBuf {
        self.dir.path().join("cgroup")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.agent.id()
    }

    pub fn client(&self) -> Client {
        Client::new(&self.run_dir())
    }

    pub fn status(&self) -> wire::Status {
        self.client().status().expect("the agent answers").0
    }

    pub fn tier(&self, name: &str) -> wire::Tier {
        self.status().tiers.into_iter().find(|tier| tier.name == name).expect("a tier of this name")
    }

    pub fn process(&self, name: &str) -> wire::Process {
        self.tier(name).process.expect("a local tier")
    }

    #[track_caller]
    pub fn until_process<T>(
        &self,
        what: &str,
        name: &str,
        mut see: impl FnMut(&wire::Process) -> Option<T>,
    ) -> T {
        let seen = until_some(PATIENCE, || see(&self.process(name)));
        seen.unwrap_or_else(|| panic!("waited too long: {what}; the log says:\n{}", self.log()))
    }

    #[track_caller]
    pub fn until_state(&self, name: &str, state: ProcessState) -> wire::Process {
        self.until_process(&format!("{name} is {}", state.name()), name, |p| {
            (p.state == state).then(|| p.clone())
        })
    }

    #[track_caller]
    pub fn until_serving(&self, name: &str) {
        let seen = until_some(PATIENCE, || (self.status().serving.as_deref() == Some(name)).then_some(()));
        seen.unwrap_or_else(|| panic!("{name} does not serve; the log says:\n{}", self.log()));
    }

    pub fn order(&self, tier: &str, order: Order) -> Result<u64, Failure> {
        self.client().operate(tier, order)
    }

    /// Turns knobs of the engine behind a tier.
    pub fn turn(&self, tier: &str, knobs: &str) {
        let url = self.tier(tier).url.expect("a running engine");
        turn_at(url.trim_start_matches("http://"), knobs);
    }

    pub fn endpoint(&self) -> String {
        self.status().agent.listen[0].clone()
    }

    /// The endpoint of an agent that may not answer yet, from /proc.
    pub fn listening(&self) -> Option<String> {
        let sockets = process::descriptors(self.pid());
        let table = fs::read_to_string(format!("/proc/{}/net/tcp", self.pid())).ok()?;
        table.lines().find_map(|row| {
            let fields: Vec<&str> = row.split_whitespace().collect();
            let ours = format!("socket:[{}]", fields.get(9)?);
            let listens = fields[3] == "0A" && sockets.iter().any(|(_, socket)| *socket == ours);
            let port = u16::from_str_radix(fields[1].split_once(':')?.1, 16).ok().filter(|_| listens)?;
            Some(format!("127.0.0.1:{port}"))
        })
    }

    /// One chat; the status and everything after it.
    pub fn chat(&self) -> (u16, String) {
        chat_at(&self.endpoint())
    }

    /// One chat with this body.
    pub fn ask(&self, body: &str) -> (u16, String) {
        post(&self.endpoint(), "/v1/chat/completions", body)
    }

    /// Opens a streaming chat and leaves it to the caller to read it.
    pub fn stream(&self) -> TcpStream {
        let body = r#"{"messages":[{"role":"user","content":"hi"}],"stream":true}"#;
        open(&self.endpoint(), "/v1/chat/completions", body)
    }

    /// Causes a fault of the agent itself.
    pub fn fault(&self, name: &str) {
        let mut stream =
            UnixStream::connect(self.run_dir().join("control.sock")).expect("the socket is there");
        write!(stream, "POST /v1/faults/{name} HTTP/1.1\r\nHost: m\r\nContent-Length: 0\r\n\r\n")
            .expect("it is taken");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    }

    /// Ends an agent that can no longer be asked to; its shims end the engines.
    pub fn kill(mut self) {
        self.agent.kill().expect("it lives");
        let _ = self.ended();
        until("nothing of it is left", || self.left().is_empty().then_some(()));
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.agent.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("the agent is there to be signalled");
    }

    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        until("the agent has ended", || self.agent.try_wait().expect("a child of ours"))
    }

    /// Living processes of every run that this rig ever had.
    pub fn left(&self) -> Vec<u32> {
        let runs = fs::read_dir(self.run_dir().join("runs")).into_iter().flatten().flatten();
        let nonces = runs.filter_map(|run| {
            let intent: serde_json::Value =
                serde_json::from_slice(&fs::read(run.path().join("run.json")).ok()?).ok()?;
            Some(intent.get("nonce")?.as_str()?.to_owned())
        });
        nonces.flat_map(|nonce| process::with_environ(&format!("MAINSTAY_RUN={nonce}"))).collect()
    }
}

/// Turns knobs of the engine at an address that is known.
pub fn turn_at(address: &str, knobs: &str) {
    let (status, _) = post(address, "/knobs", &format!("{{{knobs}}}"));
    assert_eq!(status, 200, "the engine takes its knobs");
}

/// One chat at an endpoint that is known; the status and everything after it.
pub fn chat_at(endpoint: &str) -> (u16, String) {
    post(endpoint, "/v1/chat/completions", r#"{"messages":[{"role":"user","content":"hi"}]}"#)
}

fn spawn(dir: &Path, env: &[(String, String)], through: &[String]) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(dir.join("agent.log")).expect("a log");
    let mut words = through.iter().map(OsStr::new).chain([mainstay().as_os_str()]);
    Command::new(words.next().expect("a program"))
        .args(words)
        .args(["run", "--config"])
        .arg(dir.join("mainstay.toml"))
        .env("MAINSTAY_TEST_FAULTS", "1")
        .env("MAINSTAY_TEST_CGROUP", dir.join("cgroup"))
        .envs(env.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the product runs")
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.agent.try_wait().ok().flatten().is_none() {
            self.signal(Signal::SIGINT);
            self.signal(Signal::SIGINT);
            let _ = self.agent.wait();
        }
    }
}

fn open(address: &str, path: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(ANSWER)).expect("a socket");
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .expect("the request is taken");
    stream
}

pub fn post(address: &str, path: &str, body: &str) -> (u16, String) {
    let mut text = Vec::new();
    let _ = open(address, path, body).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, text)
}

//! The shim, as the built program, over fake engines that misbehave.
mod ends;
mod left;
mod link;
mod output;
mod start;

use crate::support::{PATIENCE, fake_engine, mainstay, process, until, until_some};
use mainstay::policy::Moment;
use mainstay::shim::leftovers::{Main, Orphans};
use mainstay::shim::{
    Asked, ExitRecord, Exited, FromShim, LOG, Lifeline, Link, PROTO, Spawned, Spec, ToShim,
};
use mainstay::shim::{gone, ring, spawn_as};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::process::{getrlimit, kill_process, pidfd_send_signal, prlimit};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// A run whose shim was started, and what came from it so far. Dropped, it takes everything with it.
struct Run {
    /// Holds the run's directory.
    _dir: TempDir,
    spec: Spec,
    shim: Spawned,
    lifeline: Option<Lifeline>,
    link: Link,
}

/// Unlike any other in this process, and in others.
fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A spec for a fake engine with these knobs, `KNOB=VALUE` each.
fn spec(dir: &TempDir, knobs: &[&str]) -> Spec {
    let mut argv = vec![fake_engine().display().to_string()];
    argv.extend(knobs.iter().flat_map(|knob| ["--fake".to_owned(), (*knob).to_owned()]));
    Spec {
        proto: PROTO,
        tier: "primary".into(),
        run: 7,
        nonce: format!("nonce-{}", unique()),
        boot_id: mainstay::clock::boot_id().unwrap().to_owned(),
        argv,
        env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        dir: None,
        run_dir: dir.path().join("run"),
        tmp: None,
        cgroup: None,
        port: None,
        secrets: vec![],
        journal: None,
        nice: 0,
        oom_score_adj: 0,
        stop_grace_ms: 200,
        reap_deadline_ms: 30_000,
    }
}

impl Run {
    async fn of(knobs: &[&str]) -> Self {
        Self::with(knobs, |_| {}).await
    }

    /// With a change to the spec.
    async fn with(knobs: &[&str], change: impl FnOnce(&mut Spec)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = spec(&dir, knobs);
        change(&mut spec);
        let lifeline = Lifeline::new().unwrap();
        let shim = spawn_as(mainstay(), &spec, lifeline.read.as_fd()).unwrap();
        let link = Link::connect(&spec.run_dir, PATIENCE).await.unwrap();
        Self { _dir: dir, spec, shim, lifeline: Some(lifeline), link }
    }

    /// The next message that `wanted` makes something of; those before it are dropped.
    async fn hear<T>(&mut self, mut wanted: impl FnMut(FromShim) -> Option<T>) -> T {
        let listening = async {
            loop {
                if let Some(it) = wanted(self.link.recv().await.unwrap()) {
                    return it;
                }
            }
        };
        tokio::time::timeout(PATIENCE, listening).await.expect("the shim did not say it")
    }

    async fn started(&mut self) -> u32 {
        let started = |message| if let FromShim::Started { pid } = message { Some(pid) } else { None };
        self.hear(started).await
    }

    /// Started, and far enough to serve.
    async fn listening(&mut self) -> (u32, u16) {
        let pid = self.started().await;
        let port = until("the engine listens", || {
            self.log().iter().find_map(|line| line.strip_prefix("listening on 127.0.0.1:")?.parse().ok())
        });
        (pid, port)
    }

    async fn exited(&mut self) -> Exited {
        self.hear(|message| if let FromShim::Exited(exited) = message { Some(exited) } else { None }).await
    }

    async fn ended(&mut self) -> Vec<u32> {
        self.hear(|message| if let FromShim::Ended { left } = message { Some(left) } else { None }).await
    }

    async fn send(&mut self, message: ToShim) {
        self.link.send(&message).await.unwrap();
    }

    /// The engine's lines so far, and the shim's notes, as text.
    fn log(&self) -> Vec<String> {
        let reader = ring::Reader::open(&self.spec.run_dir.join(LOG)).unwrap();
        let lines = reader.last(usize::MAX).unwrap();
        lines.iter().map(|line| String::from_utf8_lossy(&line.bytes).into_owned()).collect()
    }

    fn record(&self) -> ExitRecord {
        ExitRecord::read(&self.spec.run_dir).unwrap()
    }

    /// Whoever lives and carries the run's nonce.
    fn carriers(&self) -> Vec<u32> {
        process::with_environ(&format!("MAINSTAY_RUN={}", self.spec.nonce))
    }

    /// The shim gets no descriptor beside those that it has.
    fn allow_no_more_descriptors(&self) {
        let open: Vec<u32> = process::descriptors(self.shim.pid).into_iter().map(|(fd, _)| fd).collect();
        let free = (0..).find(|fd| !open.contains(fd)).expect("there is one");
        self.limit_descriptors(u64::from(free));
    }

    fn allow_descriptors(&self) {
        self.limit_descriptors(1024);
    }

    fn limit_descriptors(&self, most: u64) {
        let pid = Pid::from_raw(self.shim.pid as i32);
        // The shim has inherited it from us.
        let maximum = getrlimit(Resource::Nofile).maximum;
        let current = Some(maximum.map_or(most, |maximum| most.min(maximum)));
        prlimit(pid, Resource::Nofile, Rlimit { current, maximum }).expect("a limit of our own child");
    }

    async fn shim_gone(&self) {
        tokio::time::timeout(PATIENCE, gone(self.shim.pidfd.as_fd())).await.expect("the shim stays");
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // An orderly end first; a shim that does not know one must not outlive its test.
        self.lifeline = None;
        let _ = until_some(Duration::from_secs(5), || (!process::is_alive(self.shim.pid)).then_some(()));
        let _ = pidfd_send_signal(&self.shim.pidfd, Signal::KILL);
        let _ = rustix::process::waitid(
            rustix::process::WaitId::PidFd(self.shim.pidfd.as_fd()),
            rustix::process::WaitIdOptions::EXITED,
        );
        let orphans = orphans(&self.spec.nonce, None);
        orphans.survivors().unwrap().into_iter().for_each(|pid| signal(pid, Signal::KILL));
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        let _ = kill_process(pid, signal);
    }
}

const TERM: ToShim = ToShim::Term { grace_ms: 30_000 };

/// No process.
const NOTHING: [u32; 0] = [];

/// Of a run that began at any time.
fn orphans(nonce: &str, main: Option<Main>) -> Orphans {
    Orphans { nonce: nonce.to_owned(), main, since: Moment::default(), until: None, tree: vec![] }
}

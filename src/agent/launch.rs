//! How a run is started: the shim's spec, put together from the configuration and what the kind of engine needs.
use super::previous::Intent;
use crate::config::{Agent, Local, Tier};
use crate::kinds::{self, Launch};
use crate::policy::{REAP_DEADLINE, RunId};
use crate::shim::{self, Spec};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the home directory may take to answer.
const HOME_MAX: Duration = Duration::from_secs(2);
/// What was said to the agent alone.
pub(super) const OURS: &[&str] = &[
    "MAINSTAY_TEST_FAULTS",
    "MAINSTAY_TEST_CGROUP",
    "MAINSTAY_TEST_GPU_HURRY",
    "CREDENTIALS_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
];

/// What one start needs, beside the configuration.
pub struct Start<'a> {
    pub run: RunId,
    pub port: u16,
    /// The run's own directory.
    pub dir: PathBuf,
    pub intent: &'a Intent,
    /// The run's TMPDIR, where that is not in its directory.
    pub tmp: Option<PathBuf>,
    /// The cgroup to make runs under, where there is a delegated one.
    pub cgroup: Option<&'a Path>,
    pub secrets: &'a [String],
    /// journald's socket, where that is to have the engine's lines.
    pub journal: Option<&'a Path>,
}

/// The spec of a run of `tier`.
pub fn spec(tier: &Tier, local: &Local, home: &str, start: Start<'_>) -> Spec {
    let in_run_dir = || start.dir.join(shim::TMP);
    let tmp = start.tmp.clone().unwrap_or_else(in_run_dir).display().to_string();
    let inherited = inherited();
    let typed: BTreeMap<String, String> =
        local.env.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
    let launch = Launch {
        kind: tier.kind,
        command: &local.command,
        model: &tier.model,
        port: start.port,
        gpus: local.gpus.as_deref(),
        args: &local.args,
        env: &typed,
        tmp_dir: &tmp,
        home: Some(home),
        start_stall: local.startup.stall,
        start_cap: local.startup.cap,
    };
    let mut env = inherited;
    env.extend(kinds::environment(&launch));
    Spec {
        proto: shim::PROTO,
        tier: tier.name.clone(),
        run: start.run.number,
        nonce: start.intent.nonce.clone(),
        boot_id: start.intent.boot_id.clone(),
        argv: kinds::argv(&launch),
        env,
        dir: local.dir.clone(),
        cgroup: start.cgroup.map(|parent| parent.join(format!("run-{}-{}", tier.name, start.run.number))),
        run_dir: start.dir,
        tmp: start.tmp,
        port: Some(start.port),
        secrets: start.secrets.to_vec(),
        journal: start.journal.map(Path::to_owned),
        nice: local.nice,
        oom_score_adj: local.oom_score_adj,
        stop_grace_ms: u64::try_from(local.stop_grace.as_millis()).unwrap_or(u64::MAX),
        reap_deadline_ms: u64::try_from(REAP_DEADLINE.as_millis()).unwrap_or(u64::MAX),
    }
}

/// What engines get of the agent's own environment.
pub fn inherited() -> BTreeMap<String, String> {
    // What is not text cannot be meant for an engine.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    variables.filter(|(name, _)| !OURS.contains(&name.as_str())).collect()
}

/// Engines want a home that they may write to (Ollama does not start without one); a system user's is often neither
/// set nor there, so the state directory stands in. Asked once, and not for long: a home on a network may hang.
pub fn home(agent: &Agent) -> String {
    let (found, looked) = std::sync::mpsc::sync_channel(1);
    let look = move || {
        let rights = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        let home = inherited().remove("HOME");
        let _ = found.send(home.filter(|dir| rustix::fs::access(dir.as_str(), rights).is_ok()));
    };
    let looking = std::thread::Builder::new().name("home".into()).spawn(look);
    let home = looking.ok().and_then(|_| looked.recv_timeout(HOME_MAX).ok()).flatten();
    home.unwrap_or_else(|| agent.state_dir.display().to_string())
}

/// The cgroup that systemd delegated to this unit, if it did: runs get cgroups of their own under it.
///
/// Only a delegated one is used: in any other, making directories would be interfering with whoever owns the tree.
pub fn delegated_cgroup() -> Option<PathBuf> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/');
    let dir = Path::new("/sys/fs/cgroup").join(path);
    let under_systemd = std::env::var_os("INVOCATION_ID").is_some();
    let writable = rustix::fs::access(dir.join("cgroup.procs"), rustix::fs::Access::WRITE_OK).is_ok();
    (under_systemd && !path.is_empty() && writable).then_some(dir)
}

/// A number that nobody else has: sixteen bytes of the kernel's randomness, in hexadecimal.
pub fn nonce() -> String {
    let mut bytes = [0_u8; 16];
    let read =
        std::fs::File::open("/dev/urandom").and_then(|mut f| std::io::Read::read_exact(&mut f, &mut bytes));
    if read.is_err() {
        // Without /dev (a bare chroot) clock and pid still tell the runs of one boot apart.
        let (now, pid) = (crate::clock::now().as_nanos(), u64::from(std::process::id()));
        bytes[..8].copy_from_slice(&now.to_le_bytes());
        bytes[8..].copy_from_slice(&pid.to_le_bytes());
    }
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

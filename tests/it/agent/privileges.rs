//! What the agent's privileges are to others: nothing to its children, and nothing to whoever is not of its group.
use super::rig::{Rig, tier};
use crate::gpu::driver::{Driver, probe_of, script, until_probe};
use crate::support::process;
use mainstay::control::wire::GpuProbeState;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde_json::json;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Only root may give capabilities away, and become nobody.
fn may_change_accounts() -> bool {
    let may = nix::unistd::geteuid().is_root();
    if !may {
        eprintln!("skipped: only root can run this test");
    }
    may
}

/// As under the unit's AmbientCapabilities=CAP_SYSLOG.
const WITH_AMBIENT: &[&str] = &["setpriv", "--inh-caps=+syslog", "--ambient-caps=+syslog"];

#[test]
fn the_agents_ambient_capability_is_not_handed_on() {
    if !may_change_accounts() {
        return;
    }
    let driver = Driver::new(&script(&json!({})));
    let tables = format!("[gpu]\n{}", tier("only", "", "stop_grace = \"1s\""));
    let env = driver.env();
    let env: Vec<(&str, &str)> = env.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let rig = Rig::start_through(WITH_AMBIENT, tempfile::tempdir().expect("a directory"), &[tables], &env);
    rig.until_serving("only");
    until_probe(&rig, GpuProbeState::Ok);
    let sets = |pid: u32| ["CapAmb", "CapInh"].map(|set| process::status(pid, set));
    let none = ["0000000000000000"; 2];
    assert_ne!(sets(rig.pid()), none, "the agent has it");
    let only = rig.process("only");
    let children = [("engine", only.pid), ("shim", only.shim_pid), ("probe", probe_of(&rig))];
    for (what, pid) in children {
        assert_eq!(sets(pid.expect(what)), none, "{what}");
    }
}

type Attempt = fn(&Path) -> io::Result<()>;

/// Which of the paths somebody of no group of ours can lock, list or connect to.
fn trespassed(paths: Vec<PathBuf>) -> Vec<String> {
    const NOBODY: u32 = 65_534;
    // The system knows accounts of threads: that of this process stays as it is.
    let nobody = std::thread::spawn(move || {
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        set_thread_groups(&[]).expect("groups can be dropped");
        set_thread_res_gid(group, group, group).expect("the group can be changed");
        set_thread_res_uid(user, user, user).expect("the account can be changed");
        let attempts: [(&str, Attempt); 3] = [
            ("lock", |path| Ok(flock(File::open(path)?, FlockOperation::NonBlockingLockShared)?)),
            ("list", |path| fs::read_dir(path).map(drop)),
            ("connect to", |path| UnixStream::connect(path).map(drop)),
        ];
        let told = paths.iter().flat_map(|path| attempts.map(|(what, attempt)| (what, path, attempt(path))));
        let denied = |outcome: &io::Result<()>| {
            outcome.as_ref().is_err_and(|why| why.kind() == io::ErrorKind::PermissionDenied)
        };
        let told = told.filter(|(_, _, outcome)| !denied(outcome));
        told.map(|(what, path, outcome)| format!("{what} {}: {outcome:?}", path.display())).collect()
    });
    nobody.join().expect("it can be tried")
}

fn everything_in(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        found.extend(if is_dir { everything_in(&entry.path()) } else { vec![entry.path()] });
    }
    found
}

#[test]
fn nobody_locks_lists_or_connects_to_anything_of_the_agent() {
    if !may_change_accounts() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    // As /run and /var/lib are.
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("rights can be set");
    let rig = Rig::start_in(dir, "", "", &[tier("only", "", "stop_grace = \"1s\"")], &[]);
    rig.until_serving("only");
    let paths: Vec<PathBuf> =
        [rig.run_dir(), rig.state_dir()].iter().flat_map(|dir| everything_in(dir)).collect();
    for name in ["run/agent.lock", "state/agent.lock", "status.sock", "control.sock", "shim.sock"] {
        assert!(paths.iter().any(|path| path.ends_with(name)), "{name}: {paths:?}");
    }
    assert_eq!(trespassed(paths), [""; 0]);
}

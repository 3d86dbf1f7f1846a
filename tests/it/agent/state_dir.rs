//! A state directory that cannot be written costs history and mail, and nothing else, until it can be.
use super::rig::{Rig, tier};
use crate::support::{process, until};
use mainstay::policy::Command as Order;
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const QUICK: &str = "stop_grace = \"1s\"\nrestart = { first = \"0s\", base = \"100ms\", max = \"200ms\" }";

/// The TMPDIR of the engine that runs.
fn tmpdir(rig: &Rig) -> PathBuf {
    let pid = rig.process("only").pid.expect("it runs");
    let variable =
        process::environ(pid).into_iter().find_map(|it| Some(it.strip_prefix("TMPDIR=")?.to_owned()));
    PathBuf::from(variable.expect("every engine has one"))
}

/// As the agent sees it, whose mounts may be its own.
fn seen_by(rig: &Rig, path: &Path) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root{}", rig.pid(), path.display()))
}

/// An agent that finds its state directory `STATE` as `before` leaves it, in mounts of its own; `after` mends that.
fn goes_on_without_it(before: &str, why: &str, after: &str) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can run this test");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state").display().to_string();
    let script = |script: &str| script.replace("STATE", &state);
    let ground = script(&format!("set -e; {before}; exec \"$@\""));
    let tiers = [tier("only", "", QUICK)];
    let mut rig = Rig::start_through(&["unshare", "-m", "sh", "-c", &ground, "sh"], dir, &tiers, &[]);
    rig.until_serving("only");
    assert_eq!(rig.chat().0, 200);
    let problem = until("it is told of", || rig.status().agent.state_problem);
    assert!(problem.contains(why), "{problem}");
    until("it is an event", || {
        rig.log().contains("incidents, events and mail are not kept, until").then_some(())
    });
    assert!(tmpdir(&rig).starts_with(rig.run_dir()), "{}", tmpdir(&rig).display());
    let mend = Command::new("nsenter")
        .args(["-m", "-t", &rig.pid().to_string(), "sh", "-c", &script(after)])
        .status();
    assert!(mend.expect("nsenter runs").success());
    until("it is kept again", || rig.status().agent.state_problem.is_none().then_some(()));
    let events = until("what was told meanwhile is there", || {
        let events = fs::read_to_string(seen_by(&rig, &rig.state_dir().join("events.jsonl"))).ok()?;
        events.contains("are kept again").then_some(events)
    });
    assert!(events.contains("\"kind\":\"started\"") && events.contains("are not kept, until"), "{events}");
    rig.order("only", Order::Restart).expect("it can be restarted");
    rig.until_process("the next run", "only", |only| {
        (only.run == Some(2) && only.pid.is_some()).then_some(())
    });
    rig.until_serving("only");
    assert!(tmpdir(&rig).starts_with(rig.state_dir()), "{}", tmpdir(&rig).display());
    rig.signal(Signal::SIGTERM);
    assert!(rig.ended().success());
    assert_eq!(rig.left(), Vec::<u32>::new());
}

#[test]
fn an_agent_with_a_read_only_state_directory_serves_and_keeps_what_it_can_later() {
    let before = "mkdir STATE; mount --bind STATE STATE; mount -o remount,bind,ro STATE";
    goes_on_without_it(before, "Read-only file system", "mount -o remount,bind,rw STATE");
}

#[test]
fn an_agent_with_a_full_state_directory_serves_and_keeps_what_it_can_later() {
    let before = "mkdir STATE; mount -t tmpfs -o size=64k,mode=750 none STATE; ! cat /dev/zero >STATE/filler 2>/dev/null";
    goes_on_without_it(before, "No space left on device", "rm STATE/filler");
}

#[test]
fn an_agent_whose_state_directory_cannot_be_made_serves_and_keeps_what_it_can_later() {
    goes_on_without_it("echo >STATE", "cannot use ", "rm STATE");
}

#[test]
fn temporary_files_of_engines_lie_in_the_state_directory_and_go_with_their_run() {
    let dir = tempfile::tempdir().expect("a directory");
    let old = dir.path().join("state/tmp/only-7-0a1b2c");
    fs::create_dir_all(&old).expect("a directory");
    fs::write(old.join("of an earlier boot"), "x").expect("a file");
    let mut rig = Rig::start_in(dir, "", "", &[tier("only", "", QUICK)], &[]);
    rig.until_serving("only");
    assert!(!old.exists(), "its run is none that lives");
    let tmp = tmpdir(&rig);
    assert_eq!(tmp.parent(), Some(rig.state_dir().join("tmp").as_path()));
    assert_eq!(fs::metadata(&tmp).expect("it is there").permissions().mode() & 0o777, 0o700);
    fs::write(tmp.join("of torch"), "x").expect("it can be written");
    rig.signal(Signal::SIGTERM);
    assert!(rig.ended().success());
    assert!(!tmp.exists(), "it goes with its run");
}

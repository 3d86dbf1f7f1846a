//! Why a run ended, as status tells it: kills that look alike from the shim are told apart.
use super::rig::{Rig, tier};
use crate::support::until;
use mainstay::control::wire::{LastExit, ProcessState};
use mainstay::shim::ring::Reader;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use std::fs;

const QUICK: &str = "stop_grace = \"1s\"\nrestart = { first = \"0s\", base = \"100ms\" }";

/// The kernel's counter of processes that it killed for memory.
fn count_kills(rig: &Rig, kills: u64) {
    fs::create_dir_all(rig.cgroup()).expect("a directory");
    let text = format!("low 0\nhigh 0\nmax 0\noom 0\noom_kill {kills}\n");
    fs::write(rig.cgroup().join("memory.events"), text).expect("a counter");
}

/// KILL to the engine, and what was made of it once the next run serves.
fn killed(rig: &Rig) -> LastExit {
    let process = rig.process("only");
    let pid = i32::try_from(process.pid.expect("it runs")).expect("a pid");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it may be killed");
    let exit = rig.until_process("this run has ended", "only", |p| {
        p.last_exit.clone().filter(|exit| Some(exit.run) == process.run)
    });
    rig.until_serving("only");
    exit
}

#[test]
fn a_kill_for_memory_is_told_from_a_kill_by_somebody() {
    let rig = Rig::start(&[tier("only", "", QUICK)]);
    rig.until_serving("only");
    count_kills(&rig, 3);
    let exit = killed(&rig);
    assert_eq!(exit.cause, "killed-from-outside", "how the counter stood before that run is not known");
    assert!(exit.evidence.expect("there is some").contains("SIGKILL"));
    count_kills(&rig, 4);
    let exit = killed(&rig);
    assert_eq!(exit.cause, "host-oom");
    assert_eq!(exit.evidence.as_deref(), Some("memory.events: oom_kill 3 → 4"));
    assert_eq!(killed(&rig).cause, "killed-from-outside", "the counter has not risen again");
}

/// One traceback for each open request, on the way down: more than the log holds, behind the line that tells.
#[test]
fn the_line_that_tells_is_known_when_the_log_has_long_lost_it() {
    let told =
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity";
    let knobs = format!(r#""print_err": ["{told}"], "frames": 30000, "exit_code": 1, "exit_after": 0.2"#);
    let rig = Rig::start(&[tier("only", &knobs, "stop_grace = \"1s\"\nrestart = { hold_after = 1 }")]);
    let exit = rig.until_process("a run has ended", "only", |p| p.last_exit.clone());
    assert_eq!((exit.cause.as_str(), exit.evidence.as_deref()), ("gpu-oom", Some(told)));
    let log = Reader::open(&rig.run_dir().join("runs/only-1/log")).expect("its log");
    let kept = log.last(usize::MAX).expect("it can be read");
    assert!(kept.iter().all(|line| line.bytes != told.as_bytes()), "the log still has it: nothing was shown");
}

/// The log, in which the cause is looked for, stands on a disk that does not answer: a pipe that nobody writes to.
#[test]
fn a_death_moves_requests_before_its_cause_is_known() {
    let dir = tempfile::tempdir().expect("a directory");
    let tiers = [tier("first", "", QUICK), tier("second", "", QUICK)];
    let rig = Rig::start_in(dir, "", "engine_log = false", &tiers, &[]);
    rig.until_serving("first");
    rig.until_state("second", ProcessState::Ready);
    let pid = rig.process("first").pid.expect("it runs");
    let log = rig.run_dir().join("runs/first-1/log");
    fs::remove_file(&log).expect("it has a log");
    mkfifo(&log, Mode::S_IRWXU).expect("a pipe");
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGKILL).expect("it lives");
    until("its death is known", || rig.process("first").pid.is_none().then_some(()));
    let (status, answer) = rig.chat();
    assert!(status == 200 && answer.contains("x-mainstay-tier: second"), "{answer}");
    assert!(!answer.contains("x-mainstay-attempts"), "the dead one was asked: {answer}");
    assert!(!rig.log().contains("exit seq"), "its cause is not known yet");
    drop(fs::File::options().write(true).open(&log).expect("somebody reads"));
    until("its cause is told", || rig.log().contains("exit seq").then_some(()));
}

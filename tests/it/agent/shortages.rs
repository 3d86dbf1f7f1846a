//! This host has too little of something for a call of our own: no engine is to blame, and none is given up for it.
use super::rig::{Rig, post, tier};
use crate::support::{process, until};
use mainstay::control::wire::{Health, ProcessState};
use mainstay::policy::Command as Order;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

const QUICK: &str = "restart = { base = \"100ms\", max = \"200ms\" }\nstop_grace = \"1s\"";

/// The agent may have so many descriptors from now on; engines and shims may have what they had.
fn allow(rig: &Rig, most: u64) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(rig.pid()).expect("a pid"));
    // The agent has inherited it from us.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = Some(maximum.map_or(most, |maximum| most.min(maximum)));
    let before = prlimit(pid, Resource::Nofile, Rlimit { current, maximum });
    before.expect("a limit of our own child can be changed");
}

fn pair() -> Rig {
    let rig = Rig::start(&[tier("best", "", QUICK), tier("spare", "", QUICK)]);
    rig.until_state("best", ProcessState::Ready);
    rig.until_state("spare", ProcessState::Ready);
    rig.until_serving("best");
    rig
}

fn kill_9(pid: u32) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGKILL).expect("it lives");
}

#[test]
fn a_start_without_a_descriptor_waits_for_one_and_is_no_strike() {
    let rig = pair();
    let (best, spare) = (rig.process("best"), rig.process("spare"));
    // What is open stays open: standard input, output and error only are below it.
    allow(&rig, 3);
    kill_9(best.pid.expect("it runs"));
    let failures =
        || rig.log().matches("no free file descriptor for mainstay: its limit is 3 (LimitNOFILE=").count();
    until("it was tried four times", || (failures() >= 5).then_some(()));
    allow(&rig, 1024);
    let back = rig.until_state("best", ProcessState::Ready);
    assert_eq!(back.strikes, 1, "the death of its first run: {}", rig.log());
    let spare_now = rig.process("spare");
    assert_eq!((spare_now.run, spare_now.pid), (spare.run, spare.pid));
    rig.until_serving("best");
    let log = rig.log();
    assert!(!log.contains("another program listens") && !log.contains("held"), "{log}");
    assert!(rig.tier("best").health == Health::Healthy);
    rig.order("best", Order::Stop).expect("it runs");
    rig.until_state("best", ProcessState::Stopped);
}

/// Before: "the configuration is wrong".
#[test]
fn a_configuration_for_which_there_is_no_descriptor_is_not_called_wrong() {
    let rig = Rig::start(&[tier("only", "", QUICK)]);
    rig.until_serving("only");
    allow(&rig, 3);
    rig.signal(Signal::SIGHUP);
    let said = |words: &str| rig.log().contains(words);
    until("it was looked at", || {
        (said("the configuration could not be checked") || said("is wrong")).then_some(())
    });
    assert!(!said("the configuration is wrong"), "{}", rig.log());
    assert!(said("no free file descriptor for mainstay: its limit is 3"), "{}", rig.log());
    allow(&rig, 1024);
    rig.signal(Signal::SIGHUP);
    until("it was checked", || said("the configuration has not changed").then_some(()));
}

#[test]
fn two_hundred_failovers_with_too_few_descriptors_restart_and_hold_nobody() {
    const FAILOVERS: usize = 200;
    let rig = Rig::start(&[tier("best", "\"fail_on\": \"fail\"", QUICK), tier("spare", "", QUICK)]);
    rig.until_state("spare", ProcessState::Ready);
    rig.until_serving("best");
    let before = ["best", "spare"].map(|name| (rig.process(name).run, rig.process(name).pid));
    let endpoint = rig.endpoint();
    let at_rest = process::descriptors(rig.pid()).len() as u64;
    allow(&rig, at_rest + 5);
    let (moved, short) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|threads| {
        for client in 0..4 {
            let (endpoint, moved, short) = (&endpoint, &moved, &short);
            threads.spawn(move || {
                let mut asked = 0;
                // Whether a client or a probe meets the limit is chance: it goes on until a client has.
                let is_over = || moved.load(Relaxed) >= FAILOVERS && short.load(Relaxed) > 0;
                while asked < 5_000 && !is_over() {
                    asked += 1;
                    // Every other one is answered by the first tier, so that it keeps its place.
                    for word in ["good", "fail"] {
                        let text = format!("{word} {client} {asked}");
                        let body = format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}]}}"#);
                        let (status, answer) = post(endpoint, "/v1/chat/completions", &body);
                        let by_spare = answer.contains("x-mainstay-tier: spare");
                        moved.fetch_add(usize::from(status == 200 && by_spare), Relaxed);
                        short.fetch_add(usize::from(status == 503), Relaxed);
                    }
                }
            });
        }
    });
    let log = rig.log();
    assert!(short.load(Relaxed) > 0, "nothing was short: {log}");
    allow(&rig, 1024);
    for (name, before) in ["best", "spare"].into_iter().zip(before) {
        let now = rig.process(name);
        assert_eq!((now.run, now.pid, now.restarts, now.strikes), (before.0, before.1, 0, 0), "{log}");
        until("it is healthy again", || (rig.tier(name).health == Health::Healthy).then_some(()));
    }
    assert!(!log.contains("another program listens") && !log.contains("held"), "{log}");
}

/// Not as root, whom the limit of processes does not bind.
#[test]
fn a_start_without_a_process_waits_for_one_and_the_agent_lives_on() {
    const ACCOUNT: u32 = 64_123;
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can run this test");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::chown(dir.path(), Some(ACCOUNT), Some(ACCOUNT)).expect("root may");
    let account = ["--reuid", "--regid"].map(|flag| format!("{flag}={ACCOUNT}"));
    let through = ["setpriv", &account[0], &account[1], "--clear-groups"];
    let allow = |rig: &Rig, processes: &str| {
        let limit = [format!("--pid={}", rig.pid()), format!("--nproc={processes}:")];
        let set = Command::new(through[0]).args(&through[1..]).arg("prlimit").args(limit).status();
        assert!(set.expect("prlimit(1) is there").success());
    };
    let rig = Rig::start_through(&through, dir, &[tier("best", "", QUICK), tier("spare", "", QUICK)], &[]);
    rig.until_state("spare", ProcessState::Ready);
    rig.until_serving("best");
    let best = rig.process("best").pid.expect("it runs");
    allow(&rig, "1");
    kill_9(best);
    let failed = rig.until_process("its start has failed twice", "best", |p| {
        let exit = p.last_exit.clone().filter(|_| p.run >= Some(4))?;
        exit.evidence.filter(|evidence| evidence.contains("TasksMax="))
    });
    assert!(failed.contains("no further process or thread"), "{failed}");
    // For so long a thread without work stays in tokio by itself. The one that looks for status has no work now, and the
    // look after that must not be the agent's end.
    std::thread::sleep(Duration::from_secs(11));
    assert_eq!(rig.process("spare").state, ProcessState::Ready);
    allow(&rig, "1000");
    let back = rig.until_state("best", ProcessState::Ready);
    assert_eq!(back.strikes, 1, "the death of its first run");
    assert_eq!(rig.process("spare").restarts, 0);
}

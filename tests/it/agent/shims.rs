//! Shims that cannot begin, that do not answer, and runs that an agent finds without one. The real causes: a full tmpfs, a
//! stopped process, a process that withstands SIGKILL.
use super::endings::{kill_agent_and_shim, send};
use super::rig::{Rig, tier};
use crate::support::hold::Hold;
use crate::support::{process, until};
use mainstay::control::wire::{LastExit, ProcessState};
use mainstay::policy::Command as Order;
use nix::sys::signal::Signal;
use std::fs;

const QUICK: &str = "stop_grace = \"1s\"";
const MANUAL: &str = "start = \"manual\"\nstop_grace = \"1s\"";

/// The pids of shim and engine of a tier that runs.
fn pids(rig: &Rig, tier: &str) -> (u32, u32) {
    let process = rig.process(tier);
    (process.shim_pid.expect("a shim"), process.pid.expect("an engine"))
}

fn words(exit: &LastExit) -> &str {
    exit.evidence.as_deref().unwrap_or_default()
}

/// Seen to fail with an engine that no intent tells of: it was started all the same.
#[test]
fn a_run_that_cannot_be_written_down_is_not_started() {
    let knobs = format!("\"ignore_term\": true, \"print\": [\"mark-{}\"]", std::process::id());
    let engines = || process::with_environ(&format!("FAKE_ENGINE={{{knobs}}}"));
    let mut rig = Rig::start_on_tmpfs("size=8m", &[tier("only", &knobs, MANUAL)]);
    rig.tmpfs().fill();
    rig.order("only", Order::Start).expect("it is taken");
    let failed = rig.until_process("its start has failed", "only", |p| p.last_exit.clone());
    assert_eq!(failed.cause, "disk-full", "{failed:?}");
    assert!(words(&failed).contains("cannot be written down"), "{failed:?}");
    assert!(words(&failed).contains("No space left on device"), "{failed:?}");
    assert_eq!(engines(), Vec::<u32>::new());

    rig.tmpfs().empty();
    rig.until_state("only", ProcessState::Ready);
    let (shim, engine) = pids(&rig, "only");
    rig.tmpfs().fill();
    kill_agent_and_shim(&mut rig, shim);
    assert!(process::is_alive(engine), "there is something to start another one beside");
    rig.start_again();
    until("what the crash left has ended", || (!process::is_alive(engine)).then_some(()));
    assert_eq!(engines(), Vec::<u32>::new());
    rig.tmpfs().empty();
    rig.order("only", Order::Start).expect("it is taken");
    rig.until_serving("only");
    assert_eq!(engines().len(), 1);
}

/// Seen to fail with "unknown" as the cause, after ten seconds.
#[test]
fn a_start_for_which_this_host_lacks_inodes_says_so_whoever_met_that() {
    let rig = Rig::start_on_tmpfs("size=8m,nr_inodes=64", &[tier("only", "", MANUAL)]);
    // A run needs its directory, its intent and its lock, and its shim a socket; its TMPDIR lies on another file system.
    let met_by = [
        "the run cannot be written down",
        "the run cannot be written down",
        "the shim cannot be started",
        "the shim cannot listen on the run's socket",
    ];
    let mut latest = 0;
    for (spare, who) in met_by.into_iter().enumerate() {
        rig.tmpfs().fill_but(spare);
        rig.order("only", Order::Start).expect("it is taken");
        let news = |exit: &LastExit| exit.run > latest && words(exit).contains(who);
        let failed = rig.until_process(who, "only", |p| p.last_exit.clone().filter(news));
        assert_eq!(failed.cause, "disk-full", "{failed:?}");
        assert!(words(&failed).contains("No space left on device"), "{failed:?}");
        rig.order("only", Order::Stop).expect("it is taken");
        let stopped = rig.until_state("only", ProcessState::Stopped);
        assert_eq!(stopped.strikes, 0, "no fault of the engine");
        latest = stopped.run.expect("it was started");
        rig.tmpfs().empty();
    }
    rig.order("only", Order::Start).expect("it is taken");
    rig.until_serving("only");
}

/// There is one inode too few at first. Before: it was tried once.
#[test]
fn the_process_of_a_run_is_written_down_as_soon_as_that_can_be() {
    let rig = Rig::start_on_tmpfs("size=8m,nr_inodes=64", &[tier("only", "", MANUAL)]);
    // Its directory, intent, lock and socket; the intent is replaced by a new file.
    rig.tmpfs().fill_but(5);
    rig.order("only", Order::Start).expect("it is taken");
    rig.until_serving("only");
    let (_, engine) = pids(&rig, "only");
    let intent = || {
        let inside = rig.tmpfs().inside().join("runs/only-1/run.json");
        let text = fs::read(inside).unwrap_or_default();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap_or_default()
    };
    until("it is said", || rig.log().contains("the engine's process cannot be written down").then_some(()));
    assert!(intent()["nonce"].is_string() && intent()["main"].is_null(), "{}", intent());
    rig.tmpfs().empty();
    until("it is written down", || (intent()["main"]["pid"] == engine).then_some(()));
}

/// Seen to fail without `Parting::Silent`: the engine goes on, and nobody reads what it writes.
#[test]
fn a_shim_that_does_not_answer_is_killed_and_its_engine_replaced() {
    let rig = Rig::start(&[tier("only", "\"ignore_term\": true", QUICK)]);
    rig.until_serving("only");
    let (shim, engine) = pids(&rig, "only");
    send(shim, Signal::SIGSTOP);
    let process = rig.until_process("another run is ready", "only", |p| {
        (p.run == Some(2) && p.state == ProcessState::Ready).then(|| p.clone())
    });
    let exit = process.last_exit.expect("the first run has ended");
    assert!(words(&exit).contains("does not answer: it is stopped"), "{exit:?}");
    assert!(!process::is_alive(shim) && !process::is_alive(engine));
}

/// Seen to fail: the agent said that every engine had ended, and left this one running.
#[test]
fn an_agent_that_ends_leaves_nothing_under_a_shim_that_does_not_answer() {
    let mut rig = Rig::start(&[tier("only", "\"ignore_term\": true", QUICK)]);
    rig.until_serving("only");
    let (shim, engine) = pids(&rig, "only");
    send(shim, Signal::SIGSTOP);
    rig.signal(Signal::SIGTERM);
    assert!(rig.ended().success(), "{}", rig.log());
    assert!(!process::is_alive(shim) && !process::is_alive(engine));
    assert!(!rig.log().contains("wedged"), "{}", rig.log());
}

/// Seen to fail: the next agent waited for ever.
#[test]
fn the_next_agent_kills_an_earlier_ones_shim_that_does_not_answer() {
    let mut rig = Rig::start(&[tier("only", "\"ignore_term\": true", QUICK)]);
    rig.until_serving("only");
    let (shim, engine) = pids(&rig, "only");
    send(shim, Signal::SIGSTOP);
    rig.signal(Signal::SIGKILL);
    rig.ended();
    rig.start_again();
    rig.until_serving("only");
    assert_eq!(rig.process("only").run, Some(2));
    assert!(!process::is_alive(shim) && !process::is_alive(engine), "the run before has ended first");
}

/// Seen to fail: it said that every engine had ended, and exited 0.
#[test]
fn an_agent_that_cannot_end_a_process_names_it_and_exits_1() {
    let mut rig = Rig::start(&[tier("only", "", QUICK)]);
    rig.until_serving("only");
    let (_, engine) = pids(&rig, "only");
    let hold = Hold::on(engine);
    rig.signal(Signal::SIGTERM);
    assert_eq!(rig.ended().code(), Some(1), "{}", rig.log());
    let named = format!("although it was sent SIGKILL: pid {engine}");
    assert!(rig.log().contains(&named), "{}", rig.log());
    hold.let_go();
}

/// Seen to fail: both engines lived on, and so did the directory of the one that nobody knew any more.
#[test]
fn what_a_crash_left_of_tiers_that_are_not_started_again_is_ended_too() {
    let stubborn = "\"ignore_term\": true";
    let tiers = ["kept", "gone", "idle"];
    let tables = [tier("kept", "", QUICK), tier("gone", stubborn, QUICK), tier("idle", stubborn, MANUAL)];
    let mut rig = Rig::start(&tables);
    rig.order("idle", Order::Start).expect("it is taken");
    tiers.into_iter().for_each(|name| drop(rig.until_state(name, ProcessState::Ready)));
    let [_, gone, idle] = tiers.map(|name| pids(&rig, name));
    send(idle.0, Signal::SIGSTOP);
    kill_agent_and_shim(&mut rig, gone.0);
    send(idle.0, Signal::SIGKILL);
    let typed = fs::read_to_string(rig.config()).expect("the configuration");
    fs::write(rig.config(), typed.replace(&tables[1], "")).expect("the configuration");
    rig.start_again();
    rig.until_serving("kept");
    until("what was left has ended", || {
        (!process::is_alive(gone.1) && !process::is_alive(idle.1)).then_some(())
    });
    let run = |name: &str| rig.run_dir().join("runs").join(name);
    until("nothing is left of a tier that is not configured", || (!run("gone-1").exists()).then_some(()));
    assert!(run("idle-1").join("log").exists(), "what a configured one wrote can still be read");
    rig.until_state("idle", ProcessState::Stopped);
}

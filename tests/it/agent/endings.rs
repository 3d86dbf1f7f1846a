//! How agents end, and what the next one finds.
use super::rig::{Rig, tier};
use crate::support::hold::Hold;
use crate::support::{mainstay, process, until};
use mainstay::control::wire::ProcessState;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Read;
use std::process::Command;

const QUICK: &str = "stop_grace = \"1s\"";

#[test]
fn a_stop_lets_open_answers_finish_and_leaves_nothing() {
    let mut rig = Rig::start(&[tier("only", "\"tokens\": 30, \"token_ms\": 50", QUICK)]);
    rig.until_serving("only");
    let mut stream = rig.stream();
    let mut begun = [0_u8; 1];
    stream.read_exact(&mut begun).expect("the answer has begun");
    rig.signal(Signal::SIGTERM);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("the whole answer");
    assert!(rest.contains("[DONE]") && !rest.contains("stream_cut"), "{rest}");
    assert!(rig.ended().success());
    assert_eq!(rig.left(), Vec::<u32>::new());
    assert!(!rig.run_dir().join("status.sock").exists());
}

#[test]
fn a_second_signal_does_not_wait() {
    let mut rig =
        Rig::start(&[tier("only", "\"ignore_term\": true, \"silent_at\": 3", "stop_grace = \"10m\"")]);
    rig.until_serving("only");
    let mut stream = rig.stream();
    stream.read_exact(&mut [0_u8; 1]).expect("the answer has begun");
    rig.signal(Signal::SIGINT);
    until("the drain has begun", || rig.log().contains("asked to stop").then_some(()));
    rig.signal(Signal::SIGINT);
    assert!(rig.ended().success());
    assert_eq!(rig.left(), Vec::<u32>::new());
}

#[test]
fn when_the_agent_dies_its_engines_end_and_the_next_agent_starts_new_runs() {
    let knobs = "\"double_fork\": true, \"ignore_term\": true, \"workers\": [\"painted\"]";
    let mut rig = Rig::start(&[tier("only", knobs, QUICK)]);
    rig.until_serving("only");
    let engine = rig.process("only").pid.expect("it runs");
    // As vLLM's workers do, it has painted over its environment, and with it over the mark of its run.
    let worker = until("its worker is there", || process::children(engine).first().copied());
    rig.signal(Signal::SIGKILL);
    rig.ended();
    rig.start_again();
    rig.until_serving("only");
    assert_eq!(rig.process("only").run, Some(2), "run numbers are not used again");
    assert_eq!(rig.log().matches("was killed or crashed").count(), 1, "{}", rig.log());
    assert!(!process::is_alive(engine) && !process::is_alive(worker), "the run before has ended first");
    rig.signal(Signal::SIGTERM);
    assert!(rig.ended().success());
    assert_eq!(rig.left(), Vec::<u32>::new());
}

#[test]
fn what_a_killed_shim_leaves_in_its_directory_is_removed_but_for_its_log() {
    let mut rig = Rig::start(&[tier("only", "", QUICK)]);
    rig.until_serving("only");
    let process = rig.process("only");
    let (shim, engine) = (process.shim_pid.expect("a shim"), process.pid.expect("an engine"));
    let send = |pid: u32, signal| kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), signal);
    // Stopped, it cannot tidy up when the agent is gone.
    send(shim, Signal::SIGSTOP).expect("the shim is there");
    rig.signal(Signal::SIGKILL);
    rig.ended();
    send(shim, Signal::SIGKILL).expect("the shim is there");
    let _ = send(engine, Signal::SIGKILL);
    let run = rig.run_dir().join("runs/only-1");
    let tmp = std::fs::read_dir(rig.state_dir().join("tmp")).expect("a directory").flatten().next();
    let left = [run.join("shim.sock"), tmp.expect("the run's TMPDIR").path()];
    assert!(left.iter().all(|path| path.exists()), "there is something to remove");
    rig.start_again();
    rig.until_serving("only");
    until("they are removed", || left.iter().all(|path| !path.exists()).then_some(()));
    assert!(run.join("log").exists(), "what it wrote can still be read");
}

#[test]
fn a_second_agent_names_the_holder_and_exits_75() {
    let rig = Rig::start(&[tier("only", "", QUICK)]);
    let holder = rig.status().agent.pid;
    let second =
        Command::new(mainstay()).args(["run", "--config"]).arg(rig.config()).output().expect("it runs");
    assert_eq!(second.status.code(), Some(75));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains(&holder.to_string()), "{said}");
    rig.until_state("only", ProcessState::Ready);
}

#[test]
fn a_configuration_that_is_wrong_or_not_there_starts_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("mainstay.toml");
    let run = || {
        let run = Command::new(mainstay()).args(["run", "--config"]).arg(&file).output().expect("it runs");
        (run.status.code(), String::from_utf8_lossy(&run.stderr).into_owned())
    };
    assert_eq!(run().0, Some(66));
    std::fs::write(&file, "[server]\nlisten = 5\n").expect("a file");
    let (code, said) = run();
    assert_eq!(code, Some(78));
    assert!(said.contains("mainstay.toml:2:10: "), "{said}");
}

/// No run is ended there, so nothing else tells its clients.
#[test]
fn a_stream_of_a_remote_tier_is_cut_in_good_order_when_the_drain_is_over() {
    let far = Rig::start(&[tier("far", "\"tokens\": 10000, \"token_ms\": 100", QUICK)]);
    far.until_serving("far");
    let remote = format!(
        "[[tier]]\nname = \"remote\"\nengine = \"remote\"\nurl = \"http://{}\"\nmodel = \"far-model\"\n",
        far.endpoint()
    );
    let mut rig = Rig::start(&[remote]);
    rig.until_serving("remote");
    let mut stream = rig.stream();
    stream.read_exact(&mut [0_u8; 1]).expect("the answer has begun");
    rig.signal(Signal::SIGTERM);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("an answer that ends");
    assert!(
        rest.contains("\"code\":\"stream_cut\"") && !rest.contains("[DONE]"),
        "{}",
        &rest[rest.len().saturating_sub(500)..]
    );
    assert!(rig.ended().success());
}

/// Kills the agent, and its shim, which therefore ends nothing any more.
pub fn kill_agent_and_shim(rig: &mut Rig, shim: u32) {
    send(shim, Signal::SIGSTOP);
    rig.signal(Signal::SIGKILL);
    rig.ended();
    send(shim, Signal::SIGKILL);
}

pub fn send(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), signal);
}

#[test]
fn what_cannot_be_killed_keeps_the_next_agent_from_a_second_run() {
    let mut rig = Rig::start(&[tier("only", "", QUICK), tier("spare", "", QUICK)]);
    rig.until_serving("only");
    let process = rig.process("only");
    let (shim, engine) = (process.shim_pid.expect("a shim"), process.pid.expect("an engine"));
    let hold = Hold::on(engine);
    kill_agent_and_shim(&mut rig, shim);
    rig.start_again();
    rig.until_serving("spare");
    let wedged = rig.until_state("only", ProcessState::Wedged);
    assert!(process::is_alive(engine));
    assert_eq!((wedged.run, wedged.pid), (Some(2), None), "nothing was started beside it");
    hold.let_go();
    rig.until_serving("only");
    assert!(!process::is_alive(engine));
    rig.signal(Signal::SIGTERM);
    assert!(rig.ended().success());
    assert_eq!(rig.left(), Vec::<u32>::new());
}

/// As systemd does when an agent dies: no shim lives to remove what vLLM leaves there.
#[test]
fn shared_memory_of_a_run_whose_shim_was_killed_is_removed_by_the_next_agent() {
    let [ours, anothers] = ["ours", "anothers"].map(|name| format!("psm_{name}{}", std::process::id()));
    let [left, stays] = [&ours, &anothers].map(|name| std::path::Path::new("/dev/shm").join(name));
    let mut rig = Rig::start(&[tier("only", &format!("\"shm_files\": [\"{ours}\"]"), QUICK)]);
    rig.until_serving("only");
    std::fs::write(&stays, "").expect("a file");
    let process = rig.process("only");
    let (shim, engine) = (process.shim_pid.expect("a shim"), process.pid.expect("an engine"));
    until("its shim knows the file", || rig.run_dir().join("runs/only-1/shm").exists().then_some(()));
    kill_agent_and_shim(&mut rig, shim);
    send(engine, Signal::SIGKILL);
    assert!(left.exists(), "there is something to remove");
    // The next run makes it anew, so it is another file then.
    let inode = |path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).expect("it is there"));
    let before = inode(&left);
    rig.start_again();
    rig.until_serving("only");
    assert_ne!(inode(&left), before, "it was removed first");
    until("the next shim knows it", || rig.run_dir().join("runs/only-2/shm").exists().then_some(()));
    assert!(stays.exists(), "what was in nobody's hands that we know is left alone");
    rig.signal(Signal::SIGTERM);
    assert!(rig.ended().success());
    assert!(!left.exists());
    std::fs::remove_file(&stays).expect("it is there");
}

/// Incidents, events and mail of two agents must not mix.
#[test]
fn a_second_agent_over_the_same_state_directory_exits_75() {
    let rig = Rig::start(&[tier("only", "", QUICK)]);
    let holder = rig.status().agent.pid;
    let text = std::fs::read_to_string(rig.config()).expect("a configuration");
    let elsewhere = tempfile::tempdir().expect("a directory");
    let file = elsewhere.path().join("mainstay.toml");
    let run_dir = rig.run_dir().display().to_string();
    let own = elsewhere.path().join("run").display().to_string();
    std::fs::write(&file, text.replace(&run_dir, &own)).expect("a configuration");
    let second = Command::new(mainstay()).args(["run", "--config"]).arg(&file).output().expect("it runs");
    assert_eq!(second.status.code(), Some(75));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains(&holder.to_string()) && said.contains("agent.state_dir"), "{said}");
}

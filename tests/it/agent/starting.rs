//! A start that goes on, one that stands still, what is shown of both, and `mainstay wait`.
use super::rig::{Rig, chat_at, tier, turn_at};
use crate::support::{mainstay, until};
use mainstay::clock;
use mainstay::control::wire::ProcessState;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs;
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const QUICK: &str = "stop_grace = \"1s\"\nrestart = { base = \"100ms\", max = \"200ms\" }";
const SHORT: &str = "stop_grace = \"1s\"\nrestart = { base = \"1h\", max = \"1h\", first = \"1h\" }\nstartup = { stall = \"2s\", cap = \"10m\" }";

/// As llama-server says it.
const LOADING: &str = "\"print_err\": [\"srv load_model: loading model x\"]";

fn wait(rig: &Rig, arguments: &[&str]) -> Command {
    let mut command = Command::new(mainstay());
    command.arg("wait").args(arguments).arg("--run-dir").arg(rig.run_dir()).stdin(Stdio::null());
    command
}

fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Seen to fail (by hand) with the agent before it, for which every line was a sign of life: it went on for ever.
#[test]
fn a_start_that_only_repeats_itself_is_given_up_and_says_what_stood_still() {
    let knobs = "\"never_ready\": true, \"repeat\": \"waiting for peers\"";
    let rig = Rig::start(&[tier("only", knobs, SHORT)]);
    let exit = rig.until_process("the start is given up", "only", |p| p.last_exit.clone());
    assert_eq!(exit.cause, "hang");
    let evidence = exit.evidence.expect("a reason");
    let reason =
        "no progress for 2 s while starting: no new line, CPU, memory and disk stood still; it repeats: ";
    assert!(evidence.starts_with(reason) && evidence.ends_with("waiting for peers"), "{evidence}");
}

#[test]
fn a_silent_start_that_works_is_left_alone() {
    let rig = Rig::start(&[tier("only", "\"ready_after\": 9, \"spin\": true", SHORT)]);
    rig.until_state("only", ProcessState::Ready);
    assert_eq!(rig.process("only").last_exit, None, "one start was enough");
}

#[test]
fn the_next_start_knows_how_long_the_last_one_took() {
    let mut rig = Rig::start(&[tier("only", &format!("\"bind_after\": 3, {LOADING}"), QUICK)]);
    let first = rig.until_process("its stage is read", "only", |p| {
        p.progress.clone().filter(|progress| progress.stage == "loading weights")
    });
    assert_eq!((first.percent, first.eta_s), (None, None), "nothing is known of earlier starts");
    rig.until_serving("only");
    let file = rig.state_dir().join("starts/only.json");
    let kept = until("it is written down", || fs::read_to_string(&file).ok());
    assert!(kept.contains("\"engine\":\"llama-server\",\"model\":\"only-model\""), "{kept}");
    rig.signal(Signal::SIGTERM);
    rig.ended();
    rig.start_again();
    let (mut highest, mut eta) = (0, None);
    rig.until_process("per cent and rest are known", "only", |p| {
        let progress = p.progress.as_ref()?;
        let percent = progress.percent.unwrap_or(highest);
        assert!(percent >= highest, "per cent runs backwards: {highest}, {percent}");
        (highest, eta) = (percent, eta.or(progress.eta_s));
        (highest > 20 && eta.is_some()).then_some(())
    });
    rig.until_serving("only");
    assert_eq!(rig.process("only").progress, None, "it is no longer starting");
}

#[test]
fn wait_ends_when_the_endpoint_answers_and_tells_each_stage_once() {
    let rig = Rig::start(&[
        tier("best", &format!("\"bind_after\": 4, {LOADING}"), QUICK),
        tier("spare", "\"ready_after\": 1", QUICK),
    ]);
    let waiting = wait(&rig, &["--tier", "best"]).stdout(Stdio::piped()).spawn().expect("it runs");
    let (code, out, err) = told(&wait(&rig, &[]).output().expect("it runs"));
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.lines().last().is_some_and(|line| line.starts_with("spare is ready (")), "{out}");
    let (code, out, _) = told(&waiting.wait_with_output().expect("it runs"));
    assert_eq!(code, Some(0), "{out}");
    assert_eq!(out.matches("best: loading weights\n").count(), 1, "{out}");
    assert!(out.lines().last().is_some_and(|line| line.starts_with("best is ready (")), "{out}");
}

#[test]
fn wait_says_why_it_gives_up() {
    let rig = Rig::start(&[
        tier("held", "", &format!("{QUICK}\nargs = [\"--no-such-flag\"]")),
        tier("slow", "\"never_ready\": true", QUICK),
    ]);
    let (code, _, err) = told(&wait(&rig, &["--tier", "held"]).output().expect("it runs"));
    assert_eq!(code, Some(1));
    let why = "mainstay: held is held: bad-argument: error: invalid argument: --no-such-flag; it is tried again at ";
    assert!(err.starts_with(why) && err.contains("mainstay start held"), "{err}");
    let (code, _, err) = told(&wait(&rig, &["--timeout", "1s"]).output().expect("it runs"));
    assert_eq!(code, Some(1));
    assert!(err.starts_with("mainstay: not ready after 1s\n") && err.contains("\nslow: starting"), "{err}");
    let (code, _, err) = told(&wait(&rig, &["--tier", "nobody"]).output().expect("it runs"));
    assert_eq!(
        (code, err.as_str()),
        (Some(1), "mainstay: there is no tier \"nobody\"; there is: held, slow\n")
    );
    let (code, _, err) = told(&wait(&rig, &["--timeout", "soon"]).output().expect("it runs"));
    assert!(code == Some(2) && err.contains("90s"), "{err}");
}

#[test]
fn wait_waits_for_an_agent_and_for_its_restart() {
    let mut rig = Rig::start(&[tier("only", "\"ready_after\": 2", QUICK)]);
    rig.signal(Signal::SIGTERM);
    rig.ended();
    let (code, _, err) = told(&wait(&rig, &["--timeout", "600ms"]).output().expect("it runs"));
    assert!(code == Some(69) && err.contains("no agent answers"), "{err}");
    let waiting = wait(&rig, &[]).stdout(Stdio::piped()).spawn().expect("it runs");
    rig.start_again();
    let (code, out, _) = told(&waiting.wait_with_output().expect("it runs"));
    assert_eq!(code, Some(0), "{out}");
    assert!(out.lines().last().is_some_and(|line| line.starts_with("only is ready (")), "{out}");
}

/// Suspended, or stopped by somebody for longer than a start may take: that time is none of the start's.
#[test]
fn time_in_which_the_agent_does_not_run_does_not_count_for_a_start() {
    const CAP: Duration = Duration::from_secs(10);
    let keys = "stop_grace = \"1s\"\nstartup = { stall = \"10s\", cap = \"10s\" }";
    let rig = Rig::start(&[tier("only", "\"never_ready\": true", keys)]);
    rig.until_process("its process is there", "only", |p| p.pid);
    until("its knobs can be turned", || {
        let url = rig.tier("only").url?;
        TcpStream::connect(url.trim_start_matches("http://")).ok()
    });
    let url = rig.tier("only").url.expect("a running engine");
    rig.signal(Signal::SIGSTOP);
    let stopped = clock::now();
    until("a start is capped", || (clock::now().since(stopped) > CAP).then_some(()));
    turn_at(url.trim_start_matches("http://"), "\"never_ready\": false");
    rig.signal(Signal::SIGCONT);
    rig.until_serving("only");
    let process = rig.process("only");
    assert_eq!((process.run, process.last_exit), (Some(1), None), "one start was enough");
}

/// What earlier agents wrote stands on a disk that does not answer: a pipe that nobody writes to. It is waited for a while.
#[test]
fn whoever_asks_while_the_agent_starts_is_told_of_its_tiers() {
    let mut rig = Rig::start(&[tier("only", "\"ready_after\": 60", QUICK)]);
    rig.signal(Signal::SIGTERM);
    rig.ended();
    let events = rig.state_dir().join("events.jsonl");
    fs::remove_file(&events).expect("the agent has written events");
    mkfifo(&events, Mode::S_IRWXU).expect("a pipe");
    rig.spawn_again();
    let endpoint = until("it listens", || rig.listening());
    let (status, answer) = chat_at(&endpoint);
    assert!(status == 503 && answer.contains("only: its engine is starting"), "{answer}");
}

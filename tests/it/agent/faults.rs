//! Engines that misbehave: bounded, visible, harmless.
use super::rig::{Rig, tier};
use crate::support::{process, until};
use mainstay::control::wire::ProcessState;
use mainstay::policy::Command as Order;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const QUICK: &str = "restart = { base = \"100ms\", max = \"200ms\" }\nstop_grace = \"1s\"";

/// The engine under test, and one behind it that is ready to answer in its place.
fn pair(knobs: &str, keys: &str) -> Rig {
    let rig = Rig::start(&[tier("best", knobs, keys), tier("spare", "", QUICK)]);
    rig.until_state("spare", ProcessState::Ready);
    rig
}

fn kill_9(pid: u32) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGKILL).expect("it lives");
}

#[test]
fn a_killed_engine_comes_back_and_clients_are_answered_meanwhile() {
    let rig = pair("", QUICK);
    rig.until_serving("best");
    let killed = rig.process("best").pid.expect("it runs");
    kill_9(killed);
    let (status, answer) = rig.chat();
    assert_eq!(status, 200, "{answer}");
    let back = rig.until_process("a second run is ready", "best", |p| {
        (p.run == Some(2) && p.state == ProcessState::Ready).then(|| p.clone())
    });
    let exit = back.last_exit.expect("the first run ended");
    assert_eq!((exit.signal.as_deref(), exit.cause.as_str()), (Some("SIGKILL"), "killed-from-outside"));
    assert_eq!((back.restarts, back.strikes), (1, 1));
    rig.until_serving("best");
    until("both are told", || {
        let log = rig.log();
        (log.contains("failover") && log.contains("return")).then_some(())
    });
}

#[test]
fn an_exit_that_nobody_asked_for_is_a_failure_even_with_code_0() {
    let rig = pair("", QUICK);
    rig.until_serving("best");
    rig.turn("best", "\"exit_code\": 0");
    let exit = rig.until_process("the first run has ended", "best", |p| p.last_exit.clone());
    assert_eq!(exit.code, Some(0));
    assert_ne!(exit.cause, "asked");
    rig.until_process("it is started again", "best", |p| (p.run >= Some(2)).then_some(()));
}

#[test]
fn a_crash_loop_is_bounded_and_an_operator_can_end_the_hold() {
    let rig = pair("\"exit_code\": 3", QUICK);
    let held = rig.until_state("best", ProcessState::Held);
    assert_eq!(held.run, Some(3), "three runs that were never ready");
    assert!(held.next_start.is_some(), "no engine is given up for ever");
    assert_eq!(rig.status().serving.as_deref(), Some("spare"));
    assert_eq!(rig.chat().0, 200);
    rig.order("best", Order::Start).expect("a held engine can be started");
    rig.until_process("it was tried again", "best", |p| (p.run >= Some(4)).then_some(()));
}

#[test]
fn what_fails_the_same_way_each_time_is_not_hammered_and_says_why() {
    let rig = pair("", &format!("{QUICK}\nargs = [\"--no-such-flag\"]"));
    let held = rig.until_state("best", ProcessState::Held);
    assert_eq!(held.run, Some(2), "two deterministic failures are enough");
    let exit = held.last_exit.expect("it ended");
    assert_eq!(exit.cause, "bad-argument");
    assert_eq!(exit.evidence.as_deref(), Some("error: invalid argument: --no-such-flag"));
}

#[test]
fn an_engine_that_never_becomes_ready_is_replaced() {
    let rig =
        pair("\"never_ready\": true", &format!("{QUICK}\nstartup = {{ stall = \"1s\", cap = \"1s\" }}"));
    let exit = rig.until_process("the first start is given up", "best", |p| p.last_exit.clone());
    assert_eq!(exit.cause, "hang");
    assert_eq!(rig.chat().0, 200);
}

#[test]
fn term_may_be_ignored_and_daemons_may_hide_but_a_stop_leaves_nothing() {
    let rig = pair("\"ignore_term\": true, \"double_fork\": true, \"hold_pipe\": true", QUICK);
    rig.until_serving("best");
    let nonce = process::environ(rig.process("best").pid.expect("it runs"))
        .into_iter()
        .find(|entry| entry.starts_with("MAINSTAY_RUN="))
        .expect("every process of a run is marked");
    until("the daemon has hidden", || (process::with_environ(&nonce).len() >= 2).then_some(()));
    rig.order("best", Order::Stop).expect("it runs");
    let stopped = rig.until_state("best", ProcessState::Stopped);
    assert_eq!(stopped.last_exit.expect("it ended").cause, "asked");
    assert_eq!(process::with_environ(&nonce), Vec::<u32>::new());
}

#[test]
fn floods_long_lines_and_garbage_stop_nobody() {
    let rig = pair("\"long_lines\": 3, \"invalid_utf8\": true", QUICK);
    rig.until_serving("best");
    rig.turn("best", "\"flood\": true");
    let shim = rig.process("best").shim_pid.expect("a shim");
    for _ in 0..20 {
        let (status, answer) = rig.chat();
        assert!(status == 200 && answer.contains("x-mainstay-tier: best"), "{answer}");
    }
    assert!(process::rss_anon_kib(shim) <= 1024, "a flood makes the shim no larger than a MiB");
    rig.order("best", Order::Stop).expect("it runs");
    rig.until_state("best", ProcessState::Stopped);
    assert_eq!(rig.process("best").restarts, 0);
}

#[test]
fn a_hung_engine_is_left_and_replaced() {
    let keys = format!("{QUICK}\nsilence = \"1s\"\nsuspect = \"1s\"");
    let rig = pair("", &keys);
    rig.until_serving("best");
    rig.turn("best", "\"freeze\": true");
    let (status, answer) = rig.chat();
    assert!(status == 200 && answer.contains("x-mainstay-tier: spare"), "{answer}");
    let exit = rig.until_process("the hung run has ended", "best", |p| p.last_exit.clone());
    assert_eq!(exit.cause, "hang");
    rig.until_serving("best");
    assert_eq!(rig.chat().0, 200);
}

/// vLLM sends the head of a stream at once, also when its core hangs, so new clients look like life.
#[test]
fn heads_and_new_clients_do_not_hide_a_hang() {
    let keys = format!("{QUICK}\nsilence = \"1s\"\nsuspect = \"1s\"");
    let rig = pair("", &keys);
    rig.until_serving("best");
    rig.turn("best", "\"freeze\": true");
    let mut clients = Vec::new();
    let exit = rig.until_process("the hung run has ended", "best", |p| {
        if clients.len() < 200 {
            clients.push(rig.stream());
        }
        p.last_exit.clone()
    });
    assert_eq!(exit.cause, "hang");
    assert!(
        rig.log().matches("hang proven").count() <= 2,
        "it is not trusted again meanwhile:\n{}",
        rig.log()
    );
}

#[test]
fn a_dead_shim_takes_its_run_with_it_and_a_new_one_begins() {
    let rig = pair("\"double_fork\": true", QUICK);
    rig.until_serving("best");
    let (shim, pid) =
        (rig.process("best").shim_pid.expect("a shim"), rig.process("best").pid.expect("it runs"));
    kill_9(shim);
    rig.until_process("a second run is ready", "best", |p| {
        (p.run == Some(2) && p.state == ProcessState::Ready).then_some(())
    });
    assert!(!process::is_alive(pid), "never two live runs of one engine");
}

/// Nobody else at the tier's port may be taken for its engine.
/// It answers as a healthy engine would, while our own is still on its way to the port.
#[test]
fn a_stranger_at_the_port_is_not_asked() {
    let stranger = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = stranger.local_addr().expect("its address").port();
    let gone = Arc::new(AtomicBool::new(false));
    let is_gone = Arc::clone(&gone);
    let answering = std::thread::spawn(move || {
        for stream in stranger.incoming() {
            if is_gone.load(Relaxed) {
                return;
            }
            let _ = stream
                .and_then(|mut stream| stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"));
        }
    });
    let rig = pair("\"bind_after\": 3", &format!("{QUICK}\nport = {port}"));
    let exit = rig.until_process("the start has failed", "best", |p| p.last_exit.clone());
    assert_eq!(exit.cause, "port-in-use");
    assert!(!rig.log().contains("to=\"best\""), "it never serves:\n{}", rig.log());
    gone.store(true, Relaxed);
    let _ = TcpStream::connect(("127.0.0.1", port));
    answering.join().expect("it leaves");
    rig.until_serving("best");
}

/// One hung tier, and nothing behind it: that is an outage, and everybody who looks has to see one.
#[test]
fn a_proven_hang_of_the_only_tier_is_refused_at_once_and_shown() {
    let keys = format!("{QUICK}\nsilence = \"1s\"\nsuspect = \"1h\"");
    let rig = Rig::start(&[tier("only", "", &keys)]);
    rig.until_serving("only");
    rig.turn("only", "\"freeze\": true");
    let _hung = rig.stream();
    until("the hang is proven", || rig.status().serving.is_none().then_some(()));
    assert!(!rig.tier("only").routable);
    let (status, answer) = rig.chat();
    assert!(status == 503 && answer.contains("hang proven"), "{answer}");
}

#[test]
fn without_any_tier_the_refusal_comes_at_once_and_says_why() {
    let rig = Rig::start(&[tier("only", "\"exit_code\": 3", QUICK)]);
    rig.until_state("only", ProcessState::Held);
    let (status, answer) = rig.chat();
    assert_eq!(status, 503, "{answer}");
    // The cause is the operator's affair: it is in the log, under the id that the client has.
    assert!(!answer.contains("exit code 3"), "{answer}");
    let fields = answer.lines().filter_map(|line| line.split_once(": "));
    let id = fields.filter(|(name, _)| name.eq_ignore_ascii_case("x-request-id")).map(|(_, id)| id).next();
    let id = id.expect("a request id");
    let is_it = |line: &str| line.contains(id) && line.contains("exit code 3");
    until("the log says why", || rig.log().lines().any(is_it).then_some(()));
    assert!(answer.to_lowercase().contains("retry-after: "), "{answer}");
    assert!(answer.contains("all_tiers_down") && answer.contains("held"), "{answer}");
}

//! Signals that are sent to the agent, and what it tells systemd when it stops.
use super::rig::{Rig, tier};
use crate::support::{process, until};
use mainstay::control::wire::ProcessState;
use nix::sys::signal::Signal;
use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

const QUICK: &str = "stop_grace = \"1s\"";

#[test]
fn signals_that_mean_something_else_elsewhere_do_not_end_the_agent() {
    let mut rig = Rig::start(&[tier("only", "", QUICK)]);
    rig.until_serving("only");
    let (agent, engine) = (rig.pid(), rig.process("only").pid);
    for signal in [
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGVTALRM,
        Signal::SIGPROF,
        Signal::SIGIO,
        Signal::SIGPWR,
        Signal::SIGSTKFLT,
        Signal::SIGXFSZ,
    ] {
        rig.signal(signal);
        let told = format!("{} means nothing to mainstay", signal.as_str());
        until("the signal is told of", || {
            (rig.log().contains(&told) || !process::is_alive(agent)).then_some(())
        });
        assert!(process::is_alive(agent), "{signal} has ended the agent");
    }
    let only = rig.until_state("only", ProcessState::Ready);
    assert_eq!((only.pid, rig.chat().0), (engine, 200));
    rig.signal(Signal::SIGTERM);
    assert!(rig.ended().success());
}

#[test]
fn a_stop_asks_systemd_for_the_time_that_it_takes() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("notify");
    let systemd = UnixDatagram::bind(&path).expect("a socket");
    systemd.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
    let until_told = |wanted: &str| loop {
        let mut text = [0; 4096];
        let length = systemd.recv(&mut text).expect("a message comes");
        let told = String::from_utf8_lossy(&text[..length]).into_owned();
        if told.contains(wanted) {
            return;
        }
    };
    let knobs = "\"tokens\": 30, \"token_ms\": 50";
    let env = [("NOTIFY_SOCKET", path.to_str().expect("text"))];
    let mut rig = Rig::start_with_env(&env, "", &[tier("only", knobs, QUICK)]);
    until_told("READY=1");
    rig.until_serving("only");
    let mut stream = rig.stream();
    stream.read_exact(&mut [0_u8; 1]).expect("the answer has begun");
    rig.signal(Signal::SIGTERM);
    until_told("STOPPING=1");
    until_told("EXTEND_TIMEOUT_USEC=20000000");
    assert!(rig.ended().success());
}

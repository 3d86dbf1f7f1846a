//! A probe that survives SIGKILL, as one does that is stuck in the driver.
use super::driver::{Driver, Untouched, is_unknown, probe_of, script, until_probe};
use crate::support::hold::Hold;
use crate::support::{process, until};
use mainstay::control::wire::GpuProbeState;
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn a_probe_that_survives_kill_is_left_alone_until_it_is_gone() {
    let driver = Driver::new(&script(&json!({ "from": 2, "hang": ["nvmlDeviceGetTemperature"] })));
    let rig = driver.rig(&[], "");
    let untouched = Untouched::now(&rig);
    until_probe(&rig, GpuProbeState::Ok);
    let stuck = probe_of(&rig).expect("a probe");
    let hold = Hold::on(stuck);
    let status = until_probe(&rig, GpuProbeState::Wedged);
    is_unknown(&status.gpus[0]);
    assert!(process::is_alive(stuck));
    assert_eq!(probe_of(&rig), Some(stuck), "no other is started beside it");
    untouched.check(&rig);
    driver.play(&script(&json!({})));
    hold.let_go();
    let status = until_probe(&rig, GpuProbeState::Ok);
    assert_eq!(status.gpus[0].temperature_c, Some(61.0));
    assert_ne!(probe_of(&rig), Some(stuck));
    untouched.check(&rig);
}

#[test]
fn the_agent_ends_without_a_probe_that_cannot_be_ended() {
    let driver = Driver::new(&script(&json!({})));
    let mut rig = driver.rig(&[], "");
    until_probe(&rig, GpuProbeState::Ok);
    let stuck = probe_of(&rig).expect("a probe");
    let hold = Hold::on(stuck);
    rig.signal(Signal::SIGTERM);
    assert!(rig.ended().success());
    assert!(rig.log().contains("it is left behind"), "{}", rig.log());
    assert!(process::is_alive(stuck));
    hold.let_go();
    until("it is gone", || (!process::is_alive(stuck)).then_some(()));
}

#[test]
fn a_probe_ends_with_its_agent_however_that_ends() {
    let driver = Driver::new(&script(&json!({ "from": 2, "hang": ["nvmlDeviceGetTemperature"] })));
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut rig = driver.rig(&[], "");
        until_probe(&rig, GpuProbeState::Unresponsive);
        let probe = probe_of(&rig).expect("a probe that hangs");
        rig.signal(signal);
        rig.ended();
        until("it is gone", || (!process::is_alive(probe)).then_some(()));
    }
}

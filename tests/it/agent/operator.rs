//! What an operator can ask for.
use super::rig::{Rig, tier};
use crate::support::until;
use mainstay::control::client::Failure;
use mainstay::control::wire::ProcessState;
use mainstay::policy::Command as Order;
use nix::sys::signal::Signal;

const QUICK: &str = "stop_grace = \"1s\"\nrestart = { base = \"100ms\", max = \"200ms\" }";

#[track_caller]
fn refused(answer: Result<u64, Failure>, with: u16) {
    match answer {
        Err(Failure::Refused { status, why }) => assert_eq!(status, with, "{why}"),
        other => panic!("expected a refusal with {with}, got {other:?}"),
    }
}

#[test]
fn stop_start_and_restart_do_what_they_say_and_refuse_what_cannot_be() {
    let rig = Rig::start(&[
        tier("best", "", QUICK),
        "[[tier]]\nname = \"far\"\nengine = \"remote\"\nurl = \"http://127.0.0.1:9\"\n".to_owned(),
    ]);
    rig.until_serving("best");
    refused(rig.order("best", Order::Start), 409);
    refused(rig.order("far", Order::Restart), 409);
    refused(rig.order("nobody", Order::Stop), 404);
    rig.order("best", Order::Stop).expect("it runs");
    rig.until_state("best", ProcessState::Stopped);
    refused(rig.order("best", Order::Stop), 409);
    assert_eq!(rig.chat().0, 503);
    rig.order("best", Order::Start).expect("it is stopped");
    rig.until_serving("best");
    rig.order("best", Order::Restart).expect("it runs");
    let third = rig.until_process("the third run is ready", "best", |p| {
        (p.run == Some(3) && p.state == ProcessState::Ready).then(|| p.clone())
    });
    assert_eq!((third.restarts, third.strikes), (2, 0), "what was asked for is no strike");
}

#[test]
fn a_manual_tier_waits_for_its_operator() {
    let rig =
        Rig::start(&[tier("best", "", QUICK), tier("by-hand", "", &format!("{QUICK}\nstart = \"manual\""))]);
    rig.until_serving("best");
    assert_eq!(rig.process("by-hand").state, ProcessState::Stopped);
    assert_eq!(rig.process("by-hand").run, None);
    rig.order("by-hand", Order::Start).expect("it is stopped");
    rig.until_state("by-hand", ProcessState::Ready);
}

#[test]
fn an_on_demand_tier_starts_when_no_tier_above_is_ready() {
    let rig =
        Rig::start(&[tier("best", "", QUICK), tier("spare", "", &format!("{QUICK}\nstart = \"on-demand\""))]);
    rig.until_serving("best");
    let before = rig.process("spare");
    // While nothing was ready yet it may have been started; a tier above that is ready does not start it again.
    rig.order("best", Order::Stop).expect("it runs");
    rig.until_serving("spare");
    assert!(rig.process("spare").run >= before.run.or(Some(1)));
    assert_eq!(rig.chat().0, 200);
}

#[test]
fn hangup_checks_the_file_and_changes_nothing() {
    let rig = Rig::start(&[tier("best", "", QUICK)]);
    rig.until_serving("best");
    let good = std::fs::read_to_string(rig.config()).expect("the configuration");
    std::fs::write(rig.config(), format!("{good}\nno_such_key = 1\n")).expect("a worse one");
    rig.signal(Signal::SIGHUP);
    let problem = until("the problem is shown", || rig.status().agent.config_problem);
    assert!(problem.contains("no_such_key") && problem.contains("mainstay.toml:"), "{problem}");
    std::fs::write(rig.config(), good.replace("best-model", "other-model")).expect("another one");
    rig.signal(Signal::SIGHUP);
    until("the problem is gone", || rig.status().agent.config_problem.is_none().then_some(()));
    until("the log says what to do", || rig.log().contains("restart to apply").then_some(()));
    assert_eq!(rig.tier("best").model.as_deref(), Some("best-model"));
    assert_eq!(rig.process("best").run, Some(1));
}

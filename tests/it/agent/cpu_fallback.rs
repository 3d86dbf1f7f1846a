//! An engine that was to use a GPU and says that it runs on the CPU.
use super::rig::{Rig, tier};
use crate::support::until;
use mainstay::alert::{Record, Store};
use mainstay::control::feed::Event;
use mainstay::control::wire::{Health, Process, ProcessState};
use mainstay::policy::Command as Order;

const NONE: &str = "warning: no usable GPU found, --gpu-layers option will be ignored";
const QUICK: &str = "restart = { base = \"100ms\", max = \"200ms\" }\nstop_grace = \"1s\"";

/// A tier that was given a GPU, and whose engine has found none.
fn without_its_gpu(name: &str, keys: &str) -> String {
    let knobs = format!("\"print_err\": [\"{NONE}\"]");
    tier(name, &knobs, &format!("{QUICK}\n{keys}")).replace("gpus = []", "gpus = [0]")
}

fn told(rig: &Rig) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    let take = |line: Option<&str>| {
        events.extend(line.map(|line| serde_json::from_str(line).expect("an event")));
        true
    };
    rig.client().events(0, false, take).expect("the agent answers");
    events.into_iter().filter(|event| event.kind == "cpu-fallback").collect()
}

fn record(rig: &Rig, what: &str, is: impl Fn(&Record) -> bool) -> Record {
    let store = Store::at(&rig.state_dir());
    until(what, || store.load_all().ok()?.into_iter().find(|record| is(record)))
}

#[test]
fn an_engine_that_fell_back_to_the_cpu_serves_degraded_and_is_told_once() {
    let rig = Rig::start(&[without_its_gpu("best", ""), tier("spare", "", QUICK)]);
    rig.until_state("spare", ProcessState::Ready);
    let degraded = || Some(rig.tier("best")).filter(|tier| tier.health == Health::Degraded);
    let best = until("it is degraded", degraded);
    assert_eq!(
        (best.routable, best.reason.as_str()),
        (true, "it runs on the CPU, although it was to use a GPU")
    );
    // It keeps its place, and what checks find says the same again and again.
    let checked = best.check.last;
    until("it is checked again", || (rig.tier("best").check.last != checked).then_some(()));
    let (status, answer) = rig.chat();
    assert!(status == 200 && answer.contains("x-mainstay-tier: best"), "{answer}");
    let events = told(&rig);
    assert_eq!(events.len(), 1, "{events:?}");
    let event = &events[0];
    assert_eq!((event.tier.as_deref(), event.run), (Some("best"), Some(1)));
    assert_eq!((event.cause.as_deref(), event.evidence.as_deref()), (Some("cpu-fallback"), Some(NONE)));
    let open = record(&rig, "it is an incident", |record| record.kind == "gpu");
    assert_eq!((open.tier.as_str(), open.cause.as_str()), ("best", "cpu-fallback"));
    assert_eq!((open.evidence.as_deref(), open.is_open(), open.to), (Some(NONE), true, None));

    // The next run shows it again: that is told, and is the same incident.
    rig.order("best", Order::Restart).expect("it runs");
    until("the second run is told of", || (told(&rig).len() == 2).then_some(()));
    assert_eq!(told(&rig)[1].run, Some(2));
    assert_eq!(Store::at(&rig.state_dir()).ids().expect("a directory"), [open.id]);
}

#[test]
fn an_engine_that_was_told_to_use_the_cpu_is_healthy_on_it() {
    let own_words = without_its_gpu("best", "args = [\"-ngl\", \"0\"]");
    let rig = Rig::start(&[own_words, without_its_gpu("spare", "").replace("gpus = [0]", "gpus = []")]);
    for name in ["best", "spare"] {
        rig.until_state(name, ProcessState::Ready);
        let checks = || rig.tier(name).check.last;
        for _ in 0..4 {
            let last = checks();
            until("it is checked again", || (checks() != last).then_some(()));
        }
        assert_eq!(rig.tier(name).health, Health::Healthy, "{}", rig.tier(name).reason);
    }
    assert_eq!(told(&rig).len(), 0);
}

/// Of an engine that answers nobody the CPU time is looked at, where it computes on the CPU. On a GPU that shows nothing: a
/// process may wait for it by spinning.
#[test]
fn one_that_uses_the_cpu_is_left_alone_though_it_answers_nothing() {
    let keys = format!("{QUICK}\nsuspect = \"2s\"");
    let on_gpu = tier("gpu", "", &keys).replace("gpus = []", "gpus = [0]");
    let rig = Rig::start(&[without_its_gpu("cpu", "suspect = \"2s\""), on_gpu]);
    rig.until_state("gpu", ProcessState::Ready);
    until("it is found on the CPU", || (told(&rig).len() == 1).then_some(()));
    for name in ["cpu", "gpu"] {
        rig.turn(name, "\"hang\": true, \"flood\": true");
    }
    let is_back = |process: &Process| process.run == Some(2) && process.state == ProcessState::Ready;
    rig.until_process("it was restarted", "gpu", |process| is_back(process).then_some(()));
    let process = rig.process("cpu");
    assert_eq!((process.run, process.state), (Some(1), ProcessState::Ready), "{}", rig.log());
}

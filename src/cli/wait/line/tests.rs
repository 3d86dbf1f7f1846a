use super::*;
use crate::control::wire;
use serde_json::{Value, json};

/// A tier as the agent would say it.
fn tier(name: &str, routable: bool, process: Value) -> Value {
    json!({
        "name": name, "rank": 0, "engine": "vllm", "model": "m", "url": null, "health": if routable { "healthy" } else { "down" },
        "routable": routable, "reason": "connection refused", "since": "2026-11-22T21:47:00.123Z",
        "check": { "last": null, "latency_ms": null, "failures": 0 },
        "traffic": { "in_flight": 0, "requests": 0, "answered": 0, "failed_over": 0, "cut": 0 },
        "process": process
    })
}

fn process(state: &str, progress: Value, last_exit: Value) -> Value {
    json!({
        "run": 1, "state": state, "since": "2026-11-22T21:47:00.123Z", "pid": 1, "shim_pid": 1, "restarts": 0,
        "strikes": 0, "next_start": "2026-11-22T21:48:00.000Z", "rss": null, "cpu_s": null, "progress": progress,
        "last_exit": last_exit
    })
}

fn exit() -> Value {
    json!({ "run": 1, "at": "2026-11-22T21:47:00.123Z", "code": 1, "signal": null, "cause": "bad-argument",
            "evidence": "no such flag", "action": "held" })
}

fn status(state: &str, serving: Option<&str>, tiers: &[Value]) -> Status {
    let status = json!({
        "schema": 1,
        "agent": { "version": "0.1.0", "pid": 1, "started": "2026-11-22T21:47:00.123Z", "state": state, "listen": [],
                   "watchdog_s": null, "config": "c", "config_problem": null },
        "serving": serving, "tiers": tiers,
        "gpu_probe": { "state": "off", "driver": null, "since": null }, "gpus": [],
        "host": { "memory_total": null, "memory_available": null, "load": null }
    });
    serde_json::from_value::<wire::Status>(status).expect("a status")
}

fn starting() -> Value {
    let progress = json!({ "stage": "loading weights", "percent": 50, "stage_percent": 25, "eta_s": 24, "n": 1, "of": 4 });
    process("starting", progress, Value::Null)
}

#[track_caller]
fn check(status: &Status, name: Option<&str>, expected: &str) {
    let said = match outlook(status, name) {
        Outlook::Ready(name) => format!("ready: {name}"),
        Outlook::OnTheWay(tiers) => format!("wait: {}", changes(&tiers)),
        Outlook::Pointless(why) => why,
    };
    assert_eq!(said, expected);
}

#[test]
fn the_endpoint_is_ready_with_any_tier_and_a_tier_only_by_itself() {
    let both =
        [tier("best", false, starting()), tier("cpu", true, process("ready", Value::Null, Value::Null))];
    let status = status("serving", Some("cpu"), &both);
    check(&status, None, "ready: cpu");
    check(&status, Some("cpu"), "ready: cpu");
    check(&status, Some("best"), "wait: best: loading weights");
    check(&status, Some("bset"), "there is no tier \"bset\"; there is: best, cpu");
}

#[test]
fn waiting_is_pointless_only_when_nothing_is_on_its_way() {
    let held = tier("best", false, process("held", Value::Null, exit()));
    let why = "best is held: bad-argument: no such flag; it is tried again at 21:48:00 UTC; to try now: mainstay start best";
    check(&status("serving", None, std::slice::from_ref(&held)), None, why);
    check(&status("serving", None, &[held.clone(), tier("cpu", false, starting())]), Some("best"), why);
    let stopped = tier("cpu", false, process("stopped", Value::Null, Value::Null));
    let both = format!("{why}\ncpu is stopped; to start it: mainstay start cpu");
    check(&status("serving", None, &[held.clone(), stopped.clone()]), None, &both);
    check(&status("draining", None, &[stopped]), None, "wait: cpu: stopped");
    let restarts = tier("cpu", false, process("backoff", Value::Null, exit()));
    check(&status("serving", None, &[held.clone(), restarts]), None, "wait: best: held; cpu: backoff");
    let remote = tier("far", false, Value::Null);
    check(&status("serving", None, &[held, remote]), None, "wait: best: held; far: down");
    check(&status("starting", None, &[]), Some("best"), "wait: the agent is starting");
}

#[test]
fn a_terminal_sees_bar_stage_and_rest() {
    let slow = tier(
        "slow",
        false,
        process("starting", json!({ "stage": "compiling", "percent": null }), Value::Null),
    );
    let status = status("serving", None, &[slow, tier("best", false, starting())]);
    let Outlook::OnTheWay(tiers) = outlook(&status, None) else { panic!("nobody is ready") };
    let expected = "best: [##########..........] loading weights (1 of 4), 50 %, about 24s left";
    assert_eq!(bar(&tiers), expected);
    assert_eq!(bar(&tiers[..1]), "slow: compiling");
}

#[test]
fn who_was_waited_for_in_vain_is_told_how_it_stands() {
    let status = status(
        "serving",
        None,
        &[tier("best", false, starting()), tier("cpu", false, process("backoff", Value::Null, exit()))],
    );
    let now = crate::cli::status::paint::instant("2026-11-22T21:47:30Z").expect("a time");
    let expected = "best: starting (loading weights (1 of 4), 50 %, about 24s left)\n\
                    cpu: backoff: bad-argument: no such flag; starts again in 30s\n";
    assert_eq!(remains(&status, None, now), expected);
}

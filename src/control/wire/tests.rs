use super::*;
use crate::policy::{Cause, Ending, EngineId, Exit, Moment, RunId};
use serde_json::{Value, json};
use std::time::Duration;

/// The example of the contract, with values that have the right types.
fn example() -> Value {
    json!({
        "schema": 1,
        "agent": { "version": "0.1.0", "pid": 4711, "started": "2026-11-22T21:47:00.123Z", "state": "serving",
                   "listen": ["127.0.0.1:8000"], "watchdog_s": 30, "config": "/etc/mainstay/mainstay.toml", "state_dir": "/var/lib/mainstay",
                   "state_problem": null, "config_problem": null, "panics": 0, "poison_refused": 0 },
        "serving": "primary",
        "tiers": [
            { "name": "primary", "rank": 0, "engine": "vllm", "model": "m", "url": "http://127.0.0.1:20017",
              "mainstay": false,
              "health": "healthy", "routable": true, "reason": "answered in 12 ms", "cause": null,
              "since": "2026-11-22T21:47:00.123Z",
              "check": { "last": "2026-11-22T21:47:00.123Z", "latency_ms": 12.1, "failures": 0 },
              "traffic": { "in_flight": 3, "requests": 120, "answered": 118, "failed_over": 1, "cut": 1,
                           "client_errors": 1, "refused": 0, "skipped": 0, "abandoned": 0, "weakened": 2 },
              "process": { "run": 3, "state": "ready", "since": "2026-11-22T21:47:00.123Z", "pid": 4720,
                           "shim_pid": 4718, "restarts": 2, "strikes": 1, "next_start": null, "rss": 2048,
                           "cpu_s": 1.5, "progress": { "stage": "loading weights", "percent": 40, "stage_percent": 25,
                                                       "eta_s": 12, "n": 1, "of": 4 },
                           "last_exit": { "run": 2, "at": "2026-11-22T21:47:00.123Z", "code": null,
                                          "signal": "SIGKILL", "cause": "killed-from-outside", "evidence": "e",
                                          "action": "restarted at once" } } },
            { "name": "gpu2", "rank": 1, "engine": "remote", "model": null, "url": null, "health": "down",
              "mainstay": true,
              "routable": false, "reason": "connection refused", "cause": "network",
              "since": "2026-11-22T21:47:00.123Z",
              "check": { "last": null, "latency_ms": null, "failures": 3 },
              "traffic": { "in_flight": 0, "requests": 0, "answered": 0, "failed_over": 0, "cut": 0,
                           "client_errors": 0, "refused": 0, "skipped": 0, "abandoned": 0, "weakened": 0 },
              "process": null } ],
        "gpu_probe": { "state": "no-driver", "driver": "550.1", "since": "2026-11-22T21:47:00.123Z",
                       "reason": "r" },
        "gpus": [ { "index": 0, "uuid": "GPU-1", "pci": "0000:01:00.0", "name": "n", "verdict": "ok", "reason": "r",
                    "since": "2026-11-22T21:47:00.123Z", "temperature_c": 61.0, "memory_used": 1, "memory_total": 2,
                    "utilization": 0.4, "power_w": 210.5, "throttle": ["sw-thermal"], "throttle_share": 0.02,
                    "ecc": { "corrected": 0, "uncorrected": 0 },
                    "xids": [ { "xid": 79, "at": "2026-11-22T21:47:00.123Z", "count": 1, "action": "fence" } ],
                    "processes": [ { "pid": 4720, "memory": 1, "tier": "primary" } ] } ],
        "host": { "memory_total": 1, "memory_available": 1, "load": 0.5 },
        "failover_seconds": { "count": 2, "p50": 0.001, "p99": 0.002, "max": 0.002 },
        "incidents": [ { "id": 7, "tier": "primary", "kind": "failover", "opened": "2026-11-22T21:47:00.123Z",
                         "cause": "gpu-oom" } ],
        "mail": { "waiting": 1, "sent": 2, "lost": 0, "trouble": "t", "trouble_since": "2026-11-22T21:47:00.123Z" }
    })
}

#[test]
fn every_field_of_the_contract_is_read_and_written_back_under_its_name() {
    let read: Status = serde_json::from_value(example()).expect("the contract's example is readable");
    let written = serde_json::to_value(&read).expect("a status is writable");
    assert_eq!(written, example());
}

#[test]
fn a_status_of_a_newer_agent_is_readable() {
    let mut newer = example();
    newer["moon_phase"] = json!("full");
    newer["tiers"][0]["process"]["colour"] = json!("blue");
    let without = newer.as_object_mut().expect("an object");
    for name in ["failover_seconds", "incidents", "mail"] {
        without.remove(name);
    }
    let unset = |older: &mut Value, name: &str| older.as_object_mut().and_then(|it| it.remove(name));
    unset(&mut newer["tiers"][0]["process"]["progress"], "eta_s").expect("it was there");
    unset(&mut newer["gpu_probe"], "reason").expect("it was there");
    unset(&mut newer["gpus"][0], "processes").expect("it was there");
    let read: Status = serde_json::from_value(newer).expect("unknown fields are ignored");
    assert_eq!(read.failover_seconds, Distribution::default());
}

#[test]
fn names_for_people_are_the_names_on_the_wire() {
    use ProcessState::*;
    for state in [Stopped, Starting, Ready, Stopping, Backoff, Held, Wedged, Fenced] {
        assert_eq!(serde_json::to_value(state).ok(), Some(json!(state.name())));
    }
    for health in [Health::Healthy, Health::Degraded, Health::Down] {
        assert_eq!(serde_json::to_value(health).ok(), Some(json!(health.name())));
    }
    for state in [AgentState::Starting, AgentState::Serving, AgentState::Draining] {
        assert_eq!(serde_json::to_value(state).ok(), Some(json!(state.name())));
    }
}

#[test]
fn an_exit_shows_either_its_code_or_its_signal() {
    let check = |exit: Exit, code: Option<i32>, signal: Option<&str>| {
        let shown = LastExit::from(&policy::LastExit {
            run: RunId { engine: EngineId(0), number: 7 },
            at: Moment::from_nanos(1),
            ending: Ending {
                exit,
                cause: Cause::KilledFromOutside,
                nature: policy::Nature::Engine,
                deterministic: None,
                evidence: Some("line".into()),
            },
            action: "restarted at once".into(),
        });
        assert_eq!((shown.code, shown.signal.as_deref()), (code, signal));
        assert_eq!((shown.run, shown.cause.as_str()), (7, "killed-from-outside"));
    };
    check(Exit::Code(0), Some(0), None);
    check(Exit::Signal(9), None, Some("SIGKILL"));
    check(Exit::Signal(40), None, Some("SIG40"));
    check(Exit::Unknown, None, None);
}

#[test]
fn latency_is_shown_in_tenths_of_a_millisecond() {
    let shown = Check::from(&policy::CheckStatus {
        last: None,
        latency: Some(Duration::from_micros(12_149)),
        failures: 0,
    });
    assert_eq!(shown.latency_ms, Some(12.1));
}

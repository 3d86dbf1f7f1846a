//! What the operator is told of a failure: events, and the record of an incident, also when the agent is killed in the
//! middle.
use super::rig::{Rig, tier};
use crate::support::{mainstay, until};
use mainstay::alert::{Record, Store};
use mainstay::control::feed::Event;
use mainstay::control::wire::ProcessState;
use mainstay::policy::Command as Order;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

const QUICK: &str = "restart = { base = \"100ms\", max = \"200ms\" }\nstop_grace = \"1s\"";

fn pair(knobs: &str) -> Rig {
    let rig =
        Rig::start(&[tier("best", knobs, QUICK), tier("spare", "", &format!("{QUICK}\ndegrade = {{}}"))]);
    rig.until_state("spare", ProcessState::Ready);
    rig
}

fn state_dir(rig: &Rig) -> PathBuf {
    PathBuf::from(rig.status().agent.state_dir)
}

fn events(rig: &Rig, since: u64) -> Vec<Event> {
    let mut events = Vec::new();
    let take = |line: Option<&str>| {
        events.extend(line.map(|line| serde_json::from_str(line).expect("an event")));
        true
    };
    rig.client().events(since, false, take).expect("the agent answers");
    events
}

fn kill_engine(rig: &Rig, name: &str) {
    let pid = rig.process(name).pid.expect("it runs");
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGKILL).expect("it lives");
}

fn record_where(rig: &Rig, what: &str, is: impl Fn(&Record) -> bool) -> Record {
    let store = Store::at(&state_dir(rig));
    until(what, || store.load_all().ok()?.into_iter().find(|record| is(record)))
}

#[test]
fn a_failover_is_told_as_events_in_order_and_kept_as_one_incident() {
    let rig = pair("");
    rig.until_serving("best");
    kill_engine(&rig, "best");
    rig.until_process("a second run is ready", "best", |p| {
        (p.run == Some(2) && p.state == ProcessState::Ready).then_some(())
    });
    rig.until_serving("best");
    let told = events(&rig, 0);
    assert!(told.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1), "{told:?}");
    let kinds: Vec<&str> = told.iter().map(|event| event.kind.as_str()).collect();
    let after: Vec<&str> = kinds.iter().copied().skip_while(|kind| *kind != "exit").collect();
    assert_eq!(kinds[0], "started");
    assert_eq!(
        after,
        ["exit", "stopping", "health", "failover", "starting", "ready", "health", "return"],
        "{kinds:?}"
    );
    let failover = told.iter().find(|event| event.kind == "failover").expect("it was just there");
    assert_eq!(
        (failover.tier.as_deref(), failover.to.as_deref(), failover.cause.as_deref()),
        (Some("best"), Some("spare"), Some("killed-from-outside"))
    );

    let record = record_where(&rig, "the incident is over", |record| !record.is_open());
    assert_eq!((record.id, record.kind.as_str(), record.tier.as_str()), (1, "failover", "best"));
    assert_eq!((record.cause.as_str(), record.signal.as_deref()), ("killed-from-outside", Some("SIGKILL")));
    assert_eq!((record.to.as_deref(), record.run), (Some("spare"), Some(1)));
    assert!(record.evidence.is_some() && record.advice.is_some() && record.lasted_s.is_some(), "{record:?}");
    let lines: Vec<&str> = record.timeline.iter().map(|line| line.kind.as_str()).collect();
    assert_eq!(lines, after, "the incident's timeline is what the events told");
    assert!(record.scene.last_lines.iter().any(|line| line.contains("listening")), "{:?}", record.scene);
    assert!(record.scene.memory_available.is_some() && !record.scene.processes.is_empty());
}

#[test]
fn an_incident_counts_what_clients_felt() {
    let rig = Rig::start(&[tier("only", "\"exit_code\": 3", QUICK)]);
    let down = record_where(&rig, "nothing can answer", |record| record.kind == "all-down");
    assert_eq!(down.cause, "unknown");
    assert_eq!(down.advice.as_deref(), Some("read the log: `mainstay logs only`"));
    assert_eq!(rig.chat().0, 503);
    let felt = record_where(&rig, "a client was refused", |record| record.clients.refused > 0);
    assert_eq!((felt.id, felt.is_open()), (down.id, true));
}

/// A server of somebody else that answers every request with this status.
fn elsewhere(status: &Arc<AtomicU16>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    let status = Arc::clone(status);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let status = status.load(Relaxed);
            let _ = write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    port
}

#[test]
fn the_incident_of_a_remote_tier_tells_what_to_do_about_a_remote() {
    let status = Arc::new(AtomicU16::new(200));
    let url = format!("http://127.0.0.1:{}", elsewhere(&status));
    let far = format!("[[tier]]\nname = \"far\"\nengine = \"remote\"\nmodel = \"m\"\nurl = \"{url}\"\n");
    let rig = Rig::start(&[format!("{far}health = {{ interval = \"100ms\", timeout = \"5s\" }}\n")]);
    rig.until_serving("far");
    status.store(401, Relaxed);
    let record = record_where(&rig, "it refuses", |record| record.kind == "all-down");
    assert_eq!(record.cause, "auth-gated", "{record:?}");
    assert_eq!(record.advice.as_deref(), Some("check `api_key` of the tier, and the account at that server"));
    let action = record.action.unwrap_or_default();
    assert!(action.contains("passes its checks again"), "{action}");
    assert_eq!(rig.tier("far").cause.as_deref(), Some("auth-gated"));
    for (tier, expected) in
        [("far", format!("is remote: its log is on the server at {url}")), ("fat", "there is: far".into())]
    {
        let output = Command::new(mainstay())
            .args(["logs", tier])
            .env("MAINSTAY_RUN_DIR", rig.run_dir())
            .output()
            .expect("the product runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(&expected), "{said}");
    }
}

#[test]
fn what_an_operator_asks_for_is_an_event_and_no_incident() {
    let rig = pair("");
    rig.until_serving("best");
    let seq = rig.order("best", Order::Restart).expect("it runs");
    rig.until_process("a second run is ready", "best", |p| {
        (p.run == Some(2) && p.state == ProcessState::Ready).then_some(())
    });
    let asked: Vec<Event> = events(&rig, seq - 1);
    assert_eq!((asked[0].seq, asked[0].kind.as_str()), (seq, "operator"), "{asked:?}");
    let exit = asked.iter().find(|event| event.kind == "exit").expect("the first run has ended");
    assert_eq!(exit.cause.as_deref(), Some("asked"));
    assert_eq!(Store::at(&state_dir(&rig)).ids().expect("a directory").len(), 0);
}

#[test]
fn an_agent_that_is_killed_loses_neither_numbers_nor_its_open_incident() {
    let mut rig = pair("");
    rig.until_serving("best");
    rig.turn("best", "\"exit_code\": 3");
    let open = record_where(&rig, "best has failed", |record| record.tier == "best" && record.is_open());
    let seen = events(&rig, 0).last().expect("something happened").seq;
    rig.signal(Signal::SIGKILL);
    rig.ended();
    rig.start_again();
    let told = events(&rig, 0);
    let started = told.iter().rfind(|event| event.kind == "started").expect("another agent began");
    assert!(started.seq > open.timeline.last().expect("a line").seq, "{started:?}, {open:?}");
    let numbers: Vec<u64> = told.iter().map(|event| event.seq).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "seen were {seen}: {numbers:?}");
    // The engine is well in this agent's life, so what the one before it saw is over.
    let over = record_where(&rig, "the incident is over", |record| record.id == open.id && !record.is_open());
    assert_eq!((over.cause, over.opened), (open.cause, open.opened));
    assert!(over.timeline.len() > open.timeline.len() && over.scene.at.is_some(), "{:?}", over.timeline);
}

#[test]
fn the_command_line_tells_of_incidents_with_an_agent_and_without() {
    let mut rig = pair("");
    rig.until_serving("best");
    kill_engine(&rig, "best");
    record_where(&rig, "the incident is over", |record| !record.is_open());
    let state = state_dir(&rig);
    let run = |arguments: &[&str]| {
        let output = Command::new(mainstay())
            .args(arguments)
            .env("MAINSTAY_RUN_DIR", rig.run_dir())
            .output()
            .expect("the product runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, list) = run(&["incidents"]);
    assert!(
        code == Some(0) && list.contains("best -> spare") && list.contains("killed-from-outside"),
        "{list}"
    );
    let (code, page) = run(&["incident", "last"]);
    assert!(code == Some(0) && page.contains("incident 1 on") && page.contains("Timeline"), "{page}");
    let (code, json) = run(&["incident", "1", "--json"]);
    let record: Record = serde_json::from_str(&json).expect("a record");
    assert_eq!((code, record.id), (Some(0), 1));
    assert_eq!(run(&["incident", "7"]).0, Some(1));
    assert_eq!(run(&["incident", "x"]).0, Some(2));
    let (code, told) = run(&["events"]);
    assert!(code == Some(0) && told.contains("failover best -> spare"), "{told}");
    let (_, lines) = run(&["events", "--json"]);
    assert!(lines.lines().all(|line| serde_json::from_str::<Event>(line).is_ok()), "{lines}");

    rig.signal(Signal::SIGINT);
    rig.ended();
    let named = state.display().to_string();
    let (code, list) = {
        let output = Command::new(mainstay())
            .args(["incidents", "--state-dir", &named])
            .env("MAINSTAY_RUN_DIR", rig.run_dir())
            .output()
            .expect("the product runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert!(code == Some(0) && list.contains("best -> spare"), "{list}");
}

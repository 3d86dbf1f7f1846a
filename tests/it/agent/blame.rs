//! Whose fault failing requests are, seen from outside: a bad request harms nobody else, and a tier that refuses
//! everything does not count as serving.
use super::rig::{Rig, tier};
use crate::support::{mainstay, until};
use mainstay::alert::Store;
use mainstay::control::feed::Event;
use mainstay::control::wire::{Health, ProcessState};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

const QUICK: &str = "restart = { base = \"100ms\", max = \"200ms\" }\nstop_grace = \"1s\"";

fn events(rig: &Rig) -> Vec<Event> {
    let mut events = Vec::new();
    let take = |line: Option<&str>| {
        events.extend(line.map(|line| serde_json::from_str(line).expect("an event")));
        true
    };
    rig.client().events(0, false, take).expect("the agent answers");
    events
}

/// What tiers became, in the order of their events.
fn health(rig: &Rig) -> Vec<String> {
    events(rig).into_iter().filter(|event| event.kind == "health").filter_map(|event| event.to).collect()
}

fn asks_health(rig: &Rig) -> String {
    let mut stream = TcpStream::connect(rig.endpoint()).expect("it listens");
    stream
        .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("it is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Asks for `what`, again and again, and differently each time.
fn ask_anew(rig: &Rig, what: &str, count: &mut u32) -> (u16, String) {
    *count += 1;
    rig.ask(&format!(r#"{{"messages":[{{"role":"user","content":"{what} {count}"}}]}}"#))
}

#[test]
fn one_bad_request_again_and_again_takes_nobody_down_and_is_told_so_in_the_end() {
    let knobs = "\"fail_on\": \"weird\"";
    let tiers = ["best", "second", "third"].map(|name| tier(name, knobs, QUICK));
    let rig = Rig::start(&tiers);
    for name in ["best", "second", "third"] {
        rig.until_state(name, ProcessState::Ready);
    }
    rig.until_serving("best");
    let (over, mut others) = (AtomicBool::new(false), 0);
    let (status, answer) = std::thread::scope(|scope| {
        let bad = scope.spawn(|| {
            let told = until("the bad request is told that it is bad", || {
                let (status, answer) = rig.ask(r#"{"messages":[],"reasoning_format":"weird"}"#);
                (status != 503).then_some((status, answer))
            });
            for _ in 0..20 {
                assert_eq!(rig.ask(r#"{"messages":[],"reasoning_format":"weird"}"#).0, 400);
            }
            over.store(true, SeqCst);
            told
        });
        while !over.load(SeqCst) && !bad.is_finished() {
            assert_eq!(ask_anew(&rig, "good", &mut others).0, 200);
        }
        bad.join().expect("it is told")
    });
    assert!(status == 400 && answer.contains("told to fail"), "{answer}");
    assert!(others > 0);
    assert!(!health(&rig).contains(&"down".to_owned()), "{:?}", events(&rig));
}

#[test]
fn three_bad_requests_do_not_take_the_only_tier_down() {
    let rig = Rig::start(&[tier("only", "\"fail_on\": \"weird\"", QUICK)]);
    rig.until_serving("only");
    for _ in 0..2 {
        let mut count = 0;
        let begun = health(&rig).len();
        // Different ones make a doubt, and the trial clears it.
        until("it is doubted", || {
            assert_eq!(ask_anew(&rig, "weird", &mut count).0, 503);
            (health(&rig).len() > begun).then_some(())
        });
        until("its trial has passed", || (health(&rig).len() > begun + 1).then_some(()));
        assert_eq!(rig.chat().0, 200);
    }
    assert!(!health(&rig).contains(&"down".to_owned()), "{:?}", events(&rig));
}

#[test]
fn a_tier_that_fails_everybody_goes_down() {
    let rig = Rig::start(&[tier("best", "", QUICK), tier("spare", "", QUICK)]);
    rig.until_state("spare", ProcessState::Ready);
    rig.until_serving("best");
    rig.turn("best", "\"status\": 500");
    let mut count = 0;
    until("the spare one serves", || {
        assert_eq!(ask_anew(&rig, "anything", &mut count).0, 200);
        (rig.status().serving.as_deref() == Some("spare")).then_some(())
    });
    assert_eq!(rig.tier("best").reason, "requests fail, and so does its trial: HTTP 500");
    rig.turn("best", "\"status\": 200");
    rig.until_serving("best");
}

/// A remote tier on a fake engine of another agent, which serves.
fn remote() -> (Rig, Rig) {
    let far = Rig::start(&[tier("far", "", QUICK)]);
    far.until_serving("far");
    let url = far.tier("far").url.expect("it runs");
    let rig = Rig::start(&[format!(
        "[[tier]]\nname = \"remote\"\nengine = \"remote\"\nurl = \"{url}\"\nmodel = \"far-model\"\n"
    )]);
    rig.until_serving("remote");
    assert_eq!(rig.chat().0, 200);
    (far, rig)
}

#[test]
fn a_remote_that_refuses_everything_does_not_serve() {
    let (far, rig) = remote();
    let unauthorized = r#""status": 401, "error_body": "{\"error\":{\"message\":\"Unauthorized\"}}""#;
    far.turn("far", unauthorized);
    until("it is down, although its health page says 200", || {
        // One and the same request is enough: the trial is another one.
        assert_eq!(rig.chat().0, 503);
        (rig.tier("remote").health == Health::Down).then_some(())
    });
    let tier = rig.tier("remote");
    assert!(tier.reason.ends_with("it refuses the key: check `api_key` (HTTP 401)"), "{}", tier.reason);
    assert!(asks_health(&rig).starts_with("HTTP/1.1 503 "), "{}", asks_health(&rig));
    let status = Command::new(mainstay()).args(["status", "--run-dir"]).arg(rig.run_dir()).output();
    assert_eq!(status.expect("it runs").status.code(), Some(3));
    assert!(events(&rig).iter().any(|event| event.kind == "all-down"), "{:?}", events(&rig));
    let store = Store::at(Path::new(&rig.status().agent.state_dir));
    let record = until("an incident", || store.load_all().ok()?.into_iter().next());
    assert_eq!(record.cause, "auth-gated");
    // Checks go on passing, and change nothing; a trial does.
    far.turn("far", "\"status\": 200");
    rig.until_serving("remote");
    assert_eq!(rig.chat().0, 200);
}

/// Seen to fail: it stayed healthy.
#[test]
fn a_remote_without_the_paths_that_are_asked_for_does_not_serve() {
    for knobs in [
        r#""status": 404, "error_body": "{\"detail\":\"Not Found\"}""#,
        r#""status": 405, "error_body": "Method Not Allowed""#,
        r#""status": 400, "error_body": "<html>The plain HTTP request was sent to HTTPS port</html>""#,
    ] {
        let (far, rig) = remote();
        far.turn("far", knobs);
        until("it is down, although its health page says 200", || {
            assert_ne!(rig.chat().0, 200);
            (rig.tier("remote").health == Health::Down).then_some(())
        });
        let reason = rig.tier("remote").reason;
        assert!(
            reason.contains("serves none of the paths") && reason.contains("check the path in `url`"),
            "{reason}"
        );
        assert_eq!(rig.chat().0, 503);
        far.turn("far", "\"status\": 200");
        rig.until_serving("remote");
    }
}

#[test]
fn a_request_that_killed_two_engines_gets_no_third() {
    let knobs = "\"die_on\": \"poison\"";
    let rig = Rig::start(&[tier("best", knobs, QUICK), tier("spare", knobs, QUICK)]);
    rig.until_state("spare", ProcessState::Ready);
    rig.until_serving("best");
    let poison = r#"{"messages":[{"role":"user","content":"poison"}]}"#;
    assert_eq!(rig.ask(poison).0, 503, "it killed both");
    for name in ["best", "spare"] {
        rig.until_process("it is back", name, |p| {
            (p.run == Some(2) && p.state == ProcessState::Ready).then_some(())
        });
    }
    for _ in 0..3 {
        let (status, answer) = rig.ask(poison);
        assert!(status == 422 && answer.contains("\"code\":\"poison_request\""), "{answer}");
    }
    assert_eq!(rig.chat().0, 200, "others are not refused");
    for name in ["best", "spare"] {
        assert_eq!(rig.process(name).run, Some(2), "{name} lives");
    }
    assert_eq!(rig.status().agent.poison_refused, 3);
    assert_eq!(events(&rig).iter().filter(|event| event.kind == "poison").count(), 1);
}

#[test]
fn what_was_in_flight_at_kills_from_outside_is_never_refused() {
    let rig = Rig::start(&[tier("only", "\"token_ms\": 20, \"tokens\": 1000", QUICK)]);
    let ready = |run| {
        rig.until_process("it is ready", "only", |p| {
            (p.run == Some(run) && p.state == ProcessState::Ready).then_some(())
        });
        rig.until_serving("only");
    };
    for run in 1..=3 {
        ready(run);
        let mut stream = rig.stream();
        stream.read_exact(&mut [0_u8; 1]).expect("the answer has begun");
        let pid = i32::try_from(rig.process("only").pid.expect("it runs")).expect("a pid");
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it lives");
        let _ = stream.read_to_end(&mut Vec::new());
    }
    ready(4);
    rig.turn("only", "\"token_ms\": 0");
    let mut answer = String::new();
    rig.stream().read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(rig.status().agent.poison_refused, 0);
}

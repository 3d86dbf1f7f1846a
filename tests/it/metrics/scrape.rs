//! Scrapes of a real agent over fake engines.
use crate::agent::rig::{Rig, tier};
use crate::support::until;
use mainstay::control::metrics::CONTENT_TYPE;
use mainstay::control::wire::ProcessState;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

const QUICK: &str = "restart = { base = \"100ms\", max = \"200ms\" }\nstop_grace = \"1s\"";
const QUESTION: &str = "GET /metrics HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n";

fn talk(mut stream: impl Read + Write) -> String {
    stream.write_all(QUESTION.as_bytes()).expect("the request is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text that ends");
    answer
}

fn at_endpoint(rig: &Rig) -> String {
    at(&rig.endpoint())
}

fn at(endpoint: &str) -> String {
    talk(TcpStream::connect(endpoint).expect("somebody listens"))
}

fn at_socket(rig: &Rig) -> String {
    talk(UnixStream::connect(rig.run_dir().join("status.sock")).expect("the socket is there"))
}

/// One scrape: every sample with its value. Panics when it is not OpenMetrics: samples of a family stand together behind
/// its TYPE, each is there once, counters end in `_total`, nothing follows the end.
#[track_caller]
fn read(answer: &str) -> BTreeMap<String, f64> {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.to_lowercase().contains(&format!("content-type: {CONTENT_TYPE}")), "{head}");
    let text = body.strip_suffix("# EOF\n").expect("an end");
    let (mut samples, mut seen) = (BTreeMap::new(), BTreeSet::new());
    let (mut family, mut kind) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            (family, kind) =
                declared.split_once(' ').map(|(f, k)| (f.to_owned(), k.to_owned())).expect("two words");
            assert!(seen.insert(family.clone()), "{family} is there twice");
            continue;
        }
        if line.starts_with("# ") {
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').expect("a sample and a value");
        let name = sample.split('{').next().unwrap_or_default();
        let suffix =
            name.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{line} belongs to no family"));
        let fits = match kind.as_str() {
            "counter" => suffix == "_total",
            "info" => suffix == "_info",
            "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix),
            _ => suffix.is_empty(),
        };
        assert!(fits, "{line} is no {kind}");
        let value = value.parse().unwrap_or_else(|_| panic!("{line}: no number"));
        assert!(samples.insert(sample.to_owned(), value).is_none(), "{sample} is there twice");
    }
    samples
}

fn two() -> Rig {
    let rig = Rig::start(&[
        tier("best", "", QUICK),
        tier("spare", "", &format!("{QUICK}\ndegrade = {{ max_tokens = 4 }}")),
    ]);
    rig.until_state("spare", ProcessState::Ready);
    rig.until_serving("best");
    rig
}

#[test]
fn endpoint_and_socket_say_the_same_and_it_is_true() {
    let rig = two();
    assert_eq!(rig.chat().0, 200);
    let mut text = String::new();
    rig.stream().read_to_string(&mut text).expect("a stream that ends");
    let answered = "mainstay_requests_total{tier=\"best\",outcome=\"answered\"}";
    let seen =
        until("both are counted", || Some(read(&at_endpoint(&rig))).filter(|seen| seen[answered] == 2.0));
    assert_eq!(seen["mainstay_tier_serving{tier=\"best\"}"], 1.0);
    assert_eq!(seen["mainstay_tier_serving{tier=\"spare\"}"], 0.0);
    assert_eq!(seen["mainstay_engine_state{tier=\"best\",state=\"ready\"}"], 1.0);
    assert_eq!(seen["mainstay_first_content_seconds_count{tier=\"best\"}"], 1.0, "only the stream");
    assert_eq!(
        seen["mainstay_restarts_total{tier=\"best\",cause=\"gpu-oom\"}"], 0.0,
        "there before the first"
    );
    assert!(seen["mainstay_engine_memory_bytes{tier=\"best\"}"] > 0.0);
    assert!(seen["mainstay_agent_memory_bytes"] > 0.0);
    assert!(!seen.contains_key("mainstay_engine_startup_ratio{tier=\"best\"}"), "it does not start");
    assert!(seen["mainstay_heart_age_seconds{heart=\"policy loop\"}"] < 10.0);
    assert!(seen["mainstay_heart_age_seconds{heart=\"proxy\"}"] < 10.0);
    let names = |scrape: &BTreeMap<String, f64>| scrape.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&seen), names(&read(&at_socket(&rig))));
}

/// What was counted stays counted when the engine behind it is another one.
#[test]
fn counters_go_on_over_restarts_of_engines() {
    let rig = two();
    assert_eq!(rig.chat().0, 200);
    let answered = "mainstay_requests_total{tier=\"best\",outcome=\"answered\"}";
    let before = until("it is counted", || Some(read(&at_socket(&rig))).filter(|seen| seen[answered] == 1.0));
    let pid = rig.process("best").pid.expect("it runs");
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGKILL).expect("it lives");
    assert_eq!(rig.chat().0, 200);
    rig.until_process("a second run is ready", "best", |p| {
        (p.run == Some(2) && p.state == ProcessState::Ready).then_some(())
    });
    rig.until_serving("best");
    let after = read(&at_socket(&rig));
    for (sample, value) in before.iter().filter(|(sample, _)| sample.contains("_total")) {
        assert!(after[sample] >= *value, "{sample} fell from {value} to {}", after[sample]);
    }
    assert_eq!(after["mainstay_restarts_total{tier=\"best\",cause=\"killed-from-outside\"}"], 1.0);
    assert_eq!(after["mainstay_failovers_total{from=\"best\",to=\"spare\"}"], 1.0);
    assert_eq!(after["mainstay_returns_total{from=\"spare\",to=\"best\"}"], 1.0);
    assert_eq!(after["mainstay_engine_run{tier=\"best\"}"], 2.0);
    assert_eq!(after["mainstay_engine_strikes{tier=\"best\"}"], 1.0);
    let weakened = "mainstay_weakened_answers_total{tier=\"spare\"}";
    let failed_over = "mainstay_requests_total{tier=\"best\",outcome=\"failed_over\"}";
    assert!(after[weakened] == 1.0 && after[failed_over] <= 1.0, "{after:?}");
}

/// The policy loop hangs: that is when somebody looks.
#[test]
fn a_stuck_loop_is_seen_and_holds_nobody_up() {
    let rig = two();
    rig.fault("stuck-loop");
    let age = "mainstay_heart_age_seconds{heart=\"policy loop\"}";
    until("its heart is old", || (read(&at_endpoint(&rig))[age] > 4.0).then_some(()));
    assert!(read(&at_socket(&rig))["mainstay_heart_age_seconds{heart=\"proxy\"}"] < 4.0);
    assert_eq!(rig.chat().0, 200);
    rig.kill();
}

#[test]
fn many_scrapes_at_one_time_cost_no_more_than_they_may() {
    let rig = two();
    let endpoint = rig.endpoint();
    let answers: Vec<String> = std::thread::scope(|scope| {
        let scrapes: Vec<_> = (0..200).map(|_| scope.spawn(|| at(&endpoint))).collect();
        scrapes.into_iter().map(|scrape| scrape.join().expect("an answer")).collect()
    });
    let (good, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.starts_with("HTTP/1.1 200 "));
    assert!(!good.is_empty());
    good.into_iter().for_each(|answer| drop(read(answer)));
    assert!(refused.iter().all(|answer| answer.starts_with("HTTP/1.1 503 ")), "{refused:?}");
    read(&at_endpoint(&rig));
}

//! What engines, clients and relays wrote, on a terminal: whatever it holds, the terminal is not commanded by it and
//! nothing is hidden from whoever reads.
use crate::control::status;
use crate::support::mainstay;
use mainstay::alert::{Line, Record, Standing, Store};
use mainstay::control::client::Client;
use mainstay::control::feed::{Event, Feed};
use mainstay::control::{Served, serve, wire};
use mainstay::shim::ring::{Stream, Writer};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use tempfile::TempDir;

/// ESC, an OSC that sets the title, C1 as a character, bidi, zero width, a tag.
const NASTY: &str = "x\x1b[2J\x1b]0;owned\x07\u{9b}31m\u{202e}\u{200b}\u{2066}\u{e0041}y";
const SHOWN: &str = "x\\x1b[2J\\x1b]0;owned\\x07\\u009b31m\\u202e\\u200b\\u2066\\u{e0041}y";

/// On a terminal of its own, which `script` makes.
fn on_a_terminal(run_dir: &Path, arguments: &str) -> String {
    let line = format!("NO_COLOR=1 {} {arguments} --run-dir {}", mainstay().display(), run_dir.display());
    let mut script = Command::new("script");
    script.args(["-q", "-e", "-c", &line, "/dev/null"]).env("COLUMNS", "1000").stdin(Stdio::null());
    text(&script.output().expect("`script` of util-linux makes a terminal"))
}

fn through_a_pipe(run_dir: &Path, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new(mainstay());
    command.args(arguments).arg("--run-dir").arg(run_dir).stdin(Stdio::null());
    let output = command.output().expect("the program starts");
    [output.stdout, output.stderr].concat()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).replace("\r\n", "\n")
}

#[track_caller]
fn is_harmless(text: &str, what: &str) {
    let bad =
        |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{200b}\u{2066}\u{e0041}\u{fffd}".contains(c);
    assert!(!text.contains(bad), "{what}: {text:?}");
}

#[test]
fn logs_are_raw_into_a_pipe_and_spelled_out_on_a_terminal() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().join("runs/cpu-1");
    std::fs::create_dir_all(&place).expect("a directory");
    let mut writer = Writer::create(&place.join("log")).expect("a log");
    let line = [NASTY.as_bytes(), b" \x9b31m \xff\ttab"].concat();
    writer.push(1250, Stream::Out, &line);
    writer.flush();
    let raw = through_a_pipe(dir.path(), &["logs", "cpu"]);
    assert!(raw.windows(line.len()).any(|part| part == line), "a pipe gets each byte");
    let shown = on_a_terminal(dir.path(), "logs cpu");
    assert!(shown.contains(&format!("{SHOWN} \\x9b31m \\xff\ttab")), "{shown:?}");
    is_harmless(&shown.replace('\t', " "), "logs on a terminal");
    let raw = on_a_terminal(dir.path(), "logs cpu --raw");
    assert!(raw.contains("\x1b[2J"), "asked for: {raw:?}");
}

/// An agent whose every text is nasty.
fn nasty_agent(dir: &TempDir) -> (tokio::runtime::Runtime, mainstay::control::Open) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let source = Arc::new(|| -> std::pin::Pin<Box<dyn Future<Output = wire::Status> + Send>> {
        Box::pin(std::future::ready(nasty_status()))
    });
    let events = Arc::new(Feed::resume([]));
    let nasty = || Some(NASTY.to_owned());
    events.publish(&Event {
        seq: 1,
        at: "2026-11-22T21:47:00.123Z".to_owned(),
        kind: NASTY.to_owned(),
        tier: nasty(),
        to: nasty(),
        cause: nasty(),
        evidence: nasty(),
        text: NASTY.to_owned(),
        ..Event::default()
    });
    let metrics: mainstay::control::MetricsSource = Arc::new(|| Box::pin(std::future::ready(None)));
    let (operator, _) = tokio::sync::mpsc::channel(1);
    let served = Served { status: source, events, metrics, operator, faults: None };
    let open = runtime.block_on(serve(dir.path(), served)).expect("both sockets open");
    (runtime, open)
}

fn nasty_status() -> wire::Status {
    let mut status = status(None);
    status.agent.config_problem = Some(NASTY.to_owned());
    status.agent.state_problem = Some(NASTY.to_owned());
    status.gpu_probe.state = wire::GpuProbeState::Unresponsive;
    status.gpu_probe.reason = Some(NASTY.to_owned());
    status.agent.version = NASTY.to_owned();
    status.agent.listen = vec![NASTY.to_owned()];
    let mail =
        wire::Mail { waiting: 1, sent: 0, lost: 0, trouble: Some(NASTY.to_owned()), trouble_since: None };
    status.mail = Some(mail);
    for tier in &mut status.tiers {
        tier.health = wire::Health::Down;
        tier.routable = false;
        tier.engine = NASTY.to_owned();
        tier.model = Some(NASTY.to_owned());
        tier.url = Some(NASTY.to_owned());
        tier.reason = NASTY.to_owned();
    }
    status
}

#[test]
fn nothing_that_is_shown_commands_a_terminal() {
    let dir = tempfile::tempdir().expect("a directory");
    let _agent = nasty_agent(&dir);
    // The client knows where the agent keeps its incidents.
    let state = dir.path().join("state");
    let store = Store::at(&state);
    std::fs::create_dir_all(store.dir()).expect("a directory");
    store.save(&nasty_record()).expect("a record");
    let state = format!("--state-dir {}", state.display());
    for (what, spelled) in [
        ("status", true),
        ("gpus", true),
        ("events", true),
        ("wait --timeout 1ms", true),
        (&format!("incidents {state}"), true),
        (&format!("incident last {state}"), true),
        ("status --json", false),
        ("gpus --json", false),
        ("events --json", false),
        (&format!("incident last --json {state}"), false),
    ] {
        let shown = on_a_terminal(dir.path(), what);
        // `wait` draws its line anew.
        let shown = shown.replace("\r\x1b[K", "\n").replace("\x1b[K", "\n").replace('\r', "\n");
        is_harmless(&shown, what);
        assert_eq!(shown.contains("\\x1b[2J\\x1b]0;owned\\x07\\u009b31m"), spelled, "{what}: {shown:?}");
    }
    let whole: Value =
        serde_json::from_slice(&through_a_pipe(dir.path(), &["status", "--json"])).expect("JSON");
    assert_eq!(whole["tiers"][0]["reason"], NASTY, "JSON means what it meant");
    let (status, _) = Client::new(dir.path()).status().expect("a status");
    assert_eq!(status.tiers[0].reason, SHOWN);
}

fn nasty_record() -> Record {
    let nasty = || Some(NASTY.to_owned());
    let line = Line { at: NASTY.to_owned(), seq: 1, kind: NASTY.to_owned(), text: NASTY.to_owned() };
    let standing = Standing { name: NASTY.to_owned(), state: NASTY.to_owned(), reason: NASTY.to_owned() };
    Record {
        schema: 1,
        id: 1,
        host: NASTY.to_owned(),
        tier: NASTY.to_owned(),
        engine: NASTY.to_owned(),
        model: NASTY.to_owned(),
        kind: NASTY.to_owned(),
        opened: NASTY.to_owned(),
        to: nasty(),
        cause: NASTY.to_owned(),
        evidence: nasty(),
        advice: nasty(),
        action: nasty(),
        signal: nasty(),
        run: Some(1),
        timeline: vec![line],
        tiers: vec![standing],
        scene: mainstay::alert::Scene {
            at: nasty(),
            last_lines: vec![NASTY.to_owned()],
            ..mainstay::alert::Scene::default()
        },
        ..Record::default()
    }
}

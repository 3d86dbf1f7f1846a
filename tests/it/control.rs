//! The two sockets, from outside: what they answer, to whom, and what they survive.
use mainstay::control::client::{Client, Failure};
use mainstay::control::feed::{Event, Feed};
use mainstay::control::{
    CONTROL_SOCKET, Faults, MetricsSource, Open, Order, Refused, STATUS_SOCKET, Served, serve, wire,
};
use mainstay::policy::Command;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// How long a status takes to be made.
const LOOK: Duration = Duration::from_millis(20);

/// A status with nothing unusual in it.
pub fn status(serving: Option<&str>) -> wire::Status {
    let now = "2026-11-22T21:47:00.123Z".to_owned();
    let tier = |rank: u16, name: &str| wire::Tier {
        name: name.to_owned(),
        rank,
        engine: "llama-server".to_owned(),
        mainstay: false,
        model: Some("m".to_owned()),
        url: None,
        health: wire::Health::Healthy,
        routable: true,
        reason: "answered in 1 ms".to_owned(),
        cause: None,
        since: now.clone(),
        check: wire::Check::default(),
        traffic: wire::Traffic::default(),
        process: None,
    };
    wire::Status {
        schema: wire::SCHEMA,
        agent: wire::Agent {
            version: "0.1.0".to_owned(),
            pid: 1,
            started: now.clone(),
            state: wire::AgentState::Serving,
            listen: Vec::new(),
            watchdog_s: None,
            config: "/etc/mainstay/mainstay.toml".to_owned(),
            state_dir: "/var/lib/mainstay".to_owned(),
            state_problem: None,
            config_problem: None,
            panics: 0,
            poison_refused: 0,
        },
        serving: serving.map(str::to_owned),
        tiers: vec![tier(0, "best"), tier(1, "next")],
        gpu_probe: wire::GpuProbe::off(),
        gpus: Vec::new(),
        host: wire::Host::default(),
        failover_seconds: wire::Distribution::default(),
        incidents: Vec::new(),
        mail: None,
    }
}

/// A source of metrics that has none to tell.
fn figures() -> MetricsSource {
    Arc::new(|| Box::pin(std::future::ready(Some(bytes::Bytes::from_static(b"# EOF\n")))))
}

/// The sockets of an agent that has no engines: it takes every command for the tier `best`, numbers it, refuses those
/// for `next`, and knows no other tier.
pub struct Agent {
    dir: TempDir,
    taken: Arc<Mutex<Vec<Command>>>,
    events: Arc<Feed>,
    /// Before the runtime: its tasks live there.
    _open: Open,
    _runtime: Runtime,
}

impl Agent {
    pub fn new(serving: Option<&'static str>) -> Self {
        Self::in_dir(tempfile::tempdir().expect("a directory for the sockets"), serving, None)
    }

    fn in_dir(dir: TempDir, serving: Option<&'static str>, faults: Option<Faults>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let (operator, mut orders) = mpsc::channel::<Order>(4);
        let taken = Arc::new(Mutex::new(Vec::new()));
        let commands = Arc::clone(&taken);
        runtime.spawn(async move {
            while let Some(order) = orders.recv().await {
                let answer = match order.tier.as_str() {
                    "best" => {
                        let mut commands = commands.lock().expect("nobody panicked");
                        commands.push(order.command);
                        Ok(40 + commands.len() as u64)
                    }
                    "next" => Err(Refused::Conflict("\"next\" is remote".to_owned())),
                    // Never answered: the order is dropped, as by an agent that ends.
                    "ending" => continue,
                    _ => Err(Refused::NotFound(vec!["best".into(), "next".into()])),
                };
                let _ = order.answer.send(answer);
            }
        });
        let source = Arc::new(move || -> std::pin::Pin<Box<dyn Future<Output = wire::Status> + Send>> {
            Box::pin(async move {
                // As in a real agent, which reads /proc for it.
                tokio::time::sleep(LOOK).await;
                status(serving)
            })
        });
        let events = Arc::new(Feed::resume([]));
        let served =
            Served { status: source, events: Arc::clone(&events), metrics: figures(), operator, faults };
        let open = runtime.block_on(serve(dir.path(), served)).expect("both sockets open");
        Self { dir, taken, events, _open: open, _runtime: runtime }
    }

    pub fn run_dir(&self) -> &Path {
        self.dir.path()
    }

    fn ask(&self, socket: &str, request: &str) -> (u16, String) {
        talk(&self.dir.path().join(socket), &format!("{request} HTTP/1.1\r\nhost: x\r\n\r\n"))
    }
}

/// Sends the bytes and reads to the end: the status, and all that was received.
fn talk(socket: &Path, request: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).expect("the socket takes connections");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
    stream.write_all(request.as_bytes()).expect("the request is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer is text and ends");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.unwrap_or(0), answer)
}

#[test]
fn each_socket_has_its_rights_and_answers_what_it_may() {
    let agent = Agent::new(Some("best"));
    let check = |socket: &str, request: &str, status: u16, part: &str| {
        let (code, answer) = agent.ask(socket, request);
        assert_eq!(code, status, "{request} on {socket}: {answer}");
        assert!(answer.contains(part), "{request} on {socket}: {answer}");
        let has_json = answer.to_ascii_lowercase().contains("content-type: application/json");
        assert!(has_json, "{request} on {socket}: {answer}");
    };
    for socket in [STATUS_SOCKET, CONTROL_SOCKET] {
        check(socket, "GET /v1/status", 200, r#""serving":"best""#);
        check(socket, "GET /v1/nothing", 404, r#""code":"not_found""#);
        check(socket, "GET /", 404, r#""type":"invalid_request_error""#);
        check(socket, "POST /v1/status", 405, r#""code":"method_not_allowed""#);
        check(socket, "POST /v1/status", 405, "allow: GET,HEAD\r\n");
    }
    for path in ["/v1/tiers/best/stop", "/v1/nothing", "/v1/faults/stuck-loop"] {
        check(STATUS_SOCKET, &format!("POST {path}"), 405, r#""param":null"#);
    }
    check(STATUS_SOCKET, "DELETE /v1/tiers/best/stop", 405, "method_not_allowed");
    check(STATUS_SOCKET, "GET /v1/tiers/best/stop", 404, "not_found");
    check(CONTROL_SOCKET, "GET /v1/tiers/best/stop", 405, "method_not_allowed");
    check(CONTROL_SOCKET, "POST /v1/tiers/best/explode", 404, "not_found");
    check(CONTROL_SOCKET, "POST /v1/tiers/%FF/stop", 404, "not_found");
    check(CONTROL_SOCKET, "POST /v1/tiers/worst/stop", 404, "tier_not_found");
    check(CONTROL_SOCKET, "POST /v1/tiers/next/start", 409, r#""message":"\"next\" is remote""#);
    check(CONTROL_SOCKET, "POST /v1/tiers/ending/start", 503, r#""type":"server_error""#);
    check(CONTROL_SOCKET, "POST /v1/faults/stuck-loop", 404, "not_found");
    assert!(agent.taken.lock().expect("nobody panicked").is_empty(), "nothing of this was a command");
    for (number, word) in ["restart", "start", "stop"].into_iter().enumerate() {
        let seq = format!(r#"{{"seq":{}}}"#, 41 + number);
        check(CONTROL_SOCKET, &format!("POST /v1/tiers/best/{word}"), 202, &seq);
    }
    let taken = agent.taken.lock().expect("nobody panicked").clone();
    assert_eq!(taken, [Command::Restart, Command::Start, Command::Stop]);
    for (socket, mode) in [(STATUS_SOCKET, 0o660), (CONTROL_SOCKET, 0o600)] {
        let file = fs::metadata(agent.run_dir().join(socket)).expect("the socket is there");
        assert_eq!(file.permissions().mode() & 0o7777, mode, "{socket}");
    }
}

#[test]
fn faults_can_be_caused_only_where_they_are_allowed() {
    let caused = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&caused);
    let faults: Faults = Arc::new(move |name| {
        list.lock().expect("nobody panicked").push(name.to_owned());
        name == "stuck-loop"
    });
    let dir = tempfile::tempdir().expect("a directory");
    let agent = Agent::in_dir(dir, None, Some(faults));
    assert_eq!(agent.ask(CONTROL_SOCKET, "POST /v1/faults/stuck-loop").0, 202);
    assert_eq!(agent.ask(CONTROL_SOCKET, "POST /v1/faults/typo").0, 404);
    assert_eq!(agent.ask(STATUS_SOCKET, "POST /v1/faults/stuck-loop").0, 405);
    assert_eq!(*caused.lock().expect("nobody panicked"), ["stuck-loop", "typo"]);
}

#[test]
fn sockets_of_a_former_agent_are_replaced_and_ours_go_with_us() {
    let dir = tempfile::tempdir().expect("a directory");
    for name in [STATUS_SOCKET, "status.new", "control.new"] {
        drop(UnixListener::bind(dir.path().join(name)).expect("a socket that nobody serves"));
    }
    fs::write(dir.path().join(CONTROL_SOCKET), "not even a socket").expect("a file");
    let path = dir.path().to_owned();
    let agent = Agent::in_dir(dir, None, None);
    for socket in [STATUS_SOCKET, CONTROL_SOCKET] {
        assert_eq!(agent.ask(socket, "GET /v1/status").0, 200);
        assert!(fs::metadata(path.join(socket)).expect("it is there").file_type().is_socket());
    }
    let names = |dir: &Path| fs::read_dir(dir).expect("the directory").flatten().count();
    assert_eq!(names(&path), 2, "nothing but the two sockets is left there");
    let Agent { dir, _open, .. } = agent;
    drop(_open);
    assert_eq!(names(dir.path()), 0);
}

#[test]
fn a_directory_that_does_not_take_sockets_is_named() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let deep = tempfile::tempdir().expect("a directory");
    for place in [deep.path().join("missing"), deep.path().join("x".repeat(200))] {
        let _ =
            fs::create_dir(&place).is_ok_and(|()| place.ends_with("missing")).then(|| fs::remove_dir(&place));
        let (operator, _orders) = mpsc::channel(1);
        let source = Arc::new(|| -> std::pin::Pin<Box<dyn Future<Output = wire::Status> + Send>> {
            Box::pin(std::future::ready(status(None)))
        });
        let served = Served {
            status: source,
            events: Arc::new(Feed::resume([])),
            metrics: figures(),
            operator,
            faults: None,
        };
        let error = runtime.block_on(serve(&place, served)).expect_err("there can be no socket");
        assert!(error.to_string().contains(&place.display().to_string()), "{error}");
    }
}

#[test]
fn slow_and_garbled_clients_keep_nobody_from_an_answer() {
    let agent = Agent::new(Some("best"));
    for socket in [STATUS_SOCKET, CONTROL_SOCKET] {
        let path = agent.run_dir().join(socket);
        let connect = || UnixStream::connect(&path).expect("a connection");
        // Far more than are served at a time; all stay connected to the end.
        let mut silent: Vec<UnixStream> = (0..200).map(|_| connect()).collect();
        for (number, stream) in silent.iter_mut().enumerate() {
            // Who came first may have been sent away by now, and then cannot write.
            let _ = match number % 3 {
                0 => stream.write_all(b"GET /v1/sta"),
                1 => stream.write_all(&[0xff; 4000]),
                _ => Ok(()),
            };
        }
        assert_eq!(agent.ask(socket, "GET /v1/status").0, 200);
    }
}

/// More at one time than are served at one time: nobody who asks at once is sent away for it.
#[test]
fn a_crowd_that_asks_at_one_time_is_answered_to_the_last() {
    let agent = Agent::new(Some("best"));
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let ask = || agent.ask(STATUS_SOCKET, "GET /v1/status").0;
        let crowd: Vec<_> = (0..400).map(|_| scope.spawn(ask)).collect();
        crowd.into_iter().map(|client| client.join().expect("an answer")).collect()
    });
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
}

#[test]
fn a_loop_that_does_not_answer_becomes_an_error_and_never_a_client_that_hangs() {
    let dir = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let (operator, mut orders) = mpsc::channel(1);
    let source = Arc::new(|| -> std::pin::Pin<Box<dyn Future<Output = wire::Status> + Send>> {
        Box::pin(std::future::pending())
    });
    let open = runtime.block_on(serve(
        dir.path(),
        Served {
            status: source,
            events: Arc::new(Feed::resume([])),
            metrics: figures(),
            operator,
            faults: None,
        },
    ));
    let open = open.expect("both sockets open");
    // A stuck loop takes nothing out of its inbox: the first order waits there, the second finds no place.
    let control = dir.path().join(CONTROL_SOCKET);
    let post = "POST /v1/tiers/best/stop HTTP/1.1\r\nhost: x\r\n\r\n";
    std::thread::scope(|threads| {
        let answers = [
            threads.spawn(|| {
                talk(&dir.path().join(STATUS_SOCKET), "GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n")
            }),
            threads.spawn(|| talk(&control, post)),
            threads.spawn(|| talk(&control, post)),
        ];
        let mut codes: Vec<String> = answers
            .into_iter()
            .map(|answer| {
                let (status, text) = answer.join().expect("the client did not panic");
                assert_eq!(status, 503, "{text}");
                text.split(r#""code":""#)
                    .nth(1)
                    .and_then(|rest| rest.split('"').next())
                    .unwrap_or("")
                    .to_owned()
            })
            .collect();
        codes.sort();
        assert_eq!(codes, ["agent_busy", "agent_stuck", "agent_stuck"]);
    });
    assert!(orders.try_recv().is_ok(), "one order did reach the inbox");
    drop(open);
}

#[test]
fn the_client_brings_answers_and_says_why_there_is_none() {
    let agent = Agent::new(Some("next"));
    let client = Client::new(agent.run_dir());
    let (read, whole) = client.status().expect("the agent answers");
    assert_eq!(read, status(Some("next")));
    assert_eq!(whole["agent"]["config"], "/etc/mainstay/mainstay.toml");
    assert_eq!(client.operate("best", Command::Restart).expect("it is taken"), 41);
    let refused = |tier: &str, expected: u16, part: &str| match client.operate(tier, Command::Stop) {
        Err(Failure::Refused { status, why }) => {
            assert_eq!(status, expected, "{why}");
            assert!(why.contains(part), "{why}");
        }
        other => panic!("{tier}: {other:?}"),
    };
    refused("next", 409, "is remote");
    refused("../../status", 404, "no tier");
    refused("wörst", 404, "wörst");

    let empty = tempfile::tempdir().expect("a directory");
    let nobody = Client::new(empty.path());
    assert!(matches!(nobody.status(), Err(Failure::NoAgent { .. })));
    drop(UnixListener::bind(empty.path().join(STATUS_SOCKET)).expect("a socket that nobody serves"));
    assert!(matches!(nobody.status(), Err(Failure::NoAgent { .. })));
    fs::remove_file(empty.path().join(STATUS_SOCKET)).expect("it was there");
    let listener = UnixListener::bind(empty.path().join(STATUS_SOCKET)).expect("a socket");
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let (mut stream, _) = listener.accept().expect("a client comes");
            let _ = stream.read(&mut [0; 1000]);
            let _ = stream.write_all(b"220 smtp.example.org ESMTP\r\n");
        });
        assert!(matches!(nobody.status(), Err(Failure::Garbled { .. })));
    });
}

#[test]
fn events_are_replayed_from_any_number_and_followed_as_they_come() {
    let agent = Agent::new(Some("best"));
    let event = |seq: u64| Event { seq, kind: "ready".to_owned(), ..Event::default() };
    for seq in 1..=5 {
        agent.events.publish(&event(seq));
    }
    let (status, text) = agent.ask(STATUS_SOCKET, "GET /v1/events?since=3");
    assert_eq!((status, text.matches("\"seq\":").count()), (200, 2), "{text}");
    assert!(text.contains("\"seq\":4,") && text.contains("\"seq\":5,"), "{text}");
    assert_eq!(agent.ask(STATUS_SOCKET, "GET /v1/events?since=x").0, 400);
    assert_eq!(agent.ask(STATUS_SOCKET, "POST /v1/events").0, 405);

    let client = Client::new(agent.run_dir());
    let mut heard = Vec::new();
    let followed = client.events(4, true, |line| {
        if let Some(line) = line {
            heard.push(serde_json::from_str::<Event>(line).expect("an event").seq);
            // What is kept has come; the next one is published while it is waited for.
            agent.events.publish(&event(heard[heard.len() - 1] + 1));
        }
        heard.len() < 4
    });
    followed.expect("the agent answers");
    assert_eq!(heard, [5, 6, 7, 8]);
}

#[test]
fn a_follower_may_stay_longer_than_any_other_guest_and_leaves_nothing_behind() {
    let agent = Agent::new(Some("best"));
    let mut streams: Vec<UnixStream> = (0..3)
        .map(|_| {
            let mut stream = UnixStream::connect(agent.run_dir().join(STATUS_SOCKET)).expect("a socket");
            stream.write_all(b"GET /v1/events?follow=1 HTTP/1.1\r\nhost: x\r\n\r\n").expect("it is taken");
            let mut head = [0; 12];
            stream.read_exact(&mut head).expect("the head of an answer");
            assert_eq!(&head, b"HTTP/1.1 200");
            stream
        })
        .collect();
    crate::support::until("three follow", || (agent.events.followers() == 3).then_some(()));
    streams.truncate(1);
    crate::support::until("one follows", || (agent.events.followers() == 1).then_some(()));
}

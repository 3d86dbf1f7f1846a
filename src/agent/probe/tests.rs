use super::*;
use crate::kinds::Api;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

/// Set in the process of its own that the test runs in: a limit is the whole process's.
const ALONE: &str = "MAINSTAY_TEST_ALONE";
const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(60);

fn alone() {
    let mut child = Command::new(std::env::current_exe().expect("this program"));
    let name = "agent::probe::tests::want_of_descriptors_says_nothing_about_a_tier";
    let output = child.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
}

fn lower_the_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..limit }).expect("it can be lowered");
}

fn asked_of(kind: Kind, host: &str, port: u16) -> Target {
    Target {
        kind,
        url: format!("http://{host}:{port}"),
        model: "m".into(),
        health_path: None,
        api_key: None,
        pull: false,
        main_pid: Some(std::process::id()),
        on_cpu: true,
    }
}

/// A remote Ollama.
fn ollama(answer: fn(&str, &mut TcpStream)) -> Target {
    serves(Kind::Remote(Api::Ollama), answer)
}

/// Each request is answered by `answer`, which is told its path and may take its time.
fn serves(kind: Kind, answer: fn(&str, &mut TcpStream)) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().expect("a copy"));
                let head: Vec<String> =
                    reader.by_ref().lines().map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
                // What is not read when the connection is closed resets it.
                let length = head.iter().filter_map(|line| {
                    line.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok()
                });
                let _ = reader.read_exact(&mut vec![0; length.sum()]);
                let path = head.first().and_then(|line| line.split(' ').nth(1));
                let mut stream = stream;
                answer(path.unwrap_or_default(), &mut stream);
            });
        }
    });
    asked_of(kind, "127.0.0.1", port)
}

fn deny(stream: &mut TcpStream) {
    let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
}

fn say(stream: &mut TcpStream, json: &str) {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", json.len());
    let _ = stream.write_all(format!("{head}{json}").as_bytes());
}

fn tried(at: &Target, limit: Duration) -> Tried {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let probe = Probe::new(InstanceId::new(1)).expect("a client");
    runtime.block_on(probe.attempt(at, limit)).expect("there is no shortage")
}

#[test]
fn a_trial_waits_for_a_load_as_long_as_ollama_answers() {
    static LOOKS: AtomicU32 = AtomicU32::new(0);
    let loading = ollama(|path, stream| {
        if path == "/api/generate" {
            // It is loaded when it was looked at three times: long after the trial's own limit.
            while LOOKS.load(SeqCst) < 3 {
                std::thread::yield_now();
            }
            return say(stream, r#"{"response":"x","done":true}"#);
        }
        LOOKS.fetch_add(1, SeqCst);
        say(stream, r#"{"version":"1"}"#);
    });
    assert_eq!(tried(&loading, SHORT), Tried::Passed);
    // Both are taken in and not answered: nothing works there any more.
    let hung = ollama(|_, stream| {
        let _ = stream.read(&mut [0]);
    });
    assert_eq!(tried(&hung, SHORT), Tried::TimedOut);
}

#[test]
fn a_remote_with_vectors_only_passes_its_trial_and_one_with_nothing_does_not() {
    let vectors = serves(Kind::Remote(Api::OpenAi), |path, stream| match path {
        "/v1/embeddings" => say(stream, r#"{"data":[{"embedding":[0.5]}]}"#),
        _ => deny(stream),
    });
    assert_eq!(tried(&vectors, LONG), Tried::Passed);
    let nothing = serves(Kind::Remote(Api::OpenAi), |_, stream| deny(stream));
    let found = tried(&nothing, LONG);
    assert!(matches!(found, Tried::Refused { cause: Cause::BadArgument, .. }), "{found:?}");
}

#[test]
fn ollama_is_asked_where_its_model_lies_without_any_load() {
    fn answer(path: &str, stream: &mut TcpStream) {
        assert_eq!(path, "/api/ps");
        say(stream, r#"{"models":[{"name":"m:latest","model":"m:latest","size":1000,"size_vram":0}]}"#);
    }
    let ours = Target { kind: Kind::Ollama, ..ollama(answer) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let probe = Probe::new(InstanceId::new(1)).expect("a client");
    let found = runtime.block_on(probe.loaded_on(&ours));
    let is_cpu =
        matches!(&found, Some(Device::Cpu { evidence }) if evidence.contains("0 of 1000 bytes of m"));
    assert!(is_cpu, "{found:?}");
    // Of one that is not ours others say what it is to use.
    let theirs = Target { kind: Kind::Remote(Api::Ollama), ..ours };
    assert_eq!(runtime.block_on(probe.loaded_on(&theirs)), None);
}

#[tokio::test]
async fn a_look_at_workers_that_is_late_or_still_under_way_is_no_figure_of_none() {
    let probe = Probe::new(InstanceId::new(1)).expect("a client");
    let unasked = |counted: Result<Option<u64>, Unasked>| counted.expect_err("nothing was learnt").cause;
    assert_eq!(unasked(probe.looked(Duration::ZERO, std::future::pending()).await), Cause::Unknown);
    // What an earlier question left behind: a look at the same process that has not come back.
    let at = Target { main_pid: Some(u32::MAX), ..asked_of(Kind::Ollama, "127.0.0.1", 1) };
    let (end, held) = std::sync::mpsc::channel::<()>();
    let before = lookout::on(&format!("workers of {}", u32::MAX));
    let hangs = before.look(move || held.recv().is_ok());
    assert!(tokio::time::timeout(Duration::ZERO, hangs).await.is_err(), "it hangs");
    assert_eq!(unasked(probe.count(&at, LONG).await), Cause::Unknown);
    drop(end);
    // A process that is not there has none.
    let looked = async || loop {
        match probe.count(&at, LONG).await {
            Ok(figure) => return figure,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(looked().await, None);
}

#[test]
fn want_of_descriptors_says_nothing_about_a_tier() {
    if std::env::var_os(ALONE).is_none() {
        return alone();
    }
    lower_the_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let probe = Probe::new(InstanceId::new(1)).expect("a client");
    // Nobody answers there, but somebody listens.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    let taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    let second = Duration::from_secs(1);
    let why = Shortage::Descriptors.words(64);
    let short = Unasked { cause: Cause::DiskFull, why };
    for (kind, host) in
        [(Kind::Vllm, "127.0.0.1"), (Kind::LlamaServer, "127.0.0.1"), (Kind::Vllm, "localhost")]
    {
        let at = asked_of(kind, host, port);
        assert_eq!(runtime.block_on(probe.check(&at, second)), Err(short.clone()), "{at:?}");
        assert_eq!(runtime.block_on(probe.count(&at, second)), Err(short.clone()), "{at:?}");
        assert_eq!(runtime.block_on(probe.attempt(&at, second)), Err(short.clone()), "{at:?}");
    }
    let at = asked_of(Kind::Ollama, "127.0.0.1", port);
    assert_eq!(runtime.block_on(probe.count(&at, second)), Err(short.clone()));
    drop((taken, listener));
    let at = asked_of(Kind::Vllm, "127.0.0.1", port);
    let refused = Checked::Failed(CheckFailure::Refused);
    assert_eq!(runtime.block_on(probe.check(&at, second)), Ok((refused, None)));
}

//! Keys that are not there at the agent's start: a remote tier's, and a variable of an engine.
use super::rig::{Rig, tier};
use crate::support::{mainstay, until};
use mainstay::control::wire::ProcessState;
use mainstay::policy::Command as Order;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

const KEY: &str = "a-key-of-the-far-server";
const ANSWER: &str = r#"{"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}"#;
/// As some servers refuse a request, and no answer of ours may repeat.
const REFUSAL: &str = r#"{"error":{"message":"no credits left for a-key-of-the-far-server","code":402}}"#;

/// A server that answers nobody without the key.
fn far() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
            let lines = (&mut reader).lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let field = |name: &str| {
                let mut fields = head.iter().filter_map(|line| line.split_once(": "));
                fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
            };
            let length = field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            let mut body = vec![0; length];
            let _ = reader.read_exact(&mut body);
            let (status, answer) = match field("authorization") {
                Some(sent) if sent != format!("Bearer {KEY}") => (401, "{}"),
                None => (401, "{}"),
                Some(_) if String::from_utf8_lossy(&body).contains("refuse me") => (400, REFUSAL),
                Some(_) => (200, ANSWER),
            };
            let length = answer.len();
            let _ = write!(
                stream,
                "HTTP/1.1 {status} S\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
                 Connection: close\r\n\r\n{answer}"
            );
        }
    });
    port
}

fn write_key(path: &Path, text: &str) {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("a key file");
}

#[test]
fn a_missing_key_keeps_its_tier_down_and_nothing_else() {
    let keys = tempfile::tempdir().expect("a directory");
    let file = keys.path().join("far.key");
    let remote = format!(
        "[[tier]]\nname = \"far\"\nengine = \"remote\"\nmodel = \"m\"\nurl = \"http://127.0.0.1:{}\"\n\
         api_key = {{ file = \"{}\" }}\nhealth = {{ interval = \"200ms\", timeout = \"2s\" }}\n",
        far(),
        file.display()
    );
    let rig = Rig::start(&[tier("near", "", ""), remote]);
    rig.until_serving("near");
    let reason = format!("`api_key` needs the file {}, which cannot be read", file.display());
    until("its reason names the file", || rig.tier("far").reason.starts_with(&reason).then_some(()));
    assert!(!rig.tier("far").routable);
    assert!(rig.log().contains(&reason), "{}", rig.log());
    let check =
        Command::new(mainstay()).args(["check", "--config"]).arg(rig.config()).output().expect("it runs");
    assert_eq!(check.status.code(), Some(78), "{check:?}");
    assert!(String::from_utf8_lossy(&check.stderr).contains(&reason), "{check:?}");

    write_key(&file, "two words");
    until("it is no key", || rig.tier("far").reason.starts_with("`api_key` holds spaces").then_some(()));
    write_key(&file, KEY);
    until("the tier can be asked", || rig.tier("far").routable.then_some(()));
    rig.order("near", Order::Stop).expect("it runs");
    rig.until_serving("far");
    let (status, answer) = rig.chat();
    assert!(status == 200 && answer.contains("x-mainstay-tier: far"), "{answer}");
    let (status, answer) = rig.ask(r#"{"messages":[{"role":"user","content":"refuse me"}]}"#);
    assert!(status == 400 && !answer.contains(KEY), "{answer}");
}

#[test]
fn an_engine_whose_variable_is_not_there_waits_for_it_and_nothing_else_does() {
    let keys = tempfile::tempdir().expect("a directory");
    let file = keys.path().join("token");
    let late = format!("env = {{ LATE_TOKEN = {{ file = \"{}\" }},", file.display());
    let late = tier("late", "", "").replace("env = {", &late);
    let rig = Rig::start(&[late, tier("near", "", "")]);
    rig.until_serving("near");
    let reason = format!("`LATE_TOKEN` needs the file {}, which cannot be read", file.display());
    let exit = rig.until_process("it was tried again", "late", |process| {
        assert_ne!(process.state, ProcessState::Held, "{process:?}");
        process.last_exit.clone().filter(|_| process.run >= Some(3) && process.strikes == 0)
    });
    assert!(exit.evidence.as_ref().is_some_and(|told| told.starts_with(&reason)), "{exit:?}");
    assert!(rig.log().contains(&reason), "{}", rig.log());
    let check =
        Command::new(mainstay()).args(["check", "--config"]).arg(rig.config()).output().expect("it runs");
    assert_eq!(check.status.code(), Some(78), "{check:?}");
    write_key(&file, "the-late-token");
    rig.until_serving("late");
}

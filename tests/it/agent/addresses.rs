//! Where tiers and the endpoint are, and what engines tell of themselves.
use super::rig::{Rig, tier};
use crate::support::until;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

const ANSWER: &str = r#"{"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}"#;

/// A remote server that listens on IPv6 only; the `Host` of each request at it.
fn remote_v6() -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("[::1]:0").expect("the loopback address of IPv6");
    let port = listener.local_addr().expect("it is bound").port();
    let (hosts, named) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
            let head: Vec<String> = (&mut reader)
                .lines()
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .map(|line| line.to_ascii_lowercase())
                .collect();
            let field = |name: &str| head.iter().find_map(|line| line.strip_prefix(name));
            let _ = hosts.send(field("host: ").unwrap_or_default().to_owned());
            let length = field("content-length: ").and_then(|length| length.parse().ok()).unwrap_or(0);
            // A socket that is closed over unread bytes is reset.
            let _ = reader.read_exact(&mut vec![0; length]);
            let length = ANSWER.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{ANSWER}"
            );
        }
    });
    (port, named)
}

#[test]
fn a_remote_tier_may_have_an_ipv6_address() {
    let (port, named) = remote_v6();
    let url = format!("http://[::1]:{port}");
    let six = format!(
        "[[tier]]\nname = \"six\"\nengine = \"remote\"\nmodel = \"m\"\nurl = \"{url}\"\n\
         health = {{ interval = \"200ms\", timeout = \"2s\" }}\n"
    );
    let rig = Rig::start(&[six]);
    rig.until_serving("six");
    assert_eq!(rig.tier("six").url.as_deref(), Some(url.as_str()));
    let (status, answer) = rig.chat();
    assert_eq!(status, 200, "{answer}");
    drop(rig);
    assert!(named.try_iter().all(|host| host == format!("[::1]:{port}")));
}

#[test]
fn the_list_of_models_has_the_context_that_the_engine_told() {
    let rig = Rig::start(&[tier("only", "", "")]);
    rig.until_serving("only");
    until("the engine was asked", || {
        let mut stream = TcpStream::connect(rig.endpoint()).expect("somebody listens");
        write!(stream, "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .expect("it is taken");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        assert!(text.contains(r#""root":"only-model""#), "{text}");
        text.contains(r#""max_model_len":4096"#).then_some(())
    });
}

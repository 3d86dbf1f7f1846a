//! Memory that clients took comes back.
use super::rig::{Rig, tier};
use crate::support::{process, until};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

#[test]
fn memory_of_large_bodies_goes_back_to_the_system() {
    let rig = Rig::start(&[tier("only", "", "")]);
    rig.until_serving("only");
    rig.chat();
    let before = process::rss_anon_kib(rig.pid());
    let keys: Vec<String> = (0..200_000).map(|n| format!("\"{n}\":0")).collect();
    let body = format!("{{\"model\":\"nobody\",\"messages\":[],\"x\":{{{}}}}}", keys.join(","));
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\n";
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    for _ in 0..4 {
        let mut client = TcpStream::connect(rig.endpoint()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 1024];
        assert!(client.read(&mut answer).unwrap() > 0 && answer.starts_with(b"HTTP/1.1 404"));
    }
    until("the memory is the system's again", || {
        (process::rss_anon_kib(rig.pid()) < before + 4 * 1024).then_some(())
    });
}

#[test]
fn memory_of_closed_connections_goes_back_to_the_system() {
    const CLIENTS: usize = 1500;
    // For this process and those that it starts; a few hundred would show it less clearly.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let rig = Rig::start_with("max_connections_per_client = 2000", &[tier("only", "", "")]);
    rig.until_serving("only");
    let endpoint = rig.endpoint();
    // What is made for the first client stays.
    rig.chat();
    let before = process::rss_anon_kib(rig.pid());
    let body = format!("{{\"model\": \"nobody\", \"messages\": \"{}\"}}", "x".repeat(4000));
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let mut client = TcpStream::connect(&endpoint).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            client.write_all(request.as_bytes()).unwrap();
            client
        })
        .collect();
    for client in &mut clients {
        let mut answer = [0; 1024];
        assert!(client.read(&mut answer).unwrap() > 0 && answer.starts_with(b"HTTP/1.1 404"));
    }
    let most = process::rss_anon_kib(rig.pid());
    assert!(most > before + 16 * 1024, "{before} KiB, and {most} KiB with {CLIENTS} clients");
    drop(clients);
    until("the memory is the system's again", || {
        (process::rss_anon_kib(rig.pid()) < before + 3 * 1024).then_some(())
    });
}

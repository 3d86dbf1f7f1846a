//! Requests that two parsers could read differently are refused, not guessed at.
use super::client::{connect, get, provoke, read_answer};
use super::engine::good_engine;
use super::*;
use std::io::Write;

/// What may come back: one refusal, or nothing at all; never an answer to what was hidden in the body.
#[track_caller]
fn refused(bed: &Bed, name: &str, request: &str) {
    let answer = provoke(bed.port, request.as_bytes());
    let refusals = answer.matches("HTTP/1.1 4").count();
    let answers = answer.matches("HTTP/1.1 ").count();
    assert!(answers <= 1 && answers == refusals, "{name}: {answer}");
}

#[test]
fn two_ways_to_read_a_request_are_none() {
    let engine = good_engine();
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    let hidden = get("/health");
    let length = hidden.len();
    let post = "POST /v1/chat/completions HTTP/1.1\r\nHost: m\r\n";
    let requests = [
        (
            "length and chunked",
            format!("{post}Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "chunked and length",
            format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{hidden}"),
        ),
        ("two lengths", format!("{post}Content-Length: 2\r\nContent-Length: {length}\r\n\r\n{{}}{hidden}")),
        ("a list of lengths", format!("{post}Content-Length: 2, 3\r\n\r\n{{}}{hidden}")),
        ("a signed length", format!("{post}Content-Length: +2\r\n\r\n{{}}{hidden}")),
        (
            "chunked is not last",
            format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        ("a chunk size that is none", format!("{post}Transfer-Encoding: chunked\r\n\r\nxyz\r\n{hidden}")),
        (
            "a chunk size that overflows",
            format!("{post}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{hidden}"),
        ),
        (
            "a chunk longer than its size",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}}}\r\n0\r\n\r\n{hidden}"),
        ),
        ("a blank before the colon", format!("{post}Content-Length : 2\r\n\r\n{{}}{hidden}")),
        (
            "a folded field",
            format!("{post}X-A: 1\r\n Content-Length: 2\r\nContent-Length: 0\r\n\r\n{hidden}"),
        ),
        ("no HTTP", "\x16\x03\x01\x02\r\n\r\n".into()),
        ("another version", format!("GET /health HTTP/3.0\r\nHost: m\r\n\r\n{hidden}")),
    ];
    for (name, request) in &requests {
        refused(&bed, name, request);
    }
    assert_eq!(engine.requests().len(), 0);
    // It still serves.
    bed.chat(true).expect_good_by("first");
}

#[test]
fn a_body_that_ends_early_is_no_request() {
    let engine = good_engine();
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    let mut client = connect(bed.port);
    client
        .write_all(b"POST /v1/chat/completions HTTP/1.1\r\nHost: m\r\nContent-Length: 100\r\n\r\n{\"mess")
        .unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = String::new();
    let _ = std::io::Read::read_to_string(&mut client, &mut rest);
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 4"), "{rest}");
    assert_eq!(engine.requests().len(), 0);
}

#[test]
fn an_upstreams_own_framing_does_not_reach_the_client() {
    let engine = super::engine::Engine::start(|t| {
        let body = r#"{"model":"m","data":[{"embedding":[0.5]}],"good":1}"#;
        t.write(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: X-Secret\r\nX-Secret: 1\r\n\
             Keep-Alive: timeout=5\r\nServer: uvicorn\r\nX-Mainstay-Tier: forged\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
    });
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    let mut client = connect(bed.port);
    client.write_all(client::post("/v1/embeddings", &json!({"input": "x"})).as_bytes()).unwrap();
    let answer = read_answer(&mut client, false);
    answer.expect_good_by("first");
    assert_eq!(answer.fields("x-mainstay-tier").len(), 1);
    for field in ["x-secret", "keep-alive", "server"] {
        assert_eq!(answer.field(field), None, "{field}");
    }
}

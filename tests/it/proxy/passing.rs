//! Pass-through paths: as they come, both ways, and never twice.
use super::client::{Ending, connect, get, provoke, read_answer};
use super::engine::{Engine, good_engine};
use super::*;
use std::io::{Read, Write};
use std::net::Shutdown;

fn tokenizer() -> Engine {
    Engine::start(|t| {
        let body = String::from_utf8(t.request.body.clone()).unwrap();
        t.whole("200 OK", "X-Own: 1\r\n", format!("{{\"echo\":\"{body}\"}}"));
    })
}

#[test]
fn it_goes_to_the_first_open_tier_of_the_dialect() {
    let (ollama, engine) = (good_engine(), tokenizer());
    let bed = Bed::new(vec![
        tier("first", Kind::Ollama, ollama.port),
        vllm("second", dead_port()),
        vllm("third", engine.port),
    ]);
    let request = "POST /tokenize?full=1 HTTP/1.1\r\nHost: m\r\nAuthorization: Bearer x\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let answer = ask(bed.port, request);
    assert_eq!((answer.status, answer.body.as_str()), (200, "{\"echo\":\"abcde\"}"));
    assert_eq!((answer.field("x-mainstay-tier"), answer.field("x-own")), (Some("third"), Some("1")));
    let asked = &engine.requests()[0];
    assert!(asked.head.starts_with("POST /tokenize?full=1 HTTP/1.1\r\n"), "{}", asked.head);
    assert_eq!(asked.field("authorization"), None);
    assert_eq!(bed.tally(2), Tally { requests: 1, answered: 1, ..Tally::default() });
    assert_eq!(bed.tally(1), Tally { requests: 1, failed_over: 1, ..Tally::default() });
}

#[test]
fn a_tier_that_is_leaving_gets_none() {
    let engine = tokenizer();
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    bed.change(|table| table.tiers[0].standing = Standing::Leaving);
    let answer = bed.post("/tokenize", &json!({"prompt": "x"}));
    assert_eq!((answer.status, answer.code().as_str()), (503, "all_tiers_down"));
    assert_eq!(engine.requests().len(), 0);
}

#[test]
fn it_is_never_sent_twice() {
    let (dying, spare) = (Engine::start(|t| t.close()), tokenizer());
    let bed = Bed::new(vec![vllm("first", dying.port), vllm("second", spare.port)]);
    let answer = bed.post("/tokenize", &json!({"prompt": "x"}));
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_failed"));
    assert_eq!(spare.requests().len(), 0);
    assert_eq!(bed.live(0).sample().failures_in_row, 1);
}

#[test]
fn an_answer_that_dies_does_not_look_whole() {
    let engine = Engine::start(|t| {
        t.stream();
        t.event("one");
        t.close();
    });
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    let answer = bed.post("/tokenize", &json!({}));
    assert_eq!((answer.body.as_str(), answer.ending), ("data: one\n\n", Ending::Cut));
    assert_eq!(bed.tally(0).cut, 1);
}

#[test]
fn an_upload_that_its_client_breaks_is_no_failure_of_the_tier() {
    const HEAD: &str = "POST /tokenize HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n";
    let engine = tokenizer();
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    // JSON is read before a tier is asked, the rest is on its way to one.
    for kind in ["application/json", "application/octet-stream"] {
        for _ in 0..3 {
            let damaged = provoke(
                bed.port,
                format!("{HEAD}Content-Type: {kind}\r\n\r\n3\r\nabc\r\nxyz\r\n").as_bytes(),
            );
            assert!(damaged.starts_with("HTTP/1.1 400 ") && damaged.contains("invalid_body"), "{damaged}");
            let mut client = connect(bed.port);
            client.write_all(format!("{HEAD}Content-Type: {kind}\r\n\r\n3\r\nabc\r\n").as_bytes()).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            let _ = client.read_to_string(&mut answer);
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
        }
    }
    until("they are over", || bed.live(0).sample().in_flight == 0);
    assert_eq!(bed.live(0).sample().failures_in_row, 0);
    let tally = bed.tally(0);
    assert_eq!((tally.cut, tally.failed_over, tally.answered), (0, 0, 0));
}

#[test]
fn an_upload_that_breaks_while_its_answer_comes_is_no_failure_either() {
    // Answers before it has read all, as an engine does that streams both ways.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let engine = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"abc\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            read.push(byte[0]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").unwrap();
        while !matches!(stream.read(&mut [0; 1024]), Ok(0) | Err(_)) {}
    });
    let bed = Bed::new(vec![vllm("first", port)]);
    let mut client = connect(bed.port);
    client
        .write_all(b"POST /tokenize HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .unwrap();
    assert_eq!(client.peek(&mut [0; 1]).unwrap(), 1, "the answer has begun");
    client.write_all(b"xyz\r\n").unwrap();
    let answer = read_answer(&mut client, false);
    assert_eq!((answer.body.as_str(), answer.ending), ("one", Ending::Cut));
    engine.join().unwrap();
    until("it is over", || bed.live(0).sample().in_flight == 0);
    assert_eq!((bed.live(0).sample().failures_in_row, bed.tally(0).cut), (0, 0));
}

#[test]
fn the_model_is_named_as_the_tier_knows_it() {
    let engine = Engine::start(|t| t.whole("200 OK", "", "{}"));
    let mut first = vllm("first", engine.port);
    first.aliases = vec!["alias".into()];
    let bed = Bed::new(vec![first, vllm("second", dead_port())]);
    let sent = |body: &str, content_type: &str| {
        let length = body.len();
        let request = format!(
            "POST /tokenize HTTP/1.1\r\nHost: m\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        assert_eq!(ask(bed.port, &request).status, 200, "{body}");
        String::from_utf8(engine.requests().last().unwrap().body.clone()).unwrap()
    };
    let json = "application/json; charset=utf-8";
    for name in ["alias", "second-model"] {
        let body = format!("{{\"prompt\":\"x\", \"model\":\"{name}\"}}");
        assert_eq!(sent(&body, json), r#"{"prompt":"x","model":"first-model"}"#);
        // What is not JSON by its own account is not looked into.
        assert_eq!(sent(&body, "text/plain"), body);
    }
    // Nothing to change, or nothing that we know better: byte by byte as it came.
    for body in [
        r#"{"model": "first-model"}"#,
        r#"{"model": "an-adapter"}"#,
        r#"{"prompt": "x"}"#,
        r#"{"model": 7}"#,
        r#"["alias"]"#,
        r#"{"model": "alias""#,
    ] {
        assert_eq!(sent(body, json), body);
    }
    // Too large to be read whole, by its own account or not: as it came, all of it.
    let large = format!("{{\"model\":\"alias\",\"prompt\":\"{}\"}}", "x".repeat(1 << 20));
    let bed = Bed::with(Limits { max_body: 4 << 20, ..limits() }, vec![vllm("first", engine.port)]);
    bed.change(|table| table.tiers[0].aliases = vec!["alias".into()]);
    assert_eq!(ask(bed.port, &post_text("/tokenize", &large)).status, 200);
    assert_eq!(engine.requests().last().unwrap().body, large.as_bytes());
    let chunked = format!(
        "POST /tokenize HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{large}\r\n0\r\n\r\n",
        large.len()
    );
    assert_eq!(ask(bed.port, &chunked).status, 200);
    assert_eq!(engine.requests().last().unwrap().body, large.as_bytes());
    // With `any_model` every name leads into the chain.
    let bed = Bed::with(Limits { any_model: true, ..limits() }, vec![vllm("first", engine.port)]);
    assert_eq!(bed.post("/tokenize", &json!({"model": "gpt"})).status, 200);
    assert_eq!(engine.requests().last().unwrap().json()["model"], "first-model");
}

fn post_text(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

#[test]
fn paths_that_change_an_engine_cannot_be_reached_by_any_setting() {
    let engine = tokenizer();
    let listed: Vec<String> = [
        "/sleep",
        "/v1/sleep",
        "/slots/0",
        "/props",
        "/api/pull",
        "/update_weights",
        "/collective_rpc",
        "/invocations",
        "/tokenize",
    ]
    .map(String::from)
    .into();
    let bed = Bed::with(Limits { passthrough: listed.clone(), ..limits() }, vec![vllm("first", engine.port)]);
    for path in listed.iter().filter(|path| *path != "/tokenize") {
        let answer = bed.post(path, &json!({}));
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{path}");
    }
    for path in ["/tokenize/../sleep", "/tokenize/x", "/TOKENIZE", "/%74okenize", "//sleep", "/sleep/"] {
        assert_eq!(bed.post(path, &json!({})).status, 404, "{path}");
    }
    assert_eq!(engine.requests().len(), 0);
    assert_eq!(bed.post("/tokenize", &json!({})).status, 200);
}

#[test]
fn its_limits() {
    let engine = tokenizer();
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    let announced = "POST /tokenize HTTP/1.1\r\nHost: m\r\nContent-Length: 2000000\r\n\r\n";
    assert_eq!(ask(bed.port, announced).code(), "body_too_large");
    let chunk = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
    let unannounced = format!(
        "POST /tokenize HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"
    );
    let answer = ask(bed.port, &unannounced);
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    assert_eq!(ask(bed.port, &get("/tokenize").replace("GET", "DELETE")).status, 405);
    // Nobody has it.
    let bed = Bed::new(vec![tier("first", Kind::Ollama, engine.port)]);
    assert_eq!(bed.post("/tokenize", &json!({})).code(), "not_supported");
    let bed = Bed::new(vec![vllm("first", dead_port())]);
    assert_eq!(bed.post("/tokenize", &json!({})).code(), "all_tiers_down");
}

/// It answers an upload before it has read it, and keeps the connection; any other request it answers as it should.
fn hasty_engine() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    head.push(byte[0]);
                }
                let (status, body) = match head.starts_with(b"POST /tokenize") {
                    true => ("404 Not Found", r#"{"detail":"Not Found"}"#),
                    false => (
                        "200 OK",
                        r#"{"model":"m","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}"#,
                    ),
                };
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
                );
                stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
                let _ = stream.read_to_end(&mut Vec::new());
            });
        }
    });
    port
}

#[test]
fn a_connection_that_still_uploads_is_nobody_elses() {
    let bed = Bed::with(Limits { max_body: 8 << 20, ..limits() }, vec![vllm("first", hasty_engine())]);
    let mut slow = connect(bed.port);
    let (head, piece) =
        ("POST /tokenize HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n", vec![b'x'; 2 << 20]);
    slow.write_all(format!("{head}{:x}\r\n", piece.len()).as_bytes()).unwrap();
    slow.write_all(&piece).unwrap();
    slow.write_all(b"\r\n").unwrap();
    // It was answered, and goes on sending.
    let mut status = [0; 12];
    slow.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 404");
    let answer = bed.chat(false);
    assert_eq!(answer.status, 200, "{answer:?}");
    drop(slow);
}

#[test]
fn a_stream_that_flows_has_no_limit_and_a_silent_one_has() {
    let (over, is_over) = std::sync::mpsc::channel::<()>();
    let is_over = std::sync::Mutex::new(is_over);
    let engine = Engine::start(move |t| match t.request.json()["stream"].as_str() {
        Some("flows") => {
            t.stream();
            let is_over = is_over.lock().unwrap();
            while is_over.recv_timeout(Duration::from_millis(20)).is_err() {
                t.event("x");
            }
            t.event("[DONE]");
            t.end();
        }
        Some("is silent") => {
            t.stream();
            t.event("x");
            t.wait_for_close();
        }
        _ => t.wait_for_close(),
    });
    let limits = Limits { request_timeout: Some(Duration::from_secs(1)), ..limits() };
    let bed = Bed::with(limits, vec![vllm("first", engine.port)]);
    std::thread::scope(|scope| {
        let flows = scope.spawn(|| bed.post("/tokenize", &json!({"stream": "flows"})));
        until("the stream is asked for", || engine.requests().len() == 1);
        // Their time passes after that of the stream's request.
        let silent = bed.post("/tokenize", &json!({"stream": "is silent"}));
        assert_eq!((silent.status, silent.ending), (200, Ending::Cut), "{silent:?}");
        let answer = bed.post("/tokenize", &json!({}));
        assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_failed"));
        over.send(()).unwrap();
        let flows = flows.join().unwrap();
        assert_eq!((flows.status, flows.ending), (200, Ending::Whole), "{flows:?}");
        assert_eq!(flows.events().last(), Some(&"[DONE]"));
    });
}

#[test]
fn without_a_request_timeout_all_paths_answer() {
    let engine = good_engine();
    let bed = Bed::with(Limits { request_timeout: None, ..limits() }, vec![vllm("first", engine.port)]);
    assert_eq!(bed.post("/tokenize", &json!({})).status, 200);
    for streaming in [false, true] {
        let answer = bed.chat(streaming);
        assert_eq!((answer.status, answer.ending), (200, Ending::Whole));
    }
}

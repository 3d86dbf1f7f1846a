//! The spellings of a path, and what a path takes.
use super::client::get;
use super::engine::{Engine, good_engine};
use super::*;

#[test]
fn a_path_that_is_spelled_otherwise_leads_to_the_same_place() {
    let engine = good_engine();
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    for path in
        ["//v1/chat/completions", "/v1/chat/completions/", "/v1//chat/completions", "/chat/completions"]
    {
        bed.post(path, &chat(false)).expect_good_by("first");
    }
    bed.post("/completions", &json!({"prompt": "x"})).expect_good_by("first");
    bed.post("/embeddings/", &json!({"input": "x"})).expect_good_by("first");
    let asked: Vec<String> =
        engine.requests().iter().map(|r| r.head.split(' ').nth(1).unwrap().to_owned()).collect();
    let chats = ["/v1/chat/completions"; 4];
    assert_eq!(asked, [&chats[..], &["/v1/completions", "/v1/embeddings"]].concat());
    let listed = ask(bed.port, &get("/v1/models")).json();
    for path in ["/models", "/v1/models/", "//v1/models"] {
        assert_eq!(ask(bed.port, &get(path)).json(), listed, "{path}");
    }
    for path in ["/models/first-model", "//v1/models/first-model"] {
        assert_eq!(ask(bed.port, &get(path)).json(), listed["data"][0], "{path}");
    }
    assert_eq!(ask(bed.port, &get("/health/")).status, 200);
}

#[test]
fn a_passthrough_is_handed_on_as_it_is_listed() {
    let engine = Engine::start(|t| t.whole("200 OK", "", "{}"));
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    for path in ["/tokenize/?full=1", "//tokenize?full=1"] {
        assert_eq!(bed.post(path, &json!({})).status, 200, "{path}");
    }
    for request in engine.requests() {
        assert!(request.head.starts_with("POST /tokenize?full=1 HTTP/1.1\r\n"), "{}", request.head);
    }
}

#[test]
fn a_method_that_a_path_does_not_take_is_told_those_that_it_takes() {
    let bed = Bed::new(vec![]);
    for (path, method, allowed) in [
        ("/v1/chat/completions", "GET", "POST"),
        ("/v1/embeddings/", "OPTIONS", "POST"),
        ("/v1/models", "POST", "GET, HEAD"),
        ("/v1/models/m", "DELETE", "GET, HEAD"),
        ("/health", "PUT", "GET, HEAD"),
        ("/metrics", "POST", "GET, HEAD"),
        ("/tokenize", "DELETE", "GET, HEAD, POST"),
    ] {
        let answer = ask(bed.port, &get(path).replace("GET ", &format!("{method} ")));
        assert_eq!((answer.status, answer.code().as_str()), (405, "method_not_allowed"), "{method} {path}");
        assert_eq!(answer.field("allow"), Some(allowed), "{method} {path}");
    }
}

#[test]
fn what_stands_in_between_is_told_to_let_a_stream_flow() {
    let engine = good_engine();
    let passed = Engine::start(|t| {
        t.stream();
        t.event("x");
        t.end();
    });
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    let flow = |answer: &Answer| {
        (
            answer.field("cache-control").map(str::to_owned),
            answer.field("x-accel-buffering").map(str::to_owned),
        )
    };
    let told = (Some("no-cache".to_owned()), Some("no".to_owned()));
    assert_eq!(flow(&bed.chat(true)), told);
    assert_eq!(flow(&bed.chat(false)), (None, None));
    bed.change(|table| table.tiers[0].upstream.as_mut().unwrap().port = passed.port);
    assert_eq!(flow(&bed.post("/tokenize", &json!({}))), told);
}

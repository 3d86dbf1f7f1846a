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

use super::*;
use crate::kinds::verdict::Verdict;
use crate::kinds::{Endpoint, Kind, carries};
use serde_json::json;

#[track_caller]
fn check_request(given: Value, expected: Value) {
    assert_eq!(carries(Kind::Ollama, Endpoint::Chat, &given), Ok(()), "{given}");
    assert_eq!(request(&given, "tier-model", true), expected);
}

#[test]
fn a_plain_chat_says_explicitly_what_ollama_would_assume_otherwise() {
    check_request(
        json!({ "model": "alias", "messages": [{ "role": "user", "content": "hello" }] }),
        json!({ "model": "tier-model", "messages": [{ "role": "user", "content": "hello" }], "stream": false, "truncate": false, "shift": false, "keep_alive": -1 }),
    );
}

#[test]
fn every_option_has_its_place() {
    check_request(
        json!({
            "messages": [{ "role": "user", "content": "x" }], "stream": true, "stream_options": { "include_usage": true },
            "temperature": 0.5, "top_p": 0.9, "seed": 7, "frequency_penalty": 0.1, "presence_penalty": 0.2, "top_k": 40,
            "max_tokens": 100, "max_completion_tokens": 50, "stop": "END", "n": 1, "tools": [], "logprobs": false,
            "response_format": { "type": "text" }, "reasoning_effort": "none", "user": "u", "tool_choice": "none",
        }),
        json!({
            "model": "tier-model", "messages": [{ "role": "user", "content": "x" }], "stream": true,
            "options": { "temperature": 0.5, "top_p": 0.9, "frequency_penalty": 0.1, "presence_penalty": 0.2, "seed": 7, "top_k": 40, "num_predict": 50, "stop": ["END"] },
            "think": false, "truncate": false, "shift": false, "keep_alive": -1,
        }),
    );
}

#[test]
fn history_is_text_whatever_form_it_came_in() {
    let messages = json!([
        { "role": "developer", "content": "be brief" },
        { "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] },
        { "role": "assistant", "content": null, "reasoning_content": "hm" },
        { "role": "user", "content": "", "name": "Ann" },
    ]);
    let native = request(&json!({ "messages": messages }), "m", true);
    assert_eq!(
        native["messages"],
        json!([
            { "role": "system", "content": "be brief" },
            { "role": "user", "content": "ab" },
            { "role": "assistant", "content": "", "thinking": "hm" },
            { "role": "user", "content": "" },
        ])
    );
}

#[test]
fn a_server_that_is_not_ours_is_not_told_what_to_keep() {
    let native = request(&json!({ "messages": [{ "role": "user", "content": "x" }] }), "m", false);
    assert_eq!(native.get("keep_alive"), None);
    assert_eq!(native.get("shift"), None);
    assert_eq!(native["truncate"], false);
}

#[test]
fn what_would_be_silently_lost_is_not_carried() {
    let refused = |fields: Value| {
        let mut body = json!({ "messages": [{ "role": "user", "content": "x" }] });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        carries(Kind::Ollama, Endpoint::Chat, &body).expect_err(&body.to_string()).to_string()
    };
    for fields in [
        json!({ "tools": [{ "type": "function" }] }),
        json!({ "functions": [{}, {}] }),
        json!({ "response_format": { "type": "json_object" } }),
        json!({ "n": 2 }),
        json!({ "logprobs": true }),
        json!({ "top_logprobs": 3 }),
        json!({ "logit_bias": { "1": -100 } }),
        json!({ "guided_choice": ["a"] }),
        json!({ "modalities": ["text", "audio"] }),
        json!({ "continue_final_message": true }),
        json!({ "max_tokens": -1 }),
        json!({ "max_completion_tokens": "many" }),
        json!({ "temperature": "hot" }),
        json!({ "stop": [1] }),
        json!({ "stream": "yes" }),
        json!({ "messages": [] }),
        json!({ "messages": "x" }),
        json!({ "messages": [{ "role": "tool", "content": "x" }] }),
        json!({ "messages": [{ "role": "poet", "content": "x" }] }),
        json!({ "messages": [{ "role": "assistant", "tool_calls": [{ "id": "1" }] }] }),
        json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "x" } }] }] }),
        json!({ "messages": [{ "role": "user", "content": 7 }] }),
    ] {
        let reason = refused(fields);
        assert!(!reason.is_empty() && reason.len() < 80 && reason.is_ascii(), "{reason}");
    }
    for endpoint in [Endpoint::Completions, Endpoint::Embeddings, Endpoint::Passthrough] {
        assert!(carries(Kind::Ollama, endpoint, &json!({})).is_err());
    }
}

fn naming() -> Naming {
    Naming { id: "chatcmpl-1".into(), created: 1_700_000_000, model: "m".into() }
}

fn chunks(include_usage: bool, lines: &[&str]) -> (Vec<Value>, bool) {
    let mut stream = Stream::new(naming(), include_usage);
    let chunks = lines.iter().flat_map(|line| stream.line(line.as_bytes()).unwrap()).collect();
    (chunks, stream.has_ended())
}

#[test]
fn a_stream_has_its_role_first_and_its_finish_last() {
    let (chunks, ended) = chunks(
        true,
        &[
            r#"{"model":"m","message":{"role":"assistant","content":"","thinking":"hm"},"done":false}"#,
            "\n",
            r#"{"model":"m","message":{"role":"assistant","content":"Hel"},"done":false}"#,
            r#"{"model":"m","message":{"role":"assistant","content":"lo"},"done":true,"done_reason":"length","prompt_eval_count":10,"eval_count":2}"#,
            r#"{"late":"news"}"#,
        ],
    );
    assert!(ended);
    let deltas: Vec<_> = chunks.iter().map(|chunk| chunk["choices"][0]["delta"].clone()).collect();
    assert_eq!(
        deltas,
        [
            json!({ "role": "assistant", "content": "" }),
            json!({ "reasoning": "hm", "reasoning_content": "hm" }),
            json!({ "content": "Hel" }),
            json!({ "content": "lo" }),
            json!({}),
            Value::Null,
        ]
    );
    assert_eq!(chunks[4]["choices"][0]["finish_reason"], "length");
    assert_eq!(chunks[5]["choices"], json!([]));
    assert_eq!(
        chunks[5]["usage"],
        json!({ "prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12 })
    );
    for chunk in &chunks {
        assert_eq!((&chunk["id"], &chunk["object"]), (&json!("chatcmpl-1"), &json!("chat.completion.chunk")));
        assert_eq!((&chunk["created"], &chunk["model"]), (&json!(1_700_000_000), &json!("m")));
    }
}

#[test]
fn usage_comes_only_when_asked_for() {
    let (chunks, _) =
        chunks(false, &[r#"{"message":{"content":"x"},"done":true,"done_reason":"stop","eval_count":1}"#]);
    assert_eq!(chunks.len(), 3);
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()));
    assert_eq!(chunks[2]["choices"][0]["finish_reason"], "stop");
}

#[test]
fn a_stream_that_stops_without_its_end_is_known_to_be_cut() {
    // Thirty times the same token, or a runner that vanished: Ollama just stops.
    let (chunks, ended) = chunks(true, &[r#"{"message":{"content":"x"},"done":false}"#]);
    assert_eq!((chunks.len(), ended), (2, false));
}

#[test]
fn a_line_that_is_no_answer_breaks_the_stream() {
    let broken = |line: &str| Stream::new(naming(), false).line(line.as_bytes()).unwrap_err();
    let died = broken(r#"{"error":"an error was encountered while running the model: unexpected EOF"}"#);
    assert_eq!(died.verdict, Verdict::Failure { strike: true });
    assert_eq!(died.evidence, "an error was encountered while running the model: unexpected EOF");
    assert_eq!(broken(r#"{"error":"server busy, please try again."}"#).verdict, Verdict::Overloaded);
    for line in ["{\"message\":", "[]", "{}", r#"{"done":false}"#] {
        assert_eq!(broken(line).verdict, Verdict::Failure { strike: true }, "{line}");
    }
}

#[test]
fn a_whole_answer_is_translated_or_refused() {
    let answer = json!({ "model": "x", "message": { "role": "assistant", "content": "hi", "thinking": "hm" }, "done": true, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 1 });
    assert_eq!(
        whole(&answer, &naming()).unwrap(),
        json!({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": "m",
            "choices": [{ "index": 0, "message": { "role": "assistant", "content": "hi", "reasoning": "hm", "reasoning_content": "hm" }, "logprobs": null, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4 },
        })
    );
    let cut = json!({ "message": { "content": "hi" }, "done": false });
    assert_eq!(whole(&cut, &naming()).unwrap_err().verdict, Verdict::Failure { strike: true });
    let loaded = json!({ "message": { "content": "" }, "done": true, "done_reason": "load" });
    assert!(whole(&loaded, &naming()).is_err());
    assert!(whole(&json!({ "error": "x" }), &naming()).is_err());
}

//! An upstream that echoes the key which it was sent, in whatever it says: no client sees it, nor hosts and paths.
use super::client::Answer;
use super::engine::{Engine, FINISH, ROLE};
use super::*;
use mainstay::kinds::Api;

/// A remote tier with a key.
fn keyed(name: &str, port: u16) -> TierRoute {
    let upstream =
        Upstream { host: "127.0.0.1".into(), port, base_path: String::new(), api_key: Some(KEY.into()) };
    TierRoute { upstream: Some(upstream), ..tier(name, Kind::Remote(Api::OpenAi), port) }
}

/// A chain of one engine that answers with this status, and the key in fields and body.
fn echoing(status: &'static str) -> (Engine, Bed) {
    let echo = Engine::start(move |talk| {
        assert_eq!(talk.request.field("authorization"), Some(format!("Bearer {KEY}").as_str()));
        let body =
            json!({"error": {"message": format!("bad request with {KEY} at /srv/models/x"), "code": KEY}});
        talk.whole(status, &format!("X-Echo: Bearer {KEY}\r\n"), body.to_string());
    });
    let bed = Bed::new(vec![keyed("first", echo.port)]);
    (echo, bed)
}

#[track_caller]
fn expect_no_key(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    for part in [&answer.head, &answer.body] {
        assert!(!part.contains(KEY) && !part.contains("4711"), "{answer:?}");
    }
}

/// Seen to fail without the veil in `Driver::perform`, in `headers::to_client` and in `Passage`.
#[test]
fn an_error_that_is_passed_on_shows_no_key() {
    for (status, code) in [("400 Bad Request", 400), ("422 No", 422), ("503 Busy", 503), ("501 Lacking", 501)]
    {
        let (_echo, bed) = echoing(status);
        for answer in [bed.chat(false), bed.chat(true), bed.post("/tokenize", &json!({"prompt": "x"}))] {
            expect_no_key(&answer, code);
            assert_eq!(answer.field("x-echo"), Some("Bearer [redacted]"), "{answer:?}");
            assert!(answer.json()["error"]["message"].as_str().unwrap().contains("[redacted]"), "{answer:?}");
        }
    }
}

/// Seen to fail with the losses' words in the text.
#[test]
fn the_text_of_a_503_names_the_kind_of_failure_only() {
    for status in ["500 Oops", "401 Who", "502 Bad Gateway"] {
        let (_echo, bed) = echoing(status);
        let answer = bed.chat(false);
        expect_no_key(&answer, 503);
        assert!(!answer.body.contains("/srv"), "{answer:?}");
        assert!(answer.body.contains(&format!("first: HTTP {}", &status[..3])), "{answer:?}");
    }
}

#[test]
fn a_tier_that_was_not_asked_is_spoken_of_in_the_closed_words() {
    let bed = Bed::new(vec![keyed("first", dead_port())]);
    bed.change(|table| {
        table.tiers[0].standing = Standing::Closed;
        table.tiers[0].reason = "restart in 4 s: model /srv/secret not found".into();
        table.tiers[0].brief = "its engine is about to be restarted";
    });
    for answer in [bed.chat(false), client::ask(bed.port, &client::get("/health"))] {
        expect_no_key(&answer, 503);
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert_eq!(message, "No tier can answer now: first: its engine is about to be restarted");
    }
}

#[test]
fn an_unknown_host_is_not_told_to_the_client() {
    let upstream =
        Upstream { host: "no-such-host.invalid".into(), port: 1, base_path: String::new(), api_key: None };
    let bed = Bed::new(vec![TierRoute { upstream: Some(upstream), ..vllm("first", 1) }]);
    for answer in [bed.chat(false), bed.post("/tokenize", &json!({}))] {
        assert_eq!(answer.status, 503);
        assert!(
            answer.body.contains("first: cannot be reached") && !answer.body.contains("invalid\""),
            "{answer:?}"
        );
        assert!(!answer.body.contains("no-such-host"), "{answer:?}");
    }
}

/// The error is the first event, or one in the middle of what is passed through.
#[test]
fn an_error_event_shows_no_key() {
    let echo = Engine::start(|talk| {
        let error = format!(r#"{{"error":{{"message":"no {KEY}","code":400}}}}"#);
        talk.stream();
        if talk.request.head.contains("/tokenize") {
            talk.event("hello");
            // In two pieces, cut within the key.
            let (one, two) = error.split_at(error.find(KEY).unwrap() + 5);
            talk.chunk(format!("data: {one}"));
            talk.chunk(format!("{two}\n\n"));
        } else {
            talk.event(ROLE);
            talk.event(&error);
        }
        talk.event(FINISH);
        talk.event("[DONE]");
        talk.end();
    });
    let bed = Bed::new(vec![keyed("first", echo.port)]);
    expect_no_key(&bed.chat(true), 400);
    let passed = bed.post("/tokenize", &json!({"stream": true}));
    expect_no_key(&passed, 200);
    assert_eq!(passed.events().len(), 4, "{passed:?}");
    assert!(passed.body.contains(r#""no [redacted]**********""#), "{passed:?}");
}

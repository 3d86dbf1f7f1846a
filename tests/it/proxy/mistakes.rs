//! Whose mistake a request is that no tier can do anything with, and what its client is told.
use super::engine::{Engine, good_engine};
use super::*;
use mainstay::kinds::Api;

fn remote(name: &str, port: u16) -> TierRoute {
    tier(name, Kind::Remote(Api::OpenAi), port)
}

fn post(bed: &Bed, fields: &Value) -> Answer {
    let mut body = chat(false);
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    bed.post("/v1/chat/completions", &body)
}

fn message(answer: &Answer) -> String {
    answer.json()["error"]["message"].as_str().unwrap().to_owned()
}

/// Seen to fail with every tier that was skipped as "not asked".
#[test]
fn a_dead_tier_that_could_carry_it_gives_503_and_the_skipped_ones_say_why() {
    let (first, third) = (good_engine(), good_engine());
    let bed = Bed::new(vec![
        tier("first", Kind::LlamaServer, first.port),
        remote("second", dead_port()),
        tier("third", Kind::Ollama, third.port),
    ]);
    for (field, value) in [("guided_json", json!({"type": "object"})), ("stop_token_ids", json!([3]))] {
        for (standing, dead) in
            [(Standing::Open, "second: connection refused"), (Standing::Closed, "second: down")]
        {
            bed.change(|table| {
                table.tiers[1].standing = standing;
                table.tiers[1].brief = "down";
            });
            let answer = post(&bed, &json!({ field: value }));
            assert_eq!((answer.status, answer.code().as_str()), (503, "all_tiers_down"), "{answer:?}");
            let skipped = format!("skipped (does not obey {field})");
            let expected = format!("first: {skipped}; {dead}; third: {skipped}");
            assert!(message(&answer).ends_with(&expected), "{answer:?}");
        }
    }
    // Stopped for good, or not there at all: then it can never be carried.
    bed.change(|table| drop(table.tiers.remove(1)));
    let answer = post(&bed, &json!({"stop_token_ids": [3]}));
    assert_eq!((answer.status, answer.code().as_str()), (400, "not_supported"));
    assert_eq!(first.requests().len() + third.requests().len(), 0);
}

/// Seen to fail with 503 and Retry-After for each of them.
#[test]
fn a_clients_mistake_is_told_though_a_better_tier_is_down() {
    let small = good_engine();
    let bed = Bed::new(vec![remote("first", dead_port()), tier("second", Kind::Ollama, small.port)]);
    for standing in [Standing::Open, Standing::Closed] {
        bed.change(|table| table.tiers[0].standing = standing);
        for (param, fields) in [
            ("max_tokens", json!({"max_tokens": "x"})),
            ("temperature", json!({"temperature": "hot"})),
            ("n", json!({"n": -1})),
            ("messages", json!({"messages": "hi"})),
            ("messages", json!({"messages": [{"role": "poet", "content": "hi"}]})),
        ] {
            let answer = post(&bed, &fields);
            assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_value"), "{answer:?}");
            let error = &answer.json()["error"];
            assert_eq!((&error["type"], &error["param"]), (&json!("invalid_request_error"), &json!(param)));
            assert_eq!(answer.field("retry-after"), None);
            let skipped = answer.field("x-mainstay-skipped").unwrap();
            assert!(
                skipped.starts_with("second; ") && skipped.contains(param.trim_end_matches('s')),
                "{skipped}"
            );
        }
        // What Ollama alone cannot do is no mistake.
        let answer = post(&bed, &json!({"n": 2}));
        assert_eq!((answer.status, answer.code().as_str()), (503, "all_tiers_down"), "{answer:?}");
    }
    assert_eq!(small.requests().len(), 0);
    // An engine with OpenAI's API has words of its own for it.
    let spare = good_engine();
    let bed = Bed::new(vec![tier("first", Kind::Ollama, small.port), vllm("second", spare.port)]);
    post(&bed, &json!({"max_tokens": "x"})).expect_good_by("second");
}

/// Seen to fail with the Ollama tier as "not asked".
#[test]
fn a_path_that_a_tier_does_not_have_is_named() {
    let small = good_engine();
    let bed = Bed::new(vec![vllm("first", dead_port()), tier("second", Kind::Ollama, small.port)]);
    bed.change(|table| {
        table.tiers[0].standing = Standing::Closed;
        table.tiers[0].brief = "down";
    });
    let answer = bed.post("/tokenize", &json!({"prompt": "x"}));
    assert_eq!(answer.code(), "all_tiers_down");
    assert!(
        message(&answer).ends_with("first: down; second: skipped (this path is not translated)"),
        "{answer:?}"
    );
}

/// Seen to fail with vectors of the first tier's model.
#[test]
fn embeddings_of_a_model_whose_tier_has_none_are_refused() {
    let (first, second) = (good_engine(), good_engine());
    let named = TierRoute { model: "tiny".into(), ..tier("second", Kind::Ollama, second.port) };
    let bed = Bed::new(vec![tier("first", Kind::LlamaServer, first.port), named]);
    for standing in [Standing::Open, Standing::Closed] {
        bed.change(|table| table.tiers[0].standing = standing);
        let answer = bed.post("/v1/embeddings", &json!({"model": "tiny", "input": "x"}));
        assert_eq!((answer.status, answer.code().as_str()), (400, "not_supported"), "{answer:?}");
        let reasons = "first: its vectors would be of another model; second: embeddings are not translated";
        assert!(message(&answer).ends_with(reasons), "{answer:?}");
    }
    assert_eq!(first.requests().len() + second.requests().len(), 0);
    // Another tier has the same model, but is down.
    bed.change(|table| table.tiers[0].model = "tiny".into());
    let answer = bed.post("/v1/embeddings", &json!({"model": "tiny", "input": "x"}));
    assert_eq!((answer.status, answer.code().as_str()), (503, "all_tiers_down"), "{answer:?}");
    assert_eq!(answer.field("x-mainstay-skipped"), Some("second; embeddings are not translated"));
}

/// Seen to fail with an answer of the weak tier.
#[test]
fn a_wrong_number_of_choices_is_refused_and_not_answered_by_a_weaker_tier() {
    let engine = Engine::start(|t| {
        let n = t.request.json()["n"].clone();
        let said = match n.as_i64() {
            Some(n) => format!("Field 'n': Value must be between 1 <= value <= 4, but got {n}"),
            None => "Field 'n': [json.exception.type_error.302] type must be number, but is string".into(),
        };
        let error = json!({"code": 400, "message": said, "type": "invalid_request_error"});
        t.whole("400 Bad Request", "", json!({ "error": error }).to_string());
    });
    let (spare, weak) = (good_engine(), good_engine());
    let first = || tier("first", Kind::LlamaServer, engine.port);
    let bed = Bed::new(vec![first(), weakened("second", weak.port)]);
    for n in [json!(-1), json!(0), json!("3"), json!([1])] {
        for refuse in ["", "X-Mainstay-Degrade: refuse\r\n"] {
            let mut body = chat(false);
            body["n"] = n.clone();
            let answer = ask(bed.port, &client::post_with("/v1/chat/completions", refuse, &body));
            assert_eq!(
                (answer.status, answer.field("x-mainstay-tier")),
                (400, Some("first")),
                "{n} {answer:?}"
            );
            assert!(message(&answer).starts_with("Field 'n': "), "{answer:?}");
        }
    }
    assert_eq!(weak.requests().len(), 0);
    // More than this engine has slots for: another one may have them.
    let bed = Bed::new(vec![first(), vllm("second", spare.port)]);
    post(&bed, &json!({"n": 5}));
    assert_eq!(spare.requests()[0].json()["n"], 5);
}

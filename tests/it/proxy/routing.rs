//! Who is asked, with what, and how the answer says so.
use super::client::{get, post_with};
use super::engine::{Engine, good_engine};
use super::*;
use mainstay::kinds::Api;

#[test]
fn the_best_open_tier_is_asked_for_its_own_model() {
    let (first, second) = (good_engine(), good_engine());
    let bed = Bed::new(vec![vllm("first", first.port), vllm("second", second.port)]);
    bed.change(|table| table.tiers[1].aliases = vec!["alias".into()]);
    for name in ["first-model", "second-model", "alias"] {
        bed.post("/v1/chat/completions", &json!({"model": name, "messages": []})).expect_good_by("first");
    }
    for body in [
        json!({"messages": []}),
        json!({"model": null, "messages": []}),
        json!({"model": "", "messages": []}),
    ] {
        bed.post("/v1/chat/completions", &body).expect_good_by("first");
    }
    assert!(first.requests().iter().all(|request| request.json()["model"] == "first-model"));
    bed.change(|table| table.tiers[0].standing = Standing::Closed);
    bed.chat(false).expect_good_by("second");
    assert_eq!(second.requests()[0].json()["model"], "second-model");
}

#[test]
fn the_answer_names_the_model_that_served_it() {
    let engine = Engine::start(|t| {
        if t.request.json()["stream"] == true {
            t.stream();
            t.event(r#"{"choices":[{"index":0,"delta":{"content":"good"},"finish_reason":"stop"}]}"#);
            t.event("[DONE]");
            t.end();
        } else {
            t.whole(
                "200 OK",
                "",
                r#"{"model":"engine","choices":[{"message":{"content":"good"},"finish_reason":"stop"}]}"#,
            );
        }
    });
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    let streamed = bed.chat(true);
    let chunk: Value = serde_json::from_str(streamed.events()[0]).unwrap();
    assert_eq!(chunk["model"], "first-model", "the engine named none");
    assert_eq!(bed.chat(false).json()["model"], "engine", "the engine named one itself");
}

#[test]
fn an_unknown_model_is_told_the_known_ones() {
    let engine = good_engine();
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    let answer = bed.post("/v1/chat/completions", &json!({"model": "gpt-9", "messages": []}));
    assert_eq!((answer.status, answer.code().as_str()), (404, "model_not_found"));
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("first-model"));
    for long in ["x", "ä", "漢"] {
        let body = json!({"model": format!("x{}", long.repeat(100_000)), "messages": []});
        let answer = bed.post("/v1/chat/completions", &body);
        assert_eq!((answer.status, answer.body.len() < 1000), (404, true), "{}", answer.body.len());
    }
    let bed = Bed::with(Limits { any_model: true, ..limits() }, vec![vllm("first", engine.port)]);
    bed.post("/v1/chat/completions", &json!({"model": "gpt-9", "messages": []})).expect_good_by("first");
}

#[test]
fn weakened_answers_are_capped_and_marked() {
    let engine = good_engine();
    let bed = Bed::new(vec![weakened("first", engine.port)]);
    for streaming in [false, true] {
        let answer = bed.chat(streaming);
        answer.expect_good_by("first");
        assert_eq!(answer.field("x-mainstay-degraded"), Some("true"));
        let marked: Value = match streaming {
            true => serde_json::from_str(answer.events()[0]).unwrap(),
            false => answer.json(),
        };
        assert_eq!((&marked["_degraded"], &marked["_notice"]), (&json!(true), &json!("slower")));
        assert_eq!(answer.body.matches("_notice").count(), 1);
    }
    let asked = engine.requests()[0].json();
    assert_eq!((&asked["max_tokens"], &asked["temperature"]), (&json!(200), &json!(0.0)));
    // Nothing in it could be weakened.
    let embedded = bed.post("/v1/embeddings", &json!({"input": "x"}));
    assert_eq!(embedded.field("x-mainstay-degraded"), None);
    assert_eq!(embedded.json().get("_notice"), None);
}

#[test]
fn a_weakened_answer_has_one_choice() {
    let engine = good_engine();
    let bed = Bed::new(vec![weakened("first", engine.port)]);
    for streaming in [false, true] {
        let mut body = chat(streaming);
        body["n"] = json!(3);
        // It is whole with the one.
        bed.post("/v1/chat/completions", &body).expect_good_by("first");
        assert_eq!(engine.requests().last().unwrap().json()["n"], 1);
    }
    assert_eq!(bed.tally(0).answered, 2);
}

#[test]
fn a_field_that_changes_the_answer_is_obeyed_or_its_tier_is_skipped() {
    let (first, second) = (good_engine(), good_engine());
    let bed = Bed::new(vec![tier("first", Kind::LlamaServer, first.port), vllm("second", second.port)]);
    let post = |name: &str, value: Value| {
        let mut body = chat(false);
        body[name] = value;
        bed.post("/v1/chat/completions", &body)
    };
    let answer = post("guided_choice", json!(["a", "b"]));
    answer.expect_good_by("second");
    assert_eq!(answer.field("x-mainstay-skipped"), Some("first; does not obey guided_choice"));
    let asked = second.requests()[0].json();
    assert_eq!(
        asked["structured_outputs"],
        json!({"choice": ["a", "b"]}),
        "what newer versions of vLLM obey"
    );
    post("grammar", json!("root ::= \"a\"")).expect_good_by("first");
    post("best_of", json!(1)).expect_good_by("first");
    assert_eq!(first.requests()[1].json().get("best_of"), None, "some versions refuse its mere name");
    let answer = post("best_of", json!(2));
    assert_eq!((answer.status, answer.code().as_str()), (400, "not_supported"));
    assert!(
        answer.body.contains("first: does not obey best_of; second: does not obey best_of"),
        "{answer:?}"
    );
}

#[test]
fn numbers_reach_every_engine_as_they_were_written() {
    const NUMBERS: [&str; 4] = [
        r#""temperature":0.70"#,
        r#""top_p":1e-1"#,
        r#""min_p":0.1000000000000000055511151231257827"#,
        r#""top_k":4.0e1"#,
    ];
    const SEED: &str = r#""seed":123456789012345678901234567890"#;
    let text = |more: &str| {
        let numbers = NUMBERS.join(" , ");
        let body =
            format!("{{\"messages\":[{{\"role\":\"user\",\"content\":\"x\"}}],{numbers},{SEED}{more}}}");
        let head = "Host: m\r\nContent-Type: application/json";
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let (engine, ollama) = (good_engine(), good_engine());
    for kind in [Kind::Vllm, Kind::LlamaServer, Kind::Remote(Api::OpenAi), Kind::Ollama] {
        let to = if kind == Kind::Ollama { &ollama } else { &engine };
        let bed = Bed::new(vec![TierRoute { degrade: None, ..tier("first", kind, to.port) }]);
        let more = if kind == Kind::Ollama { "" } else { r#","logit_bias":{"7":-0.50}"# };
        ask(bed.port, &text(more));
        let sent = String::from_utf8(to.requests().last().unwrap().body.clone()).unwrap();
        let logit_bias = if kind == Kind::Ollama { SEED } else { r#""logit_bias":{"7":-0.50}"# };
        for number in NUMBERS.iter().chain([&SEED, &logit_bias]) {
            assert!(sent.contains(number), "{number} in {kind:?}: {sent}");
        }
    }
    let bed = Bed::new(vec![weakened("first", engine.port)]);
    ask(bed.port, &text(r#","max_tokens":9.90e9"#));
    let sent = String::from_utf8(engine.requests().last().unwrap().body.clone()).unwrap();
    for number in [r#""temperature":0.0"#, r#""max_tokens":200"#, SEED] {
        assert!(sent.contains(number), "{number} in a weakened request: {sent}");
    }
    let request = text(r#","model":"first-model""#).replace("/v1/chat/completions", "/tokenize");
    let bed = Bed::new(vec![TierRoute { aliases: vec!["alias".into()], ..vllm("first", engine.port) }]);
    ask(bed.port, &request.replace("\"first-model\"", "\"alias\"      "));
    let sent = String::from_utf8(engine.requests().last().unwrap().body.clone()).unwrap();
    assert!(sent.contains(r#""model":"first-model""#) && sent.contains(SEED), "{sent}");
}

#[test]
fn embeddings_never_come_from_another_model() {
    let spare = good_engine();
    let bed = Bed::new(vec![vllm("first", dead_port()), vllm("second", spare.port)]);
    for standing in [Standing::Open, Standing::Closed] {
        bed.change(|table| table.tiers[0].standing = standing);
        let answer = bed.post("/v1/embeddings", &json!({"input": "x"}));
        assert_eq!((answer.status, answer.code().as_str()), (503, "all_tiers_down"), "{answer:?}");
        assert!(answer.field("retry-after").is_some(), "{answer:?}");
        let skipped = answer.field("x-mainstay-skipped").unwrap();
        assert_eq!(skipped, "second; its vectors would be of another model");
    }
    bed.post("/v1/embeddings", &json!({"model": "second-model", "input": "x"})).expect_good_by("second");
}

#[test]
fn a_weakened_answer_can_be_refused() {
    let (strong, weak) = (good_engine(), good_engine());
    let bed = Bed::new(vec![vllm("first", strong.port), weakened("second", weak.port)]);
    let request = post_with("/v1/chat/completions", "X-Mainstay-Degrade: refuse\r\n", &chat(false));
    ask(bed.port, &request).expect_good_by("first");
    bed.change(|table| table.tiers[0].standing = Standing::Closed);
    let answer = ask(bed.port, &request);
    assert_eq!((answer.status, answer.code().as_str()), (503, "only_degraded_tiers"));
    assert_eq!(answer.field("retry-after"), Some("30"));
    bed.chat(false).expect_good_by("second");
    // The strong one dies under the request: what is left is weakened.
    bed.change(|table| {
        table.tiers[0].standing = Standing::Open;
        table.tiers[0].upstream.as_mut().unwrap().port = dead_port();
        table.tiers[0].live = mainstay::proxy::Live::new(std::sync::Arc::default(), None);
    });
    assert_eq!(ask(bed.port, &request).code(), "only_degraded_tiers");
    bed.change(|table| table.tiers[0].standing = Standing::Closed);
    // With nobody at all it is the same as for everybody.
    bed.change(|table| table.tiers[1].standing = Standing::Closed);
    assert_eq!(ask(bed.port, &request).code(), "all_tiers_down");
    assert_eq!(weak.requests().len(), 1);
}

#[test]
fn when_nobody_can_answer_the_reasons_come_at_once() {
    let bed = Bed::new(vec![vllm("first", dead_port()), vllm("second", dead_port())]);
    bed.change(|table| {
        table.retry = Some(Retry { at: clock::now() + Duration::from_secs(3599), unforeseen: false });
        table.tiers.iter_mut().for_each(|tier| tier.standing = Standing::Closed);
        table.tiers[0].brief = "starting";
        table.tiers[1].upstream = None;
        table.tiers[1].brief = "held";
    });
    let answer = bed.chat(true);
    assert_eq!((answer.status, answer.code().as_str()), (503, "all_tiers_down"));
    // Half an hour at the least: what is left until then, not what was when the table was made.
    let told = |answer: &Answer| -> u64 { answer.field("retry-after").unwrap().parse().unwrap() };
    assert!((1800..=3599).contains(&told(&answer)), "{answer:?}");
    assert_eq!(answer.json()["retry_after"].as_u64(), Some(told(&answer)));
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("first: starting; second: held"), "{message}");
    assert_eq!(answer.field("content-type"), Some("application/json"));
    // Something else may come sooner: then the configured 30 s are as good a guess.
    for (at, unforeseen, expected) in [(3599, true, 30), (0, true, 1), (0, false, 1)] {
        let at = clock::now() + Duration::from_secs(at);
        bed.change(|table| table.retry = Some(Retry { at, unforeseen }));
        assert_eq!(told(&bed.chat(true)), expected, "{at:?} {unforeseen}");
    }
    let health = ask(bed.port, &get("/health"));
    assert_eq!((health.status, health.field("retry-after")), (503, Some("1")));
}

#[test]
fn a_tier_that_cannot_carry_a_request_is_skipped_and_named() {
    let (ollama, engine) = (good_engine(), good_engine());
    let bed = Bed::new(vec![tier("first", Kind::Ollama, ollama.port), vllm("second", engine.port)]);
    let mut body = chat(false);
    body["tools"] = json!([{"type": "function", "function": {"name": "f"}}]);
    let answer = bed.post("/v1/chat/completions", &body);
    answer.expect_good_by("second");
    let skipped = answer.field("x-mainstay-skipped").unwrap();
    assert!(skipped.starts_with("first; ") && skipped.contains("tools"), "{skipped}");
    assert_eq!(answer.field("x-mainstay-attempts"), None);
    assert_eq!(ollama.requests().len(), 0);
    // Nobody can carry it, up or down: then it is the client's.
    let bed = Bed::new(vec![tier("first", Kind::Ollama, ollama.port)]);
    let answer = bed.post("/v1/chat/completions", &body);
    assert_eq!((answer.status, answer.code().as_str()), (400, "not_supported"));
    assert!(answer.field("x-mainstay-skipped").unwrap().starts_with("first; "));
    // Somebody could, but is down.
    let bed = Bed::new(vec![tier("first", Kind::Ollama, ollama.port), vllm("second", dead_port())]);
    bed.change(|table| table.tiers[1].standing = Standing::Closed);
    let answer = bed.post("/v1/chat/completions", &body);
    assert_eq!((answer.status, answer.code().as_str()), (503, "all_tiers_down"));
}

#[test]
fn ollama_is_asked_in_its_own_dialect() {
    let engine = Engine::start(|t| {
        assert!(t.request.head.starts_with("POST /api/chat HTTP/1.1\r\n"), "{}", t.request.head);
        if t.request.json()["stream"] == true {
            t.write(
                "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n",
            );
            t.chunk(
                "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"go\"},\"done\":false}\n",
            );
            t.chunk("{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"od\"},\"done\":false}\n{\"model\":\"m\",\"mess");
            t.chunk("age\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"eval_count\":2}\n");
            t.end();
        } else {
            t.whole("200 OK", "", r#"{"model":"m","message":{"role":"assistant","content":"good"},"done":true,"done_reason":"stop"}"#);
        }
    });
    let bed = Bed::new(vec![tier("first", Kind::Ollama, engine.port)]);
    bed.chat(true).expect_good_by("first");
    let answer = bed.chat(false);
    answer.expect_good_by("first");
    assert_eq!(answer.json()["model"], "first-model");
    assert_eq!(answer.field("content-type"), Some("application/json"));
    let request = &engine.requests()[0];
    assert_eq!(request.field("host"), Some(format!("127.0.0.1:{}", engine.port).as_str()));
    assert_eq!(request.json()["model"], "first-model");
}

#[test]
fn an_ollama_stream_that_ends_without_its_end_is_cut() {
    let engine = Engine::start(|t| {
        t.write(
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        t.chunk("{\"message\":{\"role\":\"assistant\",\"content\":\"begun\"},\"done\":false}\n");
        t.chunk("{\"error\":\"an error was encountered while running the model: unexpected EOF\"}\n");
        t.end();
    });
    let bed = Bed::new(vec![tier("first", Kind::Ollama, engine.port)]);
    let answer = bed.chat(true);
    assert!(answer.body.contains("stream_cut") && !answer.body.contains("[DONE]"), "{answer:?}");
    assert_eq!(answer.text(), "begun");
}

#[test]
fn what_goes_to_an_upstream_and_what_does_not() {
    let engine = good_engine();
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    bed.change(|table| {
        let upstream = table.tiers[0].upstream.as_mut().unwrap();
        upstream.api_key = Some("key-of-the-tier".into());
        upstream.base_path = "/base".into();
    });
    let fields = "Authorization: Bearer key-of-the-client\r\nAccept-Encoding: gzip\r\nX-Conversation-Id: 7\r\n\
                  Cookie: a=b\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nX-Request-Id: given-id\r\nX-Custom: kept\r\n";
    let answer = ask(bed.port, &post_with("/v1/chat/completions", fields, &chat(false)));
    answer.expect_good_by("first");
    assert_eq!(answer.field("x-request-id"), Some("given-id"));
    let request = &engine.requests()[0];
    assert!(request.head.starts_with("POST /base/v1/chat/completions HTTP/1.1\r\n"), "{}", request.head);
    let at = format!("127.0.0.1:{}", engine.port);
    for (name, expected) in [
        ("authorization", Some("Bearer key-of-the-tier")),
        ("host", Some(at.as_str())),
        ("x-request-id", Some("given-id")),
        ("x-custom", Some("kept")),
        ("accept-encoding", Some("identity")),
        ("x-conversation-id", None),
        ("cookie", None),
        ("x-hop", None),
        ("transfer-encoding", None),
    ] {
        assert_eq!(request.field(name), expected, "{name} in {}", request.head);
    }
    let other = bed.chat(false);
    let id = other.field("x-request-id").unwrap();
    assert_eq!(id.len(), 32, "a request without an id gets one: {id}");
}

#[test]
fn max_concurrent_sends_the_next_one_on() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let engine = Engine::start(move |t| {
        let _ = held.lock().unwrap().recv_timeout(PATIENCE);
        super::engine::good(t);
    });
    let spare = good_engine();
    let bed = Bed::new(vec![vllm("first", engine.port), vllm("second", spare.port)]);
    let limited = Live::new(bed.lives[0].1.clone(), Some(1));
    bed.change(|table| table.tiers[0].live = limited.clone());
    std::thread::scope(|scope| {
        let client = scope.spawn(|| bed.chat(false));
        until("the first request is in", || engine.requests().len() == 1);
        let answer = bed.chat(true);
        answer.expect_good_by("second");
        assert_eq!(answer.field("x-mainstay-attempts"), None, "nobody was asked in vain");
        bed.change(|table| table.tiers[1].standing = Standing::Closed);
        let answer = bed.chat(true);
        assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"));
        assert!(answer.field("retry-after").is_some());
        release.send(()).unwrap();
        client.join().unwrap().expect_good_by("first");
    });
    assert_eq!(limited.sample().in_flight, 0);
}

#[test]
fn our_own_pages() {
    let engine = good_engine();
    let bed = Bed::new(vec![vllm("first", engine.port), vllm("second", engine.port)]);
    bed.change(|table| table.tiers[0].aliases = vec!["alias".into()]);
    let models = ask(bed.port, &get("/v1/models"));
    let names: Vec<_> = models.json()["data"].as_array().unwrap().iter().map(|m| m["id"].clone()).collect();
    assert_eq!(names, ["first-model", "second-model", "alias"]);
    assert_eq!(models.json()["data"][0]["owned_by"], "mainstay");
    bed.live(0).set_context(8192);
    let models = ask(bed.port, &get("/v1/models")).json();
    let told =
        |at: usize| (models["data"][at]["root"].clone(), models["data"][at].get("max_model_len").cloned());
    assert_eq!(told(0), (json!("first-model"), Some(json!(8192))));
    assert_eq!(told(1), (json!("second-model"), None), "its engine told nothing");
    assert_eq!(told(2), (json!("first-model"), Some(json!(8192))), "an alias of the first");
    let health = ask(bed.port, &get("/health"));
    assert_eq!((health.status, health.json()), (200, json!({"status": "ok", "tier": "first"})));
    let head = ask(bed.port, &get("/health").replace("GET", "HEAD"));
    assert_eq!((head.status, head.field("content-length")), (200, health.field("content-length")));
    bed.change(|table| table.tiers[0].standing = Standing::Leaving);
    assert_eq!(ask(bed.port, &get("/health")).json()["tier"], "second");
    for (request, status, code) in [
        (get("/nothing"), 404, "not_found"),
        (get("/"), 404, "not_found"),
        (get("/metrics/x"), 404, "not_found"),
        (get("/v1/chat/completions"), 405, "method_not_allowed"),
        (get("/health").replace("GET", "DELETE"), 405, "method_not_allowed"),
        (client::post("/v1/models", &json!({})), 405, "method_not_allowed"),
        (client::post("/v1/chat/completions", &json!([1])), 400, "invalid_json"),
        (client::post("/v1/chat/completions", &json!({"model": 7})), 400, "invalid_value"),
    ] {
        let answer = ask(bed.port, &request);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{request}");
        assert!(answer.field("x-request-id").is_some(), "{request}");
    }
    for (request, advice) in [
        (client::post("/v1/v1/chat/completions", &json!({})), "base_url ends in /v1 once"),
        (get("/v1/chat/completions"), "/v1/chat/completions does not take GET; use POST"),
    ] {
        let answer = ask(bed.port, &request);
        assert!(answer.json().to_string().contains(advice), "{request}: {}", answer.json());
    }
    assert_eq!(engine.requests().len(), 0);
}

#[test]
fn a_model_of_the_list_has_a_page_of_its_own() {
    let bed = Bed::new(vec![vllm("first", dead_port())]);
    bed.change(|table| table.tiers[0].model = "meta-llama/Größe 8B".into());
    let listed = ask(bed.port, &get("/v1/models")).json()["data"][0].clone();
    for path in ["meta-llama/Gr%C3%B6%C3%9Fe%208B", "meta-llama%2fGr%c3%b6%c3%9fe%208B"] {
        let answer = ask(bed.port, &get(&format!("/v1/models/{path}")));
        assert_eq!((answer.status, answer.json()), (200, listed.clone()), "{path}");
    }
    for path in ["meta-llama", "meta-llama/Gr%", "%ff", "meta-llama%252fGr%C3%B6%C3%9Fe%208B"] {
        let answer = ask(bed.port, &get(&format!("/v1/models/{path}")));
        assert_eq!((answer.status, answer.code().as_str()), (404, "model_not_found"), "{path}");
        assert_eq!(answer.json()["error"]["param"], "model");
    }
    let deleted = ask(bed.port, &get("/v1/models/meta-llama").replace("GET", "DELETE"));
    assert_eq!((deleted.status, deleted.code().as_str()), (405, "method_not_allowed"));
}

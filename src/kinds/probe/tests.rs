use super::*;

const VLLM_METRICS: &str = r#"# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="a } b 7"} 120.0
vllm:prompt_tokens_by_source_total{engine="0",source="local_compute"} 9000.0
vllm:generation_tokens_total{engine="0",model_name="tiny"} 706.0
vllm:generation_tokens_total{engine="1",model_name="tiny"} 1.5e+03
vllm:iteration_tokens_total_count{engine="0"} 4
vllm:num_requests_running{engine="0"} 3.0
"#;

const LLAMA_METRICS: &str = "llamacpp:prompt_tokens_total 30\nllamacpp:tokens_predicted_total 0\nllamacpp:n_decode_total 12\nllamacpp:requests_processing 1\n";

#[test]
fn counters_are_summed_over_engines_and_gauges_left_out() {
    assert_eq!(read_counters(Kind::Vllm, 0, VLLM_METRICS), Some(120 + 706 + 1500 + 4));
    assert_eq!(read_counters(Kind::LlamaServer, 0, LLAMA_METRICS), Some(42));
}

#[test]
fn an_answer_without_the_figure_is_none_so_that_the_next_source_is_asked() {
    for body in [
        "",
        "vllm:num_requests_running 3",
        "{\"error\":{\"code\":501}}",
        "llamacpp:prompt_tokens_total 30",
        "vllm:generation_tokens_total NaN",
    ] {
        assert_eq!(read_counters(Kind::Vllm, 0, body), None, "{body}");
        assert_eq!(read_counters(Kind::LlamaServer, 0, body), None, "{body}");
        assert_eq!(read_counters(Kind::LlamaServer, 1, body), None, "{body}");
    }
    assert_eq!(read_counters(Kind::Ollama, 0, LLAMA_METRICS), None);
    assert_eq!(read_counters(Kind::Vllm, 1, VLLM_METRICS), None);
}

fn slot(task: i64, processed: u64, decoded: u64) -> Value {
    json!({ "id": 0, "id_task": task, "is_processing": true, "n_prompt_tokens_processed": processed, "next_token": [{ "n_decoded": decoded }] })
}

#[test]
fn the_slots_key_moves_with_every_kind_of_progress_and_only_then() {
    let key = |slots: Value| read_counters(Kind::LlamaServer, 1, &slots.to_string()).unwrap();
    let base = key(json!([slot(7, 10, 5), slot(-1, 0, 0)]));
    assert_eq!(base, key(json!([slot(7, 10, 5), slot(-1, 0, 0)])));
    for moved in [slot(8, 10, 5), slot(7, 11, 5), slot(7, 10, 6)] {
        assert_ne!(base, key(json!([moved, slot(-1, 0, 0)])), "{moved}");
    }
    let old = |decoded: u64| json!([{ "id_task": 1, "next_token": { "n_decoded": decoded } }]);
    assert_ne!(key(old(1)), key(old(2)));
}

#[test]
fn health_is_asked_where_each_kind_answers_it() {
    let path = |kind, own| health(kind, own).path;
    assert_eq!(path(Kind::Vllm, None), "/health");
    assert_eq!(path(Kind::LlamaServer, None), "/health");
    assert_eq!(path(Kind::Ollama, None), "/api/version");
    assert_eq!(path(Kind::Remote(Api::Ollama), None), "/api/version");
    assert_eq!(path(Kind::Remote(Api::OpenAi), Some("/v1/models")), "/v1/models");
}

#[test]
fn a_trial_asks_for_one_token_under_the_models_name() {
    let body = |kind| trials(kind, "m").remove(0).body.unwrap();
    assert_eq!(body(Kind::Vllm)["max_tokens"], 1);
    assert_eq!(body(Kind::LlamaServer)["n_predict"], 1);
    assert_eq!(body(Kind::Ollama)["options"], json!({ "num_predict": 1 }));
    assert_eq!(body(Kind::Ollama)["keep_alive"], -1);
    assert_eq!(body(Kind::Remote(Api::Ollama)).get("keep_alive"), None);
    for kind in [Kind::Vllm, Kind::Ollama, Kind::Remote(Api::OpenAi)] {
        assert_eq!(body(kind)["model"], "m");
    }
}

#[test]
fn what_loads_a_model_and_what_uses_it_agree_on_everything_that_would_load_it_again() {
    let (load, trial) = (load("m").body.unwrap(), trials(Kind::Ollama, "m").remove(0).body.unwrap());
    let chat = crate::kinds::ollama::request(&json!({ "messages": [] }), "m", true);
    for name in ["shift", "keep_alive"] {
        assert_eq!(load.get(name), trial.get(name), "{name}");
        assert_eq!(load.get(name), chat.get(name), "{name}");
    }
    for body in [&load, &trial, &chat] {
        assert!(body["options"].get("num_ctx").is_none());
    }
}

#[test]
fn a_trial_is_passed_by_whoever_answers() {
    let passed = |kind, status, body: &str| {
        trial_answer(kind, 0, status, body.as_bytes()) == TrialAnswer::Tried(Tried::Passed)
    };
    let llama = |status, body: &str| passed(Kind::LlamaServer, status, body);
    assert!(llama(200, r#"{"content":"pong","stop":true}"#));
    assert!(!llama(
        503,
        r#"{"error":{"message":"no slot available","type":"unavailable_error","code":503}}"#
    ));
    assert!(!llama(503, r#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#));
    assert!(!llama(500, r#"{"error":{"message":"Compute error.","type":"server_error","code":500}}"#));
    let vllm = |status, body: &str| passed(Kind::Vllm, status, body);
    assert!(vllm(200, r#"{"choices":[{"text":"x","finish_reason":"length"}]}"#));
    assert!(!vllm(200, r#"{"choices":[{"text":"","finish_reason":"abort"}]}"#));
    assert!(!vllm(503, ""), "a queue is full behind a hung core as well");
    assert!(!vllm(404, r#"{"detail":"Not Found"}"#), "its HTTP half alone has spoken");
    let remote = |status, body: &str| passed(Kind::Remote(Api::OpenAi), status, body);
    let opinion = r#"{"error":{"message":"The model does not support Chat Completions API"}}"#;
    for status in [400, 422, 501] {
        assert!(remote(status, opinion), "it reads requests, and cannot chat ({status})");
    }
    for status in [404, 405, 413, 451] {
        assert!(!remote(status, opinion), "{status}");
    }
    for no_answer in ["", "{}", "<html>", r#"{"choices":[]}"#, r#"{"choices":[{}]}"#] {
        assert!(!vllm(200, no_answer) && !llama(200, no_answer) && !remote(200, no_answer), "{no_answer}");
    }
    assert!(!vllm(
        404,
        r#"{"error":{"message":"The model `m` does not exist.","type":"NotFoundError","param":"model","code":404}}"#
    ));
    let ollama = |status, body: &str| passed(Kind::Ollama, status, body);
    assert!(ollama(200, r#"{"model":"m","response":"x","done":true,"done_reason":"length"}"#));
    assert!(!ollama(200, r#"{"model":"m","response":"x","done":false}"#));
    assert!(!ollama(500, r#"{"error":"llama-server process no longer running: unknown "}"#));
}

#[test]
fn a_trial_that_is_refused_says_what_is_to_be_mended() {
    const UNKNOWN: &str = r#"{"error":{"message":"The model `m` does not exist.","param":"model"}}"#;
    const WORDS: &str = r#"{"error":{"message":"no"}}"#;
    for (status, body, cause, said) in [
        (401, WORDS, Cause::AuthGated, "it refuses the key: check `api_key` (HTTP 401)"),
        (402, WORDS, Cause::AuthGated, "it wants to be paid: check the account of `api_key` (HTTP 402)"),
        (407, "", Cause::AuthGated, "a proxy in front of it wants a login: check `url` (HTTP 407)"),
        (404, UNKNOWN, Cause::ModelMissing, "it does not know the model: check `model` (HTTP 404)"),
        (400, UNKNOWN, Cause::ModelMissing, "it does not know the model: check `model` (HTTP 400)"),
        (301, "", Cause::BadArgument, "it is not at this address: check `url` (HTTP 301)"),
        (410, WORDS, Cause::BadArgument, "it is not at this address: check `url` (HTTP 410)"),
        (
            413,
            WORDS,
            Cause::BadArgument,
            "it refuses the shortest of requests: check `url` and the server there (HTTP 413)",
        ),
        (429, "", Cause::Unknown, "it turns requests away (HTTP 429)"),
    ] {
        let expected = Tried::Refused { cause, why: said.to_owned() };
        let found = trial_answer(Kind::Remote(Api::OpenAi), 0, status, body.as_bytes());
        assert_eq!(found, TrialAnswer::Tried(expected), "{status} {body}");
    }
}

/// Seen to fail with a trial that is passed.
#[test]
fn a_remote_is_asked_for_all_that_it_may_serve_before_its_path_is_called_wrong() {
    const REMOTE: Kind = Kind::Remote(Api::OpenAi);
    let wrong = |why: &str| Tried::Refused { cause: Cause::BadArgument, why: why.to_owned() };
    let last = trials(REMOTE, "m").len() - 1;
    for kind in [REMOTE, Kind::Remote(Api::Ollama)] {
        for (status, body) in
            [(404, r#"{"detail":"Not Found"}"#), (405, "{}"), (404, ""), (400, "<html>"), (501, "")]
        {
            let why = format!(
                "it serves none of the paths that are asked for: check the path in `url` (HTTP {status})"
            );
            for which in [0, last] {
                let found = trial_answer(kind, which, status, body.as_bytes());
                assert_eq!(found, TrialAnswer::NotServed(wrong(&why)), "{kind:?} {which} {body}");
            }
        }
    }
    // An embedding model, a reranker, speech: their own endpoint answers, or says what is missing.
    let passed = |which, status, body: &str| {
        trial_answer(REMOTE, which, status, body.as_bytes()) == TrialAnswer::Tried(Tried::Passed)
    };
    let vectors = trials(REMOTE, "m").iter().position(|trial| trial.path == "/v1/embeddings").unwrap();
    assert!(passed(vectors, 200, r#"{"data":[{"embedding":[0.1]}]}"#));
    assert!(!passed(vectors, 200, r#"{"data":[]}"#));
    assert!(passed(last, 422, r#"{"detail":[{"loc":["body","prompt"],"msg":"Field required"}]}"#));
    let bare = r#"{"error":{"message":"'prompt'","type":"server_error","code":500}}"#;
    for (status, body) in
        [(422, "missing field `prompt`"), (500, bare), (500, "<html>"), (200, "RIFF"), (200, "{}")]
    {
        assert!(passed(last, status, body), "it has the path: {status} {body}");
        assert!(!passed(0, status, body), "{status} {body}");
    }
    for status in [401, 402, 429, 502, 503] {
        assert!(!passed(last, status, ""), "{status}");
    }
    // Models that OpenAI has at another path.
    for said in [
        "This is not a chat model and thus not supported in the v1/chat/completions endpoint.",
        "This model is only supported in v1/responses and not in v1/chat/completions.",
    ] {
        let body = json!({ "error": { "message": said, "param": "model", "code": null } }).to_string();
        assert!(matches!(trial_answer(REMOTE, 0, 404, body.as_bytes()), TrialAnswer::NotServed(_)), "{said}");
    }
    // An engine of ours has one trial, and is where it is.
    for kind in [Kind::Vllm, Kind::LlamaServer, Kind::Ollama] {
        assert_eq!(trials(kind, "m").len(), 1);
        assert!(
            matches!(trial_answer(kind, 0, 404, b""), TrialAnswer::Tried(Tried::Failed { .. })),
            "{kind:?}"
        );
    }
}

#[track_caller]
fn check_load(status: u16, body: &str, expected: (&str, Cause, Option<bool>)) {
    let found = match load_answer(status, body.as_bytes()) {
        Load::Loaded => ("loaded", Cause::None, None),
        Load::Missing { .. } => ("missing", Cause::ModelMissing, None),
        Load::Busy => ("busy", Cause::None, None),
        Load::Failed { cause, deterministic, .. } => ("failed", cause, deterministic),
    };
    assert_eq!(found, expected, "{status} {body}");
}

#[test]
fn ollamas_word_on_a_load_is_understood() {
    check_load(200, r#"{"model":"m","done":true,"done_reason":"load"}"#, ("loaded", Cause::None, None));
    check_load(
        200,
        r#"{"details":{"family":"llama"},"capabilities":["completion"]}"#,
        ("loaded", Cause::None, None),
    );
    check_load(404, r#"{"error":"model 'nope' not found"}"#, ("missing", Cause::ModelMissing, None));
    check_load(
        503,
        r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#,
        ("busy", Cause::None, None),
    );
    check_load(500, r#"{"error":"invalid file magic"}"#, ("failed", Cause::ModelCorrupt, Some(true)));
    check_load(
        500,
        r#"{"error":"tensor \"blk.1.attn_q.weight\" offset+size (1588096) exceeds file size (1500000)"}"#,
        ("failed", Cause::ModelCorrupt, Some(true)),
    );
    check_load(
        500,
        r#"{"error":"model requires more system memory (5.5 GiB) than is available (3.9 GiB)"}"#,
        ("failed", Cause::HostOom, Some(false)),
    );
    check_load(
        500,
        r#"{"error":"error starting llama-server: llama-server binary not found (checked: /x"}"#,
        ("failed", Cause::BrokenInstall, Some(true)),
    );
    check_load(
        500,
        r#"{"error":"timed out waiting for llama-server to start - "}"#,
        ("failed", Cause::Hang, Some(false)),
    );
    check_load(
        400,
        r#"{"error":"\"emb\" does not support generate"}"#,
        ("failed", Cause::BadArgument, Some(true)),
    );
    check_load(500, r#"{"error":"something new"}"#, ("failed", Cause::EngineBug, None));
    check_load(200, r#"{"model":"m","done":false}"#, ("failed", Cause::EngineBug, None));
}

#[test]
fn a_pull_tells_how_far_it_is() {
    assert_eq!(pull_line(r#"{"status":"pulling manifest"}"#), Pull::Going { percent: None });
    assert_eq!(
        pull_line(r#"{"status":"pulling 6a0746a1ec1a","total":200,"completed":50}"#),
        Pull::Going { percent: Some(25) }
    );
    assert_eq!(
        pull_line(r#"{"status":"pulling 6a0746a1ec1a","total":0,"completed":50}"#),
        Pull::Going { percent: None }
    );
    assert_eq!(pull_line(r#"{"status":"success"}"#), Pull::Done);
    let Pull::Failed { cause, deterministic, .. } =
        pull_line(r#"{"error":"pull model manifest: file does not exist"}"#)
    else {
        panic!()
    };
    assert_eq!((cause, deterministic), (Cause::ModelMissing, Some(true)));
    let Pull::Failed { cause, .. } =
        pull_line(r#"{"error":"dial tcp: lookup registry.ollama.ai: no such host"}"#)
    else {
        panic!()
    };
    assert_eq!(cause, Cause::Network);
}

#[test]
fn an_engine_tells_its_context_where_it_has_one() {
    let vllm = r#"{"object":"list","data":[{"id":"m","root":"org/m","max_model_len":8192}]}"#;
    let llama = r#"{"default_generation_settings":{"n_ctx":4096,"params":{}},"total_slots":4}"#;
    for (kind, body, expected) in [
        (Kind::Vllm, vllm, Some(8192)),
        (Kind::LlamaServer, llama, Some(4096)),
        (Kind::LlamaServer, vllm, None),
        (Kind::Vllm, r#"{"data":[]}"#, None),
        (Kind::Vllm, r#"{"data":[{"max_model_len":null}]}"#, None),
        (Kind::LlamaServer, r#"{"default_generation_settings":{"n_ctx":0}}"#, None),
        (Kind::LlamaServer, "no JSON", None),
        (Kind::Ollama, vllm, None),
    ] {
        assert_eq!(read_context(kind, body.as_bytes()), expected, "{kind:?} {body}");
    }
    assert_eq!(context(Kind::Vllm).map(|request| request.path).as_deref(), Some("/v1/models"));
    assert_eq!(context(Kind::Ollama), None);
}

#[test]
fn ollama_tells_where_a_loaded_model_lies() {
    let list = |name: &str, size: u64, vram: Value| {
        json!({ "models": [
            { "name": "other:7b", "model": "other:7b", "size": 9, "size_vram": 9 },
            { "name": name, "model": name, "size": size, "size_vram": vram, "context_length": 4096 },
        ] })
        .to_string()
    };
    let read = |model: &str, body: String| read_loaded(model, body.as_bytes());
    let cpu = |on_gpu: u64, size: u64| {
        let evidence = format!("Ollama has {on_gpu} of {size} bytes of tiny on a GPU (size_vram of /api/ps)");
        Some(Device::Cpu { evidence })
    };
    assert_eq!(read("tiny", list("tiny:latest", 15_476_981, json!(0))), cpu(0, 15_476_981));
    assert_eq!(read("tiny", list("tiny", 1_000, json!(99))), cpu(99, 1_000), "much less than all of it");
    // Go leaves a zero out where it is told to.
    assert_eq!(read("tiny", list("tiny:latest", 1_000, Value::Null)), cpu(0, 1_000));
    assert_eq!(
        read("tiny", list("tiny:latest", 1_000, json!(100))),
        Some(Device::Gpu),
        "the operator knows of that"
    );
    assert_eq!(read("tiny", list("tiny:latest", 1_000, json!(1_000))), Some(Device::Gpu));
    for unknown in
        [list("tiny:8b", 1_000, json!(0)), list("tiny", 0, json!(0)), "{}".to_owned(), "[".to_owned()]
    {
        assert_eq!(read("tiny", unknown.clone()), None, "{unknown}");
    }
}

use super::*;

const REMOTE: Kind = Kind::Remote(Api::OpenAi);

#[track_caller]
fn check(kind: Kind, status: u16, body: &str, expected: Verdict) {
    assert_eq!(verdict(kind.api(), kind, status, body.as_bytes()), expected, "{kind:?} {status} {body}");
}

/// One real answer per row of the table, and what it must mean.
#[test]
fn every_row_decides_its_answer() {
    use Kind::{LlamaServer as L, Ollama as O, Vllm as V};
    use Verdict::*;
    let openai = |message: &str, kind: &str, code: u16| {
        serde_json::json!({ "error": { "message": message, "type": kind, "param": null, "code": code } })
            .to_string()
    };
    let ollama = |text: &str| serde_json::json!({ "error": text }).to_string();

    // ContextTooLong
    check(
        V,
        400,
        &openai(
            "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens",
            "BadRequestError",
            400,
        ),
        ContextTooLong,
    );
    check(
        V,
        400,
        &openai(
            "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
            "BadRequestError",
            400,
        ),
        ContextTooLong,
    );
    check(
        V,
        400,
        &openai("max_tokens=99999 cannot be greater than max_model_len=2048.", "BadRequestError", 400),
        ContextTooLong,
    );
    check(
        L,
        400,
        r#"{"error":{"code":400,"message":"request (12015 tokens) exceeds the available context size (4096 tokens), try increasing it","type":"exceed_context_size_error","n_prompt_tokens":12015,"n_ctx":4096}}"#,
        ContextTooLong,
    );
    for status in [400, 500] {
        let batch = "input (596 tokens) is too large to process. increase the physical batch size";
        check(L, status, &openai(batch, "server_error", status), ContextTooLong);
    }
    check(O, 400, &ollama("the input is longer than the context length"), ContextTooLong);
    check(
        REMOTE,
        400,
        r#"{"error":{"message":"too long","type":"invalid_request_error","code":"context_length_exceeded"}}"#,
        ContextTooLong,
    );
    // Misconfigured: our name
    check(
        V,
        404,
        r#"{"error":{"message":"The model `nope` does not exist. Valid aliases: tiny.","type":"NotFoundError","param":"model","code":404}}"#,
        Misconfigured,
    );
    check(
        V,
        404,
        r#"{"object":"error","message":"The model `nope` does not exist.","type":"NotFoundError","param":null,"code":404}"#,
        Misconfigured,
    );
    check(L, 400, &openai("model 'x' not found", "invalid_request_error", 400), Misconfigured);
    check(L, 400, &openai("model 'My Model.gguf' not found", "invalid_request_error", 400), Misconfigured);
    check(O, 404, &ollama("model 'nope' not found"), Misconfigured);
    check(O, 404, &ollama("model \"nope\" not found, try pulling it first"), Misconfigured);
    check(
        REMOTE,
        404,
        r#"{"error":{"message":"no","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#,
        Misconfigured,
    );
    check(O, 403, "", Misconfigured);
    // Capability
    check(L, 403, &openai("off", "feature_disabled", 403), Capability);
    check(O, 400, &ollama("registry.ollama.ai/library/x does not support tools"), Capability);
    check(O, 400, &ollama("\"emb\" does not support chat"), Capability);
    check(
        V,
        400,
        &openai(
            "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set",
            "BadRequestError",
            400,
        ),
        Capability,
    );
    check(V, 400, &openai("x is not a multimodal model", "BadRequestError", 400), Capability);
    check(
        L,
        400,
        &openai(
            "image input is not supported - hint: you may need to provide the mmproj",
            "invalid_request_error",
            400,
        ),
        Capability,
    );
    check(
        L,
        400,
        &openai("Field 'n': Value must be between 1 <= value <= 4, but got 99", "invalid_request_error", 400),
        Capability,
    );
    for (said, expected) in [
        ("Field 'n_cmpl': Value must be between 1 <= value <= 4, but got 5", Capability),
        ("Field 'n': Value must be between 1 <= value <= 4, but got -1", ClientError),
        ("Field 'n': Value must be between 1 <= value <= 4, but got 0", ClientError),
        ("Field 'n': [json.exception.type_error.302] type must be number, but is string", ClientError),
    ] {
        check(L, 400, &openai(said, "invalid_request_error", 400), expected);
    }
    check(V, 404, r#"{"detail":"Not Found"}"#, Capability);
    check(L, 404, &openai("File Not Found", "not_found_error", 404), Capability);
    check(O, 404, "404 page not found", Capability);
    check(V, 405, r#"{"detail":"Method Not Allowed"}"#, Capability);
    check(
        V,
        501,
        &openai("The model does not support Embeddings API", "NotImplementedError", 501),
        Capability,
    );
    check(
        L,
        501,
        &openai(
            "This server does not support embeddings. Start it with `--embeddings`",
            "not_supported_error",
            501,
        ),
        Capability,
    );
    // Overloaded
    check(V, 503, &openai("The engine is currently busy", "Service Unavailable", 503), Overloaded);
    check(
        V,
        503,
        &openai("Generation is paused. Please retry after it resumes.", "ServiceUnavailableError", 503),
        Overloaded,
    );
    check(V, 503, r#"{"error":"The model is currently scaling. Please try again later."}"#, Overloaded);
    check(L, 503, &openai("Loading model", "unavailable_error", 503), Overloaded);
    check(L, 503, &openai("no slot available", "unavailable_error", 503), Overloaded);
    check(O, 503, &ollama("server busy, please try again.  maximum pending requests exceeded"), Overloaded);
    check(REMOTE, 429, &openai("slow down", "rate_limit_error", 429), Overloaded);
    check(REMOTE, 408, "", Overloaded);
    check(REMOTE, 529, "", Overloaded);
    check(L, 500, &openai("Context size has been exceeded.", "server_error", 500), Overloaded);
    // Failures that count nowhere
    check(O, 499, &ollama("request canceled"), Failure { strike: false });
    check(O, 500, &ollama("context canceled"), Failure { strike: false });
    check(
        V,
        500,
        &openai("cannot schedule new futures after shutdown", "InternalServerError", 500),
        Failure { strike: false },
    );
    // Failures that count
    check(
        V,
        500,
        &openai("The server had an error while processing your request.", "InternalServerError", 500),
        STRIKE,
    );
    check(
        V,
        500,
        &openai(
            "EngineCore encountered an issue. See stack trace (above) for the root cause.",
            "InternalServerError",
            500,
        ),
        STRIKE,
    );
    check(L, 500, &openai("Compute error.", "server_error", 500), STRIKE);
    check(L, 500, &openai("Invalid input batch.", "server_error", 500), STRIKE);
    check(L, 500, &openai("decode() failed: -3", "server_error", 500), STRIKE);
    check(
        O,
        500,
        &ollama("model runner has unexpectedly stopped, this may be due to resource limitations"),
        STRIKE,
    );
    check(O, 500, &ollama("llama-server process has terminated: signal: killed"), STRIKE);
    check(O, 500, &ollama("an error was encountered while running the model: unexpected EOF"), STRIKE);
    check(REMOTE, 502, "<html>Bad Gateway</html>", STRIKE);
    check(REMOTE, 504, "", STRIKE);
    // BadInput
    check(
        L,
        500,
        &openai(
            "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
            "server_error",
            500,
        ),
        BadInput,
    );
    check(L, 500, &openai("Failed to parse grammar", "server_error", 500), BadInput);
    check(
        L,
        500,
        &openai("[json.exception.parse_error.101] parse error at line 1", "server_error", 500),
        BadInput,
    );
    check(O, 500, &ollama("option \"num_predict\" must be of type integer"), BadInput);
    // ClientError
    check(V, 400, &openai("temperature must be non-negative", "BadRequestError", 400), ClientError);
    check(V, 401, &openai("this user may not", "PermissionError", 401), ClientError);
    check(V, 404, &openai("The LoRA adapter was gone", "NotFoundError", 404), ClientError);
    check(L, 413, &openai("too large", "invalid_request_error", 413), ClientError);
    check(V, 422, r#"{"detail":[{"loc":["body"],"msg":"field required"}]}"#, ClientError);
    check(O, 400, &ollama("missing request body"), ClientError);
    // What is no inference engine
    check(REMOTE, 401, &openai("bad key", "authentication_error", 401), Misconfigured);
    check(REMOTE, 302, "", Misconfigured);
    check(V, 401, r#"{"error":"Unauthorized"}"#, Misconfigured);
    check(L, 401, &openai("Invalid API Key", "authentication_error", 401), Misconfigured);
    check(V, 101, "", Misconfigured);
}

#[test]
fn what_a_remote_says_of_its_account_its_load_and_its_limits_is_not_the_clients() {
    use Verdict::*;
    let said = |words: &str| serde_json::json!({ "error": { "message": words } }).to_string();
    let table: &[(&[u16], &str, Verdict)] = &[
        (&[402, 407, 410, 421], "Insufficient Balance", Misconfigured),
        (&[409, 425], "come again", Overloaded),
        (&[413, 414, 431], "too large", Capability),
        (&[404, 405], "no endpoint for it", NotServed),
        (&[404], "Not Found", NotServed),
        (&[404], "no endpoints found for this model", Misconfigured),
        (&[404], "No endpoints found for x/y.", Misconfigured),
        (&[404], "No endpoints found that support tool use.", Capability),
        (&[422], "Unknown model: x/y", Misconfigured),
        (&[400, 404], "The model `x` does not exist or you do not have access to it.", Misconfigured),
        (&[400, 404], "model x/y not found", Misconfigured),
        (&[400], "Model Not Exist", Misconfigured),
        (&[400], "Invalid model: x", Misconfigured),
        (&[400], "x/y is not a valid model ID", Misconfigured),
        (&[400, 422], "temperature must be positive", ClientError),
        (&[400], "the model failed to follow: tool \"x\" not found", ClientError),
        (&[413], "maximum context length is 4096", ContextTooLong),
    ];
    let unknown = r#"{"error":{"message":"Unknown parameter: 'top_k'.","code":"unknown_parameter"}}"#;
    check(REMOTE, 400, unknown, Capability);
    let extra = r#"{"detail":[{"type":"extra_forbidden","loc":["body","top_k"],"msg":"Extra inputs are not permitted"}]}"#;
    [REMOTE, Kind::Vllm].iter().for_each(|kind| check(*kind, 422, extra, Capability));
    for remote in [REMOTE, Kind::Remote(Api::Ollama)] {
        for &(statuses, words, expected) in table {
            statuses.iter().for_each(|status| check(remote, *status, &said(words), expected));
        }
        for prose in ["<html><h1>400 Bad Request</h1></html>", "The request was blocked.", ""] {
            let statuses = [400, 404, 405, 406, 422, 451, 501];
            statuses.iter().for_each(|status| check(remote, *status, prose, NotServed));
            [413, 414, 431].iter().for_each(|status| check(remote, *status, prose, Capability));
        }
    }
    // An engine of our own is asked by us alone, and what it calls wrong is wrong.
    check(Kind::Vllm, 413, &said("too large"), ClientError);
    check(Kind::Vllm, 400, "Invalid HTTP request received.", ClientError);
    [404, 405, 501].iter().for_each(|status| check(Kind::Vllm, *status, "", Capability));
}

#[test]
fn what_is_certainly_the_clients_mistake_is_that_from_a_llama_server_too() {
    let certain = [
        "[json.exception.out_of_range.403] key 'prompt' not found",
        "[json.exception.out_of_range.403] key 'messages' not found",
        "[json.exception.type_error.302] type must be number, but is string",
        "Unknown reasoning format: weird",
        "Invalid tool_choice: sometimes",
        "Failed to parse messages: Missing 'role' in message: {}",
        "Failed to parse tools: Expected 'tools' to be an array, got {}",
        "Cannot use both json_schema and grammar",
    ];
    let said = |words: &str| serde_json::json!({ "error": { "message": words, "type": "server_error" } });
    for words in certain {
        for status in [400, 500] {
            check(Kind::LlamaServer, status, &said(words).to_string(), Verdict::ClientError);
        }
    }
    check(Kind::LlamaServer, 400, &said("key 'prompt' not found").to_string(), Verdict::ClientError);
    // It cannot write what its model said: nothing that the client could mend.
    let own = "[json.exception.type_error.316] invalid UTF-8 byte at index 0";
    check(Kind::LlamaServer, 500, &said(own).to_string(), STRIKE);
    // Another engine may understand what this one does not.
    let part = "Failed to parse messages: unsupported content part type: \"video_url\"";
    check(Kind::LlamaServer, 400, &said(part).to_string(), Verdict::Capability);
    check(Kind::LlamaServer, 500, &said(part).to_string(), Verdict::BadInput);
    let of_another = "response_format type must be one of \"text\" or \"json_object\", but got: grammar";
    for (kind, words) in [
        (Kind::LlamaServer, "unsupported content[].type"),
        (Kind::Vllm, "Unsupported chat content part type: 'file'. Supported types: image_url, input_audio"),
        (Kind::LlamaServer, of_another),
        (Kind::Vllm, "suffix is only supported for models with FIM completion rendering"),
        (Kind::Vllm, "Requested sample logprobs of 25, which is greater than max allowed: 20"),
        (REMOTE, "Unrecognized request argument supplied: top_k"),
        (Kind::Vllm, "Chat template is passed with request, but --trust-request-chat-template is not set."),
    ] {
        check(kind, 400, &said(words).to_string(), Verdict::Capability);
    }
}

#[test]
fn no_row_of_the_table_is_shadowed_by_those_above_it() {
    for (at, row) in ROWS.iter().enumerate() {
        let text = row.says.join(" ");
        let first = ROWS.iter().position(|other| {
            other.matches(
                &|speaker| speaker == row.speaker || speaker == Speaker::Any,
                *row.status.start(),
                &text,
            )
        });
        assert_eq!(first, Some(at), "row {at} ({text:?}) is never reached");
    }
}

#[test]
fn a_200_is_an_answer_only_when_the_model_ended_it() {
    use Kind::{Ollama as O, Vllm as V};
    check(V, 200, r#"{"choices":[{"finish_reason":"stop","message":{"content":"x"}}]}"#, Verdict::Answer);
    check(V, 200, r#"{"data":[{"embedding":[0.1]}],"error":null}"#, Verdict::Answer);
    check(V, 200, "plain text of a pass-through", Verdict::Answer);
    check(V, 200, r#"{"choices":[{"finish_reason":"abort"}]}"#, STRIKE);
    check(V, 200, r#"{"choices":[{"finish_reason":"stop"},{"finish_reason":"error"}]}"#, STRIKE);
    check(V, 200, r#"{"error":{"message":"x","type":"InternalServerError","code":500}}"#, STRIKE);
    check(
        O,
        200,
        r#"{"message":{"role":"assistant","content":"x"},"done":true,"done_reason":"stop"}"#,
        Verdict::Answer,
    );
    check(O, 200, r#"{"message":{"role":"assistant","content":"x"},"done":false}"#, STRIKE);
    check(
        O,
        200,
        r#"{"message":{"role":"assistant","content":""},"done":true,"done_reason":"load"}"#,
        STRIKE,
    );
    check(O, 200, r#"{"error":"server busy, please try again."}"#, Verdict::Overloaded);
    check(O, 200, "", STRIKE);
}

#[track_caller]
fn check_event(event: &str, expected: Option<Verdict>) {
    assert_eq!(verdict_of_event(&serde_json::from_str(event).unwrap()), expected, "{event}");
}

#[test]
fn an_error_inside_a_stream_is_judged_by_its_inner_code() {
    check_event(r#"{"choices":[{"delta":{"content":"x"},"finish_reason":null}]}"#, None);
    check_event(r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#, None);
    check_event(r#"{"choices":[],"usage":{"total_tokens":3}}"#, None);
    check_event(r#"{"message":{"content":"x"},"done":false}"#, None);
    check_event(
        r#"{"error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "param": null, "code": 500}}"#,
        Some(STRIKE),
    );
    check_event(r#"{"error":{"code":500,"message":"Compute error.","type":"server_error"}}"#, Some(STRIKE));
    check_event(
        r#"{"error":{"code":503,"message":"Generation is paused.","type":"ServiceUnavailableError"}}"#,
        Some(Verdict::Overloaded),
    );
    check_event(r#"{"error":{"code":"503","message":"x"}}"#, Some(Verdict::Overloaded));
    check_event(
        r#"{"error":{"code":null,"message":"x","type":"BadRequestError"}}"#,
        Some(Verdict::ClientError),
    );
    check_event(
        r#"{"error":{"code":400,"message":"This model's maximum context length is 1"}}"#,
        Some(Verdict::ContextTooLong),
    );
    check_event(r#"{"error":{"code":404,"message":"gone","param":"model"}}"#, Some(Verdict::Misconfigured));
    check_event(
        r#"{"error":"an error was encountered while running the model: unexpected EOF"}"#,
        Some(STRIKE),
    );
    check_event(r#"{"choices":[{"delta":{},"finish_reason":"abort"}]}"#, Some(STRIKE));
}

#[test]
fn an_end_is_told_from_a_stop() {
    let ended = |event: &str| has_ended(&serde_json::from_str(event).unwrap());
    assert!(ended(r#"{"choices":[{"finish_reason":"stop"}]}"#));
    assert!(ended(r#"{"done":true}"#));
    assert!(!ended(r#"{"choices":[{"finish_reason":null}]}"#));
    assert!(!ended(r#"{"choices":[{"finish_reason":""}]}"#));
    assert!(!ended(r#"{"choices":[{"finish_reason":"abort"}]}"#));
    assert!(!ended(r#"{"choices":[]}"#));
    assert!(!ended(r#"{"done":false}"#));
}

use super::*;

const KINDS: [Kind; 5] =
    [Kind::Vllm, Kind::LlamaServer, Kind::Ollama, Kind::Remote(Api::Ollama), Kind::Remote(Api::OpenAi)];

/// The kinds that carry a request with these fields.
fn carried_by(endpoint: Endpoint, fields: &Value) -> Vec<Kind> {
    let mut body = json!({ "messages": [{ "role": "user", "content": "x" }], "prompt": "x", "input": "x" });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    KINDS.into_iter().filter(|kind| carries(*kind, endpoint, &body).is_ok()).collect()
}

#[test]
fn who_obeys_what() {
    let remote = Kind::Remote(Api::OpenAi);
    let tools = json!([{ "type": "function", "function": { "name": "f" } }]);
    let named = json!({ "type": "function", "function": { "name": "f" } });
    for (fields, by) in [
        (json!({ "response_format": { "type": "json_object" } }), BOTH),
        (json!({ "response_format": { "type": "json_schema", "json_schema": {} } }), BOTH),
        (json!({ "response_format": { "type": "structural_tag" } }), VLLM),
        // llama-server ignores it, vLLM refuses it.
        (json!({ "response_format": "json" }), VLLM),
        (json!({ "structured_outputs": { "choice": ["a"] } }), VLLM),
        (json!({ "guided_json": {"type": "object"} }), VLLM),
        (json!({ "guided_regex": "a" }), VLLM),
        (json!({ "guided_choice": ["a"] }), VLLM),
        (json!({ "guided_grammar": "root ::= \"a\"" }), VLLM),
        (json!({ "grammar": "root ::= \"a\"" }), LLAMA),
        (json!({ "json_schema": {"type": "object"} }), LLAMA),
        (json!({ "logit_bias": { "1": -100 } }), BOTH),
        (json!({ "allowed_token_ids": [1] }), VLLM),
        (json!({ "bad_words": ["a"] }), VLLM),
        (json!({ "stop_token_ids": [1] }), VLLM),
        (json!({ "include_stop_str_in_output": true }), VLLM),
        (json!({ "ignore_eos": true }), BOTH),
        (json!({ "min_tokens": 5 }), VLLM),
        (json!({ "tools": tools }), BOTH),
        (json!({ "tools": tools, "tool_choice": "required" }), BOTH),
        (json!({ "tools": tools, "tool_choice": named }), VLLM),
        (json!({ "tool_choice": "required" }), BOTH),
        (json!({ "functions": [{ "name": "f" }] }), NOBODY),
        (json!({ "function_call": { "name": "f" } }), NOBODY),
        (json!({ "n": 2 }), BOTH),
        (json!({ "n": "2" }), BOTH),
        (json!({ "n_cmpl": 2 }), LLAMA),
        (json!({ "best_of": 2 }), NOBODY),
        (json!({ "use_beam_search": true }), VLLM),
        (json!({ "logprobs": true }), BOTH),
        (json!({ "top_logprobs": 3 }), BOTH),
        (json!({ "n_probs": 3 }), LLAMA),
        (json!({ "prompt_logprobs": 0 }), VLLM),
        (json!({ "logprob_token_ids": [1] }), VLLM),
        (json!({ "return_token_ids": true }), VLLM),
        (json!({ "return_tokens_as_token_ids": true }), VLLM),
        (json!({ "skip_special_tokens": false }), VLLM),
        (json!({ "echo": true }), VLLM),
        (json!({ "audio": { "voice": "a" } }), NOBODY),
        (json!({ "modalities": ["text", "audio"] }), NOBODY),
        (json!({ "suffix": "a" }), VLLM),
        (json!({ "prompt_embeds": "a" }), VLLM),
        (json!({ "truncate_prompt_tokens": -1 }), VLLM),
        (json!({ "documents": [{ "text": "a" }] }), VLLM),
        (json!({ "chat_template": "a" }), VLLM),
        (json!({ "chat_template_kwargs": { "enable_thinking": false, "documents": [] } }), BOTH),
        (json!({ "chat_template_kwargs": { "enable_thinking": "no" } }), BOTH),
        (json!({ "add_generation_prompt": false }), BOTH),
        (json!({ "continue_final_message": true }), BOTH),
        (json!({ "lora": [{ "id": 0, "scale": 1 }] }), LLAMA),
    ] {
        let expected = by.iter().copied().chain([remote]).collect::<Vec<_>>();
        assert_eq!(carried_by(Endpoint::Chat, &fields), expected, "{fields}");
        // Ollama is not asked for completions at all.
        if fields.get("response_format").is_none() {
            assert_eq!(carried_by(Endpoint::Completions, &fields), expected, "{fields}");
        }
    }
    let format = json!({ "response_format": { "type": "json_object" } });
    assert_eq!(
        carried_by(Endpoint::Completions, &format),
        [Kind::Vllm, remote],
        "llama-server ignores it there"
    );
    assert_eq!(carried_by(Endpoint::Embeddings, &json!({ "dimensions": 8 })), [Kind::Vllm, remote]);
}

#[test]
fn what_asks_for_nothing_keeps_nobody_away() {
    for fields in [
        json!({}),
        json!({ "tools": [], "tool_choice": "auto", "functions": null, "function_call": "auto", "n": 1, "best_of": 1 }),
        json!({ "tool_choice": "none", "n": 1.0, "n_cmpl": null, "min_tokens": 0, "use_beam_search": false }),
        json!({ "chat_template": "", "chat_template_kwargs": {}, "documents": [], "suffix": "", "echo": false }),
        json!({ "chat_template_kwargs": { "enable_thinking": true }, "response_format": null, "modalities": ["text"] }),
        json!({ "response_format": { "type": "text" }, "logprobs": false, "top_logprobs": 0, "prompt_logprobs": null }),
        json!({ "logit_bias": {}, "stop_token_ids": [], "bad_words": [], "ignore_eos": false, "lora": [] }),
        json!({ "skip_special_tokens": true, "add_generation_prompt": true, "continue_final_message": false }),
        // It says how fast an answer comes, and these how it is sampled.
        json!({ "prediction": { "type": "content", "content": "x" } }),
        json!({ "temperature": 0.7, "top_k": 4, "repetition_penalty": 1.1, "seed": 1, "length_penalty": 1.0 }),
    ] {
        assert_eq!(carried_by(Endpoint::Chat, &fields), KINDS, "{fields}");
    }
    let native = json!({ "best_of": 1, "suffix": null, "dimensions": 8 });
    assert_eq!(carried_by(Endpoint::Completions, &native), [KINDS[0], KINDS[1], KINDS[4]]);
    assert_eq!(carried_by(Endpoint::Embeddings, &json!({ "dimensions": null, "n": 2 })).len(), 3);
}

#[test]
fn the_reason_names_the_field() {
    let body = json!({ "messages": [], "guided_choice": ["a"] });
    let reason = carries(Kind::LlamaServer, Endpoint::Chat, &body).unwrap_err();
    assert_eq!(reason.to_string(), "does not obey guided_choice");
}

#[test]
fn a_mistake_of_the_client_is_told_from_what_a_tier_lacks() {
    let misfit = |fields: Value| {
        let mut body = json!({ "messages": [{ "role": "user", "content": "x" }], "tools": [{}] });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        assert_eq!(carries(Kind::Remote(Api::OpenAi), Endpoint::Chat, &body), Ok(()), "{body}");
        carries(Kind::Ollama, Endpoint::Chat, &body).unwrap_err()
    };
    for (fields, field, what) in [
        (json!({ "max_tokens": "x" }), "max_tokens", "max_tokens is not a number"),
        (
            json!({ "max_completion_tokens": [] }),
            "max_completion_tokens",
            "max_completion_tokens is not a number",
        ),
        (json!({ "temperature": "hot" }), "temperature", "temperature is not a number"),
        (json!({ "seed": {} }), "seed", "seed is not a number"),
        (json!({ "n": -1 }), "n", "n is not a number of at least 1"),
        (json!({ "n": "3" }), "n", "n is not a number of at least 1"),
        (json!({ "stop": [1] }), "stop", "stop is not a string or a list of strings"),
        (json!({ "stream": "yes" }), "stream", "stream is not true or false"),
        (json!({ "tools": "x" }), "tools", "tools is not a list"),
        (json!({ "response_format": 7 }), "response_format", "response_format is not an object"),
        (json!({ "messages": null }), "messages", "messages are missing"),
        (json!({ "messages": "hi" }), "messages", "messages are not a list"),
        (json!({ "messages": [{ "role": "poet" }] }), "messages", "a message has an unknown role"),
        (json!({ "messages": ["hi"] }), "messages", "a message has no role"),
        (
            json!({ "messages": [{ "role": "user", "content": 7 }] }),
            "messages",
            "a message's content is neither a string nor a list of parts",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": [{ "type": "text", "text": 7 }] }] }),
            "messages",
            "a part of a message is a text without text",
        ),
    ] {
        let shown = fields.to_string();
        assert_eq!(misfit(fields), Misfit::Wrong { field, what: what.into() }, "{shown}");
    }
    for fields in [
        json!({}),
        json!({ "tools": null, "max_tokens": -1 }),
        json!({ "tools": [], "messages": [] }),
        json!({ "messages": [{ "role": "tool", "content": "x" }], "tools": [], "temperature": null }),
        json!({ "messages": [{ "role": "user", "content": [{ "image_url": "x" }, "x"] }], "tools": [] }),
        json!({ "n": 2, "tools": [] }),
    ] {
        let shown = fields.to_string();
        assert!(matches!(misfit(fields), Misfit::Lacks(_)), "{shown}");
    }
}

#[track_caller]
fn check_adapted(kind: Kind, mut given: Value, expected: Value) {
    adapt(kind, &mut given);
    assert_eq!(given, expected);
}

#[test]
fn every_version_of_vllm_is_told_its_constraint() {
    let guided = json!({ "guided_choice": ["a"], "guided_json": null });
    let mut both = guided.clone();
    both["structured_outputs"] = json!({ "choice": ["a"] });
    check_adapted(Kind::Vllm, guided.clone(), both);
    let json = json!({ "guided_json": { "type": "object" }, "guided_whitespace_pattern": " " });
    let mut both = json.clone();
    both["structured_outputs"] = json!({ "json": { "type": "object" }, "whitespace_pattern": " " });
    check_adapted(Kind::Vllm, json, both);
    for as_it_is in [
        json!({}),
        json!([]),
        json!({ "guided_whitespace_pattern": " " }),
        json!({ "guided_regex": "a", "structured_outputs": { "regex": "b" } }),
    ] {
        check_adapted(Kind::Vllm, as_it_is.clone(), as_it_is);
    }
    check_adapted(Kind::Remote(Api::OpenAi), guided.clone(), guided);
}

#[test]
fn llama_server_is_told_nothing_of_what_it_does_not_know() {
    let given = json!({ "a": 1, "best_of": 1, "suffix": null, "prompt": "x", "n": 1 });
    check_adapted(Kind::LlamaServer, given.clone(), json!({ "a": 1, "prompt": "x", "n": 1 }));
}

#[test]
fn vllm_is_told_nothing_that_asks_for_nothing_and_is_refused() {
    let tools = json!([{ "type": "function" }]);
    for (given, expected) in [
        (json!({ "tools": [], "n": 1, "suffix": "", "a": [] }), json!({ "n": 1, "a": [] })),
        (json!({ "tools": null, "tool_choice": "auto", "suffix": null }), json!({})),
        (json!({ "tool_choice": "none" }), json!({})),
        // A client's mistake.
        (json!({ "tools": [], "tool_choice": "required" }), json!({ "tool_choice": "required" })),
        (json!({ "tools": tools, "tool_choice": "none" }), json!({ "tools": tools, "tool_choice": "none" })),
        (json!({ "suffix": "x" }), json!({ "suffix": "x" })),
    ] {
        check_adapted(Kind::Vllm, given, expected);
    }
}

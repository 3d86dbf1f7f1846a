use super::*;
use crate::kinds::holds_answer;

fn assembled(endpoint: Endpoint, chunks: &[Value]) -> Value {
    let mut assembly = Assembly::new(endpoint);
    chunks.iter().for_each(|chunk| assembly.take(chunk));
    assembly.whole()
}

fn delta(index: u64, delta: Value, reason: Value) -> Value {
    json!({"id": "c", "object": "chat.completion.chunk", "created": 7, "model": "m",
           "choices": [{"index": index, "delta": delta, "finish_reason": reason}]})
}

#[test]
fn text_reasoning_and_usage() {
    let whole = assembled(
        Endpoint::Chat,
        &[
            delta(0, json!({"role": "assistant", "content": ""}), json!(null)),
            delta(0, json!({"reasoning": "h", "reasoning_content": "h"}), json!("")),
            delta(0, json!({"reasoning": "m", "reasoning_content": "m"}), json!(null)),
            delta(0, json!({"content": "he", "refusal": null}), json!(null)),
            delta(0, json!({"content": "llo"}), json!(null)),
            delta(0, json!({}), json!("stop")),
            json!({"id": "c", "choices": [], "usage": {"completion_tokens": 2}}),
        ],
    );
    let message =
        json!({"role": "assistant", "content": "hello", "reasoning": "hm", "reasoning_content": "hm"});
    let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": "stop"});
    let expected = json!({"id": "c", "created": 7, "model": "m", "object": "chat.completion",
                          "choices": [choice], "usage": {"completion_tokens": 2}});
    assert_eq!(whole, expected);
}

#[test]
fn tool_calls_are_told_apart() {
    let call = |piece: Value| delta(0, json!({ "tool_calls": [piece] }), json!(null));
    let expected = json!([
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]);
    let by_index = [
        call(json!({"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}})),
        call(json!({"index": 0, "function": {"arguments": "{\"x\""}})),
        call(json!({"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{"}})),
        call(json!({"index": 0, "id": "", "function": {"name": null, "arguments": ":1}"}})),
        call(json!({"index": 1, "id": "b", "function": {"name": "g", "arguments": "}"}})),
        delta(0, json!({}), json!("tool_calls")),
    ];
    let without_index = [
        call(json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\""}})),
        call(json!({"function": {"arguments": ":1}"}})),
        call(json!({"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}})),
    ];
    for chunks in [&by_index[..], &without_index] {
        let whole = assembled(Endpoint::Chat, chunks);
        let message = &whole["choices"][0]["message"];
        assert_eq!((&message["tool_calls"], &message["content"]), (&expected, &Value::Null), "{whole}");
    }
}

#[test]
fn choices_and_their_logprobs() {
    let piece = |index: u64, text: &str, reason: Value| {
        let logprobs = json!({"tokens": [text], "token_logprobs": [-0.5]});
        json!({"choices": [{"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}]})
    };
    let whole = assembled(
        Endpoint::Completions,
        &[
            piece(1, "b", json!(null)),
            piece(0, "a", json!("stop")),
            piece(1, "c", json!("length")),
            json!({"choices": [{"index": 1, "text": "", "finish_reason": "length", "stop_reason": 7}]}),
        ],
    );
    let choices = json!([
        {"index": 0, "text": "a", "logprobs": {"tokens": ["a"], "token_logprobs": [-0.5]}, "finish_reason": "stop"},
        {"index": 1, "text": "bc", "logprobs": {"tokens": ["b", "c"], "token_logprobs": [-0.5, -0.5]},
         "finish_reason": "length", "stop_reason": 7},
    ]);
    assert_eq!(whole, json!({"object": "text_completion", "choices": choices}));
}

/// What a whole answer says is what its chunks say, put together.
#[test]
fn there_and_back() {
    let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let chat = |message: Value, reason: &str| {
        let choice = json!({"index": 0, "message": message, "logprobs": {"content": [{"token": "x"}]},
                            "finish_reason": reason, "stop_reason": 3});
        let second = json!({"index": 1, "message": {"role": "assistant", "content": "2"}, "logprobs": null,
                            "finish_reason": "length"});
        json!({"id": "c", "created": 7, "model": "m", "object": "chat.completion",
               "choices": [choice, second], "usage": {"completion_tokens": 2}})
    };
    for answer in [
        chat(json!({"role": "assistant", "content": "hi"}), "stop"),
        chat(json!({"role": "assistant", "content": "hi", "reasoning": "hm"}), "length"),
        chat(json!({"role": "assistant", "content": null, "tool_calls": [call]}), "tool_calls"),
    ] {
        let chunks = chunks_of(Endpoint::Chat, &answer, true);
        assert_eq!(assembled(Endpoint::Chat, &chunks), answer);
        assert_eq!(holds_answer(Endpoint::Chat, &answer), Ok(()));
        for chunk in &chunks {
            assert_eq!((&chunk["object"], &chunk["id"]), (&json!("chat.completion.chunk"), &json!("c")));
        }
        assert!(chunks_of(Endpoint::Chat, &answer, false).iter().all(|chunk| chunk.get("usage").is_none()));
    }
    let choice = json!({"index": 0, "text": "hi", "logprobs": null, "finish_reason": "stop"});
    let answer = json!({"id": "c", "object": "text_completion", "choices": [choice]});
    assert_eq!(assembled(Endpoint::Completions, &chunks_of(Endpoint::Completions, &answer, true)), answer);
}

#[test]
fn an_answer_of_no_token_is_a_role_and_an_end() {
    let message = json!({"role": "assistant", "content": ""});
    let answer = json!({"choices": [{"message": message, "finish_reason": "stop"}]});
    let chunks = chunks_of(Endpoint::Chat, &answer, false);
    let last = chunks.last().unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
    assert!(chunks.iter().all(|chunk| chunk["choices"][0]["index"] == 0));
}

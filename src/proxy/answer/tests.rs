use super::*;
use crate::policy::{Standing, TierId};
use crate::proxy::history::Others;
use serde_json::{Value, json};

fn answer(endpoint: Endpoint, kind: Kind, streaming: bool, content_type: &'static str) -> Answer {
    let terms = Terms {
        endpoint,
        choices: 1,
        weakened_choices: 1,
        streaming,
        include_usage: true,
        replay: true,
        answer_id: "chatcmpl-1".into(),
        created: 1,
        timeout: None,
    };
    let from = Candidate {
        tier: TierId(0),
        kind,
        standing: Standing::Open,
        first_content: None,
        between_chunks: None,
        others: Others::default(),
        marks: marks(),
    };
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
    Answer::begin(&terms, &from, &headers)
}

fn marks() -> Marks {
    Marks { tier: "t".into(), model: "m".into(), notice: None }
}

/// What the client gets and what it means, when `body` comes in chunks of `size` bytes.
fn read(mut answer: Answer, body: &[u8], size: usize) -> Result<(Vec<u8>, Vec<Meaning>), &'static str> {
    let (mut bytes, mut meanings) = (Vec::new(), Vec::new());
    let mut note = |reading| match reading {
        Reading::Pieces(pieces) => {
            for piece in pieces {
                // Nobody reads behind the end.
                if meanings.last() == Some(&Meaning::Done) {
                    break;
                }
                bytes.extend_from_slice(&piece.bytes);
                meanings.push(piece.meaning);
            }
            Ok(())
        }
        Reading::Damaged(why) => Err(why),
    };
    for chunk in body.chunks(size) {
        note(answer.push(Bytes::copy_from_slice(chunk)))?;
    }
    note(answer.finish())?;
    Ok((bytes, meanings))
}

/// The same whatever the chunks are.
#[track_caller]
fn whole(begin: impl Fn() -> Answer, body: &[u8]) -> Result<(Vec<u8>, Vec<Meaning>), &'static str> {
    let all = read(begin(), body, body.len().max(1));
    for size in 1..body.len() {
        let parts = read(begin(), body, size);
        let bytes = |read: &Result<(Vec<u8>, _), _>| read.as_ref().map(|(bytes, _)| bytes.clone()).ok();
        assert_eq!(bytes(&parts), bytes(&all), "by {size}: {}", String::from_utf8_lossy(body));
    }
    all
}

fn data(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).unwrap();
    let events = text.split("\n\n").filter_map(|event| event.trim().strip_prefix("data: "));
    events.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
}

const WHOLE: &str = r#"{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"logprobs":null,"finish_reason":"stop"}],"usage":{"total_tokens":3}}"#;
const STREAM: &str = concat!(
    ": ping\n\n",
    r#"data: {"id":"c","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
    "\n\n",
    r#"data: {"id":"c","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":""}]}"#,
    "\n\n",
    r#"data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
    "\n\n",
    r#"data: {"id":"c","choices":[],"usage":{"total_tokens":3}}"#,
    "\n\ndata: [DONE]\n\n",
);

#[test]
fn each_form_becomes_what_was_asked_for_whatever_its_type_says() {
    for content_type in ["application/json", "text/event-stream", "text/plain", "application/octet-stream"] {
        for (body, mark) in [(WHOLE, ""), (STREAM, ""), (WHOLE, "\u{feff}"), (STREAM, "\u{feff}\n")] {
            let body = format!("{mark}{body}");
            let begin = |streaming| answer(Endpoint::Chat, Kind::Vllm, streaming, content_type);
            let (object, meanings) = whole(|| begin(false), body.as_bytes()).unwrap();
            let (object, expected): (Value, Value) =
                (serde_json::from_slice(&object).unwrap(), serde_json::from_str(WHOLE).unwrap());
            assert_eq!(object, expected, "{content_type}: {body}");
            assert_eq!(meanings.last(), Some(&Meaning::Done));
            let (stream, meanings) = whole(|| begin(true), body.as_bytes()).unwrap();
            assert!(stream.ends_with(b"data: [DONE]\n\n"), "{content_type}: {body}");
            assert!(meanings.contains(&Meaning::Content));
            let chunks = data(&stream);
            let said = |at: usize, path: &str| chunks[at].pointer(path).cloned().unwrap_or_default();
            assert_eq!(said(0, "/choices/0/delta/role"), "assistant");
            assert_eq!(said(1, "/choices/0/delta/content"), "hi");
            assert_eq!(said(2, "/choices/0/finish_reason"), "stop");
            assert_eq!(said(3, "/usage/total_tokens"), 3);
        }
    }
}

#[test]
fn the_head_names_what_is_given() {
    for (streaming, given, expected) in [
        (true, "text/event-stream", "text/event-stream"),
        (true, "application/json", "text/event-stream; charset=utf-8"),
        (false, "text/event-stream", "application/json"),
        (false, "application/json; charset=utf-8", "application/json; charset=utf-8"),
    ] {
        let answer = answer(Endpoint::Chat, Kind::Vllm, streaming, "text/plain");
        let upstream = [(CONTENT_TYPE, given), (http::header::ETAG, "x")];
        let upstream = upstream.map(|(name, value)| (name, HeaderValue::from_static(value)));
        let headers = answer.headers(HeaderMap::from_iter(upstream));
        assert_eq!(headers[CONTENT_TYPE], expected);
        assert!(headers.contains_key(http::header::ETAG));
    }
}

#[test]
fn a_client_that_knows_only_line_feeds_can_read_every_stream() {
    let begin = || answer(Endpoint::Chat, Kind::Vllm, true, "text/event-stream");
    let plain = whole(begin, STREAM.as_bytes()).unwrap();
    for line_end in ["\r\n", "\r"] {
        assert_eq!(whole(begin, STREAM.replace('\n', line_end).as_bytes()).unwrap(), plain, "{line_end:?}");
    }
}

#[test]
fn a_stream_loses_its_end_only() {
    let certain = STREAM.split_once("data: [DONE]").unwrap().0;
    let begin = || answer(Endpoint::Chat, Kind::Vllm, true, "text/event-stream");
    for rest in ["", "data: [DO", "data: {\"choi", ": pi", "data: [DONE]"] {
        let (stream, _) = whole(begin, format!("{certain}{rest}").as_bytes()).unwrap();
        let done = String::from_utf8(stream).unwrap().matches("data: [DONE]\n\n").count();
        assert_eq!(done, 1, "{rest:?}");
    }
    // Without its finish reason it is cut, and nothing is added to it.
    let cut = STREAM.split_once("{},\"finish_reason\":\"stop\"").unwrap().0;
    let (stream, _) = whole(begin, cut.as_bytes()).unwrap();
    assert!(!String::from_utf8_lossy(&stream).contains("[DONE]"));
}

#[test]
fn damaged_text_neither_loses_an_event_nor_ends_the_stream() {
    let begin = || answer(Endpoint::Chat, Kind::Vllm, true, "text/event-stream");
    let said: [(&[u8], &str); 5] = [
        (b"\"content\":\"a\xff\"", "a\u{fffd}"),
        (b"\"content\":\"a\",\"p\":NaN", "a"),
        (b"\"content\":\"a\",\"p\":[-Infinity]", "a"),
        ("\"content\":\"a\"".as_bytes(), "a"),
        (b"\"content\":\"\\ud83d\"", "\\ud83d"),
    ];
    for (delta, expected) in said {
        let event = [b"data: {\"choices\":[{\"index\":0,\"delta\":{", delta, b"}}]}\n\n"].concat();
        for before in [&b""[..], b": x\n\n", b"\xef\xbb\xbf", b": x\n\n\xef\xbb\xbf"] {
            let stream = [before, &event].concat();
            let (bytes, meanings) = whole(begin, &stream).unwrap();
            assert_eq!(meanings.last(), Some(&Meaning::Content), "{}", String::from_utf8_lossy(&stream));
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.contains(&format!("\"content\":\"{expected}\"")), "{text}");
            assert!(
                !text.contains('\u{feff}') && !text.contains("NaN") && !text.contains("Infinity"),
                "{text}"
            );
            let event = text.split_once("data:").map(|(_, event)| format!("data:{event}")).unwrap();
            let marked = begin().marked(&marks(), Bytes::from(event));
            assert!(marked.starts_with(b"data: {"), "{marked:?}");
            assert!(String::from_utf8_lossy(&marked).contains("\"_backend\":\"t\""), "{marked:?}");
        }
    }
}

#[test]
fn what_is_no_answer() {
    let plain =
        |body: &str| whole(|| answer(Endpoint::Chat, Kind::Vllm, false, "application/json"), body.as_bytes());
    for body in [
        "",
        " \n",
        "{}",
        "[]",
        "null",
        "<html></html>",
        r#"{"choices":[]}"#,
        r#"{"choices":[{"message":{"content":"hi"},"finish_reason":""}]}"#,
        r#"{"choices":[{"message":{"content":"hi"},"finish_reason":null}]}"#,
        r#"{"choices":[{"message":{},"finish_reason":"stop"}]}"#,
    ] {
        assert!(plain(body).is_err(), "{body}");
        let stream = whole(|| answer(Endpoint::Chat, Kind::Vllm, true, "application/json"), body.as_bytes());
        assert!(stream.is_err(), "{body}");
    }
    assert!(plain(WHOLE).is_ok());
    let vectors = r#"{"data":[{"embedding":[NaN,1]}]}"#;
    let embeddings = |body: &str| {
        whole(|| answer(Endpoint::Embeddings, Kind::Vllm, true, "application/json"), body.as_bytes())
    };
    assert!(embeddings(vectors).is_err());
    assert_eq!(embeddings(&vectors.replace("NaN", "0")).unwrap().1, [Meaning::Gathered, Meaning::Done]);
}

#[test]
fn only_what_brings_an_answer_further_is_progress() {
    let begin = |streaming| answer(Endpoint::Chat, Kind::Vllm, streaming, "text/event-stream");
    let empty = json!({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": null}]});
    let empty = format!("data: {empty}\n\n");
    for pings in [": keep-alive\n\n", ":\n\n", "\n\n\r\n", "data:\n\n", "event: ping\n\n", &empty, "  "] {
        for size in 1..=pings.len() {
            for streaming in [true, false] {
                let mut answer = begin(streaming);
                for chunk in pings.repeat(3).as_bytes().chunks(size) {
                    assert!(!answer.push(Bytes::copy_from_slice(chunk)).is_progress(), "{pings:?} by {size}");
                }
            }
        }
    }
    let mut object = begin(false);
    assert!(object.push(Bytes::from_static(b"\n{\"a\":")).is_progress());
    assert!(!object.push(Bytes::from_static(b" \n")).is_progress());
    assert!(object.push(Bytes::from_static(b" 1}")).is_progress());
    // Content is, and each choice's end is, once.
    let mut stream = begin(true);
    let finish = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    assert!(stream.push(Bytes::from(finish)).is_progress());
    assert!(!stream.push(Bytes::from(finish)).is_progress());
}

#[test]
fn an_ollama_that_streams_unasked() {
    let body = concat!(
        r#"{"model":"x","message":{"role":"assistant","content":"h"},"done":false}"#,
        "\n",
        r#"{"model":"x","message":{"role":"assistant","content":"i"},"done":true,"done_reason":"stop"}"#,
        "\n",
    );
    let begin = || answer(Endpoint::Chat, Kind::Ollama, false, "application/x-ndjson");
    let (object, _) = whole(begin, body.as_bytes()).unwrap();
    let object: Value = serde_json::from_slice(&object).unwrap();
    assert_eq!(object.pointer("/choices/0/message/content").unwrap(), "hi");
    let (_, meanings) = whole(begin, body.lines().next().unwrap().as_bytes()).unwrap();
    assert!(matches!(meanings.last(), Some(Meaning::Failed(..))), "{meanings:?}");
}

use super::*;

/// Feeds `stream` in chunks of `size` bytes.
fn split(cut: Cut, stream: &str, size: usize) -> (Vec<String>, Option<String>) {
    let mut splitter = Splitter::new(cut, 1 << 20);
    let mut pieces = Vec::new();
    for chunk in stream.as_bytes().chunks(size) {
        for piece in splitter.push(&Bytes::copy_from_slice(chunk)).unwrap() {
            pieces.push(String::from_utf8(piece.to_vec()).unwrap());
        }
    }
    (pieces, splitter.rest().map(|b| String::from_utf8(b.to_vec()).unwrap()))
}

#[test]
fn events_are_the_same_whatever_the_chunks() {
    let streams = [
        "data: a\n\ndata: b\n\n",
        "data: a\r\n\r\ndata: b\r\n\r\n",
        "data: a\r\rdata: b\r\r",
        ": ping\n\ndata: x\ndata: y\n\ndata: unfinished",
        ":\n\n\n\ndata: z\n\n",
    ];
    for stream in streams {
        let whole = split(Cut::BlankLine, stream, stream.len());
        for size in 1..stream.len() {
            let (pieces, rest) = split(Cut::BlankLine, stream, size);
            let data = |pieces: &[String]| {
                pieces
                    .iter()
                    .filter_map(|p| data_of(p.as_bytes()).map(|d| d.into_owned()))
                    .collect::<Vec<_>>()
            };
            assert_eq!(data(&pieces), data(&whole.0), "{stream:?} by {size}");
            assert_eq!(pieces.concat() + rest.as_deref().unwrap_or(""), stream, "{stream:?} by {size}");
        }
    }
}

#[test]
fn lines_are_cut_at_every_line_end() {
    let (pieces, rest) = split(Cut::Line, "{\"a\":1}\r\n\n{\"b\":2}\n{\"c\"", 3);
    let trimmed: Vec<_> = pieces.iter().map(|p| p.trim()).collect();
    assert_eq!((trimmed, rest.as_deref()), (vec!["{\"a\":1}", "{\"b\":2}"], Some("{\"c\"")));
}

#[test]
fn an_endless_event_is_refused() {
    let mut splitter = Splitter::new(Cut::BlankLine, 10);
    assert_eq!(splitter.push(&Bytes::from_static(b"data: 123")), Ok(vec![]));
    assert_eq!(splitter.push(&Bytes::from_static(b"45")), Err(TooLong));
}

#[test]
fn data_of_an_event() {
    let check = |event: &str, expected: Option<&str>| {
        let data = data_of(event.as_bytes()).map(|d| String::from_utf8(d.into_owned()).unwrap());
        assert_eq!(data.as_deref(), expected, "{event:?}");
    };
    check(":\n\n", None);
    check("event: x\n\n", None);
    check("data: a\n\n", Some("a"));
    check("data:a\r\n\r\n", Some("a"));
    check("id: 7\ndata: a\ndata:  b\n\n", Some("a\n b"));
}

#[test]
fn what_chunks_mean() {
    let check = |data: &str, expected: Meaning| {
        let endpoint = if data.contains("text") { Endpoint::Completions } else { Endpoint::Chat };
        assert_eq!(Choices::new(endpoint, 1).read(Some(data.as_bytes())).meaning, expected, "{data}");
    };
    let delta =
        |delta: &str| format!(r#"{{"choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}"#);
    check("[DONE]", Meaning::Done);
    check(" [DONE] ", Meaning::Done);
    check("not json", Meaning::Garbage);
    check("[1]", Meaning::Garbage);
    check(r#"{"choices":[],"usage":{"total_tokens":3}}"#, Meaning::Ending);
    check(r#"{"choices":[],"usage":null}"#, Meaning::Opening);
    check(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#, Meaning::Ending);
    check(r#"{"choices":[{"index":0,"delta":{},"finish_reason":""}]}"#, Meaning::Opening);
    check(r#"{"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}"#, Meaning::Content);
    check("{\"choices\":[{\"delta\":{\"content\":\"\\ud83d\"},\"logprobs\":NaN}]}", Meaning::Content);
    check(&delta(r#"{"role":"assistant","content":""}"#), Meaning::Opening);
    check(&delta(r#"{"role":"assistant","content":null}"#), Meaning::Opening);
    check(&delta(r#"{"role":"assistant","content":"","tool_calls":[],"refusal":null}"#), Meaning::Opening);
    check(&delta(r#"{"content":"x"}"#), Meaning::Content);
    check(&delta(r#"{"content":" "}"#), Meaning::Content);
    check(&delta(r#"{"reasoning":"hm"}"#), Meaning::Content);
    check(&delta(r#"{"reasoning_content":"hm"}"#), Meaning::Content);
    check(&delta(r#"{"tool_calls":[{"index":0}]}"#), Meaning::Content);
    check(r#"{"choices":[{"index":0,"text":"x","finish_reason":null}]}"#, Meaning::Content);
    check(r#"{"choices":[{"index":0,"text":"","finish_reason":null}]}"#, Meaning::Opening);
    let failed = |data: &'static str, verdict| {
        check(data, Meaning::Failed(verdict, Bytes::from_static(data.as_bytes())))
    };
    let strike = Verdict::Failure { strike: true };
    failed(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"abort"}]}"#, strike);
    failed(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"error"}]}"#, strike);
    failed(r#"{"error":{"message":"EngineCore encountered an issue.","code":500}}"#, strike);
    failed(r#"{"error":{"message":"Service Unavailable","code":503}}"#, Verdict::Overloaded);
    check(r#"{"error":null,"choices":[]}"#, Meaning::Opening);
}

#[test]
fn an_answer_is_complete_when_every_choice_is() {
    let mut choices = Choices::new(Endpoint::Chat, 3);
    let mut read = |index: u64, reason: &str| {
        let data = format!(
            r#"{{"choices":[{{"index":{index},"delta":{{"content":"x"}},"finish_reason":{reason}}}]}}"#
        );
        choices.read(Some(data.as_bytes()));
        choices.complete()
    };
    assert!(!read(0, "null"));
    assert!(!read(1, "null"));
    assert!(!read(1, "\"\""));
    assert!(!read(0, "\"stop\""));
    assert!(read(1, "\"length\""));
    assert!(!choices.certain(), "the third was asked for");
    assert!(choices.hold_answer());
    assert!(!Choices::new(Endpoint::Chat, 1).complete());
}

#[test]
fn an_event_is_one_line_whatever_stands_between_its_tokens() {
    assert_eq!(event_of(b"{\"a\":1,\n\"b\":\r\n2}"), "data: {\"a\":1, \"b\":  2}\n\n");
}

#[test]
fn the_end_of_a_stream_is_known_behind_a_mark() {
    let mut choices = Choices::new(Endpoint::Chat, 1);
    assert_eq!(choices.read(Some("\u{feff}[DONE]".as_bytes())).meaning, Meaning::Done);
}

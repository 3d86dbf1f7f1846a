//! What an upstream may answer with, and what is an answer: through real sockets, as a stream and not.
use super::client::Ending;
use super::engine::{Engine, FINISH, ROLE, Talk, good_engine, token};
use super::*;
use mainstay::kinds::Api;

const WHOLE: &str = r#"{"id":"c","model":"engine","choices":[{"index":0,"message":{"role":"assistant","content":"good"},"finish_reason":"stop"}],"usage":{"total_tokens":3}}"#;

type Reply = fn(&mut Talk);

fn head(talk: &mut Talk, content_type: &str, more: &str) {
    talk.write(format!(
        "HTTP/1.1 200 OK\r\n{content_type}Transfer-Encoding: chunked\r\nConnection: close\r\n{more}\r\n"
    ));
}

fn say_good(talk: &mut Talk) {
    talk.event(ROLE);
    talk.event(&token("go"));
    talk.event(&token("od"));
    talk.event(FINISH);
}

/// Answers, whatever is odd about them.
const GOOD: &[(&str, Reply)] = &[
    ("JSON", |t| t.whole("200 OK", "", WHOLE)),
    ("a stream", |t| {
        t.stream();
        say_good(t);
        t.event("[DONE]");
        t.end();
    }),
    ("JSON that calls itself a stream", |t| {
        head(t, "Content-Type: text/event-stream\r\n", "");
        t.chunk(WHOLE);
        t.end();
    }),
    ("a stream that calls itself JSON", |t| {
        head(t, "Content-Type: application/json\r\n", "");
        say_good(t);
        t.event("[DONE]");
        t.end();
    }),
    ("a stream without a type", |t| {
        head(t, "", "");
        t.chunk(": ping\n\n");
        say_good(t);
        t.event("[DONE]");
        t.end();
    }),
    ("JSON behind a byte-order mark and blanks", |t| {
        head(t, "Content-Type: text/plain\r\n", "");
        for part in ["\u{feff}", " ", "\n", WHOLE, "\n"] {
            t.chunk(part);
        }
        t.end();
    }),
    ("a stream behind a byte-order mark, with damaged text", |t| {
        head(t, "Content-Type: text/event-stream\r\n", "");
        t.chunk("\u{feff}");
        t.event(&ROLE.replace("\"id\"", "\"p\":NaN,\"id\""));
        t.chunk(b"data: {\"user\":\"\xff\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"go\"}}]}\n\n");
        t.event(&token("od").replace("\"id\"", "\"p\":[Infinity,-Infinity],\"id\""));
        t.event(FINISH);
        t.event("[DONE]");
        t.end();
    }),
    ("a stream whose connection is reset behind its finish reason", |t| {
        t.stream();
        say_good(t);
        t.reset();
    }),
    ("a stream that ends without [DONE]", |t| {
        t.stream();
        say_good(t);
        t.end();
    }),
    ("a stream whose end does not come", |t| {
        t.stream();
        say_good(t);
        t.wait_for_close();
    }),
    ("JSON whose last chunk does not come", |t| {
        head(t, "Content-Type: application/json\r\n", "");
        t.chunk(WHOLE);
        t.wait_for_close();
    }),
    ("JSON whose connection ends before its last chunk", |t| {
        head(t, "Content-Type: application/json\r\n", "");
        t.chunk(WHOLE);
        t.close();
    }),
    ("an empty finish reason until the last", |t| {
        t.stream();
        t.event(&ROLE.replace("null", "\"\""));
        t.event(&token("good").replace("null", "\"\""));
        t.event(FINISH);
        t.event("[DONE]");
        t.end();
    }),
];

/// What is none, with a status that says that it is.
const NONE: &[(&str, Reply)] = &[
    ("an empty object", |t| t.whole("200 OK", "", "{}")),
    ("no choices", |t| t.whole("200 OK", "", r#"{"choices":[]}"#)),
    ("no message", |t| t.whole("200 OK", "", r#"{"choices":[{"index":0,"finish_reason":"stop"}]}"#)),
    ("an empty message", |t| {
        t.whole("200 OK", "", r#"{"choices":[{"index":0,"message":{},"finish_reason":"stop"}]}"#)
    }),
    ("an empty finish reason", |t| t.whole("200 OK", "", WHOLE.replace("stop", ""))),
    ("HTML", |t| t.whole("200 OK", "", "<html>welcome</html>")),
    ("a stream without choices", |t| {
        t.stream();
        t.event(r#"{"id":"c","choices":[]}"#);
        t.event("[DONE]");
        t.end();
    }),
    ("a stream of an end alone", |t| {
        t.stream();
        t.event(FINISH);
        t.event("[DONE]");
        t.end();
    }),
    ("a stream without an end", |t| {
        t.stream();
        t.event(ROLE);
        t.event(&FINISH.replace("stop", ""));
        t.event("[DONE]");
        t.end();
    }),
    ("an encoded answer", |t| t.whole("200 OK", "Content-Encoding: gzip\r\n", WHOLE)),
];

#[test]
fn an_answer_comes_in_the_form_that_was_asked_for() {
    for (name, reply) in GOOD {
        let engine = Engine::start(reply);
        let bed = Bed::new(vec![vllm("first", engine.port)]);
        let streamed = bed.chat(true);
        assert!(streamed.field("content-type").unwrap().starts_with("text/event-stream"), "{name}");
        streamed.expect_good_by("first");
        let whole = bed.chat(false);
        assert_eq!(whole.field("content-type"), Some("application/json"), "{name}");
        whole.expect_good_by("first");
        assert_eq!(whole.json()["choices"][0]["message"]["content"], "good", "{name}: {whole:?}");
        let tally = Tally { requests: 2, answered: 2, ..Tally::default() };
        assert_eq!(bed.tally(0), tally, "{name}");
        assert!(engine.requests().iter().all(|r| r.field("accept-encoding") == Some("identity")), "{name}");
    }
}

#[test]
fn a_200_that_holds_no_answer_moves_on() {
    for (name, reply) in NONE {
        let (engine, spare) = (Engine::start(reply), good_engine());
        let bed = Bed::new(vec![vllm("first", engine.port), vllm("second", spare.port)]);
        for streaming in [true, false] {
            let answer = bed.chat(streaming);
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            answer.expect_good_by("second");
        }
        let tally = Tally { requests: 2, failed_over: 2, ..Tally::default() };
        assert_eq!(bed.tally(0), tally, "{name}");
        let alone = Bed::new(vec![vllm("first", engine.port)]).chat(false);
        assert_eq!((alone.status, alone.code().as_str()), (503, "all_tiers_down"), "{name}: {alone:?}");
    }
}

#[test]
fn embeddings_are_judged_as_embeddings() {
    let replies: [Reply; 3] = [
        |t| t.whole("200 OK", "", r#"{"object":"list","data":[]}"#),
        |t| t.whole("200 OK", "", r#"{"object":"list","data":[{"index":0,"embedding":[]}]}"#),
        |t| t.whole("200 OK", "", WHOLE),
    ];
    for reply in replies {
        let (engine, spare) = (Engine::start(reply), good_engine());
        let mut tiers = vec![vllm("first", engine.port), vllm("second", spare.port)];
        tiers[1].model = tiers[0].model.clone();
        let answer = Bed::new(tiers).post("/v1/embeddings", &json!({"input": "x"}));
        answer.expect_good_by("second");
    }
}

/// An upstream that only says that it is there is left when its time for content is over.
#[test]
fn pings_and_blanks_do_not_keep_a_remote_tier() {
    let replies: [Reply; 3] = [
        |t| {
            t.stream();
            t.chunk(": ke");
            t.chunk("ep-alive\n\n:\n\n");
            t.event(ROLE);
            t.wait_for_close();
        },
        |t| {
            head(t, "Content-Type: application/json\r\n", "");
            t.chunk(" ");
            t.chunk("\n\n");
            t.wait_for_close();
        },
        |t| {
            t.write("HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\n");
            t.write("   \n");
            t.wait_for_close();
        },
    ];
    for reply in replies {
        let (engine, spare) = (Engine::start(reply), good_engine());
        let mut remote = tier("first", Kind::Remote(Api::OpenAi), engine.port);
        remote.first_content = Some(Duration::from_millis(300));
        remote.between_chunks = Some(Duration::from_secs(3600));
        let bed = Bed::new(vec![remote, vllm("second", spare.port)]);
        for streaming in [true, false] {
            let answer = bed.chat(streaming);
            answer.expect_good_by("second");
            assert_eq!(answer.ending, Ending::Whole);
        }
    }
}

//! After the commit point nothing moves: a stream that is cut says so, and never looks complete.
use super::client::Ending;
use super::engine::{DEATH, Engine, FINISH, ROLE, Talk, good_engine, token};
use super::*;
use mainstay::kinds::Api;

#[track_caller]
fn expect_cut(name: &str, answer: &Answer) {
    assert_eq!((answer.status, answer.field("x-mainstay-tier")), (200, Some("first")), "{name}: {answer:?}");
    assert_eq!(answer.text(), "begun", "{name}: {answer:?}");
    let events = answer.events();
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "stream_cut", "{name}: {answer:?}");
    assert!(!answer.body.contains("[DONE]"), "{name}: {answer:?}");
    assert_eq!(answer.ending, Ending::Whole, "{name}: the client must get to see the event");
}

fn begin(talk: &mut Talk) {
    talk.stream();
    talk.event(ROLE);
    talk.event(&token("begun"));
}

type Fault = fn(&mut Talk);

const FAULTS: &[(&str, Fault)] = &[
    ("FIN", |t| t.close()),
    ("reset", |t| t.reset()),
    ("an error event", |t| {
        t.event(DEATH);
        t.event("[DONE]");
        t.end();
    }),
    ("done without a finish reason", |t| {
        t.event("[DONE]");
        t.end();
    }),
    ("a clean end without a finish reason", |t| t.end()),
    ("finish reason abort", |t| {
        t.event(&FINISH.replace("stop", "abort"));
        t.event("[DONE]");
        t.end();
    }),
    ("half an event", |t| {
        t.chunk("data: {\"choices\":[{\"ind");
        t.close();
    }),
    ("damage", |t| {
        t.event("{\"choices\":[{");
        t.event("[DONE]");
        t.end();
    }),
];

#[test]
fn a_stream_that_dies_ends_with_an_error_event() {
    for (name, fault) in FAULTS {
        let fault = *fault;
        let (engine, spare) = (
            Engine::start(move |t| {
                begin(t);
                fault(t);
            }),
            good_engine(),
        );
        let bed = Bed::new(vec![vllm("first", engine.port), vllm("second", spare.port)]);
        expect_cut(name, &bed.chat(true));
        assert_eq!(bed.tally(0), Tally { requests: 1, cut: 1, ..Tally::default() }, "{name}");
        assert_eq!(bed.live(0).sample().failures_in_row, 1, "{name}");
        assert_eq!(spare.requests().len(), 0, "{name}: it was sent twice");
    }
}

#[test]
fn a_run_that_is_cut_ends_its_streams() {
    let engine = Engine::start(|t| {
        begin(t);
        t.wait_for_close();
    });
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    let answer = std::thread::scope(|scope| {
        let client = scope.spawn(|| bed.chat(true));
        until("the request is there", || engine.requests().len() == 1);
        until("its content is relayed", || bed.live(0).sample().in_flight == 1);
        bed.live(0).set_standing(Standing::Leaving);
        bed.live(0).cut();
        client.join().unwrap()
    });
    // Whether the content came out before the cut is a race; that no end looks like a good one is none.
    assert!(!answer.body.contains("[DONE]"));
    assert!(answer.status == 503 || answer.body.contains("stream_cut"), "{answer:?}");
}

#[test]
fn a_leaving_tier_finishes_what_it_began() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let engine = Engine::start(move |t| {
        begin(t);
        let _ = wait.lock().unwrap().recv_timeout(PATIENCE);
        t.event(FINISH);
        t.event("[DONE]");
        t.end();
    });
    let spare = good_engine();
    let bed = Bed::new(vec![vllm("first", engine.port), vllm("second", spare.port)]);
    let mut client = client::connect(bed.port);
    std::io::Write::write_all(&mut client, client::post("/v1/chat/completions", &chat(true)).as_bytes())
        .unwrap();
    // The head comes with the content: from here on the request is committed.
    let mut peeked = [0; 1];
    assert_eq!(client.peek(&mut peeked).unwrap(), 1);
    bed.live(0).set_standing(Standing::Leaving);
    go.send(()).unwrap();
    let answer = client::read_answer(&mut client, false);
    assert_eq!((answer.text().as_str(), answer.events().last()), ("begun", Some(&"[DONE]")), "{answer:?}");
    assert_eq!(spare.requests().len(), 0);
}

#[test]
fn a_remote_tier_that_goes_silent_is_cut() {
    let engine = Engine::start(|t| {
        begin(t);
        t.wait_for_close();
    });
    let limit = Some(Duration::from_millis(300));
    let remote = TierRoute { between_chunks: limit, ..tier("first", Kind::Remote(Api::OpenAi), engine.port) };
    let bed = Bed::new(vec![remote]);
    expect_cut("silence", &bed.chat(true));
}

#[test]
fn an_answer_too_large_to_be_held_shows_its_death() {
    let engine = Engine::start(|t| {
        t.write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n{\"data\":\"");
        t.write("x".repeat(10 << 20));
        t.close();
    });
    let spare = good_engine();
    let bed = Bed::new(vec![vllm("first", engine.port), vllm("second", spare.port)]);
    let answer = bed.chat(false);
    assert_eq!((answer.status, answer.ending), (200, Ending::Cut));
    assert!(answer.body.starts_with("{\"_backend\":\"first\",\"data\":\"xxx"));
    assert_eq!(bed.tally(0).cut, 1);
}

#[test]
fn a_large_answer_passes_whole() {
    let body = format!("{{\"model\":\"m\",\"data\":\"{}\"}}", "x".repeat(12 << 20));
    let length = body.len();
    let engine = Engine::start(move |t| t.whole("200 OK", "", &body));
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    let answer = bed.post("/v1/embeddings", &json!({"input": "x"}));
    assert_eq!((answer.status, answer.ending), (200, Ending::Whole));
    assert_eq!(answer.body.len(), length + "\"_backend\":\"first\",".len());
    assert_eq!(answer.json()["_backend"], "first");
}

#[test]
fn the_request_timeout_ends_a_wait_and_no_stream_that_flows() {
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let may_go_on = std::sync::Mutex::new(may_go_on);
    let engine = Engine::start(move |t| {
        if t.request.json()["stream"] == true {
            begin(t);
            begun.send(()).unwrap();
            may_go_on.lock().unwrap().recv().unwrap();
            t.event(FINISH);
            t.event("[DONE]");
            t.end();
        } else {
            t.wait_for_close();
        }
    });
    let limits = Limits { request_timeout: Some(Duration::from_millis(400)), ..limits() };
    let bed = Bed::with(limits, vec![vllm("first", engine.port)]);
    std::thread::scope(|scope| {
        let streamed = scope.spawn(|| bed.chat(true));
        has_begun.recv().unwrap();
        // Its time passes after that of the stream.
        let answer = bed.chat(false);
        assert_eq!((answer.status, answer.code().as_str()), (504, "request_timeout"));
        go_on.send(()).unwrap();
        let streamed = streamed.join().unwrap();
        assert_eq!((streamed.status, streamed.ending), (200, Ending::Whole), "{streamed:?}");
        assert_eq!(streamed.events().last(), Some(&"[DONE]"));
    });
}

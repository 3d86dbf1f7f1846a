//! What one client may take.
use super::client::{connect, get, post, post_with, read_answer};
use super::engine::{Engine, good, good_engine};
use super::*;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

#[test]
fn a_body_that_is_too_large_is_refused() {
    let engine = good_engine();
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    // By its own account: at once, before a byte of it came.
    let announced = "POST /v1/chat/completions HTTP/1.1\r\nHost: m\r\nContent-Length: 1048577\r\n\r\n";
    let answer = ask(bed.port, announced);
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    // By its bytes, to a client that is still sending them.
    let chunk = format!("80000\r\n{}\r\n", "x".repeat(0x80000));
    let chunked = "POST /v1/chat/completions HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = ask(bed.port, &format!("{chunked}{}", chunk.repeat(64)));
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    assert_eq!(engine.requests().len(), 0);
}

#[test]
fn a_chunked_body_is_taken() {
    let engine = good_engine();
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    let body = chat(true).to_string();
    let (one, two) = body.split_at(10);
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{one}\r\n{:x};x=y\r\n{two}\r\n0\r\n\r\n",
        one.len(),
        two.len()
    );
    ask(bed.port, &request).expect_good_by("first");
    assert!(engine.requests()[0].field("content-length").is_some(), "an engine gets a length");
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on() {
    let engine = good_engine();
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    let request = post_with("/v1/chat/completions", "Expect: 100-continue\r\n", &chat(false));
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut client = connect(bed.port);
    client.write_all(format!("{head}\r\n\r\n").as_bytes()).unwrap();
    let go_on = read_answer(&mut client, true);
    assert_eq!(go_on.status, 100);
    client.write_all(body.as_bytes()).unwrap();
    read_answer(&mut client, false).expect_good_by("first");
    assert_eq!(engine.requests()[0].field("expect"), None);
    // One that would be refused is refused before it sends.
    let large = "POST /v1/chat/completions HTTP/1.1\r\nHost: m\r\nExpect: 100-continue\r\nContent-Length: 9999999\r\n\r\n";
    assert_eq!(ask(bed.port, large).status, 413);
}

#[test]
fn without_room_for_replay_a_request_is_sent_once() {
    let (dying, spare) = (Engine::start(|t| t.close()), good_engine());
    // Room for nothing in the replay half: the first byte already goes to the other one.
    let limits = Limits { replay_memory: 4096, ..limits() };
    let bed = Bed::with(limits, vec![vllm("first", dying.port), vllm("second", spare.port)]);
    bed.chat(false).expect_good_by("second");
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let slow = Engine::start(move |t| {
        let _ = held.lock().unwrap().recv_timeout(PATIENCE);
        good(t);
    });
    let slow_bed = Bed::with(
        Limits { replay_memory: 4096, ..super::limits() },
        vec![vllm("first", slow.port), vllm("second", spare.port)],
    );
    let long = json!({"messages": [{"role": "user", "content": "x".repeat(3000)}]});
    std::thread::scope(|scope| {
        // Takes most of the replay memory while it waits.
        let first = scope.spawn(|| slow_bed.post("/v1/chat/completions", &long));
        until("the first request waits", || slow.requests().len() == 1);
        slow_bed.change(|table| table.tiers[0].upstream.as_mut().unwrap().port = dying.port);
        let before = spare.requests().len();
        // It was sent to the dying tier, and cannot be sent again.
        let answer = slow_bed.post("/v1/chat/completions", &long);
        assert_eq!((answer.status, answer.code().as_str()), (503, "all_tiers_down"), "{answer:?}");
        assert_eq!(spare.requests().len(), before);
        // As long as nothing was sent it may move.
        slow_bed.change(|table| table.tiers[0].upstream.as_mut().unwrap().port = dead_port());
        slow_bed.post("/v1/chat/completions", &long).expect_good_by("second");
        release.send(()).unwrap();
        first.join().unwrap().expect_good_by("first");
    });
}

#[test]
fn a_large_body_that_is_not_kept_goes_to_no_second_tier() {
    let (leaving, spare) = (good_engine(), good_engine());
    let limits = Limits { max_body: 32 << 20, replay_memory: 0, ..limits() };
    let bed = Bed::with(limits, vec![vllm("first", leaving.port), vllm("second", spare.port)]);
    // It takes its time to be put into words, and the tier begins to leave meanwhile.
    let mut body = chat(false);
    body["messages"] = vec![json!({"role": "user", "content": "hi"}); 150_000].into();
    let answer = std::thread::scope(|scope| {
        let client = scope.spawn(|| bed.post("/v1/chat/completions", &body));
        until("the first tier is connected", || leaving.seen.connections.load(SeqCst) == 1);
        bed.live(0).set_standing(Standing::Leaving);
        client.join().unwrap()
    });
    answer.expect_good_by("first");
    assert_eq!(spare.requests().len(), 0, "{:?}", spare.requests().first().map(|request| request.json()));
    let came = leaving.requests()[0].json();
    assert_eq!(came["messages"].as_array().map(Vec::len), Some(150_000));
}

#[test]
fn a_body_that_an_engine_does_not_read_keeps_its_memory() {
    let engine = TcpListener::bind("127.0.0.1:0").unwrap();
    let limits = Limits { max_body: 8 << 20, replay_memory: 0, ..limits() };
    let bed = Bed::with(limits, vec![vllm("first", engine.local_addr().unwrap().port())]);
    // More than the sockets in between take.
    let body = json!({"messages": [{"role": "user", "content": "x".repeat(7 << 20)}]});
    let ask = || bed.post("/v1/chat/completions", &body);
    std::thread::scope(|scope| {
        let mut unread = Vec::new();
        for _ in 0..3 {
            scope.spawn(ask);
            let (stream, _) = engine.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            assert_eq!(stream.peek(&mut [0]).unwrap(), 1, "it is being sent");
            unread.push(stream);
        }
        let fourth = scope.spawn(ask);
        until("the fourth is answered or sent", || {
            fourth.is_finished() || bed.live(0).sample().in_flight > 3
        });
        let in_flight = bed.live(0).sample().in_flight;
        engine.set_nonblocking(true).unwrap();
        drop((unread, engine.accept()));
        drop(engine);
        let answer = fourth.join().unwrap();
        assert_eq!((in_flight, answer.status, answer.code().as_str()), (3, 503, "overloaded"));
    });
    assert_eq!(ask().code(), "all_tiers_down", "what was given up is free again");
}

#[test]
fn a_body_of_too_many_values_is_refused() {
    let engine = good_engine();
    let limits = Limits { replay_memory: 1 << 20, ..limits() };
    let bed = Bed::with(limits, vec![vllm("first", engine.port)]);
    let many = format!("{{\"input\":[{}1]}}", "1,".repeat(200_000));
    let request =
        format!("POST /v1/embeddings HTTP/1.1\r\nHost: m\r\nContent-Length: {}\r\n\r\n{many}", many.len());
    assert_eq!(ask(bed.port, &request).code(), "body_too_large");
}

#[test]
fn one_connection_too_many_is_told_so() {
    let engine = Engine::start(|t| {
        t.stream();
        t.event(&super::engine::token("begun"));
        t.wait_for_close();
    });
    let bed = Bed::with(Limits { max_connections: 2, ..limits() }, vec![vllm("first", engine.port)]);
    let mut served: Vec<_> = (0..2).map(|_| connect(bed.port)).collect();
    for client in &mut served {
        client.write_all(post("/v1/chat/completions", &chat(true)).as_bytes()).unwrap();
        client.read_exact(&mut [0; 12]).unwrap();
    }
    let answer = ask(bed.port, &post("/v1/chat/completions", &chat(false)));
    assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"));
    assert!(answer.body.contains("(server.max_connections, "), "{answer:?}");
    assert_eq!((answer.field("connection"), answer.field("retry-after").is_some()), (Some("close"), true));
    drop(served);
    until("a place is free again", || ask(bed.port, &get("/health")).status == 200);
}

#[test]
fn a_connection_is_kept_for_the_next_request() {
    let engine = good_engine();
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    let mut client = connect(bed.port);
    for streaming in [true, false, true] {
        client.write_all(post("/v1/chat/completions", &chat(streaming)).as_bytes()).unwrap();
        read_answer(&mut client, false).expect_good_by("first");
    }
    // Two at one time are answered in their order.
    let both = format!("{}{}", post("/v1/chat/completions", &chat(true)), get("/health"));
    client.write_all(both.as_bytes()).unwrap();
    read_answer(&mut client, false).expect_good_by("first");
    assert_eq!(read_answer(&mut client, false).json()["status"], "ok");
}

#[test]
fn what_the_http_library_refuses_is_said_in_our_words() {
    let engine = good_engine();
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    let huge = format!("GET /health HTTP/1.1\r\nHost: m\r\nX-Huge: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("GET /health HTTP/1.1\r\nHost: m\r\n{}\r\n", "X-A: b\r\n".repeat(5000));
    let long = format!("GET /{} HTTP/1.1\r\nHost: m\r\n\r\n", "x".repeat(65_535));
    let damaged = "GET /health HTTP/1.1\r\nHost : m\r\n\r\n".to_owned();
    for (request, status, code) in [
        (huge, 431, "head_too_large"),
        (many, 431, "head_too_large"),
        (long, 414, "head_too_large"),
        (damaged.clone(), 400, "invalid_request"),
        ("no HTTP\r\n\r\n".to_owned(), 400, "invalid_request"),
    ] {
        let answer = ask(bed.port, &request);
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        assert_eq!(answer.field("content-type"), Some("application/json"));
        assert_eq!(answer.field("x-request-id").map(str::len), Some(32));
        assert_eq!((answer.fields("content-length").len(), answer.field("connection")), (1, Some("close")));
    }
    // After answers of ours on the same connection, which stay as they are.
    let mut client = connect(bed.port);
    for streaming in [true, false] {
        client.write_all(post("/v1/chat/completions", &chat(streaming)).as_bytes()).unwrap();
        read_answer(&mut client, false).expect_good_by("first");
    }
    client.write_all(damaged.as_bytes()).unwrap();
    assert_eq!(read_answer(&mut client, false).code(), "invalid_request");
    assert_eq!(bed.proxy.refusals().of(proxy::Code::InvalidRequest), 3);
    assert_eq!(bed.proxy.refusals().of(proxy::Code::HeadTooLarge), 3);
}

#[test]
fn a_compressed_body_is_refused() {
    let engine = good_engine();
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    for path in ["/v1/chat/completions", "/tokenize"] {
        let answer = ask(bed.port, &post_with(path, "Content-Encoding: gzip\r\n", &chat(false)));
        assert_eq!((answer.status, answer.code().as_str()), (415, "unsupported_media_type"), "{path}");
    }
    let plain = post_with("/v1/chat/completions", "Content-Encoding: Identity\r\n", &chat(false));
    ask(bed.port, &plain).expect_good_by("first");
    assert_eq!(engine.requests().len(), 1);
}

#[test]
fn a_client_that_does_not_read_stops_its_engine() {
    let engine = Engine::start(|t| {
        t.stream();
        let event = format!("data: {}\n\n", super::engine::token(&"x".repeat(16_000)));
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        let taken = t.flood(chunk.as_bytes(), Duration::from_secs(1));
        // Socket buffers on both sides of the proxy, and next to nothing inside it.
        TAKEN.store(taken, SeqCst);
        t.wait_for_close();
        GONE.store(true, SeqCst);
    });
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    static GONE: AtomicBool = AtomicBool::new(false);
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    let mut client = connect(bed.port);
    client
        .write_all(post_with("/v1/chat/completions", "Connection: close\r\n", &chat(true)).as_bytes())
        .unwrap();
    let taken = || TAKEN.load(SeqCst);
    until("the engine is held up", || taken() > 0);
    assert!(taken() < 32 << 20, "{} bytes are somewhere", taken());
    // Policy must not take this for a silent engine.
    let before = bed.live(0).sample();
    assert_eq!(before.in_flight, 1);
    until("its progress is the client's", || bed.live(0).sample().last_progress > before.last_progress);
    // A cut reaches the engine although the client is not reading.
    assert!(!GONE.load(SeqCst));
    bed.live(0).cut();
    until("the engine's connection is closed", || GONE.load(SeqCst));
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).ok();
    let rest = String::from_utf8_lossy(&rest).into_owned();
    assert!(rest.contains("stream_cut") && !rest.contains("[DONE]"));
}

#[test]
fn a_slow_client_gets_everything() {
    const EVENTS: usize = 1500;
    let engine = Engine::start(|t| {
        t.stream();
        for _ in 0..EVENTS {
            t.event(&super::engine::token(&"x".repeat(16_000)));
        }
        t.event(super::engine::FINISH);
        t.event("[DONE]");
        t.end();
    });
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    let mut client = connect(bed.port);
    client.write_all(post("/v1/chat/completions", &chat(true)).as_bytes()).unwrap();
    let mut last = bed.live(0).sample().last_progress;
    until("it is held up by its client", || {
        let sample = bed.live(0).sample();
        // Asking makes a stalled request's progress move, and nothing else does so at every look.
        sample.in_flight == 1 && std::mem::replace(&mut last, sample.last_progress) < sample.last_progress
    });
    let answer = read_answer(&mut client, false);
    assert_eq!((answer.text().len(), answer.events().last()), (EVENTS * 16_000, Some(&"[DONE]")));
    assert_eq!(bed.tally(0), Tally { requests: 1, answered: 1, ..Tally::default() });
}

#[test]
fn a_body_that_never_comes_is_not_waited_for() {
    let bed = Bed::with(Limits { request_timeout: Some(Duration::from_millis(300)), ..limits() }, vec![]);
    let request = "POST /v1/chat/completions HTTP/1.1\r\nHost: m\r\nContent-Length: 100\r\n\r\n{";
    let answer = ask(bed.port, request);
    assert_eq!((answer.status, answer.code().as_str()), (408, "request_timeout"));
}

#[test]
fn a_client_that_never_reads_is_given_up_in_the_end() {
    let engine = Engine::start(|t| {
        t.stream();
        let event = format!("data: {}\n\n", super::engine::token(&"x".repeat(16_000)));
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        t.flood(chunk.as_bytes(), PATIENCE);
    });
    let bed = Bed::with(
        Limits { request_timeout: Some(Duration::from_millis(700)), ..limits() },
        vec![vllm("first", engine.port)],
    );
    let mut client = connect(bed.port);
    client.write_all(post("/v1/chat/completions", &chat(true)).as_bytes()).unwrap();
    until("the request is there", || engine.requests().len() == 1);
    until("its place is free", || bed.live(0).sample().in_flight == 0);
}

#[test]
fn answers_that_cannot_be_held_are_handed_on() {
    // Each stops in the middle of an event.
    let engine = Engine::start(|t| {
        t.stream();
        t.event(super::engine::ROLE);
        t.chunk(format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{}",
            "x".repeat(300_000)
        ));
        t.wait_for_close();
    });
    let bed = Bed::with(Limits { held_answers: 1 << 20, ..limits() }, vec![vllm("first", engine.port)]);
    let request = post_with("/v1/chat/completions", "Connection: close\r\n", &chat(true));
    let mut clients: Vec<_> = (0..6)
        .map(|_| {
            let mut client = connect(bed.port);
            client.write_all(request.as_bytes()).unwrap();
            client.set_nonblocking(true).unwrap();
            client
        })
        .collect();
    // Two or three fit, depending on how their buffers grew.
    let mut answered = [false; 6];
    until("most of them got a part of their answer", || {
        let mut head = [0; 4096];
        let news = clients.iter_mut().map(|client| client.read(&mut head).is_ok_and(|read| read > 0));
        answered.iter_mut().zip(news).for_each(|(known, new)| *known |= new);
        answered.iter().filter(|answered| **answered).count() >= 3
    });
    // Those that take little are held as ever.
    let dying = Engine::start(|t| {
        t.stream();
        t.event(super::engine::ROLE);
        t.close();
    });
    let spare = good_engine();
    bed.change(|table| {
        table.tiers[0].upstream.as_mut().unwrap().port = dying.port;
        table.tiers.push(TierRoute { tier: TierId(1), ..vllm("second", spare.port) });
    });
    bed.chat(true).expect_good_by("second");
}

/// A chat request with a text of so many bytes.
fn long_chat(bytes: usize) -> String {
    let body = json!({"model": "first-model", "messages": [{"role": "user", "content": "x".repeat(bytes)}]});
    post("/v1/chat/completions", &body)
}

#[test]
fn bodies_that_are_withheld_take_no_place_from_others() {
    let engine = good_engine();
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    // Twice as much as there is memory for, and the last byte of each is missing.
    let request = long_chat(1_000_000);
    let withheld: Vec<_> = (0..32)
        .map(|_| {
            let mut client = connect(bed.port);
            client.write_all(&request.as_bytes()[..request.len() - 1]).unwrap();
            client.set_nonblocking(true).unwrap();
            client
        })
        .collect();
    let told = |mut client: &std::net::TcpStream| {
        let mut answer = [0; 2048];
        let read = client.read(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("overloaded"), "{answer}");
        Some(answer)
    };
    let mut given_up = 0;
    until("there is no room for all of them", || {
        bed.chat(false).expect_good_by("first");
        ask(bed.port, &long_chat(900_000)).expect_good_by("first");
        given_up += withheld.iter().filter(|client| told(client).is_some()).count();
        given_up >= 16
    });
}

#[test]
fn a_body_that_stops_coming_ends() {
    let engine = good_engine();
    let limits = Limits { body_stall: Duration::from_millis(200), ..limits() };
    let bed = Bed::with(limits, vec![vllm("first", engine.port)]);
    for (path, kind) in
        [("/v1/chat/completions", "json"), ("/tokenize", "json"), ("/tokenize", "octet-stream")]
    {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: mainstay\r\nContent-Type: application/{kind}\r\nContent-Length: 99\r\n\r\n"
        );
        let answer = ask(bed.port, &format!("{head}{{"));
        assert_eq!((answer.status, answer.code().as_str()), (408, "request_timeout"), "{path} {kind}");
        assert!(answer.body.contains("Nothing of the request body came for 0.2 s"), "{answer:?}");
    }
}

#[test]
fn a_large_body_is_put_into_the_words_of_each_tier() {
    let (dying, spare) = (Engine::start(|t| t.close()), good_engine());
    let bed = Bed::new(vec![vllm("first", dying.port), vllm("second", spare.port)]);
    ask(bed.port, &long_chat(700_000)).expect_good_by("second");
    let (one, two) = (dying.requests()[0].json(), spare.requests()[0].json());
    assert_eq!((&one["model"], &two["model"]), (&json!("first-model"), &json!("second-model")));
    assert_eq!(one["messages"], two["messages"]);
    assert_eq!(two["messages"][0]["content"], "x".repeat(700_000));
    // The same on a path that is handed through.
    let body = json!({"model": "second-model", "content": "x".repeat(700_000)});
    bed.change(|table| {
        table.tiers.remove(0);
        table.tiers[0].aliases.push("other".into());
        table.tiers[0].model = "renamed".into();
    });
    bed.post("/tokenize", &json!({"model": "other", "content": body["content"]}));
    assert_eq!(spare.requests()[1].json(), json!({"model": "renamed", "content": body["content"]}));
}

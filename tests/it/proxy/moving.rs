//! Before the commit point every failure moves the request on, and the client sees nothing of it.
use super::engine::{DEATH, Engine, ROLE, Talk, good, good_engine};
use super::*;
use mainstay::kinds::Api;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

type Fault = fn(&mut Talk);

/// Ways to fail before any content, whatever was asked.
const FAULTS: &[(&str, Fault)] = &[
    ("closes without a byte", |t| t.close()),
    ("resets without a byte", |t| t.reset()),
    ("half a head", |t| {
        t.write("HTTP/1.1 200 OK\r\nContent-Ty");
        t.close();
    }),
    ("no HTTP", |t| {
        t.write("\x16\x03\x01 what is this\r\n\r\n");
        t.close();
    }),
    ("500", |t| t.whole("500 Internal Server Error", "", DEATH)),
    ("500 cut short", |t| {
        t.write("HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\n{\"err");
        t.close();
    }),
    ("503", |t| {
        t.whole(
            "503 Service Unavailable",
            "",
            r#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#,
        )
    }),
    ("429", |t| t.whole("429 Too Many Requests", "", r#"{"error":"slow down"}"#)),
    ("no such model", |t| {
        t.whole(
            "404 Not Found",
            "",
            r#"{"error":{"message":"The model `x` does not exist.","param":"model","code":404}}"#,
        )
    }),
    ("200 that is an error", |t| t.whole("200 OK", "", DEATH)),
    ("200 that is no JSON", |t| t.whole("200 OK", "", "<html>")),
    ("200 that is empty", |t| t.whole("200 OK", "", "")),
    ("a whole answer cut in its middle", |t| {
        t.write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"choices\":[{\"mess");
        t.close();
    }),
];

/// Ways to fail that only a stream has.
const STREAM_FAULTS: &[(&str, Fault)] = &[
    ("head, then reset", |t| {
        t.stream();
        t.reset();
    }),
    ("an error event first", |t| {
        t.stream();
        t.event(DEATH);
        t.event("[DONE]");
        t.end();
    }),
    ("a role, then an error event", |t| {
        t.stream();
        t.event(ROLE);
        t.event(DEATH);
        t.event("[DONE]");
        t.end();
    }),
    ("a role, then death", |t| {
        t.stream();
        t.event(ROLE);
        t.close();
    }),
    ("a role, then a clean end", |t| {
        t.stream();
        t.event(ROLE);
        t.end();
    }),
    ("a role, then done", |t| {
        t.stream();
        t.event(ROLE);
        t.event("[DONE]");
        t.end();
    }),
    ("pings, then death", |t| {
        t.stream();
        t.chunk(":\n\n: keep-alive\n\n");
        t.close();
    }),
    ("done without anything", |t| {
        t.stream();
        t.event("[DONE]");
        t.end();
    }),
];

fn requests(streaming: bool) -> Vec<(&'static str, Value)> {
    let mut requests = vec![
        ("/v1/chat/completions", chat(streaming)),
        ("/v1/completions", json!({"model": "first-model", "stream": streaming, "prompt": "hi"})),
    ];
    if !streaming {
        requests.push(("/v1/embeddings", json!({"model": "first-model", "input": "hi"})));
    }
    requests
}

#[track_caller]
fn check(name: &str, fault: Fault, streaming: bool) {
    for (path, body) in requests(streaming) {
        // A tier that said it has no room would be left alone by the next request: each has a bed of its own.
        let (bad, fallback) = (Engine::start(fault), good_engine());
        let mut tiers = vec![vllm("first", bad.port), weakened("second", fallback.port)];
        // Embeddings move to the same model only.
        if path.ends_with("embeddings") {
            tiers[1].model = tiers[0].model.clone();
        }
        let model = tiers[1].model.clone();
        let bed = Bed::new(tiers);
        let answer = bed.post(path, &body);
        assert_eq!(answer.status, 200, "{name} at {path}: {answer:?}");
        answer.expect_good_by("second");
        assert_eq!(answer.field("x-mainstay-attempts"), Some("2"), "{name} at {path}");
        let moved = Tally { requests: 1, failed_over: 1, ..Tally::default() };
        assert_eq!(bed.tally(0), moved, "{name} at {path}");
        // Embeddings cannot be weakened.
        let weakened = u64::from(!path.ends_with("embeddings"));
        let answered = Tally { requests: 1, answered: 1, weakened, ..Tally::default() };
        assert_eq!(bed.tally(1), answered, "{name} at {path}");
        assert_eq!(bed.proxy.failovers().count, 1, "{name} at {path}");
        let sent = fallback.requests();
        assert!(sent.iter().all(|r| r.json()["model"] == model), "{name}: {sent:?}");
    }
}

#[test]
fn whole_answers_move() {
    for (name, fault) in FAULTS {
        check(name, *fault, false);
    }
}

#[test]
fn streams_move() {
    for (name, fault) in FAULTS.iter().chain(STREAM_FAULTS) {
        check(name, *fault, true);
    }
}

/// Each a second time only when the same tier is asked once more.
#[test]
fn a_failure_that_may_pass_at_once_is_tried_again_at_the_same_tier() {
    let table: [(&str, Fault); 6] = [
        ("closes", |t| t.close()),
        ("resets", |t| t.reset()),
        ("a role, then death", |t| {
            t.stream();
            t.event(ROLE);
            t.close();
        }),
        ("500", |t| t.whole("500 Internal Server Error", "", DEATH)),
        ("502", |t| t.whole("502 Bad Gateway", "", "<html>")),
        ("504", |t| t.whole("504 Gateway Time-out", "", "<html>")),
    ];
    for (name, fault) in table {
        let first = AtomicBool::new(true);
        let engine =
            Engine::start(move |talk| if first.swap(false, SeqCst) { fault(talk) } else { good(talk) });
        let spare = good_engine();
        let bed = Bed::new(vec![vllm("first", engine.port), vllm("second", spare.port)]);
        let began = clock::now();
        bed.chat(true).expect_good_by("first");
        assert!(clock::now().since(began) >= Duration::from_millis(100), "{name}: at once");
        assert_eq!((engine.requests().len(), spare.requests().len()), (2, 0), "{name}");
        assert_eq!(bed.live(0).sample().failures_in_row, 0, "{name}");
        assert_eq!(bed.tally(0), Tally { requests: 1, answered: 1, ..Tally::default() }, "{name}");
    }
}

#[test]
fn the_failover_time_has_nothing_of_the_first_try() {
    const AGE: Duration = Duration::from_secs(1);
    let (fail, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let engine = Engine::start(move |talk| {
        let _ = held.lock().unwrap().recv_timeout(PATIENCE);
        talk.reset();
    });
    let (spare, port) = (good_engine(), engine.port);
    let bed = Bed::new(vec![vllm("first", port), vllm("second", spare.port)]);
    let after_the_first_try = std::thread::scope(|scope| {
        let client = scope.spawn(|| bed.chat(true));
        until("it is asked", || engine.requests().len() == 1);
        let asked = clock::now();
        drop(engine);
        until("nobody listens when it is asked once more", || {
            TcpStream::connect(("127.0.0.1", port)).is_err()
        });
        until("the request has its age", || clock::now().since(asked) >= AGE);
        let failed = clock::now();
        fail.send(()).unwrap();
        client.join().unwrap().expect_good_by("second");
        clock::now().since(failed)
    });
    let failovers = bed.proxy.failovers();
    assert_eq!(failovers.count, 1);
    assert!(failovers.max <= after_the_first_try.as_secs_f64(), "{failovers:?}, {after_the_first_try:?}");
}

#[test]
fn a_refused_connection_moves_and_is_reported() {
    let fallback = good_engine();
    let mut bed = Bed::new(vec![vllm("first", dead_port()), vllm("second", fallback.port)]);
    bed.chat(true).expect_good_by("second");
    assert!(matches!(bed.reports.try_recv(), Ok(Report::Refused { tier: TierId(0), run: None, .. })));
    assert_eq!(bed.live(0).sample().failures_in_row, 1);
    assert_eq!(bed.live(1).sample().answered, 1);
}

#[test]
fn what_counts_as_a_failure_of_the_tier() {
    let table: [(&str, Fault, u32); 4] = [
        ("500", |t| t.whole("500 Oops", "", DEATH), 1),
        ("503", |t| t.whole("503 Busy", "", "{}"), 0),
        ("501", |t| t.whole("501 No", "", "{}"), 0),
        (
            "the client's",
            |t| t.whole("400 Bad", "", r#"{"error":{"message":"temperature must be positive"}}"#),
            0,
        ),
    ];
    for (name, fault, strikes) in table {
        let engine = Engine::start(fault);
        let bed = Bed::new(vec![vllm("first", engine.port)]);
        bed.chat(true);
        assert_eq!(bed.live(0).sample().failures_in_row, strikes, "{name}");
    }
}

#[test]
fn a_tier_that_says_that_it_cannot_do_it_is_skipped_and_has_not_failed_over() {
    let missing = Engine::start(|t| t.whole("501 Not Implemented", "", r#"{"error":{"message":"no"}}"#));
    let spare = good_engine();
    let bed = Bed::new(vec![vllm("first", missing.port), vllm("second", spare.port)]);
    for streaming in [false, true] {
        let answer = bed.chat(streaming);
        answer.expect_good_by("second");
        let skipped = answer.field("x-mainstay-skipped");
        assert_eq!(skipped, Some("first; HTTP 501, it does not have what was asked for"));
    }
    assert_eq!(bed.tally(0), Tally { requests: 2, skipped: 2, ..Tally::default() });
    assert_eq!(bed.proxy.failovers().count, 0);
}

#[test]
fn the_clients_own_error_is_passed_on_untouched() {
    const OWN: &str = r#"{"error":{"message":"temperature must be positive","type":"BadRequestError","param":null,"code":400}}"#;
    let (engine, spare) = (Engine::start(|t| t.whole("400 Bad Request", "X-Own: 1\r\n", OWN)), good_engine());
    let bed = Bed::new(vec![weakened("first", engine.port), vllm("second", spare.port)]);
    let answer = bed.chat(true);
    assert_eq!((answer.status, answer.body.as_str()), (400, OWN));
    assert_eq!((answer.field("x-mainstay-tier"), answer.field("x-own")), (Some("first"), Some("1")));
    assert_eq!((answer.field("x-mainstay-degraded"), answer.field("x-mainstay-attempts")), (None, None));
    assert_eq!(spare.requests().len(), 0);
}

#[test]
fn overload_is_passed_on_with_its_retry_after_when_no_tier_is_left() {
    let busy =
        Engine::start(|t| t.whole("429 Too Many Requests", "Retry-After: 17\r\n", r#"{"error":"busy"}"#));
    let bed = Bed::new(vec![vllm("first", busy.port), vllm("second", dead_port())]);
    let answer = bed.chat(false);
    assert_eq!((answer.status, answer.field("retry-after")), (429, Some("17")));
    assert_eq!(
        (answer.body.as_str(), answer.field("x-mainstay-tier")),
        (r#"{"error":"busy"}"#, Some("first"))
    );
}

#[test]
fn when_every_tier_fails_the_reasons_are_told() {
    let dying = Engine::start(|t| t.whole("500 Oops", "", DEATH));
    let bed = Bed::new(vec![vllm("first", dying.port), vllm("second", dead_port())]);
    for streaming in [false, true] {
        let answer = bed.chat(streaming);
        assert_eq!((answer.status, answer.code().as_str()), (503, "all_tiers_down"));
        assert_eq!(
            (answer.field("retry-after"), answer.json()["retry_after"].as_u64()),
            (Some("30"), Some(30))
        );
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.ends_with("first: HTTP 500; second: connection refused"), "{message}");
    }
}

#[test]
fn a_stale_connection_is_no_failure() {
    // Closes every connection when the second request comes on it, as a server does whose keep-alive time has just passed.
    let engine = Engine::start(|t| if t.earlier == 0 { good(t) } else { t.close() });
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    for _ in 0..3 {
        let answer = bed.chat(true);
        answer.expect_good_by("first");
        assert_eq!(answer.field("x-mainstay-attempts"), None);
    }
    assert_eq!(bed.tally(0), Tally { requests: 3, answered: 3, ..Tally::default() });
    assert_eq!(bed.live(0).sample().failures_in_row, 0);
    let connections = engine.seen.connections.load(std::sync::atomic::Ordering::SeqCst);
    assert!(engine.requests().len() > 3 && connections == 3, "an idle connection was tried first");
}

#[test]
fn idle_connections_are_used_again() {
    let engine = good_engine();
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    for streaming in [true, false, true, false] {
        bed.chat(streaming).expect_good_by("first");
    }
    assert_eq!(engine.seen.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[test]
fn a_tier_that_is_leaving_gives_up_what_has_no_content() {
    let hung = Engine::start(|t| {
        t.stream();
        t.event(ROLE);
        t.wait_for_close();
    });
    let fallback = good_engine();
    let bed = Bed::new(vec![vllm("first", hung.port), vllm("second", fallback.port)]);
    let answer = std::thread::scope(|scope| {
        let client = scope.spawn(|| bed.chat(true));
        until("the request is at the first tier", || hung.requests().len() == 1);
        bed.live(0).set_standing(Standing::Leaving);
        client.join().unwrap()
    });
    answer.expect_good_by("second");
    assert_eq!(bed.live(0).sample().failures_in_row, 0, "leaving is no failure");
}

#[test]
fn the_last_tier_is_not_left_until_another_one_opens() {
    let hung = Engine::start(|t| t.wait_for_close());
    let fallback = good_engine();
    let bed = Bed::new(vec![vllm("first", hung.port), vllm("second", fallback.port)]);
    bed.change(|table| table.tiers[1].standing = Standing::Closed);
    let answer = std::thread::scope(|scope| {
        let client = scope.spawn(|| bed.chat(false));
        until("the request is at the first tier", || hung.requests().len() == 1);
        bed.live(0).set_standing(Standing::Leaving);
        bed.change(|table| table.tiers[0].standing = Standing::Leaving);
        // It stays, and goes as soon as there is somewhere to go.
        assert_eq!(bed.live(0).sample().in_flight, 1);
        bed.change(|table| table.tiers[1].standing = Standing::Open);
        client.join().unwrap()
    });
    answer.expect_good_by("second");
}

#[test]
fn a_cut_run_gives_up_everything() {
    let hung = Engine::start(|t| t.wait_for_close());
    let fallback = good_engine();
    let bed = Bed::new(vec![vllm("first", hung.port), vllm("second", fallback.port)]);
    let answer = std::thread::scope(|scope| {
        let client = scope.spawn(|| bed.chat(false));
        until("the request is at the first tier", || hung.requests().len() == 1);
        bed.live(0).cut();
        client.join().unwrap()
    });
    answer.expect_good_by("second");
    assert_eq!(bed.live(0).sample().failures_in_row, 0, "being ended is no failure");
    // Nothing goes there any more, whatever the table says.
    bed.chat(false).expect_good_by("second");
    assert_eq!(hung.requests().len(), 1);
}

#[test]
fn a_remote_tier_without_content_in_time_is_left() {
    let slow = Engine::start(|t| {
        if t.request.json()["stream"] == true {
            t.stream();
            t.event(ROLE);
        }
        t.wait_for_close();
    });
    let fallback = good_engine();
    let limit = Some(Duration::from_millis(200));
    let remote = TierRoute { first_content: limit, ..tier("first", Kind::Remote(Api::OpenAi), slow.port) };
    let bed = Bed::new(vec![remote, vllm("second", fallback.port)]);
    for streaming in [true, false] {
        bed.chat(streaming).expect_good_by("second");
    }
    assert_eq!(bed.live(0).sample().failures_in_row, 2);
}

#[test]
fn without_failover_only_the_first_tier_is_tried() {
    let (bad, fallback) = (Engine::start(|t| t.close()), good_engine());
    let bed = Bed::new(vec![vllm("first", bad.port), vllm("second", fallback.port)]);
    bed.change(|table| table.failover = false);
    assert_eq!(bed.chat(true).status, 503);
    assert_eq!(fallback.requests().len(), 0);
}

//! A tier that has no room is left alone for as long as it asks, and never longer than another one is open.
use super::engine::{Engine, good, good_engine};
use super::*;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Says that it has no room until it is told to answer.
fn full(status: &'static str, fields: &'static str) -> (Engine, Arc<AtomicBool>) {
    let has_room = Arc::new(AtomicBool::new(false));
    let told = has_room.clone();
    let engine = Engine::start(move |talk| match told.load(SeqCst) {
        true => good(talk),
        false => talk.whole(status, fields, r#"{"error":{"message":"slow down"}}"#),
    });
    (engine, has_room)
}

#[test]
fn a_tier_that_is_full_is_left_alone_while_another_is_open() {
    for (status, path) in [
        ("429 Too Many Requests", "/v1/chat/completions"),
        ("503 Service Unavailable", "/v1/chat/completions"),
        ("429 Too Many Requests", "/tokenize"),
    ] {
        let (first, has_room) = full(status, "Retry-After: 3600\r\n");
        let second = good_engine();
        let bed = Bed::new(vec![vllm("first", first.port), vllm("second", second.port)]);
        bed.post(path, &chat(false));
        for _ in 0..3 {
            assert_eq!(
                bed.post(path, &chat(false)).field("x-mainstay-tier"),
                Some("second"),
                "{status} {path}"
            );
        }
        assert_eq!(first.requests().len(), 1, "{status} {path}");
        // The last one that can answer is asked all the same.
        has_room.store(true, SeqCst);
        bed.change(|table| table.tiers[1].standing = Standing::Closed);
        let answer = bed.post(path, &chat(false));
        assert_eq!((answer.status, answer.field("x-mainstay-tier")), (200, Some("first")), "{status} {path}");
    }
}

#[test]
fn what_is_too_long_for_a_tier_is_not_refused_for_good_while_a_better_one_is_down() {
    const LONG: &str = r#"{"error":{"message":"maximum context length is 4096 tokens","code":400}}"#;
    let small = Engine::start(|talk| talk.whole("400 Bad Request", "", LONG));
    let large = TierRoute { brief: "its engine is starting", ..vllm("first", dead_port()) };
    let bed = Bed::new(vec![large, vllm("second", small.port)]);
    for standing in [Standing::Closed, Standing::Leaving] {
        bed.change(|table| table.tiers[0].standing = standing);
        let answer = bed.chat(true);
        assert_eq!((answer.status, answer.code().as_str()), (503, "all_tiers_down"), "{standing:?}");
        assert_eq!(answer.field("retry-after"), Some("30"));
        let told = "first: its engine is starting; second: HTTP 400, its context is too small";
        assert!(answer.body.contains(told), "{}", answer.body);
    }
    bed.change(|table| {
        table.tiers[0].standing = Standing::Closed;
        table.tiers[0].wanted = false;
    });
    let answer = bed.chat(true);
    assert_eq!((answer.status, answer.body.as_str()), (400, LONG), "an operator has stopped the better one");
}

#[test]
fn when_nobody_has_room_the_client_is_told_the_shortest_time() {
    let (first, _) = full("429 Too Many Requests", "Retry-After: 90\r\n");
    let (second, _) = full("503 Service Unavailable", "Retry-After: 7\r\n");
    let (third, _) = full("429 Too Many Requests", "");
    let bed =
        Bed::new(vec![vllm("first", first.port), vllm("second", second.port), vllm("third", third.port)]);
    for asked in 1..=2 {
        let answer = bed.chat(false);
        assert_eq!((answer.status, answer.field("retry-after")), (429, Some("7")), "{answer:?}");
        assert_eq!(first.requests().len(), asked, "every tier is asked before a client is refused");
    }
}

//! What is counted: each request at a tier has exactly one end, and each error of ours its code.
use super::engine::{Engine, good_engine};
use super::*;
use mainstay::proxy::Code;

fn refusing(status: &'static str, body: &'static str) -> Engine {
    Engine::start(move |t| t.whole(status, "", body))
}

const WRONG: &str = r#"{"error":{"message":"temperature","type":"BadRequestError","param":null,"code":400}}"#;
const BUSY: &str = r#"{"error":{"message":"busy","type":"server_error","param":null,"code":503}}"#;

#[test]
fn the_clients_own_error_is_an_answer_and_told_apart() {
    let engine = refusing("400 Bad Request", WRONG);
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    assert_eq!(bed.chat(false).status, 400);
    let expected = Tally { requests: 1, answered: 1, client_errors: 1, ..Tally::default() };
    until("it is counted", || bed.tally(0) == expected);
    assert_eq!(bed.proxy.refusals(), proxy::Refusals::default(), "those are the engine's words");
}

#[test]
fn the_last_tier_that_failed_is_where_a_request_was_refused() {
    let engine = refusing("500 Internal Server Error", "{}");
    let bed = Bed::new(vec![vllm("first", dead_port()), vllm("second", engine.port)]);
    assert_eq!(bed.chat(true).status, 503);
    assert_eq!(bed.tally(0), Tally { requests: 1, failed_over: 1, ..Tally::default() });
    assert_eq!(bed.tally(1), Tally { requests: 1, refused: 1, ..Tally::default() });
    assert_eq!(bed.proxy.refusals().of(Code::AllTiersDown), 1);
}

#[test]
fn overload_that_is_passed_on_is_a_refusal_too() {
    let engine = refusing("503 Service Unavailable", BUSY);
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    assert_eq!(bed.chat(false).status, 503);
    assert_eq!(bed.tally(0), Tally { requests: 1, refused: 1, ..Tally::default() });
}

#[test]
fn a_request_that_no_tier_can_be_asked_for_counts_by_its_code_only() {
    let engine = good_engine();
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    bed.change(|table| table.tiers[0].standing = Standing::Closed);
    assert_eq!(bed.chat(true).status, 503);
    assert_eq!(ask(bed.port, &client::get("/health")).status, 503);
    assert_eq!(ask(bed.port, &client::get("/nowhere")).status, 404);
    assert_eq!(bed.tally(0), Tally::default());
    let refusals = bed.proxy.refusals();
    assert_eq!(refusals.of(Code::AllTiersDown), 1, "/health asks, and is not refused");
    assert_eq!(refusals.of(Code::NotFound), 1);
    assert_eq!(refusals.by_code().map(|(_, count)| count).sum::<u64>(), 2);
}

#[test]
fn weakened_answers_are_counted_beside_their_end() {
    let engine = good_engine();
    let bed = Bed::new(vec![weakened("first", engine.port)]);
    for streaming in [false, true] {
        let answer = bed.chat(streaming);
        assert_eq!(answer.field("x-mainstay-degraded"), Some("true"), "{answer:?}");
    }
    let expected = Tally { requests: 2, answered: 2, weakened: 2, ..Tally::default() };
    until("both are counted", || bed.tally(0) == expected);
}

#[test]
fn a_pass_through_has_one_end_as_well() {
    let engine = refusing("500 Internal Server Error", "{}");
    let bed = Bed::new(vec![vllm("first", dead_port()), vllm("second", engine.port)]);
    assert_eq!(bed.post("/tokenize", &json!({})).status, 500);
    let refused = Tally { requests: 1, refused: 1, ..Tally::default() };
    until("it is counted", || bed.tally(1) == refused);
    assert_eq!(bed.tally(0), Tally { requests: 1, failed_over: 1, ..Tally::default() });
    bed.change(|table| table.tiers[1].standing = Standing::Closed);
    assert_eq!(bed.post("/tokenize", &json!({})).status, 503);
    assert_eq!(bed.tally(0), Tally { requests: 2, failed_over: 1, refused: 1, ..Tally::default() });
}

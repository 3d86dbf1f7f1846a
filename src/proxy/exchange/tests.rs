use super::*;
use crate::kinds::{Api, Endpoint, Kind};
use crate::proxy::history::Others;
use crate::proxy::marks::Marks;
use std::mem;

mod again;
mod last_word;
mod room;
mod times;
mod whatever;

const OPENING: &str =
    r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;
const CONTENT: &str =
    r#"{"model":"m","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}"#;
const FINISH: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const ERROR: &str = r#"{"error":{"message":"EngineCore encountered an issue.","code":500}}"#;
const WHOLE: &str =
    r#"{"model":"m","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}"#;

fn candidate(rank: u16, kind: Kind) -> Candidate {
    let remote = !kind.is_local();
    Candidate {
        tier: TierId(rank),
        kind,
        standing: Standing::Open,
        first_content: remote.then_some(Duration::from_secs(60)),
        between_chunks: remote.then_some(Duration::from_secs(60)),
        marks: Marks { tier: format!("t{rank}"), model: "m".into(), notice: None },
        others: Others::default(),
    }
}

fn chain(kinds: &[Kind]) -> Vec<Candidate> {
    kinds.iter().enumerate().map(|(rank, &kind)| candidate(rank as u16, kind)).collect()
}

const THREE: [Kind; 3] = [Kind::Vllm, Kind::Vllm, Kind::LlamaServer];

fn terms(streaming: bool, replay: bool) -> Terms {
    Terms {
        endpoint: Endpoint::Chat,
        choices: 1,
        weakened_choices: 1,
        streaming,
        include_usage: false,
        replay,
        answer_id: "chatcmpl-1".into(),
        created: 1,
        timeout: Some(Duration::from_secs(600)),
    }
}

fn at(seconds: u64) -> Moment {
    Moment::default() + Duration::from_secs(seconds)
}

/// A machine and what it did so far, one word or two a step.
struct Play {
    exchange: Exchange,
    now: Moment,
    done: Vec<String>,
    /// What the tier did since it was asked: a tier that is asked again does the same once more.
    told: Vec<Input>,
    again: u32,
}

impl Play {
    fn new(chain: Vec<Candidate>, terms: Terms) -> Self {
        let mut exchange = Exchange::new(terms, at(0));
        exchange.see(chain);
        let mut play = Self { exchange, now: at(1), done: Vec::new(), told: Vec::new(), again: 0 };
        let steps = play.exchange.begin(play.now);
        play.note(steps);
        play
    }

    fn streaming(kinds: &[Kind]) -> Self {
        Self::new(chain(kinds), terms(true, true))
    }

    fn whole(kinds: &[Kind]) -> Self {
        Self::new(chain(kinds), terms(false, true))
    }

    fn feed(mut self, inputs: impl IntoIterator<Item = Input>) -> Self {
        let mut inputs = inputs.into_iter();
        while let Some(input) = inputs.next() {
            self.told.push(input.clone());
            let steps = self.exchange.on(self.now, input);
            if steps == [Step::TryAgain] {
                self.again += 1;
                let again = mem::take(&mut self.told);
                return self.feed(again).feed(inputs);
            }
            if steps.iter().any(|step| matches!(step, Step::Try { .. })) {
                self.told.clear();
            }
            self.note(steps);
        }
        self
    }

    fn at(mut self, seconds: u64) -> Self {
        self.now = at(seconds);
        self
    }

    fn note(&mut self, steps: Vec<Step>) {
        self.done.extend(steps.iter().map(told));
    }

    #[track_caller]
    fn expect(&self, expected: &[&str]) {
        assert_eq!(self.done, expected);
    }

    /// Expects what comes after the first attempt was sent off.
    #[track_caller]
    fn expect_after(&self, expected: &[&str]) {
        assert_eq!(self.done.first().map(String::as_str), Some("try 0"));
        assert_eq!(&self.done[1..], expected);
    }
}

fn told(step: &Step) -> String {
    match step {
        Step::Try { tier, fresh: false } => format!("try {}", tier.0),
        Step::Try { tier, fresh: true } => format!("try {} fresh", tier.0),
        Step::TryAgain => "again".into(),
        Step::Leave => "leave".into(),
        Step::Head { tier, status, attempts, .. } => format!("head {} {status} #{attempts}", tier.0),
        Step::Body(bytes) => format!("body {}", String::from_utf8_lossy(bytes).trim_end()),
        Step::End => "end".into(),
        Step::Abort => "abort".into(),
        Step::Refuse(Refusal::Failed(losses)) => {
            let told: Vec<_> =
                losses.iter().map(|(tier, why)| format!("{}: {}", tier.0, why.told())).collect();
            format!("refuse {}", told.join("; "))
        }
        Step::Refuse(other) => format!("refuse {other:?}"),
        Step::Tell(tier, Outcome::Skipped(why)) => format!("tell {} skipped: {why}", tier.0),
        Step::Tell(tier, outcome) => format!("tell {} {outcome:?}", tier.0),
    }
}

fn head(status: u16, content_type: &'static str) -> Input {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", http::HeaderValue::from_static(content_type));
    Input::Head { status, headers }
}

fn events() -> Input {
    head(200, "text/event-stream; charset=utf-8")
}

fn json() -> Input {
    head(200, "application/json")
}

fn event(data: &str) -> Input {
    Input::Data(Bytes::from(format!("data: {data}\n\n")))
}

fn data(data: &'static str) -> Input {
    Input::Data(Bytes::from_static(data.as_bytes()))
}

fn refused(status: u16, body: &'static str) -> [Input; 3] {
    [head(status, "application/json"), data(body), Input::End]
}

fn body(data: &str) -> String {
    format!("body data: {data}")
}

const OPENING_0: &str = r#"body data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"model":"m","_backend":"t0"}"#;
const CUT_0: &str = "body data: {\"error\":{\"message\":\"The answer of tier \\\"t0\\\" was cut: ";

#[test]
fn a_stream_is_held_until_its_first_content() {
    let play = Play::streaming(&THREE).feed([Input::Sent, events(), event(OPENING)]);
    play.expect(&["try 0"]);
    let play = play.feed([event(CONTENT), event(FINISH), event("[DONE]"), Input::End]);
    let [content, finish, done] = [CONTENT, FINISH, "[DONE]"].map(body);
    play.expect_after(&[
        "head 0 200 #1",
        OPENING_0,
        &content,
        &finish,
        &done,
        "tell 0 Answered",
        "leave",
        "end",
    ]);
}

#[test]
fn an_answer_of_no_token_is_an_answer_and_one_that_never_began_is_none() {
    let began = Play::streaming(&THREE).feed([events(), event(OPENING)]);
    let play = began.feed([event(FINISH), event("[DONE]"), Input::End]);
    assert!(play.done.contains(&"head 0 200 #1".to_owned()), "{:?}", play.done);
    assert!(play.done.contains(&"tell 0 Answered".to_owned()), "{:?}", play.done);
    for never in [vec![event(FINISH), event("[DONE]")], vec![event(FINISH), Input::End], vec![Input::End]] {
        let play = Play::streaming(&THREE).feed([events()]).feed(never);
        play.expect(&["try 0", "leave", "tell 0 Struck(1)", "tell 0 MovedOn", "try 1"]);
    }
}

#[test]
fn before_content_every_failure_moves_on() {
    let opened = || vec![events(), event(OPENING)];
    let then = |input: Input| opened().into_iter().chain([input]).collect::<Vec<_>>();
    let table: Vec<(Vec<Input>, Vec<&str>)> = vec![
        (vec![Input::Lost(Lost::Refused)], vec!["tell 0 Refused", "tell 0 Struck(1)"]),
        (vec![Input::Lost(Lost::ConnectTimeout)], vec!["tell 0 Struck(1)"]),
        (vec![Input::Lost(Lost::Reset)], vec!["tell 0 Struck(1)"]),
        (refused(500, ERROR).into(), vec!["tell 0 Struck(1)"]),
        (refused(503, "{}").into(), vec!["tell 0 TurnedAway(None)"]),
        (refused(429, "{}").into(), vec!["tell 0 TurnedAway(None)"]),
        (then(Input::Broken), vec!["tell 0 Struck(1)"]),
        (then(Input::End), vec!["tell 0 Struck(1)"]),
        (then(event(ERROR)), vec!["tell 0 Struck(1)"]),
        (then(event("[DONE]")), vec!["tell 0 Struck(1)"]),
        (then(event("not json")), vec!["tell 0 Struck(1)"]),
        (then(Input::Cut), vec![]),
        (then(Input::Standing(Standing::Leaving)), vec![]),
        (then(Input::Standing(Standing::Closed)), vec![]),
    ];
    for (inputs, told) in table {
        let name = format!("{inputs:?}");
        let play = Play::streaming(&THREE).feed(inputs);
        let expected: Vec<&str> =
            ["try 0", "leave"].into_iter().chain(told).chain(["tell 0 MovedOn", "try 1"]).collect();
        assert_eq!(play.done, expected, "{name}");
    }
}

#[test]
fn after_content_every_failure_is_an_error_event_without_done() {
    let table = [
        (Input::Broken, 1),
        (Input::End, 1),
        (event(ERROR), 1),
        (event("[DONE]"), 1),
        (event("not json"), 1),
        (event(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"abort"}]}"#), 1),
        (Input::Cut, 0),
    ];
    for (input, strikes) in table {
        let name = format!("{input:?}");
        let play =
            Play::streaming(&THREE).feed([events(), event(CONTENT), input, event("[DONE]"), Input::End]);
        let mut rest = play.done[3..].iter().map(String::as_str);
        assert_eq!(rest.next(), Some("leave"), "{name}");
        if strikes > 0 {
            assert_eq!(rest.next(), Some("tell 0 Struck(1)"), "{name}");
        }
        assert_eq!(rest.next(), Some("tell 0 Cut"), "{name}");
        let event = rest.next().unwrap();
        assert!(event.starts_with(CUT_0) && event.contains("\"code\":\"stream_cut\""), "{name}: {event}");
        assert_eq!((rest.next(), rest.next()), (Some("end"), None), "{name}");
    }
}

#[test]
fn after_content_a_leaving_tier_goes_on() {
    let play = Play::streaming(&THREE).feed([events(), event(CONTENT), Input::Standing(Standing::Leaving)]);
    let play = play.feed([event(FINISH), event("[DONE]"), Input::Broken]);
    assert!(play.done.ends_with(&["tell 0 Answered", "leave", "end"].map(str::to_owned)), "{:?}", play.done);
}

#[test]
fn a_whole_answer_is_held_to_its_end() {
    let play = Play::whole(&THREE).feed([json(), data(WHOLE)]);
    play.expect(&["try 0"]);
    let marked = format!("body {{\"_backend\":\"t0\",{}", &WHOLE[1..]);
    play.feed([Input::End]).expect_after(&["head 0 200 #1", &marked, "tell 0 Answered", "leave", "end"]);
}

#[test]
fn a_whole_answer_that_is_none_moves_on() {
    let table: [Vec<Input>; 5] = [
        vec![json(), data("{\"choices\":"), Input::Broken],
        vec![json(), data("{\"choices\":"), Input::End],
        vec![json(), Input::End],
        vec![json(), data(ERROR), Input::End],
        vec![json(), data(r#"{"choices":[{"index":0,"finish_reason":null}]}"#), Input::End],
    ];
    for inputs in table {
        let name = format!("{inputs:?}");
        let play = Play::whole(&THREE).feed(inputs);
        assert_eq!(play.done, ["try 0", "leave", "tell 0 Struck(1)", "tell 0 MovedOn", "try 1"], "{name}");
    }
}

#[test]
fn an_answer_too_large_to_be_held_is_relayed_and_its_death_shows() {
    let large = Bytes::from(format!("{{\"x\":\"{}", "x".repeat(9 << 20)));
    let play = Play::whole(&THREE).feed([json(), Input::Data(large), Input::Broken]);
    assert_eq!(play.done[1], "head 0 200 #1");
    assert!(play.done[2].starts_with("body {\"_backend\":\"t0\",\"x\":\""));
    assert_eq!(play.done[3..], ["leave", "tell 0 Struck(1)", "tell 0 Cut", "abort"]);
}

#[test]
fn the_clients_own_errors_go_to_the_client_as_they_are() {
    let own = r#"{"error":{"message":"temperature must be positive","code":400}}"#;
    Play::streaming(&THREE).feed(refused(400, own)).expect_after(&[
        "leave",
        "head 0 400 #1",
        &format!("body {own}"),
        "end",
        "tell 0 Answered",
    ]);
}

#[test]
fn when_every_tier_failed_the_reasons_are_told() {
    let lost = || Input::Lost(Lost::Reset);
    let play = Play::streaming(&THREE).feed([lost(), lost(), Input::Lost(Lost::Refused)]);
    let last = play.done.last().unwrap();
    let ended = "connection ended before the answer did";
    assert_eq!(last, &format!("refuse 0: {ended}; 1: {ended}; 2: connection refused"));
}

#[test]
fn too_long_a_context_is_the_clients_only_when_nobody_can_take_it() {
    let too_long = r#"{"error":{"message":"maximum context length is 4096","code":400}}"#;
    let shorter = r#"{"error":{"message":"maximum context length is 2048","code":400}}"#;
    let play = Play::streaming(&THREE).feed(refused(400, too_long));
    assert!(
        play.done[2].starts_with("tell 0 skipped: HTTP 400, its context is too small: "),
        "{:?}",
        play.done
    );
    assert_eq!(play.done[3..], ["try 1"]);
    let play = play.feed(refused(400, shorter)).feed([Input::Lost(Lost::Refused)]);
    assert!(play.done.ends_with(&["head 0 400 #3".into(), format!("body {too_long}"), "end".into()]));
}

#[test]
fn overload_is_passed_on_when_no_tier_is_left() {
    let busy = r#"{"error":{"message":"busy"}}"#;
    let play = Play::streaming(&THREE[..1]);
    let play = play.feed(refused(503, busy));
    play.expect_after(&["leave", "tell 0 TurnedAway(None)", "head 0 503 #1", &format!("body {busy}"), "end"]);
    let mut exchange = Exchange::new(terms(true, true), at(0));
    exchange.see(chain(&THREE[..1]));
    exchange.begin(at(0));
    let steps: Vec<Step> = refused(503, busy).into_iter().flat_map(|i| exchange.on(at(1), i)).collect();
    let retry_after = steps.iter().find_map(|step| match step {
        Step::Head { headers, .. } => headers.get("retry-after").cloned(),
        _ => None,
    });
    assert_eq!(retry_after, Some(http::HeaderValue::from_static("5")));
}

#[test]
fn a_tier_that_cannot_do_it_is_skipped_and_has_not_failed() {
    let play = Play::streaming(&THREE).feed(refused(501, "{}"));
    play.expect_after(&[
        "leave",
        "tell 0 skipped: HTTP 501, it does not have what was asked for: {}",
        "try 1",
    ]);
}

#[test]
fn a_missing_capability_is_told_only_when_nothing_else_failed() {
    let no = r#"{"error":{"message":"not implemented"}}"#;
    let play = Play::streaming(&THREE[..2]).feed(refused(501, no)).feed(refused(501, no));
    assert!(play.done.contains(&"head 0 501 #2".to_owned()), "{:?}", play.done);
    let play = Play::streaming(&THREE[..2]).feed(refused(501, no)).feed([Input::Lost(Lost::Reset)]);
    assert!(play.done.last().unwrap().starts_with("refuse "), "{:?}", play.done);
}

#[test]
fn a_500_over_the_input_twice_is_a_400() {
    let bad = r#"{"error":{"code":500,"message":"image input is not supported","type":"server_error"}}"#;
    let kinds = [Kind::LlamaServer; 3];
    let play = Play::streaming(&kinds).feed(refused(500, bad)).feed(refused(500, bad));
    assert!(play.done.contains(&"head 0 400 #2".to_owned()), "{:?}", play.done);
    assert!(!play.done.contains(&"try 2".to_owned()));
}

#[test]
fn a_model_that_the_engine_does_not_know_is_our_mistake() {
    let unknown = r#"{"error":{"message":"The model `m` does not exist.","param":"model","code":404}}"#;
    let play = Play::streaming(&THREE).feed(refused(404, unknown));
    assert!(play.done[2].starts_with("tell 0 Misconfigured("), "{:?}", play.done);
    assert_eq!(play.done[3..], ["tell 0 MovedOn", "try 1"]);
}

#[test]
fn a_full_tier_is_passed_by_and_all_full_is_an_overload() {
    let play = Play::streaming(&THREE[..2]).feed([Input::Full]);
    play.expect(&["try 0", "try 1"]);
    play.feed([Input::Full]).expect(&["try 0", "try 1", "refuse Full"]);
    let play = Play::streaming(&THREE[..2]).feed([Input::Full, events(), event(CONTENT)]);
    assert_eq!(play.done[2], "head 1 200 #1");
}

#[test]
fn what_this_host_has_run_out_of_is_no_fault_of_the_tier() {
    let short = || Input::Lost(Lost::Shortage("too many open files".into()));
    let play = Play::streaming(&THREE[..2]).feed([short()]);
    play.expect_after(&["leave", "tell 0 MovedOn", "try 1"]);
    let play = play.feed([Input::Lost(Lost::Reset)]);
    play.expect_after(&["leave", "tell 0 MovedOn", "try 1", "leave", "tell 1 Struck(1)", "refuse Shortage"]);
    Play::streaming(&THREE[..1]).feed([short()]).expect_after(&["leave", "refuse Shortage"]);
}

#[test]
fn a_stale_connection_is_replaced_once_and_counts_nowhere() {
    let stale = || Input::Lost(Lost::Stale);
    let play = Play::streaming(&THREE).feed([Input::Sent, stale()]);
    play.expect(&["try 0", "try 0 fresh"]);
    play.feed([stale()]).expect_after(&[
        "try 0 fresh",
        "leave",
        "tell 0 Struck(1)",
        "tell 0 MovedOn",
        "try 1",
    ]);
}

#[test]
fn without_replay_a_request_moves_only_until_it_was_sent() {
    let lost = || Input::Lost(Lost::Reset);
    let play = Play::new(chain(&THREE), terms(true, false)).feed([lost(), Input::Sent, lost()]);
    assert_eq!(play.done[..5], ["try 0 fresh", "leave", "tell 0 Struck(1)", "tell 0 MovedOn", "try 1 fresh"]);
    assert!(play.done.last().unwrap().starts_with("refuse 0: "));
}

#[test]
fn ollamas_lines_become_a_stream() {
    let line = |text: &str| Input::Data(Bytes::from(format!("{text}\n")));
    let play = Play::streaming(&[Kind::Ollama, Kind::Vllm]).feed([
        head(200, "application/x-ndjson"),
        line(r#"{"model":"x","message":{"role":"assistant","content":"hi"},"done":false}"#),
        line(r#"{"model":"x","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop"}"#),
        Input::End,
    ]);
    assert_eq!(play.done[1], "head 0 200 #1");
    assert!(
        play.done[2].starts_with("body data: {\"_backend\":\"t0\",\"id\":\"chatcmpl-1\""),
        "{:?}",
        play.done
    );
    assert!(play.done[3].contains("\"content\":\"hi\""), "{:?}", play.done);
    assert!(play.done.ends_with(&[
        "body data: [DONE]".into(),
        "tell 0 Answered".into(),
        "leave".into(),
        "end".into()
    ]));
    // An end without `done` is none.
    let play = Play::streaming(&[Kind::Ollama, Kind::Vllm]).feed([
        head(200, "application/x-ndjson"),
        line(r#"{"model":"x","message":{"role":"assistant","content":""},"done":false}"#),
        Input::End,
    ]);
    assert_eq!(play.done.last().unwrap(), "try 1");
}

#[test]
fn what_comes_behind_a_whole_answer_takes_nothing_from_it() {
    for last in [event(ERROR), data("data: {\"x\n\n")] {
        let play = Play::streaming(&THREE).feed([events(), event(CONTENT), event(FINISH), last]);
        let end: Vec<&str> = play.done.iter().rev().take(2).rev().map(String::as_str).collect();
        assert_eq!(end, ["body data: [DONE]", "tell 0 Answered"], "{:?}", play.done);
    }
}

//! Tiers on their way out, and limits of time.
use super::*;

#[test]
fn the_last_tier_is_not_left_for_being_on_its_way_out() {
    let play = Play::streaming(&THREE[..1]).feed([Input::Standing(Standing::Leaving), events(), Input::Wake]);
    play.expect(&["try 0"]);
    // Another one opens: it is looked for again and again.
    let mut play = play;
    let look = play.exchange.wake_at().unwrap();
    assert!(look.since(play.now) <= Duration::from_secs(1));
    play.exchange.see(chain(&THREE));
    play.now = look;
    play.feed([Input::Wake]).expect_after(&["leave", "tell 0 MovedOn", "try 1"]);
}

#[test]
fn a_leaving_tier_gets_nothing_new() {
    let mut tiers = chain(&THREE[..2]);
    tiers[0].standing = Standing::Leaving;
    let play = Play::new(tiers, terms(true, true));
    play.expect(&["try 1"]);
    let play = play.feed([Input::Lost(Lost::Reset)]);
    assert!(!play.done.iter().any(|step| step == "try 0"), "{:?}", play.done);
    assert!(play.exchange.is_over());
}

#[test]
fn limits_of_remote_tiers() {
    let remote = Kind::Remote(Api::OpenAi);
    // Without content in time it goes to the next tier ...
    let play = Play::streaming(&[remote, Kind::Vllm]).feed([events(), event(OPENING)]);
    assert_eq!(play.exchange.wake_at(), Some(at(61)));
    let play = play.at(61).feed([Input::Wake]);
    play.expect_after(&["leave", "tell 0 Struck(1)", "tell 0 MovedOn", "try 1"]);
    // ... but the last one may take its time.
    let play = Play::streaming(&[remote]).at(200).feed([Input::Wake, events(), event(CONTENT)]);
    assert_eq!(play.done[1], "head 0 200 #1");
    // A silence in the middle is the end ...
    let play = play.at(260).feed([Input::Wake]);
    assert_eq!(play.done.last().unwrap(), "end");
    assert!(play.done.iter().any(|step| step.contains("went silent")));
    // ... unless the client was the one that did not read.
    let play = Play::streaming(&[remote]).feed([events(), event(CONTENT)]);
    let play = play.at(300).feed([Input::Resumed(Duration::from_secs(300)), Input::Wake]);
    assert_eq!(play.done.len(), 3);
    // What it took to hand a ping on is no time of the client's.
    let ping = || Input::Data(Bytes::from_static(b": ping\n\n"));
    let play = Play::streaming(&[remote]).feed([events(), event(CONTENT)]);
    let play = play.at(60).feed([ping(), Input::Resumed(Duration::ZERO)]).at(61).feed([Input::Wake]);
    assert!(play.done.iter().any(|step| step.contains("went silent")), "{:?}", play.done);
}

#[test]
fn an_answer_that_comes_whole_is_not_hurried() {
    let play = Play::whole(&[Kind::Vllm, Kind::Vllm]).at(400).feed([Input::Wake]);
    play.expect(&["try 0"]);
}

#[test]
fn a_remote_tier_has_its_limits_for_whole_answers_too() {
    let two = [Kind::Remote(Api::OpenAi), Kind::Vllm];
    let moved = ["leave", "tell 0 Struck(1)", "tell 0 MovedOn", "try 1"];
    // Nothing at all, a head and no more: it goes where another tier is open ...
    for said in [vec![], vec![json()], vec![head(500, "application/json")]] {
        let play = Play::whole(&two).feed(said);
        assert_eq!(play.exchange.wake_at(), Some(at(61)));
        play.at(61).feed([Input::Wake]).expect_after(&moved);
    }
    // ... but the last one may take its time.
    let play = Play::whole(&two[..1]).at(400).feed([Input::Wake, json(), data(WHOLE), Input::End]);
    assert_eq!(play.done[1], "head 0 200 #1");
    // An answer whose bytes come may be long in coming, and not go silent.
    let play = Play::whole(&two).at(50).feed([json(), data("{")]).at(100).feed([Input::Wake, data("\"a\":")]);
    play.expect(&["try 0"]);
    play.at(160).feed([Input::Wake]).expect_after(&moved);
}

#[test]
fn the_request_timeout_ends_everything() {
    let play = Play::streaming(&THREE);
    assert_eq!(play.exchange.wake_at(), Some(at(600)));
    play.at(600).feed([Input::Wake]).expect_after(&["leave", "refuse TimedOut"]);
    let play = Play::streaming(&THREE).feed([events(), event(OPENING)]).at(600).feed([event(OPENING)]);
    play.expect_after(&["leave", "refuse TimedOut"]);
    // An answer that is no stream has to be whole by then, also one that is too large to be held.
    let large = || Input::Data(Bytes::from(format!("{{\"x\":\"{}", "x".repeat(9 << 20))));
    let play = Play::whole(&THREE).feed([json(), large()]).at(600).feed([Input::Wake]);
    assert_eq!(play.done[3..], ["leave", "tell 0 Cut", "abort"]);
}

#[test]
fn a_stream_that_flows_has_no_limit_of_time() {
    let play = Play::streaming(&THREE).feed([events(), event(CONTENT)]);
    assert_eq!(play.exchange.wake_at(), None);
    let play = play.at(10_000).feed([Input::Wake, event(CONTENT), event(FINISH), event("[DONE]")]);
    assert_eq!(play.done.last().unwrap(), "tell 0 Answered");
    let endless = Terms { timeout: None, ..terms(false, true) };
    let play = Play::new(chain(&THREE), endless).at(10_000).feed([Input::Wake]);
    play.expect(&["try 0"]);
    assert_eq!(play.exchange.wake_at(), None);
}

/// Whatever becomes of its connection, an answer whose every choice has its finish reason is the client's.
#[test]
fn a_whole_answer_is_ended_by_us() {
    let remote = [Kind::Remote(Api::OpenAi), Kind::Vllm];
    let ends = [Input::Broken, Input::End, Input::Lost(Lost::Reset), Input::Cut];
    let [finish, done] = [FINISH, "[DONE]"].map(body);
    let tail = [&finish, &done, "tell 0 Answered", "leave", "end"].map(str::to_owned);
    for end in ends.clone() {
        let name = format!("{end:?}");
        let play = Play::streaming(&remote).feed([events(), event(CONTENT), event(FINISH), end.clone()]);
        assert!(play.done.ends_with(&tail), "{name}: {:?}", play.done);
        // The last event may lack its blank line, and another one may break off.
        let rest = format!("data: {FINISH}\n\ndata: {{\"choi");
        let play = Play::streaming(&remote).feed([
            events(),
            event(CONTENT),
            Input::Data(Bytes::from(rest)),
            end.clone(),
        ]);
        assert!(play.done.ends_with(&tail), "{name}: {:?}", play.done);
        let play = Play::streaming(&remote).feed([events(), event(OPENING), event(FINISH), end.clone()]);
        assert!(play.done.ends_with(&tail), "{name}: {:?}", play.done);
        for answer in [Play::whole(&remote), Play::streaming(&remote)] {
            let play = answer.feed([json(), data(WHOLE), end.clone()]);
            assert!(play.done.ends_with(&tail[2..]), "{name}: {:?}", play.done);
        }
    }
    // Nor is an end waited for that does not come.
    for begun in [
        Play::streaming(&remote).feed([events(), event(CONTENT), event(FINISH)]),
        Play::streaming(&remote).feed([events(), event(OPENING), event(FINISH)]),
        Play::streaming(&remote).feed([json(), data(WHOLE)]),
        Play::whole(&remote).feed([json(), data(WHOLE)]),
    ] {
        let due = begun.exchange.wake_at().unwrap();
        assert!(due.since(begun.now) <= Duration::from_secs(1));
        let mut play = begun.feed([Input::Wake]);
        assert!(!play.exchange.is_over());
        play.now = due;
        let play = play.feed([Input::Wake]);
        assert!(play.done.ends_with(&tail[2..]), "{:?}", play.done);
    }
}

#[test]
fn an_answer_that_lacks_something_is_not_ended_as_whole() {
    let two = Terms { choices: 2, ..terms(true, true) };
    let play = Play::new(chain(&THREE), two).feed([events(), event(CONTENT), event(FINISH)]);
    assert_eq!(play.exchange.wake_at(), None, "the second choice may still begin");
    let play = play.feed([Input::Broken]);
    assert!(play.done.iter().any(|step| step.contains("stream_cut")), "{:?}", play.done);
    // The usage that was asked for gets a little longer.
    let usage = Terms { include_usage: true, ..terms(true, true) };
    let play = Play::new(chain(&THREE), usage).feed([events(), event(CONTENT), event(FINISH)]);
    assert!(play.exchange.wake_at().unwrap().since(play.now) > Duration::from_secs(2));
    let play = play.feed([event(r#"{"choices":[],"usage":{"total_tokens":1}}"#)]);
    assert!(play.exchange.wake_at().unwrap().since(play.now) <= Duration::from_secs(1));
    // An object that only looks whole is waited for, and looked at once.
    let play = Play::whole(&THREE).feed([json(), data(r#"{"choices":[{}"#)]);
    let mut play = play;
    play.now = play.exchange.wake_at().unwrap();
    let play = play.feed([Input::Wake]);
    play.expect(&["try 0"]);
    assert_eq!(play.exchange.wake_at(), Some(at(600)));
}

/// Pings and chunks that say nothing neither put off a limit nor lift one.
#[test]
fn what_says_nothing_is_no_progress() {
    let remote = [Kind::Remote(Api::OpenAi), Kind::Vllm];
    let moved = ["leave", "tell 0 Struck(1)", "tell 0 MovedOn", "try 1"];
    let empty = r#"{"choices":[{"index":0,"delta":{"content":""},"finish_reason":null}]}"#;
    let nothings = || [data(": pi"), data("ng\n\n"), data(":\n\n"), data("\n"), event(empty), event(OPENING)];
    for streaming in [true, false] {
        let play = Play::new(chain(&remote), terms(streaming, true)).at(50).feed([events()]);
        let play = play.feed(nothings());
        assert_eq!(play.exchange.wake_at(), Some(at(61)), "streaming: {streaming}");
        play.at(61).feed([Input::Wake]).expect_after(&moved);
    }
    let play = Play::whole(&remote).at(50).feed([json(), data(" "), data("\n\n")]);
    assert_eq!(play.exchange.wake_at(), Some(at(61)));
    let play = Play::whole(&remote).at(50).feed([json(), data("{")]).at(100).feed([data("  "), data("\n")]);
    assert_eq!(play.exchange.wake_at(), Some(at(110)));
    let play = Play::whole(&remote).at(50).feed([head(500, "application/json"), data(" "), data("\n")]);
    assert_eq!(play.exchange.wake_at(), Some(at(61)));
    // In the middle of a stream they do not hide its silence.
    let play = Play::streaming(&remote).feed([events(), event(CONTENT)]).at(50).feed(nothings());
    assert_eq!(play.exchange.wake_at(), Some(at(61)));
    let play = play.at(61).feed([Input::Wake]);
    assert!(play.done.iter().any(|step| step.contains("went silent")), "{:?}", play.done);
}

#[test]
fn an_encoded_answer_is_a_failed_attempt() {
    for encoding in ["gzip", "br", "identity, zstd"] {
        let mut headers = HeaderMap::new();
        headers.insert("content-encoding", http::HeaderValue::from_static(encoding));
        let play = Play::streaming(&THREE).feed([Input::Head { status: 200, headers }]);
        play.expect_after(&["leave", "tell 0 Struck(1)", "tell 0 MovedOn", "try 1"]);
    }
    let mut headers = HeaderMap::new();
    headers.insert("content-encoding", http::HeaderValue::from_static("Identity"));
    Play::streaming(&THREE).feed([Input::Head { status: 200, headers }]).expect(&["try 0"]);
}

/// Clients leave with `[DONE]`, and an engine may keep its connection open behind it.
#[test]
fn an_answer_counts_when_it_is_complete_and_its_end_is_not_waited_for_long() {
    let play = Play::streaming(&THREE).feed([events(), event(CONTENT), event(FINISH), event("[DONE]")]);
    assert_eq!(play.done.last().unwrap(), "tell 0 Answered");
    let due = play.exchange.wake_at().unwrap();
    assert!(due.since(play.now) <= Duration::from_secs(1));
    let mut play = play.feed([Input::Wake]);
    assert_eq!(play.done.last().unwrap(), "tell 0 Answered", "not yet");
    play.now = due;
    let play = play.feed([Input::Wake]);
    assert!(play.done.ends_with(&["leave", "end"].map(str::to_owned)), "{:?}", play.done);
    assert!(play.exchange.is_over());
}

/// It says that it cannot, and nobody is left who could: its own words are the answer, and count as one.
#[test]
fn what_is_passed_on_is_no_skip() {
    let too_long = r#"{"error":{"message":"maximum context length is 4096","code":400}}"#;
    let play = Play::streaming(&THREE[..1]).feed(refused(400, too_long));
    assert!(!play.done.iter().any(|step| step.contains("Skipped")), "{:?}", play.done);
    assert_eq!(play.done.last().unwrap(), "tell 0 Answered");
}

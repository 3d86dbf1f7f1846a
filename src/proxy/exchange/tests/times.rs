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
    let play = play.at(300).feed([Input::Resumed, Input::Wake]);
    assert_eq!(play.done.len(), 3);
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
    let play = Play::streaming(&THREE).feed([events(), event(CONTENT)]).at(600).feed([event(CONTENT)]);
    assert_eq!(play.done.last().unwrap(), "end");
    assert!(play.done.iter().any(|step| step.contains("took too long")));
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

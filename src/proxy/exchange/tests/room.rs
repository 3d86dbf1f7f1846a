//! The memory for what is held back is used up.
use super::*;

/// Two halves of one event.
const HALVES: [&str; 2] =
    [r#"data: {"model":"m","choices":[{"index":0,"delta":{"content":"half"#, " and half\"}}]}\n\n"];

impl Play {
    /// Everything that the client gets.
    fn bytes(kinds: &[Kind], streaming: bool, inputs: impl IntoIterator<Item = Input>) -> String {
        let mut exchange = Exchange::new(terms(streaming, true), at(0));
        exchange.see(chain(kinds));
        exchange.begin(at(0));
        let steps = inputs.into_iter().flat_map(|input| exchange.on(at(0), input));
        let bytes = steps.filter_map(|step| if let Step::Body(bytes) = step { Some(bytes) } else { None });
        bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect()
    }
}

#[test]
fn what_is_held_is_told_until_it_is_given_out() {
    let play = Play::streaming(&THREE).feed([Input::Sent, events()]);
    assert_eq!(play.exchange.held(), 0);
    let play = play.feed([event(OPENING)]);
    let opening = play.exchange.held();
    assert!(opening >= OPENING.len());
    let play = play.feed([data(HALVES[0])]);
    assert!(play.exchange.held() >= opening + HALVES[0].len());
    let play = play.feed([data(HALVES[1])]);
    assert_eq!(play.exchange.held(), 0);
    let play = play.feed([data(HALVES[0])]);
    assert!(play.exchange.held() >= HALVES[0].len(), "also in the middle of a stream");
    let play = play.feed([Input::NoRoom]);
    assert_eq!(play.exchange.held(), 0);
    let error = Play::whole(&THREE).feed([head(500, "application/json"), data(ERROR)]);
    assert!(error.exchange.held() >= ERROR.len());
    let kept = Play::whole(&THREE).feed(refused(503, ERROR));
    assert_eq!(kept.exchange.held(), ERROR.len(), "an error that may be passed on later is held too");
}

#[test]
fn a_stream_is_committed_and_its_event_goes_out_in_parts() {
    let [first, second] = HALVES;
    let inputs = [events(), event(OPENING), data(first), Input::NoRoom, data(second), event(FINISH)];
    let inputs = inputs.into_iter().chain([event("[DONE]"), Input::End]);
    let [opening, finish] = [OPENING_0.trim_start_matches("body "), FINISH];
    assert_eq!(
        Play::bytes(&THREE, true, inputs),
        format!("{opening}\n\n{first}{second}data: {finish}\n\ndata: [DONE]\n\n")
    );
    // The first bytes that the client gets carry the marks also when they are no whole event.
    let inputs = [events(), data(first), Input::NoRoom, data(second), event(FINISH), event("[DONE]")];
    let marked = first.replacen('{', "{\"_backend\":\"t0\",", 1);
    assert_eq!(
        Play::bytes(&THREE, true, inputs),
        format!("{marked}{second}data: {FINISH}\n\ndata: [DONE]\n\n")
    );
}

#[test]
fn an_event_in_parts_has_the_same_limit_and_its_cut_is_an_event_of_its_own() {
    let begun = [events(), event(CONTENT), data(HALVES[0]), Input::NoRoom];
    let play = Play::streaming(&THREE).feed(begun.clone()).feed([Input::Broken]);
    let last = play.done.iter().rev().find(|step| step.starts_with("body")).unwrap();
    assert!(last.starts_with(CUT_0), "{last}");
    let text = Play::bytes(&THREE, true, begun.clone().into_iter().chain([Input::Broken]));
    assert!(text.contains("half\n\ndata: {\"error\""), "{text}");
    let long = Input::Data(Bytes::from(vec![b'x'; crate::proxy::limits::EVENT_BYTES]));
    let play = Play::streaming(&THREE).feed(begun).feed([long]);
    assert!(play.done.iter().any(|step| step.contains("an event without end")), "{:?}", play.done);
}

#[test]
fn an_object_is_handed_on_as_it_comes() {
    let (first, second) = WHOLE.split_at(20);
    let play = Play::whole(&THREE).feed([json(), data(first), Input::NoRoom, data(second), Input::End]);
    let marked = first.replacen('{', "body {\"_backend\":\"t0\",", 1);
    let rest = format!("body {second}");
    play.expect_after(&["head 0 200 #1", &marked, &rest, "leave", "end", "tell 0 Answered"]);
}

#[test]
fn what_has_to_be_whole_moves_on_without_a_strike() {
    let ollama = [Kind::Ollama, Kind::Vllm];
    let line = data("{\"message\":{\"content\":\"a");
    for play in [
        Play::streaming(&ollama).feed([head(200, "application/x-ndjson"), line.clone(), Input::NoRoom]),
        Play::whole(&ollama).feed([json(), line.clone(), Input::NoRoom]),
        Play::whole(&ollama).feed([head(500, "application/json"), line, Input::NoRoom]),
    ] {
        play.expect_after(&["leave", "tell 0 MovedOn", "try 1"]);
    }
}

#[test]
fn nothing_is_committed_for_want_of_room_that_holds_nothing() {
    let play = Play::streaming(&THREE).feed([Input::NoRoom, events(), Input::NoRoom, Input::Broken]);
    play.expect_after(&["leave", "tell 0 Struck(1)", "tell 0 MovedOn", "try 1"]);
}

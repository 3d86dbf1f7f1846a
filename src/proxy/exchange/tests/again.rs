//! The same tier is asked once more where its failure may pass at once.
use super::*;
use crate::proxy::limits::AGAIN_AFTER;

/// The steps for `inputs`, each as it is.
fn steps(exchange: &mut Exchange, inputs: impl IntoIterator<Item = Input>) -> Vec<String> {
    inputs.into_iter().flat_map(|input| exchange.on(at(1), input)).map(|step| told(&step)).collect()
}

fn asked(replay: bool) -> Exchange {
    let mut exchange = Exchange::new(terms(true, replay), at(0));
    exchange.see(chain(&THREE));
    exchange.begin(at(1));
    exchange.on(at(1), Input::Sent);
    exchange
}

#[test]
fn a_reset_before_content_and_some_errors_are_worth_another_try() {
    let resets = [vec![Input::Lost(Lost::Reset)], vec![events(), event(OPENING), Input::Broken]];
    let errors = [500, 502, 504].map(|status| refused(status, ERROR).to_vec());
    for failure in resets.into_iter().chain(errors) {
        let mut exchange = asked(true);
        assert_eq!(steps(&mut exchange, failure.clone()), ["again"], "{failure:?}");
        assert_eq!(exchange.attempts(), 1);
        // It is one failure, and told when it is one.
        let second = steps(&mut exchange, [Input::Sent].into_iter().chain(failure.clone()));
        assert_eq!(second, ["leave", "tell 0 Struck(1)", "tell 0 MovedOn", "try 1"], "{failure:?}");
        let mut exchange = asked(true);
        steps(&mut exchange, failure.clone());
        let good = steps(&mut exchange, [Input::Sent, events(), event(CONTENT)]);
        assert_eq!(good[0], "head 0 200 #1", "{failure:?}");
    }
}

#[test]
fn other_failures_move_on_at_once() {
    for failure in [
        vec![Input::Lost(Lost::Refused)],
        vec![Input::Lost(Lost::ConnectTimeout)],
        vec![Input::Cut],
        refused(503, ERROR).to_vec(),
        refused(501, ERROR).to_vec(),
        vec![events(), event("[DONE]")],
    ] {
        let said = steps(&mut asked(true), failure.clone());
        assert!(
            said[0] == "leave" && said.last().is_some_and(|last| last == "try 1"),
            "{failure:?}: {said:?}"
        );
    }
}

#[test]
fn what_is_not_kept_or_stands_no_longer_open_is_not_asked_again() {
    let reset = || [Input::Lost(Lost::Reset)];
    assert!(!steps(&mut asked(false), reset()).contains(&"again".to_owned()));
    let mut exchange = asked(true);
    let mut changed = chain(&THREE);
    changed[0].standing = Standing::Leaving;
    exchange.see(changed);
    assert_eq!(steps(&mut exchange, reset())[0], "leave");
}

#[test]
fn a_run_that_ends_meanwhile_is_not_waited_for() {
    for news in [Input::Cut, Input::Standing(Standing::Closed)] {
        let mut exchange = asked(true);
        assert_eq!(steps(&mut exchange, [Input::Lost(Lost::Reset)]), ["again"]);
        assert_eq!(steps(&mut exchange, [news]), ["leave", "tell 0 MovedOn", "try 1"]);
    }
}

#[test]
fn the_pause_is_no_time_of_the_tiers() {
    let mut exchange = Exchange::new(terms(true, true), at(0));
    exchange.see(chain(&[Kind::Remote(Api::OpenAi), Kind::Vllm]));
    exchange.begin(at(1));
    let limit = exchange.wake_at().expect("a remote tier has one");
    steps(&mut exchange, [Input::Lost(Lost::Reset)]);
    assert_eq!(exchange.wake_at(), Some(limit + AGAIN_AFTER));
}

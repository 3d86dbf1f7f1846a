//! What is passed on when no tier is left.
use super::*;

const LONG: &str = r#"{"error":{"message":"maximum context length is 4096","code":400}}"#;
const BAD: &str = r#"{"error":{"message":"Failed to parse grammar","code":500}}"#;
const KINDS: [Kind; 3] = [Kind::Vllm, Kind::LlamaServer, Kind::Remote(Api::OpenAi)];

fn long() -> Vec<Input> {
    refused(400, LONG).into()
}

fn reset() -> Vec<Input> {
    vec![Input::Lost(Lost::Reset)]
}

/// The last word to the client: its status, or `refuse`.
fn last_word(play: &Play) -> String {
    let word = play.done.iter().rfind(|step| step.starts_with("head ") || step.starts_with("refuse "));
    let word = word.map_or("", String::as_str);
    word.split(" #").next().unwrap().split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// A 400 that says nothing of a tier's limits is the client's own mistake: the better tier would say the same, and a client
/// that is told 503 would send it again and again. So that one is passed on whatever failed above. What may be the limit
/// of the lower tier alone (its context, its account, a model or a field that it does not know) has rows of its own in
/// `kinds::verdict`, and hides no failure.
#[test]
fn a_lower_tiers_limit_hides_no_failure_above_that_may_pass() {
    let busy = || refused(429, "{}").into();
    let no = || refused(501, "{}").into();
    let account = || refused(402, r#"{"error":{"message":"Insufficient Balance"}}"#).into();
    let bad = || refused(500, BAD).into();
    let field = || refused(400, r#"{"error":{"message":"x","code":"unknown_parameter"}}"#).into();
    let own = || refused(400, r#"{"error":{"message":"messages: field required"}}"#).into();
    let failed = "refuse 0: connection";
    let table: Vec<([Vec<Input>; 3], &str)> = vec![
        // The failure or the overload is above.
        ([reset(), long(), long()], failed),
        ([busy(), long(), long()], "head 0 429"),
        ([vec![Input::Full], long(), no()], "refuse Full"),
        ([reset(), bad(), no()], failed),
        ([reset(), no(), field()], failed),
        ([busy(), no(), field()], "head 0 429"),
        ([reset(), no(), own()], "head 2 400"),
        ([busy(), no(), own()], "head 2 400"),
        ([busy(), bad(), account()], "head 0 429"),
        ([busy(), no(), account()], "head 0 429"),
        ([reset(), no(), account()], failed),
        // It is below: the best tier has said what holds. The request's own fault is no 500.
        ([no(), bad(), reset()], "head 1 400"),
        ([no(), bad(), account()], "head 1 400"),
        ([no(), bad(), no()], "head 1 400"),
        ([long(), reset(), long()], "head 0 400"),
        ([long(), busy(), account()], "head 0 400"),
        ([long(), no(), account()], "head 0 400"),
        // It is between: the one below it may be too small where that one is not.
        ([no(), busy(), long()], "head 1 429"),
        ([long(), long(), long()], "head 0 400"),
    ];
    for (inputs, expected) in table {
        let name = format!("{inputs:?}");
        let play = inputs.into_iter().fold(Play::streaming(&KINDS), Play::feed);
        assert_eq!(last_word(&play), expected, "{name}: {:?}", play.done);
    }
}

#[test]
fn a_tier_that_is_down_has_failed_too_unless_it_was_asked() {
    let no = || refused(501, "{}").into();
    let table: Vec<(u16, &[u16], Vec<Input>, &str)> = vec![
        (1, &[0], long(), "refuse 1: HTTP"),
        (1, &[0], refused(500, BAD).into(), "refuse 1: HTTP"),
        (1, &[0], no(), "refuse 1: HTTP"),
        // It is below: what the better one says of its own limits holds.
        (0, &[1], long(), "head 0 400"),
        (0, &[1], no(), "refuse 0: HTTP"),
        (1, &[], long(), "head 1 400"),
        // It had its say before it went down.
        (1, &[1], long(), "head 1 400"),
        (1, &[0], refused(429, "{}").into(), "head 1 429"),
        (1, &[0], refused(400, "{}").into(), "head 1 400"),
    ];
    for (asked, down, inputs, expected) in table {
        let name = format!("{asked} {down:?} {inputs:?}");
        let mut play = Play::new(vec![candidate(asked, Kind::LlamaServer)], terms(true, true));
        play.exchange.miss(down.iter().copied().map(TierId).collect());
        let play = play.feed(inputs);
        assert_eq!(last_word(&play), expected, "{name}: {:?}", play.done);
    }
}

/// Seen to fail with 500.
#[test]
fn what_one_tier_alone_says_against_the_request_is_a_400() {
    let batch = r#"{"error":{"code":500,"message":"input (596 tokens) is too large to process. increase the physical batch size","type":"server_error"}}"#;
    for words in [BAD, batch] {
        let play = Play::streaming(&[Kind::LlamaServer]).feed(refused(500, words));
        assert_eq!(last_word(&play), "head 0 400", "{:?}", play.done);
        let said = play.done.iter().find(|step| step.starts_with("body ")).unwrap();
        assert!(said.contains("\"code\":400") && !said.contains("server_error"), "{said}");
    }
}

#[test]
fn a_busy_tier_that_is_asked_last_counts_by_its_rank() {
    let mut chain = chain(&KINDS[..2]);
    chain.reverse();
    let play = Play::new(chain, terms(true, true)).feed(long()).feed(refused(503, "{}"));
    assert_eq!(last_word(&play), "head 0 503");
}

#[test]
fn a_500_that_is_certainly_the_clients_mistake_is_its_400_at_once() {
    let weird = r#"{"error":{"message":"Unknown reasoning format: weird","code":500}}"#;
    for kinds in [&[Kind::LlamaServer][..], &[Kind::LlamaServer, Kind::Vllm]] {
        let body = format!("body {}", weird.replace("500", "400"));
        let expected = ["leave", "head 0 400 #1", &body, "end", "tell 0 Answered"];
        Play::streaming(kinds).feed(refused(500, weird)).expect_after(&expected);
        Play::whole(kinds).feed([json(), data(weird), Input::End]).expect_after(&expected);
    }
}

#[test]
fn a_path_that_is_not_served_asks_for_the_trial_of_a_remote_and_of_no_engine_of_ours() {
    let no = r#"{"detail":"Not Found"}"#;
    for (kind, told) in [(Kind::Remote(Api::OpenAi), true), (Kind::Vllm, false), (Kind::LlamaServer, false)] {
        let play = Play::streaming(&[kind]).feed(refused(404, no));
        assert_eq!(last_word(&play), "head 0 404", "{:?}", play.done);
        assert_eq!(play.done.contains(&"tell 0 NotServed".to_owned()), told, "{kind:?} {:?}", play.done);
    }
}

//! Requests that come back. What the health of the tiers says does not matter here: the routes are open.
use super::client::{get, post_with};
use super::engine::good_engine;
use super::*;
use mainstay::kinds::Api;
use mainstay::policy::{Leads, Path};

fn remote(name: &str, port: u16) -> TierRoute {
    tier(name, Kind::Remote(Api::OpenAi), port)
}

/// Two proxies, each other's only tier.
fn pair() -> (Bed, Bed) {
    let first = Bed::new(vec![remote("first", dead_port())]);
    let second = Bed::new(vec![remote("first", first.port)]);
    let to = second.port;
    first.change(move |table| table.tiers[0].upstream.as_mut().unwrap().port = to);
    (first, second)
}

#[test]
fn a_request_that_comes_back_is_refused_at_once() {
    let (first, second) = pair();
    for streaming in [false, true] {
        let answer = first.chat(streaming);
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.body.contains("in a circle"), "it says why: {answer:?}");
    }
    assert_eq!((first.tally(0).requests, second.tally(0).requests), (2, 2), "each asked once a request");
    assert_eq!(first.live(0).sample().failures_in_row, 0, "that is nobody's failure");
    let answer = first.post("/tokenize", &json!({}));
    assert!(answer.status == 508 || answer.status == 503, "{answer:?}");
}

#[test]
fn who_finds_himself_in_the_chain_says_so() {
    let bed = Bed::new(vec![]);
    let own = InstanceId::new(bed.port.into());
    let asked = |path: &str, via: &str| {
        ask(bed.port, &get(path).replacen("\r\n\r\n", &format!("\r\nx-mainstay-via: {via}\r\n\r\n"), 1))
    };
    for path in ["/health", "/v1/models", "/nowhere"] {
        let answer = asked(path, &format!("0000000000000001, {own}, 0000000000000002"));
        assert_eq!((answer.status, answer.code().as_str()), (508, "loop"), "{path}");
        assert_eq!(answer.field("x-mainstay-instance"), Some(own.to_string().as_str()));
    }
    assert_eq!(asked("/v1/models", "0000000000000001").status, 200);
    assert_eq!((asked("/v1/models", "me").status, asked("/v1/models", "").status), (400, 400));
    let many: Vec<String> = (1..=16).map(|n| format!("{n:016x}")).collect();
    assert_eq!(asked("/v1/models", &many.join(", ")).code(), "loop");
    let plain = ask(bed.port, &get("/v1/models"));
    assert_eq!(plain.field("x-mainstay-instance"), None, "nobody else is told");
}

#[test]
fn remote_tiers_get_the_chain_and_engines_of_our_own_do_not() {
    let (there, here) = (good_engine(), good_engine());
    let bed = Bed::new(vec![remote("first", there.port)]);
    let own = InstanceId::new(bed.port.into());
    let before = "0000000000000001";
    let sent = |path: &str| post_with(path, &format!("X-Mainstay-Via: {before}\r\n"), &chat(false));
    let answer = ask(bed.port, &sent("/v1/chat/completions"));
    assert_eq!(answer.status, 200, "{answer:?}");
    ask(bed.port, &sent("/tokenize"));
    for request in there.requests() {
        assert_eq!(request.field("x-mainstay-via"), Some(format!("{before}, {own}").as_str()));
    }
    assert_eq!(there.requests().len(), 2);
    let bed = Bed::new(vec![vllm("first", here.port)]);
    ask(bed.port, &sent("/v1/chat/completions"));
    ask(bed.port, &sent("/tokenize"));
    assert!(here.requests().iter().all(|request| request.field("x-mainstay-via").is_none()));
}

#[test]
fn health_tells_a_peer_only_of_what_does_not_lead_back() {
    let bed = Bed::new(vec![remote("peer", dead_port()), vllm("engine", dead_port())]);
    let own = InstanceId::new(bed.port.into());
    let (peer, beyond) = ("00000000000000aa", "00000000000000bb");
    let path = |text: &str| Path::parse(text).unwrap();
    bed.live(0).set_leads(Leads::Peer(vec![path(&format!("{peer}, {beyond}"))]));
    let health = |via: Option<&str>| {
        let field = via.map_or_else(String::new, |via| format!("\r\nx-mainstay-via: {via}"));
        ask(bed.port, &get("/health").replacen("\r\n\r\n", &format!("{field}\r\n\r\n"), 1))
    };
    let told = health(Some("0000000000000001")).json();
    assert_eq!(told["paths"], json!([format!("{own}"), format!("{own}, {peer}, {beyond}")]));
    let told = health(Some(peer)).json();
    assert_eq!((&told["paths"], &told["tier"]), (&json!([format!("{own}")]), &json!("engine")));
    bed.change(|table| table.tiers[1].standing = Standing::Closed);
    assert_eq!(health(Some(peer)).status, 503);
    assert_eq!((health(Some("0000000000000001")).status, health(None).status), (200, 200));
    bed.live(0).set_leads(Leads::Peer(vec![]));
    assert_eq!(health(None).status, 503, "an open tier that leads nowhere is no health");
}

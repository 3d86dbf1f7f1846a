//! What the agent hears of late counts for when it happened.
use super::rig::{Rig, tier};
use crate::support::until;
use mainstay::control::feed::Event;

const QUICK: &str = "stop_grace = \"1s\"";

/// What the tier became, in order.
fn became(rig: &Rig, tier: &str) -> Vec<String> {
    let mut events: Vec<Event> = Vec::new();
    let take = |line: Option<&str>| {
        events.extend(line.map(|line| serde_json::from_str(line).expect("an event")));
        true
    };
    rig.client().events(0, false, take).expect("the agent answers");
    let of_tier = |event: &Event| event.kind == "health" && event.tier.as_deref() == Some(tier);
    events.into_iter().filter(of_tier).filter_map(|event| event.to).collect()
}

/// The data plane's figures are read once a second, and here three checks fail in less.
#[test]
fn an_answer_from_before_does_not_bring_back_a_tier_whose_checks_fail() {
    let rig = Rig::start(&[tier("only", "", QUICK), tier("spare", "", QUICK)]);
    for _ in 0..3 {
        rig.until_serving("only");
        let before = became(&rig, "only").len();
        assert_eq!(rig.chat().0, 200);
        rig.turn("only", "\"health_status\": 500");
        until("ten checks have failed in a row", || (rig.tier("only").check.failures >= 10).then_some(()));
        let became = became(&rig, "only").split_off(before);
        assert_eq!(became.iter().filter(|to| *to == "down").count(), 1, "{became:?}");
        rig.turn("only", "\"health_status\": 200");
    }
}

//! Random inputs in any order: what a client and the tiers may see holds all the same.
use super::*;
use proptest::prelude::*;

fn any_input() -> impl Strategy<Value = Input> {
    let lost = prop_oneof![
        Just(Lost::Refused),
        Just(Lost::ConnectTimeout),
        Just(Lost::Stale),
        Just(Lost::Reset),
        Just(Lost::Shortage("x".into())),
        Just(Lost::Malformed("x".into())),
    ];
    let standing = prop_oneof![Just(Standing::Open), Just(Standing::Leaving), Just(Standing::Closed)];
    let status = prop_oneof![Just(400u16), Just(404), Just(429), Just(500), Just(501), Just(503)];
    let text = prop_oneof![
        4 => Just(CONTENT), 2 => Just(OPENING), 2 => Just(FINISH), 1 => Just(ERROR), 3 => Just("[DONE]"), 1 => Just("x"),
    ];
    prop_oneof![
        1 => Just(Input::Full),
        2 => Just(Input::Sent),
        2 => lost.prop_map(Input::Lost),
        6 => Just(events()),
        2 => Just(json()),
        2 => status.prop_map(|status| head(status, "application/json")),
        12 => text.prop_map(event),
        2 => Just(data(WHOLE)),
        2 => Just(data("data: {\"choi")),
        2 => Just(Input::End),
        1 => Just(Input::Broken),
        2 => standing.prop_map(Input::Standing),
        1 => Just(Input::Cut),
        1 => Just(Input::Resumed(Duration::from_secs(1))),
        1 => Just(Input::Wake),
        1 => Just(Input::NoRoom),
    ]
}

/// What a client and the tiers may see, whatever happens.
#[derive(Default)]
struct Watch {
    heads: usize,
    over: bool,
    cut: bool,
    tries: Vec<u16>,
    again: Vec<u16>,
    failed: Vec<u16>,
    outcomes: usize,
}

impl Watch {
    fn see(&mut self, step: &Step, replay: bool) {
        let client = matches!(
            step,
            Step::Head { .. }
                | Step::Body(_)
                | Step::End
                | Step::Abort
                | Step::Refuse(_)
                | Step::Try { .. }
                | Step::TryAgain
        );
        assert!(!(self.over && client), "{step:?} after the end");
        match step {
            Step::Try { tier, fresh } => {
                assert_eq!(self.heads, 0, "a request that the client saw an answer of was sent again");
                if *fresh && replay { self.again.push(tier.0) } else { self.tries.push(tier.0) }
            }
            Step::TryAgain => {
                assert_eq!((self.heads, replay), (0, true));
                self.failed.extend(self.tries.last());
            }
            Step::Head { .. } => self.heads += 1,
            Step::Body(bytes) => {
                assert_eq!(self.heads, 1, "bytes without a head");
                let text = String::from_utf8_lossy(bytes);
                assert!(!self.cut, "{text} after the cut");
                self.cut = text.contains("stream_cut");
            }
            Step::End | Step::Abort => {
                assert_eq!(self.heads, 1);
                self.over = true;
            }
            Step::Refuse(_) => {
                assert_eq!(self.heads, 0, "a second answer");
                self.over = true;
            }
            Step::Tell(_, Outcome::Answered | Outcome::Cut) => self.outcomes += 1,
            Step::Tell(..) | Step::Leave => {}
        }
    }

    fn check(&self, tiers: usize) {
        let each_once = |tried: &[u16]| tried.iter().collect::<BTreeSet<_>>().len() == tried.len();
        assert!(self.tries.len() <= tiers && each_once(&self.tries), "{:?}", self.tries);
        assert!(each_once(&self.again) && each_once(&self.failed), "{:?} {:?}", self.again, self.failed);
        assert!(self.heads <= 1 && self.outcomes <= 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens(
        inputs in prop::collection::vec((any_input(), 0u64..20, any::<bool>()), 0..40),
        streaming: bool,
        replay: bool,
        tiers in 1usize..4,
    ) {
        let kinds = [Kind::Remote(Api::OpenAi), Kind::Vllm, Kind::LlamaServer];
        let all = chain(&kinds[..tiers]);
        let mut exchange = Exchange::new(terms(streaming, replay), at(0));
        exchange.see(all.clone());
        let mut watch = Watch::default();
        let mut now = at(0);
        exchange.begin(now).iter().for_each(|step| watch.see(step, replay));
        for (input, seconds, opens) in inputs {
            now = now + Duration::from_secs(seconds);
            let standing = if opens { Standing::Open } else { Standing::Leaving };
            exchange.see(all.iter().cloned().map(|c| Candidate { standing, ..c }).collect());
            let woken = matches!(input, Input::Wake);
            exchange.on(now, input).iter().for_each(|step| watch.see(step, replay));
            let soon = exchange.wake_at().is_some_and(|at| at <= now);
            prop_assert!(!(woken && soon), "it would be woken without end");
            prop_assert_eq!(exchange.is_over(), watch.over, "over without a last word, or the reverse");
        }
        exchange.on(at(601), Input::Wake).iter().for_each(|step| watch.see(step, replay));
        if !watch.over {
            prop_assert!(streaming && watch.heads == 1, "the request timeout ends all but a stream that flows");
            exchange.on(at(602), Input::Cut).iter().for_each(|step| watch.see(step, replay));
        }
        prop_assert!(watch.over, "the end of its run ends a stream");
        watch.check(tiers);
    }
}

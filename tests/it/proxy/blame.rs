//! Whose fault a failure is: what one request causes at two tiers that answer others is the request's own.
use super::engine::{DEATH, Engine, Talk, good, good_engine};
use super::*;
use mainstay::policy::EngineId;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

const WORDS: &str =
    r#"{"error":{"message":"Invalid reasoning_format: weird","type":"server_error","code":500}}"#;

/// A request over which llama-server throws, in words that no table knows.
fn bad() -> Value {
    let mut body = chat(false);
    body["reasoning_format"] = "weird".into();
    body
}

fn throws_over_bad_ones(talk: &mut Talk) {
    if talk.request.json().get("reasoning_format").is_some() {
        return talk.whole("500 Internal Server Error", "", WORDS);
    }
    good(talk);
}

fn pair(answer: impl Fn(&mut Talk) + Send + Sync + Clone + 'static) -> (Bed, [Engine; 2]) {
    let engines = [Engine::start(answer.clone()), Engine::start(answer)];
    let tiers = vec![tier("first", Kind::LlamaServer, engines[0].port), vllm("second", engines[1].port)];
    (Bed::new(tiers), engines)
}

/// The client is told 400 everywhere, or it would try again.
fn words_as_a_400() -> Value {
    let mut said: Value = serde_json::from_str(WORDS).unwrap();
    said["error"]["code"] = 400.into();
    said["error"]["type"] = "invalid_request_error".into();
    said
}

fn post_bad(bed: &Bed) -> Answer {
    bed.post("/v1/chat/completions", &bad())
}

#[test]
fn one_request_is_one_failure_however_often_it_comes() {
    let engine = Engine::start(|t| t.whole("500 Internal Server Error", "", WORDS));
    let bed = Bed::new(vec![tier("first", Kind::LlamaServer, engine.port)]);
    for _ in 0..3 {
        assert_eq!((post_bad(&bed).status, post_bad(&bed).code().as_str()), (503, "all_tiers_down"));
    }
    let sample = bed.live(0).sample();
    assert_eq!((sample.failures_in_row, sample.repeats_in_row), (1, 6));
    assert_eq!(bed.chat(true).status, 503);
    assert_eq!(bed.chat(false).status, 503);
    assert_eq!(bed.live(0).sample().failures_in_row, 3, "different ones count");
}

#[test]
fn what_fails_at_two_tiers_that_answer_others_is_the_requests_fault() {
    let (bed, _engines) = pair(throws_over_bad_ones);
    // Nothing is known of others yet: it may be the tiers.
    assert_eq!(post_bad(&bed).code(), "all_tiers_down");
    bed.chat(false).expect_good_by("first");
    assert_eq!(post_bad(&bed).code(), "all_tiers_down", "of the second one nothing is known");
    assert_eq!(bed.live(1).sample().failures_in_row, 0, "what failed elsewhere before says little of a tier");
    bed.live(1).trial_passed(clock::now());
    for _ in 0..5 {
        let answer = post_bad(&bed);
        assert_eq!((answer.status, answer.json()), (400, words_as_a_400()));
        assert_eq!(answer.field("x-mainstay-tier"), Some("first"));
        assert_eq!([0, 1].map(|rank| bed.live(rank).sample().failures_in_row), [0, 0]);
    }
    bed.chat(false).expect_good_by("first");
    assert_eq!((bed.tally(1).client_errors, bed.tally(1).refused), (5, 2));
}

#[test]
fn an_error_inside_a_200_counts_like_its_status() {
    let (bed, _engines) = pair(|talk| {
        if talk.request.json().get("reasoning_format").is_some() {
            talk.stream();
            talk.event(WORDS);
            return talk.end();
        }
        good(talk);
    });
    let mut body = bad();
    body["stream"] = true.into();
    let post = || bed.post("/v1/chat/completions", &body);
    assert_eq!(post().status, 503);
    [0, 1].iter().for_each(|rank| bed.live(*rank).trial_passed(clock::now()));
    let answer = post();
    assert_eq!((answer.status, answer.json()["error"]["code"].as_u64()), (400, Some(400)), "{answer:?}");
}

#[test]
fn two_broken_tiers_are_never_the_requests_fault() {
    let broken = Arc::new(AtomicBool::new(false));
    let seen = broken.clone();
    let (bed, _engines) = pair(move |talk| {
        if seen.load(SeqCst) {
            return talk.whole("500 Internal Server Error", "", DEATH);
        }
        good(talk);
    });
    bed.chat(false).expect_good_by("first");
    [0, 1].iter().for_each(|rank| bed.live(*rank).trial_passed(clock::now()));
    broken.store(true, SeqCst);
    for n in 0..5 {
        let mut body = chat(false);
        body["seed"] = n.into();
        for _ in 0..2 {
            let answer = bed.post("/v1/chat/completions", &body);
            assert_eq!((answer.status, answer.code().as_str()), (503, "all_tiers_down"));
        }
    }
    let sample = bed.live(0).sample();
    assert_eq!((sample.failures_in_row, sample.repeats_in_row), (5, 10));
    assert_eq!(bed.live(1).sample().repeats_in_row, 10, "its trial is to be asked, too");
}

#[test]
fn refusals_and_want_of_room_count_too() {
    let table = [("401 Unauthorized", (3, 0)), ("429 Too Many Requests", (0, 3))];
    for (status, expected) in table {
        let engine = Engine::start(move |t| t.whole(status, "", r#"{"error":"no"}"#));
        let bed = Bed::new(vec![tier("only", Kind::Remote(mainstay::kinds::Api::OpenAi), engine.port)]);
        for n in 0..3 {
            bed.post("/v1/chat/completions", &json!({"messages": [], "seed": n}));
        }
        let sample = bed.live(0).sample();
        assert_eq!((sample.failures_in_row, sample.turned_away_in_row), expected, "{status}");
        assert_eq!(
            sample.last_byte,
            mainstay::policy::Moment::default(),
            "{status}: no byte of an answer came"
        );
    }
}

#[test]
fn a_refusal_that_is_one_clients_own_fault_hides_no_failure_of_others() {
    let no = r#"{"error":{"message":"temperature must not be negative","code":400}}"#;
    let engine = Engine::start(move |talk| match talk.request.json().get("temperature") {
        Some(_) => talk.whole("400 Bad Request", "", no),
        None => talk.whole("500 Internal Server Error", "", WORDS),
    });
    let bed = Bed::new(vec![vllm("only", engine.port)]);
    for n in 0..3 {
        assert_eq!(bed.post("/v1/chat/completions", &json!({"messages": [], "seed": n})).status, 503);
        let wrong = json!({"messages": [], "temperature": -1});
        assert_eq!(bed.post("/v1/chat/completions", &wrong).status, 400);
    }
    let sample = bed.live(0).sample();
    let seen = (sample.failures_in_row, sample.answered);
    assert_eq!(seen, (3, 0), "only its HTTP half was heard");
}

#[test]
fn what_was_there_at_two_deaths_is_refused_unless_it_was_answered_in_between() {
    let dies = Arc::new(AtomicBool::new(true));
    let seen = dies.clone();
    let (bed, engines) = pair(move |talk| {
        if seen.load(SeqCst) {
            return talk.reset();
        }
        good(talk);
    });
    assert_eq!(bed.chat(false).status, 503);
    assert_eq!(bed.proxy.died(TierId(0), bed.live(0)), 0);
    dies.store(false, SeqCst);
    bed.chat(false).expect_good_by("first");
    assert_eq!(bed.proxy.died(TierId(1), bed.live(1)), 0, "the first tier has answered it since");
    dies.store(true, SeqCst);
    assert_eq!(bed.chat(false).status, 503);
    assert_eq!(bed.proxy.died(TierId(0), bed.live(0)), 1);
    dies.store(false, SeqCst);
    let asked = engines[0].requests().len();
    let answer = bed.chat(false);
    assert_eq!((answer.status, answer.code().as_str()), (422, "poison_request"));
    assert!(answer.json()["error"]["message"].as_str().is_some_and(|text| text.contains("refused until 20")));
    assert_eq!(engines[0].requests().len(), asked, "nobody is asked");
    bed.chat(true).expect_good_by("first");
    assert_eq!(bed.proxy.refusals().of(mainstay::proxy::Code::PoisonRequest), 1);
}

#[test]
fn a_pass_through_that_was_there_at_two_deaths_is_refused_too() {
    let dies = Arc::new(AtomicBool::new(true));
    let seen = dies.clone();
    let engine = Engine::start(move |talk| {
        if seen.load(SeqCst) {
            return talk.reset();
        }
        talk.whole("200 OK", "", "{}");
    });
    let bed = Bed::new(vec![vllm("first", engine.port)]);
    let post = |prompt: &str| bed.post("/tokenize", &json!({ "prompt": prompt }));
    let die_over = |prompt: &str| {
        dies.store(true, SeqCst);
        assert_eq!(post(prompt).status, 502);
        let refused = bed.proxy.died(TierId(0), bed.live(0));
        dies.store(false, SeqCst);
        refused
    };
    assert_eq!(die_over("weird"), 0);
    assert_eq!(post("weird").status, 200);
    assert_eq!(die_over("weird"), 0, "it was answered in between");
    assert_eq!(die_over("weird"), 1);
    let asked = engine.requests().len();
    assert_eq!((post("weird").status, post("weird").code().as_str()), (422, "poison_request"));
    assert_eq!(engine.requests().len(), asked, "nobody is asked");
    assert_eq!(post("other").status, 200);
}

#[test]
fn a_request_under_which_two_engines_died_goes_to_no_third() {
    let known = Arc::new(AtomicBool::new(false));
    let engines = [0, 1].map(|_| {
        let known = known.clone();
        Engine::start(move |talk| {
            until("its death is known", || known.swap(false, SeqCst));
            talk.close();
        })
    });
    let third = good_engine();
    let tiers = [("first", engines[0].port), ("second", engines[1].port), ("third", third.port)];
    let bed = Bed::new(tiers.map(|(name, port)| vllm(name, port)).into());
    let answer = std::thread::scope(|scope| {
        let client = scope.spawn(|| bed.chat(false));
        for (rank, engine) in engines.iter().enumerate() {
            until("the engine is at it", || engine.requests().len() == 1);
            bed.proxy.died(TierId(rank as u16), bed.live(rank));
            bed.live(rank).cut();
            known.store(true, SeqCst);
        }
        client.join().unwrap()
    });
    assert_eq!((answer.status, answer.code().as_str()), (422, "poison_request"));
    assert_eq!(third.requests().len(), 0);
    assert_eq!(bed.tally(2).refused, 1);
}

#[test]
fn two_deaths_count_although_the_port_is_closed_before_they_are_known() {
    let engines = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = engines.each_ref().map(|engine| engine.local_addr().unwrap().port());
    for engine in engines {
        std::thread::spawn(move || {
            let (mut client, _) = engine.accept().unwrap();
            client.read_exact(&mut [0]).unwrap();
            drop(engine);
        });
    }
    let third = good_engine();
    let tiers = [("first", ports[0]), ("second", ports[1]), ("third", third.port)];
    let bed = Bed::new(tiers.map(|(name, port)| vllm(name, port)).into());
    bed.change(|table| {
        table.tiers.iter_mut().for_each(|tier| {
            tier.run = Some(RunId { engine: EngineId(tier.tier.0), number: 1 });
        });
    });
    let answer = std::thread::scope(|scope| {
        let client = scope.spawn(|| bed.chat(false));
        for rank in [0, 1] {
            until("the tier is left", || bed.tally(rank).failed_over == 1);
            bed.proxy.died(TierId(rank as u16), bed.live(rank));
        }
        client.join().unwrap()
    });
    assert_eq!((answer.status, answer.code().as_str()), (422, "poison_request"));
    assert_eq!(third.requests().len(), 0);
}

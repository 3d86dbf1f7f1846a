//! Health as a table: what is known of a tier, and what follows.
mod device;
mod news;
mod trials;

use super::*;
use crate::policy::{Action, Check, Checked, Ticket, Tried as Trial};
use In::*;

const S: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
enum In {
    /// A check passed after so many milliseconds.
    Passed(u64),
    Failed(CheckFailure),
    Refused,
    /// (in flight, seconds of its last progress, failures in a row, answered)
    Sampled(u32, u64, u32, u64),
    /// (failures, repeats, turned away, answered)
    Rows(u32, u32, u32, u64),
    Tried(bool),
    /// The trial got no answer in time.
    Unanswered,
    /// The trial was refused.
    Forbidden,
    Counted(Option<u64>),
    /// Looked at: does it compute on the CPU?
    OnCpu(bool),
    OnGpu,
    Wait,
}

fn at(seconds: u64) -> Moment {
    Moment::from_nanos(seconds * 1_000_000_000)
}

fn tier(local: bool) -> (Tier, Turn) {
    let patience = Patience { silence: 10 * S, suspect: 60 * S, replaceable_worker: false, cap: 600 * S };
    let check = Check { interval: 10 * S, timeout: 5 * S, slow: 2 * S, failures: 3 };
    let place = if local { Place::Local(super::super::EngineId(0)) } else { Place::Remote };
    let settings = TierSettings {
        name: "t".into(),
        place,
        check,
        silence: 10 * S,
        silence_on_cpu: 120 * S,
        silence_on_gpu: 10 * S,
        wants_gpu: local,
        suspect: 60 * S,
    };
    let mut turn = Turn::new(at(0), 1);
    let mut tier = Tier::new(TierId(0), settings, patience, at(0));
    if local {
        tier.begin_anew(Some(RunId { engine: super::super::EngineId(0), number: 1 }), &mut turn);
        tier.refresh(&mut turn);
    }
    turn.actions.clear();
    (tier, turn)
}

fn step(tier: &mut Tier, turn: &mut Turn, seconds: u64, happens: In) -> String {
    turn.now = at(seconds);
    match happens {
        Passed(ms) => tier.checked(Checked::Passed { latency: Duration::from_millis(ms) }, turn),
        Failed(failure) => tier.checked(Checked::Failed(failure), turn),
        Refused => tier.refused(turn.now, turn),
        Sampled(in_flight, progress, failures_in_row, answered) => {
            let sample = Sample {
                in_flight,
                last_progress: at(progress),
                last_byte: at(progress),
                failures_in_row,
                repeats_in_row: failures_in_row,
                turned_away_in_row: 0,
                answered,
                answered_at: at(progress),
            };
            tier.sampled(sample, turn);
        }
        Rows(failures_in_row, repeats_in_row, turned_away_in_row, answered) => {
            let rows = Sample { failures_in_row, repeats_in_row, turned_away_in_row, ..Sample::default() };
            let answered_at = at(if answered > 0 { seconds } else { 0 });
            tier.sampled(Sample { answered, answered_at, ..rows }, turn);
        }
        Tried(true) => tier.tried(&Trial::Passed, turn),
        Tried(false) => {
            tier.tried(&Trial::Failed { cause: Cause::Unknown, why: "HTTP 500".into() }, turn);
        }
        Unanswered => tier.tried(&Trial::TimedOut, turn),
        Forbidden => {
            tier.tried(&Trial::Refused { cause: Cause::AuthGated, why: "it says 401".into() }, turn);
        }
        Counted(figure) => tier.counted(figure, turn),
        OnCpu(true) => tier.looked_at_device(Processor::Cpu { evidence: "0/33 layers".to_owned() }, turn),
        OnCpu(false) => tier.looked_at_device(Processor::Unknown, turn),
        OnGpu => tier.looked_at_device(Processor::Gpu, turn),
        Wait => {}
    }
    while tier.deadline().is_some_and(|due| due <= turn.now) {
        tier.due(turn);
    }
    let words = std::mem::take(&mut turn.actions).into_iter().map(|action| match action {
        Action::Check { .. } => "check".to_owned(),
        Action::Count { .. } => "count".to_owned(),
        Action::Try { .. } => "try".to_owned(),
        Action::Tell(Notice::CpuFallback { evidence, .. }) => format!("told: {evidence}"),
        Action::Tell(Notice::Health { to, .. }) => format!("{to:?}"),
        other => format!("{other:?}"),
    });
    words.collect::<Vec<_>>().join(", ")
}

fn check(local: bool, steps: &[(u64, In, &str)]) -> Tier {
    let (mut tier, mut turn) = tier(local);
    for (seconds, happens, expected) in steps {
        let got = step(&mut tier, &mut turn, *seconds, happens.clone());
        assert_eq!(got, *expected, "at {seconds} s, {happens:?}");
    }
    assert!(turn.close(Ticket(u64::MAX)).is_none());
    tier
}

const STATUS: In = Failed(CheckFailure::Status(500));
const TIMED_OUT: In = Failed(CheckFailure::TimedOut);

#[test]
fn a_ready_engine_is_healthy_and_checked_every_interval() {
    let tier = check(
        true,
        &[(0, Wait, "check"), (0, Passed(12), ""), (9, Wait, ""), (10, Wait, "check"), (10, Passed(30), "")],
    );
    assert_eq!((tier.health, tier.reason()), (Health::Healthy, "answered in 30 ms"));
}

#[test]
fn slow_is_degraded_and_real_answers_do_not_cure_it() {
    let tier = check(
        true,
        &[
            (0, Wait, "check"),
            (3, Passed(2_400), "Degraded"),
            (4, Sampled(1, 4, 0, 5), "check"),
            (4, Passed(2_100), ""),
        ],
    );
    assert_eq!(tier.reason(), "slow: answered in 2.1 s");
    assert!(tier.is_able());
}

#[test]
fn three_failed_checks_are_down_and_one_passed_check_is_the_way_back() {
    check(
        true,
        &[
            (0, Wait, "check"),
            (0, STATUS, "Degraded"),
            (1, Wait, "check"),
            (1, STATUS, ""),
            (2, Wait, "check"),
            // DOWN while its process lives: the proof begins, too.
            (2, STATUS, "Down, count"),
            (3, Wait, "check"),
            (3, Passed(5), "Healthy"),
            (12, Wait, ""),
            (13, Wait, "check"),
        ],
    );
}

#[test]
fn real_answers_clear_failures() {
    check(
        true,
        &[
            (0, Wait, "check"),
            (0, STATUS, "Degraded"),
            (1, Wait, "check"),
            (1, STATUS, ""),
            (2, Sampled(0, 2, 0, 1), "Healthy, check"),
            (2, STATUS, "Degraded"),
            (3, Wait, "check"),
            (3, STATUS, ""),
        ],
    );
}

#[test]
fn refused_is_down_at_once_by_a_check_or_a_request_and_old_answers_do_not_cure_it() {
    check(false, &[(0, Wait, "check"), (0, Failed(CheckFailure::Refused), ""), (1, Wait, "check")]);
    check(
        true,
        &[
            (0, Wait, "check"),
            (0, Passed(1), ""),
            (2, Refused, "Down, count"),
            (3, Sampled(3, 3, 0, 9), "check"),
            (3, Passed(1), "Healthy"),
        ],
    );
}

#[test]
fn the_reason_of_a_tier_that_is_down_follows_its_newest_check() {
    let (mut tier, mut turn) = tier(false);
    let newest = [
        (CheckFailure::Refused, "connection refused", "connection refused"),
        (CheckFailure::Status(401), "2 checks failed: status 401", "its health checks fail"),
        (
            CheckFailure::DeadEnd,
            "it is a mainstay that reaches no engine without this one",
            "leads back to this host",
        ),
        (CheckFailure::TimedOut, "4 checks failed: timed out", "its health checks fail"),
        (CheckFailure::Refused, "connection refused", "connection refused"),
        (CheckFailure::Status(503), "6 checks failed: status 503", "its health checks fail"),
    ];
    for (second, (failure, reason, brief)) in (0..).zip(newest) {
        step(&mut tier, &mut turn, second, Failed(failure));
        assert_eq!((tier.health, tier.reason(), tier.brief(None)), (Health::Down, reason, brief));
    }
    assert_eq!(step(&mut tier, &mut turn, 9, Passed(1)), "Healthy");
}

#[test]
fn the_cause_of_a_remote_tiers_failure_tells_the_way_there_from_what_it_answers() {
    let check = |failure: CheckFailure, expected: Cause| {
        let (mut tier, mut turn) = tier(false);
        step(&mut tier, &mut turn, 0, Failed(failure.clone()));
        assert_eq!(tier.status(None).cause, Some(expected), "{failure:?}");
    };
    check(CheckFailure::Refused, Cause::Network);
    check(CheckFailure::Reset, Cause::Network);
    check(CheckFailure::TimedOut, Cause::Hang);
    check(CheckFailure::Status(401), Cause::AuthGated);
    check(CheckFailure::Status(404), Cause::BadArgument);
    check(CheckFailure::Status(503), Cause::Unknown);
    check(CheckFailure::DeadEnd, Cause::Unknown);
    check(CheckFailure::NoKey("x".to_owned()), Cause::AuthGated);
    check(CheckFailure::Itself, Cause::BadArgument);
}

#[test]
fn a_remote_tier_is_down_until_its_first_check_passed() {
    let (tier, _) = tier(false);
    assert_eq!((tier.health, tier.reason()), (Health::Down, "not checked yet"));
    check(false, &[(0, Wait, "check"), (0, Passed(20), "Healthy")]);
}

#[test]
fn failed_requests_in_a_row_are_doubted_until_a_trial_decides_and_no_check_does() {
    let tier = check(
        false,
        &[
            (0, Wait, "check"),
            (0, Passed(20), "Healthy"),
            (5, Sampled(0, 5, 2, 0), ""),
            (6, Sampled(0, 5, 3, 0), "Degraded, try"),
            (6, Tried(false), "Down"),
            (7, Wait, "check"),
            (7, Passed(20), ""),
            (15, Passed(20), ""),
            (16, Wait, "try"),
            (16, Tried(true), "Healthy"),
            // The row that made it DOWN is forgiven; three more are not.
            (18, Sampled(0, 5, 5, 0), "check"),
            (19, Sampled(0, 5, 6, 0), "Degraded"),
            (20, Sampled(0, 5, 0, 1), "Healthy"),
        ],
    );
    assert!(tier.is_able());
}

#[test]
fn a_trial_that_passes_forgives_before_anything_was_down() {
    let tier = check(
        true,
        &[
            (0, Wait, "check"),
            (0, Passed(20), ""),
            (6, Rows(3, 3, 0, 0), "Degraded, try"),
            (6, Tried(true), "Healthy"),
            (9, Rows(3, 3, 0, 0), "check"),
        ],
    );
    assert_eq!(tier.reason(), "answered in 20 ms");
}

#[test]
fn one_request_that_fails_again_and_again_is_tried_in_silence() {
    let steps = [
        (0, Wait, "check"),
        (0, Passed(20), ""),
        (5, Rows(1, 2, 0, 0), ""),
        (6, Rows(1, 60, 0, 0), "try"),
        (6, Tried(true), ""),
        (7, Rows(1, 120, 0, 0), ""),
        (16, Passed(20), "try"),
        (16, Tried(true), ""),
        // Trials in vain become rare.
        (26, Rows(1, 900, 0, 0), "check"),
        (36, Wait, "try"),
    ];
    let tier = check(true, &steps);
    assert_eq!(tier.health, Health::Healthy);
    let mut steps = steps.to_vec();
    steps.push((36, Tried(false), "Down, count"));
    let tier = check(true, &steps);
    assert_eq!(tier.reason(), "requests fail, and so does its trial: HTTP 500");
}

#[test]
fn a_tier_that_refuses_everything_is_down_with_that_reason_and_is_not_restarted_for_it() {
    let tier = check(
        true,
        &[
            (0, Wait, "check"),
            (0, Passed(20), ""),
            (6, Rows(3, 3, 0, 0), "Degraded, try"),
            (6, Forbidden, "Down"),
            (7, Wait, "check"),
            (7, Passed(20), ""),
        ],
    );
    assert_eq!(tier.reason(), "requests fail, and so does its trial: it says 401");
    assert_eq!(tier.cause(), Some(Cause::AuthGated));
}

#[test]
fn a_remote_that_turns_everybody_away_for_a_minute_is_tried_and_a_local_one_never() {
    let crowd = |local, moves: &[(u64, In, &'static str)]| {
        let begin = [(0, Wait, "check"), (0, Passed(20), if local { "" } else { "Healthy" })];
        check(local, &[&begin, moves].concat())
    };
    crowd(
        false,
        &[
            (1, Rows(0, 0, 3, 0), ""),
            (9, Rows(0, 0, 40, 1), ""),
            (30, Rows(0, 0, 3, 1), "check"),
            (31, Passed(20), ""),
            (68, Rows(0, 0, 99, 1), "check"),
            (69, Rows(0, 0, 99, 1), "Degraded, try"),
            (69, Forbidden, "Down"),
        ],
    );
    crowd(true, &[(1, Rows(0, 0, 3, 0), ""), (99, Rows(0, 0, 99, 0), "check")]);
}

#[test]
fn a_trial_that_passes_while_clients_get_nothing_loses_its_word() {
    let (mut tier, mut turn) = tier(false);
    step(&mut tier, &mut turn, 0, Passed(20));
    let (mut failures, mut came_back) = (0, Vec::new());
    for second in 1..=1_800 {
        // Every client's answer is damaged, whenever the tier takes one.
        failures += if tier.is_able() { 3 } else { 0 };
        let mut said = step(&mut tier, &mut turn, second, Rows(failures, failures, 0, 0));
        if said.contains("try") {
            said += &step(&mut tier, &mut turn, second, Tried(true));
        }
        if said.contains("Down") {
            assert!(tier.reason().contains("although its trial passes"), "{}", tier.reason());
        } else if said.contains("Healthy") && second > 70 {
            came_back.push(second);
        }
    }
    let pauses: Vec<u64> = came_back.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(came_back.len() <= 10 && pauses.is_sorted() && pauses.last() >= Some(&300), "{came_back:?}");
    assert!(step(&mut tier, &mut turn, 1_801, Rows(0, 0, 0, 1)).contains("Healthy"));
    step(&mut tier, &mut turn, 2_400, Rows(0, 0, 0, 2));
    assert_eq!(step(&mut tier, &mut turn, 2_401, Rows(3, 3, 0, 2)), "Degraded, try");
}

#[test]
fn time_outs_do_not_count_while_bytes_move() {
    check(
        false,
        &[
            (0, Wait, "check"),
            (0, Passed(20), "Healthy"),
            (10, Wait, "check"),
            (14, Sampled(4, 14, 0, 1), ""),
            (15, TIMED_OUT, ""),
            (25, Wait, "check"),
            (29, Sampled(4, 20, 0, 1), ""),
            (30, TIMED_OUT, "Degraded"),
        ],
    );
}

#[test]
fn time_outs_do_not_count_while_counters_move() {
    let tier = check(
        true,
        &[
            (0, Wait, "check"),
            (0, Passed(20), ""),
            (5, Sampled(40, 5, 0, 1), ""),
            (10, Wait, "check"),
            (12, Sampled(40, 5, 0, 1), ""),
            (12, TIMED_OUT, "count"),
            (13, Counted(Some(7)), ""),
            (14, Wait, "count"),
            (14, Counted(Some(8)), ""),
        ],
    );
    assert_eq!((tier.health, tier.check.failures), (Health::Healthy, 0));
}

#[test]
fn time_outs_count_once_counters_are_seen_to_stand() {
    check(
        true,
        &[
            (0, Wait, "check"),
            (0, Passed(20), ""),
            (9, Sampled(40, 5, 0, 1), ""),
            (10, Wait, "check"),
            (11, TIMED_OUT, "count"),
            (11, Counted(None), ""),
            (13, Wait, "count"),
            (14, Counted(None), "Degraded"),
        ],
    );
}

#[test]
fn a_suspected_hang_is_down_tried_at_once_and_back_when_the_trial_passes() {
    let steps = [
        (0, Wait, "check"),
        (0, Passed(20), ""),
        (5, Sampled(2, 5, 0, 1), ""),
        (10, Wait, "check"),
        (10, Passed(20), ""),
        (15, Sampled(2, 5, 0, 1), "count"),
        (15, Counted(Some(706)), ""),
        (17, Sampled(2, 5, 0, 1), "count"),
        (17, Counted(Some(706)), "Down, try"),
    ];
    let tier = check(true, &steps);
    assert_eq!(
        tier.reason(),
        "hang proven: it has sent no byte for 12 s; its progress counter stays at 706; \
         it is restarted if nothing changes for 60 s"
    );
    let mut steps = steps.to_vec();
    // Health pages do not know.
    steps.extend([(18, Passed(1), ""), (19, Wait, "check, count"), (19, Tried(true), "Healthy")]);
    check(true, &steps);
}

/// When a tier that stays DOWN is checked, over so many seconds.
fn checks_while_down(local: bool, needed: bool, seconds: u64) -> Vec<u64> {
    let (mut tier, mut turn) = tier(local);
    let mut checked = Vec::new();
    for second in 0..seconds {
        if step(&mut tier, &mut turn, second, Wait).contains("check") {
            checked.push(second);
            step(&mut tier, &mut turn, second, Failed(CheckFailure::Refused));
        }
        if needed {
            tier.is_needed(turn.now);
        }
    }
    checked
}

#[test]
fn a_remote_tier_that_stays_down_is_checked_less_and_less_often() {
    let checked = checks_while_down(false, false, 600);
    let pauses: Vec<u64> = checked.windows(2).map(|two| two[1] - two[0]).collect();
    // 1, 2, 4, … s ± 25 %, seen once a second.
    for (pause, at_least) in pauses.iter().zip([1, 1, 3, 6, 12]) {
        assert!((at_least..2 * at_least + 2).contains(pause), "{pauses:?}");
    }
    assert!(pauses[5..].iter().all(|pause| (22..=31).contains(pause)), "{pauses:?}");
    let soonest = checks_while_down(true, false, 100);
    assert!(
        soonest.windows(2).all(|two| two[1] - two[0] <= 1),
        "a local one comes back at once: {soonest:?}"
    );
    let needed = checks_while_down(false, true, 100);
    assert!(needed.windows(2).all(|two| two[1] - two[0] <= 5), "nobody else can answer: {needed:?}");
}

#[test]
fn a_passed_check_ends_the_long_pauses_of_a_remote_tier() {
    let (mut tier, mut turn) = tier(false);
    for second in 0..300 {
        if step(&mut tier, &mut turn, second, Wait).contains("check") {
            step(&mut tier, &mut turn, second, Failed(CheckFailure::Refused));
        }
    }
    let pause = |tier: &Tier, turn: &Turn| tier.next_check.expect("it is due").since(turn.now);
    step(&mut tier, &mut turn, 340, Wait);
    assert_eq!(step(&mut tier, &mut turn, 341, Passed(5)), "Healthy");
    assert_eq!(step(&mut tier, &mut turn, 342, Refused), "Down");
    assert_eq!(pause(&tier, &turn), S, "it begins anew");
}

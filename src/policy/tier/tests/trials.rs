//! Which trials are asked for, and how long their word holds.
use super::*;

/// The steps of a remote tier that was well at first.
fn check_from_well(steps: &[(u64, In, &str)]) {
    let well = [(0, Wait, "check"), (0, Passed(20), "Healthy")];
    check(false, &[&well[..], steps].concat());
}

#[test]
fn a_trial_without_an_answer_counts_unless_bytes_move() {
    let failing = (6, Rows(3, 3, 0, 0), "Degraded, try");
    check_from_well(&[failing.clone(), (16, Unanswered, "Down, check, try")]);
    check_from_well(&[failing, (12, Sampled(9, 12, 3, 0), "check"), (16, Unanswered, "try")]);
}

#[test]
fn a_trial_of_another_hour_is_no_word_on_requests_that_fail_now() {
    check_from_well(&[
        (6, Rows(3, 3, 0, 0), "Degraded, try"),
        (6, Tried(true), "Healthy"),
        // Nobody asked for an hour.
        (3_606, Rows(6, 6, 0, 0), "Degraded, check, try"),
        (3_606, Tried(true), "Healthy"),
    ]);
}

#[test]
fn one_request_that_fails_again_says_nothing_of_the_trials_word_on_others() {
    check_from_well(&[
        (6, Rows(1, 3, 0, 0), "try"),
        (6, Tried(true), ""),
        (70, Rows(4, 6, 0, 0), "Degraded, check, try"),
    ]);
}

#[test]
fn a_request_that_is_at_fault_itself_accuses_no_others_anew() {
    check_from_well(&[
        (6, Rows(5, 5, 0, 0), "Degraded, try"),
        (6, Tried(true), "Healthy"),
        (8, Rows(4, 6, 0, 0), "check"),
    ]);
}

#[test]
fn failures_after_an_answer_are_not_those_that_were_forgiven() {
    check_from_well(&[
        (6, Rows(3, 3, 0, 0), "Degraded, try"),
        (6, Tried(true), "Healthy"),
        (16, Rows(3, 3, 0, 1), "Degraded, check, try"),
    ]);
}

#[test]
fn a_trial_that_failed_is_repeated_soon_however_many_passed_before() {
    let (mut tier, mut turn) = tier(false);
    step(&mut tier, &mut turn, 0, Passed(20));
    for second in 1..2_000 {
        if step(&mut tier, &mut turn, second, Rows(1, 3 * second as u32, 0, 0)).contains("try") {
            step(&mut tier, &mut turn, second, Tried(true));
        }
    }
    let tries: Vec<u64> = (2_000..2_700)
        .filter(|second| {
            let row = *second as u32 * 3;
            let tries = step(&mut tier, &mut turn, *second, Rows(1, row, 0, 0)).contains("try");
            if tries {
                step(&mut tier, &mut turn, *second, Tried(false));
            }
            tries
        })
        .collect();
    assert!(tries.len() > 10 && tries.windows(2).all(|two| two[1] - two[0] == 10), "{tries:?}");
}

#[test]
fn a_remote_tier_that_refuses_requests_is_not_checked_every_second_for_its_health_page() {
    let (mut tier, mut turn) = tier(false);
    let mut checked = 0;
    for second in 0..600 {
        let said = step(&mut tier, &mut turn, second, Rows(3, 3, 0, 0));
        if said.contains("check") {
            checked += 1;
            step(&mut tier, &mut turn, second, Passed(5));
        }
        if said.contains("try") {
            step(&mut tier, &mut turn, second, Forbidden);
        }
    }
    assert_eq!(tier.health, Health::Down);
    assert!(checked < 40, "{checked} checks in 600 s");
}

/// A local tier with nine requests in flight, three of which failed at second 6. Nothing but these moves speak for it.
fn check_with_a_queue(moves: &[(u64, In, &str)]) -> Tier {
    let queue = [
        (0, Wait, "check"),
        (0, Passed(12), ""),
        (5, Sampled(9, 5, 0, 0), ""),
        (6, Sampled(9, 5, 3, 0), "Degraded, try"),
        (10, Wait, "check"),
        (10, Passed(12), ""),
    ];
    check(true, &[&queue, moves].concat())
}

#[test]
fn a_trial_without_an_answer_does_not_count_while_the_counter_moves() {
    let tier = check_with_a_queue(&[
        (15, Sampled(9, 5, 3, 0), "check, count"),
        (15, Counted(Some(100)), ""),
        (17, Wait, "count"),
        (17, Counted(Some(900)), ""),
        (18, Unanswered, "try"),
    ]);
    assert_eq!(tier.health, Health::Degraded);
}

#[test]
fn a_trial_without_an_answer_counts_once_the_counter_is_seen_to_stand() {
    let asked = [(12, Sampled(9, 5, 3, 0), "check"), (13, Unanswered, "count")];
    let and = |moves: &[(u64, In, &'static str)]| check_with_a_queue(&[&asked, moves].concat());
    let tier = and(&[(13, Counted(Some(7)), ""), (15, Wait, "count"), (15, Counted(Some(7)), "Down")]);
    assert_eq!(tier.reason(), "requests fail, and so does its trial: no answer in time");
    and(&[(14, Counted(None), ""), (15, Wait, "count"), (16, Counted(None), "Down, try")]);
    // A check that timed out meanwhile waits for the same word.
    let tier = and(&[
        (14, TIMED_OUT, ""),
        (14, Counted(None), ""),
        (15, Wait, "check, count"),
        (15, Counted(None), "Down"),
    ]);
    assert_eq!(tier.check.failures, 1);
    // It moves, or sends a byte, or passes the next trial.
    and(&[(13, Counted(Some(7)), ""), (15, Wait, "count"), (15, Counted(Some(8)), "")]);
    and(&[(14, Sampled(9, 14, 3, 0), ""), (14, Counted(None), ""), (15, Counted(None), "")]);
    and(&[
        (14, Counted(None), ""),
        (15, Wait, "count"),
        (16, Wait, "try"),
        (16, Tried(true), "Healthy"),
        (16, Counted(None), ""),
    ]);
}

#[test]
fn a_trial_without_an_answer_counts_at_once_where_no_request_is_in_flight() {
    check_with_a_queue(&[(12, Sampled(0, 5, 3, 0), "check"), (16, Unanswered, "Down, try, count")]);
}

#[test]
fn time_in_which_the_agent_did_not_run_takes_no_word_from_a_trial() {
    let (mut tier, mut turn) = tier(false);
    step(&mut tier, &mut turn, 0, Passed(20));
    step(&mut tier, &mut turn, 6, Rows(3, 3, 0, 0));
    step(&mut tier, &mut turn, 6, Tried(true));
    tier.overslept(100 * S);
    step(&mut tier, &mut turn, 107, Rows(6, 6, 0, 0));
    assert_eq!(tier.health, Health::Degraded, "its word holds for a minute, and a second has passed");
}

/// It hangs since 17 s, its first trial failed, and the second one is under way when its worker is killed.
fn with_a_killed_worker() -> (Tier, Turn, u64) {
    let (mut tier, mut turn) = tier(true);
    tier.patience.replaceable_worker = true;
    tier.begin_anew(tier.run, &mut turn);
    step(&mut tier, &mut turn, 5, Sampled(2, 5, 0, 1));
    for seconds in 15..60 {
        step(&mut tier, &mut turn, seconds, Sampled(2, 5, 0, 1));
        step(&mut tier, &mut turn, seconds, Passed(20));
        if step(&mut tier, &mut turn, seconds, Counted(Some(706))).contains("KillWorkers") {
            assert!(matches!(tier.trial, super::super::Trial::Out(sent) if sent < turn.now));
            return (tier, turn, seconds);
        }
        if seconds == 17 {
            step(&mut tier, &mut turn, seconds, Tried(false));
        }
    }
    panic!("no worker was killed");
}

/// Simulation, hosts 20543 and 22831: its answer was not listened to, and the engine was restarted.
#[test]
fn a_trial_that_passes_after_its_worker_was_killed_is_an_answer() {
    let (mut tier, mut turn, killed) = with_a_killed_worker();
    assert_eq!(step(&mut tier, &mut turn, killed + 1, Tried(true)), "Healthy, check");
}

#[test]
fn a_trial_that_fails_because_its_worker_was_killed_says_nothing() {
    let (mut tier, mut turn, killed) = with_a_killed_worker();
    step(&mut tier, &mut turn, killed + 1, Rows(3, 3, 0, 1));
    step(&mut tier, &mut turn, killed + 1, Tried(false));
    assert_eq!(tier.traffic.broken(), None, "{}", tier.reason());
}

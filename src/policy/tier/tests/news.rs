//! What the data plane tells is read later than it happened, and counts for when it happened.
use super::*;

/// A tier that has just failed three checks, at these seconds.
fn down_since(failures: [u64; 3]) -> (Tier, Turn) {
    let (mut tier, mut turn) = tier(true);
    step(&mut tier, &mut turn, 0, Wait);
    step(&mut tier, &mut turn, 0, Passed(12));
    for second in failures {
        step(&mut tier, &mut turn, second, STATUS);
    }
    assert_eq!((tier.health, tier.reason()), (Health::Down, "3 checks failed: status 500"));
    (tier, turn)
}

/// A sample that is read at a second and tells of an answer given at another.
fn answered(tier: &mut Tier, turn: &mut Turn, read: u64, given: u64) {
    turn.now = at(read);
    let sample = Sample { answered: 1, answered_at: at(given), last_byte: at(given), ..Sample::default() };
    tier.sampled(sample, turn);
}

#[test]
fn an_answer_undoes_the_failed_checks_that_are_older_and_no_other() {
    for (given, left, health) in [
        (9, 3, Health::Down),
        (10, 2, Health::Degraded),
        (11, 1, Health::Degraded),
        (12, 0, Health::Healthy),
        (13, 0, Health::Healthy),
    ] {
        let (mut tier, mut turn) = down_since([10, 11, 12]);
        answered(&mut tier, &mut turn, 13, given);
        assert_eq!((tier.check.failures, tier.health), (left, health), "answered at {given} s");
    }
}

#[test]
fn of_many_failed_checks_the_latest_count() {
    let (mut tier, mut turn) = down_since([10, 11, 12]);
    (13..60).for_each(|second| drop(step(&mut tier, &mut turn, second, STATUS)));
    answered(&mut tier, &mut turn, 60, 30);
    assert_eq!((tier.check.failures, tier.health), (50, Health::Down));
    assert!(tier.failed_at.len() == 3, "what is remembered is bounded");
    answered(&mut tier, &mut turn, 60, 30);
    assert_eq!(tier.health, Health::Down, "the same answer is no news");
}

#[test]
fn a_check_without_an_answer_has_failed_since_it_was_sent() {
    let timed_out = [(0, Wait, "check"), (0, Passed(12), ""), (10, Wait, "check")];
    for (given, health) in [(9, Health::Degraded), (10, Health::Healthy), (14, Health::Healthy)] {
        // Whether the answer is read before the time-out or after it.
        for late in [false, true] {
            let (mut tier, mut turn) = tier(true);
            for (second, happens, expected) in &timed_out {
                assert_eq!(step(&mut tier, &mut turn, *second, happens.clone()), *expected);
            }
            if late {
                step(&mut tier, &mut turn, 15, TIMED_OUT);
            }
            answered(&mut tier, &mut turn, 15, given);
            if !late {
                step(&mut tier, &mut turn, 15, TIMED_OUT);
            }
            assert_eq!(tier.health, health, "answered at {given} s, read late: {late}");
        }
    }
}

/// Three requests failed at 5 s, and the trial that was sent at once failed at 6 s.
fn broken_at_six(trial: In) -> (Tier, Turn) {
    let (mut tier, mut turn) = tier(false);
    step(&mut tier, &mut turn, 0, Passed(12));
    step(&mut tier, &mut turn, 5, Rows(3, 3, 0, 0));
    step(&mut tier, &mut turn, 6, trial);
    assert_eq!(tier.health, Health::Down);
    (tier, turn)
}

#[test]
fn an_answer_undoes_a_failed_trial_only_if_it_is_younger() {
    for (trial, given, health) in [
        (Tried(false), 5, Health::Down),
        (Tried(false), 7, Health::Healthy),
        (Forbidden, 5, Health::Down),
        (Forbidden, 7, Health::Healthy),
        // Nothing came of it since it was sent.
        (Unanswered, 4, Health::Down),
        (Unanswered, 6, Health::Healthy),
    ] {
        let (mut tier, mut turn) = broken_at_six(trial.clone());
        answered(&mut tier, &mut turn, 7, given);
        assert_eq!(tier.health, health, "{trial:?}, answered at {given} s");
    }
}

#[test]
fn a_refusal_that_is_heard_of_late_does_not_undo_a_check_that_went_there_later() {
    for (refused, health) in [(9, Health::Healthy), (10, Health::Down), (11, Health::Down)] {
        let (mut tier, mut turn) = tier(true);
        step(&mut tier, &mut turn, 0, Wait);
        step(&mut tier, &mut turn, 0, Passed(12));
        step(&mut tier, &mut turn, 10, Wait);
        step(&mut tier, &mut turn, 11, Passed(12));
        tier.refused(at(refused), &mut turn);
        assert_eq!(tier.health, health, "refused at {refused} s, checked at 10 s");
    }
    // Nor does a check that went there before it.
    let (mut tier, mut turn) = tier(true);
    step(&mut tier, &mut turn, 0, Wait);
    step(&mut tier, &mut turn, 1, Refused);
    step(&mut tier, &mut turn, 2, Passed(12));
    assert_eq!((tier.health, tier.reason()), (Health::Down, "connection refused"));
    step(&mut tier, &mut turn, 3, Wait);
    step(&mut tier, &mut turn, 3, Passed(12));
    assert_eq!(tier.health, Health::Healthy);
}

/// A check timed out with requests in flight; the byte came before it was sent, and is read after it timed out.
#[test]
fn a_byte_from_before_a_check_does_not_answer_it() {
    for (byte, health) in [(9, Health::Degraded), (11, Health::Healthy)] {
        let (mut tier, mut turn) = tier(true);
        step(&mut tier, &mut turn, 0, Wait);
        step(&mut tier, &mut turn, 0, Passed(12));
        step(&mut tier, &mut turn, 8, Sampled(2, 8, 0, 0));
        step(&mut tier, &mut turn, 10, Wait);
        assert_eq!(step(&mut tier, &mut turn, 12, TIMED_OUT), "count");
        step(&mut tier, &mut turn, 12, Counted(Some(7)));
        step(&mut tier, &mut turn, 13, Sampled(2, byte, 0, 0));
        step(&mut tier, &mut turn, 14, Counted(Some(7)));
        assert_eq!(tier.health, health, "a byte at {byte} s");
    }
}

//! What is proof, and what is not.
use super::*;
use crate::policy::{Action, Cause, EngineId, Nature, Notice, Prepared, STAND_IN};

const S: Duration = Duration::from_secs(1);
const RUN: RunId = RunId { engine: EngineId(0), number: 1 };

fn at(seconds: u64) -> Moment {
    Moment::from_nanos(seconds * 1_000_000_000)
}

struct Watched {
    proof: Proof,
    turn: Turn,
    killed_workers: Vec<u64>,
}

/// A tier with two requests in flight and no byte since second 0, driven second by second.
fn silent(replaceable_worker: bool) -> Watched {
    let patience = Patience { silence: 10 * S, suspect: 60 * S, replaceable_worker, cap: 600 * S };
    let proof = Proof::new(patience, TierId(0), RUN, at(0));
    Watched { proof, turn: Turn::new(at(0), 1), killed_workers: Vec::new() }
}

impl Watched {
    /// `counter` answers every `Count`, `passes` every Try.
    fn run(&mut self, seconds: std::ops::Range<u64>, counter: impl Fn(u64) -> Option<u64>, passes: bool) {
        for second in seconds {
            self.turn.now = at(second);
            let sample = Sample { in_flight: 2, ..Sample::default() };
            self.proof.sampled(sample, at(second));
            if self.proof.wants_try() && second % 10 == 0 {
                self.proof.tried(passes, at(second));
            }
            self.proof.due(&mut self.turn);
            for action in std::mem::take(&mut self.turn.actions) {
                match action {
                    Action::Count { .. } => {
                        self.proof.counted(counter(second), &mut self.turn);
                    }
                    Action::KillWorkers { run } if run == RUN => self.killed_workers.push(second),
                    Action::Tell(Notice::Worker { run, .. }) if run == RUN => {}
                    other => panic!("{other:?}"),
                }
            }
            self.settle(second);
        }
    }

    fn settle(&mut self, second: u64) {
        for action in std::mem::take(&mut self.turn.actions) {
            match action {
                Action::KillWorkers { run } if run == RUN => self.killed_workers.push(second),
                Action::Tell(Notice::Worker { run, .. }) if run == RUN => {}
                other => panic!("{other:?}"),
            }
        }
        self.proof.due(&mut self.turn);
        self.turn.actions.retain(|action| !matches!(action, Action::Prepare { .. }));
    }

    fn proven_as(&self) -> Option<(Cause, String)> {
        self.proof.proven().map(|blame| (blame.cause, blame.evidence.clone().unwrap_or_default()))
    }
}

#[test]
fn a_frozen_counter_is_suspect_after_two_looks_and_proven_after_the_patience() {
    let mut hung = silent(false);
    hung.run(0..12, |_| Some(706), false);
    assert_eq!(hung.proof.suspicion(), None);
    hung.run(12..14, |_| Some(706), false);
    assert_eq!(
        hung.proof.suspicion(),
        Some("it has sent no byte for 12 s; its progress counter stays at 706")
    );
    hung.run(14..72, |_| Some(706), false);
    assert_eq!(hung.proven_as(), None);
    hung.run(72..76, |_| Some(706), false);
    let (cause, evidence) = hung.proven_as().expect("proven by now");
    assert_eq!(cause, Cause::Hang);
    assert_eq!(
        evidence,
        "it has sent no byte for 12 s; its progress counter stays at 706; nothing changed for 60 s"
    );
}

#[test]
fn no_answer_is_as_good_as_a_frozen_counter() {
    let mut hung = silent(false);
    hung.run(0..14, |_| None, false);
    assert_eq!(
        hung.proof.suspicion(),
        Some("it has sent no byte for 12 s; its progress counter cannot be read")
    );
    hung.run(14..76, |_| None, false);
    assert!(hung.proven_as().is_some());
}

#[test]
fn a_busy_engine_is_never_suspect_however_long_it_is_silent() {
    let mut busy = silent(true);
    for second in 0..2_000 {
        busy.run(second..second + 1, Some, false);
        assert_eq!(busy.proof.suspicion(), None, "at {second} s");
    }
    assert_eq!(busy.killed_workers, [0; 0]);
}

/// A counter that stops answering at this second; from then on CPU time stands in for it, and moves.
fn stands_in_from(start: u64) -> impl Fn(u64) -> Option<u64> {
    move |second| Some(if second < start { second } else { STAND_IN | second })
}

#[test]
fn cpu_time_vouches_for_six_silences_and_then_is_no_answer() {
    let mut spinning = silent(false);
    spinning.run(0..60, stands_in_from(0), false);
    assert_eq!(spinning.proof.suspicion(), None);
    spinning.run(60..75, stands_in_from(0), false);
    let why = spinning.proof.suspicion().unwrap_or_default().to_owned();
    assert!(
        why.starts_with("it has sent no byte for 6") || why.starts_with("it has sent no byte for 7"),
        "{why}"
    );
    assert!(why.ends_with("; its progress counter cannot be read"), "{why}");
    spinning.run(75..140, stands_in_from(0), false);
    assert!(spinning.proven_as().is_some());
}

#[test]
fn cpu_time_vouches_anew_after_a_counter_moved() {
    let mut busy = silent(false);
    busy.run(0..200, Some, false);
    for second in 200..255 {
        busy.run(second..second + 1, stands_in_from(200), false);
        assert_eq!(busy.proof.suspicion(), None, "at {second} s");
    }
    busy.run(255..280, stands_in_from(200), false);
    assert!(busy.proof.suspicion().is_some());
}

#[test]
fn cpu_time_vouches_for_as_long_as_bytes_come() {
    let mut streaming = silent(false);
    for second in 0..400 {
        streaming.turn.now = at(second);
        // A byte every forty seconds, and never a whole answer.
        let byte = at(second / 40 * 40);
        let sample = Sample { in_flight: 2, last_progress: byte, last_byte: byte, ..Sample::default() };
        streaming.proof.sampled(sample, at(second));
        streaming.proof.due(&mut streaming.turn);
        for action in std::mem::take(&mut streaming.turn.actions) {
            assert!(matches!(action, Action::Count { .. }), "{action:?}");
            streaming.proof.counted(Some(STAND_IN | second), &mut streaming.turn);
        }
        assert_eq!(streaming.proof.suspicion(), None, "at {second} s");
    }
}

/// Clients that come one after the other, each leaving after twenty seconds without a byte. `idle`: for so long nobody
/// comes in between.
fn impatient_clients(idle: u64) -> Watched {
    let mut spinning = silent(false);
    for second in 0..200 * (20 + idle) / 20 {
        spinning.turn.now = at(second);
        let (turn, into) = (second / (20 + idle) * (20 + idle), second % (20 + idle));
        let in_flight = u32::from(into < 20);
        let sample = Sample { in_flight, last_progress: at(turn), ..Sample::default() };
        spinning.proof.sampled(sample, at(second));
        spinning.proof.due(&mut spinning.turn);
        for action in std::mem::take(&mut spinning.turn.actions) {
            assert!(matches!(action, Action::Count { .. }), "{action:?}");
            spinning.proof.counted(Some(STAND_IN | second), &mut spinning.turn);
        }
        if spinning.proof.suspicion().is_some() {
            break;
        }
    }
    spinning
}

#[test]
fn requests_that_begin_again_and_again_do_not_vouch_for_an_engine_that_spins() {
    for (idle, expected) in [(0, 60..90), (1, 60..95), (60, 240..340)] {
        let spinning = impatient_clients(idle);
        assert!(spinning.proof.suspicion().is_some(), "{idle}");
        let found = spinning.turn.now.as_nanos() / 1_000_000_000;
        assert!(expected.contains(&found), "{idle}: {found}");
    }
}

#[test]
fn what_could_not_be_asked_is_no_look() {
    let mut silent = silent(false);
    for second in 0..300 {
        silent.turn.now = at(second);
        silent.proof.sampled(Sample { in_flight: 2, ..Sample::default() }, at(second));
        silent.proof.due(&mut silent.turn);
        if !std::mem::take(&mut silent.turn.actions).is_empty() {
            silent.proof.not_counted(at(second));
        }
    }
    assert_eq!(silent.proof.suspicion(), None);
    silent.run(300..310, |_| None, false);
    assert!(silent.proof.suspicion().is_some(), "it goes on asking");
}

#[test]
fn a_change_of_kind_is_no_movement() {
    let mut hung = silent(false);
    hung.run(0..12, |_| Some(706), false);
    // Suspect by now, were it not for the other kind; that stands still as well.
    hung.run(12..15, |_| Some(STAND_IN | 9), false);
    assert_eq!(
        hung.proof.suspicion(),
        Some("it has sent no byte for 14 s; its progress counter cannot be read, and it uses no CPU time")
    );
}

#[test]
fn movement_clears_a_suspect_and_so_does_a_trial() {
    let mut slow = silent(false);
    slow.run(0..40, |_| Some(1), false);
    assert!(slow.proof.suspicion().is_some());
    slow.run(40..43, |_| Some(2), false);
    assert_eq!(slow.proof.suspicion(), None);
    slow.run(43..61, |_| Some(2), false);
    assert!(slow.proof.suspicion().is_some());
    slow.run(70..71, |_| Some(2), true);
    assert_eq!(slow.proof.suspicion(), None);
}

#[test]
fn a_replaceable_worker_goes_first_after_a_quarter_and_a_failed_trial_and_then_the_engine() {
    let mut hung = silent(true);
    hung.run(0..29, |_| Some(1), false);
    assert_eq!(hung.killed_workers, [28]);
    hung.run(29..57, |_| Some(1), false);
    assert_eq!(hung.proven_as(), None);
    hung.run(57..63, |_| Some(1), false);
    assert!(hung.proven_as().is_some_and(|(_, evidence)| evidence.ends_with("that did not help")));
    assert_eq!(hung.killed_workers, [28]);
}

#[test]
fn a_new_worker_that_loads_gets_its_time_and_is_tried_when_it_is_loaded() {
    let mut hung = silent(true);
    hung.run(0..29, |_| Some(1), false);
    assert_eq!(hung.killed_workers, [28]);
    // It burns CPU time while it loads: no verdict, and no trial that could abort the load.
    hung.run(29..300, Some, false);
    assert!(hung.proof.suspicion().is_some() && hung.proven_as().is_none() && !hung.proof.wants_try());
    hung.proof.prepared(Prepared::Ready, at(300));
    assert!(hung.proof.wants_try());
    hung.proof.tried(true, at(300));
    assert_eq!(hung.proof.suspicion(), None);
}

#[test]
fn a_worker_that_hangs_again_soon_costs_the_engine() {
    let mut hung = silent(true);
    hung.run(0..29, |_| Some(1), false);
    hung.proof.prepared(Prepared::Ready, at(30));
    hung.proof.tried(true, at(30));
    hung.run(30..110, |_| Some(1), false);
    assert_eq!(hung.killed_workers, [28]);
    assert!(hung.proven_as().is_some());
}

#[test]
fn a_model_that_cannot_be_loaded_again_is_blamed() {
    let mut hung = silent(true);
    hung.run(0..29, |_| Some(1), false);
    let (cause, evidence) = (Cause::ModelCorrupt, "invalid magic".to_owned());
    hung.proof.prepared(
        Prepared::Impossible {
            cause,
            nature: Nature::Configuration,
            deterministic: None,
            evidence: evidence.clone(),
        },
        at(29),
    );
    assert_eq!(hung.proven_as(), Some((cause, evidence)));
}

#[test]
fn down_by_checks_is_proven_by_a_counter_that_stands_and_not_by_one_that_moves() {
    let mut idle = silent(false);
    idle.proof.down(true, at(0));
    idle.run(0..60, Some, false);
    assert!(idle.proven_as().is_none() && idle.proof.suspicion().is_none());
    idle.run(60..125, |_| Some(1), false);
    assert!(idle.proven_as().is_some_and(|(cause, _)| cause == Cause::Hang));
    let mut back = silent(false);
    back.proof.down(true, at(0));
    back.run(0..50, |_| Some(1), false);
    back.proof.down(false, at(50));
    back.run(50..59, |_| Some(1), false);
    assert!(back.proven_as().is_none());
}

#[test]
fn a_health_page_that_answers_does_not_calm_a_silent_engine() {
    let mut hung = silent(false);
    hung.run(0..5, |_| Some(706), false);
    hung.proof.down(true, at(5));
    hung.run(5..40, |_| Some(706), false);
    hung.proof.down(false, at(40));
    assert_eq!(
        hung.proof.suspicion(),
        Some("it has sent no byte for 39 s; its progress counter stays at 706")
    );
    hung.run(40..64, |_| Some(706), false);
    assert_eq!(hung.proven_as(), None);
    hung.run(64..69, |_| Some(706), false);
    assert!(hung.proven_as().is_some(), "what was counted while it was DOWN stays counted");
}

#[test]
fn a_page_that_answers_after_one_look_leads_to_the_second_and_a_moving_counter_to_peace() {
    for (counter, suspected) in [(706, true), (707, false)] {
        let mut waiting = silent(false);
        waiting.run(0..9, |_| Some(0), false);
        waiting.proof.down(true, at(9));
        waiting.run(9..10, |_| Some(706), false);
        waiting.proof.down(false, at(10));
        assert_eq!(waiting.proof.suspicion(), None, "one look is no proof");
        waiting.run(10..13, |_| Some(counter), false);
        assert_eq!(waiting.proof.suspicion().is_some(), suspected, "{counter}");
    }
}

/// It came at 3 s, and is read at 8 s.
fn late_byte(hung: &mut Watched) {
    let byte = Sample { in_flight: 2, last_progress: at(3), last_byte: at(3), ..Sample::default() };
    hung.proof.sampled(byte, at(8));
}

#[test]
fn a_byte_counts_for_when_it_came_and_not_for_when_it_is_read() {
    let mut hung = silent(false);
    hung.run(0..1, |_| Some(706), false);
    late_byte(&mut hung);
    hung.run(9..13, |_| Some(706), false);
    let why = "it has sent no byte for 9 s; its progress counter stays at 706";
    assert_eq!(hung.proof.suspicion(), Some(why));
    let mut down = silent(false);
    down.run(0..1, |_| Some(706), false);
    down.proof.down(true, at(5));
    late_byte(&mut down);
    down.run(9..65, |_| Some(706), false);
    assert_eq!(down.proven_as(), None, "it is DOWN since 5 s, and the byte is older");
    down.run(65..68, |_| Some(706), false);
    assert!(down.proven_as().is_some());
}

#[test]
fn nothing_is_counted_against_an_engine_of_which_nothing_was_asked() {
    let mut idle = silent(false);
    idle.proof.sampled(Sample::default(), at(0));
    idle.proof.down(true, at(0));
    for second in 0..59 {
        idle.turn.now = at(second);
        idle.proof.due(&mut idle.turn);
        if !std::mem::take(&mut idle.turn.actions).is_empty() {
            idle.proof.counted(Some(706), &mut idle.turn);
        }
    }
    idle.proof.sampled(Sample { in_flight: 1, last_progress: at(58), ..Sample::default() }, at(58));
    idle.proof.down(false, at(59));
    assert_eq!((idle.proof.suspicion(), idle.proof.deadline()), (None, Some(at(68))), "it has its silence");
}

#[test]
fn time_in_which_the_agent_did_not_run_proves_nothing() {
    let mut woken = silent(false);
    woken.run(0..20, |_| Some(1), false);
    assert!(woken.proof.suspicion().is_some(), "suspect since 12 s");
    woken.proof.overslept(4_980 * S);
    woken.run(5_000..5_052, |_| Some(1), false);
    assert_eq!(woken.proven_as(), None);
    woken.run(5_052..5_056, |_| Some(1), false);
    assert!(woken.proven_as().is_some());
    let mut woken = silent(false);
    let byte = Sample { in_flight: 2, last_progress: at(8), last_byte: at(8), ..Sample::default() };
    woken.proof.sampled(byte, at(9));
    woken.proof.overslept(4_990 * S);
    woken.run(5_000..5_008, |_| panic!("it is silent for less than ten seconds"), false);
    assert_eq!(woken.proof.deadline(), Some(at(5_008)));
}

#[test]
fn clients_that_got_nothing_before_the_agent_did_not_run_are_not_forgotten() {
    let mut woken = silent(false);
    let newcomer = |second| Sample { in_flight: 1, last_progress: at(second / 5 * 5), ..Sample::default() };
    (5..20).for_each(|second| woken.proof.sampled(newcomer(second), at(second)));
    woken.proof.overslept(1_000 * S);
    (1_020..1_033).for_each(|second| woken.proof.sampled(newcomer(second), at(second)));
    assert_eq!(woken.proof.deadline(), Some(at(1_035)), "thirty seconds of hunger");
}

#[test]
fn clients_that_give_up_early_do_not_hide_a_hang() {
    let mut hung = silent(false);
    for second in 0..60 {
        hung.turn.now = at(second);
        // A new first request every five seconds.
        let sample = Sample { in_flight: 1, last_progress: at(second / 5 * 5), ..Sample::default() };
        hung.proof.sampled(sample, at(second));
        hung.proof.due(&mut hung.turn);
        for action in std::mem::take(&mut hung.turn.actions) {
            assert!(matches!(action, Action::Count { .. }), "{action:?}");
            hung.proof.counted(Some(3), &mut hung.turn);
        }
    }
    assert!(hung.proof.suspicion().is_some());
}

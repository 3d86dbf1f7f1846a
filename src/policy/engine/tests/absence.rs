//! The agent did not run for a while: no clock of an engine does.
use super::*;
use crate::policy::engine::outlook::Outlook;

/// Nobody steps the engine until then, and it is due two seconds after the last step.
fn absent(story: &mut Story, until: f64) {
    let due = story.turn.now + 2 * S;
    story.turn.now = at(until);
    story.engine.overslept(story.turn.now.since(due));
}

#[test]
fn it_is_no_stall_of_a_start() {
    let mut story = Story::new(StartMode::Always);
    story.step(1.0, Spawned);
    story.step(100.0, Wait);
    absent(&mut story, 2_000.0);
    // It stood still for a hundred seconds before.
    check(story, &[(2_197.9, Wait, ""), (2_199.0, Wait, "Stopping, cut 1, term 1 5 s")]);
}

#[test]
fn it_does_not_count_for_the_longest_start() {
    let mut story = Story::new(StartMode::Always);
    story.step(1.0, Spawned);
    (1..59).for_each(|minute| drop(story.step(f64::from(minute) * 60.0, Activity)));
    absent(&mut story, 9_000.0);
    let mut story = check(story, &[(9_100.0, Activity, ""), (9_117.9, Activity, "")]);
    assert_eq!(story.step(9_118.0, Activity), "Stopping, cut 1, term 1 5 s");
    assert_eq!(story.engine.excuse(), "stopping: hang: not ready after 60 min");
}

#[test]
fn the_next_start_is_not_expected_to_take_as_long() {
    let mut story = Story::new(StartMode::Always);
    story.step(1.0, Spawned);
    story.step(10.0, Wait);
    absent(&mut story, 30_000.0);
    story.step(30_002.0, Asked(Prepared::Ready));
    assert_eq!(story.engine.started_in, Some(14 * S), "12 s before and 2 s after");
    story.step(30_003.0, Op(Command::Restart));
    story.step(30_004.0, Exited(0));
    story.step(30_005.0, Ended);
    assert_eq!(story.engine.outlook(&story.turn), Outlook::At(at(30_019.0)));
    absent(&mut story, 60_000.0);
    let slept = 60_000.0 - 30_007.0;
    assert_eq!(story.engine.outlook(&story.turn), Outlook::At(at(30_019.0 + slept)));
}

#[test]
fn it_does_not_count_for_any_step_of_a_stop() {
    let mut story = always();
    assert_eq!(story.step(20.0, Op(Command::Stop)), "Stopping");
    absent(&mut story, 1_000.0);
    let mut story = check(story, &[(1_017.9, Wait, ""), (1_018.0, Wait, "cut 1, term 1 30 s")]);
    absent(&mut story, 2_000.0);
    let mut story = check(story, &[(2_032.9, Wait, ""), (2_033.0, Wait, "kill 1")]);
    absent(&mut story, 3_000.0);
    let mut story = check(story, &[(3_032.9, Wait, ""), (3_033.0, Wait, "Wedged")]);
    absent(&mut story, 4_000.0);
    check(story, &[(4_000.0, Wait, "kill 1")]);
}

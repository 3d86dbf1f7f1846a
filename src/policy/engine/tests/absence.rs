//! The agent did not run for a while: no clock of an engine does.
use super::*;

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

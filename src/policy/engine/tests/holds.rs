//! Which starts in vain are given up on for a while, and which are tried again soon.
use super::*;

#[test]
fn three_starts_in_vain_are_held_and_tried_again() {
    let mut story = Story::new(StartMode::Always);
    for seconds in [1.0, 10.0, 20.0] {
        story.step(seconds, SpawnFailed(Nature::Engine));
        story.step(seconds + 5.0, Wait);
    }
    assert_eq!(story.engine.state(), EngineState::Held);
    assert!(story.engine.excuse().starts_with("held: unknown"), "{}", story.engine.excuse());
    check(story, &[(919.0, Wait, ""), (920.0, Wait, "start 4, Starting")]);
}

#[test]
fn an_impossible_start_is_stopped_and_the_second_is_held() {
    let (cause, nature, deterministic) = (Cause::ModelMissing, Nature::Configuration, Some(true));
    let impossible = || Asked(Prepared::Impossible { cause, nature, deterministic, evidence: "no".into() });
    let story = check(
        Story::new(StartMode::Always),
        &[
            (1.0, Spawned, "prepare 1"),
            (1.1, impossible(), "Stopping, cut 1, term 1 5 s"),
            (1.2, Exited(0), ""),
            (1.3, Ended, "start 2, Starting"),
            (2.0, Spawned, "prepare 2"),
            (2.1, impossible(), "Stopping, cut 2, term 2 5 s"),
            (2.2, Ended, "Held"),
        ],
    );
    let exit = story.engine.status().last_exit.expect("an exit");
    assert_eq!(exit.cause(), Cause::ModelMissing);
    assert_eq!(exit.ending.evidence.as_deref(), Some("no"));
    assert_eq!(exit.action, "held; next try in 15 min");
}

#[test]
fn a_start_that_fails_the_same_way_each_time_is_held_after_the_second() {
    for (nature, first, second) in [
        (Nature::Configuration, EngineState::Starting, EngineState::Held),
        (Nature::Engine, EngineState::Starting, EngineState::Backoff),
        (Nature::Environment, EngineState::Backoff, EngineState::Backoff),
        (Nature::Shortage, EngineState::Backoff, EngineState::Backoff),
    ] {
        let mut story = Story::new(StartMode::Always);
        story.step(1.0, SpawnFailed(nature));
        assert_eq!(story.engine.state(), first, "the first may be a slip: {nature:?}");
        story.step(3.0, Wait);
        story.step(3.1, SpawnFailed(nature));
        assert_eq!(story.engine.state(), second, "{nature:?}");
    }
}

#[test]
fn a_held_on_demand_engine_that_is_not_needed_keeps_its_pause() {
    let mut story = Story::new(StartMode::OnDemand);
    for seconds in [1.0, 10.0, 20.0] {
        story.step(seconds, Demand(true));
        story.step(seconds, SpawnFailed(Nature::Engine));
        story.step(seconds + 5.0, Demand(true));
    }
    check(
        story,
        &[
            (30.0, Demand(false), ""),
            (700.0, Demand(true), ""),
            (701.0, Demand(false), ""),
            (920.0, Demand(false), "start 4, Starting"),
        ],
    );
}

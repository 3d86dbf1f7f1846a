use super::*;

const PACE: Pace = Pace {
    every: Duration::from_secs(5),
    soft: Duration::from_secs(3),
    hard: Duration::from_secs(10),
    first: Duration::from_secs(60),
    kill: Duration::from_secs(5),
    again: Duration::from_secs(1),
    again_max: Duration::from_secs(300),
    no_driver: Duration::from_secs(600),
    stable: Duration::from_secs(300),
};

fn at(seconds: u64) -> Moment {
    Moment::from_nanos(seconds * 1_000_000_000)
}

fn reading() -> Said {
    Said::Reading { driver: Some("550.1".to_owned()) }
}

/// A machine, the clock in seconds, and what it said last.
struct World {
    prober: Prober,
    now: u64,
}

impl World {
    fn new() -> Self {
        Self { prober: Prober::new(PACE, at(0)), now: 0 }
    }

    #[track_caller]
    fn on(&mut self, event: ProbeEvent, expected: &[ProbeAction]) {
        let told = format!("{event:?} at {} in {:?}", self.now, self.prober.stage);
        assert_eq!(self.prober.on(at(self.now), event), expected, "{told}");
    }

    /// Goes to the next deadline, which must be at `seconds`.
    #[track_caller]
    fn due(&mut self, seconds: u64, expected: &[ProbeAction]) {
        assert_eq!(self.prober.next_deadline(), Some(at(seconds)), "{:?}", self.prober.stage);
        self.now = seconds;
        self.on(ProbeEvent::Deadline, expected);
    }

    #[track_caller]
    fn says(&self, state: ProbeState, since: u64, reason: &str) {
        let status = self.prober.status();
        assert_eq!((status.state, status.since), (state, at(since)));
        assert_eq!(status.reason, reason);
    }

    /// With a process that has answered once, at second 0.
    fn answering() -> Self {
        let mut world = Self::new();
        world.due(0, &[ProbeAction::Spawn]);
        world.on(ProbeEvent::Spawned, &[ProbeAction::Ask(1)]);
        world.on(ProbeEvent::Answered(1, reading()), &[ProbeAction::Take]);
        world
    }
}

#[test]
fn it_asks_every_five_seconds_and_says_ok() {
    let mut world = World::new();
    world.says(ProbeState::Starting, 0, "the first reading has not come yet");
    world.due(0, &[ProbeAction::Spawn]);
    assert_eq!(world.prober.next_deadline(), None);
    world.on(ProbeEvent::Spawned, &[ProbeAction::Ask(1)]);
    world.now = 2;
    world.on(ProbeEvent::Answered(1, reading()), &[ProbeAction::Take]);
    world.says(ProbeState::Ok, 2, "it answers");
    assert_eq!(world.prober.status().driver.as_deref(), Some("550.1"));
    world.due(7, &[ProbeAction::Ask(2)]);
    world.on(ProbeEvent::Answered(2, reading()), &[ProbeAction::Take]);
    world.says(ProbeState::Ok, 2, "it answers");
    world.due(12, &[ProbeAction::Ask(3)]);
}

#[test]
fn a_deadline_that_is_not_due_changes_nothing() {
    let mut world = World::answering();
    world.now = 4;
    world.on(ProbeEvent::Deadline, &[]);
    world.due(5, &[ProbeAction::Ask(2)]);
    world.now = 7;
    world.on(ProbeEvent::Deadline, &[]);
    world.says(ProbeState::Ok, 0, "it answers");
}

#[test]
fn a_late_answer_is_taken_and_a_hang_is_killed() {
    let mut world = World::answering();
    world.due(5, &[ProbeAction::Ask(2)]);
    world.due(8, &[]);
    world.says(ProbeState::Unresponsive, 8, "no answer for 3 s");
    world.now = 9;
    world.on(ProbeEvent::Answered(2, reading()), &[ProbeAction::Take]);
    world.says(ProbeState::Ok, 9, "it answers");
    world.due(14, &[ProbeAction::Ask(3)]);
    world.due(17, &[]);
    world.due(24, &[ProbeAction::Kill]);
    world.says(
        ProbeState::Unresponsive,
        17,
        "no answer for 10 s; the probe was killed; another one follows after 1 s",
    );
    world.on(ProbeEvent::Answered(3, reading()), &[]);
    world.says(
        ProbeState::Unresponsive,
        17,
        "no answer for 10 s; the probe was killed; another one follows after 1 s",
    );
    world.on(ProbeEvent::Ended, &[]);
    world.due(25, &[ProbeAction::Spawn]);
}

#[test]
fn the_first_answer_of_a_process_may_take_a_minute() {
    let mut world = World::new();
    world.due(0, &[ProbeAction::Spawn]);
    world.on(ProbeEvent::Spawned, &[ProbeAction::Ask(1)]);
    world.due(3, &[]);
    world.says(ProbeState::Unresponsive, 3, "no answer for 3 s");
    world.due(60, &[ProbeAction::Kill]);
}

#[test]
fn what_survives_kill_is_abandoned_and_nothing_is_started_beside_it() {
    let mut world = World::answering();
    world.due(5, &[ProbeAction::Ask(2)]);
    world.due(8, &[]);
    world.due(15, &[ProbeAction::Kill]);
    assert!(!world.prober.is_wedged());
    world.due(20, &[]);
    assert!(world.prober.is_wedged());
    assert_eq!(world.prober.status().state, ProbeState::Wedged);
    assert_eq!(world.prober.next_deadline(), None);
    world.now = 100_000;
    world.on(ProbeEvent::Deadline, &[]);
    world.on(ProbeEvent::Answered(2, reading()), &[]);
    world.on(ProbeEvent::Garbage("x".to_owned()), &[]);
    assert_eq!(world.prober.status().since, at(20));
    world.on(ProbeEvent::Ended, &[]);
    world.says(
        ProbeState::Unresponsive,
        100_000,
        "the probe that was stuck in the driver is gone; another one follows",
    );
    world.due(100_001, &[ProbeAction::Spawn]);
}

#[test]
fn a_hundred_crashes_cost_a_bounded_number_of_starts() {
    let mut world = World::answering();
    let mut pauses = Vec::new();
    for _ in 0..100 {
        world.on(ProbeEvent::Ended, &[]);
        assert_eq!(world.prober.status().state, ProbeState::Unresponsive);
        let next = world.prober.next_deadline().expect("another one").since(at(world.now)).as_secs();
        pauses.push(next);
        world.due(world.now + next, &[ProbeAction::Spawn]);
        let ask = world.prober.asked + 1;
        world.on(ProbeEvent::Spawned, &[ProbeAction::Ask(ask)]);
        world.on(ProbeEvent::Answered(ask, reading()), &[ProbeAction::Take]);
    }
    assert_eq!(pauses[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
    assert!(pauses[10..].iter().all(|pause| *pause == 300), "{pauses:?}");
}

#[test]
fn five_good_minutes_are_a_new_beginning() {
    let mut world = World::answering();
    world.on(ProbeEvent::Ended, &[]);
    world.due(1, &[ProbeAction::Spawn]);
    world.on(ProbeEvent::Spawned, &[ProbeAction::Ask(2)]);
    world.on(ProbeEvent::Answered(2, reading()), &[ProbeAction::Take]);
    world.now = 300;
    world.on(ProbeEvent::Ended, &[]);
    assert_eq!(world.prober.next_deadline(), Some(at(302)), "299 s are not five minutes");
    world.due(302, &[ProbeAction::Spawn]);
    world.on(ProbeEvent::Spawned, &[ProbeAction::Ask(3)]);
    world.on(ProbeEvent::Answered(3, reading()), &[ProbeAction::Take]);
    world.now = 602;
    world.on(ProbeEvent::Ended, &[]);
    world.says(ProbeState::Unresponsive, 602, "the probe crashed; another one follows after 1 s");
}

#[test]
fn without_a_driver_it_looks_again_after_ten_minutes_and_says_the_same() {
    let mut world = World::new();
    world.due(0, &[ProbeAction::Spawn]);
    world.on(ProbeEvent::Spawned, &[ProbeAction::Ask(1)]);
    let none = |ask| {
        ProbeEvent::Answered(ask, Said::NoDriver { driver: None, why: "no libnvidia-ml.so.1".to_owned() })
    };
    world.on(none(1), &[]);
    world.says(ProbeState::NoDriver, 0, "no libnvidia-ml.so.1");
    world.on(ProbeEvent::Ended, &[]);
    world.due(600, &[ProbeAction::Spawn]);
    world.on(ProbeEvent::Spawned, &[ProbeAction::Ask(2)]);
    world.says(ProbeState::NoDriver, 0, "no libnvidia-ml.so.1");
    world.on(none(2), &[]);
    world.says(ProbeState::NoDriver, 0, "no libnvidia-ml.so.1");
    // It does not go as it said.
    world.due(605, &[ProbeAction::Kill]);
    world.on(ProbeEvent::Ended, &[]);
    world.due(1205, &[ProbeAction::Spawn]);
}

#[test]
fn a_driver_that_cannot_be_asked_is_a_failure() {
    let mut world = World::new();
    world.due(0, &[ProbeAction::Spawn]);
    world.on(ProbeEvent::Spawned, &[ProbeAction::Ask(1)]);
    let failed = Said::Failed { driver: None, why: "not permitted".to_owned() };
    world.on(ProbeEvent::Answered(1, failed), &[]);
    world.says(ProbeState::Unresponsive, 0, "not permitted; another one follows after 1 s");
    world.on(ProbeEvent::Ended, &[]);
    world.due(1, &[ProbeAction::Spawn]);
    world.on(ProbeEvent::SpawnFailed("no memory".to_owned()), &[]);
    let why = "no probe could be started: no memory; 2 failures in a row, another one follows after 2 s";
    world.says(ProbeState::Unresponsive, 0, why);
    world.due(3, &[ProbeAction::Spawn]);
}

#[test]
fn garbage_ends_it_whenever_it_comes() {
    for resting in [true, false] {
        let mut world = World::answering();
        if !resting {
            world.due(5, &[ProbeAction::Ask(2)]);
        }
        world.on(ProbeEvent::Garbage("not JSON".to_owned()), &[ProbeAction::Kill]);
        world.on(ProbeEvent::Garbage("not JSON".to_owned()), &[]);
        let why = "the probe sent garbage: not JSON; another one follows after 1 s";
        assert_eq!(world.prober.status().reason, why);
    }
    let mut world = World::answering();
    world.on(ProbeEvent::Answered(1, reading()), &[ProbeAction::Kill]);
    let mut world = World::answering();
    world.due(5, &[ProbeAction::Ask(2)]);
    world.on(ProbeEvent::Answered(1, reading()), &[ProbeAction::Kill]);
}

#[test]
fn a_stop_kills_what_lives_and_starts_nothing_more() {
    let stopped = |mut world: World, expected: &[ProbeAction]| {
        world.on(ProbeEvent::Stop, expected);
        assert_eq!(world.prober.next_deadline(), None);
        for event in [ProbeEvent::Ended, ProbeEvent::Deadline, ProbeEvent::Answered(2, reading())] {
            world.on(event, &[]);
        }
    };
    stopped(World::new(), &[]);
    stopped(World::answering(), &[ProbeAction::Kill]);
    let mut asked = World::answering();
    asked.due(5, &[ProbeAction::Ask(2)]);
    stopped(asked, &[ProbeAction::Kill]);
    let mut killed = World::answering();
    killed.on(ProbeEvent::Garbage(String::new()), &[ProbeAction::Kill]);
    stopped(killed, &[]);
}

proptest::proptest! {
    /// Whatever comes in whatever order: never two processes, never a question to nobody, never a kill of nobody, and no
    /// deadline that is due again at once without anything having happened.
    #[test]
    fn there_is_never_more_than_one_process(steps in proptest::collection::vec((0_u8..9, 0_u64..400), 1..200)) {
        let mut prober = Prober::new(PACE, at(0));
        let (mut now, mut lives, mut starts) = (0, false, 0);
        for (what, later) in steps {
            now += later;
            let event = match what {
                0..4 | 8.. => ProbeEvent::Deadline,
                4 => ProbeEvent::Answered(prober.asked, reading()),
                5 => ProbeEvent::Garbage("g".to_owned()),
                6 | 7 if lives => { lives = false; ProbeEvent::Ended }
                6 => ProbeEvent::Answered(
                    prober.asked, Said::NoDriver { driver: None, why: String::new() }
                ),
                7 => ProbeEvent::Answered(
                    prober.asked, Said::Failed { driver: None, why: String::new() }
                ),
            };
            let mut open = prober.on(at(now), event);
            while let Some(action) = open.pop() {
                match action {
                    ProbeAction::Spawn => {
                        assert!(!lives, "a second process");
                        starts += 1;
                        lives = starts % 7 != 0;
                        let event = if lives {
                            ProbeEvent::Spawned
                        } else {
                            ProbeEvent::SpawnFailed("f".to_owned())
                        };
                        open.extend(prober.on(at(now), event));
                    }
                    ProbeAction::Ask(_) | ProbeAction::Kill => assert!(lives, "{action:?} of nobody"),
                    ProbeAction::Take => assert_eq!(prober.status().state, ProbeState::Ok),
                }
            }
            let overdue = prober.next_deadline().is_some_and(|due| due <= at(now));
            let again = prober.on(at(now), ProbeEvent::Deadline);
            assert!(!overdue || !again.is_empty() || prober.next_deadline().is_none_or(|due| due > at(now)));
            for action in again {
                if action == ProbeAction::Spawn {
                    assert!(!lives);
                    lives = true;
                    let _ = prober.on(at(now), ProbeEvent::Spawned);
                }
            }
            assert!(prober.is_wedged() <= lives, "wedged without a process");
        }
    }
}

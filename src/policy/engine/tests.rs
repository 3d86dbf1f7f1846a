//! Each test is a story: at a second, something happens to an engine, and this exact list of actions follows.
mod absence;
mod holds;
mod shutdown;

use super::*;
use crate::policy::stop::{SETTLE, SHIM_LATE};
use crate::policy::{Ending, Exit, Nature, Prepared, Restart, Settings, Startup};
use In::*;

const S: Duration = Duration::from_secs(1);

/// What can happen to an engine.
#[derive(Clone, Debug)]
enum In {
    Spawned,
    SpawnFailed(Nature),
    Activity,
    Still,
    Exited(i32),
    Ended,
    Survivors,
    Asked(Prepared),
    Op(Command),
    Demand(bool),
    Condemn,
    Drained,
    Down(Shutdown),
    /// Nothing but time.
    Wait,
}

fn settings(start: StartMode) -> EngineSettings {
    let restart = Restart {
        first: Duration::ZERO,
        base: S,
        max: 60 * S,
        stable: 600 * S,
        hold_after: 5,
        hold_retry: 900 * S,
    };
    EngineSettings {
        name: "primary".to_owned(),
        start,
        restart,
        startup: Startup { stall: 300 * S, cap: 3_600 * S },
        stop_grace: 30 * S,
        replaceable_worker: false,
    }
}

fn render(action: &Action) -> Option<String> {
    Some(match action {
        // The simulation looks at these.
        Action::SaveIntent { .. } | Action::Tell(Notice::Exit { .. }) => return None,
        Action::Start { run } => format!("start {}", run.number),
        Action::Cut { run } => format!("cut {}", run.number),
        Action::Terminate { run, grace } => format!("term {} {}", run.number, spell(*grace)),
        Action::Kill { run } => format!("kill {}", run.number),
        Action::Prepare { run, .. } => format!("prepare {}", run.number),
        Action::Tell(Notice::Engine { to, .. }) => format!("{to:?}"),
        other => format!("{other:?}"),
    })
}

fn at(seconds: f64) -> Moment {
    Moment::from_nanos((seconds * 1e9) as u64)
}

struct Story {
    engine: Engine,
    turn: Turn,
}

impl Story {
    fn new(start: StartMode) -> Self {
        let settings = Settings { engines: vec![settings(start)], tiers: vec![], drain: 20 * S, seed: 1 };
        let engine = Engine::new(EngineId(0), settings.engines[0].clone(), 0, settings.drain, at(0.0));
        let mut story = Self { engine, turn: Turn::new(at(0.0), settings.seed) };
        story.engine.resume(&mut story.turn);
        story
    }

    fn step(&mut self, seconds: f64, happens: In) -> String {
        let (engine, turn) = (&mut self.engine, &mut self.turn);
        turn.now = at(seconds);
        let ending = |code| Ending {
            exit: Exit::Code(code),
            cause: Cause::Unknown,
            nature: Nature::Engine,
            deterministic: None,
            evidence: None,
        };
        match happens {
            Spawned => engine.event(EngineEvent::Spawned { pid: 1 }, turn),
            SpawnFailed(nature) => {
                let (cause, evidence) = (Cause::Unknown, "x".into());
                engine.event(EngineEvent::SpawnFailed { cause, nature, evidence }, turn)
            }
            Activity => engine.event(EngineEvent::Activity, turn),
            Still => engine.event(EngineEvent::Still(super::Still::default()), turn),
            Exited(code) => engine.event(EngineEvent::Exited(ending(code)), turn),
            Ended => engine.event(EngineEvent::Ended(Remains::Nothing), turn),
            Survivors => engine.event(EngineEvent::Ended(Remains::Processes(vec![7])), turn),
            Asked(prepared) => engine.prepared(prepared, turn),
            Op(command) => engine.operator(command, turn),
            Demand(needed) => engine.demand(needed, turn),
            Condemn => engine.condemn(Blame::hang("stuck".to_owned()), turn),
            Drained => engine.drained(turn),
            Down(shutdown) => engine.shutdown(shutdown, turn),
            Wait => {}
        }
        while self.engine.deadline().is_some_and(|due| due <= self.turn.now) {
            self.engine.due(&mut self.turn);
        }
        self.taken()
    }

    fn taken(&mut self) -> String {
        let actions = std::mem::take(&mut self.turn.actions);
        actions.iter().filter_map(render).collect::<Vec<_>>().join(", ")
    }

    fn ready(start: StartMode) -> Self {
        let mut story = Self::new(start);
        story.step(0.0, Demand(true));
        story.step(0.1, Op(Command::Start));
        story.step(1.0, Spawned);
        story.step(10.0, Asked(Prepared::Ready));
        assert_eq!(story.engine.state(), EngineState::Ready);
        story
    }
}

fn check(mut story: Story, steps: &[(f64, In, &str)]) -> Story {
    story.taken();
    for (seconds, happens, expected) in steps {
        let got = story.step(*seconds, happens.clone());
        assert_eq!(got, *expected, "at {seconds} s, {happens:?}");
    }
    story
}

fn always() -> Story {
    Story::ready(StartMode::Always)
}

#[test]
fn a_start_is_asked_often_at_first_and_then_once_a_second() {
    let mut story = Story::new(StartMode::Always);
    assert_eq!(story.taken(), "start 1, Starting");
    let not_yet = || Asked(Prepared::NotYet);
    check(
        story,
        &[
            (0.5, Spawned, "prepare 1"),
            (0.6, not_yet(), ""),
            (0.84, Wait, ""),
            (0.85, Wait, "prepare 1"),
            (20.0, not_yet(), ""),
            (20.9, Wait, ""),
            (21.0, Wait, "prepare 1"),
            (21.5, Asked(Prepared::Ready), "Ready"),
        ],
    );
}

#[test]
fn an_exit_with_code_zero_is_a_failure_and_the_first_restart_is_at_once() {
    let story = check(
        always(),
        &[(20.0, Exited(0), "Stopping, cut 1"), (20.5, Wait, ""), (20.6, Ended, "start 2, Starting")],
    );
    let status = story.engine.status();
    assert_eq!((status.strikes, status.restarts), (1, 1));
    assert_eq!(status.last_exit.map(|exit| exit.action), Some("restarted at once".to_owned()));
}

/// The simulation never says it twice; a shim that is asked again may.
#[test]
fn the_exit_of_a_run_is_told_once() {
    let mut story = always();
    let ending = Blame::unknown().ending(Exit::Code(1));
    for _ in 0..3 {
        story.engine.event(EngineEvent::Exited(ending.clone()), &mut story.turn);
    }
    let is_exit = |action: &&Action| matches!(action, Action::Tell(Notice::Exit { .. }));
    assert_eq!(story.turn.actions.iter().filter(is_exit).count(), 1);
}

#[test]
fn what_was_announced_reads_as_history_when_it_is_done() {
    let said = |story: &Story| story.engine.status().last_exit.expect("an exit").action;
    let twice = [
        (20.0, Exited(0), "Stopping, cut 1"),
        (20.5, Ended, "start 2, Starting"),
        (21.0, Spawned, "prepare 2"),
        (21.5, Asked(Prepared::Ready), "Ready"),
        (22.0, Exited(0), "Stopping, cut 2"),
        (22.0, Ended, "Backoff"),
    ];
    let paused = check(always(), &twice);
    assert!(said(&paused).starts_with("restart in "), "{}", said(&paused));
    let again = check(paused, &[(30.0, Wait, "start 3, Starting")]);
    assert_eq!(said(&again), "restarted after 8 s");
    let stopped = check(check(always(), &twice), &[(30.0, Op(Command::Stop), "Stopped")]);
    assert_eq!(said(&stopped), "not restarted");
}

#[test]
fn orphans_are_killed_before_the_next_start_and_not_before_they_had_their_moment() {
    let kill = 20.0 + (SETTLE + SHIM_LATE).as_secs_f64();
    check(
        always(),
        &[
            (20.0, Exited(1), "Stopping, cut 1"),
            (kill - 0.1, Wait, ""),
            (kill, Wait, "kill 1"),
            (kill + 0.1, Ended, "start 2, Starting"),
        ],
    );
}

#[test]
fn the_second_strike_waits_a_second_or_so() {
    let mut story = check(
        always(),
        &[
            (20.0, Exited(1), "Stopping, cut 1"),
            (20.0, Ended, "start 2, Starting"),
            (21.0, Spawned, "prepare 2"),
            (22.0, Exited(1), "Stopping, cut 2"),
            (22.0, Ended, "Backoff"),
        ],
    );
    let next = story.engine.next_start().expect("a next start").since(at(22.0));
    assert!(next >= S * 3 / 4 && next <= S * 5 / 4, "{next:?}");
    assert_eq!(story.step(23.3, Wait), "start 3, Starting");
}

#[test]
fn a_start_without_progress_is_given_up_and_one_with_progress_only_at_the_cap() {
    check(
        Story::new(StartMode::Always),
        &[(1.0, Spawned, "prepare 1"), (300.0, Wait, ""), (301.0, Wait, "Stopping, cut 1, term 1 5 s")],
    );
    let mut story = Story::new(StartMode::Always);
    story.step(1.0, Spawned);
    for second in 2..301 {
        assert_eq!(story.step(f64::from(second), Still), "");
    }
    assert_eq!(story.step(301.0, Still), "Stopping, cut 1, term 1 5 s");
    assert_eq!(story.engine.excuse(), "stopping: hang: no progress for 5 min while starting: no new line");
    let mut story = Story::new(StartMode::Always);
    story.step(1.0, Spawned);
    for minute in 1..60 {
        assert_eq!(story.step(f64::from(minute) * 60.0, Activity), "");
    }
    assert_eq!(story.step(3_600.0, Activity), "Stopping, cut 1, term 1 5 s");
    assert_eq!(story.engine.excuse(), "stopping: hang: not ready after 60 min");
}

#[test]
fn a_restart_drains_then_cuts_then_terminates_and_is_no_strike() {
    let story = check(
        always(),
        &[
            (20.0, Op(Command::Restart), "Stopping"),
            (25.0, Wait, ""),
            (26.0, Drained, "cut 1, term 1 30 s"),
            (27.0, Exited(0), ""),
            (27.1, Ended, "start 2, Starting"),
        ],
    );
    let status = story.engine.status();
    assert_eq!((status.strikes, status.restarts), (0, 1));
    assert_eq!(status.last_exit.map(|exit| exit.cause()), Some(Cause::Asked));
}

#[test]
fn a_drain_ends_at_its_deadline_and_every_later_step_at_its_own() {
    check(
        always(),
        &[
            (20.0, Op(Command::Stop), "Stopping"),
            (39.9, Wait, ""),
            (40.0, Wait, "cut 1, term 1 30 s"),
            (74.9, Wait, ""),
            (75.0, Wait, "kill 1"),
            (109.9, Wait, ""),
            (110.0, Wait, "Wedged"),
            (170.0, Wait, "kill 1"),
            (200.0, Ended, "Stopped"),
        ],
    );
}

#[test]
fn a_stopped_engine_stays_stopped_until_somebody_starts_it() {
    check(
        always(),
        &[
            (20.0, Op(Command::Stop), "Stopping"),
            (20.5, Drained, "cut 1, term 1 30 s"),
            (21.0, Ended, "Stopped"),
            (90_000.0, Demand(true), ""),
            (90_000.0, Op(Command::Stop), ""),
            (90_001.0, Op(Command::Start), "start 2, Starting"),
        ],
    );
}

#[test]
fn the_last_command_during_a_stop_decides_what_comes_after_it() {
    check(
        always(),
        &[
            (20.0, Op(Command::Stop), "Stopping"),
            (20.1, Op(Command::Start), ""),
            (20.5, Drained, "cut 1, term 1 30 s"),
            (21.0, Ended, "start 2, Starting"),
            (22.0, Op(Command::Restart), "Stopping, cut 2, term 2 30 s"),
            (22.1, Op(Command::Stop), ""),
            (22.2, Ended, "Stopped"),
        ],
    );
}

#[test]
fn a_hang_is_not_drained_and_is_a_strike() {
    let story = check(
        always(),
        &[
            (20.0, Condemn, "Stopping, cut 1, term 1 5 s"),
            (30.0, Wait, "kill 1"),
            (30.1, Exited(137), ""),
            (30.2, Ended, "start 2, Starting"),
        ],
    );
    let status = story.engine.status();
    let exit = status.last_exit.expect("an exit");
    assert_eq!((status.strikes, exit.cause()), (1, Cause::Hang));
    assert_eq!((exit.ending.exit, exit.ending.evidence.as_deref()), (Exit::Code(137), Some("stuck")));
}

#[test]
fn survivors_of_sigkill_keep_the_next_run_away() {
    check(
        always(),
        &[
            (20.0, Exited(1), "Stopping, cut 1"),
            (20.5, Survivors, "Wedged"),
            (21.0, Op(Command::Start), "kill 1"),
            (81.0, Wait, "kill 1"),
            (90.0, Ended, "Backoff"),
            (95.0, Wait, "start 2, Starting"),
        ],
    );
}

#[test]
fn an_end_that_was_asked_for_is_no_strike_even_when_it_was_wedged() {
    let story = check(
        always(),
        &[
            (20.0, Op(Command::Restart), "Stopping"),
            (20.1, Drained, "cut 1, term 1 30 s"),
            (20.2, Survivors, "Wedged"),
            (90.0, Ended, "Backoff"),
            (90.9, Wait, ""),
            (91.0, Wait, "start 2, Starting"),
        ],
    );
    let status = story.engine.status();
    assert_eq!((status.strikes, status.last_exit.map(|exit| exit.cause())), (0, Some(Cause::Asked)));
}

#[test]
fn strikes_are_forgiven_by_a_stable_run_only() {
    let mut story = always();
    story.step(20.0, Exited(1));
    story.step(20.0, Ended);
    story.step(21.0, Spawned);
    // It took 400 s to start, so stable means 800 s.
    story.step(320.0, Activity);
    story.step(420.0, Asked(Prepared::Ready));
    story.step(1_219.0, Wait);
    assert_eq!(story.engine.status().strikes, 1);
    story.step(1_220.0, Wait);
    assert_eq!(story.engine.status().strikes, 0);
}

#[test]
fn on_demand_runs_while_needed_and_ten_minutes_more() {
    let mut story = Story::new(StartMode::OnDemand);
    assert_eq!(story.taken(), "");
    let story = check(
        story,
        &[
            (1.0, Demand(false), ""),
            (2.0, Demand(true), "start 1, Starting"),
            (3.0, Spawned, "prepare 1"),
            (4.0, Asked(Prepared::Ready), "Ready"),
            (100.0, Demand(false), ""),
            (600.0, Demand(true), ""),
            (700.0, Demand(false), ""),
            (1_299.0, Demand(false), ""),
            (1_300.0, Demand(false), "Stopping"),
            (1_300.5, Drained, "cut 1, term 1 30 s"),
            (1_301.0, Ended, "Stopped"),
            (1_302.0, Demand(true), "start 2, Starting"),
        ],
    );
    assert_eq!(story.engine.status().strikes, 0);
}

#[test]
fn manual_is_started_by_an_operator_and_restarted_when_it_dies() {
    let mut story = Story::new(StartMode::Manual);
    assert_eq!(story.taken(), "");
    check(
        story,
        &[
            (5.0, Demand(true), ""),
            (6.0, Op(Command::Restart), "start 1, Starting"),
            (7.0, Spawned, "prepare 1"),
            (8.0, Exited(1), "Stopping, cut 1"),
            (8.1, Ended, "start 2, Starting"),
        ],
    );
}

//! Whole hosts in short stories: what the agent is told to do, and what everybody else can see.
mod absence;
mod last_resort;
mod waiting;

use super::*;
use crate::policy::{
    Cause, Check, Command, Ending, EngineEvent, EngineSettings, Exit, Health, Nature, Remains, Restart,
    Sample, Saved, Startup, Ticket, TierSettings,
};

const S: Duration = Duration::from_secs(1);
const T0: TierId = TierId(0);
const T1: TierId = TierId(1);

fn at(seconds: f64) -> Moment {
    Moment::from_nanos((seconds * 1e9) as u64)
}

fn engine(start: StartMode) -> EngineSettings {
    let first = Duration::ZERO;
    let restart =
        Restart { first, base: S, max: 60 * S, stable: 600 * S, hold_after: 5, hold_retry: 900 * S };
    let startup = Startup { stall: 300 * S, cap: 3_600 * S };
    EngineSettings {
        name: "e".to_owned(),
        start,
        restart,
        startup,
        stop_grace: 30 * S,
        replaceable_worker: false,
    }
}

fn host(modes: &[StartMode]) -> (Host, Vec<Action>) {
    host_with_remotes(modes, 0, 20 * S)
}

/// Local tiers first, then so many remote ones.
fn host_with_remotes(modes: &[StartMode], remotes: usize, drain: Duration) -> (Host, Vec<Action>) {
    let check = Check { interval: 10 * S, timeout: 5 * S, slow: 2 * S, failures: 3 };
    let place = |rank: usize| {
        if rank < modes.len() { Place::Local(EngineId(rank as u16)) } else { Place::Remote }
    };
    let tier = |rank: usize| TierSettings {
        name: format!("t{rank}"),
        place: place(rank),
        check,
        silence: 10 * S,
        silence_on_cpu: 120 * S,
        silence_on_gpu: 10 * S,
        wants_gpu: true,
        suspect: 60 * S,
    };
    let settings = Settings {
        engines: modes.iter().copied().map(engine).collect(),
        tiers: (0..modes.len() + remotes).map(tier).collect(),
        drain,
        seed: 1,
    };
    Host::resume(settings, &Saved::default(), at(0.0))
}

fn run(tier: TierId, number: u64) -> RunId {
    RunId { engine: EngineId(tier.0), number }
}

fn starts(actions: &[Action]) -> Vec<RunId> {
    let start = |action: &Action| if let Action::Start { run } = action { Some(*run) } else { None };
    actions.iter().filter_map(start).collect()
}

/// The checks that are asked for.
fn checks(actions: &[Action]) -> impl Iterator<Item = Ticket> {
    let check =
        |action: &Action| if let Action::Check { ticket, .. } = action { Some(*ticket) } else { None };
    actions.iter().filter_map(check)
}

fn notices(actions: Vec<Action>) -> Vec<Notice> {
    use Notice::{AllDown, Failover, Return, Serving};
    let told = |action: Action| if let Action::Tell(notice) = action { Some(notice) } else { None };
    let of_chain =
        |notice: &Notice| matches!(notice, Serving { .. } | Failover { .. } | Return { .. } | AllDown { .. });
    actions.into_iter().filter_map(told).filter(of_chain).collect()
}

/// Steps whenever it is time to, as the agent does, up to this second.
fn wait(host: &mut Host, seconds: f64) -> Vec<Action> {
    let mut actions = Vec::new();
    while let Some(due) = host.next_deadline().filter(|due| *due < at(seconds)) {
        actions.extend(host.step(due, Event::Deadline));
    }
    actions
}

/// Brings a starting run to ready.
fn make_ready(host: &mut Host, seconds: f64, run: RunId) -> Vec<Action> {
    wait(host, seconds);
    let actions = host.step(at(seconds), Event::Engine(run, EngineEvent::Spawned { pid: 1 }));
    let prepare = |action: &Action| {
        if let Action::Prepare { ticket, run } = action { Some((*run, *ticket)) } else { None }
    };
    let asked = actions.iter().filter_map(prepare).find(|(of, _)| *of == run);
    let (_, ticket) = asked.expect("a spawned engine is asked whether it answers");
    host.step(at(seconds), Event::Done(ticket, Outcome::Prepared(Prepared::Ready)))
}

fn exited(run: RunId) -> Event {
    let ending = Ending {
        exit: Exit::Signal(9),
        cause: Cause::KilledFromOutside,
        nature: Nature::Engine,
        deterministic: None,
        evidence: None,
    };
    Event::Engine(run, EngineEvent::Exited(ending))
}

fn ended(run: RunId) -> Event {
    Event::Engine(run, EngineEvent::Ended(Remains::Nothing))
}

fn standings(host: &Host) -> Vec<Standing> {
    host.routes().iter().map(|route| route.standing).collect()
}

#[test]
fn a_start_starts_what_is_always_wanted_and_what_stands_in_for_it() {
    let (_, actions) = host(&[StartMode::Always, StartMode::OnDemand, StartMode::Manual]);
    assert_eq!(starts(&actions), [run(T0, 1), run(T1, 1)]);
    let intents = actions.iter().filter(|action| matches!(action, Action::SaveIntent { .. })).count();
    assert_eq!(intents, 2);
}

#[test]
fn an_engine_that_is_started_because_it_is_needed_is_not_told_to_be_stopped() {
    let (mut host, _) = host(&[StartMode::Always, StartMode::OnDemand]);
    assert_eq!(host.routes()[1].reason, "starting");
    make_ready(&mut host, 1.0, run(T0, 1));
    host.step(at(601.0), Event::Deadline);
    host.step(at(602.0), ended(run(T1, 1)));
    assert_eq!(host.routes()[1].reason, "stopped");
    let lost = host.step(at(603.0), exited(run(T0, 1)));
    assert_eq!(starts(&lost), [run(T1, 2)]);
    assert_eq!(host.routes()[1].reason, "starting");
    let why = "stopping: killed-from-outside (SIGKILL); starting".to_owned();
    let cause = Some(Cause::KilledFromOutside);
    assert_eq!(notices(lost), [Notice::AllDown { from: Some(T0), cause, why }]);
}

#[test]
fn serving_fails_over_and_returns() {
    use Standing::{Closed, Open};
    let (mut host, _) = host(&[StartMode::Always, StartMode::Always]);
    assert_eq!(host.sample_interval(), None);
    let first = make_ready(&mut host, 1.0, run(T1, 1));
    assert_eq!(notices(first), [Notice::Serving { from: None, to: Some(T1), why: "ready".into() }]);
    let better = make_ready(&mut host, 2.0, run(T0, 1));
    assert_eq!(notices(better), [Notice::Serving { from: Some(T1), to: Some(T0), why: "ready".into() }]);
    assert_eq!((standings(&host), host.sample_interval()), (vec![Open, Open], Some(S)));
    let why = "stopping: killed-from-outside (SIGKILL)".to_owned();
    let cause = Some(Cause::KilledFromOutside);
    let lost = host.step(at(3.0), exited(run(T0, 1)));
    assert_eq!(notices(lost), [Notice::Failover { from: T0, to: T1, cause, why }]);
    assert_eq!(standings(&host), [Closed, Open]);
    assert_eq!(starts(&host.step(at(3.1), ended(run(T0, 1)))), [run(T0, 2)]);
    let back = make_ready(&mut host, 9.0, run(T0, 2));
    assert_eq!(notices(back), [Notice::Return { from: T1, to: T0 }]);
}

#[test]
fn what_an_operator_stopped_is_not_wanted_and_what_died_is() {
    let (mut host, _) = host_with_remotes(&[StartMode::Always, StartMode::OnDemand], 1, S);
    let wanted = |host: &Host| host.routes().iter().map(|route| route.wanted).collect::<Vec<_>>();
    make_ready(&mut host, 1.0, run(T0, 1));
    host.step(at(2.0), exited(run(T0, 1)));
    assert_eq!(wanted(&host), [true, true, true], "the second one stands in");
    host.step(at(3.0), Event::Operator(T1, Command::Stop));
    host.step(at(3.0), Event::Operator(T0, Command::Stop));
    assert_eq!(wanted(&host), [false, false, true]);
    host.step(at(4.0), Event::Operator(T0, Command::Start));
    assert_eq!(wanted(&host), [true, false, true]);
}

#[test]
fn an_outage_from_the_very_start_is_told_when_every_remote_tier_was_checked_in_vain() {
    let (mut host, mut actions) = host_with_remotes(&[], 2, S);
    let mut told = Vec::new();
    for second in 1..60 {
        let tickets: Vec<Ticket> = checks(&actions).collect();
        told.extend(notices(std::mem::take(&mut actions)));
        for ticket in tickets {
            let failed = Outcome::Checked(Checked::Failed(CheckFailure::DeadEnd));
            actions.extend(host.step(at(f64::from(second)), Event::Done(ticket, failed)));
        }
        actions.extend(host.step(at(f64::from(second)), Event::Deadline));
    }
    let cause = Some(Cause::Unknown);
    assert!(
        matches!(told.as_slice(), [Notice::AllDown { from: None, cause: seen, .. }] if *seen == cause),
        "{told:?}"
    );
}

/// When clients are told to try again, in seconds from then; `None` when nothing is known.
fn retry(host: &Host, seconds: f64) -> Option<(Duration, bool)> {
    host.status().retry.map(|Retry { at: again, unforeseen }| (again.since(at(seconds)), unforeseen))
}

#[test]
fn when_nothing_can_answer_clients_are_told_when_a_start_will_be_over() {
    let (mut host, _) = host(&[StartMode::Always]);
    assert_eq!(retry(&host, 0.0), None, "nobody has ever seen it start");
    make_ready(&mut host, 9.0, run(T0, 1));
    assert_eq!(retry(&host, 9.0), None, "it serves");
    let lost = host.step(at(20.0), exited(run(T0, 1)));
    assert!(matches!(notices(lost).as_slice(), [Notice::AllDown { .. }]));
    assert_eq!(retry(&host, 20.0), Some((9 * S, false)), "its next start comes at once");
    host.step(at(21.0), ended(run(T0, 1)));
    assert_eq!(retry(&host, 21.0), Some((9 * S, false)));
    assert_eq!(retry(&host, 26.0), Some((4 * S, false)));
    assert_eq!(retry(&host, 99.0), Some((Duration::ZERO, false)), "overdue");
    make_ready(&mut host, 24.0, run(T0, 2));
    host.step(at(25.0), exited(run(T0, 2)));
    let foreseen = retry(&host, 25.0).expect("a pause, and the last start took 3 s").0;
    assert!(foreseen >= S * 15 / 4 && foreseen <= S * 17 / 4, "{foreseen:?}");
    host.step(at(25.0), ended(run(T0, 2)));
    assert_eq!(retry(&host, 25.0), Some((foreseen, false)), "it came as foreseen");
    assert!(host.status().tiers[0].reason.starts_with("restart in"), "{}", host.status().tiers[0].reason);
}

#[test]
fn the_earliest_counts_and_what_nobody_can_foresee_may_be_earlier() {
    let (mut two, _) = host(&[StartMode::Always, StartMode::Always]);
    make_ready(&mut two, 50.0, run(T0, 1));
    two.step(at(60.0), exited(run(T0, 1)));
    two.step(at(60.0), ended(run(T0, 1)));
    assert_eq!(retry(&two, 70.0), Some((40 * S, true)), "the other one starts for the first time");
    make_ready(&mut two, 70.0, run(T1, 1));
    wait(&mut two, 80.0);
    two.step(at(80.0), Event::Operator(T1, Command::Stop));
    assert_eq!(retry(&two, 80.0), Some((30 * S, false)), "what is stopped for good is not waited for");
    let (mut beside_remote, _) = host_with_remotes(&[StartMode::Always], 1, 20 * S);
    make_ready(&mut beside_remote, 5.0, run(T0, 1));
    beside_remote.step(at(6.0), Event::Tier(T1, TierEvent::Refused { at: at(6.0) }));
    beside_remote.step(at(7.0), exited(run(T0, 1)));
    assert_eq!(retry(&beside_remote, 7.0), Some((5 * S, true)));
}

#[test]
fn what_this_host_could_not_ask_is_no_failure_is_told_and_is_asked_again() {
    let (mut host, _) = host(&[StartMode::Always]);
    let short = Unasked { cause: Cause::DiskFull, why: "no free file descriptor".to_owned() };
    let mut asked = 0_u32;
    let mut actions = make_ready(&mut host, 1.0, run(T0, 1));
    for second in 2..200 {
        if let Some(ticket) = checks(&actions).next() {
            asked += 1;
            host.step(at(f64::from(second)), Event::Done(ticket, Outcome::NotAsked(short.clone())));
        }
        let tier = host.status().tiers.remove(0);
        assert_eq!((tier.check.failures, standings(&host)), (0, vec![Standing::Open]));
        let (health, cause) = match asked {
            0..3 => (Health::Healthy, None),
            3.. => (Health::Degraded, Some(Cause::DiskFull)),
        };
        assert_eq!((tier.health, tier.cause), (health, cause), "after {asked} checks");
        assert!(asked == 0 || tier.reason.contains("could not be made: no free file descriptor"));
        actions = host.step(at(f64::from(second) + 0.5), Event::Deadline);
    }
    assert!(asked > 90, "{asked}");
    actions.extend(host.step(at(202.0), Event::Deadline));
    let ticket = checks(&actions).next().expect("it is asked again");
    let passed = Checked::Passed { latency: Duration::from_millis(1) };
    host.step(at(202.0), Event::Done(ticket, Outcome::Checked(passed)));
    let tier = host.status().tiers.remove(0);
    assert_eq!((tier.health, tier.cause, tier.reason.as_str()), (Health::Healthy, None, "answered in 1 ms"));
}

#[test]
fn a_drain_waits_for_a_sample_that_is_younger_than_it() {
    let (mut host, _) = host(&[StartMode::Always]);
    make_ready(&mut host, 1.0, run(T0, 1));
    let sampled = |in_flight| Event::Tier(T0, TierEvent::Sampled(Sample { in_flight, ..Sample::default() }));
    host.step(at(2.0), sampled(0));
    let cut = |actions: Vec<Action>| actions.contains(&Action::Cut { run: run(T0, 1) });
    assert!(!cut(host.step(at(2.1), Event::Operator(T0, Command::Restart))));
    assert_eq!(host.sample_interval(), Some(S / 10));
    assert!(!cut(host.step(at(2.12), sampled(0))), "the routes have only just changed");
    assert!(!cut(host.step(at(2.2), sampled(3))));
    assert!(cut(host.step(at(2.3), sampled(0))));
}

/// What comes of an action while engines hang: every check passes, every counter stands, every Try fails.
fn outcome_in_a_hang(action: &Action) -> Option<Event> {
    let (ticket, outcome) = if let Action::Check { ticket, .. } = action {
        (ticket, Outcome::Checked(Checked::Passed { latency: S / 100 }))
    } else if let Action::Count { ticket, .. } = action {
        (ticket, Outcome::Counted(Some(7)))
    } else if let Action::Try { ticket, .. } = action {
        (ticket, Outcome::Tried(Tried::TimedOut))
    } else {
        return None;
    };
    Some(Event::Done(*ticket, outcome))
}

/// Runs a host whose engines hang, second by second.
fn hang(host: &mut Host, seconds: std::ops::Range<u64>, in_flight: &[u32]) -> Vec<Action> {
    let mut all = Vec::new();
    for second in seconds {
        let mut asked = host.step(at(second as f64), Event::Deadline);
        for (rank, in_flight) in in_flight.iter().enumerate() {
            let sample = Sample { in_flight: *in_flight, last_progress: at(2.0), ..Sample::default() };
            let tier = TierId(rank as u16);
            asked.extend(host.step(at(second as f64), Event::Tier(tier, TierEvent::Sampled(sample))));
        }
        while !asked.is_empty() {
            let mut more = Vec::new();
            for outcome in asked.iter().filter_map(outcome_in_a_hang) {
                more.extend(host.step(at(second as f64), outcome));
            }
            all.append(&mut asked);
            asked = more;
        }
    }
    all
}

#[test]
fn traffic_leaves_a_hung_tier_in_time_and_its_engine_is_restarted() {
    let (mut host, _) = host(&[StartMode::Always, StartMode::Always]);
    make_ready(&mut host, 1.0, run(T0, 1));
    make_ready(&mut host, 1.0, run(T1, 1));
    let actions = hang(&mut host, 2..19, &[2, 0]);
    assert!(matches!(notices(actions).as_slice(), [Notice::Failover { from: T0, to: T1, .. }]));
    assert_eq!(standings(&host), [Standing::Leaving, Standing::Open]);
    let actions = hang(&mut host, 19..80, &[2, 0]);
    let terminate = Action::Terminate { run: run(T0, 1), grace: 5 * S };
    assert!(actions.contains(&terminate), "{actions:?}");
    let cause = host.status().tiers[0].engine.as_ref().map(|engine| engine.state);
    assert_eq!(cause, Some(EngineState::Stopping));
}

#[test]
fn a_proven_hang_of_the_last_tier_is_an_outage_that_everybody_sees() {
    let (mut host, _) = host(&[StartMode::Always]);
    make_ready(&mut host, 1.0, run(T0, 1));
    hang(&mut host, 2..30, &[2]);
    let status = host.status();
    assert_eq!((status.tiers[0].health, status.tiers[0].routable), (Health::Down, false));
    assert_eq!((status.serving, standings(&host)), (None, vec![Standing::Leaving]));
}

#[test]
fn a_lost_ticket_is_a_time_out_and_its_late_outcome_is_nothing() {
    let (mut host, _) = host(&[StartMode::Always]);
    let actions = make_ready(&mut host, 1.0, run(T0, 1));
    let lost = checks(&actions).next().expect("a ready tier is checked");
    wait(&mut host, 11.1);
    assert_eq!(host.status().tiers[0].check.failures, 1);
    let passed = Outcome::Checked(Checked::Passed { latency: S });
    assert_eq!(host.step(at(11.5), Event::Done(lost, passed.clone())), []);
    assert_eq!(host.status().tiers[0].check.failures, 1);
    let again = host.step(at(12.0), Event::Deadline);
    host.step(at(12.1), Event::Done(checks(&again).next().expect("checked again"), passed));
    assert_eq!(host.status().tiers[0].check.failures, 0);
}

#[test]
fn a_shutdown_ends_in_one_finish_and_then_in_silence() {
    let (mut host, _) = host(&[StartMode::Always, StartMode::OnDemand]);
    make_ready(&mut host, 1.0, run(T0, 1));
    host.step(at(2.0), Event::Shutdown(Shutdown::Drain));
    assert_eq!(host.status().state, HostState::Draining);
    assert_eq!(host.step(at(3.0), Event::Operator(T0, Command::Start)), []);
    host.step(at(22.0), Event::Deadline);
    host.step(at(23.0), ended(run(T1, 1)));
    let last = host.step(at(24.0), ended(run(T0, 1)));
    assert_eq!(last.last(), Some(&Action::Finish));
    assert_eq!(host.status().state, HostState::Finished);
    assert_eq!(host.step(at(25.0), Event::Shutdown(Shutdown::Now)), []);
    assert_eq!((host.next_deadline(), host.sample_interval()), (None, None));
}

fn sampled(tier: TierId, in_flight: u32) -> Event {
    Event::Tier(tier, TierEvent::Sampled(Sample { in_flight, ..Sample::default() }))
}

fn finishes(actions: &[Action]) -> bool {
    actions.contains(&Action::Finish)
}

#[test]
fn a_shutdown_waits_for_open_answers_of_remote_tiers() {
    let (mut host, _) = host_with_remotes(&[], 2, 20 * S);
    for tier in [T0, T1] {
        host.step(at(1.0), sampled(tier, 0));
    }
    assert!(!finishes(&host.step(at(2.0), Event::Shutdown(Shutdown::Drain))), "no sample is younger");
    assert_eq!(host.sample_interval(), Some(S / 10));
    assert!(!finishes(&host.step(at(2.02), sampled(T0, 0))), "a request may just be on its way there");
    assert!(!finishes(&host.step(at(2.1), sampled(T0, 0))));
    assert!(!finishes(&host.step(at(2.1), sampled(T1, 2))));
    assert!(!finishes(&host.step(at(9.0), sampled(T1, 1))));
    assert!(!finishes(&host.step(at(9.5), Event::Shutdown(Shutdown::Drain))));
    assert!(finishes(&host.step(at(9.6), sampled(T1, 0))));
    assert_eq!((host.next_deadline(), host.sample_interval()), (None, None));
}

#[test]
fn a_shutdown_waits_for_remote_tiers_no_longer_than_the_drain() {
    let (mut host, _) = host_with_remotes(&[], 1, 3 * S);
    host.step(at(2.0), Event::Shutdown(Shutdown::Drain));
    host.step(at(2.1), sampled(T0, 1));
    // A second request to end does not begin a new drain.
    host.step(at(4.0), Event::Shutdown(Shutdown::Drain));
    while let Some(deadline) = host.next_deadline().filter(|deadline| *deadline < at(5.0)) {
        assert!(!finishes(&host.step(deadline, Event::Deadline)), "{deadline:?}");
    }
    assert_eq!(host.next_deadline(), Some(at(5.0)));
    assert!(finishes(&host.step(at(5.0), Event::Deadline)));
    let (mut impatient, _) = host_with_remotes(&[], 1, Duration::ZERO);
    assert!(finishes(&impatient.step(at(2.0), Event::Shutdown(Shutdown::Drain))));
}

#[test]
fn a_second_signal_waits_for_nobody() {
    let (mut host, _) = host_with_remotes(&[], 1, 20 * S);
    host.step(at(2.0), Event::Shutdown(Shutdown::Drain));
    host.step(at(2.1), sampled(T0, 1));
    assert!(finishes(&host.step(at(2.2), Event::Shutdown(Shutdown::Now))));
}

#[test]
fn a_shutdown_waits_for_engines_and_remote_tiers_alike() {
    let (mut host, _) = host_with_remotes(&[StartMode::Always], 1, 20 * S);
    make_ready(&mut host, 1.0, run(T0, 1));
    host.step(at(2.0), Event::Shutdown(Shutdown::Drain));
    host.step(at(2.1), sampled(T0, 0));
    assert!(!finishes(&host.step(at(2.2), ended(run(T0, 1)))), "a remote answer may be open");
    assert_eq!(host.sample_interval(), Some(S / 10));
    assert!(finishes(&host.step(at(2.3), sampled(T1, 0))));
}

#[test]
fn ids_that_do_not_exist_are_ignored() {
    let (mut host, _) = host(&[StartMode::Always]);
    let nobody = TierId(9);
    assert_eq!(host.step(at(1.0), Event::Operator(nobody, Command::Stop)), []);
    assert_eq!(host.step(at(1.0), Event::Tier(nobody, TierEvent::Refused { at: at(1.0) })), []);
    assert_eq!(host.step(at(1.0), exited(run(nobody, 1))), []);
    assert_eq!(host.step(at(1.0), Event::Done(Ticket(99), Outcome::Tried(Tried::Passed))), []);
}

//! The agent did not run for a while: what was under way meanwhile proves nothing.
use super::*;
use crate::policy::{Nature, Unasked};

/// A ready engine whose check is sent at 11 s; the agent is stopped from 12 s to 50 s.
fn absent_during_a_check() -> (Host, Ticket) {
    let (mut host, _) = host(&[StartMode::Always]);
    let first = make_ready(&mut host, 1.0, run(T0, 1));
    let passed = Outcome::Checked(Checked::Passed { latency: Duration::from_millis(5) });
    host.step(at(1.0), Event::Done(checks(&first).next().expect("a check"), passed));
    let sent = wait(&mut host, 12.0);
    (host, checks(&sent).next().expect("a check after the interval"))
}

fn shown(host: &Host) -> (Health, u32, String) {
    let tier = host.status().tiers.remove(0);
    (tier.health, tier.check.failures, tier.reason)
}

#[test]
fn a_check_that_was_under_way_is_no_failure_and_is_made_again() {
    for failure in [CheckFailure::TimedOut, CheckFailure::Reset, CheckFailure::Status(503)] {
        let (mut host, ticket) = absent_during_a_check();
        let said =
            host.step(at(50.0), Event::Done(ticket, Outcome::Checked(Checked::Failed(failure.clone()))));
        assert_eq!(shown(&host).0, Health::Healthy, "{failure:?}");
        assert_eq!(shown(&host).1, 0, "{failure:?}");
        let again = checks(&said).next().expect("it is asked again at once");
        host.step(at(50.1), Event::Done(again, Outcome::Checked(Checked::Failed(failure.clone()))));
        assert_eq!(shown(&host).1, 1, "and now it counts: {failure:?}");
    }
}

#[test]
fn a_check_that_passed_meanwhile_was_not_slow() {
    for (latency, health) in [(39 * S, Health::Healthy), (3 * S, Health::Degraded), (S, Health::Healthy)] {
        let (mut host, ticket) = absent_during_a_check();
        host.step(at(50.0), Event::Done(ticket, Outcome::Checked(Checked::Passed { latency })));
        assert_eq!(shown(&host).0, health, "{latency:?}");
    }
}

#[test]
fn what_this_host_could_not_ask_stays_what_it_is() {
    let (mut host, ticket) = absent_during_a_check();
    let short = Unasked { cause: Cause::DiskFull, why: "no free file descriptor".to_owned() };
    host.step(at(50.0), Event::Done(ticket, Outcome::NotAsked(short)));
    assert!(shown(&host).2.contains("no free file descriptor"), "{:?}", shown(&host));
}

#[test]
fn whatever_is_heard_first_a_start_close_to_its_cap_goes_on() {
    let (mut host, _) = host(&[StartMode::Always]);
    host.step(at(1.0), Event::Engine(run(T0, 1), EngineEvent::Spawned { pid: 1 }));
    let activity = || Event::Engine(run(T0, 1), EngineEvent::Activity);
    for minute in 1..60 {
        wait(&mut host, f64::from(minute) * 60.0);
        host.step(at(f64::from(minute) * 60.0), activity());
    }
    wait(&mut host, 3_590.0);
    host.step(at(3_590.0), activity());
    host.step(at(9_000.0), activity());
    let engine = |host: &Host| host.status().tiers.remove(0).engine.expect("a local tier").state;
    assert_eq!(engine(&host), EngineState::Starting);
    wait(&mut host, 9_007.0);
    assert_eq!(engine(&host), EngineState::Starting);
    wait(&mut host, 9_013.0);
    assert_eq!(engine(&host), EngineState::Stopping);
}

#[test]
fn open_answers_of_remote_tiers_keep_their_time() {
    let (mut host, _) = host_with_remotes(&[], 1, 20 * S);
    host.step(at(1.0), Event::Tier(T0, TierEvent::Sampled(Sample { in_flight: 1, ..Sample::default() })));
    host.step(at(2.0), Event::Shutdown(Shutdown::Drain));
    wait(&mut host, 4.0);
    host.step(at(300.0), Event::Tier(T0, TierEvent::Sampled(Sample { in_flight: 1, ..Sample::default() })));
    assert_eq!(host.status().state, HostState::Draining);
    assert!(!wait(&mut host, 313.0).contains(&Action::Finish));
    assert!(wait(&mut host, 320.0).contains(&Action::Finish));
}

#[test]
fn a_host_at_which_nothing_is_timed_is_not_woken() {
    let (host, _) = host(&[StartMode::Manual]);
    assert_eq!(host.next_deadline(), None);
    let (mut host, _) = self::host(&[StartMode::Always]);
    assert_eq!(host.next_deadline(), Some(at(2.0)), "it starts");
    for number in 1..=3 {
        wait(&mut host, 2.0 * number as f64);
        let failed = EngineEvent::SpawnFailed {
            cause: Cause::Unknown,
            nature: Nature::Engine,
            evidence: String::new(),
        };
        host.step(at(2.0 * number as f64), Event::Engine(run(T0, number), failed));
    }
    assert_eq!(host.next_deadline(), Some(at(906.0)), "it is held");
}

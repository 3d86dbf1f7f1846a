//! A tier that fails its clients' requests and passes its trial.
use super::*;
use crate::policy::{Sample, TierStatus};

const IN_VAIN: &str = "although its trial passes";

/// Requests of one client that failed in a row, at each tier.
type Rows = [u32; 2];

/// Every check and every trial passes, at once: the whole of what the host says to that.
fn answer(host: &mut Host, now: Moment, mut asked: Vec<Action>) -> Vec<Action> {
    let mut said = Vec::new();
    while !asked.is_empty() {
        let mut more = Vec::new();
        for action in &asked {
            let (ticket, outcome) = if let Action::Check { ticket, .. } = action {
                (ticket, Outcome::Checked(Checked::Passed { latency: S / 100 }))
            } else if let Action::Try { ticket, .. } = action {
                (ticket, Outcome::Tried(Tried::Passed))
            } else {
                continue;
            };
            more.extend(host.step(now, Event::Done(*ticket, outcome)));
        }
        said.append(&mut asked);
        asked = more;
    }
    said
}

fn second(host: &mut Host, second: u64, rows: Rows) -> Vec<Action> {
    let now = at(second as f64);
    let mut asked = host.step(now, Event::Deadline);
    for (rank, row) in rows.into_iter().enumerate() {
        let sample = Sample { failures_in_row: row, repeats_in_row: row, ..Sample::default() };
        asked.extend(host.step(now, Event::Tier(TierId(rank as u16), TierEvent::Sampled(sample))));
    }
    answer(host, now, asked)
}

fn remotes(count: usize) -> Host {
    let (mut host, asked) = host_with_remotes(&[], count, 20 * S);
    answer(&mut host, at(0.0), asked);
    assert_eq!(standings(&host), vec![Standing::Open; count]);
    host
}

/// Three further requests fail at the first tier each second, until its trial has lost its word: when that is, and what was
/// said.
fn fail_the_first(host: &mut Host, from: u64) -> (u64, Vec<Action>) {
    let mut said = Vec::new();
    for n in from..from + 200 {
        said.extend(second(host, n, [3 * n as u32, 0]));
        if is_broken(host) {
            return (n, said);
        }
    }
    panic!("it is trusted: {:?}", first(host));
}

fn first(host: &Host) -> TierStatus {
    host.status().tiers.remove(0)
}

fn is_broken(host: &Host) -> bool {
    first(host).reason.contains(IN_VAIN)
}

/// Seen to fail: it was DOWN, and everybody was refused.
#[test]
fn where_no_other_tier_is_open_it_stays_open_and_says_what_is_wrong() {
    let mut host = remotes(1);
    let mut told = 0;
    for n in 1..=1_800 {
        let said = second(&mut host, n, [3 * n as u32, 0]);
        let tells = |action: &&Action| matches!(action, Action::Tell(Notice::LastResort { tier: T0, .. }));
        told += said.iter().filter(tells).count();
        assert!(told > 0 || !is_broken(&host), "{n}: it is told when it begins");
        assert_eq!(notices(said.clone()), [], "{n}");
        let is_down = |action: &Action| matches!(action, Action::Tell(Notice::Health { to, .. }) if *to == Health::Down);
        assert!(!said.iter().any(is_down), "{n}");
        assert_eq!((standings(&host), host.status().serving), (vec![Standing::Open], Some(T0)), "{n}");
    }
    assert!(is_broken(&host) && first(&host).health == Health::Degraded, "{:?}", first(&host));
    assert!(first(&host).last_resort && (1..30).contains(&told), "{told}");
    // Somebody is answered.
    let sample = Sample { answered: 1, ..Sample::default() };
    host.step(at(2_001.0), Event::Tier(T0, TierEvent::Sampled(sample)));
    assert!(first(&host).health == Health::Healthy && !first(&host).last_resort);
}

#[test]
fn it_is_down_as_long_as_another_one_is_open() {
    let mut host = remotes(2);
    let (n, said) = fail_the_first(&mut host, 1);
    let said = notices(said);
    assert!(matches!(said[..], [.., Notice::Failover { from: T0, to: T1, .. }]), "{said:?}");
    assert_eq!(first(&host).health, Health::Down);
    // The other one is gone: those who asked it are better off here than nowhere.
    let said = host.step(at(n as f64 + 0.5), Event::Tier(T1, TierEvent::Refused { at: at(n as f64 + 0.5) }));
    assert!(matches!(notices(said)[..], [Notice::Return { from: T1, to: T0 }]));
    assert!(is_broken(&host) && first(&host).health == Health::Degraded, "{:?}", first(&host));
    assert_eq!(standings(&host), [Standing::Open, Standing::Leaving]);
    // It is back.
    second(&mut host, n + 2, [3 * n as u32, 0]);
    assert_eq!((first(&host).health, host.status().serving), (Health::Down, Some(T1)));
}

#[test]
fn two_of_them_are_both_open() {
    let mut host = remotes(2);
    let mut both = 0;
    for n in 1..600 {
        second(&mut host, n, [3 * n as u32, 3 * n as u32]);
        let broken = host.status().tiers.iter().filter(|tier| tier.reason.contains(IN_VAIN)).count();
        let open = standings(&host).iter().filter(|standing| **standing == Standing::Open).count();
        assert_eq!(open, if broken == 1 { 1 } else { 2 }, "{n}");
        both += u32::from(broken == 2);
    }
    assert!(both > 0);
}

#[test]
fn an_engine_on_demand_is_started_beside_it_and_takes_over() {
    let (mut host, _) = host(&[StartMode::Always, StartMode::OnDemand]);
    make_ready(&mut host, 1.0, run(T0, 1));
    host.step(at(601.0), Event::Deadline);
    host.step(at(602.0), ended(run(T1, 1)));
    let (n, said) = fail_the_first(&mut host, 603);
    assert_eq!(first(&host).health, Health::Degraded);
    assert_eq!(starts(&said), [run(T1, 2)]);
    assert_eq!(standings(&host), [Standing::Open, Standing::Closed]);
    make_ready(&mut host, n as f64, run(T1, 2));
    assert_eq!(standings(&host), [Standing::Leaving, Standing::Open]);
    assert_eq!(host.status().serving, Some(T1));
}

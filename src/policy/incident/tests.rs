use super::*;
use crate::policy::{CheckStatus, Ending, EngineId, EngineStatus, Exit, Nature, RunId, TierStatus};
use std::time::Duration;

const S: Duration = Duration::from_secs(1);
const T0: TierId = TierId(0);
const T1: TierId = TierId(1);
const PAUSE: Duration = Duration::from_secs(300);

fn at(seconds: u64) -> Moment {
    Moment::from_nanos(0) + S * seconds as u32
}

fn incidents() -> Incidents {
    let on = vec![Gravity::Gpu, Gravity::Failover, Gravity::Held, Gravity::AllDown];
    let settings = LetterSettings { on, on_return: true, at_most_every: PAUSE };
    Incidents::resume(settings, vec![T0, T1], SavedIncidents::default(), at(0))
}

fn id(number: u64) -> IncidentId {
    IncidentId(number)
}

fn exit(tier: TierId, cause: Cause) -> Notice {
    let ending =
        Ending { exit: Exit::Signal(9), cause, nature: Nature::Engine, deterministic: None, evidence: None };
    Notice::Exit { run: RunId { engine: EngineId(tier.0), number: 1 }, ending }
}

fn failover(cause: Cause) -> Notice {
    Notice::Failover { from: T0, to: T1, cause: Some(cause), why: String::new() }
}

fn all_down(from: TierId) -> Notice {
    Notice::AllDown { from: Some(from), cause: Some(Cause::HostOom), why: String::new() }
}

fn engine(tier: TierId, to: EngineState) -> Notice {
    let run = RunId { engine: EngineId(tier.0), number: 1 };
    Notice::Engine { run, from: EngineState::Starting, to, why: String::new() }
}

/// A host of two tiers, of which these can answer.
fn host(able: [bool; 2]) -> HostStatus {
    let tier = |able: bool| TierStatus {
        health: if able { Health::Healthy } else { Health::Down },
        routable: able,
        reason: String::new(),
        since: at(0),
        check: CheckStatus::default(),
        cause: None,
        last_resort: false,
        cpu_fallback: None,
        engine: None,
    };
    let serving = able.iter().position(|able| *able).map(|rank| TierId(rank as u16));
    let tiers = able.map(tier).to_vec();
    HostStatus { state: HostState::Serving, serving, tiers, retry: None }
}

fn alert(number: u64, gravity: Gravity) -> Entry {
    Entry::Post(Letter::Alert { id: id(number), gravity })
}

#[test]
fn a_failover_is_one_incident_and_one_mail_and_its_end_is_the_answer() {
    let mut machine = incidents();
    let opened = machine.hear(at(1), &exit(T0, Cause::GpuOom));
    assert_eq!(opened, [Entry::Open { id: id(1), tier: T0 }, Entry::Note { id: id(1) }]);
    let moved = machine.hear(at(1), &failover(Cause::GpuOom));
    let gravity = Gravity::Failover;
    let noted = Entry::Note { id: id(1) };
    assert_eq!(moved, [Entry::Worsen { id: id(1), gravity }, noted.clone(), alert(1, gravity)]);
    assert_eq!(machine.settle(at(1), &host([false, true])), []);
    assert_eq!(machine.hear(at(60), &Notice::Return { from: T1, to: T0 }), [noted]);
    let over = machine.settle(at(60), &host([true, true]));
    assert_eq!(over, [Entry::Close { id: id(1) }, Entry::Post(Letter::Return { id: id(1) })]);
    assert_eq!((machine.open(), machine.next_deadline()), (&[][..], None));
}

#[test]
fn what_an_operator_did_is_no_incident() {
    let mut machine = incidents();
    let health = Notice::Health {
        tier: T0,
        from: Health::Healthy,
        to: Health::Down,
        cause: Some(Cause::Asked),
        why: String::new(),
    };
    for notice in [exit(T0, Cause::Asked), health, failover(Cause::Asked)] {
        assert_eq!(machine.hear(at(1), &notice), [], "{notice:?}");
    }
    // What goes wrong afterwards is.
    assert_eq!(machine.hear(at(2), &exit(T0, Cause::BadArgument)).len(), 2);
}

#[test]
fn a_tier_that_fails_unnoticed_is_recorded_and_not_mailed_until_it_is_held() {
    let mut machine = incidents();
    machine.hear(at(1), &exit(T1, Cause::ModelMissing));
    assert_eq!(machine.settle(at(1), &host([true, false])), []);
    let held = machine.hear(at(9), &engine(T1, EngineState::Held));
    let gravity = Gravity::Held;
    assert_eq!(held, [Entry::Worsen { id: id(1), gravity }, Entry::Note { id: id(1) }, alert(1, gravity)]);
    // Serving never moved, and the incident goes on.
    assert_eq!(machine.settle(at(10), &host([true, false])), []);
    assert_eq!(machine.settle(at(99), &host([true, true])).len(), 2);
}

fn waiting(tier: TierId) -> Notice {
    let run = RunId { engine: EngineId(tier.0), number: 90 };
    Notice::Waiting { run, cause: Cause::DriverMissing, why: String::new() }
}

/// Every tier waits from the first start on, and fails again every minute.
#[test]
fn what_is_waited_for_in_vain_is_one_incident_and_one_mail_until_it_is_ready() {
    let mut machine = incidents();
    let mut posts = Vec::new();
    let mut take = |entries: Vec<Entry>| {
        posts.extend(entries.into_iter().filter(|entry| matches!(entry, Entry::Post(_))));
    };
    for minute in 0..60 {
        let now = at(60 * minute);
        take(machine.hear(now, &exit(T0, Cause::DriverMissing)));
        if minute == 10 {
            take(machine.hear(now, &waiting(T0)));
            let nobody = Notice::AllDown { from: None, cause: None, why: String::new() };
            take(machine.hear(now, &nobody));
        }
        take(machine.settle(now, &host([false, false])));
    }
    assert_eq!(machine.open().len(), 1);
    take(machine.settle(at(3_600), &host([true, false])));
    assert_eq!(posts, [alert(1, Gravity::Held), Entry::Post(Letter::Return { id: id(1) })]);
    assert_eq!(machine.open(), []);
}

#[test]
fn an_outage_ends_when_anybody_answers_again_who_is_no_weaker() {
    let mut machine = incidents();
    machine.hear(at(1), &exit(T0, Cause::HostOom));
    machine.hear(at(1), &failover(Cause::HostOom));
    machine.settle(at(1), &host([false, true]));
    machine.hear(at(2), &exit(T1, Cause::HostOom));
    machine.hear(at(2), &all_down(T1));
    assert_eq!(machine.settle(at(2), &host([false, false])), []);
    // The second mail has to wait; by then its incident is over, and the digest tells of both.
    let back = machine.settle(at(30), &host([true, false]));
    assert_eq!(
        back,
        [Entry::Close { id: id(1) }, Entry::Post(Letter::Return { id: id(1) }), Entry::Close { id: id(2) }]
    );
    assert_eq!(machine.next_deadline(), Some(at(301)));
    let digest = Letter::Digest { ids: vec![id(2)], more: 0 };
    assert_eq!(machine.settle(at(301), &host([true, false])), [Entry::Post(digest)]);
}

#[test]
fn each_grave_turn_of_an_incident_is_told_once() {
    let mut machine = incidents();
    machine.hear(at(1), &all_down(T0));
    machine.hear(at(2), &failover(Cause::Unknown));
    machine.hear(at(3), &failover(Cause::Unknown));
    let digest = Letter::Digest { ids: vec![id(1)], more: 0 };
    assert_eq!(machine.settle(at(301), &host([false, true])), [Entry::Post(digest)]);
    assert_eq!(machine.settle(at(601), &host([false, true])), []);
}

#[test]
fn nothing_is_mailed_that_nobody_asked_for() {
    let settings = LetterSettings { on: vec![Gravity::AllDown], on_return: false, at_most_every: PAUSE };
    let mut machine = Incidents::resume(settings, vec![T0], SavedIncidents::default(), at(0));
    let posts = |entries: Vec<Entry>| entries.iter().filter(|e| matches!(e, Entry::Post(_))).count();
    assert_eq!(posts(machine.hear(at(1), &failover(Cause::Unknown))), 0);
    assert_eq!(posts(machine.hear(at(2), &all_down(T0))), 1);
    assert_eq!(posts(machine.settle(at(3), &host([true, true]))), 0);
}

#[test]
fn a_later_agent_goes_on_where_the_earlier_one_stopped() {
    let told = vec![Gravity::Failover];
    let open = Open { id: id(7), tier: T0, gravity: Gravity::Failover, mailed: true, told };
    let saved =
        SavedIncidents { last_id: 8, open: vec![open], waiting: vec![id(8)], last_alert: Some(S * 100) };
    let on = vec![Gravity::Failover];
    let settings = LetterSettings { on, on_return: true, at_most_every: PAUSE };
    let mut machine = Incidents::resume(settings, vec![T0, T1], saved, at(200));
    assert_eq!(machine.next_deadline(), Some(at(400)));
    // Its engines are started anew, and until one is ready the incident goes on.
    assert_eq!(machine.settle(at(201), &host([false, false])), []);
    let over = machine.settle(at(260), &host([true, true]));
    assert_eq!(over, [Entry::Close { id: id(7) }, Entry::Post(Letter::Return { id: id(7) })]);
    assert_eq!(machine.hear(at(270), &exit(T1, Cause::Unknown))[0], Entry::Open { id: id(9), tier: T1 });
}

#[test]
fn while_mainstay_ends_nothing_is_over() {
    let mut machine = incidents();
    machine.hear(at(1), &failover(Cause::Unknown));
    let ending = HostStatus { state: HostState::Draining, ..host([true, true]) };
    assert_eq!(machine.settle(at(2), &ending), []);
}

/// Down for ten seconds of every twenty, all day.
#[test]
fn a_day_of_flapping_fills_no_mailbox_and_every_failover_is_told_of() {
    let mut machine = incidents();
    let (mut alerts, mut digests, mut returns, mut opened, mut named) = (0, 0, 0, 0, 0);
    let day = 24 * 3_600;
    for now in 0..day {
        let down = now % 20 < 10;
        let mut entries = Vec::new();
        if now % 20 == 0 {
            entries.extend(machine.hear(at(now), &exit(T0, Cause::CudaFault)));
            entries.extend(machine.hear(at(now), &failover(Cause::CudaFault)));
        }
        entries.extend(machine.settle(at(now), &host([!down, true])));
        for entry in entries {
            match entry {
                Entry::Open { .. } => opened += 1,
                Entry::Post(Letter::Alert { .. }) => (alerts, named) = (alerts + 1, named + 1),
                Entry::Post(Letter::Digest { ids, more }) => {
                    (digests, named) = (digests + 1, named + ids.len() as u64 + more);
                }
                Entry::Post(Letter::Return { .. }) => returns += 1,
                Entry::Note { .. } | Entry::Worsen { .. } | Entry::Close { .. } => {}
            }
        }
    }
    let windows = day / PAUSE.as_secs();
    assert_eq!(opened, day / 20);
    assert_eq!(alerts, 1);
    assert!((windows - 2..=windows).contains(&digests), "{digests}");
    assert!(returns <= windows + 1, "{returns}");
    let last_window = PAUSE.as_secs() / 20;
    assert!((opened - last_window..=opened).contains(&named), "{named} of {opened}");
}

/// The hung tier's operator stopped it and the last one too, and started the last one again: nobody waits for the first.
#[test]
fn whoever_was_told_of_an_outage_hears_of_its_end() {
    let mut machine = incidents();
    machine.hear(at(1), &failover(Cause::Hang));
    let stopped = Notice::AllDown { from: Some(T1), cause: Some(Cause::Asked), why: String::new() };
    assert!(machine.hear(at(400), &stopped).contains(&alert(1, Gravity::AllDown)));
    let mut again = host([false, true]);
    again.tiers[0].engine = Some(EngineStatus {
        run: None,
        state: EngineState::Stopped,
        since: at(300),
        restarts: 0,
        strikes: 1,
        next_start: None,
        last_exit: None,
    });
    let over = machine.settle(at(410), &again);
    assert_eq!(over, [Entry::Close { id: id(1) }, Entry::Post(Letter::Return { id: id(1) })]);
}

#[test]
fn a_fallback_to_the_cpu_is_mailed_once_and_is_over_when_a_run_was_looked_at() {
    let mut machine = incidents();
    let fallback = |number| {
        let run = RunId { engine: EngineId(0), number };
        Notice::CpuFallback { run, evidence: "offloaded 0/33 layers to GPU".to_owned() }
    };
    let looked = |able: bool, cpu_fallback| {
        let mut host = host([able, true]);
        host.tiers[0].cpu_fallback = cpu_fallback;
        host
    };
    let (gravity, noted) = (Gravity::Gpu, Entry::Note { id: id(1) });
    let opened = machine.hear(at(1), &fallback(1));
    let worse = Entry::Worsen { id: id(1), gravity };
    assert_eq!(opened, [Entry::Open { id: id(1), tier: T0 }, worse, noted.clone(), alert(1, gravity)]);
    assert_eq!(machine.settle(at(1), &looked(true, Some(true))), []);
    // The next run: down, ready, looked at, on the CPU again.
    assert_eq!(machine.settle(at(400), &looked(false, None)), []);
    assert_eq!(machine.settle(at(401), &looked(true, None)), []);
    assert_eq!(machine.hear(at(402), &fallback(2)), [noted]);
    assert_eq!(machine.settle(at(402), &looked(true, Some(true))), []);
    let over = machine.settle(at(800), &looked(true, Some(false)));
    assert_eq!(over, [Entry::Close { id: id(1) }, Entry::Post(Letter::Return { id: id(1) })]);
}

/// Before: nothing was told, and the incident before it was over.
#[test]
fn a_last_resort_is_an_outage_until_requests_are_answered() {
    let last_resort = |able: [bool; 2]| {
        let mut host = host(able);
        host.tiers[0].last_resort = true;
        host
    };
    let why = "9 different requests failed in a row, although its trial passes".to_owned();
    let notice = Notice::LastResort { tier: T0, cause: Some(Cause::Unknown), why };
    let (gravity, noted) = (Gravity::AllDown, Entry::Note { id: id(1) });
    let worse = Entry::Worsen { id: id(1), gravity };

    // It is the only one.
    let mut machine = incidents();
    let opened = machine.hear(at(1), &notice);
    assert_eq!(
        opened,
        [Entry::Open { id: id(1), tier: T0 }, worse.clone(), noted.clone(), alert(1, gravity)]
    );
    assert_eq!(machine.settle(at(1), &last_resort([true, false])), []);
    assert_eq!(machine.settle(at(9), &host([true, false])).len(), 2);

    // The one that stood in for it is gone.
    let mut machine = incidents();
    machine.hear(at(1), &failover(Cause::Unknown));
    assert_eq!(machine.settle(at(1), &host([false, true])), []);
    machine.hear(at(400), &Notice::Return { from: T1, to: T0 });
    assert_eq!(machine.hear(at(400), &notice), [worse, noted, alert(1, gravity)]);
    assert_eq!(machine.settle(at(400), &last_resort([true, false])), []);
    // It is back, and this one is down beside it again.
    assert_eq!(machine.settle(at(500), &host([false, true])), []);
    let over = machine.settle(at(900), &host([true, true]));
    assert_eq!(over, [Entry::Close { id: id(1) }, Entry::Post(Letter::Return { id: id(1) })]);
}

//! Engines whose starts fail for something that passes by itself, for a long time.
use super::*;

/// Fails every start of these engines from the host's beginning up to this second; what was told, and when.
fn fail(host: &mut Host, first: Vec<Action>, engines: &[TierId], until: f64) -> Vec<(Duration, Notice)> {
    let (mut now, mut told, mut actions) = (at(0.0), Vec::new(), first);
    loop {
        let failed: Vec<RunId> = starts(&actions);
        for action in actions.drain(..) {
            if let Action::Tell(notice @ (Notice::Waiting { .. } | Notice::AllDown { .. })) = action {
                told.push((now.since(at(0.0)), notice));
            }
        }
        now = now + Duration::from_millis(10);
        for run in failed.into_iter().filter(|run| engines.contains(&TierId(run.engine.0))) {
            let (cause, nature) = (Cause::DriverMissing, Nature::Environment);
            let failed = EngineEvent::SpawnFailed { cause, nature, evidence: "no driver".to_owned() };
            actions.extend(host.step(now, Event::Engine(run, failed)));
        }
        if actions.is_empty() {
            now = host.next_deadline().unwrap_or(at(until)).max(now);
            if now >= at(until) {
                return told;
            }
            actions = host.step(now, Event::Deadline);
            // Whoever does not fail goes on loading.
            actions.extend(host.step(now, Event::Engine(run(T1, 1), EngineEvent::Activity)));
        }
    }
}

#[test]
fn an_outage_from_the_very_start_is_told_when_every_engine_was_waited_for_in_vain() {
    let (mut host, first) = host(&[StartMode::Always, StartMode::Always]);
    let told = fail(&mut host, first, &[T0, T1], 3_000.0);
    let when = |wanted: fn(&Notice) -> bool| -> Vec<u64> {
        told.iter().filter(|(_, notice)| wanted(notice)).map(|(at, _)| at.as_secs()).collect()
    };
    let waiting = when(|notice| matches!(notice, Notice::Waiting { .. }));
    let down = when(|notice| matches!(notice, Notice::AllDown { .. }));
    assert_eq!((waiting.len(), down.len()), (2, 1), "each once: {told:?}");
    assert!(waiting.iter().all(|at| (600..=661).contains(at)), "{waiting:?}");
    assert_eq!(down[0], waiting[1], "as soon as nobody is left");
    let why = told.iter().find_map(|(_, told)| {
        if let Notice::Waiting { cause: Cause::DriverMissing, why, .. } = told {
            Some(why.as_str())
        } else {
            None
        }
    });
    assert_eq!(
        why,
        Some(
            "every start for 10 min failed, the last one: driver-missing (no exit status): no driver; no strike, because \
             this may pass by itself"
        )
    );
}

#[test]
fn while_another_engine_starts_nothing_is_lost() {
    let (mut host, first) = host(&[StartMode::Always, StartMode::Always]);
    let told = fail(&mut host, first, &[T0], 1_500.0);
    assert!(matches!(told.as_slice(), [(_, Notice::Waiting { .. })]), "{told:?}");
}

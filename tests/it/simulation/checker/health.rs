//! Health, as DESIGN's table has it. DOWN at once when nobody listens, and after three failed checks in a row; DEGRADED after
//! one or two, or a slow one; HEALTHY only after a check that passed within two seconds. Up again only by something that
//! succeeded. And it is looked at often enough.
use super::{Step, Verdict, engine_of, ensure};
use crate::simulation::fake::Mood;
use crate::simulation::world::Truth;
use mainstay::policy::{
    Action, CheckFailure, Checked, EngineState, Event, Health, Moment, Notice, Outcome, RunId, Sample,
    Standing, Ticket, TierEvent, TierId, TierStatus, Tried,
};
use std::collections::BTreeMap;
use std::time::Duration;

const S: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(2);
const IN_A_ROW: u32 = 3;
const EVERY: Duration = Duration::from_secs(10);
/// What is not well is checked once a second; a remote tier that stays DOWN less often.
const SOON: Duration = Duration::from_secs(1);
const SELDOM: Duration = Duration::from_secs(30);
/// A check that is lost counts as unanswered after this long.
const LOST: Duration = Duration::from_secs(10);
/// From the third failed request to DOWN: a trial, which may have to wait for ten seconds, and take as long.
const FAILING: Duration = Duration::from_secs(25);

#[derive(Default)]
pub struct Healths {
    tiers: BTreeMap<TierId, Known>,
    /// Checks that are on their way.
    checks: BTreeMap<Ticket, TierId>,
}

/// What the host was told of one tier since it has been there.
#[derive(Default)]
struct Known {
    run: Option<RunId>,
    /// Failed checks in a row; time-outs may be the fault of a long queue, so they are in the second only.
    failed: u32,
    failed_at_most: u32,
    refused: bool,
    passed: Option<Duration>,
    sample: Sample,
    answered_at: Option<Moment>,
    /// When the last check was asked for, or answered.
    checked_at: Moment,
    asking: Option<Ticket>,
    /// When it was last one that is not checked more often than usual.
    patient_at: Moment,
    /// Since when three requests have failed, and the tier fails all.
    failing_since: Option<Moment>,
    /// Requests that had failed in a row before that.
    failing_from: u32,
}

impl Known {
    fn succeeded(&mut self) {
        (self.failed, self.failed_at_most) = (0, 0);
    }
}

impl Healths {
    pub fn step(&mut self, step: &Step) -> Verdict {
        let came_and_went = self.follow(step);
        self.hear(step);
        for action in step.actions {
            match action {
                Action::Check { ticket, tier, .. } => self.ask(step.world.now, *ticket, *tier),
                Action::Tell(Notice::Health { tier, from, to, why, .. }) if !came_and_went.contains(tier) => {
                    self.changed(step, *tier, *from, *to, why)?;
                }
                _ => {}
            }
        }
        for (rank, tier) in step.after.status.tiers.iter().enumerate() {
            let id = TierId(rank as u16);
            if is_present(tier) {
                self.must_be(step, id, tier)?;
                self.is_looked_at(step, id, tier)?;
            }
        }
        Ok(())
    }

    /// Nothing that was known of another run holds. Which tiers came or went in this step?
    fn follow(&mut self, step: &Step) -> Vec<TierId> {
        let mut changed = Vec::new();
        for (rank, tier) in step.after.status.tiers.iter().enumerate() {
            let id = TierId(rank as u16);
            let run =
                tier.engine.as_ref().filter(|engine| engine.state == EngineState::Ready).and_then(|e| e.run);
            let known = self.tiers.entry(id).or_default();
            if known.run != run || (tier.engine.is_some() && run.is_none()) {
                *known = Known { run, checked_at: step.world.now, ..Known::default() };
                self.checks.retain(|_, of| *of != id);
                changed.push(id);
            }
        }
        changed
    }

    fn ask(&mut self, now: Moment, ticket: Ticket, tier: TierId) {
        let known = self.tiers.entry(tier).or_default();
        if let Some(lost) = known.asking.replace(ticket) {
            self.checks.remove(&lost);
            known.failed_at_most += 1;
        }
        known.checked_at = now;
        self.checks.insert(ticket, tier);
    }

    fn hear(&mut self, step: &Step) {
        match step.event {
            Event::Done(ticket, Outcome::Checked(checked)) => {
                let Some(tier) = self.checks.remove(ticket) else { return };
                let known = self.tiers.entry(tier).or_default();
                // What failed while the agent slept is asked again, and need not count.
                let slept = step.world.now.since(step.world.unfair_at)
                    < step.world.settings.tiers[0].check.timeout + S;
                (known.asking, known.checked_at) = (None, step.world.now);
                match checked {
                    Checked::Passed { latency } => {
                        known.succeeded();
                        (known.refused, known.passed) = (false, Some(*latency));
                    }
                    Checked::Failed(failure) => {
                        let refused = *failure == CheckFailure::Refused;
                        known.failed_at_most += if refused { IN_A_ROW } else { 1 };
                        known.failed += u32::from(*failure != CheckFailure::TimedOut && !slept);
                        known.refused |= refused && !slept;
                    }
                }
            }
            Event::Tier(tier, TierEvent::Refused { .. }) => {
                let known = self.tiers.entry(*tier).or_default();
                known.refused = true;
            }
            Event::Tier(tier, TierEvent::Sampled(sample)) => {
                let (mood, since) = step.world.mood(*tier);
                let known = self.tiers.entry(*tier).or_default();
                let before = std::mem::replace(&mut known.sample, *sample);
                if sample.answered > before.answered {
                    known.succeeded();
                    known.answered_at = Some(step.world.now);
                }
                // A trial that was answered before may still be on its way.
                if mood != Mood::Failing || step.world.now.since(since) < LOST + S {
                    (known.failing_since, known.failing_from) = (None, sample.failures_in_row);
                } else if sample.failures_in_row >= known.failing_from + IN_A_ROW {
                    known.failing_since.get_or_insert(step.world.now);
                }
            }
            Event::Engine(..)
            | Event::Operator(..)
            | Event::Done(..)
            | Event::Shutdown(_)
            | Event::Deadline => {}
        }
    }

    /// A tier that was there before and after changed its health.
    fn changed(&self, step: &Step, id: TierId, from: Health, to: Health, why: &str) -> Verdict {
        let Some(known) = self.tiers.get(&id) else { return Ok(()) };
        let Sample { failures_in_row, repeats_in_row, turned_away_in_row, .. } = known.sample;
        if to == Health::Down {
            let lost = known.asking.is_some() && step.world.now.since(known.checked_at) >= LOST;
            let failed = known.failed_at_most + u32::from(lost);
            let requests = failures_in_row.max(repeats_in_row).max(turned_away_in_row) >= IN_A_ROW;
            let reason = known.refused || failed >= IN_A_ROW || why.starts_with("hang proven") || requests;
            return ensure(reason, || format!("{id:?} is DOWN after {failed} failures: {why}"));
        }
        let last_resort = step.after.status.tiers.get(usize::from(id.0)).is_some_and(|tier| tier.last_resort);
        let good = match step.event {
            Event::Done(_, Outcome::Checked(Checked::Passed { .. }) | Outcome::Tried(Tried::Passed)) => true,
            // Its counter moved, or a request was answered.
            Event::Done(_, Outcome::Counted(_)) | Event::Tier(_, TierEvent::Sampled(_)) => true,
            _ => last_resort,
        };
        ensure(from != Health::Down || good, || {
            format!("{id:?} is {to:?} again, and nothing succeeded: {why}")
        })
    }

    fn must_be(&self, step: &Step, id: TierId, tier: &TierStatus) -> Verdict {
        let Some(known) = self.tiers.get(&id) else { return Ok(()) };
        let (now, health) = (step.world.now, tier.health);
        let down = known.failed >= IN_A_ROW || known.refused;
        ensure(!down || health == Health::Down, || {
            format!("{id:?} is {health:?} after {} failed checks, refused: {}", known.failed, known.refused)
        })?;
        let answered =
            known.answered_at == Some(now) && matches!(step.event, Event::Tier(of, _) if *of == id);
        ensure(!answered || tier.check.failures == 0, || {
            format!("{id:?} answers its clients, and counts {} failed checks", tier.check.failures)
        })?;
        let quick = known.passed.is_none_or(|latency| latency <= SLOW);
        ensure(health != Health::Healthy || (known.failed == 0 && quick), || {
            format!("{id:?} is HEALTHY: {} failed, the last answer took {:?}", known.failed, known.passed)
        })?;
        let passes = matches!(step.event, Event::Done(_, Outcome::Checked(Checked::Passed { .. })))
            && step.truth == Truth::Fresh
            && known.checked_at == now
            && known.asking.is_none();
        let blameless =
            Sample { failures_in_row: 0, repeats_in_row: 0, turned_away_in_row: 0, ..known.sample };
        let trusted = known.sample == blameless && tier.cpu_fallback != Some(true);
        let hangs = tier.reason.starts_with("hang proven") || tier.reason.starts_with("requests fail");
        let well = passes && known.passed.is_some() && trusted && !hangs && known.failed_at_most == 0;
        let expected = if quick { Health::Healthy } else { Health::Degraded };
        ensure(!well || health == expected, || {
            format!("{id:?} is {health:?} after a check that took {:?}: {}", known.passed, tier.reason)
        })?;
        let open = step.after.routes.get(usize::from(id.0)).is_some_and(|r| r.standing == Standing::Open);
        let failing = known.failing_since.is_some_and(|at| now.since(at.max(step.world.unfair_at)) > FAILING);
        ensure(!(open && failing), || format!("{id:?} fails every request, and is open: {tier:?}"))
    }

    fn is_looked_at(&mut self, step: &Step, id: TierId, tier: &TierStatus) -> Verdict {
        let known = self.tiers.entry(id).or_default();
        let remote = engine_of(step.world, id).is_none();
        let patient = tier.health == Health::Healthy || tier.cpu_fallback == Some(true) || tier.last_resort;
        if patient {
            known.patient_at = step.world.now;
        }
        let pause = match tier.health {
            Health::Down if remote => SELDOM,
            _ if step.world.now.since(known.patient_at) <= EVERY => EVERY,
            Health::Healthy | Health::Degraded | Health::Down => SOON,
        };
        let limit = if known.asking.is_some() { LOST + pause.max(EVERY) + S } else { pause + S / 2 };
        let since = known.checked_at.max(tier.since).max(step.world.unfair_at);
        ensure(step.world.now.since(since) <= limit, || {
            format!("{id:?} was not checked for {:?}: {tier:?}", step.world.now.since(since))
        })
    }
}

fn is_present(tier: &TierStatus) -> bool {
    tier.engine.as_ref().is_none_or(|engine| engine.state == EngineState::Ready)
}

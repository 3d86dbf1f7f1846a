//! Silence, then proof. Suspect: requests in flight, no byte for `silence`, and no movement at two looks two seconds apart.
//! Restarted: unchanged for `suspect` after that, no sooner and not much later. What is DOWN by its checks while its process
//! lives gets the same proof. Nothing else ends a run that is ready.
use super::{Step, Verdict, engine_of, engines, ensure};
use crate::simulation::world::World;
use mainstay::policy::{
    Action, EngineState, Event, Health, Moment, Notice, Outcome, Prepared, RunId, STAND_IN, Sample,
    StartMode, Ticket, TierEvent, TierId, Tried,
};
use std::collections::BTreeMap;
use std::time::Duration;

const S: Duration = Duration::from_secs(1);
const APART: Duration = Duration::from_secs(2);
/// Without an answer, though with bytes, it is looked at after three silences.
const HUNGRY: u32 = 3;
/// A look every two seconds, an answer that takes most of that, and what is decided at the look after that.
const LATE: Duration = Duration::from_secs(10);
/// A look may take one and a half seconds, and is lost five later.
const LOST: Duration = Duration::from_millis(6_500);
/// One trial every ten seconds, which may take as long.
const TRIED: Duration = Duration::from_secs(22);
/// A new worker that stands still has this long at least.
const WORKER: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Hangs {
    tiers: BTreeMap<TierId, Watched>,
    counts: BTreeMap<Ticket, (TierId, Moment)>,
    trials: BTreeMap<Ticket, TierId>,
}

#[derive(Debug, Default)]
struct Watched {
    run: Option<RunId>,
    sample: Sample,
    hungry_since: Option<Moment>,
    figure: Option<u64>,
    /// The last sign of life.
    changed: Moment,
    /// The last figure, and when it was another one, also across series of looks.
    last_figure: Option<u64>,
    may_have_changed: Moment,
    /// Looks without any since then: when the first and the last were asked for, and how many.
    looks: Option<(Moment, Moment, u32)>,
    suspect_since: Option<Moment>,
    /// The same, or since when it had been DOWN for another reason: what was counted then stays counted.
    still_since: Moment,
    /// Since when its checks fail.
    down_since: Option<Moment>,
    tried_at: Moment,
    worker_killed: Option<Moment>,
}

impl Watched {
    fn lives(&mut self, now: Moment) {
        (self.changed, self.looks) = (now, None);
    }

    fn looked(&mut self, asked: Moment, figure: Option<u64>, now: Moment) {
        let is_cpu_time = |figure: u64| figure & STAND_IN != 0;
        let moved = figure
            .zip(self.figure)
            .is_some_and(|(new, old)| new != old && is_cpu_time(new) == is_cpu_time(old));
        self.figure = figure.or(self.figure);
        if figure.is_some() && figure != self.last_figure {
            (self.last_figure, self.may_have_changed) = (figure, now);
        }
        // CPU time vouches for a while only; whether it still does is not looked at here.
        let spins = figure.is_some_and(is_cpu_time);
        let looks = self.looks.filter(|_| !moved || spins);
        if moved {
            self.changed = now;
        }
        let (first, _, times) = looks.unwrap_or((asked, asked, 0));
        self.looks = Some((first, asked, times + 1));
    }
}

impl Hangs {
    pub fn step(&mut self, step: &Step) -> Verdict {
        self.follow(step);
        self.hear(step);
        for action in step.actions {
            match action {
                Action::Count { ticket, tier, .. } => {
                    self.counts.retain(|_, (of, _)| of != tier);
                    let watched = self.watched(*tier);
                    // Another series of looks: what an older one saw is not compared.
                    if watched.looks.is_none_or(|(_, last, _)| step.world.now.since(last) > APART + S) {
                        watched.figure = None;
                    }
                    self.counts.insert(*ticket, (*tier, step.world.now));
                }
                Action::Try { ticket, tier, .. } => {
                    self.trials.retain(|_, of| of != tier);
                    self.trials.insert(*ticket, *tier);
                    self.watched(*tier).tried_at = step.world.now;
                }
                Action::Tell(Notice::Health { tier, to: Health::Down, .. }) => {
                    self.watched(*tier).figure = None
                }
                Action::KillWorkers { run } => self.worker(step, *run)?,
                Action::Tell(Notice::Engine {
                    run,
                    from: EngineState::Ready,
                    to: EngineState::Stopping,
                    ..
                }) => {
                    self.ended(step, *run)?;
                }
                _ => {}
            }
        }
        for rank in 0..step.after.status.tiers.len() {
            self.suspicion(step, TierId(rank as u16))?;
        }
        Ok(())
    }

    fn watched(&mut self, tier: TierId) -> &mut Watched {
        self.tiers.entry(tier).or_default()
    }

    fn follow(&mut self, step: &Step) {
        for (id, _, engine) in engines(&step.after.status) {
            let run = engine.run.filter(|_| engine.state == EngineState::Ready);
            // What it was ended for is still to be looked at.
            if run.is_some() && self.watched(id).run != run {
                let (changed, tried_at) = (step.world.now, step.world.now);
                *self.watched(id) = Watched { run, changed, tried_at, ..Watched::default() };
                self.counts.retain(|_, (of, _)| *of != id);
                self.trials.retain(|_, of| *of != id);
            }
        }
    }

    /// A look whose answer does not come is one that was not answered.
    fn lost(&self, now: Moment) -> Option<(Ticket, (TierId, Moment))> {
        self.counts
            .iter()
            .find(|(_, (_, asked))| now.since(*asked) >= LOST)
            .map(|(ticket, of)| (*ticket, *of))
    }

    fn hear(&mut self, step: &Step) {
        let now = step.world.now;
        while let Some((ticket, (tier, asked))) = self.lost(now) {
            self.counts.remove(&ticket);
            self.watched(tier).looked(asked, None, now);
        }
        match step.event {
            Event::Tier(tier, TierEvent::Sampled(sample)) => {
                let watched = self.watched(*tier);
                let before = std::mem::replace(&mut watched.sample, *sample);
                let answered = sample.answered > before.answered;
                if answered || sample.last_byte > before.last_byte {
                    watched.lives(now);
                }
                if answered || sample.in_flight == 0 {
                    watched.hungry_since = None;
                } else {
                    watched.hungry_since.get_or_insert(now);
                }
            }
            Event::Done(ticket, Outcome::Counted(figure)) => {
                if let Some((tier, asked)) = self.counts.remove(ticket) {
                    self.watched(tier).looked(asked, *figure, now);
                }
            }
            Event::Done(ticket, Outcome::Tried(Tried::Passed)) => {
                if let Some(tier) = self.trials.remove(ticket) {
                    self.watched(tier).lives(now);
                }
            }
            Event::Engine(..)
            | Event::Tier(..)
            | Event::Operator(..)
            | Event::Done(..)
            | Event::Shutdown(_)
            | Event::Deadline => {}
        }
    }

    /// Workers go first where they can be replaced: after a quarter of the patience at the earliest.
    fn worker(&mut self, step: &Step, run: RunId) -> Verdict {
        let now = step.world.now;
        for (id, ..) in engines(&step.before.status).filter(|(.., engine)| engine.run == Some(run)) {
            let suspect = step.world.settings.tiers[usize::from(id.0)].suspect;
            let spins = is_spinning(step.world, id);
            let watched = self.watched(id);
            let since = watched.suspect_since.map_or(now, |_| watched.still_since.max(watched.changed));
            ensure(spins || now.since(since) + S >= suspect / 4, || {
                format!("the worker of {run} was killed after {:?}", now.since(since))
            })?;
            watched.worker_killed = Some(now);
        }
        Ok(())
    }

    /// A run that was ready is ended.
    fn ended(&self, step: &Step, run: RunId) -> Verdict {
        let told = match step.event {
            Event::Operator(..) | Event::Shutdown(_) | Event::Engine(..) => true,
            Event::Done(_, outcome) => matches!(outcome, Outcome::Prepared(Prepared::Impossible { .. })),
            Event::Tier(..) | Event::Deadline => false,
        };
        let on_demand = step.world.settings.engines[usize::from(run.engine.0)].start == StartMode::OnDemand;
        if told || on_demand {
            return Ok(());
        }
        let now = step.world.now;
        for (id, tier, _) in engines(&step.before.status).filter(|(.., engine)| engine.run == Some(run)) {
            let Some(watched) = self.tiers.get(&id) else { continue };
            let suspect = step.world.settings.tiers[usize::from(id.0)].suspect;
            let since = match (watched.suspect_since, tier.health) {
                (Some(_), _) => watched.still_since.max(watched.changed),
                (None, Health::Down) => tier.since.max(watched.changed),
                (None, Health::Healthy | Health::Degraded) => now,
            };
            let needed = if watched.worker_killed.is_some() { (suspect / 2).max(WORKER) } else { suspect };
            let needed = if is_spinning(step.world, id) { Duration::ZERO } else { needed };
            // What was counted before the agent slept stays counted.
            let slept = now.since(step.world.unfair_at) < needed;
            ensure(slept || now.since(since) + S >= needed, || {
                format!("{run} was ended after {:?}: {}", now.since(since), tier.reason)
            })?;
        }
        Ok(())
    }

    fn suspicion(&mut self, step: &Step, id: TierId) -> Verdict {
        let (world, tier) = (step.world, &step.after.status.tiers[usize::from(id.0)]);
        let (now, settings) = (world.now, &world.settings.tiers[usize::from(id.0)]);
        let ready = tier.engine.as_ref().is_some_and(|engine| engine.state == EngineState::Ready);
        let spins = is_spinning(world, id);
        let watched = self.watched(id);
        if !ready || !tier.reason.starts_with("hang proven") {
            if ready && watched.suspect_since.take().is_some() {
                watched.lives(now);
                watched.worker_killed = None;
            }
            let by_checks = ready && tier.health == Health::Down && tier.check.failures >= 3;
            watched.down_since = watched.down_since.or(Some(now)).filter(|_| by_checks);
            let still =
                watched.down_since.map_or(now, |since| since.max(watched.changed)).max(world.unfair_at);
            return ensure(spins || now.since(still) <= settings.suspect + LATE, || {
                format!(
                    "{id:?} is DOWN and nothing of it moves, and it is not restarted: {watched:?} {tier:?}"
                )
            });
        }
        if watched.suspect_since.is_none() {
            watched.suspect_since = Some(now);
            let before = &step.before.status.tiers[usize::from(id.0)];
            watched.still_since = if before.health == Health::Down { before.since } else { now };
            let silence = settings.silence.min(settings.silence_on_cpu).min(settings.silence_on_gpu);
            let silent = now.since(watched.sample.last_progress) >= silence;
            let hungry = watched.hungry_since.is_some_and(|since| now.since(since) >= silence * HUNGRY);
            let looks = watched.looks.map_or(0, |(.., times)| times);
            let apart = watched.looks.is_some_and(|(first, last, _)| last.since(first) >= APART);
            ensure(watched.sample.in_flight > 0 && (silent || hungry) && looks >= 2 && apart, || {
                format!("{id:?} is suspect after {:?} and {:?}", watched.sample, watched.looks)
            })?;
        }
        let since = watched.suspect_since.map_or(now, |since| since.max(watched.changed));
        let since = since.max(watched.may_have_changed).max(world.unfair_at);
        let limit = match watched.worker_killed {
            Some(_) => (settings.suspect / 2).max(WORKER),
            None => settings.suspect,
        };
        let since = since.max(watched.worker_killed.unwrap_or_default());
        ensure(spins || now.since(since) <= limit + LATE, || {
            format!(
                "{id:?} is suspect, nothing has changed for {:?}, and it is not restarted: {tier:?}",
                now.since(since)
            )
        })?;
        let tried = watched.tried_at.max(since);
        ensure(watched.worker_killed.is_some() || now.since(tried) <= TRIED + S, || {
            format!("{id:?} is suspect, and is not tried: {tier:?}")
        })
    }
}

/// It burns CPU time, which vouches for it now and then.
fn is_spinning(world: &World, tier: TierId) -> bool {
    engine_of(world, tier).is_some() && world.process(tier).is_some_and(|process| process.spins)
}

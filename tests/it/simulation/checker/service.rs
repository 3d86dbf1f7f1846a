//! Clients get answers where there are any to get.
use super::{Checker, S, Seen, Verdict, World, ensure};
use crate::simulation::fake::Mood;
use mainstay::policy::{EngineState, Health, Standing, TierId};
use std::time::Duration;

/// From "works perfectly" to `Open`: one trial every ten seconds, which may just have failed, and some.
const WELL_AFTER: Duration = Duration::from_secs(30);
/// A remote tier that stayed DOWN is checked this seldom.
const CHECK_SELDOM: Duration = Duration::from_secs(30);
/// Trials that pass while clients get no answer become rare: each doubles the pause, up to this.
const TRY_SELDOM: Duration = Duration::from_secs(300);

impl Checker {
    /// Clients get answers where there are any to get, and a hang is noticed in time.
    pub(super) fn service(&mut self, world: &World, after: &Seen) -> Verdict {
        if self.shut_down || world.now.since(world.unfair_at) < 120 * S {
            return Ok(());
        }
        let any_able = after.status.tiers.iter().any(|tier| tier.health != Health::Down);
        for (rank, (route, tier)) in after.routes.iter().zip(&after.status.tiers).enumerate() {
            let id = TierId(rank as u16);
            let (mood, since) = world.mood(id);
            let since =
                tier.engine.as_ref().map_or(since, |engine| since.max(engine.since)).max(world.agent_since);
            let ready = tier.engine.as_ref().is_none_or(|engine| engine.state == EngineState::Ready);
            let vain = self.vain.get(&id).map_or(0, |(times, _)| times.saturating_sub(1).min(9));
            let checked = if tier.engine.is_none() { CHECK_SELDOM } else { Duration::ZERO };
            let rare = (10 * S * (1 << vain)).min(TRY_SELDOM) - 10 * S + checked;
            let well = ready
                && matches!(mood, Mood::Fine | Mood::Slow)
                && world.now.since(since) > WELL_AFTER + rare;
            ensure(!well || route.standing == Standing::Open, || {
                format!("{id:?} works since {since:?}, and is {tier:?}")
            })?;
            let flow = &world.flows[rank];
            // A busy server is never DOWN, whatever its health page says, as long as requests of ours keep it busy.
            let busy = ready && mood == Mood::Busy && tier.health == Health::Down;
            let began = flow.waiting_since.map(|waiting| waiting.max(since) + 10 * S);
            ensure(!busy || began.is_none_or(|began| tier.since < began), || {
                format!("{id:?} is only busy, since {began:?}: {tier:?}")
            })?;
            let hung = tier.engine.is_some() && ready && matches!(mood, Mood::Hung | Mood::Frozen);
            if let (true, Some(waiting)) = (hung, flow.waiting_since) {
                let settings = &world.settings.tiers[rank];
                let silence = if settings.wants_gpu { settings.silence_on_cpu } else { settings.silence };
                // Progress is a second old when it is read.
                let asked = since.max(waiting).max(flow.sample.last_progress).max(world.unfair_at);
                // What spins is believed for a while.
                let spins = mood == Mood::Frozen && world.process(id).is_some_and(|process| process.spins);
                let believed = if spins { silence * 7 } else { Duration::ZERO };
                let moved = world.now.since(asked) > believed + silence + 6 * S + S;
                if moved && spins && any_able && route.standing != Standing::Open {
                    self.count("spins seen through");
                }
                ensure(!moved || !any_able || route.standing != Standing::Open, || {
                    format!("{id:?} hangs since {asked:?}, and requests still go there")
                })?;
                let limit = believed + silence + settings.suspect * 3 + 60 * S;
                ensure(world.now.since(asked) < limit, || format!("{id:?} hangs for ever: {tier:?}"))?;
            }
        }
        Ok(())
    }
}

//! Incidents: which notices are one failure, when it is over, and what the operator is mailed about it.
//!
//! ```text
//!  notices of a step ──► hear ──► Open, Note, Worsen          (one open incident per tier at most)
//!  the host after it ──► settle ─► Close                      (clients are served as before, or the tier is back)
//!                         └──► letters: alert now, or in a digest later; a return for what was mailed
//! ```
//!
//! A machine of its own beside `Host`: it hears what the host tells and decides nothing about engines. What an operator
//! did (cause `asked`) opens no incident.
mod letters;
#[cfg(test)]
mod tests;

use super::{Cause, EngineState, Health, HostState, HostStatus, Moment, Notice, TierId, TierStatus};
use letters::Letters;
pub use letters::{Letter, LetterSettings};
use std::time::Duration;

/// An incident's number; never given out twice, also not by a later agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IncidentId(pub u64);

/// What an incident has come to. The later ones are graver; it only ever gets worse until it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gravity {
    /// A tier failed, and no client was moved by it.
    Failure,
    /// Its engine was to use a GPU and does not; it serves.
    Gpu,
    /// Serving moved down from the tier.
    Failover,
    /// Its engine was given up on for now (held, or waited for in vain), or cannot be killed.
    Held,
    /// No tier can answer, or the only one that is open fails its clients' requests.
    AllDown,
}

impl Gravity {
    pub const ALL: [Self; 5] = [Self::Failure, Self::Gpu, Self::Failover, Self::Held, Self::AllDown];

    /// The name in records, and in `alert.mail.on`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Gpu => "gpu",
            Self::Failover => "failover",
            Self::Held => "held",
            Self::AllDown => "all-down",
        }
    }
}

/// What to write down, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A new incident, about this tier.
    Open { id: IncidentId, tier: TierId },
    /// The notice that was just heard belongs to it.
    Note { id: IncidentId },
    /// It has come to more than before.
    Worsen { id: IncidentId, gravity: Gravity },
    /// It is over.
    Close { id: IncidentId },
    /// Something is to be mailed.
    Post(Letter),
}

/// An incident that is not over yet, as a later agent needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    pub id: IncidentId,
    pub tier: TierId,
    pub gravity: Gravity,
    /// The operator has had a mail about it, by itself or in a digest.
    pub mailed: bool,
    /// What was mailed, or waits for the digest.
    pub told: Vec<Gravity>,
}

/// What an earlier agent left.
#[derive(Clone, Debug, Default)]
pub struct SavedIncidents {
    pub last_id: u64,
    pub open: Vec<Open>,
    /// Waiting for the digest.
    pub waiting: Vec<IncidentId>,
    /// How long ago the last mail went out that opened an incident.
    pub last_alert: Option<Duration>,
}

#[derive(Debug)]
pub struct Incidents {
    last_id: u64,
    /// At most one for each tier.
    open: Vec<Open>,
    letters: Letters,
    /// The tier that each engine belongs to.
    engines: Vec<TierId>,
}

impl Incidents {
    /// How every start of the agent begins. `engines`: the best tier of each engine.
    pub fn resume(
        settings: LetterSettings,
        engines: Vec<TierId>,
        saved: SavedIncidents,
        now: Moment,
    ) -> Self {
        let letters = Letters::resume(settings, saved.waiting, saved.last_alert, now);
        Self { last_id: saved.last_id, open: saved.open, letters, engines }
    }

    /// Takes one notice, in the order in which the host told them.
    pub fn hear(&mut self, now: Moment, notice: &Notice) -> Vec<Entry> {
        let mut entries = Vec::new();
        match notice {
            Notice::Engine { run, to, .. } => {
                let Some(tier) = self.engines.get(usize::from(run.engine.0)).copied() else { return entries };
                match to {
                    EngineState::Held | EngineState::Wedged => {
                        self.worsen(now, tier, Gravity::Held, &mut entries);
                    }
                    EngineState::Stopped
                    | EngineState::Starting
                    | EngineState::Ready
                    | EngineState::Stopping
                    | EngineState::Backoff => {}
                }
                self.note(|open| open.tier == tier, &mut entries);
            }
            Notice::Waiting { run, .. } => {
                let Some(tier) = self.engines.get(usize::from(run.engine.0)).copied() else { return entries };
                self.worsen(now, tier, Gravity::Held, &mut entries);
                self.note(|open| open.tier == tier, &mut entries);
            }
            Notice::Exit { run, ending, .. } => {
                let Some(tier) = self.engines.get(usize::from(run.engine.0)).copied() else { return entries };
                if ending.cause != Cause::Asked {
                    self.worsen(now, tier, Gravity::Failure, &mut entries);
                }
                self.note(|open| open.tier == tier, &mut entries);
            }
            Notice::Health { tier, to, cause, .. } => {
                if *to == Health::Down && *cause != Some(Cause::Asked) {
                    self.worsen(now, *tier, Gravity::Failure, &mut entries);
                }
                self.note(|open| open.tier == *tier, &mut entries);
            }
            Notice::Failover { from, cause, .. } => {
                if *cause != Some(Cause::Asked) {
                    self.worsen(now, *from, Gravity::Failover, &mut entries);
                }
                self.note(|_| true, &mut entries);
            }
            Notice::AllDown { from, cause, .. } => {
                let broken = self.open.iter().map(|open| open.tier).min();
                // An operator who stops the last tier does it on purpose, unless the others are gone for another reason.
                let asked = *cause == Some(Cause::Asked);
                let blamed = if asked { broken } else { from.or(broken).or(Some(TierId(0))) };
                if let Some(tier) = blamed {
                    self.worsen(now, tier, Gravity::AllDown, &mut entries);
                }
                self.note(|_| true, &mut entries);
            }
            Notice::CpuFallback { run, .. } => {
                let Some(tier) = self.engines.get(usize::from(run.engine.0)).copied() else { return entries };
                self.worsen(now, tier, Gravity::Gpu, &mut entries);
                self.note(|open| open.tier == tier, &mut entries);
            }
            Notice::LastResort { tier, .. } => {
                self.worsen(now, *tier, Gravity::AllDown, &mut entries);
                self.note(|_| true, &mut entries);
            }
            Notice::Worker { run, .. } => {
                let Some(tier) = self.engines.get(usize::from(run.engine.0)).copied() else { return entries };
                self.worsen(now, tier, Gravity::Failure, &mut entries);
                self.note(|open| open.tier == tier, &mut entries);
            }
            Notice::Serving { .. } | Notice::Return { .. } => self.note(|_| true, &mut entries),
            Notice::Operator { tier, .. } => self.note(|open| open.tier == *tier, &mut entries),
        }
        entries
    }

    /// After a step: closes what is over, and posts what is due.
    pub fn settle(&mut self, now: Moment, host: &HostStatus) -> Vec<Entry> {
        let mut entries = Vec::new();
        // What happens to tiers while mainstay ends says nothing about them.
        if host.state == HostState::Serving {
            let is_over = |open: &Open| is_back(open, host) || is_unwanted(open, host);
            let (over, open): (Vec<Open>, Vec<Open>) = self.open.drain(..).partition(is_over);
            self.open = open;
            for incident in over {
                let Open { id, mailed, .. } = incident;
                entries.push(Entry::Close { id });
                // Nothing has come back where a tier is only not wanted any more, unless nobody could answer at all: who was
                // told that has to hear that somebody can.
                let was_outage = incident.told.contains(&Gravity::AllDown);
                if mailed && (was_outage || is_back(&incident, host)) {
                    entries.extend(self.letters.answer(id).map(Entry::Post));
                }
            }
        }
        if let Some(letter) = self.letters.due(now) {
            for open in self.open.iter_mut().filter(|open| letter.names(open.id)) {
                open.mailed = true;
            }
            entries.push(Entry::Post(letter));
        }
        entries
    }

    /// When to `settle` even though nothing happened.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.letters.deadline()
    }

    /// What is not over, and as far as the operator has been told of it.
    pub fn open(&self) -> &[Open] {
        &self.open
    }

    /// Does this one wait for the digest?
    pub fn is_waiting(&self, id: IncidentId) -> bool {
        self.letters.is_waiting(id)
    }

    fn worsen(&mut self, now: Moment, tier: TierId, gravity: Gravity, entries: &mut Vec<Entry>) {
        let place = self.open.iter().position(|open| open.tier == tier);
        let place = place.unwrap_or_else(|| {
            self.last_id += 1;
            let id = IncidentId(self.last_id);
            let (mailed, told) = (false, Vec::new());
            self.open.push(Open { id, tier, gravity: Gravity::Failure, mailed, told });
            entries.push(Entry::Open { id, tier });
            self.open.len() - 1
        });
        let open = &mut self.open[place];
        if gravity > open.gravity {
            open.gravity = gravity;
            entries.push(Entry::Worsen { id: open.id, gravity });
        }
        // Also one that is less grave than what came before: a failover after an outage is news to whoever asked for it.
        if self.letters.wants(gravity) && !open.told.contains(&gravity) {
            open.told.push(gravity);
            if let Some(letter) = self.letters.alert(now, open.id, gravity) {
                open.mailed = true;
                entries.push(Entry::Post(letter));
            }
        }
    }

    fn note(&self, concerned: impl Fn(&Open) -> bool, entries: &mut Vec<Entry>) {
        let concerned = self.open.iter().filter(|open| concerned(open));
        // The note comes before the letter, which tells of it.
        let letters = entries.iter().position(|entry| matches!(entry, Entry::Post(_)));
        let at = letters.unwrap_or(entries.len());
        let notes: Vec<Entry> = concerned.map(|open| Entry::Note { id: open.id }).collect();
        entries.splice(at..at, notes);
    }
}

/// Is what failed made good?
fn is_back(open: &Open, host: &HostStatus) -> bool {
    let tier = host.tiers.get(usize::from(open.tier.0));
    let serves = |tier: &TierStatus| tier.health != Health::Down && !tier.last_resort;
    let is_up = tier.is_none_or(serves);
    match open.gravity {
        Gravity::Failure | Gravity::Held => is_up,
        // A new run has to be looked at first.
        Gravity::Gpu => is_up && tier.is_none_or(|tier| tier.cpu_fallback == Some(false)),
        // Of no concern to clients any more; if the tier goes on failing, that is the next incident.
        Gravity::Failover | Gravity::AllDown => host.serving.is_some_and(|serving| {
            serving <= open.tier && host.tiers.get(usize::from(serving.0)).is_none_or(serves)
        }),
    }
}

/// Nobody waits for the tier any more: an operator stopped it, or one above it serves. While nothing can answer, or
/// clients are served by a weaker tier, there is no such thing.
fn is_unwanted(open: &Open, host: &HostStatus) -> bool {
    let tier = host.tiers.get(usize::from(open.tier.0));
    let stopped =
        tier.and_then(|tier| tier.engine.as_ref()).map(|engine| engine.state) == Some(EngineState::Stopped);
    stopped && host.serving.is_some()
}

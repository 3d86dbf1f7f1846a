//! The incidents of a simulated host: what must hold of records and mail whatever the host goes through, also when the
//! agent is replaced in the middle.
use super::checker::{Verdict, ensure};
use mainstay::policy::incident::{
    Entry, Gravity, IncidentId, Incidents, Letter, LetterSettings, SavedIncidents,
};
use mainstay::policy::{
    Action, EngineId, Health, HostState, HostStatus, Moment, Notice, Place, Settings, TierId, TierStatus,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const PAUSE: Duration = Duration::from_secs(300);
/// So many entries later the machine is made anew from what was written down.
const LIFE: u64 = 97;

pub struct Scribe {
    incidents: Incidents,
    engines: Vec<TierId>,
    open: BTreeMap<IncidentId, TierId>,
    /// What was mailed by itself, and is not answered.
    mailed: BTreeSet<IncidentId>,
    /// Came to something that is mailed, and no mail has told of it yet.
    owed: BTreeSet<IncidentId>,
    last_id: u64,
    last_alert: Option<Moment>,
    /// The last mail about one incident: it tells of everything that the incident comes to in the same instant.
    alerted: Option<(Moment, IncidentId)>,
    entries: u64,
    pub happened: BTreeMap<&'static str, u64>,
}

fn settings() -> LetterSettings {
    let on = vec![Gravity::Gpu, Gravity::Failover, Gravity::Held, Gravity::AllDown];
    LetterSettings { on, on_return: true, at_most_every: PAUSE }
}

impl Scribe {
    pub fn new(host: &Settings, now: Moment) -> Self {
        let tier_of = |engine: usize| {
            let place = Place::Local(EngineId(engine as u16));
            let rank = host.tiers.iter().position(|tier| tier.place == place);
            TierId(rank.expect("every engine has a tier") as u16)
        };
        let engines: Vec<TierId> = (0..host.engines.len()).map(tier_of).collect();
        Self {
            incidents: Incidents::resume(settings(), engines.clone(), SavedIncidents::default(), now),
            engines,
            open: BTreeMap::new(),
            mailed: BTreeSet::new(),
            owed: BTreeSet::new(),
            last_id: 0,
            last_alert: None,
            alerted: None,
            entries: 0,
            happened: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.happened.entry(what).or_default() += 1;
    }

    fn hear(&mut self, now: Moment, actions: &[Action]) -> Verdict {
        for action in actions {
            let Action::Tell(notice) = action else { continue };
            let entries = self.incidents.hear(now, notice);
            self.told(notice, &entries)?;
            self.take(now, entries)?;
        }
        Ok(())
    }

    /// The agent crashes after these actions of a step. What had been told is written down.
    pub fn crash(&mut self, now: Moment, actions: &[Action]) -> Verdict {
        self.hear(now, actions)?;
        self.begin_anew(now);
        Ok(())
    }

    /// Hears what a step told, and looks at everything.
    pub fn check(&mut self, now: Moment, actions: &[Action], host: &HostStatus) -> Verdict {
        self.hear(now, actions)?;
        let entries = self.incidents.settle(now, host);
        self.take(now, entries)?;
        let late = self.incidents.next_deadline().is_some_and(|at| at <= now);
        ensure(!late, || "a digest is due, and does not come".to_owned())?;
        // Digests come with the host's own deadlines here, which may be a while later than theirs.
        ensure(self.owed.is_empty() || self.incidents.next_deadline().is_some(), || {
            format!("nobody will be told of {:?}", self.owed)
        })?;
        // A run that nobody has looked at yet may be on the CPU as the one before it was.
        let is_well = |tier: &TierStatus| {
            tier.health != Health::Down
                && !tier.last_resort
                && (tier.engine.is_none() || tier.cpu_fallback == Some(false))
        };
        let all_well = host.state == HostState::Serving && host.tiers.iter().all(is_well);
        ensure(!all_well || self.open.is_empty(), || format!("all is well, and open: {:?}", self.open))?;
        if self.entries >= LIFE {
            self.begin_anew(now);
        }
        Ok(())
    }

    /// What must be an incident is one.
    fn told(&self, notice: &Notice, entries: &[Entry]) -> Verdict {
        let must = match notice {
            Notice::Exit { ending, .. } => ending.cause.name() != "asked",
            Notice::Failover { cause, .. } | Notice::AllDown { cause, .. } => {
                cause.is_none_or(|cause| cause.name() != "asked")
            }
            Notice::CpuFallback { .. }
            | Notice::LastResort { .. }
            | Notice::Waiting { .. }
            | Notice::Worker { .. } => true,
            Notice::Engine { .. }
            | Notice::Health { .. }
            | Notice::Serving { .. }
            | Notice::Return { .. }
            | Notice::Operator { .. } => false,
        };
        let noted = entries.iter().any(|entry| matches!(entry, Entry::Note { .. }));
        ensure(noted || !must, || format!("no incident tells of {notice:?}"))
    }

    fn take(&mut self, now: Moment, entries: Vec<Entry>) -> Verdict {
        for entry in entries {
            self.entries += 1;
            match entry {
                Entry::Open { id, tier } => {
                    self.count("incidents");
                    ensure(id.0 > self.last_id, || format!("{id:?} was given out before"))?;
                    self.last_id = id.0;
                    let twice = self.open.values().any(|open| *open == tier);
                    ensure(!twice, || format!("two open incidents about {tier:?}"))?;
                    self.open.insert(id, tier);
                }
                Entry::Note { id } => {
                    ensure(self.open.contains_key(&id), || format!("{id:?} is not open, and was noted"))?;
                }
                Entry::Worsen { id, gravity } => {
                    ensure(gravity > Gravity::Failure && self.open.contains_key(&id), || format!("{id:?}"))?;
                    if self.alerted != Some((now, id)) {
                        self.owed.insert(id);
                    }
                }
                Entry::Close { id } => {
                    self.count("incidents over");
                    ensure(self.open.remove(&id).is_some(), || {
                        format!("{id:?} is not open, and was closed")
                    })?;
                }
                Entry::Post(letter) => self.post(now, letter)?,
            }
        }
        Ok(())
    }

    fn post(&mut self, now: Moment, letter: Letter) -> Verdict {
        let early = self.last_alert.is_some_and(|at| now.since(at) < PAUSE);
        match letter {
            Letter::Alert { id, .. } => {
                self.count("alerts");
                ensure(!early, || format!("{id:?} was mailed too soon"))?;
                (self.last_alert, self.alerted) = (Some(now), Some((now, id)));
                self.owed.remove(&id);
                self.mailed.insert(id);
            }
            Letter::Digest { ids, more } => {
                self.count("digests");
                ensure(!early && !ids.is_empty(), || format!("a digest of {ids:?}, too soon or of nothing"))?;
                self.last_alert = Some(now);
                for id in ids {
                    ensure(self.owed.remove(&id) || self.mailed.contains(&id), || {
                        format!("{id:?} is no news")
                    })?;
                    if self.open.contains_key(&id) {
                        self.mailed.insert(id);
                    }
                }
                ensure(more == 0 || self.owed.len() as u64 <= more, || "the digest forgot some".to_owned())?;
                self.owed.clear();
            }
            Letter::Return { id } => {
                self.count("return mails");
                self.owed.remove(&id);
                ensure(self.mailed.remove(&id), || format!("{id:?} was not mailed, and its end was"))?;
                ensure(!self.open.contains_key(&id), || format!("{id:?} is open, and its end was mailed"))?;
            }
        }
        Ok(())
    }

    /// Another agent takes over, with what this one wrote down.
    fn begin_anew(&mut self, now: Moment) {
        self.entries = 0;
        let open = self.incidents.open().to_vec();
        if !open.is_empty() {
            self.count("resumed incidents");
        }
        let waiting = self.owed.iter().copied().filter(|id| self.incidents.is_waiting(*id)).collect();
        let saved = SavedIncidents {
            last_id: self.last_id,
            open,
            waiting,
            last_alert: self.last_alert.map(|at| now.since(at)),
        };
        self.incidents = Incidents::resume(settings(), self.engines.clone(), saved, now);
    }
}

//! Keeps the records of open incidents: what policy's incidents say becomes a record, and records and mail go to the
//! clerk, who writes them.
use super::notice::{self, Names};
use super::previous;
use super::scene::View;
use super::world::World;
use crate::alert::{Clerk, Felt, Job, Line, Look, Mail, Post, PostKind, Record, SCHEMA, Standing};
use crate::clock;
use crate::control::feed::Event;
use crate::kinds;
use crate::policy::incident::{
    Entry, Gravity, IncidentId, Incidents, Letter, LetterSettings, Open, SavedIncidents,
};
use crate::policy::{Cause, EngineState, HostStatus, Moment, Notice, RunId, TierId, TierStatus};
use crate::redact::Redactor;
use crate::shim::LOG;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked at what clients feel; an open incident is written anew when that is more than before.
const REFRESH: Duration = Duration::from_secs(1);
/// Mails and last saves that may wait for a clerk whose queue is full.
const OWED_MAX: usize = 100;

/// What a record is made from, beside notices.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    pub world: &'a World,
    /// What clients have felt of this agent so far, by the tier that they met.
    pub felt: &'a [Felt],
}

pub struct Recorder {
    incidents: Incidents,
    /// Those that are not over.
    open: BTreeMap<IncidentId, OpenRecord>,
    clerk: Clerk,
    /// What the clerk's queue had no room for, and nothing would make up for.
    owed: VecDeque<Job>,
    redactor: Arc<Redactor>,
    host: String,
    refreshed: Moment,
    /// What clients had felt at the last look, and at the one before. A failure is felt before it is known, so an incident
    /// counts from the earlier one.
    looks: [Vec<Felt>; 2],
}

struct OpenRecord {
    record: Record,
    tier: TierId,
    /// When it began, or this agent did.
    opened: Moment,
    /// How long it had lasted by then.
    lasted_before: Duration,
    /// What clients had felt when it began, or when this agent did.
    before: Felt,
    /// Of an earlier agent, already in the record.
    earlier: Felt,
    /// Serving moved down from its tier.
    moved: bool,
    changed: bool,
    /// The run whose end has to be looked at.
    look: Option<Option<RunId>>,
}

impl Recorder {
    /// Goes on with what an earlier agent left: `records` are all that are kept, the oldest first.
    pub fn resume(
        settings: LetterSettings,
        world: &World,
        records: Result<(Vec<Record>, u64), String>,
        clerk: Clerk,
        redactor: Arc<Redactor>,
    ) -> Self {
        let now = clock::now();
        let host = host_name();
        let (records, last_id) = match records {
            Ok(found) => found,
            Err(why) => {
                tracing::error!(why, "the incidents of before cannot be read; numbers go on from the time");
                // Larger than any that was counted.
                (Vec::new(), clock::wall_ms().unsigned_abs() / 1_000)
            }
        };
        let saved = SavedIncidents {
            last_id,
            open: open_ones(&records, world),
            // What was to be mailed and is not in the outbox was lost with the agent before: the digest makes up for it.
            waiting: records.iter().filter(|r| is_owed(&r.mail)).map(|r| IncidentId(r.id)).collect(),
            last_alert: records.iter().filter_map(|r| r.mail.at.as_deref()).max().map(age),
        };
        let mut open = BTreeMap::new();
        for mut record in records.into_iter().filter(Record::is_open) {
            if !saved.open.iter().any(|known| known.id.0 == record.id) {
                // Its tier is no longer configured, or was taken into another incident.
                record.closed = Some(clock::rfc3339(clock::wall_ms()));
                clerk.give(Job::Save(Box::new(record), None));
                continue;
            }
            let lasted_before = age(&record.opened);
            let earlier = record.clients;
            let moved = record.to.is_some();
            let tier = world.tier_named(&record.tier).unwrap_or(TierId(0));
            let entry = OpenRecord {
                record,
                tier,
                opened: now,
                lasted_before,
                before: Felt::default(),
                earlier,
                moved,
                changed: true,
                look: None,
            };
            open.insert(IncidentId(entry.record.id), entry);
        }
        let incidents = Incidents::resume(settings, world.engines.clone(), saved, now);
        let (owed, looks) = (VecDeque::new(), [Vec::new(), Vec::new()]);
        Self { incidents, open, clerk, owed, redactor, host, refreshed: now, looks }
    }

    pub fn clerk(&self) -> &Clerk {
        &self.clerk
    }

    pub fn next_deadline(&self) -> Option<Moment> {
        self.incidents.next_deadline()
    }

    /// Hears a notice, with the event that tells of it.
    pub fn hear(&mut self, now: Moment, notice: &Notice, event: &Event, around: Around<'_>) {
        for entry in self.incidents.hear(now, notice) {
            if let Entry::Note { id } = &entry
                && let Some(open) = self.open.get_mut(id)
            {
                let Event { at, seq, kind, text, tier, .. } = event;
                let about = tier.as_ref().filter(|tier| **tier != open.record.tier);
                let text = about.map_or_else(|| text.clone(), |tier| format!("{tier}: {text}"));
                open.record.note(Line { at: at.clone(), seq: *seq, kind: kind.clone(), text });
                open.changed = true;
                open.take_in(notice, event, around.world.names());
            }
            self.apply(now, entry, around);
        }
    }

    /// After a step: closes, posts and saves what is due.
    pub fn settle(&mut self, now: Moment, host: &HostStatus, around: Around<'_>) {
        for entry in self.incidents.settle(now, host) {
            self.apply(now, entry, around);
        }
        if now.since(self.refreshed) >= REFRESH {
            self.refreshed = now;
            self.looks.swap(0, 1);
            self.looks[1] = around.felt.to_vec();
            for open in self.open.values_mut() {
                open.changed |= open.record.clients != open.felt(around.felt);
            }
        }
        let tiers = standings(host, around.world);
        for open in self.open.values_mut().filter(|open| open.changed) {
            open.record.tiers.clone_from(&tiers);
        }
        self.save(around);
        self.hand_over();
    }

    /// What is not over, the oldest first.
    pub fn open(&self) -> impl Iterator<Item = &Record> {
        self.open.values().map(|open| &open.record)
    }

    /// For the clerk, in this order, as soon as there is room.
    fn owe(&mut self, job: Job) {
        if self.owed.len() >= OWED_MAX {
            tracing::error!("too much waits for a disk that takes nothing; the oldest is lost");
            self.owed.pop_front();
        }
        self.owed.push_back(job);
        self.hand_over();
    }

    fn hand_over(&mut self) {
        while let Some(job) = self.owed.pop_front() {
            if let Err(job) = self.clerk.offer(job) {
                return self.owed.push_front(job);
            }
        }
    }

    fn apply(&mut self, now: Moment, entry: Entry, around: Around<'_>) {
        match entry {
            Entry::Open { id, tier } => {
                let opened = self.opened(id, tier, now, around);
                self.open.insert(id, opened);
            }
            Entry::Note { .. } => {}
            Entry::Worsen { id, gravity } => {
                if let Some(open) = self.open.get_mut(&id) {
                    open.record.kind = gravity.name().to_owned();
                    open.changed = true;
                }
            }
            Entry::Close { id } => {
                self.save(around);
                let Some(mut open) = self.open.remove(&id) else { return };
                open.record.closed = Some(clock::rfc3339(clock::wall_ms()));
                open.record.lasted_s =
                    Some(((open.lasted_before + now.since(open.opened)).as_secs_f64() * 1e3).round() / 1e3);
                open.record.clients = open.felt(around.felt);
                open.record.mail.waiting = self.incidents.is_waiting(id);
                tracing::info!(incident = id.0, tier = open.record.tier, "the incident is over");
                self.owe(Job::Save(Box::new(open.record), None));
            }
            Entry::Post(letter) => {
                // The mail is made from what is on disk.
                self.save(around);
                self.owe(Job::Post(Box::new(post(letter))));
            }
        }
    }

    fn opened(&self, id: IncidentId, tier: TierId, now: Moment, around: Around<'_>) -> OpenRecord {
        let Around { world, .. } = around;
        let before = self.looks[0].get(usize::from(tier.0)).copied().unwrap_or_default();
        let seat = world.seats.get(usize::from(tier.0));
        let run = seat.and_then(|seat| seat.run.as_ref()).map(|live| live.run);
        let record = Record {
            schema: SCHEMA,
            id: id.0,
            host: self.host.clone(),
            tier: world.names().tier(tier),
            engine: seat.map(|seat| seat.tier.kind.name().to_owned()).unwrap_or_default(),
            model: seat.map(|seat| self.redactor.text(&seat.tier.model).into_owned()).unwrap_or_default(),
            kind: Gravity::Failure.name().to_owned(),
            opened: clock::rfc3339(clock::wall_ms()),
            cause: Cause::Unknown.name().to_owned(),
            run: run.map(|run| run.number),
            ..Record::default()
        };
        tracing::warn!(incident = id.0, tier = record.tier, "an incident has begun");
        OpenRecord {
            record,
            opened: now,
            lasted_before: Duration::ZERO,
            before,
            tier,
            earlier: Felt::default(),
            moved: false,
            changed: true,
            look: Some(run),
        }
    }

    /// Writes down what has changed, each record once.
    fn save(&mut self, around: Around<'_>) {
        let changed: BTreeSet<IncidentId> =
            self.open.iter().filter(|(_, open)| open.changed).map(|(id, _)| *id).collect();
        for id in changed {
            let told = self.incidents.open().iter().find(|open| open.id == id).cloned();
            let waiting = self.incidents.is_waiting(id);
            let Some(open) = self.open.get_mut(&id) else { continue };
            open.changed = false;
            open.record.clients = open.felt(around.felt);
            if let Some(Open { mailed, told, .. }) = told {
                let told = told.iter().map(|gravity| gravity.name().to_owned()).collect();
                open.record.mail = Mail { told, mailed, waiting, ..Mail::default() };
            }
            let look = open.look.take().map(|run| look(run, around.world));
            self.clerk.give(Job::Save(Box::new(open.record.clone()), look));
        }
    }
}

impl OpenRecord {
    /// What clients have felt since it began, given what they have felt of this agent in all.
    fn felt(&self, tiers: &[Felt]) -> Felt {
        let now = tiers.get(usize::from(self.tier.0)).copied().unwrap_or_default();
        Felt {
            moved: self.earlier.moved + now.moved.saturating_sub(self.before.moved),
            cut: self.earlier.cut + now.cut.saturating_sub(self.before.cut),
            weakened: self.earlier.weakened + now.weakened.saturating_sub(self.before.weakened),
            refused: self.earlier.refused + now.refused.saturating_sub(self.before.refused),
        }
    }

    /// What the notice says about the whole incident, beyond a line of its timeline.
    fn take_in(&mut self, notice: &Notice, event: &Event, names: Names<'_>) {
        let record = &mut self.record;
        match notice {
            // An operator who restarts it is not what went wrong.
            Notice::Exit { ending, .. } if ending.cause == Cause::Asked => {}
            Notice::Exit { run, ending } if event.tier.as_ref() == Some(&record.tier) => {
                record.run = Some(run.number);
                (record.code, record.signal) = (event.code, event.signal.clone());
                // What a later try does not say was still said by the one before.
                if ending.cause != Cause::Unknown || record.evidence.is_none() {
                    record.cause = ending.cause.name().to_owned();
                    record.evidence = ending.evidence.clone();
                    record.deterministic = ending.deterministic;
                    record.advice = Some(advice(record, ending.cause));
                }
                self.look = Some(Some(*run));
            }
            Notice::Engine { to, why, .. } => match to {
                EngineState::Starting => record.action = Some(format!("started again ({why})")),
                EngineState::Backoff | EngineState::Held | EngineState::Wedged => {
                    record.action = Some(why.clone());
                }
                EngineState::Stopped | EngineState::Ready | EngineState::Stopping => {}
            },
            // Others' failovers are only lines of the timeline.
            Notice::Failover { from, to, .. } if names.tier(*from) == record.tier || self.moved => {
                self.moved = true;
                record.to = Some(names.tier(*to));
            }
            Notice::Failover { .. } => {}
            Notice::AllDown { cause, why, .. } => {
                record.to = None;
                // A remote tier that never answered had no fall to be told of.
                if let (true, true, Some(cause)) = (record.is_of_remote(), record.evidence.is_none(), cause) {
                    blame(record, *cause, why);
                }
            }
            Notice::Serving { to: Some(to), .. } if self.moved && names.tier(*to) != record.tier => {
                record.to = Some(names.tier(*to));
            }
            // Its own return: who stood in for it stays on record.
            Notice::Serving { .. } => {}
            Notice::CpuFallback { evidence, .. } => {
                if record.evidence.is_none() {
                    blame(record, Cause::CpuFallback, evidence);
                    record.action = Some("nothing: the tier is degraded and keeps its place".to_owned());
                }
            }
            Notice::LastResort { tier, cause, why } => stays_open(record, &names.tier(*tier), *cause, why),
            Notice::Worker { .. } | Notice::Waiting { .. } => record.action = Some(event.text.clone()),
            Notice::Operator { tier, .. } if names.tier(*tier) == record.tier => {
                record.action = Some(format!("an operator asked: {}", event.text));
            }
            Notice::Return { .. } | Notice::Operator { .. } => {}
            Notice::Health { cause, why, .. } => {
                if let (true, Some(cause)) = (record.evidence.is_none(), cause) {
                    blame(record, *cause, why);
                    let next = if record.is_of_remote() {
                        Some("it gets no requests until it passes its checks again, which go on")
                    } else {
                        (*cause == Cause::Hang).then_some(
                            "it gets no new requests; it is restarted if it stays so for tier.suspect",
                        )
                    };
                    record.action = record.action.take().or(next.map(str::to_owned));
                }
            }
            Notice::Exit { .. } => {}
        }
    }
}

fn advice(record: &Record, cause: Cause) -> String {
    kinds::advice(cause, &record.tier, record.is_of_remote())
}

fn blame(record: &mut Record, cause: Cause, evidence: &str) {
    record.cause = cause.name().to_owned();
    record.evidence = Some(evidence.to_owned());
    record.advice = Some(advice(record, cause));
}

/// This tier fails its clients, and is open because no other one is. Others' records only have it in their timeline.
fn stays_open(record: &mut Record, tier: &str, cause: Option<Cause>, why: &str) {
    if tier != record.tier {
        return;
    }
    record.to = None;
    if let (true, Some(cause)) = (record.evidence.is_none(), cause) {
        blame(record, cause, why);
    }
    record.action = Some("nothing: the tier stays open, because no other one is".to_owned());
}

/// What is not over; of one tier only the newest, should the end of an older one have been lost.
fn open_ones(records: &[Record], world: &World) -> Vec<Open> {
    let mut open: BTreeMap<TierId, Open> = BTreeMap::new();
    open.extend(records.iter().filter_map(|record| open_of(record, world)).map(|one| (one.tier, one)));
    open.into_values().collect()
}

/// An incident of an earlier agent, if this one still has its tier.
fn open_of(record: &Record, world: &World) -> Option<Open> {
    let gravity = Gravity::ALL.into_iter().find(|gravity| gravity.name() == record.kind)?;
    let told = |name: &String| Gravity::ALL.into_iter().find(|gravity| gravity.name() == name);
    record.is_open().then(|| {
        Some(Open {
            id: IncidentId(record.id),
            tier: world.tier_named(&record.tier)?,
            gravity,
            mailed: record.mail.mailed,
            told: record.mail.told.iter().filter_map(told).collect(),
        })
    })?
}

/// How long ago, by the wall clock: a later agent may be of another boot.
fn age(at: &str) -> Duration {
    let ms = clock::parse_rfc3339(at).map_or(0, |at| (clock::wall_ms() - at).max(0));
    Duration::from_millis(ms.unsigned_abs())
}

fn standings(host: &HostStatus, world: &World) -> Vec<Standing> {
    let tiers = host.tiers.iter().zip(&world.names).enumerate();
    let standing = |(rank, (tier, name)): (usize, (&TierStatus, &String))| {
        let serves = host.serving.is_some_and(|serving| usize::from(serving.0) == rank);
        let health = if serves { "serves" } else { notice::health(tier.health) };
        let engine = tier.engine.as_ref().map(|engine| engine.state);
        let engine = engine.filter(|state| *state != EngineState::Ready).map(notice::state);
        Standing {
            name: name.clone(),
            state: engine.map_or_else(|| health.to_owned(), |engine| format!("{health}, {engine}")),
            reason: tier.reason.clone(),
        }
    };
    tiers.map(standing).collect()
}

fn is_owed(mail: &Mail) -> bool {
    mail.waiting || (!mail.told.is_empty() && !mail.mailed)
}

fn post(letter: Letter) -> Post {
    match letter {
        Letter::Alert { id, .. } => Post { kind: PostKind::Alert, ids: vec![id.0], more: 0 },
        Letter::Return { id } => Post { kind: PostKind::Return, ids: vec![id.0], more: 0 },
        Letter::Digest { ids, more } => {
            Post { kind: PostKind::Digest, ids: ids.iter().map(|id| id.0).collect(), more }
        }
    }
}

fn look(run: Option<RunId>, world: &World) -> Look {
    let name = |run: RunId| {
        let tier = world.engines.get(usize::from(run.engine.0))?;
        world.names.get(usize::from(tier.0))
    };
    let log = run.and_then(|run| Some(previous::run_path(&world.run_dir, name(run)?, run.number).join(LOG)));
    let view = View { log, state_dir: world.config.agent.state_dir.clone() };
    Box::new(move || view.look())
}

/// What this machine calls itself.
pub fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

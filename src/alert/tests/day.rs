//! A tier that flaps for a day: what is kept of it on disk, and what is mailed.
use super::*;
use crate::alert::{Clerk, Job, Line};
use crate::clock;
use crate::policy::incident::{
    Entry, Gravity, IncidentId, Incidents, Letter, LetterSettings, SavedIncidents,
};
use crate::policy::{
    Cause, CheckStatus, Ending, EngineId, Exit, Health, HostState, HostStatus, Moment, Nature, Notice, RunId,
    TierId, TierStatus,
};
use std::collections::BTreeMap;
use std::fs;

const DAY: u64 = 24 * 3_600;
/// Down for ten seconds of every twenty.
const PERIOD: u64 = 20;
const PAUSE: Duration = Duration::from_secs(300);
const T0: TierId = TierId(0);

/// 2026-11-23T00:00:00Z
const MIDNIGHT_MS: i64 = 1_795_392_000_000;

fn at(second: u64) -> Moment {
    Moment::from_nanos(second * 1_000_000_000)
}

fn host(best: bool) -> HostStatus {
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
    let serving = Some(TierId(u16::from(!best)));
    HostStatus { state: HostState::Serving, serving, tiers: vec![tier(best), tier(true)], retry: None }
}

/// The notices of one failure.
fn failure() -> [Notice; 2] {
    let cause = Cause::CudaFault;
    let ending =
        Ending { exit: Exit::Signal(9), cause, nature: Nature::Engine, deterministic: None, evidence: None };
    let run = RunId { engine: EngineId(0), number: 1 };
    let moved = Notice::Failover { from: T0, to: TierId(1), cause: Some(cause), why: String::new() };
    [Notice::Exit { run, ending }, moved]
}

/// What the agent's recorder does, as far as the disk sees it.
struct Recorder {
    clerk: Clerk,
    open: BTreeMap<IncidentId, Record>,
    /// Subject numbers of the digests: how many incidents each has to tell of.
    digests: Vec<u64>,
    opened: u64,
}

impl Recorder {
    fn take(&mut self, second: u64, entries: Vec<Entry>) {
        let time = clock::rfc3339(MIDNIGHT_MS + second as i64 * 1_000);
        for entry in entries {
            match entry {
                Entry::Open { id, .. } => {
                    self.opened += 1;
                    let (tier, kind, cause) =
                        ("primary".to_owned(), "failover".to_owned(), "cuda-fault".to_owned());
                    let to = Some("cpu".to_owned());
                    let opened = time.clone();
                    self.open
                        .insert(id, Record { id: id.0, tier, kind, cause, to, opened, ..Record::default() });
                }
                Entry::Note { id } => {
                    if let Some(record) = self.open.get_mut(&id) {
                        record.note(Line {
                            at: time.clone(),
                            kind: "exit".into(),
                            text: "x".repeat(200),
                            seq: second,
                        });
                    }
                    self.give(Job::Event(format!(
                        "{{\"seq\":{second},\"at\":\"{time}\",\"kind\":\"exit\"}}"
                    )));
                }
                Entry::Close { id } => {
                    let Some(mut record) = self.open.remove(&id) else { continue };
                    record.closed = Some(time.clone());
                    self.give(Job::Save(Box::new(record), None));
                }
                Entry::Worsen { .. } => {}
                Entry::Post(letter) => {
                    let open: Vec<Record> = self.open.values().cloned().collect();
                    open.into_iter().for_each(|record| self.give(Job::Save(Box::new(record), None)));
                    self.post(letter);
                }
            }
        }
    }

    fn post(&mut self, letter: Letter) {
        let post = match letter {
            Letter::Alert { id, .. } => Post { kind: PostKind::Alert, ids: vec![id.0], more: 0 },
            Letter::Return { id } => Post { kind: PostKind::Return, ids: vec![id.0], more: 0 },
            Letter::Digest { ids, more } => {
                self.digests.push(ids.len() as u64 + more);
                Post { kind: PostKind::Digest, ids: ids.iter().map(|id| id.0).collect(), more }
            }
        };
        self.give(Job::Post(Box::new(post)));
    }

    /// A day goes by faster than a disk writes.
    fn give(&self, mut job: Job) {
        while let Err(back) = self.clerk.offer(job) {
            self.clerk.settle();
            job = back;
        }
    }
}

#[test]
fn a_day_of_flapping_is_bounded_on_disk_and_its_digests_are_true() {
    // In memory: it is not the disk's speed that is asked for.
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let (outbox, _told) = outbox(dir.path());
    let complain = Box::new(|why: &std::io::Error| panic!("{why}"));
    let (clerk, _thread) =
        Clerk::start(dir.path(), ground(), Some(outbox.clone()), complain, None).expect("a thread");
    let on = vec![Gravity::Failover, Gravity::Held, Gravity::AllDown];
    let settings = LetterSettings { on, on_return: true, at_most_every: PAUSE };
    let mut machine = Incidents::resume(settings, vec![T0, TierId(1)], SavedIncidents::default(), at(0));
    let mut recorder = Recorder { clerk, open: BTreeMap::new(), digests: Vec::new(), opened: 0 };
    for second in 0..DAY {
        if second % PERIOD == 0 {
            for notice in failure() {
                let entries = machine.hear(at(second), &notice);
                recorder.take(second, entries);
            }
        }
        let entries = machine.settle(at(second), &host(second % PERIOD >= PERIOD / 2));
        recorder.take(second, entries);
    }
    recorder.clerk.settle();
    assert_eq!((recorder.opened, recorder.clerk.lost()), (DAY / PERIOD, 0));

    let entries = |name: &str| {
        fs::read_dir(dir.path().join(name)).expect("a directory").map(|it| it.expect("an entry"))
    };
    let records =
        entries("incidents").filter(|it| it.path().extension().is_some_and(|it| it == "json")).count();
    assert!((100..=101).contains(&records), "{records} records of {} incidents", recorder.opened);
    let mails: Vec<u64> = entries("outbox")
        .filter(|it| it.path().is_file())
        .map(|it| it.metadata().expect("a file").len())
        .collect();
    assert!(mails.len() <= 200 && mails.iter().sum::<u64>() <= 8 << 20, "{} mails wait", mails.len());
    let journal: u64 = ["events.jsonl", "events.jsonl.1"]
        .iter()
        .filter_map(|name| fs::metadata(dir.path().join(name)).ok())
        .map(|it| it.len())
        .sum();
    assert!(journal > 0 && journal <= (4 << 20) + 1_000, "{journal} bytes of events");

    // The newest digest says how many it tells of, and names each.
    let digest =
        outbox.numbers().expect("a directory").into_iter().rev().map(|n| outbox.open(n).expect("a mail"));
    let digest = digest.into_iter().find(|mail| mail.envelope.kind == PostKind::Digest).expect("a digest");
    let told = *recorder.digests.last().expect("a digest");
    let subject = &digest.envelope.subject;
    assert!(subject.starts_with(&format!("[ALERT] LLM digest: {told} incidents since ")), "{subject}");
    assert_eq!(digest.envelope.ids.len() as u64, told);
    let all: u64 = recorder.digests.iter().sum();
    let window = PAUSE.as_secs() / PERIOD;
    assert!(
        all + 1 + window >= recorder.opened && all < recorder.opened,
        "{all} told of {}",
        recorder.opened
    );
}

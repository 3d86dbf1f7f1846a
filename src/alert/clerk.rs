//! The thread that writes: incidents, events, and mail into the outbox.
//!
//! A disk may hang, be full or be gone. None of that may reach the loop, so jobs go through a bounded queue and are
//! dropped, and counted, when it is full; a later save of the same incident makes up for a lost one. Nothing makes up for
//! a mail, or for an incident's last save, so whoever has one keeps it until the queue takes it.
use super::journal::Journal;
use super::outbox::Outbox;
use super::outcome::Outcome;
use super::post::{Post, PostKind};
use super::record::{Record, Scene};
use super::starts::Starts;
use super::store::{Ground, Store};
use crate::clock;
use crate::policy::Moment;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Jobs that may wait for a slow disk. A record is a few kilobytes.
const WAITING_MAX: usize = 256;
/// An alert waits this long for what is found out right after the failure: an engine's exit, and what it died of.
const RIPEN: Duration = Duration::from_secs(2);
/// When mail that could not be written down is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// Records that may wait for it.
pub(super) const UNSAVED_MAX: usize = 100;
/// Mails that may wait for a disk that takes none.
const POSTS_MAX: usize = 50;
/// Events that may wait for a disk that takes none.
pub(super) const LINES_MAX: usize = 500;
/// With nothing to do.
const REST: Duration = Duration::from_secs(3600);
/// How long the last jobs may take when the agent ends.
const LAST_JOBS: Duration = Duration::from_secs(2);

/// One piece of work that takes longer than this is told of: the disk takes nothing, and does not even say so.
pub(super) const HANGS: Duration = Duration::from_secs(10);
const HANGS_WHY: &str = "the file system of the state directory does not answer";

/// Looks at the machine and at an engine's last lines; called on the clerk's thread, because both may take their time.
pub type Look = Box<dyn FnOnce() -> Scene + Send>;

/// Says what could not be written, and why; of a disk that takes nothing for a while, the first.
pub type Complain = Box<dyn Fn(&io::Error) + Send>;

pub enum Job {
    /// Keep this record in place of the former one. With a look, its scene is seen anew; without, it stays what it was.
    Save(Box<Record>, Option<Look>),
    /// Put a mail about these incidents into the outbox.
    Post(Box<Post>),
    /// Keep how long a tier's last starts took.
    Starts(Box<Starts>),
    /// Append an event: one line of JSON, without its end.
    Event(String),
    /// Everything before it has been written once the sender hears from this.
    Mark(SyncSender<()>),
}

/// The way to the thread.
#[derive(Clone, Debug)]
pub struct Clerk {
    queue: SyncSender<Job>,
    lost: Arc<AtomicU64>,
    shown: Arc<Mutex<Shown>>,
}

/// What others may know of the thread's work.
#[derive(Debug, Default)]
struct Shown {
    /// Why nothing is kept, since the first thing that could not be written.
    trouble: Option<String>,
    /// Since when it is at one piece of work.
    busy_since: Option<Moment>,
}

impl Clerk {
    /// Starts the thread. It ends when the last handle is gone. `trouble`: why the state directory could not be used so far.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(
        state_dir: &Path,
        ground: Ground,
        outbox: Option<Outbox>,
        complain: Complain,
        trouble: Option<String>,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let (queue, jobs) = sync_channel(WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let shown = Arc::new(Mutex::new(Shown { trouble, busy_since: None }));
        let desk = Desk {
            lost: Arc::clone(&lost),
            shown: Arc::clone(&shown),
            has_written: false,
            is_post_stuck: false,
            ground,
            lines: VecDeque::new(),
            state_dir: state_dir.to_owned(),
            store: Store::at(state_dir),
            journal: Journal::at(state_dir),
            outbox,
            kept: BTreeMap::new(),
            unsaved: BTreeMap::new(),
            posts: VecDeque::new(),
            complain,
        };
        let thread = std::thread::Builder::new().name("clerk".into()).spawn(move || desk.work(&jobs))?;
        Ok((Self { queue, lost, shown }, thread))
    }

    /// Never waits.
    pub fn give(&self, job: Job) {
        if self.queue.try_send(job).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    /// Never waits. For what nothing makes up for.
    ///
    /// # Errors
    /// The job, when the queue is full.
    pub fn offer(&self, job: Job) -> Result<(), Job> {
        match self.queue.try_send(job) {
            Err(TrySendError::Full(job)) => Err(job),
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
        }
    }

    /// Jobs that found the queue full, and records and events that gave way to newer ones. What only waits for the disk is
    /// not lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Why nothing is kept, since the first time that something could not be written; `None`: everything has been.
    pub fn trouble(&self) -> Option<String> {
        self.trouble_at(clock::now())
    }

    pub(super) fn trouble_at(&self, now: Moment) -> Option<String> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let hangs = || shown.busy_since.is_some_and(|since| now.since(since) >= HANGS);
        shown.trouble.clone().or_else(|| hangs().then(|| HANGS_WHY.to_owned()))
    }

    /// Waits until what was given so far is written; not for ever.
    pub fn settle(&self) {
        let (written, heard) = sync_channel(1);
        if self.queue.try_send(Job::Mark(written)).is_ok() {
            let _ = heard.recv_timeout(LAST_JOBS);
        }
    }
}

/// What is added to a record on its way to the disk.
#[derive(Default)]
struct Kept {
    scene: Scene,
    message_id: Option<String>,
    mailed_at: Option<String>,
}

struct Desk {
    lost: Arc<AtomicU64>,
    shown: Arc<Mutex<Shown>>,
    /// Something was written since the last thing that could not be.
    has_written: bool,
    /// The oldest mail could not be written down.
    is_post_stuck: bool,
    ground: Ground,
    /// Events that the disk did not take, to be tried again; the newest one last.
    lines: VecDeque<String>,
    state_dir: PathBuf,
    store: Store,
    journal: Journal,
    outbox: Option<Outbox>,
    /// Of the incidents that are open: what only this thread knows.
    kept: BTreeMap<u64, Kept>,
    /// Records that the disk did not take, to be tried again; what is mailed meanwhile is made from these.
    unsaved: BTreeMap<u64, Record>,
    /// Mail that is not in the outbox yet, and when it may be written.
    posts: VecDeque<(Post, Moment)>,
    complain: Complain,
}

impl Desk {
    fn work(mut self, jobs: &Receiver<Job>) {
        loop {
            let job = jobs.recv_timeout(self.patience());
            self.shown().busy_since = Some(clock::now());
            match job {
                Ok(Job::Save(record, look)) => self.tell(|desk| desk.save(*record, look)),
                Ok(Job::Post(post)) => self.put_off(*post),
                Ok(Job::Starts(starts)) => {
                    self.tell(|desk| (desk.ground)().and_then(|()| starts.save(&desk.state_dir)));
                }
                Ok(Job::Event(line)) => {
                    self.lines.push_back(line);
                    self.tell(Self::write_lines);
                }
                Ok(Job::Mark(written)) => {
                    // The agent ends: what is known now is all that this one will ever know.
                    self.posts.iter_mut().for_each(|(_, ready)| *ready = Moment::default());
                    self.write_posts();
                    let _ = written.send(());
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.has_written |= !self.lines.is_empty() && self.write_lines().is_ok();
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.save_unsaved();
            self.write_posts();
            self.forget_trouble();
            self.shown().busy_since = None;
        }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Once something was written, and nothing waits for a disk that takes it.
    fn forget_trouble(&mut self) {
        let waits = self.is_post_stuck || !self.unsaved.is_empty() || !self.lines.is_empty();
        if !self.has_written || waits {
            return;
        }
        let was = self.shown().trouble.take();
        if let (Some(_), Some(outbox)) = (was, &self.outbox) {
            outbox.ring();
        }
    }

    /// Told once, however often it happens until something can be written again.
    fn note_trouble(&mut self, why: &io::Error) {
        self.has_written = false;
        let mut shown = self.shown();
        if shown.trouble.is_none() {
            shown.trouble = Some(why.to_string());
            drop(shown);
            (self.complain)(why);
        }
    }

    fn write_lines(&mut self) -> io::Result<()> {
        if self.lines.len() > LINES_MAX {
            self.lines.pop_front();
            self.lost.fetch_add(1, Relaxed);
        }
        while let Some(line) = self.lines.front() {
            (self.ground)()?;
            self.journal.append(line)?;
            self.lines.pop_front();
        }
        Ok(())
    }

    /// One failure is enough to know that the disk still takes nothing.
    fn save_unsaved(&mut self) {
        while let Some((_, record)) = self.unsaved.pop_first() {
            if (self.ground)().and_then(|()| self.store.save(&record)).is_err() {
                self.unsaved.insert(record.id, record);
                return;
            }
            self.has_written = true;
        }
    }

    fn keep(&mut self, record: Record) -> io::Result<()> {
        let saved = (self.ground)().and_then(|()| self.store.save(&record));
        // An older one that waits must not be written over it.
        self.unsaved.remove(&record.id);
        if saved.is_err() {
            self.unsaved.insert(record.id, record);
            if self.unsaved.len() > UNSAVED_MAX {
                self.unsaved.pop_first();
                self.lost.fetch_add(1, Relaxed);
            }
        }
        saved
    }

    fn put_off(&mut self, post: Post) {
        let ready = match post.kind {
            PostKind::Alert => clock::now() + RIPEN,
            PostKind::Digest | PostKind::Return => clock::now(),
        };
        if self.posts.len() >= POSTS_MAX {
            self.posts.pop_front();
            (self.complain)(&io::Error::other("too many mails cannot be written down; the oldest is lost"));
        }
        self.posts.push_back((post, ready));
    }

    fn patience(&self) -> Duration {
        let rest = if self.unsaved.is_empty() && self.lines.is_empty() { REST } else { AGAIN };
        self.posts.front().map_or(rest, |(_, ready)| ready.since(clock::now()).min(rest))
    }

    /// Writes what is ready, in order; what cannot be written stays, and is tried again.
    fn write_posts(&mut self) {
        while self.posts.front().is_some_and(|(_, ready)| *ready <= clock::now()) {
            let Some((post, _)) = self.posts.pop_front() else { return };
            let posted = self.post(&post);
            self.is_post_stuck = posted.is_err();
            self.has_written |= posted.is_ok();
            if let Err(why) = posted {
                self.note_trouble(&why);
                if let Some(outbox) = &self.outbox {
                    outbox.tell(&Outcome::Stuck { why: why.to_string() });
                }
                return self.posts.push_front((post, clock::now() + AGAIN));
            }
        }
    }

    fn tell(&mut self, work: impl FnOnce(&mut Self) -> io::Result<()>) {
        match work(self) {
            Ok(()) => self.has_written = true,
            Err(why) => self.note_trouble(&why),
        }
    }

    fn save(&mut self, mut record: Record, look: Option<Look>) -> io::Result<()> {
        let id = record.id;
        let kept = self.kept.entry(id).or_insert_with(|| {
            // An incident of an earlier agent, or a new one.
            let before = self.store.load(id).unwrap_or_default();
            Kept { scene: before.scene, message_id: before.mail.message_id, mailed_at: before.mail.at }
        });
        if let Some(look) = look {
            kept.scene = look();
        }
        record.scene = kept.scene.clone();
        (record.mail.message_id, record.mail.at) = (kept.message_id.clone(), kept.mailed_at.clone());
        // Not before it is in the outbox: after a crash in between, the next agent owes the operator a word.
        record.mail.mailed &= kept.mailed_at.is_some();
        if !record.is_open() {
            self.kept.remove(&id);
        }
        self.keep(record)
    }

    /// The mail is made from the records as they were saved, with their scenes. An error means that there is none: what is
    /// in the outbox goes out, whatever becomes of the records, and must not be written twice.
    fn post(&mut self, post: &Post) -> io::Result<()> {
        let Some(outbox) = &self.outbox else { return Ok(()) };
        let records: Vec<Record> = post.ids.iter().filter_map(|id| self.record(*id)).collect();
        let message_id = outbox.put(post, &records)?;
        if post.kind == PostKind::Return {
            return Ok(());
        }
        let at = clock::rfc3339(clock::wall_ms());
        for mut record in records {
            // The answer will refer to the first mail that told of it.
            let message_id = record.mail.message_id.get_or_insert_with(|| message_id.clone()).clone();
            (record.mail.at, record.mail.mailed, record.mail.waiting) = (Some(at.clone()), true, false);
            if let Some(kept) = self.kept.get_mut(&record.id) {
                (kept.message_id, kept.mailed_at) = (Some(message_id), Some(at.clone()));
            }
            self.tell(|desk| desk.keep(record));
        }
        Ok(())
    }

    fn record(&self, id: u64) -> Option<Record> {
        self.unsaved.get(&id).cloned().or_else(|| self.store.load(id).ok())
    }
}

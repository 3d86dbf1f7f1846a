//! Mail that waits to be sent: `outbox/` of the state directory, one file each, so that neither a dead relay nor an end
//! of the agent loses any.
//!
//! A file is one line of JSON (who, to whom, which incidents) and then the mail as it goes out. It is written whole or
//! not at all, numbered in order, and removed as soon as the relay has answered for it. Between that answer and the
//! removal lies the one instant in which a crash makes a mail go out twice; both then have the same Message-ID.
use super::compose;
use super::message::{self, Letterhead, Text};
use super::outcome::{Outcome, Tell, Ticket};
use super::post::{Post, PostKind};
use super::record::Record;
use super::store::{self, Ground};
use crate::clock;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// Mails that may wait.
const MAILS_MAX: usize = 200;
/// What all of them may take, in bytes.
const BYTES_MAX: u64 = 8 << 20;
/// Mails that were given up, and are kept for whoever asks where they went.
const FAILED_MAX: usize = 20;
/// One file: a digest of a hundred incidents has some tens of kilobytes.
const FILE_MAX: u64 = 1 << 20;

/// Blacks out secrets in a text that is about to be written down.
pub type Redact = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// The first line of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Envelope {
    pub(super) message_id: String,
    pub(super) kind: PostKind,
    pub(super) ids: Vec<u64>,
    pub(super) subject: String,
    /// On the wall clock, in milliseconds.
    pub(super) queued_ms: i64,
    pub(super) from: String,
    /// Who does not have it yet.
    pub(super) to: Vec<String>,
    /// How often it was offered to a relay.
    pub(super) attempts: u32,
    /// What came of the last time.
    pub(super) last: Option<String>,
}

impl Envelope {
    pub(super) fn ticket(&self) -> Ticket {
        let Self { message_id, kind, ids, subject, .. } = self.clone();
        Ticket { message_id, kind, ids, subject }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Waiting {
    pub(super) envelope: Envelope,
    pub(super) bytes: Vec<u8>,
}

/// A handle; all of them are of one outbox.
#[derive(Clone)]
pub struct Outbox(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    ground: Ground,
    letterhead: Letterhead,
    redact: Redact,
    tell: Tell,
    /// Rung for each new mail.
    bell: Notify,
    /// Of the last mail. Also held while files come and go.
    last_number: Mutex<Option<u64>>,
    /// How many there were at the last look.
    waiting: AtomicUsize,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("dir", &self.0.dir).finish_non_exhaustive()
    }
}

impl Outbox {
    /// Makes nothing yet. `tell` hears what becomes of the mails.
    pub fn at(state_dir: &Path, ground: Ground, letterhead: Letterhead, redact: Redact, tell: Tell) -> Self {
        let (dir, bell, last_number) = (state_dir.join("outbox"), Notify::new(), Mutex::new(None));
        let waiting = AtomicUsize::new(0);
        Self(Arc::new(Inner { dir, ground, letterhead, redact, tell, bell, last_number, waiting }))
    }

    /// Writes the mail down; the Message-ID that answers refer to.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn put(&self, post: &Post, records: &[Record]) -> io::Result<String> {
        let Inner { letterhead, redact, .. } = &*self.0;
        let Text { subject, body } = compose::write(&letterhead.host, post, records);
        let text = Text { subject: redact(&subject), body: redact(&body) };
        let answers = match post.kind {
            PostKind::Return => records.first().and_then(|record| record.mail.message_id.as_deref()),
            PostKind::Alert | PostKind::Digest => None,
        };
        let queued_ms = clock::wall_ms();
        let message_id = message::new_id(letterhead, queued_ms);
        let bytes = message::build(letterhead, &text, &message_id, answers, queued_ms);
        let envelope = Envelope {
            message_id: message_id.clone(),
            kind: post.kind,
            ids: post.ids.clone(),
            subject: text.subject,
            queued_ms,
            from: letterhead.from.email.to_string(),
            to: letterhead.to.iter().map(|to| to.email.to_string()).collect(),
            attempts: 0,
            last: None,
        };
        self.add(&Waiting { envelope, bytes: bytes.map_err(io::Error::other)? })?;
        self.0.bell.notify_one();
        Ok(message_id)
    }

    /// There may be something to send: mail that could not be reached.
    pub(super) fn ring(&self) {
        self.0.bell.notify_one();
    }

    /// Hears of the next mail, or of one that came since the last time.
    pub(super) async fn rung(&self) {
        self.0.bell.notified().await;
    }

    pub(super) fn tell(&self, outcome: &Outcome) {
        (self.0.tell)(outcome);
    }

    pub(super) fn redacted(&self, text: &str) -> String {
        (self.0.redact)(text)
    }

    /// The numbers of the mails that wait, the oldest first.
    pub(super) fn numbers(&self) -> io::Result<Vec<u64>> {
        // Another agent's would be sent twice.
        (self.0.ground)()?;
        let numbers = numbers(&self.0.dir)?;
        self.0.waiting.store(numbers.len(), Relaxed);
        Ok(numbers)
    }

    /// Mails that wait, as of the last time that one came or was tried. Asks no disk.
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Relaxed)
    }

    /// # Errors
    /// `NotFound` when it is not there any more; `InvalidData` when its file is damaged.
    pub(super) fn open(&self, number: u64) -> io::Result<Waiting> {
        read(&self.path(number))
    }

    /// The relay has it.
    pub(super) fn remove(&self, number: u64) -> io::Result<()> {
        fs::remove_file(self.path(number))?;
        // Else a power failure could bring it back.
        File::open(&self.0.dir)?.sync_all()
    }

    /// Writes down what has changed, unless the mail has been dropped in the meantime.
    pub(super) fn update(&self, number: u64, mail: &Waiting) -> io::Result<()> {
        let _guard = self.lock();
        let path = self.path(number);
        if path.exists() { store::replace(&path, &written(mail)?) } else { Ok(()) }
    }

    /// Puts it aside, for whoever asks where it went.
    pub(super) fn give_up(&self, number: u64) -> io::Result<()> {
        let failed = self.0.dir.join("failed");
        fs::create_dir_all(&failed)?;
        fs::rename(self.path(number), failed.join(file_name(number)))?;
        let kept = numbers(&failed)?;
        for old in &kept[..kept.len().saturating_sub(FAILED_MAX)] {
            fs::remove_file(failed.join(file_name(*old)))?;
        }
        Ok(())
    }

    fn add(&self, mail: &Waiting) -> io::Result<()> {
        (self.0.ground)()?;
        let mut last_number = self.lock();
        let last = match *last_number {
            Some(last) => last,
            None => {
                let kept = [self.0.dir.clone(), self.0.dir.join("failed")].map(|dir| numbers(&dir));
                kept.into_iter().flatten().flatten().max().unwrap_or(0)
            }
        };
        store::replace(&self.path(last + 1), &written(mail)?)?;
        *last_number = Some(last + 1);
        // The mail is there; whatever keeps old ones from going must not have it written twice.
        if let Err(why) = self.make_room() {
            tracing::warn!(%why, "the outbox cannot be tidied");
        }
        Ok(())
    }

    /// Lets the oldest mails go where there are too many.
    fn make_room(&self) -> io::Result<()> {
        let mut bytes = 0;
        for (newer, number) in self.numbers()?.into_iter().rev().enumerate() {
            let path = self.path(number);
            bytes += fs::metadata(&path).map_or(0, |m| m.len());
            if newer > 0 && (newer >= MAILS_MAX || bytes > BYTES_MAX) {
                let dropped = read(&path);
                match fs::remove_file(&path) {
                    // The courier was quicker.
                    Err(why) if why.kind() == io::ErrorKind::NotFound => continue,
                    removed => removed?,
                }
                if let Ok(mail) = dropped {
                    self.tell(&Outcome::Dropped { mail: mail.envelope.ticket() });
                }
            }
        }
        Ok(())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.0.dir.join(file_name(number))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        self.0.last_number.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ten digits keep `ls` in order.
fn file_name(number: u64) -> String {
    format!("{number:010}.mail")
}

fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(dir) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let number = |path: &Path| path.file_name()?.to_str()?.strip_suffix(".mail")?.parse().ok();
    let mut numbers: Vec<u64> = entries.filter_map(|entry| number(&entry.ok()?.path())).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn written(mail: &Waiting) -> io::Result<Vec<u8>> {
    let mut file = serde_json::to_vec(&mail.envelope)?;
    file.push(b'\n');
    file.extend_from_slice(&mail.bytes);
    Ok(file)
}

fn read(path: &Path) -> io::Result<Waiting> {
    let mut file = Vec::new();
    File::open(path)?.take(FILE_MAX).read_to_end(&mut file)?;
    let end = file.iter().position(|byte| *byte == b'\n');
    let end = end.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it has no first line"))?;
    let bytes = file.split_off(end + 1);
    let envelope =
        serde_json::from_slice(&file).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
    Ok(Waiting { envelope, bytes })
}

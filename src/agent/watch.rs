//! A starting run under watch: is what it writes news, and do its processes move? Policy gives a start up that does neither
//! for `startup.stall`.
use super::gpus::{self, Seen};
use super::workers;
use crate::clock;
use crate::kinds::{self, Kind, Novelty, Progress};
use crate::lookout;
use crate::policy::{EngineEvent, Figures, Moment, Still, moved};
use crate::shim::ring::{Reader, Stream};
use crate::shortage::Shortage;
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinHandle;

/// A start is looked at this often, so that 2 % of a core is a figure and not chance; more often where it may stand still
/// for a short time only.
const LOOK: Duration = Duration::from_secs(5);
const LOOKS_PER_STALL: u32 = 4;
const LOOK_MIN: Duration = Duration::from_millis(100);
/// Of a start that floods its log, so many of the newest bytes are read at a time: it is the loop's thread that reads.
const READ_MAX: u64 = 256 * 1024;
/// Of a line that is repeated, as much is shown.
const REPEATED_CHARS: usize = 200;

/// What a look has found, and when it looked.
type Found = (Moment, Result<Figures, Shortage>);

/// What is remembered of a start between two looks.
#[derive(Default)]
pub struct Watch {
    novelty: Novelty,
    /// Up to where the log was read.
    offset: u64,
    /// The last line that was no news, since one was.
    repeats: Option<String>,
    /// The last figures, and when they were read.
    figures: Option<(Moment, Figures)>,
    /// A look whose answer has not been taken yet.
    looking: Option<JoinHandle<Option<Found>>>,
}

/// What is new in the log.
#[derive(Default)]
pub struct Read {
    /// At least one line says something that was not said before.
    pub news: bool,
    /// What the lines tell of the start, in order.
    pub telling: Vec<Progress>,
}

impl Read {
    /// Of a bar that was drawn a hundred times since, the last drawing says all that is needed; dots add up.
    fn tell(&mut self, said: Progress) {
        let dots = matches!(said.done, Some(kinds::Done::Dots(_)));
        match self.telling.last_mut() {
            Some(last) if last.rung == said.rung && !dots => last.done = said.done.or(last.done),
            Some(_) | None => self.telling.push(said),
        }
    }
}

/// How often a start is looked at that may stand still so long.
pub fn look_every(stall: Duration) -> Duration {
    (stall / LOOKS_PER_STALL).clamp(LOOK_MIN, LOOK)
}

impl Watch {
    /// Reads what the run's log has got since the last time.
    pub fn read(&mut self, log: &Path, kind: Kind) -> Read {
        let followed = Reader::open(log).and_then(|reader| reader.newest(self.offset, READ_MAX));
        let Ok(followed) = followed else { return Read::default() };
        self.offset = followed.next;
        // The shim's own notes are no word of the engine.
        let said = followed.lines.iter().filter(|line| line.stream != Stream::Note);
        let mut read = Read::default();
        for line in said.map(|line| String::from_utf8_lossy(&line.bytes)) {
            if self.novelty.is_news(&line) {
                read.news = true;
            } else if !line.trim().is_empty() {
                self.repeats = Some(line.trim().chars().take(REPEATED_CHARS).collect());
            }
            if let Some(said) = kinds::progress(kind, &line) {
                read.tell(said);
            }
        }
        if read.news {
            self.repeats = None;
        }
        read
    }

    /// What the look before this one has found, as far as it is back; and the next look. The kernel may take its time with
    /// a process that a driver holds, so a thread does it, one at a time; until it is back nothing is known.
    pub async fn look(&mut self, main_pid: u32, gpus: Option<&Seen>) -> Option<EngineEvent> {
        let found = match self.looking.take() {
            Some(looking) if !looking.is_finished() => {
                self.looking = Some(looking);
                return Some(self.still(&Figures::new()));
            }
            Some(looking) => looking.await.ok().flatten(),
            None => None,
        };
        let gpus = gpus.map(|gpus| gpus.load_full());
        let vram = move |tree: &[u32]| gpus::held_by(gpus.as_deref()?, tree);
        let look = move || (clock::now(), workers::tree_figures(main_pid, vram));
        let lookout = lookout::on(&format!("figures of {main_pid}"));
        self.looking = Some(tokio::spawn(async move { lookout.look(look).await }));
        let (at, new) = found?;
        // What this host could not look at is no start that stands still.
        let Ok(new) = new else { return Some(EngineEvent::Activity) };
        let (before_at, before) = self.figures.replace((at, new.clone()))?;
        Some(match moved(&before, &new, at.since(before_at)) {
            Some(_) => EngineEvent::Activity,
            None => self.still(&new),
        })
    }

    fn still(&self, figures: &Figures) -> EngineEvent {
        EngineEvent::Still(Still {
            figures: figures.keys().copied().collect(),
            repeats: self.repeats.clone(),
        })
    }
}

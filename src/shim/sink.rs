//! Where a run's lines go. This is the one way into the ring and the journal, so secrets are blacked out here: nothing
//! that is made from lines later (the exit record, `mainstay logs`, a diagnosis) can hold them.
use super::journal::Journal;
use super::lines::End;
use super::onset::Onset;
use super::protocol::Spec;
use super::ring::{Stream, Totals, Writer};
use crate::clock;
use crate::policy::Moment;
use crate::redact::Redactor;

/// Stands at the end of a line whose rest was dropped.
const CUT_MARK: &[u8] = b" [mainstay: rest of the line dropped]";

#[derive(Debug)]
pub(super) struct Sink {
    ring: Writer,
    onset: Option<Onset>,
    redactor: Redactor,
    journal: Option<Journal>,
}

impl Sink {
    /// Takes the secrets out of the spec: nobody else needs them.
    pub fn new(ring: Writer, onset: Option<Onset>, spec: &mut Spec) -> Self {
        let redactor = Redactor::new(std::mem::take(&mut spec.secrets));
        let journal = spec.journal.as_deref().map(|socket| Journal::new(socket, &spec.tier, spec.run));
        // Without a descriptor there is no journal to be had.
        Self { ring, onset, redactor, journal: journal.and_then(Result::ok) }
    }

    /// A sink that knows no secrets, and no journal.
    #[cfg(test)]
    pub fn of(ring: Writer) -> Self {
        Self { ring, onset: None, redactor: Redactor::of_forms(), journal: None }
    }

    /// A line of the engine. It can be read after the next [`Sink::flush`].
    pub fn line(&mut self, at_ms: i64, stream: Stream, line: &[u8], end: End) {
        let mut line = match end {
            End::Whole => self.redactor.bytes(line),
            End::Open | End::Cut => self.redactor.cut_off(line),
        };
        if end == End::Cut {
            line.to_mut().extend_from_slice(CUT_MARK);
        }
        self.ring.push(at_ms, stream, &line);
        if let Some(onset) = &mut self.onset {
            onset.line(clock::now(), at_ms, stream, &line);
        }
        if let Some(journal) = &mut self.journal {
            journal.line(clock::now(), stream, &line);
        }
    }

    /// A word of the shim itself, readable at once.
    pub fn note(&mut self, text: &str) {
        let text = self.redactor.text(text);
        self.ring.push(clock::wall_ms(), Stream::Note, text.as_bytes());
        self.ring.flush();
        if let Some(journal) = &mut self.journal {
            journal.line(clock::now(), Stream::Note, text.as_bytes());
        }
    }

    /// A secret may have begun at the end of this line, and go on in what follows.
    pub fn may_go_on(&self, line: &[u8]) -> bool {
        self.redactor.is_open(line)
    }

    pub fn without_secrets(&self, text: &str) -> String {
        self.redactor.text(text).into_owned()
    }

    /// Counts lines that somebody else had to drop.
    pub fn count_dropped(&mut self, lines: u64) {
        self.ring.count_dropped(lines);
    }

    pub fn flush(&mut self) {
        self.ring.flush();
        if let Some(onset) = &mut self.onset {
            onset.flush();
        }
    }

    /// Does what is due by now: tells the journal what it has missed.
    pub fn tick(&mut self, now: Moment) {
        if let Some(journal) = &mut self.journal {
            journal.tick(now);
        }
    }

    /// When [`Sink::tick`] has something to do.
    pub fn deadline(&self) -> Option<Moment> {
        self.journal.as_ref().and_then(Journal::deadline)
    }

    /// See [`Writer::tail`].
    pub fn tail(&mut self, bytes_max: usize) -> Vec<Vec<u8>> {
        self.ring.tail(bytes_max)
    }

    pub fn totals(&self) -> Totals {
        self.ring.totals()
    }
}

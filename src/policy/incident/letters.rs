//! How much is mailed: at most one alert in `at_most_every`, the rest as one digest, and an answer to whatever was
//! mailed once it is over. So a tier that flaps for a day fills nobody's mailbox, and nothing is kept back for ever.
use super::{Gravity, IncidentId};
use crate::policy::Moment;
use std::time::Duration;

/// Incidents that one digest can name; it says how many more there were.
const DIGEST_MAX: usize = 100;

/// What the operator wants to be mailed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterSettings {
    /// `Gravity::Failure` is never mailed.
    pub on: Vec<Gravity>,
    pub on_return: bool,
    /// From one mail that opened an incident, or a digest, to the next.
    pub at_most_every: Duration,
}

impl LetterSettings {
    /// Nobody is to be mailed.
    pub const fn none() -> Self {
        Self { on: Vec::new(), on_return: false, at_most_every: Duration::ZERO }
    }
}

/// One mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Letter {
    /// An incident has come to this.
    Alert { id: IncidentId, gravity: Gravity },
    /// What happened since the last alert; in order. `more` were left out.
    Digest { ids: Vec<IncidentId>, more: u64 },
    /// It is over: the answer to the mail that told of it.
    Return { id: IncidentId },
}

impl Letter {
    pub fn names(&self, id: IncidentId) -> bool {
        match self {
            Self::Alert { id: named, .. } | Self::Return { id: named } => *named == id,
            Self::Digest { ids, .. } => ids.contains(&id),
        }
    }
}

#[derive(Debug)]
pub(super) struct Letters {
    settings: LetterSettings,
    /// Before this, an alert waits.
    next: Moment,
    waiting: Vec<IncidentId>,
    more: u64,
    /// The last alert. It is written a moment later, and tells what the incident has come to by then.
    last: Option<(Moment, IncidentId)>,
}

impl Letters {
    pub(super) fn resume(
        settings: LetterSettings,
        waiting: Vec<IncidentId>,
        last_alert: Option<Duration>,
        now: Moment,
    ) -> Self {
        let next = last_alert.map_or(now, |ago| now + settings.at_most_every.saturating_sub(ago));
        Self { settings, next, waiting, more: 0, last: None }
    }

    pub(super) fn wants(&self, gravity: Gravity) -> bool {
        self.settings.on.contains(&gravity)
    }

    pub(super) fn is_waiting(&self, id: IncidentId) -> bool {
        self.waiting.contains(&id)
    }

    /// An incident has come to something: the mail about it, unless it has to wait for the digest.
    pub(super) fn alert(&mut self, now: Moment, id: IncidentId, gravity: Gravity) -> Option<Letter> {
        if self.last == Some((now, id)) {
            return None;
        }
        if now >= self.next && self.waiting.is_empty() {
            self.next = now + self.settings.at_most_every;
            self.last = Some((now, id));
            return Some(Letter::Alert { id, gravity });
        }
        if self.waiting.len() < DIGEST_MAX {
            if !self.waiting.contains(&id) {
                self.waiting.push(id);
            }
        } else if !self.waiting.contains(&id) {
            self.more += 1;
        }
        None
    }

    /// An incident that was mailed is over. The answer tells the whole of it, so the digest need not.
    pub(super) fn answer(&mut self, id: IncidentId) -> Option<Letter> {
        let letter = self.settings.on_return.then_some(Letter::Return { id })?;
        self.waiting.retain(|waiting| *waiting != id);
        Some(letter)
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        (!self.waiting.is_empty()).then_some(self.next)
    }

    /// The digest, when its time has come.
    pub(super) fn due(&mut self, now: Moment) -> Option<Letter> {
        if self.deadline().is_none_or(|at| at > now) {
            return None;
        }
        self.next = now + self.settings.at_most_every;
        let (ids, more) = (std::mem::take(&mut self.waiting), std::mem::take(&mut self.more));
        Some(Letter::Digest { ids, more })
    }
}

//! When an engine that cannot answer now may answer again, as far as that can be foreseen: from how long its last start
//! took, and from the pause before the next one. Clients are told it as Retry-After.
use super::stopping::Stopping;
use super::{Duration, Engine, Life, Moment, Turn};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::policy) enum Outlook {
    /// It is not on the way, and nothing but an operator, or a process that lets go at last, changes that.
    Nothing,
    /// It is on the way, and nobody knows for how long.
    Unknown,
    /// It is expected to answer then; in the past when it is overdue.
    At(Moment),
}

impl Engine {
    pub(in crate::policy) fn outlook(&self, turn: &Turn) -> Outlook {
        match &self.life {
            Life::Stopped | Life::Wedged(_) => Outlook::Nothing,
            // Its tier is DOWN all the same: the next check may change that.
            Life::Ready(_) => Outlook::Unknown,
            Life::Starting(starting) => {
                let expected = |took| Outlook::At(starting.began + starting.missed + took);
                self.started_in.map_or(Outlook::Unknown, expected)
            }
            // Where no start was ever seen to its end, its beginning is the best that is known.
            Life::Backoff { until } | Life::Held { until } => {
                Outlook::At(*until + self.started_in.unwrap_or_default())
            }
            Life::Stopping(_) if !self.wanted => Outlook::Nothing,
            Life::Stopping(stopping) => match (self.pause_after(stopping, turn), self.started_in) {
                (Duration::ZERO, None) => Outlook::Unknown,
                // What is left of the stop itself is short, or not known.
                (pause, took) => Outlook::At(turn.now + pause + took.unwrap_or_default()),
            },
        }
    }

    /// What will be decided when the run has ended, as things stand.
    fn pause_after(&self, stopping: &Stopping, turn: &Turn) -> Duration {
        match stopping.failure() {
            None => Duration::ZERO,
            Some(failure) => self.strikes.clone().judge(failure, turn.now, &mut turn.chance.clone()).pause(),
        }
    }
}

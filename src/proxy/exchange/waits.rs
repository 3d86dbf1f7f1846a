//! PURE. Limits of time, and tiers that a request would leave: when to look, and what is done about it.
use super::attempts::{Loss, State};
use super::{Exchange, Input, Step};
use crate::policy::{Moment, Standing};
use crate::proxy::answer::Answer;
use crate::proxy::limits::LOOK_AGAIN;
use std::mem;

impl Exchange {
    /// When to call again if nothing happens before.
    pub fn wake_at(&self) -> Option<Moment> {
        let attempt = self.state.attempt()?;
        let limit = self.limit().map(|(at, _)| at);
        let look =
            (self.state.is_uncommitted() && self.wants_to_leave()).then(|| attempt.looked + LOOK_AGAIN);
        [self.deadline(), limit, self.ripe_at(), look].into_iter().flatten().min()
    }

    /// When the request has taken too long. A stream that flows may take its time: its silence ends it.
    pub(super) fn deadline(&self) -> Option<Moment> {
        match &self.state {
            State::Relaying { answer, .. } if answer.is_events() => None,
            State::Closing { .. } => None,
            State::Idle
            | State::Asking(_)
            | State::Judging { .. }
            | State::Holding(_)
            | State::Relaying { .. }
            | State::Over => self.deadline,
        }
    }

    /// The answer that is being read.
    pub(super) fn answer(&self) -> Option<&Answer> {
        match &self.state {
            State::Holding(holding) => Some(&holding.answer),
            State::Relaying { answer, .. } => Some(answer),
            State::Idle | State::Asking(_) | State::Judging { .. } | State::Closing { .. } | State::Over => {
                None
            }
        }
    }

    /// Until when the end of an answer is waited for that seems whole without it.
    fn ripe_at(&self) -> Option<Moment> {
        let attempt = self.state.attempt()?;
        Some(attempt.heard? + self.answer()?.patience()?)
    }

    /// Is this an end, or a moment, after which nothing of a whole answer is waited for?
    pub(super) fn may_conclude(&self, now: Moment, input: &Input) -> bool {
        let seems_whole = || self.answer().is_some_and(|answer| answer.patience().is_some());
        match input {
            Input::Broken | Input::Lost(_) | Input::Cut => true,
            Input::Standing(standing) => *standing != Standing::Open && seems_whole(),
            Input::Wake => {
                self.ripe_at().is_some_and(|at| now >= at)
                    || (self.limit_passed(now).is_some() && seems_whole())
            }
            Input::Full
            | Input::Sent
            | Input::Head { .. }
            | Input::Data(_)
            | Input::End
            | Input::Resumed(_)
            | Input::NoRoom => false,
        }
    }

    /// The limit of a remote tier that runs now, and its name.
    fn limit(&self) -> Option<(Moment, &'static str)> {
        let attempt = self.state.attempt()?;
        let between = || {
            let (heard, limit) = (attempt.heard?, attempt.to.between_chunks?);
            Some((heard + limit, "went silent in the middle of its answer"))
        };
        match &self.state {
            State::Idle | State::Over => None,
            State::Closing { until, .. } => Some((*until, "did not end its answer")),
            State::Relaying { .. } => between(),
            State::Asking(_) | State::Judging { .. } | State::Holding(_) => {
                if attempt.overdue.is_some() {
                    return None;
                }
                // A stream's first bytes may be pings and roles; those of an answer that comes whole are its content.
                if !self.terms.streaming && attempt.heard.is_some() {
                    return between();
                }
                Some((attempt.began + attempt.to.first_content?, "gave no content in time"))
            }
        }
    }

    /// The limit that has passed, if any.
    pub(super) fn limit_passed(&self, now: Moment) -> Option<&'static str> {
        self.limit().filter(|(at, _)| now >= *at).map(|(_, name)| name)
    }

    fn wants_to_leave(&self) -> bool {
        self.state.attempt().is_some_and(|a| a.standing != Standing::Open || a.overdue.is_some())
    }

    /// Moves an attempt that would leave its tier, if another one is open. Otherwise it stays: a slow answer is better
    /// than none.
    pub(super) fn look_elsewhere(&mut self, now: Moment) -> Vec<Step> {
        if !self.state.is_uncommitted() {
            return Vec::new();
        }
        let passed = self.limit_passed(now);
        if let Some(attempt) = self.state.attempt_mut() {
            attempt.overdue = attempt.overdue.or(passed);
            attempt.looked = now;
        }
        let open = self.untried().any(|c| c.standing == Standing::Open);
        if !self.wants_to_leave() || !open {
            return Vec::new();
        }
        let Some(attempt) = mem::replace(&mut self.state, State::Over).into_attempt() else {
            return Vec::new();
        };
        let loss = match attempt.overdue {
            Some(why) => Loss::failure(why, 1),
            None => Loss::failure("takes no more requests", 0),
        };
        self.lose(now, attempt, loss)
    }
}

//! A counter of an engine, read every two seconds, and whether it moves.
use super::Turn;
use crate::policy::{Moment, STAND_IN, TierId};
use std::time::Duration;

pub(super) const COUNT_EVERY: Duration = Duration::from_secs(2);
const COUNT_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Reads a counter again and again.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) last: Option<u64>,
    /// The same figure so many times in a row.
    equal: u32,
    unanswered: u32,
    asked: Moment,
    /// When to ask next; `None` while an answer is awaited.
    pub(super) next: Option<Moment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Moved,
    /// One look is no proof.
    Unclear,
    Still,
}

impl Counter {
    pub(super) fn new(now: Moment) -> Self {
        Self { last: None, equal: 0, unanswered: 0, asked: now, next: Some(now) }
    }

    pub(super) fn due(&mut self, tier: TierId, turn: &mut Turn) {
        if self.next.is_some_and(|at| at <= turn.now) {
            self.asked = turn.now;
            self.next = None;
            turn.count(tier, COUNT_TIMEOUT);
        }
    }

    /// It could not be asked.
    pub(super) fn unread(&mut self, now: Moment) {
        self.next = Some(now + COUNT_EVERY);
    }

    pub(super) fn read(&mut self, figure: Option<u64>, now: Moment) -> Reading {
        self.next = Some((self.asked + COUNT_EVERY).max(now + COUNT_EVERY / 4));
        match (figure, self.last) {
            (None, Some(_) | None) => self.unanswered += 1,
            (Some(_), None) => {
                self.last = figure;
                self.equal = 1;
            }
            (Some(new), Some(old)) if new == old => self.equal += 1,
            // Another kind of figure says nothing about the last one.
            (Some(new), Some(old)) if is_stand_in(new) != is_stand_in(old) => {
                self.last = figure;
                (self.equal, self.unanswered) = (1, 0);
            }
            (Some(_), Some(_)) => {
                self.last = figure;
                (self.equal, self.unanswered) = (1, 0);
                return Reading::Moved;
            }
        }
        if self.is_still() { Reading::Still } else { Reading::Unclear }
    }

    /// Twice the same figure, or twice none.
    pub(super) fn is_still(&self) -> bool {
        self.equal >= 2 || self.unanswered >= 2
    }

    pub(super) fn describe(&self) -> String {
        match self.last {
            Some(figure) if self.equal >= 2 && is_stand_in(figure) => {
                "its progress counter cannot be read, and it uses no CPU time".to_owned()
            }
            Some(figure) if self.equal >= 2 => format!("its progress counter stays at {figure}"),
            Some(_) | None => "its progress counter cannot be read".to_owned(),
        }
    }
}

/// Is it a CPU time, in place of a counter's figure?
pub(super) fn is_stand_in(figure: u64) -> bool {
    figure & STAND_IN != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use Reading::{Moved, Still, Unclear};

    fn check(figures: &[Option<u64>], expected: &[Reading]) {
        let mut counter = Counter::new(Moment::default());
        let read = |figure: &Option<u64>| counter.read(*figure, Moment::default());
        assert_eq!(figures.iter().map(read).collect::<Vec<_>>(), expected, "{figures:?}");
    }

    #[test]
    fn one_look_is_no_proof_and_two_that_agree_are() {
        check(&[Some(7), Some(7), Some(7)], &[Unclear, Still, Still]);
        check(&[None, None], &[Unclear, Still]);
        check(&[None, Some(7), None], &[Unclear, Unclear, Still]);
        check(&[Some(7), None, Some(7)], &[Unclear, Unclear, Still]);
    }

    #[test]
    fn any_other_figure_is_movement_and_begins_anew() {
        check(&[Some(7), Some(8), Some(8)], &[Unclear, Moved, Still]);
        check(&[Some(7), None, Some(3), None, Some(3)], &[Unclear, Unclear, Moved, Unclear, Still]);
    }

    #[test]
    fn figures_of_two_kinds_are_not_compared() {
        let cpu = |ticks| Some(STAND_IN | ticks);
        check(&[Some(7), cpu(7), cpu(7)], &[Unclear, Unclear, Still]);
        check(&[Some(7), cpu(7), cpu(8), Some(7), Some(7)], &[Unclear, Unclear, Moved, Unclear, Still]);
        check(&[cpu(7), Some(9), Some(10)], &[Unclear, Unclear, Moved]);
        check(&[None, Some(7), cpu(7), None], &[Unclear, Unclear, Unclear, Unclear]);
    }

    #[test]
    fn a_stand_in_is_not_called_a_counter() {
        let mut counter = Counter::new(Moment::default());
        for _ in 0..2 {
            counter.read(Some(STAND_IN | 7), Moment::default());
        }
        assert_eq!(counter.describe(), "its progress counter cannot be read, and it uses no CPU time");
    }
}

//! When an engine that ended without being asked to is started again, and when it is given up on for a while.
//!
//! ```text
//! strike 1        at once (`first`)
//! strike 2, 3 …   base, × 2 up to max, ± 25 %
//! held            at `hold_after` strikes, or 3 runs in a row that never were ready, or 2 deterministic causes;
//!                 tried again after `hold_retry`, × 2 up to 2 h, for ever
//! forgiven        by a stable run, or an operator
//! ```
use super::chance::Chance;
use super::{Cause, Restart};
use std::time::Duration;

const NEVER_READY_LIMIT: u32 = 3;
/// The same start fails the same way; one repetition rules out a misread log.
const DETERMINISTIC_LIMIT: u32 = 2;
const HOLD_RETRY_MAX: Duration = Duration::from_secs(2 * 60 * 60);
/// A new run gets another port, so "address in use" says nothing about the engine, until it says so again and again
/// (a fixed `port` that somebody else has).
const PORT_MOVES: u32 = 5;

/// A run that ended when nobody asked it to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) cause: Cause,
    pub(super) deterministic: Option<bool>,
    pub(super) was_ready: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Start again after this long; zero is at once.
    Start(Duration),
    Hold(Duration),
}

impl Next {
    /// Until the next start.
    pub(super) fn pause(self) -> Duration {
        match self {
            Self::Start(pause) | Self::Hold(pause) => pause,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Strikes {
    restart: Restart,
    count: u32,
    never_ready: u32,
    deterministic: u32,
    port_moves: u32,
    holds: u32,
}

impl Strikes {
    pub(super) fn new(restart: Restart) -> Self {
        Self { restart, count: 0, never_ready: 0, deterministic: 0, port_moves: 0, holds: 0 }
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn forgive(&mut self) {
        *self = Self::new(self.restart);
    }

    /// A run became ready. That forgives nothing yet, but it was not a start in vain.
    pub(super) fn became_ready(&mut self) {
        self.never_ready = 0;
        self.port_moves = 0;
    }

    pub(super) fn judge(&mut self, failure: &Failure, chance: &mut Chance) -> Next {
        if failure.cause == Cause::PortInUse && !failure.was_ready && self.port_moves < PORT_MOVES {
            self.port_moves += 1;
            return Next::Start(self.delay(self.port_moves, chance));
        }
        self.count = self.count.saturating_add(1);
        if !failure.was_ready {
            self.never_ready = self.never_ready.saturating_add(1);
        }
        if failure.deterministic == Some(true) {
            self.deterministic = self.deterministic.saturating_add(1);
        }
        let hold = self.count >= self.restart.hold_after
            || self.never_ready >= NEVER_READY_LIMIT
            || self.deterministic >= DETERMINISTIC_LIMIT;
        if hold {
            let wait = doubled(self.restart.hold_retry, self.holds).min(HOLD_RETRY_MAX);
            self.holds = self.holds.saturating_add(1);
            Next::Hold(wait)
        } else {
            Next::Start(self.delay(self.count, chance))
        }
    }

    fn delay(&self, nth: u32, chance: &mut Chance) -> Duration {
        match nth {
            0 | 1 => self.restart.first,
            later => chance.jitter(doubled(self.restart.base, later - 2).min(self.restart.max)),
        }
    }
}

/// `once` × 2^`times`, without overflow.
fn doubled(once: Duration, times: u32) -> Duration {
    once.saturating_mul(2_u32.saturating_pow(times))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Next::{Hold, Start};

    const S: Duration = Duration::from_secs(1);
    const AT_ONCE: Duration = Duration::ZERO;

    fn restart(hold_after: u32) -> Restart {
        let (first, base, max) = (Duration::ZERO, S, 60 * S);
        Restart { first, base, max, stable: 600 * S, hold_after, hold_retry: 900 * S }
    }

    fn crash() -> Failure {
        Failure { cause: Cause::EngineBug, deterministic: None, was_ready: true }
    }

    fn in_vain(cause: Cause, deterministic: Option<bool>) -> Failure {
        Failure { cause, deterministic, was_ready: false }
    }

    fn run(strikes: &mut Strikes, failures: &[Failure]) -> Vec<Next> {
        let mut chance = Chance::new(3);
        failures.iter().map(|failure| strikes.judge(failure, &mut chance)).collect()
    }

    /// The delays with their jitter taken off: each must lie within a quarter of what is expected.
    fn check(strikes: &mut Strikes, failures: &[Failure], expected: &[Next]) {
        let got = run(strikes, failures);
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            match (got, expected) {
                (Start(got), Start(expected)) => {
                    assert!(*got >= *expected * 3 / 4 && *got <= *expected * 5 / 4, "{got:?} {expected:?}");
                }
                (Hold(got), Hold(expected)) => assert_eq!(got, expected),
                (Start(_), Hold(_)) | (Hold(_), Start(_)) => panic!("{got:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn crashes_back_off_and_the_fifth_is_held_ever_longer() {
        let mut strikes = Strikes::new(restart(5));
        let expected = [Start(AT_ONCE), Start(S), Start(2 * S), Start(4 * S)];
        check(&mut strikes, &vec![crash(); 4], &expected);
        let holds = [Hold(900 * S), Hold(1_800 * S), Hold(3_600 * S), Hold(7_200 * S), Hold(7_200 * S)];
        check(&mut strikes, &vec![crash(); 5], &holds);
        assert_eq!(strikes.count(), 9);
    }

    #[test]
    fn the_delay_has_a_ceiling() {
        let mut strikes = Strikes::new(restart(100));
        let got = run(&mut strikes, &vec![crash(); 40]);
        assert!(got.iter().all(|next| matches!(next, Start(delay) if *delay <= 75 * S)));
        assert!(matches!(got[39], Start(delay) if delay >= 45 * S));
    }

    #[test]
    fn three_starts_in_vain_are_held_but_not_when_one_was_ready_in_between() {
        let vain = || in_vain(Cause::Unknown, None);
        let expected = [Start(AT_ONCE), Start(S), Hold(900 * S)];
        check(&mut Strikes::new(restart(5)), &[vain(), vain(), vain()], &expected);
        let mut strikes = Strikes::new(restart(5));
        check(&mut strikes, &[vain(), vain()], &expected[..2]);
        strikes.became_ready();
        check(&mut strikes, &[crash(), vain()], &[Start(2 * S), Start(4 * S)]);
    }

    #[test]
    fn the_second_deterministic_cause_is_held() {
        let wrong = || in_vain(Cause::BadArgument, Some(true));
        check(&mut Strikes::new(restart(5)), &[wrong(), wrong()], &[Start(AT_ONCE), Hold(900 * S)]);
    }

    #[test]
    fn a_taken_port_moves_on_without_a_strike_but_not_for_ever() {
        let taken = || in_vain(Cause::PortInUse, None);
        let mut strikes = Strikes::new(restart(5));
        let moves = [Start(AT_ONCE), Start(S), Start(2 * S), Start(4 * S), Start(8 * S)];
        check(&mut strikes, &vec![taken(); 5], &moves);
        assert_eq!(strikes.count(), 0);
        check(&mut strikes, &vec![taken(); 3], &[Start(AT_ONCE), Start(S), Hold(900 * S)]);
    }

    #[test]
    fn forgiven_is_as_new() {
        let mut strikes = Strikes::new(restart(5));
        run(&mut strikes, &vec![crash(); 7]);
        strikes.forgive();
        check(&mut strikes, &[crash(), crash()], &[Start(AT_ONCE), Start(S)]);
    }
}

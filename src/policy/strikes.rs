//! When an engine that ended without being asked to is started again, and when it is given up on for a while.
//!
//! ```text
//! Engine, Configuration     a strike
//!     strike 1              at once (`first`)
//!     strike 2, 3 …         base, × 2 up to max, ± 25 %
//!     held                  at `hold_after` strikes, or 3 runs in a row that never were ready, or 2 of the configuration;
//!                           tried again after `hold_retry`, × 2 up to 2 h, for ever
//! Environment, Shortage     no strike, never held: 1 s, × 2 up to a minute; for the environment up to 10 s for as long as
//!                           the host or the agent is young; after 10 minutes of it operators are told, and it goes on
//! forgiven                  by a stable run, or an operator
//! ```
use super::chance::Chance;
use super::{Moment, Nature, Restart};
use std::time::Duration;

const NEVER_READY_LIMIT: u32 = 3;
/// The same start fails the same way; one repetition rules out a misread log.
const CONFIGURATION_LIMIT: u32 = 2;
const HOLD_RETRY_MAX: Duration = Duration::from_secs(2 * 60 * 60);
/// For so long after the agent's start what it depends on may still be on its way: drivers, mounts, names, other services.
/// An agent is younger than its host, so the host's own youth lies within.
const YOUTH: Duration = Duration::from_secs(10 * 60);
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX_IN_YOUTH: Duration = Duration::from_secs(10);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A run that ended when nobody asked it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) nature: Nature,
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
    /// When the agent's life began.
    born: Moment,
    count: u32,
    never_ready: u32,
    of_configuration: u32,
    /// How far the pauses after failures that are no strikes have grown.
    pauses: u32,
    waiting: Option<Waiting>,
    holds: u32,
}

/// Starts fail in a row, and none of them is a strike.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// When the first of them failed.
    since: Moment,
    /// It has gone on for so long that operators count on it no more.
    in_vain: bool,
}

impl Strikes {
    pub(super) fn new(restart: Restart, born: Moment) -> Self {
        Self {
            restart,
            born,
            count: 0,
            never_ready: 0,
            of_configuration: 0,
            pauses: 0,
            waiting: None,
            holds: 0,
        }
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn forgive(&mut self) {
        *self = Self::new(self.restart, self.born);
    }

    /// A run became ready. That forgives nothing yet, but it was not a start in vain.
    pub(super) fn became_ready(&mut self) {
        (self.never_ready, self.pauses, self.waiting) = (0, 0, None);
    }

    /// No start is wanted any more.
    pub(super) fn rest(&mut self) {
        self.waiting = None;
    }

    /// The agent did not run for so long: nothing was tried meanwhile.
    pub(super) fn overslept(&mut self, late: Duration) {
        if let Some(waiting) = &mut self.waiting {
            waiting.since = waiting.since + late;
        }
    }

    /// Has it been waited for so long that it is given up on for now? It is tried again all the same.
    pub(super) fn waits_in_vain(&self) -> bool {
        self.waiting.is_some_and(|waiting| waiting.in_vain)
    }

    /// A start has failed. If that makes the waiting one in vain: how long it has lasted. Told once.
    pub(super) fn give_up_waiting(&mut self, now: Moment) -> Option<Duration> {
        let waiting = self.waiting.as_mut().filter(|waiting| !waiting.in_vain)?;
        let lasted = now.since(waiting.since);
        waiting.in_vain = lasted >= YOUTH;
        waiting.in_vain.then_some(lasted)
    }

    pub(super) fn judge(&mut self, failure: Failure, now: Moment, chance: &mut Chance) -> Next {
        match failure.nature {
            Nature::Shortage => Next::Start(self.pause(PAUSE_MAX, now, chance)),
            Nature::Environment if !failure.was_ready => {
                let is_young = now.since(self.born) < YOUTH;
                let longest = if is_young { PAUSE_MAX_IN_YOUTH } else { PAUSE_MAX };
                Next::Start(self.pause(longest, now, chance))
            }
            Nature::Engine | Nature::Configuration | Nature::Environment => self.strike(failure, chance),
        }
    }

    fn strike(&mut self, failure: Failure, chance: &mut Chance) -> Next {
        self.count = self.count.saturating_add(1);
        self.waiting = None;
        if !failure.was_ready {
            self.never_ready = self.never_ready.saturating_add(1);
        }
        if failure.nature == Nature::Configuration {
            self.of_configuration = self.of_configuration.saturating_add(1);
        }
        let hold = self.count >= self.restart.hold_after
            || self.never_ready >= NEVER_READY_LIMIT
            || self.of_configuration >= CONFIGURATION_LIMIT;
        if hold {
            let wait = doubled(self.restart.hold_retry, self.holds).min(HOLD_RETRY_MAX);
            self.holds = self.holds.saturating_add(1);
            Next::Hold(wait)
        } else {
            Next::Start(self.delay(self.count, chance))
        }
    }

    /// Of what passes by itself, whatever the operator wrote for crashes.
    fn pause(&mut self, longest: Duration, now: Moment, chance: &mut Chance) -> Duration {
        self.waiting.get_or_insert(Waiting { since: now, in_vain: false });
        let around = doubled(PAUSE_MIN, self.pauses);
        if around < longest {
            self.pauses += 1;
        }
        chance.jitter(around.min(longest)).clamp(PAUSE_MIN, longest)
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
    const BORN: Moment = Moment::from_nanos(7_000_000_000);

    fn restart(hold_after: u32) -> Restart {
        let (first, base, max) = (Duration::ZERO, S, 60 * S);
        Restart { first, base, max, stable: 600 * S, hold_after, hold_retry: 900 * S }
    }

    fn crash() -> Failure {
        Failure { nature: Nature::Engine, was_ready: true }
    }

    fn in_vain(nature: Nature) -> Failure {
        Failure { nature, was_ready: false }
    }

    fn new(hold_after: u32) -> Strikes {
        Strikes::new(restart(hold_after), BORN)
    }

    fn run(strikes: &mut Strikes, failures: &[Failure]) -> Vec<Next> {
        let mut chance = Chance::new(3);
        failures.iter().map(|failure| strikes.judge(*failure, BORN, &mut chance)).collect()
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
        let mut strikes = new(5);
        let expected = [Start(AT_ONCE), Start(S), Start(2 * S), Start(4 * S)];
        check(&mut strikes, &[crash(); 4], &expected);
        let holds = [Hold(900 * S), Hold(1_800 * S), Hold(3_600 * S), Hold(7_200 * S), Hold(7_200 * S)];
        check(&mut strikes, &[crash(); 5], &holds);
        assert_eq!(strikes.count(), 9);
    }

    #[test]
    fn the_delay_has_a_ceiling() {
        let mut strikes = new(100);
        let got = run(&mut strikes, &[crash(); 40]);
        assert!(got.iter().all(|next| matches!(next, Start(delay) if *delay <= 75 * S)));
        assert!(matches!(got[39], Start(delay) if delay >= 45 * S));
    }

    #[test]
    fn three_starts_in_vain_are_held_but_not_when_one_was_ready_in_between() {
        let vain = || in_vain(Nature::Engine);
        let expected = [Start(AT_ONCE), Start(S), Hold(900 * S)];
        check(&mut new(5), &[vain(), vain(), vain()], &expected);
        let mut strikes = new(5);
        check(&mut strikes, &[vain(), vain()], &expected[..2]);
        strikes.became_ready();
        check(&mut strikes, &[crash(), vain()], &[Start(2 * S), Start(4 * S)]);
    }

    #[test]
    fn the_second_fault_of_the_configuration_is_held() {
        let wrong = || in_vain(Nature::Configuration);
        check(&mut new(5), &[wrong(), wrong()], &[Start(AT_ONCE), Hold(900 * S)]);
    }

    /// A start that fails at once, again and again, from birth on: how long the pauses are, and when they are.
    fn pauses(nature: Nature) -> Vec<(Duration, Duration)> {
        let (mut strikes, mut chance) = (new(5), Chance::new(3));
        let (mut now, mut pauses) = (BORN, Vec::new());
        while now.since(BORN) < 3_600 * S {
            let Start(pause) = strikes.judge(in_vain(nature), now, &mut chance) else { panic!("held") };
            pauses.push((now.since(BORN), pause));
            now = now + pause;
        }
        assert_eq!(strikes.count(), 0);
        pauses
    }

    #[test]
    fn what_the_environment_lacks_is_tried_every_10_s_for_10_minutes_and_once_a_minute_later() {
        let pauses = pauses(Nature::Environment);
        for (age, pause) in &pauses {
            let longest = if *age < 600 * S { 10 * S } else { 60 * S };
            assert!(*pause >= S && *pause <= longest, "{pause:?} at {age:?}");
        }
        let young: Vec<&Duration> =
            pauses.iter().filter(|(age, _)| *age < 600 * S).map(|(_, pause)| pause).collect();
        assert!(*young[0] < 2 * S && *young[5] > 7 * S, "it grows from a second: {young:?}");
        let old = &pauses[young.len()..];
        assert!(
            old[0].1 < 21 * S && old[1].1 < 41 * S && old[4].1 >= 45 * S,
            "it grows on from there: {old:?}"
        );
    }

    #[test]
    fn a_shortage_of_the_host_is_waited_out_for_up_to_a_minute() {
        let pauses: Vec<Duration> = pauses(Nature::Shortage).into_iter().map(|(_, pause)| pause).collect();
        assert!(pauses.iter().all(|pause| *pause >= S && *pause <= 60 * S), "{pauses:?}");
        assert!(pauses[0] < 2 * S && pauses[3] > 5 * S && pauses[9] >= 45 * S, "{pauses:?}");
    }

    #[test]
    fn a_run_that_was_ready_began_so_its_end_is_a_strike() {
        let mut strikes = new(5);
        let lost = Failure { nature: Nature::Environment, was_ready: true };
        check(&mut strikes, &[lost, lost], &[Start(AT_ONCE), Start(S)]);
        assert_eq!(strikes.count(), 2);
        let [first, later] = [in_vain(Nature::Environment), in_vain(Nature::Shortage)];
        check(&mut strikes, &[first, later, first], &[Start(S), Start(2 * S), Start(4 * S)]);
        strikes.became_ready();
        check(&mut strikes, &[later], &[Start(S)]);
        assert_eq!(strikes.count(), 2, "and what passes by itself is none");
    }

    /// Fails every minute from `from` to `to`, in minutes; when that is told as in vain.
    fn told(strikes: &mut Strikes, failure: Failure, from: u64, to: u64) -> Vec<u64> {
        let at = |minute: u64| BORN + 60 * S * minute as u32;
        let fail = |minute: &u64| {
            strikes.judge(failure, at(*minute), &mut Chance::new(3));
            strikes.give_up_waiting(at(*minute)).is_some()
        };
        (from..=to).filter(fail).collect()
    }

    #[test]
    fn ten_minutes_of_waiting_are_told_once() {
        const NEVER: [u64; 0] = [];
        for nature in [Nature::Environment, Nature::Shortage] {
            let mut strikes = new(5);
            assert_eq!(told(&mut strikes, in_vain(nature), 3, 12), NEVER);
            assert!(!strikes.waits_in_vain());
            assert_eq!(told(&mut strikes, in_vain(nature), 13, 200), [13]);
            assert!(strikes.waits_in_vain());
            strikes.became_ready();
            assert!(!strikes.waits_in_vain());
            assert_eq!(told(&mut strikes, in_vain(nature), 300, 400), [310]);
            strikes.rest();
            assert_eq!(told(&mut strikes, in_vain(nature), 500, 509), NEVER, "nothing was wanted in between");
            strikes.overslept(60 * S);
            assert_eq!(told(&mut strikes, in_vain(nature), 510, 520), [511], "nor tried");
            strikes.judge(in_vain(Nature::Engine), BORN + 521 * 60 * S, &mut Chance::new(3));
            assert!(!strikes.waits_in_vain(), "a strike is no waiting");
            assert_eq!(told(&mut strikes, in_vain(nature), 522, 531), NEVER);
        }
    }

    #[test]
    fn forgiven_is_as_new() {
        let mut strikes = new(5);
        run(&mut strikes, &[crash(); 7]);
        strikes.forgive();
        check(&mut strikes, &[crash(), crash()], &[Start(AT_ONCE), Start(S)]);
    }
}

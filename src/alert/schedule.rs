//! When to try again. Pure: the relay as a whole and each mail by itself have their own pace, so that a mail that is
//! refused for ever holds up no other.
use crate::policy::Moment;
use std::collections::BTreeMap;
use std::time::Duration;

/// The pause after a first failure; it doubles with each further one.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub first: Duration,
    pub longest: Duration,
    /// A mail of this age is given up.
    pub give_up: Duration,
    /// But only after it has been tried this long: the wall clock, by which its age is told, may have been set.
    pub proven: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            first: seconds(5),
            longest: seconds(900),
            give_up: seconds(24 * 3_600),
            proven: seconds(3_600),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Tries {
    /// When it was first thought of.
    since: Moment,
    failures: u32,
    next: Moment,
}

impl Tries {
    const fn new(now: Moment) -> Self {
        Self { since: now, failures: 0, next: now }
    }

    /// `chance` is any number: it spreads hosts whose relay is the same.
    fn fail(&mut self, now: Moment, pace: &Pace, chance: u64) -> Duration {
        let doubled = pace.first.saturating_mul(1 << self.failures.min(20));
        let permille = 750 + (chance % 501) as u32;
        let pause = doubled.min(pace.longest) * permille / 1_000;
        self.failures = self.failures.saturating_add(1);
        self.next = now + pause;
        pause
    }
}

#[derive(Debug)]
pub(super) struct Schedule {
    pace: Pace,
    relay: Tries,
    mails: BTreeMap<u64, Tries>,
}

impl Schedule {
    pub(super) fn new(pace: Pace, now: Moment) -> Self {
        Self { pace, relay: Tries::new(now), mails: BTreeMap::new() }
    }

    /// These mails wait, and no others.
    pub(super) fn know(&mut self, numbers: &[u64], now: Moment) {
        self.mails.retain(|number, _| numbers.contains(number));
        for number in numbers {
            self.mails.entry(*number).or_insert_with(|| Tries::new(now));
        }
    }

    /// Those whose time has come, the oldest first; none while the relay is left alone.
    pub(super) fn due(&self, now: Moment) -> Vec<u64> {
        if self.relay.next > now {
            return Vec::new();
        }
        self.mails.iter().filter(|(_, tries)| tries.next <= now).map(|(number, _)| *number).collect()
    }

    /// When the next one is due; `None` when none waits.
    pub(super) fn next(&self) -> Option<Moment> {
        self.mails.values().map(|tries| tries.next.max(self.relay.next)).min()
    }

    pub(super) fn relay_failed(&mut self, now: Moment, chance: u64) -> Duration {
        self.relay.fail(now, &self.pace, chance)
    }

    pub(super) fn relay_answered(&mut self, now: Moment) {
        self.relay = Tries::new(now);
    }

    pub(super) fn mail_failed(&mut self, number: u64, now: Moment, chance: u64) -> Duration {
        let pace = self.pace;
        self.mails.entry(number).or_insert_with(|| Tries::new(now)).fail(now, &pace, chance)
    }

    /// Has it waited long enough?
    pub(super) fn is_hopeless(&self, number: u64, age: Duration, now: Moment) -> bool {
        let proven = self.mails.get(&number).is_some_and(|tries| now.since(tries.since) >= self.pace.proven);
        age >= self.pace.give_up && proven
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDDLE: u64 = 250;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(0) + Duration::from_secs(seconds)
    }

    fn schedule(numbers: &[u64]) -> Schedule {
        let mut schedule = Schedule::new(Pace::default(), at(0));
        schedule.know(numbers, at(0));
        schedule
    }

    #[test]
    fn pauses_double_up_to_a_quarter_of_an_hour_and_are_spread() {
        let mut schedule = schedule(&[1]);
        let pauses: Vec<u64> = (0..10).map(|_| schedule.relay_failed(at(0), MIDDLE).as_secs()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]);
        let spread = |chance| self::schedule(&[1]).relay_failed(at(0), chance).as_millis();
        assert_eq!((spread(0), spread(500)), (3_750, 6_250));
        (0..100).for_each(|_| _ = schedule.relay_failed(at(0), MIDDLE));
        assert_eq!(schedule.relay_failed(at(0), MIDDLE).as_secs(), 900);
    }

    #[test]
    fn the_first_mail_goes_at_once_and_a_new_one_does_not_hurry_a_dead_relay() {
        let mut schedule = schedule(&[7]);
        assert_eq!(schedule.due(at(0)), [7]);
        schedule.relay_failed(at(0), MIDDLE);
        schedule.know(&[7, 8], at(1));
        assert_eq!((schedule.due(at(4)), schedule.next()), (vec![], Some(at(5))));
        assert_eq!(schedule.due(at(5)), [7, 8]);
        schedule.relay_answered(at(5));
        assert_eq!(schedule.relay_failed(at(5), MIDDLE).as_secs(), 5);
    }

    #[test]
    fn a_mail_that_is_refused_waits_alone() {
        let mut schedule = schedule(&[1, 2]);
        schedule.mail_failed(1, at(0), MIDDLE);
        schedule.mail_failed(1, at(5), MIDDLE);
        assert_eq!((schedule.due(at(6)), schedule.next()), (vec![2], Some(at(0))));
        schedule.know(&[1], at(6));
        assert_eq!((schedule.due(at(6)), schedule.next()), (vec![], Some(at(15))));
        schedule.know(&[], at(7));
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn a_day_is_enough_but_a_clock_that_jumps_is_not() {
        let schedule = schedule(&[1]);
        let day = Duration::from_secs(24 * 3_600);
        assert!(!schedule.is_hopeless(1, day * 20_000, at(60)));
        assert!(!schedule.is_hopeless(1, day - Duration::from_secs(1), at(24 * 3_600)));
        assert!(schedule.is_hopeless(1, day, at(3_600)));
    }
}

//! The watchdog ping, which is earned: it goes out only while every critical loop has lately completed a turn.
//!
//! A plain OS thread watches the hearts, so that no runtime can be too busy to notice that it is stuck. What can be slow
//! for reasons outside the agent (a GPU, a mail server, a disk, a full backlog) has no heart and never withholds a ping.
use super::Notifier;
use crate::clock;
use crate::heart::Heart;
use crate::policy::Moment;
use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A critical loop that has not completed a turn for this long is stuck.
pub const STUCK: Duration = Duration::from_secs(10);
/// An idle data plane has nothing to beat for: it is given a request of our own when it was quiet for this long.
pub const QUIET: Duration = Duration::from_secs(5);
/// Hearts are looked at this often, or as often as a ping is due: a quiet data plane must be driven in time to beat.
const LOOK: Duration = Duration::from_secs(1);

/// The hearts that systemd is to know of.
pub struct Watchdog {
    limit: Duration,
    notifier: Notifier,
    hearts: Vec<Arc<Heart>>,
    driven: Option<Driven>,
}

/// A loop that turns only when it is given something to do.
struct Driven {
    heart: Arc<Heart>,
    drive: Box<dyn Fn() + Send>,
}

/// May systemd be told that the agent is alive?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ping,
    /// The loop that has been stuck longest.
    Withhold {
        name: &'static str,
    },
}

/// How long ago each heart beat → the verdict. No hearts, no doubts.
pub fn verdict(ages: &[(&'static str, Duration)]) -> Verdict {
    match ages.iter().max_by_key(|(_, age)| *age) {
        Some((name, age)) if *age >= STUCK => Verdict::Withhold { name },
        _ => Verdict::Ping,
    }
}

/// The limit that systemd holds the process `pid` to (`WatchdogSec=`); `None` where there is no watchdog, or it is
/// meant for another process.
pub fn limit(pid: u32, variable: impl Fn(&str) -> Option<OsString>) -> Option<Duration> {
    let number = |name: &str| variable(name)?.into_string().ok()?.parse::<u64>().ok();
    let meant_for_us = variable("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(pid.into());
    let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0)?;
    meant_for_us.then(|| Duration::from_micros(micros))
}

impl Watchdog {
    /// A watchdog over loops that turn by themselves. `limit` is systemd's (see [`limit`]).
    pub fn new(limit: Duration, notifier: Notifier, hearts: Vec<Arc<Heart>>) -> Self {
        Self { limit, notifier, hearts, driven: None }
    }

    /// Adds a loop that beats only when it has work: `drive` gives it some, at once and without waiting for the end.
    #[must_use]
    pub fn driving(mut self, heart: Arc<Heart>, drive: impl Fn() + Send + 'static) -> Self {
        self.hearts.push(Arc::clone(&heart));
        self.driven = Some(Driven { heart, drive: Box::new(drive) });
        self
    }

    /// Watches until the process ends.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(self) -> io::Result<()> {
        std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || self.watch()).map(drop)
    }

    fn watch(self) {
        let period = self.limit / 4;
        let mut pace = Pace { period, pinged: None, driven: None, stuck: None };
        loop {
            let now = clock::now();
            let ages: Vec<_> = self.hearts.iter().map(|heart| (heart.name(), heart.age(now))).collect();
            let quiet = self.driven.as_ref().map(|driven| driven.heart.age(now));
            for step in pace.turn(now, &ages, quiet) {
                match step {
                    Step::Drive => self.driven.iter().for_each(|driven| (driven.drive)()),
                    Step::Ping => self.notifier.watchdog(),
                    Step::TellStuck(name) => {
                        tracing::error!(heart = name, ?ages, "stuck: systemd's watchdog is not pinged");
                    }
                    Step::TellTurns(name) => tracing::warn!(heart = name, "turns again"),
                }
            }
            std::thread::sleep(LOOK.min(period));
        }
    }
}

/// What one look at the hearts leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Drive,
    Ping,
    /// Said once, when pings begin to be withheld; after it, because writing a log may block.
    TellStuck(&'static str),
    /// Said once, after the first ping that went out again.
    TellTurns(&'static str),
}

/// When what was done last, so that pings and driven requests keep their distance and nothing is said twice.
struct Pace {
    /// Between two pings.
    period: Duration,
    pinged: Option<Moment>,
    driven: Option<Moment>,
    stuck: Option<&'static str>,
}

impl Pace {
    /// `quiet` is the age of the heart that is driven, if there is one.
    fn turn(&mut self, now: Moment, ages: &[(&'static str, Duration)], quiet: Option<Duration>) -> Vec<Step> {
        let due = |last: Option<Moment>, every: Duration| last.is_none_or(|at| now.since(at) >= every);
        let mut steps = Vec::new();
        if quiet.is_some_and(|age| age >= QUIET) && due(self.driven, QUIET) {
            self.driven = Some(now);
            steps.push(Step::Drive);
        }
        match verdict(ages) {
            Verdict::Ping => {
                if due(self.pinged, self.period) {
                    self.pinged = Some(now);
                    steps.push(Step::Ping);
                }
                steps.extend(self.stuck.take().map(Step::TellTurns));
            }
            Verdict::Withhold { name } => {
                if self.stuck.is_none() {
                    steps.push(Step::TellStuck(name));
                }
                self.stuck = Some(name);
            }
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stuck_loop_is_enough_to_withhold() {
        let check = |ages_ms: &[u64], expected: Option<&str>| {
            let names = ["policy", "data", "control"];
            let ages: Vec<_> =
                names.into_iter().zip(ages_ms.iter().copied().map(Duration::from_millis)).collect();
            let withheld = match verdict(&ages) {
                Verdict::Ping => None,
                Verdict::Withhold { name } => Some(name),
            };
            assert_eq!(withheld, expected, "{ages:?}");
        };
        check(&[], None);
        check(&[0, 9_999, 3], None);
        check(&[0, 10_000, 3], Some("data"));
        check(&[30_000, 10_000, 3], Some("policy"));
    }

    #[test]
    fn the_limit_is_ours_only_when_it_was_meant_for_us() {
        let check = |pid: Option<&str>, micros: Option<&str>, expected: Option<u64>| {
            let variable = |name: &str| match name {
                "WATCHDOG_PID" => pid.map(OsString::from),
                "WATCHDOG_USEC" => micros.map(OsString::from),
                _ => None,
            };
            assert_eq!(limit(42, variable), expected.map(Duration::from_secs), "{pid:?} {micros:?}");
        };
        check(Some("42"), Some("30000000"), Some(30));
        check(None, Some("30000000"), Some(30));
        check(Some("43"), Some("30000000"), None);
        check(Some("nonsense"), Some("30000000"), None);
        check(Some("42"), None, None);
        check(Some("42"), Some("0"), None);
        check(Some("42"), Some("-1"), None);
    }

    #[test]
    fn pings_keep_their_distance_and_a_stuck_loop_is_told_of_once() {
        let mut pace = Pace { period: Duration::from_secs(7), pinged: None, driven: None, stuck: None };
        let mut check = |second: u64, age: u64, expected: &[Step]| {
            let now = Moment::from_nanos(0) + Duration::from_secs(1000 + second);
            let steps = pace.turn(now, &[("policy", Duration::from_secs(age))], None);
            assert_eq!(steps, expected, "at {second} s");
        };
        check(0, 0, &[Step::Ping]);
        check(6, 6, &[]);
        check(7, 7, &[Step::Ping]);
        check(10, 10, &[Step::TellStuck("policy")]);
        check(20, 20, &[]);
        check(21, 0, &[Step::Ping, Step::TellTurns("policy")]);
        check(22, 1, &[]);
    }

    #[test]
    fn an_idle_data_plane_is_driven_before_it_would_count_as_stuck() {
        let mut pace = Pace { period: Duration::from_secs(7), pinged: None, driven: None, stuck: None };
        let mut beat = 0;
        let mut driven = Vec::new();
        for second in 0..60 {
            let now = Moment::from_nanos(0) + Duration::from_secs(1000 + second);
            let age = Duration::from_secs(second - beat);
            let steps = pace.turn(now, &[("data", age)], Some(age));
            if steps.contains(&Step::Drive) {
                driven.push(second);
                beat = second;
            }
            let withheld = steps.iter().any(|step| matches!(step, Step::TellStuck(_)));
            assert!(!withheld, "at {second} s");
        }
        assert_eq!(driven, (5..60).step_by(5).collect::<Vec<_>>());
    }

    #[test]
    fn a_data_plane_that_does_not_answer_is_driven_every_five_seconds_only() {
        let mut pace = Pace { period: Duration::from_secs(7), pinged: None, driven: None, stuck: None };
        let drives = (0..30).filter(|second| {
            let now = Moment::from_nanos(0) + Duration::from_secs(1000 + second);
            let age = Duration::from_secs(*second);
            pace.turn(now, &[("data", age)], Some(age)).contains(&Step::Drive)
        });
        assert_eq!(drives.collect::<Vec<_>>(), [5, 10, 15, 20, 25]);
    }
}

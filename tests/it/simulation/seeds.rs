//! Which hosts are simulated, and all of them at once.
//!
//! `MAINSTAY_SIM_SEED` is the first seed of a list: itself and those that follow. `scripts/test` sets it, so whether a change
//! lands never depends on chance. Where it is not set, every run takes seeds that nobody has seen before, and prints them.
//! `MAINSTAY_SIM_EVENTS` is how many events are simulated in all; 20,000 of them are one host.
//!
//! A seed that fails says what it takes to see it again. When its fault is mended it goes into [`CASES`].
use super::{EVENTS_PER_TRIAL, Plant, Report, trial};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Seeds that once failed, and what they showed. As the simulated world changes they come to show other lives: each fault
/// that was found has a test of its own beside the code.
const CASES: [(u64, &str); 20] = [
    (961, "a third signal put off the end of a stop"),
    (1_475, "the checker counted time asleep"),
    (2_642, "a health page that answered calmed a silent engine"),
    (3_782, "a health page that answered calmed a silent engine"),
    (5_859, "a health page that answered calmed a silent engine"),
    (6_314, "a health page that answered calmed a silent engine"),
    (7_382, "the checker counted time asleep"),
    (9_172, "the checker counted time asleep"),
    (9_649, "a health page that answered calmed a silent engine"),
    (9_947, "a health page that answered calmed a silent engine"),
    (11_166, "the checker counted time asleep"),
    (14_043, "a third signal put off the end of a stop"),
    (14_930, "a health page that answered calmed a silent engine"),
    (15_090, "a health page that answered calmed a silent engine"),
    (16_258, "a health page that answered calmed a silent engine"),
    (17_158, "a health page that answered calmed a silent engine"),
    (17_160, "the checker counted time asleep"),
    (17_362, "the checker counted time asleep"),
    (20_543, "a trial that passed after the worker was killed was not listened to"),
    (22_831, "a trial that passed after the worker was killed was not listened to"),
];

/// What a run of many hosts came to.
#[derive(Default)]
pub struct Sum {
    pub events: u64,
    simulated: Duration,
    pub happened: BTreeMap<&'static str, u64>,
    failed: Vec<String>,
}

impl Sum {
    fn add(&mut self, seed: u64, outcome: Result<Report, String>) {
        match outcome {
            Ok(report) => {
                self.events += report.events;
                self.simulated += report.simulated;
                for (what, times) in report.happened {
                    *self.happened.entry(what).or_default() += times;
                }
            }
            Err(what) => self
                .failed
                .push(format!("{what}\n  again: MAINSTAY_SIM_SEED={seed} MAINSTAY_SIM_EVENTS=20000")),
        }
    }

    fn join(mut self, other: Self) -> Self {
        self.events += other.events;
        self.simulated += other.simulated;
        for (what, times) in other.happened {
            *self.happened.entry(what).or_default() += times;
        }
        self.failed.extend(other.failed);
        self
    }

    /// Nothing is tested that never happened.
    pub fn must_have_seen(&self, what: &[&str]) {
        for what in what {
            assert!(self.happened.get(what).is_some_and(|times| *times >= 20), "{what}: {:?}", self.happened);
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|number| number.parse().ok())
}

/// The first seed, and whether it begins a list that is the same in every run.
pub fn first() -> (u64, bool) {
    match number("MAINSTAY_SIM_SEED") {
        Some(seed) => (seed, true),
        None => (RandomState::new().build_hasher().finish() % 1_000_000_000, false),
    }
}

/// How many events are asked for. An unoptimised build is fifteen times slower.
pub fn budget() -> u64 {
    number("MAINSTAY_SIM_EVENTS").unwrap_or(if cfg!(debug_assertions) { 100_000 } else { 1_000_000 })
}

/// Runs all of these hosts on all cores. Panics when something did not hold, with every seed that shows it.
pub fn all(seeds: &[u64], limit: impl Fn(u64) -> u64 + Sync) -> Sum {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut sum = Sum::default();
        while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            let life = || trial(seed, limit(seed), Plant::Nothing, false);
            let outcome = catch_unwind(AssertUnwindSafe(life));
            sum.add(seed, outcome.unwrap_or_else(|_| Err(format!("seed {seed} panicked"))));
        }
        sum
    };
    let cores = thread::available_parallelism().map_or(1, usize::from).min(seeds.len());
    let sum = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let sums = workers.into_iter().map(|worker| worker.join().expect("panics are caught"));
        sums.fold(Sum::default(), Sum::join)
    });
    let (hosts, hours) = (seeds.len(), sum.simulated.as_secs() / 3_600);
    println!(
        "simulated {} events of {hosts} hosts from seed {:?} in {hours} hours: {:?}",
        sum.events,
        seeds.first(),
        sum.happened
    );
    assert!(sum.failed.is_empty(), "{} of {hosts} failed:\n{}", sum.failed.len(), sum.failed.join("\n"));
    sum
}

#[test]
fn what_failed_once_holds() {
    let seeds: Vec<u64> = CASES.iter().map(|(seed, _)| *seed).collect();
    all(&seeds, |_| EVENTS_PER_TRIAL);
}

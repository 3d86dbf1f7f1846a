//! How far one start has come: from what its log says, and from what the last starts of the same engine and model took.
//!
//! The share of a stage is the median of what it took in those starts, so one cold start (a compile, a download) among
//! warm ones misleads nobody for long. Within a stage its own per cent counts where the log gives one, else the time.
use super::Kind;
use super::progress::{Done, Progress, stages};
use crate::policy::Moment;
use std::time::Duration;

/// The time from the start of the process to its first telling line.
const LAUNCHING: &str = "launching";
/// Of a stage, by time alone: it is not over before the next one has begun.
const BY_TIME_MAX: f64 = 0.95;
/// Below this, what a stage has done so far says little about its rest.
const TELLING_PERCENT: u8 = 5;
/// What may be added to twice the usual time before earlier starts have nothing to say about this one.
const OVERDUE: Duration = Duration::from_secs(5);

/// What the stages of an earlier start took, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PastStart {
    pub stages: Vec<(String, Duration)>,
}

/// A start as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Height {
    pub stage: &'static str,
    /// Of the whole start, 0–99. Where no earlier start is known: of the stage, while that does not run backwards.
    pub percent: Option<u8>,
    /// Of the stage, as the log says.
    pub stage_percent: Option<u8>,
    /// Until it is ready.
    pub eta: Option<Duration>,
    /// So many of so many files, shards or graphs.
    pub count: Option<(u64, u64)>,
}

/// One start, from its beginning.
#[derive(Clone, Debug)]
pub struct Climb {
    kind: Kind,
    /// Rung of each stage that was entered, and when; launching is the rung below the ladder.
    marks: Vec<(Option<usize>, Moment)>,
    percent: Option<u8>,
    count: Option<(u64, u64)>,
    /// The highest per cent that was shown.
    shown: u8,
}

impl Climb {
    pub fn new(kind: Kind, began: Moment) -> Self {
        Self { kind, marks: vec![(None, began)], percent: None, count: None, shown: 0 }
    }

    /// Takes a telling line in. What an earlier stage says late is not shown: with several workers, one is behind.
    pub fn hear(&mut self, now: Moment, said: Progress) {
        let (rung, _) = self.here();
        if Some(said.rung) < rung {
            return;
        }
        if Some(said.rung) > rung {
            self.marks.push((Some(said.rung), now));
            (self.percent, self.count) = (None, None);
        }
        match said.done {
            None => {}
            Some(Done::Percent(percent)) => (self.percent, self.count) = (Some(percent), None),
            Some(Done::Count { percent, n, of }) => {
                (self.percent, self.count) = (Some(percent), Some((n, of)))
            }
            Some(Done::Dots(more)) => {
                self.percent = Some(self.percent.unwrap_or(0).saturating_add(more).min(100));
            }
        }
    }

    /// What is to be shown now.
    pub fn look(&mut self, now: Moment, past: &[PastStart]) -> Height {
        let (rung, since) = self.here();
        let stage = rung.and_then(|rung| stages(self.kind).nth(rung)).unwrap_or(LAUNCHING);
        let usual = self.usual(past);
        let at = rung.map_or(0, |rung| rung + 1);
        let spent = now.since(since);
        let percent = match whole(&usual) {
            None => self.percent.filter(|percent| *percent >= self.shown),
            Some(whole) => {
                let before: Duration = usual[..at].iter().sum();
                let done = before + usual[at].mul_f64(self.share(spent, usual[at]));
                let percent = (done.as_secs_f64() * 100.0 / whole.as_secs_f64()) as u8;
                Some(percent.min(99).max(self.shown))
            }
        };
        self.shown = percent.unwrap_or(self.shown);
        let eta = whole(&usual).and_then(|_| {
            let after: Duration = usual[at + 1..].iter().sum();
            Some(after + self.rest(spent, usual[at])?)
        });
        Height { stage, percent, stage_percent: self.percent, eta, count: self.count }
    }

    /// This start, once it is ready, for those that come after it.
    pub fn over(&self, ready: Moment) -> PastStart {
        let ends = self.marks.iter().skip(1).map(|(_, at)| *at).chain([ready]);
        let named =
            |rung: Option<usize>| rung.and_then(|rung| stages(self.kind).nth(rung)).unwrap_or(LAUNCHING);
        let stages = self.marks.iter().zip(ends);
        PastStart {
            stages: stages.map(|((rung, at), end)| (named(*rung).to_owned(), end.since(*at))).collect(),
        }
    }

    fn here(&self) -> (Option<usize>, Moment) {
        self.marks.last().copied().unwrap_or_default()
    }

    /// What each stage usually takes, launching first. A stage that a start did not have took it no time.
    fn usual(&self, past: &[PastStart]) -> Vec<Duration> {
        let took = |start: &PastStart, name: &str| -> Duration {
            start.stages.iter().filter(|(stage, _)| stage == name).map(|(_, took)| *took).sum()
        };
        let names = std::iter::once(LAUNCHING).chain(stages(self.kind));
        names.map(|name| median(past.iter().map(|start| took(start, name)).collect())).collect()
    }

    /// How much of the stage is done, 0 to 1.
    fn share(&self, spent: Duration, usual: Duration) -> f64 {
        match self.percent {
            Some(percent) => f64::from(percent) / 100.0,
            None if usual.is_zero() => 0.0,
            None => (spent.as_secs_f64() / usual.as_secs_f64()).min(BY_TIME_MAX),
        }
    }

    /// What is left of the stage; `None` when it takes so long that nothing is known.
    fn rest(&self, spent: Duration, usual: Duration) -> Option<Duration> {
        match self.percent {
            Some(percent) if percent >= TELLING_PERCENT => {
                Some(spent.mul_f64(f64::from(100 - percent.min(100)) / f64::from(percent)))
            }
            Some(_) | None => (spent <= usual * 2 + OVERDUE).then(|| usual.saturating_sub(spent)),
        }
    }
}

/// `None` where nothing is known.
fn whole(usual: &[Duration]) -> Option<Duration> {
    Some(usual.iter().sum()).filter(|whole: &Duration| !whole.is_zero())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let middle = times.len() / 2;
    match times.len() {
        0 => Duration::ZERO,
        n if n % 2 == 1 => times[middle],
        _ => (times[middle - 1] + times[middle]) / 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::progress;

    const S: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    struct Start {
        climb: Climb,
        past: Vec<PastStart>,
    }

    impl Start {
        fn new(past: &[&[(&str, u64)]]) -> Self {
            let stage = |(name, seconds): &(&str, u64)| ((*name).to_owned(), *seconds as u32 * S);
            let start = |stages: &&[(&str, u64)]| PastStart { stages: stages.iter().map(stage).collect() };
            Self { climb: Climb::new(Kind::Vllm, at(0)), past: past.iter().map(start).collect() }
        }

        /// "stage percent/stage_percent eta", `-` for what is not known.
        fn look(&mut self, seconds: u64) -> String {
            let height = self.climb.look(at(seconds), &self.past);
            let known =
                |figure: Option<u64>| figure.map_or_else(|| "-".to_owned(), |figure| figure.to_string());
            let (whole, stage) = (height.percent.map(u64::from), height.stage_percent.map(u64::from));
            let eta = height.eta.map(|eta| eta.as_secs());
            format!("{} {}/{} {}", height.stage, known(whole), known(stage), known(eta))
        }

        fn hear(&mut self, seconds: u64, line: &str) -> String {
            self.climb.hear(at(seconds), progress(Kind::Vllm, line).expect("a telling line"));
            self.look(seconds)
        }
    }

    const ARGS: &str = "non-default args: {}";
    const CORE: &str = "Initializing a V1 LLM engine (v0.32.0)";
    const GRAPHS: &str = "Capturing CUDA graphs:   5%| 1/20";
    const UP: &str = "Application startup complete";

    fn shards(percent: u8, n: u64) -> String {
        format!("Loading safetensors checkpoint shards: {percent:>3}% Completed | {n}/4")
    }

    const USUAL: &[(&str, u64)] = &[
        ("launching", 10),
        ("reading its configuration", 10),
        ("starting its engine core", 20),
        ("loading weights", 40),
        ("opening its endpoint", 20),
    ];

    #[test]
    fn without_an_earlier_start_only_the_stage_itself_speaks_and_never_backwards() {
        let mut start = Start::new(&[]);
        assert_eq!(start.look(5), "launching -/- -");
        assert_eq!(start.hear(10, ARGS), "reading its configuration -/- -");
        assert_eq!(start.hear(20, &shards(25, 1)), "loading weights 25/25 -");
        assert_eq!(start.hear(30, &shards(100, 4)), "loading weights 100/100 -");
        assert_eq!(start.hear(31, GRAPHS), "capturing CUDA graphs -/5 -");
    }

    #[test]
    fn the_shares_of_earlier_starts_give_per_cent_and_rest() {
        let mut start = Start::new(&[USUAL]);
        assert_eq!(start.look(5), "launching 5/- 95");
        assert_eq!(start.hear(10, ARGS), "reading its configuration 10/- 90");
        assert_eq!(start.hear(20, CORE), "starting its engine core 20/- 80");
        // Slower than usual: it waits for the next stage, and says nothing once it is hopelessly late.
        assert_eq!(start.look(45), "starting its engine core 39/- 60");
        assert_eq!(start.look(70), "starting its engine core 39/- -");
        assert_eq!(start.hear(80, &shards(0, 0)), "loading weights 40/0 60");
        // This disk is twice as fast as it was.
        assert_eq!(start.hear(90, &shards(50, 2)), "loading weights 60/50 30");
        assert_eq!(start.climb.look(at(90), &start.past).count, Some((2, 4)));
        // A worker that is behind, and a second pass over other shards, take nothing back.
        assert_eq!(start.hear(91, CORE), "loading weights 60/50 31");
        assert_eq!(start.hear(92, &shards(0, 0)), "loading weights 60/0 48");
        assert_eq!(start.hear(95, UP), "listening 99/- 0");
    }

    #[test]
    fn a_cold_start_among_warm_ones_is_outvoted_and_a_missing_stage_takes_no_time() {
        let cold: &[(&str, u64)] = &[("launching", 10), ("compiling", 600), ("opening its endpoint", 30)];
        let warm: &[(&str, u64)] = &[("launching", 10), ("opening its endpoint", 30)];
        let mut start = Start::new(&[cold, warm, warm]);
        assert_eq!(start.look(10), "launching 23/- 30");
        assert_eq!(median(vec![4 * S, S]), Duration::from_millis(2_500));
    }

    #[test]
    fn a_start_is_remembered_by_what_its_stages_took() {
        let mut start = Start::new(&[]);
        start.hear(3, ARGS);
        start.hear(7, &shards(0, 0));
        let past = start.climb.over(at(20));
        let expected = [("launching", 3), ("reading its configuration", 4), ("loading weights", 13)];
        assert_eq!(past.stages, expected.map(|(name, s)| (name.to_owned(), s * S)));
        start.past = vec![past];
        start.climb = Climb::new(Kind::Vllm, at(100));
        assert_eq!(start.look(110), "launching 14/- 17");
        assert_eq!(start.look(112), "launching 14/- -", "it takes longer than ever");
    }

    #[test]
    fn per_cent_never_runs_backwards_whatever_comes() {
        let lines = [CORE, &shards(100, 4), ARGS, &shards(0, 0), GRAPHS, &shards(50, 2), UP, GRAPHS];
        for past in [&[][..], &[USUAL][..]] {
            let mut start = Start::new(past);
            let mut last = 0;
            for second in 0..200_u64 {
                let line = lines[(second * 7 % 8) as usize];
                if second % 5 == 0 {
                    start.hear(second, line);
                }
                let percent = start.climb.look(at(second), &start.past).percent.unwrap_or(last);
                assert!(percent >= last && percent <= 100, "{last} → {percent}");
                last = percent;
            }
        }
    }
}

//! Fake processes and fake remote servers: what they do when they are asked something.
use super::dice::Dice;
use mainstay::policy::{
    Cause, CheckFailure, Checked, Ending, Exit, Moment, Nature, Prepared, RunId, STAND_IN, Sample, Tried,
};
use std::time::Duration;

/// How a server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Fine,
    /// Its checks pass, but take seconds.
    Slow,
    /// It has so much to do that checks time out and bytes are rare; its counter moves.
    Busy,
    /// The health page fails; requests succeed.
    HealthBroken,
    /// The health page says 200; nothing is computed, counters stand.
    Hung,
    /// Stopped: accepts connections, and answers nothing.
    Frozen,
    /// Nobody listens.
    Refusing,
    /// The health page says 200; requests fail.
    Failing,
}

impl Mood {
    pub const BAD: [Self; 5] = [Self::HealthBroken, Self::Hung, Self::Frozen, Self::Refusing, Self::Failing];
    pub const REMOTE: [Self; 5] =
        [Self::Slow, Self::Frozen, Self::Refusing, Self::Failing, Self::HealthBroken];

    pub fn is_bad(self) -> bool {
        Self::BAD.contains(&self)
    }

    pub fn works(self) -> bool {
        matches!(self, Self::Fine | Self::Slow | Self::Busy | Self::HealthBroken)
    }

    pub fn check(self, timeout: Duration, dice: &mut Dice) -> (Duration, Checked) {
        let failed = |failure| Checked::Failed(failure);
        match self {
            Self::Fine | Self::Hung | Self::Failing => {
                let latency = dice.millis(1, 50);
                (latency, Checked::Passed { latency })
            }
            Self::Busy if dice.permille(500) => {
                let latency = dice.millis(500, 1_500);
                (latency, Checked::Passed { latency })
            }
            Self::Slow => {
                let latency = dice.millis(2_100, 4_000).min(timeout);
                (latency, Checked::Passed { latency })
            }
            Self::Busy | Self::Frozen => (timeout, failed(CheckFailure::TimedOut)),
            Self::HealthBroken if dice.permille(200) => (dice.millis(1, 50), failed(CheckFailure::Reset)),
            Self::HealthBroken => (dice.millis(1, 50), failed(CheckFailure::Status(500))),
            Self::Refusing => (dice.millis(1, 5), failed(CheckFailure::Refused)),
        }
    }

    pub fn attempt(self, timeout: Duration, dice: &mut Dice) -> (Duration, Tried) {
        let why = || "HTTP 500".to_owned();
        match self {
            Self::Fine | Self::Slow | Self::HealthBroken => (dice.millis(50, 900), Tried::Passed),
            Self::Busy if dice.permille(500) => (dice.millis(500, 9_000), Tried::Passed),
            Self::Busy | Self::Hung | Self::Frozen => (timeout, Tried::TimedOut),
            Self::Failing if dice.permille(300) => {
                (dice.millis(1, 50), Tried::Refused { cause: Cause::AuthGated, why: why() })
            }
            Self::Refusing | Self::Failing => {
                (dice.millis(1, 50), Tried::Failed { cause: Cause::Unknown, why: why() })
            }
        }
    }
}

/// How a start goes on, decided at its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    ReadyAfter(Duration),
    /// Never ready, but busy.
    Forever,
    /// Never ready, and silent.
    Stalled,
    Impossible,
    ExitsAfter(Duration),
}

#[derive(Debug)]
pub struct Process {
    pub run: RunId,
    pub start: Start,
    pub loaded_at: Moment,
    pub main_alive: bool,
    pub mood: Mood,
    pub mood_since: Moment,
    /// It was never anything but fine, slow or busy.
    pub unhurt: bool,
    pub counter: u64,
    /// While it answers nothing it burns CPU time, which stands in for its counter.
    pub spins: bool,
    /// TERM does nothing.
    pub deaf: bool,
    /// So many KILLs get no answer at all: its shim is dead.
    pub mute: u32,
    /// Survives KILL until then.
    pub wedged_until: Option<Moment>,
    /// It was made to survive a KILL, or to seem so.
    pub stubborn: bool,
}

impl Process {
    pub fn new(run: RunId, now: Moment, start: Start, dice: &mut Dice) -> Self {
        let loaded_at = match start {
            Start::ReadyAfter(after) => now + after,
            Start::Forever | Start::Stalled | Start::Impossible | Start::ExitsAfter(_) => {
                Moment::from_nanos(u64::MAX)
            }
        };
        let wedged_until = dice.permille(15).then(|| now + dice.seconds(100, 3_000));
        let mute = if dice.permille(15) { 1 + dice.below(3) as u32 } else { 0 };
        Self {
            run,
            start,
            loaded_at,
            main_alive: true,
            mood: Mood::Fine,
            mood_since: now,
            unhurt: true,
            counter: dice.below(1_000),
            spins: dice.permille(300),
            deaf: dice.permille(100),
            mute,
            wedged_until,
            stubborn: mute > 0 || wedged_until.is_some(),
        }
    }

    pub fn is_loaded(&self, now: Moment) -> bool {
        self.main_alive && now >= self.loaded_at
    }

    /// Its mood, as far as the network can tell.
    pub fn seen(&self, now: Moment) -> Mood {
        if self.is_loaded(now) { self.mood } else { Mood::Refusing }
    }

    pub fn prepare(&self, now: Moment) -> Prepared {
        match self.start {
            _ if self.is_loaded(now) && matches!(self.mood, Mood::Frozen | Mood::Refusing | Mood::Hung) => {
                Prepared::NotYet
            }
            _ if self.is_loaded(now) => Prepared::Ready,
            Start::Impossible => Prepared::Impossible {
                cause: Cause::ModelUnsupported,
                nature: Nature::Configuration,
                deterministic: Some(true),
                evidence: "unknown architecture".to_owned(),
            },
            Start::ReadyAfter(_) | Start::Forever | Start::Stalled | Start::ExitsAfter(_) => Prepared::NotYet,
        }
    }

    pub fn count(&self, now: Moment) -> Option<u64> {
        match self.seen(now) {
            Mood::Frozen if self.spins => Some(STAND_IN | (now.as_nanos() / 10_000_000)),
            Mood::Frozen | Mood::Refusing => None,
            Mood::Fine | Mood::Slow | Mood::Busy | Mood::HealthBroken | Mood::Hung | Mood::Failing => {
                Some(self.counter)
            }
        }
    }

    pub fn feel(&mut self, mood: Mood, now: Moment) {
        self.mood = mood;
        self.mood_since = now;
        self.unhurt &= !mood.is_bad();
    }
}

/// What the data plane would show of a tier, moved on at each sampling.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow {
    pub sample: Sample,
    /// Since when requests have been waiting there without a pause.
    pub waiting_since: Option<Moment>,
}

impl Flow {
    pub fn advance(&mut self, mood: Mood, new: u32, leaving: bool, now: Moment, dice: &mut Dice) -> bool {
        let sample = &mut self.sample;
        if new > 0 && sample.in_flight == 0 {
            sample.last_progress = now;
        }
        sample.in_flight = (sample.in_flight + new).min(40);
        // Whatever keeps a server busy need not have come through us.
        let worked = mood == Mood::Busy || (sample.in_flight > 0 && mood.works());
        match mood {
            Mood::Fine | Mood::Slow | Mood::HealthBroken if sample.in_flight > 0 => {
                let done = dice.below(u64::from(sample.in_flight) + 1) as u32;
                sample.in_flight -= done;
                sample.answered += u64::from(done);
                sample.answered_at = if done > 0 { now } else { sample.answered_at };
                (sample.last_progress, sample.last_byte) = (now, now);
                (sample.failures_in_row, sample.repeats_in_row) = (0, 0);
            }
            Mood::Busy => {
                if sample.in_flight > 0 && dice.permille(40) {
                    sample.answered += 1;
                    sample.answered_at = now;
                    sample.in_flight -= 1;
                    (sample.last_progress, sample.last_byte) = (now, now);
                    (sample.failures_in_row, sample.repeats_in_row) = (0, 0);
                }
            }
            Mood::Refusing | Mood::Failing => {
                sample.failures_in_row += sample.in_flight;
                sample.repeats_in_row += sample.in_flight;
                sample.in_flight = 0;
            }
            Mood::Hung | Mood::Frozen => {
                if leaving {
                    sample.in_flight = sample.in_flight.min(2);
                }
                if sample.in_flight > 0 && dice.permille(10) {
                    sample.in_flight -= 1;
                }
            }
            Mood::Fine | Mood::Slow | Mood::HealthBroken => {}
        }
        if sample.in_flight == 0 {
            self.waiting_since = None;
        } else {
            self.waiting_since.get_or_insert(now);
        }
        worked
    }

    pub fn cut(&mut self) {
        self.sample.in_flight = 0;
        self.waiting_since = None;
    }
}

pub fn ending(dice: &mut Dice) -> Ending {
    let (exit, cause, nature) = dice.pick(&[
        (Exit::Code(0), Cause::EngineBug, Nature::Engine),
        (Exit::Code(1), Cause::Unknown, Nature::Engine),
        (Exit::Code(1), Cause::GpuOom, Nature::Environment),
        (Exit::Code(2), Cause::BadArgument, Nature::Configuration),
        (Exit::Signal(9), Cause::KilledFromOutside, Nature::Engine),
        (Exit::Signal(11), Cause::EngineBug, Nature::Engine),
        (Exit::Unknown, Cause::Unknown, Nature::Engine),
    ]);
    Ending { exit, cause, nature, deterministic: None, evidence: None }
}

//! What readings say of each GPU: its verdict, since when, and how much of the last minute heat slowed it down.
//!
//! No data is *unknown*. A GPU that was seen once is remembered, so that one that falls off the bus does not just vanish.
#[cfg(test)]
mod tests;

use super::Moment;
use std::collections::VecDeque;
use std::time::Duration;

/// How far back `throttle_share` looks.
const MINUTE: Duration = Duration::from_secs(60);
/// Heat for this share of a minute is worth a note; less is how a busy GPU lives.
const HOT_SHARE: f64 = 0.1;
/// Fewer readings say nothing about a minute.
const READINGS_MIN: usize = 6;
/// GPUs that are remembered. More than any host has: it bounds what a driver that invents some can cost.
pub const GPUS_MAX: usize = 64;

/// One GPU in one reading. What the driver does not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GpuReading {
    /// The driver's index.
    pub index: u32,
    pub identity: GpuIdentity,
    /// Why it cannot be read, when it cannot.
    pub fault: Option<GpuFault>,
    pub figures: GpuFigures,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuIdentity {
    pub uuid: Option<String>,
    /// "0000:01:00.0"
    pub pci: Option<String>,
    pub name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GpuFault {
    /// It fell off the bus.
    Lost,
    /// Only a reset helps.
    NeedsReset,
    /// Anything else, in the driver's words.
    Unreadable(String),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct GpuFigures {
    pub temperature_c: Option<u32>,
    /// Bytes.
    pub memory_used: Option<u64>,
    pub memory_total: Option<u64>,
    /// 0 to 1.
    pub utilization: Option<f64>,
    pub power_w: Option<f64>,
    /// What slows its clocks; empty when nothing does.
    pub throttle: Option<Vec<Throttle>>,
    /// Memory errors since the driver was loaded.
    pub ecc_corrected: Option<u64>,
    pub ecc_uncorrected: Option<u64>,
    /// Who holds its memory.
    pub processes: Option<Vec<GpuProcess>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuProcess {
    pub pid: u32,
    /// Bytes.
    pub memory: Option<u64>,
}

/// Why a GPU runs slower than it could. Idling, and clocks that somebody has set, are no such reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Throttle {
    SwPower,
    HwSlowdown,
    SyncBoost,
    SwThermal,
    HwThermal,
    HwPowerBrake,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuVerdict {
    Ok,
    /// It works; somebody should look at it.
    Note,
    /// Nothing is known of it.
    Unknown,
}

/// What is said of one GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct GpuStatus {
    pub index: u32,
    pub identity: GpuIdentity,
    pub verdict: GpuVerdict,
    /// For people.
    pub reason: String,
    /// Since when it has this verdict.
    pub since: Moment,
    /// All `None` when the verdict is unknown.
    pub figures: GpuFigures,
    /// 0 to 1: the share of the last minute's readings in which heat slowed it down.
    pub throttle_share: Option<f64>,
}

/// Every GPU that was ever seen, in the order of their indices.
#[derive(Debug, Default)]
pub struct Gpus {
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    status: GpuStatus,
    /// When, and whether heat slowed it down. Of the last minute only.
    samples: VecDeque<(Moment, bool)>,
}

impl Throttle {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SwPower => "sw-power",
            Self::HwSlowdown => "hw-slowdown",
            Self::SyncBoost => "sync-boost",
            Self::SwThermal => "sw-thermal",
            Self::HwThermal => "hw-thermal",
            Self::HwPowerBrake => "hw-power-brake",
        }
    }

    const fn is_heat(self) -> bool {
        match self {
            Self::SwThermal | Self::HwThermal => true,
            // Heat is one of three reasons for the slowdown; the driver names it beside this one.
            Self::HwSlowdown | Self::SwPower | Self::SyncBoost | Self::HwPowerBrake => false,
        }
    }
}

impl Gpus {
    /// Takes in a reading of all GPUs.
    pub fn take(&mut self, now: Moment, readings: Vec<GpuReading>) {
        let mut seen = vec![false; self.known.len()];
        for reading in readings {
            let place = match self.place(&reading, &seen) {
                Some(place) => place,
                None if self.known.len() < GPUS_MAX => {
                    self.known.push(Known::new(now, reading.index));
                    seen.push(false);
                    self.known.len() - 1
                }
                None => continue,
            };
            seen[place] = true;
            self.known[place].take(now, reading);
        }
        for (known, _) in self.known.iter_mut().zip(&seen).filter(|(_, seen)| !**seen) {
            known.unknown(now, "the driver does not list it any more".to_owned());
        }
        self.known.sort_by_key(|known| known.status.index);
    }

    /// There are no readings now, and why.
    pub fn lose_sight(&mut self, now: Moment, why: &str) {
        for known in &mut self.known {
            known.unknown(now, why.to_owned());
        }
    }

    pub fn status(&self) -> impl Iterator<Item = &GpuStatus> {
        self.known.iter().map(|known| &known.status)
    }

    /// Where this GPU is remembered. One that cannot even tell its name is taken for the one that had its index.
    fn place(&self, reading: &GpuReading, seen: &[bool]) -> Option<usize> {
        let mut free = self.known.iter().enumerate().filter(|(place, _)| !seen[*place]);
        match &reading.identity.uuid {
            Some(uuid) => free.find(|(_, known)| {
                let status = &known.status;
                let nameless = status.identity.uuid.is_none() && status.index == reading.index;
                status.identity.uuid.as_ref() == Some(uuid) || nameless
            }),
            None => free.find(|(_, known)| known.status.index == reading.index),
        }
        .map(|(place, _)| place)
    }
}

impl Known {
    fn new(now: Moment, index: u32) -> Self {
        let status = GpuStatus {
            index,
            identity: GpuIdentity::default(),
            verdict: GpuVerdict::Unknown,
            reason: String::new(),
            since: now,
            figures: GpuFigures::default(),
            throttle_share: None,
        };
        Self { status, samples: VecDeque::new() }
    }

    fn take(&mut self, now: Moment, reading: GpuReading) {
        let GpuReading { index, identity, fault, figures } = reading;
        self.status.index = index;
        let known = &mut self.status.identity;
        known.uuid = identity.uuid.or_else(|| known.uuid.take());
        known.pci = identity.pci.or_else(|| known.pci.take());
        known.name = identity.name.or_else(|| known.name.take());
        let why = match fault {
            Some(GpuFault::Lost) => Some("the driver says that it fell off the bus".to_owned()),
            Some(GpuFault::NeedsReset) => Some("the driver says that it needs a reset".to_owned()),
            Some(GpuFault::Unreadable(why)) => Some(format!("it cannot be read: {why}")),
            None if figures == GpuFigures::default() => Some("the driver tells nothing of it".to_owned()),
            None => None,
        };
        if let Some(why) = why {
            return self.unknown(now, why);
        }
        if let Some(throttle) = &figures.throttle {
            self.samples.push_back((now, throttle.iter().any(|reason| reason.is_heat())));
        }
        self.forget_samples(now);
        let known = self.samples.len() as f64;
        let hot = self.samples.iter().filter(|(_, hot)| *hot).count() as f64;
        let share = (known > 0.0).then(|| hot / known);
        self.status.throttle_share = share;
        let (verdict, reason) = judge(&figures, share.filter(|_| self.samples.len() >= READINGS_MIN));
        self.status.figures = figures;
        self.say(now, verdict, reason);
    }

    fn unknown(&mut self, now: Moment, why: String) {
        self.forget_samples(now);
        self.status.figures = GpuFigures::default();
        self.status.throttle_share = None;
        self.say(now, GpuVerdict::Unknown, why);
    }

    fn forget_samples(&mut self, now: Moment) {
        while self.samples.front().is_some_and(|(at, _)| now.since(*at) > MINUTE) {
            self.samples.pop_front();
        }
    }

    fn say(&mut self, now: Moment, verdict: GpuVerdict, reason: String) {
        if self.status.verdict != verdict {
            self.status.verdict = verdict;
            self.status.since = now;
        }
        self.status.reason = reason;
    }
}

/// What is worth a note in figures that are known.
fn judge(figures: &GpuFigures, throttle_share: Option<f64>) -> (GpuVerdict, String) {
    let mut notes = Vec::new();
    match figures.ecc_uncorrected {
        None | Some(0) => {}
        Some(1) => notes.push("1 uncorrected memory error since the driver was loaded".to_owned()),
        Some(n) => notes.push(format!("{n} uncorrected memory errors since the driver was loaded")),
    }
    if let Some(share) = throttle_share.filter(|share| *share >= HOT_SHARE) {
        notes.push(format!("slowed down by heat for {:.0} % of the last minute", share * 100.0));
    }
    if notes.is_empty() {
        (GpuVerdict::Ok, "nothing is wrong".to_owned())
    } else {
        (GpuVerdict::Note, notes.join("; "))
    }
}

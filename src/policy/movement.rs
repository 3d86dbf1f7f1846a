//! Does a starting engine that says nothing new still move? Its processes' figures tell, over one look.
//!
//! What cannot be read is no movement, and no proof of standing still either: the evidence names only what was looked at.
//! A loop that waits by spinning cannot be told from work; `startup.cap` is for that.
use super::words::spell;
use std::collections::BTreeMap;
use std::time::Duration;

/// Something that work leaves a trace in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// CPU time of all processes, in milliseconds.
    Cpu,
    /// Resident bytes of all processes.
    Memory,
    /// Bytes that were fetched from or sent to storage.
    Disk,
    /// Bytes on the GPUs.
    Vram,
}

/// What was read at one look; what could not be is not in it.
pub type Figures = BTreeMap<Measure, u64>;

/// Of one core. A server that waits wakes up now and then.
const IDLE_PERCENT: u32 = 2;
/// CPU time is counted in steps of 10 ms; one or two of them in a short look may be chance.
const CPU_GRAIN_MS: u64 = 30;
/// Below this, bytes are housekeeping.
const BYTES: u64 = 1 << 20;

/// What has moved between two looks that lie `over` apart; `None` when nothing has, as far as is known.
pub fn moved(before: &Figures, after: &Figures, over: Duration) -> Option<Measure> {
    after.iter().find_map(|(measure, new)| {
        let old = before.get(measure)?;
        let moved = match measure {
            // A process that has ended takes its share with it: what is less is no work.
            Measure::Cpu => {
                let idle = u64::try_from((over * IDLE_PERCENT / 100).as_millis()).unwrap_or(u64::MAX);
                new.saturating_sub(*old) >= idle.max(CPU_GRAIN_MS)
            }
            Measure::Disk => new.saturating_sub(*old) > BYTES,
            Measure::Memory | Measure::Vram => new.abs_diff(*old) > BYTES,
        };
        moved.then_some(*measure)
    })
}

/// A look at a start that found nothing moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Still {
    /// What was looked at.
    pub figures: Vec<Measure>,
    /// The line that it repeats, where there is one.
    pub repeats: Option<String>,
}

impl Still {
    /// Why a start was given up.
    pub(super) fn evidence(&self, stall: Duration) -> String {
        let names: Vec<&str> = self.figures.iter().copied().map(Measure::name).collect();
        let stood = match names.as_slice() {
            [] => String::new(),
            [one] => format!(", {one} stood still"),
            [first @ .., last] => format!(", {} and {last} stood still", first.join(", ")),
        };
        let repeats = self.repeats.as_ref().map_or_else(String::new, |line| format!("; it repeats: {line}"));
        format!("no progress for {} while starting: no new line{stood}{repeats}", spell(stall))
    }
}

impl Measure {
    const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Vram => "VRAM",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Measure::{Cpu, Disk, Memory, Vram};

    const LOOK: Duration = Duration::from_secs(5);

    #[track_caller]
    fn check(before: &[(Measure, u64)], after: &[(Measure, u64)], expected: Option<Measure>) {
        let figures = |list: &[(Measure, u64)]| list.iter().copied().collect::<Figures>();
        assert_eq!(moved(&figures(before), &figures(after), LOOK), expected, "{before:?} {after:?}");
    }

    #[test]
    fn idle_noise_is_no_movement() {
        check(&[(Cpu, 1_000)], &[(Cpu, 1_099)], None);
        check(&[(Cpu, 1_000)], &[(Cpu, 1_100)], Some(Cpu));
        check(&[(Memory, 9 << 20)], &[(Memory, 8 << 20)], None);
        check(&[(Memory, 9 << 20)], &[(Memory, (8 << 20) - 1)], Some(Memory));
        check(&[(Disk, 0)], &[(Disk, 1 << 20)], None);
        check(&[(Disk, 0)], &[(Disk, (1 << 20) + 1)], Some(Disk));
        check(&[(Vram, 5 << 30)], &[(Vram, 4 << 30)], Some(Vram));
    }

    #[test]
    fn the_end_of_a_process_is_no_work() {
        check(&[(Cpu, 90_000), (Disk, 1 << 30)], &[(Cpu, 10), (Disk, 0)], None);
    }

    #[test]
    fn what_is_not_known_has_not_moved() {
        check(&[], &[(Cpu, 9_999), (Disk, 1 << 40)], None);
        check(&[(Cpu, 1_000), (Disk, 1)], &[(Cpu, 1_000)], None);
    }

    #[test]
    fn a_short_look_is_not_fooled_by_the_grain_of_the_clock() {
        let look =
            |ms| moved(&Figures::from([(Cpu, 0)]), &Figures::from([(Cpu, ms)]), Duration::from_millis(250));
        assert_eq!((look(20), look(30)), (None, Some(Cpu)));
    }

    #[test]
    fn the_evidence_names_what_was_looked_at_and_what_is_repeated() {
        let check = |figures: &[Measure], repeats: Option<&str>, expected: &str| {
            let still = Still { figures: figures.to_vec(), repeats: repeats.map(str::to_owned) };
            assert_eq!(still.evidence(60 * LOOK), expected);
        };
        check(&[], None, "no progress for 5 min while starting: no new line");
        check(&[Cpu], None, "no progress for 5 min while starting: no new line, CPU stood still");
        check(
            &[Cpu, Memory, Disk],
            Some("waiting for peers"),
            "no progress for 5 min while starting: no new line, CPU, memory and disk stood still; it repeats: waiting for peers",
        );
    }
}

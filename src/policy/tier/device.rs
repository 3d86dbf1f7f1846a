//! Does the ready run behind a tier compute on what it was to compute on? One that was to use a GPU and runs on the CPU
//! serves, and keeps its place: it is DEGRADED, and told once.
use super::{Notice, Processor, Tier, Turn};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Device {
    /// Nobody has looked yet.
    Unknown,
    /// It uses a GPU, was not to use one, or shows nothing.
    AsMeant,
    Cpu,
}

impl Device {
    /// Of a run that has just become ready.
    pub(super) const fn of_new_run(wants_gpu: bool) -> Self {
        if wants_gpu { Self::Unknown } else { Self::AsMeant }
    }
}

impl Tier {
    /// Its ready run was looked at.
    pub(in crate::policy) fn looked_at_device(&mut self, found: Processor, turn: &mut Turn) {
        let Some(run) = self.run else { return };
        let silence = match found {
            Processor::Cpu { evidence } if self.settings.wants_gpu => {
                self.device = Device::Cpu;
                if !std::mem::replace(&mut self.told_of_cpu, true) {
                    turn.tell(Notice::CpuFallback { run, evidence });
                }
                // A prompt takes a CPU so long that it would be taken for hung.
                self.settings.silence_on_cpu
            }
            // Whatever it was to use: a GPU that does nothing for long is no busy one.
            Processor::Gpu => {
                self.device = Device::AsMeant;
                self.settings.silence_on_gpu
            }
            Processor::Cpu { .. } | Processor::Unknown => {
                self.device = Device::AsMeant;
                self.settings.silence
            }
        };
        if let Some(proof) = &mut self.proof {
            proof.allow_silence(silence);
        }
        self.refresh(turn);
    }

    /// See `TierStatus::cpu_fallback`.
    pub(super) fn cpu_fallback(&self) -> Option<bool> {
        match self.device {
            _ if self.run.is_none() => None,
            Device::Unknown => None,
            Device::AsMeant => Some(false),
            Device::Cpu => Some(true),
        }
    }
}

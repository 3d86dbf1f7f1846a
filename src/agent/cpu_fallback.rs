//! What a ready run computes on: the log of its start tells, and of Ollama the list of what it has loaded. Looked at with
//! each health check, and told when it has changed.
use super::diagnosis;
use super::probe::{Probe, Target};
use crate::kinds::Device;
use crate::policy::{EngineEvent, Event, RunId};
use std::cell::{Cell, RefCell};
use std::path::PathBuf;

/// A log is read so often: its last lines may still be in the pipe when the engine is first seen ready.
const READS: u32 = 3;

/// What was seen of a run so far.
#[derive(Default)]
pub struct Looks {
    reads: Cell<u32>,
    /// One look is under way.
    looking: Cell<bool>,
    has_told: Cell<bool>,
    log: RefCell<Option<Device>>,
    /// The evidence that was told last.
    told: RefCell<Option<String>>,
}

impl Looks {
    /// Does it compute on the CPU, as far as somebody has looked?
    pub fn show_cpu(&self) -> bool {
        self.told.borrow().is_some()
    }

    /// The news, when there is any.
    pub async fn look(&self, run: RunId, dir: PathBuf, probe: &Probe, at: &Target) -> Option<Event> {
        if self.looking.replace(true) {
            return None;
        }
        let device = self.device(dir, probe, at).await;
        self.looking.set(false);
        let on_cpu = match device {
            Some(Device::Cpu { evidence }) => Some(evidence),
            Some(Device::Gpu) | None => None,
        };
        let is_news = !self.has_told.replace(true) || *self.told.borrow() != on_cpu;
        self.told.replace(on_cpu.clone());
        is_news.then_some(Event::Engine(run, EngineEvent::OnCpu(on_cpu)))
    }

    async fn device(&self, dir: PathBuf, probe: &Probe, at: &Target) -> Option<Device> {
        if self.reads.get() < READS {
            self.reads.set(self.reads.get() + 1);
            // Lines that came later may have pushed out those of the start: what they said still holds.
            if let Some(found) = diagnosis::device(dir, at.kind).await {
                self.log.replace(Some(found));
            }
        }
        // Where a model lies now says more than what was found at the start.
        let loaded = probe.loaded_on(at).await;
        loaded.or_else(|| self.log.borrow().clone())
    }
}

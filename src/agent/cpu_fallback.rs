//! What a ready run computes on: the log of its start tells, and of Ollama the list of what it has loaded. Looked at with
//! each health check, and told when it has changed.
use super::diagnosis;
use super::probe::{Probe, Target};
use crate::kinds::Device;
use crate::policy::{EngineEvent, Event, Processor, RunId};
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
    /// What was told last.
    told: RefCell<Option<Device>>,
}

impl Looks {
    /// What it computes on, where a look has shown that.
    pub fn shown(&self) -> Option<Device> {
        self.told.borrow().clone()
    }

    /// The news, when there is any.
    pub async fn look(&self, run: RunId, dir: PathBuf, probe: &Probe, at: &Target) -> Option<Event> {
        if self.looking.replace(true) {
            return None;
        }
        let device = self.device(dir, probe, at).await;
        self.looking.set(false);
        let is_news = !self.has_told.replace(true) || *self.told.borrow() != device;
        self.told.replace(device.clone());
        let processor = match device {
            Some(Device::Cpu { evidence }) => Processor::Cpu { evidence },
            Some(Device::Gpu) => Processor::Gpu,
            None => Processor::Unknown,
        };
        is_news.then_some(Event::Engine(run, EngineEvent::ComputesOn(processor)))
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

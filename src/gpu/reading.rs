//! One GPU as NVML tells it. Whatever it does not tell stays `None`.
use super::protocol::{Fault, Gpu, Process};
use crate::policy::Throttle;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::{PciInfo, ProcessInfo};
use nvml_wrapper::{Device, Nvml};
use std::collections::BTreeMap;

/// Reads the GPU of this index.
pub(super) fn of(nvml: &Nvml, index: u32) -> Gpu {
    match nvml.device_by_index(index) {
        Ok(device) => Look { device, fault: None }.read(index),
        Err(why) => Gpu { index, fault: Some(fault(&why)), ..Gpu::default() },
    }
}

/// One look at a GPU, and what was found to be wrong with it on the way.
struct Look<'n> {
    device: Device<'n>,
    fault: Option<Fault>,
}

impl<'n> Look<'n> {
    fn read(mut self, index: u32) -> Gpu {
        let memory = self.ask(Device::memory_info);
        let ecc = |kind| move |device: &Device<'_>| device.total_ecc_errors(kind, EccCounter::Volatile);
        let gpu = Gpu {
            index,
            uuid: self.ask(Device::uuid),
            pci: self.ask(Device::pci_info).as_ref().map(pci),
            name: self.ask(Device::name),
            fault: None,
            temperature_c: self.ask(|device| device.temperature(TemperatureSensor::Gpu)),
            memory_used: memory.as_ref().map(|memory| memory.used),
            memory_total: memory.map(|memory| memory.total),
            utilization: self.ask(Device::utilization_rates).map(|rates| f64::from(rates.gpu) / 100.0),
            power_w: self.ask(Device::power_usage).map(|mw| f64::from(mw) / 1e3),
            throttle: self.ask(Device::current_throttle_reasons).map(throttle),
            ecc_corrected: self.ask(ecc(MemoryError::Corrected)),
            ecc_uncorrected: self.ask(ecc(MemoryError::Uncorrected)),
            processes: self.processes(),
        };
        Gpu { fault: self.fault, ..gpu }
    }

    /// One question. That a GPU does not have something, or this driver no such function, is no fault of it.
    fn ask<T>(&mut self, question: impl FnOnce(&Device<'n>) -> Result<T, NvmlError>) -> Option<T> {
        match question(&self.device) {
            Ok(answer) => Some(answer),
            Err(why) => {
                if matches!(why, NvmlError::GpuLost | NvmlError::ResetRequired) {
                    self.fault.get_or_insert_with(|| fault(&why));
                }
                None
            }
        }
    }

    /// Who holds memory. A process that computes and draws is in both of the driver's lists, with all it holds.
    fn processes(&mut self) -> Option<Vec<Process>> {
        let computing = self.ask(Device::running_compute_processes);
        let drawing = self.ask(Device::running_graphics_processes).unwrap_or_default();
        let mut held: BTreeMap<u32, Option<u64>> = BTreeMap::new();
        for process in computing?.iter().chain(&drawing) {
            let memory = held.entry(process.pid).or_default();
            *memory = (*memory).max(memory_of(process));
        }
        Some(held.into_iter().map(|(pid, memory)| Process { pid, memory }).collect())
    }
}

fn memory_of(process: &ProcessInfo) -> Option<u64> {
    match process.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(bytes),
        UsedGpuMemory::Unavailable => None,
    }
}

fn fault(why: &NvmlError) -> Fault {
    match why {
        NvmlError::GpuLost => Fault::Lost,
        NvmlError::ResetRequired => Fault::NeedsReset,
        other => Fault::Unreadable(other.to_string()),
    }
}

/// As the kernel writes it; NVML's own text has eight digits for the domain.
fn pci(info: &PciInfo) -> String {
    format!("{:04x}:{:02x}:{:02x}.0", info.domain, info.bus, info.device)
}

fn throttle(reasons: ThrottleReasons) -> Vec<String> {
    let names = [
        (ThrottleReasons::SW_POWER_CAP, Throttle::SwPower),
        (ThrottleReasons::HW_SLOWDOWN, Throttle::HwSlowdown),
        (ThrottleReasons::SYNC_BOOST, Throttle::SyncBoost),
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, Throttle::SwThermal),
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, Throttle::HwThermal),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, Throttle::HwPowerBrake),
    ];
    names.iter().filter(|(bit, _)| reasons.contains(*bit)).map(|(_, it)| it.name().to_owned()).collect()
}

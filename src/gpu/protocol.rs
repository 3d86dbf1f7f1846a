//! What agent and probe say to each other: one JSON object a line, over the socket that is the probe's standard input.
//!
//! The two are of one binary today, but the program's file may be replaced while an agent runs on, so the lines carry a
//! version and unknown fields are ignored.
use crate::policy::{GPUS_MAX, GpuFault, GpuFigures, GpuIdentity, GpuProcess, GpuReading, Said, Throttle};
use serde::{Deserialize, Serialize};

pub(super) const PROTO: u32 = 1;
/// Bytes of a line without its end. A reading of 64 GPUs with fifty processes each is half of it.
pub(super) const LINE_MAX: usize = 256 * 1024;
/// Characters of a text that comes from the driver.
const TEXT_MAX: usize = 200;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Question {
    pub(super) proto: u32,
    /// The number that the answer has to bear.
    pub(super) ask: u64,
}

/// One of `gpus`, `no_driver` and `failed` is there. After the last two the probe ends.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) proto: u32,
    pub(super) ask: u64,
    pub(super) driver: Option<String>,
    pub(super) gpus: Option<Vec<Gpu>>,
    pub(super) no_driver: Option<String>,
    pub(super) failed: Option<String>,
}

/// What the driver does not tell is `None`, and null on the wire.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Gpu {
    pub(super) index: u32,
    pub(super) uuid: Option<String>,
    pub(super) pci: Option<String>,
    pub(super) name: Option<String>,
    pub(super) fault: Option<Fault>,
    pub(super) temperature_c: Option<u32>,
    pub(super) memory_used: Option<u64>,
    pub(super) memory_total: Option<u64>,
    /// 0 to 1.
    pub(super) utilization: Option<f64>,
    pub(super) power_w: Option<f64>,
    pub(super) throttle: Option<Vec<String>>,
    pub(super) ecc_corrected: Option<u64>,
    pub(super) ecc_uncorrected: Option<u64>,
    pub(super) processes: Option<Vec<Process>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fault {
    Lost,
    NeedsReset,
    Unreadable(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) memory: Option<u64>,
}

/// An answer, understood.
#[derive(Debug, PartialEq)]
pub(super) struct Heard {
    pub(super) ask: u64,
    pub(super) said: Said,
    /// Empty unless it is a reading.
    pub(super) gpus: Vec<GpuReading>,
}

/// Reads one line of the probe; else why it is none.
pub(super) fn hear(line: &[u8]) -> Result<Heard, String> {
    let answer: Answer = serde_json::from_slice(line).map_err(|why| format!("no answer: {why}"))?;
    let Answer { proto, ask, driver, gpus, no_driver, failed } = answer;
    if proto != PROTO {
        return Err(format!("version {proto} of the protocol instead of {PROTO}"));
    }
    let driver = driver.map(clipped);
    match (gpus, no_driver, failed) {
        (Some(gpus), None, None) if gpus.len() > GPUS_MAX => Err(format!("{} GPUs", gpus.len())),
        (Some(gpus), None, None) => {
            let gpus = gpus.into_iter().map(GpuReading::from).collect();
            Ok(Heard { ask, said: Said::Reading { driver }, gpus })
        }
        (None, Some(why), None) => {
            Ok(Heard { ask, said: Said::NoDriver { driver, why: clipped(why) }, gpus: Vec::new() })
        }
        (None, None, Some(why)) => {
            Ok(Heard { ask, said: Said::Failed { driver, why: clipped(why) }, gpus: Vec::new() })
        }
        _ => Err("an answer that says nothing, or two things at once".to_owned()),
    }
}

fn clipped(text: String) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}

impl From<Gpu> for GpuReading {
    fn from(gpu: Gpu) -> Self {
        let text = |text: Option<String>| text.map(clipped);
        // Names that this agent does not know are a newer probe's; it cannot judge them.
        let throttle = |names: Vec<String>| names.iter().filter_map(|name| throttle_named(name)).collect();
        let process = |it: &Process| GpuProcess { pid: it.pid, memory: it.memory };
        Self {
            index: gpu.index,
            identity: GpuIdentity { uuid: text(gpu.uuid), pci: text(gpu.pci), name: text(gpu.name) },
            fault: gpu.fault.map(|fault| match fault {
                Fault::Lost => GpuFault::Lost,
                Fault::NeedsReset => GpuFault::NeedsReset,
                Fault::Unreadable(why) => GpuFault::Unreadable(clipped(why)),
            }),
            figures: GpuFigures {
                temperature_c: gpu.temperature_c,
                memory_used: gpu.memory_used,
                memory_total: gpu.memory_total,
                utilization: gpu.utilization,
                power_w: gpu.power_w,
                throttle: gpu.throttle.map(throttle),
                ecc_corrected: gpu.ecc_corrected,
                ecc_uncorrected: gpu.ecc_uncorrected,
                processes: gpu.processes.map(|all| all.iter().map(process).collect()),
            },
        }
    }
}

fn throttle_named(name: &str) -> Option<Throttle> {
    use Throttle::{HwPowerBrake, HwSlowdown, HwThermal, SwPower, SwThermal, SyncBoost};
    let all = [SwPower, HwSlowdown, SyncBoost, SwThermal, HwThermal, HwPowerBrake];
    all.into_iter().find(|reason| reason.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(line: &str, why: &str) {
        let refusal = hear(line.as_bytes()).expect_err("no answer");
        assert!(refusal.contains(why), "{refusal}");
    }

    #[test]
    fn what_the_probe_writes_is_what_the_agent_reads() {
        let gpu = Gpu {
            index: 1,
            uuid: Some("GPU-1".to_owned()),
            fault: Some(Fault::Unreadable("x".repeat(300))),
            temperature_c: Some(61),
            throttle: Some(vec!["hw-thermal".to_owned(), "of a newer probe".to_owned()]),
            processes: Some(vec![Process { pid: 7, memory: None }]),
            ..Gpu::default()
        };
        let answer = Answer {
            proto: PROTO,
            ask: 3,
            driver: Some("550.1".to_owned()),
            gpus: Some(vec![gpu]),
            ..Answer::default()
        };
        let heard = hear(&serde_json::to_vec(&answer).expect("JSON")).expect("an answer");
        assert_eq!((heard.ask, heard.said), (3, Said::Reading { driver: Some("550.1".to_owned()) }));
        let [gpu] = heard.gpus.as_slice() else { panic!("one GPU: {:?}", heard.gpus) };
        assert_eq!((gpu.index, gpu.identity.uuid.as_deref()), (1, Some("GPU-1")));
        assert_eq!(gpu.fault, Some(GpuFault::Unreadable("x".repeat(TEXT_MAX))));
        assert_eq!(gpu.figures.temperature_c, Some(61));
        assert_eq!(gpu.figures.memory_used, None);
        assert_eq!(gpu.figures.throttle.as_deref(), Some(&[Throttle::HwThermal][..]));
        assert_eq!(gpu.figures.processes.as_deref(), Some(&[GpuProcess { pid: 7, memory: None }][..]));
    }

    #[test]
    fn fields_of_a_newer_probe_are_ignored_and_absent_ones_are_unknown() {
        let heard = hear(br#"{"proto":1,"ask":1,"gpus":[{"index":0,"moon":"full"}],"x":[]}"#);
        let gpus = heard.expect("an answer").gpus;
        assert_eq!(gpus, [GpuReading::default()]);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        refused("", "no answer");
        refused("NVRM: hello", "no answer");
        refused("[]", "no answer");
        refused(r#"{"proto":1,"gpus":[]}"#, "ask");
        refused(r#"{"proto":1,"ask":-1,"gpus":[]}"#, "no answer");
        refused(r#"{"proto":2,"ask":1,"gpus":[]}"#, "version 2");
        refused(r#"{"proto":1,"ask":1,"gpus":[{"index":"0"}]}"#, "no answer");
        refused(r#"{"proto":1,"ask":1}"#, "says nothing");
        refused(r#"{"proto":1,"ask":1,"gpus":[],"failed":"x"}"#, "two things");
        let many = r#"{"index":0},"#.repeat(GPUS_MAX) + r#"{"index":1}"#;
        refused(&format!(r#"{{"proto":1,"ask":1,"gpus":[{many}]}}"#), "65 GPUs");
    }
}

//! A fake driver, and an agent that finds it.
use crate::agent::rig::{Rig, tier};
use crate::support::{PATIENCE, fake_nvml, process, until_some};
use mainstay::control::wire::{self, GpuProbeState, ProcessState};
use serde_json::{Value, json};
use std::fs;
use tempfile::TempDir;

/// Where the agent finds a driver library, and the script that this one follows.
pub struct Driver {
    dir: TempDir,
}

impl Driver {
    pub fn new(script: &Value) -> Self {
        let library = fs::read(fake_nvml()).expect("the fake library");
        Self::of(&library, script)
    }

    /// One whose library has none of these symbols.
    pub fn without(symbols: &[&str], script: &Value) -> Self {
        let mut library = fs::read(fake_nvml()).expect("the fake library");
        for symbol in symbols {
            let name = [symbol.as_bytes(), b"\0"].concat();
            let places: Vec<usize> = library
                .windows(name.len())
                .enumerate()
                .filter(|(_, it)| *it == name)
                .map(|(at, _)| at)
                .collect();
            assert!(!places.is_empty(), "the fake library has {symbol}");
            for place in places {
                library[place] = b'_';
            }
        }
        Self::of(&library, script)
    }

    /// One whose library is this file.
    pub fn of(library: &[u8], script: &Value) -> Self {
        let driver = Self { dir: tempfile::tempdir().expect("a directory") };
        fs::write(driver.dir.path().join("libnvidia-ml.so.1"), library).expect("a library");
        driver.play(script);
        driver
    }

    /// Goes on after another script. Calls that hang already stay as they are.
    pub fn play(&self, script: &Value) {
        let next = self.dir.path().join("next");
        fs::write(&next, script.to_string()).expect("a script");
        fs::rename(next, self.dir.path().join("script")).expect("a script");
    }

    /// An agent with one tier that is ready, and this driver.
    pub fn rig(&self, env: &[(&str, &str)], gpu: &str) -> Rig {
        let rig = self.rig_of(env, &format!("[gpu]\n{gpu}\n{}", tier("only", "", "stop_grace = \"1s\"")));
        rig.until_serving("only");
        rig
    }

    /// What an agent that is to find it needs in its environment.
    pub fn env(&self) -> [(&'static str, String); 2] {
        let library = self.dir.path().display().to_string();
        let script = self.dir.path().join("script").display().to_string();
        [("LD_LIBRARY_PATH", library), ("FAKE_NVML", script)]
    }

    /// An agent with these tables, and this driver.
    pub fn rig_of(&self, env: &[(&str, &str)], tables: &str) -> Rig {
        let own = self.env();
        let mut all: Vec<(&str, &str)> = own.iter().map(|(k, v)| (*k, v.as_str())).collect();
        all.extend_from_slice(env);
        Rig::start_with_env(&all, "", &[tables.to_owned()])
    }
}

/// One GPU that has everything.
pub fn gpu(number: u64) -> Value {
    json!({ "uuid": format!("GPU-{number}"), "name": "Fake H100", "bus": number, "temperature": 61,
            "memory_used": 5_000, "memory_total": 9_000, "utilization": 40, "power_mw": 210_500, "throttle": 0,
            "ecc": [1, 0], "processes": [] })
}

/// One good GPU, and the troubles of this object on top.
pub fn script(more: &Value) -> Value {
    let mut script = json!({ "driver": "550.90.07", "devices": [gpu(1)] });
    for (key, value) in more.as_object().expect("an object") {
        script[key] = value.clone();
    }
    script
}

/// The probe's process.
pub fn probe_of(rig: &Rig) -> Option<u32> {
    let children = process::children(rig.status().agent.pid);
    children.into_iter().find(|pid| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).nth(1) == Some(b"gpu-probe")
    })
}

/// The status in which the probe is in this state.
#[track_caller]
pub fn until_probe(rig: &Rig, state: GpuProbeState) -> wire::Status {
    until_status(rig, state.name(), |status| status.gpu_probe.state == state)
}

#[track_caller]
pub fn until_status(rig: &Rig, what: &str, mut see: impl FnMut(&wire::Status) -> bool) -> wire::Status {
    let mut last = None;
    until_some(PATIENCE, || {
        let status = rig.status();
        let seen = see(&status);
        last = Some((status.gpu_probe.clone(), status.gpus.clone()));
        seen.then_some(status)
    })
    .unwrap_or_else(|| panic!("waited too long: {what}; last {last:?}; the log says:\n{}", rig.log()))
}

/// What must not change whatever the GPUs do: one run of the engine, ready, serving, answering.
pub struct Untouched {
    pid: Option<u32>,
    run: Option<u64>,
}

impl Untouched {
    pub fn now(rig: &Rig) -> Self {
        let process = rig.process("only");
        Self { pid: process.pid, run: process.run }
    }

    #[track_caller]
    pub fn check(&self, rig: &Rig) {
        let process = rig.process("only");
        assert_eq!((process.pid, process.run, process.state), (self.pid, self.run, ProcessState::Ready));
        assert_eq!((process.restarts, process.strikes), (0, 0));
        assert_eq!(rig.status().serving.as_deref(), Some("only"));
        let (status, answer) = rig.chat();
        assert_eq!(status, 200, "{answer}");
    }
}

/// Nothing is known of this GPU, and nothing is pretended.
#[track_caller]
pub fn is_unknown(gpu: &wire::Gpu) {
    let figures = (gpu.temperature_c, gpu.memory_used, gpu.utilization, gpu.power_w, gpu.ecc);
    assert_eq!((gpu.verdict, figures), (wire::GpuVerdict::Unknown, (None, None, None, None, None)));
    assert_eq!((&gpu.throttle, gpu.throttle_share, &gpu.processes), (&None, None, &None));
}

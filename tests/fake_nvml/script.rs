//! What the fake library does, as a JSON file says it:
//!
//! ```json
//! { "driver": "550.90.07",
//!   "devices": [ { "uuid": "GPU-1", "name": "Fake H100", "bus": 1, "temperature": [60, 61], "memory_used": 5, "memory_total": 9,
//!                  "utilization": 40, "power_mw": 210500, "throttle": 0, "ecc": [1, 0], "processes": [[4711, 5], [4712, null]],
//!                  "drawing": [], "lost_from": 3 } ],
//!   "from": 2,
//!   "returns": { "nvmlDeviceGetName": 3 },
//!   "slow_ms": { "nvmlDeviceGetCount_v2": 500 },
//!   "hang": ["nvmlDeviceGetTemperature"], "abort": [], "garbage": { "nvmlDeviceGetCount_v2": "text" }, "flood": [] }
//! ```
//! A value that is left out is one that the GPU does not have. A list of values is one a reading; the last one stays.
//! Readings are counted from 1 in each process, by the calls of `nvmlDeviceGetCount_v2`. `from` is the first reading in
//! which the troubles below it happen; without it they happen from the beginning, `nvmlInit_v2` included.
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Bytes of a flood: more than anybody should keep.
const FLOOD: usize = 10 << 20;

static READING: AtomicUsize = AtomicUsize::new(0);

pub fn begin_reading() {
    READING.fetch_add(1, Ordering::Relaxed);
}

fn reading() -> usize {
    READING.load(Ordering::Relaxed)
}

#[derive(Default)]
pub struct Script {
    pub driver: Option<String>,
    pub devices: Vec<Device>,
    from: usize,
    returns: BTreeMap<String, u64>,
    slow_ms: BTreeMap<String, u64>,
    garbage: BTreeMap<String, String>,
    hang: Vec<String>,
    abort: Vec<String>,
    flood: Vec<String>,
}

pub struct Device {
    pub uuid: Option<String>,
    pub name: Option<String>,
    pub bus: Option<u32>,
    pub temperature: Option<Moving>,
    pub memory_used: Option<Moving>,
    pub memory_total: Option<u64>,
    pub utilization: Option<Moving>,
    pub power_mw: Option<Moving>,
    pub throttle: Option<Moving>,
    /// Corrected, uncorrected.
    pub ecc: Option<[u64; 2]>,
    pub processes: Option<Vec<(u32, Option<Moving>)>>,
    pub drawing: Vec<(u32, Option<Moving>)>,
    lost_from: Option<u64>,
}

/// A value a reading.
pub struct Moving(Vec<u64>);

impl Moving {
    pub fn now(&self) -> u64 {
        let place = reading().saturating_sub(1).min(self.0.len().saturating_sub(1));
        self.0.get(place).copied().unwrap_or_default()
    }
}

impl Device {
    pub fn is_lost(&self) -> bool {
        self.lost_from.is_some_and(|from| reading() as u64 >= from)
    }
}

impl Script {
    /// A script that cannot be read is a test's mistake, and ends the probe.
    pub fn read() -> Self {
        let path = std::env::var("FAKE_NVML").expect("FAKE_NVML names the script");
        let text = std::fs::read(&path).expect("the script is there");
        let script: Value = serde_json::from_slice(&text).expect("the script is JSON");
        let list = |key: &str| texts(&script[key]);
        Self {
            driver: text_of(&script["driver"]),
            devices: script["devices"]
                .as_array()
                .map(|all| all.iter().map(device).collect())
                .unwrap_or_default(),
            from: script["from"].as_u64().unwrap_or(0) as usize,
            returns: numbers(&script["returns"]),
            slow_ms: numbers(&script["slow_ms"]),
            garbage: entries(&script["garbage"]).filter_map(|(k, v)| Some((k, text_of(v)?))).collect(),
            hang: list("hang"),
            abort: list("abort"),
            flood: list("flood"),
        }
    }

    /// What goes wrong in a call; an error is what it returns.
    pub fn trouble(&self, function: &str) -> Result<(), u32> {
        if reading() < self.from {
            return Ok(());
        }
        let named = |list: &[String]| list.iter().any(|it| it == function);
        if let Some(ms) = self.slow_ms.get(function) {
            std::thread::sleep(Duration::from_millis(*ms));
        }
        if let Some(text) = self.garbage.get(function) {
            say(text.as_bytes());
        }
        if named(&self.flood) {
            say(&vec![b'x'; FLOOD]);
        }
        if named(&self.abort) {
            std::process::abort();
        }
        while named(&self.hang) {
            std::thread::park();
        }
        match self.returns.get(function) {
            Some(code) => Err(*code as u32),
            None => Ok(()),
        }
    }
}

/// Into the probe's own mouth: its standard input is the socket to the agent.
fn say(bytes: &[u8]) {
    if let Ok(socket) = std::io::stdin().as_fd().try_clone_to_owned() {
        let _ = std::fs::File::from(socket).write_all(bytes);
    }
}

fn device(of: &Value) -> Device {
    Device {
        uuid: text_of(&of["uuid"]),
        name: text_of(&of["name"]),
        bus: of["bus"].as_u64().map(|bus| bus as u32),
        temperature: moving(&of["temperature"]),
        memory_used: moving(&of["memory_used"]),
        memory_total: of["memory_total"].as_u64(),
        utilization: moving(&of["utilization"]),
        power_mw: moving(&of["power_mw"]),
        throttle: moving(&of["throttle"]),
        ecc: of["ecc"].as_array().map(|ecc| [0, 1].map(|i| ecc[i].as_u64().unwrap_or_default())),
        processes: of["processes"].is_array().then(|| processes(&of["processes"])),
        drawing: processes(&of["drawing"]),
        lost_from: of["lost_from"].as_u64(),
    }
}

fn processes(of: &Value) -> Vec<(u32, Option<Moving>)> {
    let all = of.as_array().into_iter().flatten();
    all.map(|it| (it[0].as_u64().unwrap_or_default() as u32, moving(&it[1]))).collect()
}

fn moving(of: &Value) -> Option<Moving> {
    match of {
        Value::Array(all) => Some(Moving(all.iter().filter_map(Value::as_u64).collect())),
        one => Some(Moving(vec![one.as_u64()?])),
    }
}

fn text_of(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(text_of).collect()
}

fn entries(value: &Value) -> impl Iterator<Item = (String, &Value)> {
    value.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), value))
}

fn numbers(value: &Value) -> BTreeMap<String, u64> {
    entries(value).filter_map(|(key, value)| Some((key, value.as_u64()?))).collect()
}

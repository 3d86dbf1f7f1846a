//! Drivers that hang, crash, talk nonsense or are not there: engines and watchdog untouched, the status truthful.
use super::driver::{Driver, Untouched, is_unknown, probe_of, script, until_probe, until_status};
use crate::agent::rig::Rig;
use crate::support::{process, until};
use mainstay::control::wire::GpuProbeState;
use serde_json::{Value, json};
use std::os::unix::net::UnixDatagram;

/// What the agent tells systemd.
struct Watchdog {
    socket: UnixDatagram,
    dir: tempfile::TempDir,
}

impl Watchdog {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        Self { socket, dir }
    }

    fn address(&self) -> String {
        self.dir.path().join("notify").display().to_string()
    }

    /// Pings since the last look.
    fn pings(&self) -> usize {
        let mut message = [0; 4096];
        let messages = std::iter::from_fn(|| {
            let length = self.socket.recv(&mut message).ok()?;
            Some(String::from_utf8_lossy(&message[..length]).contains("WATCHDOG=1"))
        });
        messages.filter(|ping| *ping).count()
    }
}

fn reason(rig: &Rig) -> String {
    rig.status().gpu_probe.reason.unwrap_or_default()
}

#[test]
fn a_driver_that_hangs_for_ever_costs_the_figures_and_nothing_else() {
    let watchdog = Watchdog::new();
    let driver = Driver::new(&script(&json!({ "from": 2, "hang": ["nvmlDeviceGetTemperature"] })));
    let address = watchdog.address();
    let rig = driver.rig(&[("NOTIFY_SOCKET", &address), ("WATCHDOG_USEC", "2000000")], "");
    let untouched = Untouched::now(&rig);
    let first = until("a probe", || probe_of(&rig));
    let status = until_probe(&rig, GpuProbeState::Unresponsive);
    is_unknown(&status.gpus[0]);
    assert_eq!(status.gpus[0].name.as_deref(), Some("Fake H100"));
    untouched.check(&rig);
    watchdog.pings();
    until("it is killed", || (!process::is_alive(first)).then_some(()));
    // Ten seconds of a hang are long enough for a loop that waits to lose its watchdog.
    assert!(watchdog.pings() >= 3, "the pings go on");
    let second = until("another one", || probe_of(&rig));
    assert_ne!(first, second);
    driver.play(&script(&json!({})));
    until_probe(&rig, GpuProbeState::Ok);
    untouched.check(&rig);
}

#[test]
fn a_slow_driver_is_waited_for_and_heard() {
    let driver = Driver::new(&script(&json!({ "from": 2, "slow_ms": { "nvmlDeviceGetCount_v2": 5_000 } })));
    let rig = driver.rig(&[], "");
    until_probe(&rig, GpuProbeState::Ok);
    let probe = probe_of(&rig);
    until_probe(&rig, GpuProbeState::Unresponsive);
    let status = until_probe(&rig, GpuProbeState::Ok);
    assert_eq!(status.gpus[0].temperature_c, Some(61.0));
    assert_eq!(probe_of(&rig), probe, "it was not replaced");
}

/// The hundred crashes of a session that begins anew each time; how the pauses between them grow is policy's test.
#[test]
fn a_probe_that_crashes_a_hundred_times_is_started_a_hundred_times_and_harms_nobody() {
    let driver = Driver::new(&script(&json!({ "from": 1, "abort": ["nvmlDeviceGetName"] })));
    let rig = driver.rig(&[("MAINSTAY_TEST_GPU_HURRY", "3000")], "");
    let untouched = Untouched::now(&rig);
    let failures = |reason: &str| {
        let (before, _) = reason.split_once(" failures in a row")?;
        before.rsplit(' ').next()?.parse::<u32>().ok()
    };
    let status = until_status(&rig, "a hundred crashes", |status| {
        failures(status.gpu_probe.reason.as_deref().unwrap_or_default()) >= Some(100)
    });
    assert_eq!(status.gpu_probe.state, GpuProbeState::Unresponsive);
    assert!(status.gpu_probe.reason.is_some_and(|why| why.starts_with("the probe crashed")));
    assert_eq!(rig.log().matches("the GPU probe does not answer").count(), 1, "said once:\n{}", rig.log());
    assert!(process::rss_anon_kib(status.agent.pid) < 12 * 1024);
    assert!(process::descriptors(status.agent.pid).len() < 100, "none is left open");
    untouched.check(&rig);
    driver.play(&script(&json!({})));
    until_probe(&rig, GpuProbeState::Ok);
    untouched.check(&rig);
}

#[test]
fn garbage_is_refused_with_a_bound_and_the_status_says_so() {
    let spoken = |text: &str| json!({ "from": 1, "garbage": { "nvmlDeviceGetCount_v2": text } });
    let check = |trouble: &Value, why: &str| {
        let driver = Driver::new(&script(trouble));
        let rig = driver.rig(&[], "");
        let untouched = Untouched::now(&rig);
        let status = until_probe(&rig, GpuProbeState::Unresponsive);
        let said = reason(&rig);
        assert!(said.starts_with("the probe sent garbage: ") && said.contains(why), "{said}");
        assert!(process::rss_anon_kib(status.agent.pid) < 12 * 1024, "it is not kept");
        untouched.check(&rig);
        driver.play(&script(&json!({})));
        until_probe(&rig, GpuProbeState::Ok);
    };
    check(&spoken("NVRM: GPU at PCI:0000:01:00: GPU-1\n"), "no answer");
    check(&spoken("{\"proto\":1,\"ask\":1,\"gpus\":[{\"index\":\"first\"}]}\n"), "no answer");
    check(&spoken("{\"proto\":1,\"ask\":77,\"gpus\":[]}\n"), "nobody asked for");
    check(&json!({ "from": 1, "flood": ["nvmlDeviceGetCount_v2"] }), "a line without an end");
}

#[test]
fn without_a_driver_that_is_said_once_and_everything_else_works() {
    let check = |driver: Driver, why: &str| {
        let rig = driver.rig(&[], "");
        let untouched = Untouched::now(&rig);
        let status = until_probe(&rig, GpuProbeState::NoDriver);
        assert_eq!(status.gpus, []);
        assert!(reason(&rig).contains(why), "{}", reason(&rig));
        until("the probe ends", || probe_of(&rig).is_none().then_some(()));
        until("it is told", || rig.log().contains("no GPU to watch").then_some(()));
        assert_eq!(rig.log().matches("no GPU to watch").count(), 1, "{}", rig.log());
        untouched.check(&rig);
    };
    let none = script(&json!({}));
    check(Driver::of(&[b'#'; 4096], &none), "the driver's library cannot be loaded");
    let code = |code: u32| script(&json!({ "returns": { "nvmlInit_v2": code } }));
    check(Driver::new(&code(9)), "the driver is not loaded");
    check(Driver::new(&code(18)), "different versions");
    check(Driver::without(&["nvmlInit_v2"], &none), "cannot be used");
    check(Driver::new(&script(&json!({ "devices": [] }))), "knows no GPU");
}

#[test]
fn a_driver_that_cannot_be_asked_is_no_missing_driver() {
    let driver = Driver::new(&script(&json!({ "returns": { "nvmlInit_v2": 4 } })));
    let rig = driver.rig(&[], "");
    until_probe(&rig, GpuProbeState::Unresponsive);
    assert!(reason(&rig).contains("permission"), "{}", reason(&rig));
    driver.play(&script(&json!({})));
    until_probe(&rig, GpuProbeState::Ok);
}

#[test]
fn nobody_looks_where_it_is_switched_off() {
    let driver = Driver::new(&script(&json!({})));
    let rig = driver.rig(&[], "probe = false");
    let status = rig.status();
    assert_eq!((status.gpu_probe.state, status.gpu_probe.since), (GpuProbeState::Off, None));
    assert_eq!(status.gpus, []);
    assert_eq!(probe_of(&rig), None);
}

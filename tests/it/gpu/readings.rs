//! What the driver tells is what is shown; what it does not tell is null.
use super::driver::{Driver, gpu, is_unknown, probe_of, script, until_probe, until_status};
use crate::agent::rig::{Rig, tier};
use crate::support::{mainstay, process};
use mainstay::control::wire::{Ecc, GpuHolder, GpuProbeState, GpuVerdict};
use serde_json::json;
use std::fs;
use std::process::Command;

/// What a subcommand prints about this agent.
fn printed(rig: &Rig, arguments: &[&str]) -> String {
    let output = Command::new(mainstay()).args(arguments).arg("--run-dir").arg(rig.run_dir()).output();
    let output = output.expect("the product runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn figures_and_holders_are_shown_and_what_is_not_told_is_null() {
    let driver = Driver::new(&script(&json!({})));
    let rig = driver.rig(&[], "");
    until_probe(&rig, GpuProbeState::Ok);
    let engine = rig.process("only").pid.expect("it runs");
    let mut first = gpu(1);
    first["temperature"] = json!([40, 50, 60, 70]);
    first["throttle"] = json!(0x20 | 0x4 | 0x1);
    first["processes"] = json!([[engine, 4_000], [1, null]]);
    first["drawing"] = json!([[engine, 4_500]]);
    let second = json!({ "uuid": "GPU-2", "bus": 0xc1, "temperature": 30 });
    driver.play(&script(&json!({ "devices": [first, second] })));
    let status = until_status(&rig, "the heat moves", |it| {
        it.gpus.len() == 2 && it.gpus[0].temperature_c == Some(60.0)
    });
    assert_eq!(status.gpu_probe.driver.as_deref(), Some("550.90.07"));
    let [first, second] = status.gpus.as_slice() else { panic!("two GPUs: {:?}", status.gpus) };
    assert_eq!((first.index, first.uuid.as_deref()), (0, Some("GPU-1")));
    assert_eq!((first.pci.as_deref(), first.name.as_deref()), (Some("0000:01:00.0"), Some("Fake H100")));
    assert_eq!((first.memory_used, first.memory_total), (Some(5_000), Some(9_000)));
    assert_eq!((first.utilization, first.power_w), (Some(0.4), Some(210.5)));
    assert_eq!(first.throttle.as_deref(), Some(&["sw-power".to_owned(), "sw-thermal".to_owned()][..]));
    assert!(first.throttle_share > Some(0.0) && first.throttle_share < Some(1.0), "{first:?}");
    assert_eq!(first.ecc, Some(Ecc { corrected: Some(1), uncorrected: Some(0) }));
    let holders = [
        GpuHolder { pid: 1, memory: None, tier: None },
        GpuHolder { pid: engine, memory: Some(4_500), tier: Some("only".to_owned()) },
    ];
    assert_eq!(first.processes.as_deref(), Some(&holders[..]));
    assert_eq!((second.verdict, second.temperature_c), (GpuVerdict::Ok, Some(30.0)));
    assert_eq!((second.pci.as_deref(), second.name.as_deref()), (Some("0000:c1:00.0"), None));
    assert_eq!((second.memory_used, second.power_w, second.utilization), (None, None, None));
    assert_eq!((&second.throttle, second.throttle_share, second.ecc), (&None, None, None));
    assert_eq!(second.processes, None);
    let table = printed(&rig, &["gpus"]);
    assert!(table.contains("driver 550.90.07") && table.contains("60 °C"), "{table}");
    assert!(table.contains(&format!("4.4 KiB held by pid {engine} (only)")), "{table}");
    let json: serde_json::Value = serde_json::from_str(&printed(&rig, &["gpus", "--json"])).expect("JSON");
    assert_eq!((&json["gpus"][1]["uuid"], &json["gpus"][1]["power_w"]), (&json!("GPU-2"), &json!(null)));
    assert!(printed(&rig, &["status"]).contains("     GPUs: 2 ok\n"));
}

#[test]
fn the_driver_is_loaded_into_the_probe_only_and_the_probe_gets_nothing_that_is_the_agents() {
    let driver = Driver::new(&script(&json!({})));
    let ours = [
        ("WATCHDOG_USEC", "30000000"),
        ("INVOCATION_ID", "x"),
        ("LISTEN_FDS", "0"),
        ("CREDENTIALS_DIRECTORY", "/x"),
    ];
    let rig = driver.rig(&ours, "");
    let status = until_probe(&rig, GpuProbeState::Ok);
    let probe = probe_of(&rig).expect("a probe");
    let maps = |pid: u32| fs::read_to_string(format!("/proc/{pid}/maps")).expect("it lives");
    assert!(maps(probe).contains("libnvidia-ml.so.1"));
    assert!(!maps(status.agent.pid).contains("libnvidia-ml.so.1"));
    for name in ours.map(|(name, _)| name).into_iter().chain(["NOTIFY_SOCKET", "MAINSTAY_TEST_FAULTS"]) {
        let found = process::environ(probe).into_iter().find(|it| it.starts_with(&format!("{name}=")));
        assert_eq!(found, None);
    }
    let open = process::descriptors(probe);
    let sockets = open.iter().filter(|(_, what)| what.starts_with("socket:")).count();
    assert_eq!(sockets, open.len() - 2, "its socket, /dev/null and the log: {open:?}");
    assert_eq!(process::status(probe, "PPid"), status.agent.pid.to_string());
}

#[test]
fn a_function_that_a_driver_lacks_or_refuses_costs_its_figure_only() {
    let refused = json!({ "returns": { "nvmlDeviceGetPowerUsage": 3, "nvmlDeviceGetUUID": 999 } });
    let driver = Driver::without(
        &["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetComputeRunningProcesses_v3"],
        &script(&refused),
    );
    let rig = driver.rig(&[], "");
    let status = until_probe(&rig, GpuProbeState::Ok);
    let [gpu] = status.gpus.as_slice() else { panic!("one GPU: {:?}", status.gpus) };
    assert_eq!((gpu.verdict, gpu.temperature_c), (GpuVerdict::Ok, Some(61.0)));
    assert_eq!((gpu.memory_used, gpu.memory_total, &gpu.processes), (None, None, &None));
    assert_eq!((gpu.power_w, gpu.uuid.as_deref(), gpu.utilization), (None, None, Some(0.4)));
}

#[test]
fn a_gpu_that_falls_off_the_bus_is_unknown_and_the_others_go_on() {
    let mut first = gpu(1);
    first["lost_from"] = json!(2);
    let driver = Driver::new(&script(&json!({ "devices": [first, gpu(2)] })));
    let rig = driver.rig(&[], "");
    let probe = probe_of(&rig);
    let status = until_status(&rig, "it is lost", |it| {
        it.gpus.first().is_some_and(|it| it.reason.contains("fell off"))
    });
    is_unknown(&status.gpus[0]);
    assert_eq!(status.gpus[0].uuid.as_deref(), Some("GPU-1"), "it is still known who is lost");
    assert_eq!((status.gpus[1].verdict, status.gpu_probe.state), (GpuVerdict::Ok, GpuProbeState::Ok));
    // Now the driver does not even list it, and the other one moves up.
    driver.play(&script(&json!({ "devices": [gpu(2)] })));
    let status = until_status(&rig, "it is gone", |it| it.gpus[0].reason.contains("does not list it"));
    is_unknown(&status.gpus[0]);
    assert_eq!((status.gpus[1].uuid.as_deref(), status.gpus[1].verdict), (Some("GPU-2"), GpuVerdict::Ok));
    assert_eq!(probe_of(&rig), probe, "one process all the time");
}

/// Weights on their way to a GPU may be all that moves: no line, little CPU, no memory of the host.
#[test]
fn a_start_that_fills_a_gpu_moves_and_one_that_does_not_is_given_up() {
    let driver = Driver::new(&script(&json!({})));
    let slow = "restart = { base = \"1h\", max = \"1h\", first = \"1h\" }\nstartup = { stall = \"3s\", cap = \"10m\" }";
    let rig =
        driver.rig_of(&[("MAINSTAY_TEST_GPU_HURRY", "20")], &tier("only", "\"never_ready\": true", slow));
    let engine = rig.until_process("it runs", "only", |p| p.pid);
    let mut filling = gpu(1);
    filling["processes"] = json!([[engine, (1..=200).map(|n: u64| n << 30).collect::<Vec<_>>()]]);
    driver.play(&script(&json!({ "devices": [filling] })));
    // At five readings a second this is more than twice the time that it may stand still.
    until_status(&rig, "forty GiB are there", |it| {
        let holders = it.gpus.first().and_then(|gpu| gpu.processes.as_ref());
        holders.is_some_and(|all| all.iter().any(|it| it.memory > Some(40 << 30)))
    });
    let process = rig.process("only");
    assert_eq!((process.run, process.last_exit), (Some(1), None), "it goes on");
    let mut full = gpu(1);
    full["processes"] = json!([[engine, 80_u64 << 30]]);
    driver.play(&script(&json!({ "devices": [full] })));
    let exit = rig.until_process("the start is given up", "only", |p| p.last_exit.clone());
    let evidence = exit.evidence.expect("a reason");
    assert!(evidence.contains("CPU, memory, disk and VRAM stood still"), "{evidence}");
}

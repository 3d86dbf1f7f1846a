use super::*;
use crate::control::wire::Ecc;

/// 2026-11-22T21:47:00Z
const NOW: i64 = 1_795_384_020_000;

fn ago(seconds: i64) -> String {
    crate::clock::rfc3339(NOW - seconds * 1000)
}

fn probe(state: GpuProbeState, reason: &str) -> GpuProbe {
    let driver = (state == GpuProbeState::Ok).then(|| "550.90.07".to_owned());
    GpuProbe { state, driver, since: Some(ago(75)), reason: Some(reason.to_owned()) }
}

fn good() -> Gpu {
    Gpu {
        index: 0,
        uuid: Some("GPU-8f6e2c1a-0b7d-4e0e-9f51-1d1c2b3a4f5e".to_owned()),
        pci: Some("0000:01:00.0".to_owned()),
        name: Some("NVIDIA H100 80GB HBM3".to_owned()),
        verdict: GpuVerdict::Ok,
        reason: "nothing is wrong".to_owned(),
        since: ago(75),
        temperature_c: Some(61.0),
        memory_used: Some(75 << 30),
        memory_total: Some(80 << 30),
        utilization: Some(0.4),
        power_w: Some(210.5),
        throttle: Some(vec![]),
        throttle_share: Some(0.0),
        ecc: None,
        xids: vec![],
        processes: Some(vec![
            GpuHolder { pid: 4720, memory: Some(70 << 30), tier: Some("primary".to_owned()) },
            GpuHolder { pid: 99, memory: None, tier: None },
        ]),
    }
}

fn blind() -> Gpu {
    Gpu {
        index: 1,
        verdict: GpuVerdict::Unknown,
        reason: "the driver says that it fell off the bus".to_owned(),
        since: ago(3700),
        name: None,
        temperature_c: None,
        memory_used: None,
        memory_total: None,
        utilization: None,
        power_w: None,
        throttle: None,
        throttle_share: None,
        processes: None,
        ..good()
    }
}

fn troubled() -> Gpu {
    Gpu {
        index: 2,
        verdict: GpuVerdict::Note,
        reason: "slowed down by heat for 50 % of the last minute".to_owned(),
        throttle: Some(vec!["sw-thermal".to_owned(), "hw-slowdown".to_owned()]),
        ecc: Some(Ecc { corrected: Some(3), uncorrected: None }),
        processes: Some((1..=10).map(|pid| GpuHolder { pid, memory: Some(1 << 20), tier: None }).collect()),
        ..good()
    }
}

#[test]
fn every_line_of_the_table_fits_and_says_what_is_not_known() {
    let text =
        render(&probe(GpuProbeState::Ok, "it answers"), &[good(), blind(), troubled()], NOW, 80, false);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    insta::assert_snapshot!(text, @"
    GPU probe: answers for 1min 15s, driver 550.90.07

      GPU  NAME                TEMP  MEMORY                   BUSY   POWER  VERDICT
    ● 0    H100 80GB HBM3     61 °C  75.0 GiB of 80.0 GiB     40 %   210 W  ok
        0000:01:00.0 GPU-8f6e2c1a-0b7d-4e0e-9f51-1d1c2b3a4f5e
        70.0 GiB held by pid 4720 (primary)
        an unknown amount held by pid 99 (not ours)
    ? 1    -                      -  -                           -       -  unknown
        0000:01:00.0 GPU-8f6e2c1a-0b7d-4e0e-9f51-1d1c2b3a4f5e
        unknown for 1h 1min: the driver says that it fell off the bus
    ● 2    H100 80GB HBM3     61 °C  75.0 GiB of 80.0 GiB     40 %   210 W  note
        0000:01:00.0 GPU-8f6e2c1a-0b7d-4e0e-9f51-1d1c2b3a4f5e
        note for 1min 15s: slowed down by heat for 50 % of the last minute
        slowed down now: sw-thermal, hw-slowdown
        memory errors: 3 corrected, ? uncorrected
        1.0 MiB held by pid 1 (not ours)
        1.0 MiB held by pid 2 (not ours)
        1.0 MiB held by pid 3 (not ours)
        1.0 MiB held by pid 4 (not ours)
        1.0 MiB held by pid 5 (not ours)
        1.0 MiB held by pid 6 (not ours)
        1.0 MiB held by pid 7 (not ours)
        1.0 MiB held by pid 8 (not ours)
        and 2 more processes; --json has all
    ");
}

#[test]
fn a_probe_that_is_not_well_says_so_in_a_sentence() {
    let check = |state, reason: &str, expected: &str| {
        let text = render(&probe(state, reason), &[], NOW, 200, false);
        assert_eq!(text, format!("GPU probe: {expected}\n"));
    };
    check(GpuProbeState::Ok, "it answers", "answers for 1min 15s, driver 550.90.07");
    check(GpuProbeState::NoDriver, "the driver is not loaded", "no driver: the driver is not loaded");
    check(GpuProbeState::Unresponsive, "no answer for 3 s", "unresponsive for 1min 15s: no answer for 3 s");
    check(GpuProbeState::Wedged, "it is stuck", "wedged for 1min 15s: it is stuck");
    check(GpuProbeState::Starting, "", "starting: nothing is known yet");
    check(GpuProbeState::Off, "", "off, by `probe = false` in [gpu]: nothing is known");
}

#[test]
fn colours_change_nothing_but_colours() {
    let gpus = [good(), blind(), troubled()];
    let ok = probe(GpuProbeState::Ok, "");
    let mut plain = String::new();
    let coloured = render(&ok, &gpus, NOW, 80, true);
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        rest = after.split_once('m').expect("a whole sequence").1;
    }
    plain.push_str(rest);
    assert_eq!(plain, render(&ok, &gpus, NOW, 80, false));
}

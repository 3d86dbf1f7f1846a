use super::families::{self, Kind};
use super::*;
use crate::control::wire::{
    Agent, AgentState, Check, Ecc, Gpu, GpuProbe, GpuProbeState, GpuVerdict, Health, Host, Process,
    ProcessState, Progress, Status, Tier, Traffic,
};
use std::collections::BTreeSet;

const AT: &str = "2026-11-22T21:47:00.123Z";

fn gpu() -> Gpu {
    Gpu {
        index: 0,
        uuid: Some("GPU-1".into()),
        pci: Some("0000:01:00.0".into()),
        name: Some("a \"card\"".into()),
        verdict: GpuVerdict::Ok,
        reason: String::new(),
        since: AT.into(),
        temperature_c: Some(61.0),
        memory_used: Some(1 << 30),
        memory_total: Some(1 << 34),
        utilization: Some(0.4),
        power_w: Some(210.5),
        throttle: Some(vec!["sw-thermal".into()]),
        throttle_share: Some(0.02),
        ecc: Some(Ecc { corrected: Some(3), uncorrected: None }),
        xids: Vec::new(),
        processes: None,
    }
}

fn tier(name: &str, rank: u16, process: Option<Process>) -> Tier {
    Tier {
        name: name.into(),
        rank,
        engine: "vllm".into(),
        mainstay: false,
        model: Some("m".into()),
        url: None,
        health: Health::Healthy,
        routable: true,
        reason: String::new(),
        cause: None,
        since: AT.into(),
        check: Check { last: Some(AT.into()), latency_ms: Some(12.0), failures: 1 },
        traffic: Traffic {
            in_flight: 3,
            requests: 120,
            answered: 110,
            client_errors: 10,
            failed_over: 4,
            cut: 1,
            refused: 1,
            skipped: 0,
            abandoned: 1,
            weakened: 2,
        },
        process,
    }
}

fn process() -> Process {
    Process {
        run: Some(3),
        state: ProcessState::Starting,
        since: AT.into(),
        pid: Some(2),
        shim_pid: Some(1),
        restarts: 2,
        strikes: 1,
        next_start: None,
        rss: Some(2048),
        cpu_s: Some(1.5),
        progress: Some(Progress {
            stage: "loading weights".into(),
            percent: Some(40),
            ..Progress::default()
        }),
        last_exit: None,
    }
}

/// Everything is known.
fn full() -> (Status, Figures) {
    let status = Status {
        schema: wire::SCHEMA,
        agent: Agent {
            version: "0.1.0".into(),
            pid: 1,
            started: AT.into(),
            state: AgentState::Serving,
            listen: Vec::new(),
            watchdog_s: None,
            config: String::new(),
            state_dir: String::new(),
            state_problem: None,
            config_problem: None,
            panics: 0,
            poison_refused: 0,
        },
        serving: Some("primary".into()),
        tiers: vec![tier("primary", 0, Some(process())), tier("far", 1, None)],
        gpu_probe: GpuProbe { state: GpuProbeState::Ok, ..GpuProbe::off() },
        gpus: vec![gpu()],
        host: Host { memory_total: Some(4), memory_available: Some(2), load: Some(0.5) },
        failover_seconds: wire::Distribution::default(),
        incidents: vec![wire::OpenIncident { kind: "failover".into(), ..wire::OpenIncident::default() }],
        mail: Some(wire::Mail { waiting: 1, sent: 2, ..wire::Mail::default() }),
    };
    let histogram = Histogram { buckets: vec![(0.5, 2), (1.0, 1), (f64::INFINITY, 1)], sum: 3.25 };
    let tier = |restarts: &[_]| TierFigures { first_content: histogram.clone(), restarts: restarts.to_vec() };
    let figures = Figures {
        started: 1.5,
        own: Some(Usage { rss: 4096, cpu_s: 0.25 }),
        hearts: vec![("policy loop", 0.5)],
        tiers: vec![tier(&[("gpu-oom", 1), ("hang", 0)]), tier(&[])],
        failovers: vec![Moves { from: 0, to: 1, count: 2 }],
        returns: vec![Moves { from: 1, to: 0, count: 1 }],
        outages: 0,
        failover_times: histogram.clone(),
        errors: vec![("all_tiers_down", 1)],
        dropped_log_lines: 0,
        unwritten: 0,
    };
    (status, figures)
}

#[test]
fn everything_that_is_known_is_there_and_well_formed() {
    let (status, figures) = full();
    let text = text(&status, &figures);
    for line in [
        "# TYPE mainstay_build info",
        "mainstay_build_info{version=\"0.1.0\"} 1",
        "# UNIT mainstay_start_time_seconds seconds",
        "mainstay_start_time_seconds 1.5",
        "mainstay_agent_state{state=\"serving\"} 1.0",
        "mainstay_agent_state{state=\"draining\"} 0.0",
        "mainstay_agent_cpu_seconds_total 0.25",
        "mainstay_tier_serving{tier=\"primary\"} 1.0",
        "mainstay_tier_serving{tier=\"far\"} 0.0",
        "mainstay_requests_total{tier=\"primary\",outcome=\"answered\"} 100",
        "mainstay_requests_total{tier=\"primary\",outcome=\"client_error\"} 10",
        "mainstay_errors_total{code=\"all_tiers_down\"} 1",
        "mainstay_failovers_total{from=\"primary\",to=\"far\"} 2",
        "mainstay_restarts_total{tier=\"primary\",cause=\"gpu-oom\"} 1",
        "mainstay_restarts_total{tier=\"primary\",cause=\"hang\"} 0",
        "mainstay_first_content_seconds_bucket{le=\"0.5\",tier=\"primary\"} 2",
        "mainstay_first_content_seconds_bucket{le=\"1.0\",tier=\"primary\"} 3",
        "mainstay_first_content_seconds_bucket{le=\"+Inf\",tier=\"primary\"} 4",
        "mainstay_failover_seconds_sum 3.25",
        "mainstay_failover_seconds_count 4",
        "mainstay_failover_seconds_bucket{le=\"+Inf\"} 4",
        "mainstay_engine_startup_ratio{tier=\"primary\"} 0.4",
        "mainstay_gpu_info{gpu=\"0\",uuid=\"GPU-1\",pci=\"0000:01:00.0\",name=\"a \\\"card\\\"\"} 1",
        "mainstay_gpu_throttle_active{gpu=\"0\",reason=\"sw-thermal\"} 1.0",
        "mainstay_gpu_ecc_errors_total{gpu=\"0\",type=\"corrected\"} 3",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("\n# EOF\n"));
}

/// Every family of the catalogue has a sample when everything is known, under the name that the catalogue gives it, and
/// no other name is there.
#[test]
fn the_catalogue_is_what_is_shown() {
    let (status, figures) = full();
    let text = text(&status, &figures);
    let plain = |line: &str| {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let histogram = families::ALL.iter().filter(|f| f.kind == Kind::Histogram).map(Family::sample_name);
        let of_histogram =
            histogram.into_iter().find(|h| name.strip_prefix(h.as_str()).is_some_and(|s| s.starts_with('_')));
        of_histogram.unwrap_or_else(|| name.to_owned())
    };
    let shown: BTreeSet<String> = text.lines().filter(|l| !l.starts_with('#')).map(plain).collect();
    let meant: BTreeSet<String> = families::ALL.iter().map(Family::sample_name).collect();
    assert_eq!(shown, meant);
    assert_eq!(families::ALL.len(), meant.len(), "two families of one name");
}

#[test]
fn what_is_not_known_is_absent() {
    let (mut status, mut figures) = full();
    let unknown = Gpu {
        temperature_c: None,
        memory_used: None,
        memory_total: None,
        utilization: None,
        power_w: None,
        throttle: None,
        throttle_share: None,
        ecc: None,
        ..gpu()
    };
    status.gpus = vec![unknown];
    status.mail = None;
    status.host = Host::default();
    status.tiers[0].check = Check::default();
    status.tiers[0].process =
        Some(Process { run: None, rss: None, cpu_s: None, progress: None, ..process() });
    figures.own = None;
    let text = text(&status, &figures);
    for name in [
        "mail",
        "gpu_temperature",
        "gpu_memory",
        "gpu_utilization",
        "gpu_power",
        "gpu_throttle",
        "gpu_ecc",
        "host_",
        "engine_run",
        "engine_memory",
        "engine_cpu",
        "engine_startup",
        "agent_memory",
        "agent_cpu",
        "tier_check_latency_seconds{tier=\"primary\"}",
        "tier_check_failures{tier=\"primary\"}",
        "engine_state{tier=\"far\"",
        "restarts_total{tier=\"far\"",
    ] {
        assert!(!text.contains(&format!("mainstay_{name}")), "{name} is in\n{text}");
    }
    assert!(text.contains("mainstay_gpu_verdict{gpu=\"0\",verdict=\"ok\"} 1.0"));
}

#[test]
fn an_agent_that_has_only_begun_says_what_it_knows() {
    let (mut status, _) = full();
    (status.tiers, status.serving, status.gpus) = (Vec::new(), None, Vec::new());
    let text = text(&status, &Figures::default());
    assert!(text.contains("mainstay_build_info") && !text.contains("tier="), "{text}");
}

/// GPU 0 was lost, and the driver has given its number to what was GPU 1: one series, of the one that is there.
#[test]
fn a_lost_gpu_takes_no_series_from_the_one_that_has_its_number_now() {
    let (mut status, figures) = full();
    let lost = Gpu {
        verdict: wire::GpuVerdict::Unknown,
        temperature_c: None,
        uuid: Some("GPU-lost".into()),
        ..gpu()
    };
    status.gpus = vec![lost.clone(), gpu()];
    let both = text(&status, &figures);
    assert!(
        !both.contains("GPU-lost") && both.contains("mainstay_gpu_verdict{gpu=\"0\",verdict=\"ok\"} 1.0"),
        "{both}"
    );
    status.gpus = vec![lost];
    assert!(text(&status, &figures).contains("GPU-lost"), "nobody has followed it");
}

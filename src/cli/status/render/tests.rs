use super::*;
use crate::control::wire::{
    Agent, Check, Gpu, GpuProbe, Health, LastExit, Mail, OpenIncident, Process, ProcessState, Progress,
    SCHEMA, Tier, Traffic,
};

/// 2026-11-22T21:47:00Z
const NOW: i64 = 1_795_384_020_000;

/// The wall clock so many seconds from now; in the past when negative.
fn at(seconds: i64) -> String {
    crate::clock::rfc3339(NOW + seconds * 1000)
}

fn process(state: ProcessState, since: i64) -> Process {
    Process {
        run: Some(3),
        state,
        since: at(since),
        pid: None,
        shim_pid: None,
        restarts: 0,
        strikes: 0,
        next_start: None,
        rss: None,
        cpu_s: None,
        progress: None,
        last_exit: None,
    }
}

fn tier(name: &str, health: Health, reason: &str, process: Option<Process>) -> Tier {
    Tier {
        name: name.to_owned(),
        rank: 0,
        engine: if process.is_some() { "llama-server" } else { "remote" }.to_owned(),
        mainstay: false,
        model: Some("small.gguf".to_owned()),
        url: None,
        health,
        routable: health != Health::Down,
        reason: reason.to_owned(),
        cause: None,
        since: at(-5),
        check: Check::default(),
        traffic: Traffic {
            in_flight: 3,
            requests: 120,
            answered: 118,
            failed_over: 1,
            cut: 1,
            ..Traffic::default()
        },
        process,
    }
}

fn status(serving: Option<&str>, tiers: Vec<Tier>) -> Status {
    Status {
        schema: SCHEMA,
        agent: Agent {
            version: "0.1.0".to_owned(),
            pid: 4711,
            started: at(-7380),
            state: AgentState::Serving,
            listen: vec!["127.0.0.1:8000".to_owned(), "[::1]:8000".to_owned()],
            watchdog_s: Some(30),
            config: "/etc/mainstay/mainstay.toml".to_owned(),
            state_dir: "/var/lib/mainstay".to_owned(),
            state_problem: None,
            config_problem: None,
            panics: 0,
            poison_refused: 0,
        },
        serving: serving.map(str::to_owned),
        tiers,
        gpu_probe: GpuProbe::off(),
        gpus: Vec::new(),
        host: Host { memory_total: Some(64 << 30), memory_available: Some(12 << 30), load: Some(0.5) },
        failover_seconds: Distribution { count: 2, p50: Some(0.001), p99: Some(0.002), max: Some(0.0125) },
        incidents: Vec::new(),
        mail: None,
    }
}

/// The part of a picture from the table on.
fn table(tiers: Vec<Tier>) -> String {
    let whole = render(&status(None, tiers), NOW, 80, false);
    whole.split_once("\n\n").map(|(_, table)| table.to_owned()).unwrap_or_default()
}

#[test]
fn a_host_on_which_all_is_well() {
    let ready = Process {
        pid: Some(4720),
        rss: Some(3 << 30),
        cpu_s: Some(4000.0),
        ..process(ProcessState::Ready, -7300)
    };
    let primary = Tier {
        engine: "vllm".to_owned(),
        url: Some("http://127.0.0.1:20017".to_owned()),
        ..tier("primary", Health::Healthy, "answered in 12 ms", Some(ready))
    };
    let cpu = Tier { mainstay: true, ..tier("cpu", Health::Healthy, "answered in 1 ms", None) };
    insta::assert_snapshot!(render(&status(Some("primary"), vec![primary, cpu]), NOW, 80, false), @r"
    ● mainstay 0.1.0: primary serves
        Agent: serving, pid 4711, up 2h 3min, watchdog 30s
       Listen: 127.0.0.1:8000, [::1]:8000
       Config: /etc/mainstay/mainstay.toml
     Failover: 2 requests moved; p50 1.0 ms, p99 2.0 ms, longest 12.5 ms
         Host: 12.0 GiB of 64.0 GiB memory available, load 0.50

      TIER     HEALTH    STATE     FOR       OPEN  ANSWERED  MOVED  CUT
    ● primary  healthy   ready     2h 1min      3       118      1    1
        vllm small.gguf at http://127.0.0.1:20017
        pid 4720, run 3, 3.0 GiB, CPU 1h 6min
    ● cpu      healthy   -         5s           3       118      1    1
        remote (mainstay) small.gguf
    ");
}

#[test]
fn what_is_wrong_says_why_and_what_comes_next() {
    let killed = LastExit {
        run: 2,
        at: at(-3),
        code: None,
        signal: Some("SIGKILL".to_owned()),
        cause: "gpu-oom".to_owned(),
        evidence: Some("torch.OutOfMemoryError: CUDA out of memory.\x1b[0m".to_owned()),
        action: "restart in 4 s".to_owned(),
    };
    let backoff = Process {
        strikes: 2,
        next_start: Some(at(4)),
        last_exit: Some(killed.clone()),
        ..process(ProcessState::Backoff, -3)
    };
    let exited = LastExit { code: Some(1), signal: None, evidence: None, ..killed };
    let held = Process {
        strikes: 5,
        next_start: Some(at(900)),
        last_exit: Some(LastExit { cause: "model-missing".to_owned(), action: "held".to_owned(), ..exited }),
        ..process(ProcessState::Held, -60)
    };
    let mut remote = tier("gpu2", Health::Down, "connection refused", None);
    remote.check.failures = 3;
    remote.cause = Some("network".to_owned());
    remote.url = Some("http://10.0.0.2:8000".to_owned());
    insta::assert_snapshot!(
        table(vec![
            tier("primary", Health::Down, "waiting to be restarted", Some(backoff)),
            tier("small", Health::Down, "held", Some(held)),
            remote,
        ]),
        @r"
      TIER     HEALTH    STATE     FOR       OPEN  ANSWERED  MOVED  CUT
    ↻ primary  down      backoff   3s           3       118      1    1
        llama-server small.gguf
        down for 5s: waiting to be restarted
        starts again in 4s (21:47:04 UTC) after 2 strikes
        run 2 ended 3s ago: SIGKILL, gpu-oom; restart in 4 s
          torch.OutOfMemoryError: CUDA out of memory.\x1b[0m
        → its last lines: mainstay logs primary; at once: mainstay start primary
    × small    down      held      1min         3       118      1    1
        llama-server small.gguf
        down for 5s: held
        held after 5 strikes; next try in 15min (22:02:00 UTC)
        run 2 ended 3s ago: exit 1, model-missing; held
        → when mended: mainstay start small (a changed file: restart mainstay)
    × gpu2     down      -         5s           3       118      1    1
        remote small.gguf at http://10.0.0.2:8000
        down for 5s: connection refused; 3 checks failed in a row
        → does this host reach it? curl -v http://10.0.0.2:8000
    "
    );
}

#[test]
fn every_state_of_an_engine_has_its_sentence() {
    let progress = Progress {
        stage: "loading weights".to_owned(),
        percent: Some(40),
        eta_s: Some(84),
        n: Some(1),
        of: Some(4),
        stage_percent: Some(25),
    };
    let loading = Process { progress: Some(progress), ..process(ProcessState::Starting, -60) };
    let asked = LastExit {
        run: 3,
        at: at(-100),
        code: Some(0),
        signal: None,
        cause: "asked".to_owned(),
        evidence: None,
        action: "stopped".to_owned(),
    };
    let stopped = Process { last_exit: Some(asked), ..process(ProcessState::Stopped, -100) };
    let down = |name: &str, process: Process| tier(name, Health::Down, "not ready", Some(process));
    insta::assert_snapshot!(
        table(vec![
            down("a", loading),
            down("b", process(ProcessState::Starting, -1)),
            down("c", stopped),
            down("d", process(ProcessState::Stopping, -1)),
            down("e", process(ProcessState::Wedged, -1)),
            down("f", process(ProcessState::Fenced, -1)),
            down("g", process(ProcessState::Backoff, -1)),
            tier("h", Health::Degraded, "answered in 3.1 s", Some(process(ProcessState::Ready, -90_000))),
        ]),
        @r"
      TIER  HEALTH    STATE     FOR       OPEN  ANSWERED  MOVED  CUT
    ↻ a     down      starting  1min         3       118      1    1
        llama-server small.gguf
        down for 5s: not ready
        starting: loading weights (1 of 4), 40 %, about 1min 24s left
        → to see how it comes up: mainstay logs a -f
    ↻ b     down      starting  1s           3       118      1    1
        llama-server small.gguf
        down for 5s: not ready
        starting: no progress seen yet
        → to see how it comes up: mainstay logs b -f
    ○ c     down      stopped   1min 40s     3       118      1    1
        llama-server small.gguf
        down for 5s: not ready
        not running
        run 3 ended 1min 40s ago: exit 0, asked; stopped
        → to start it: mainstay start c
    ↻ d     down      stopping  1s           3       118      1    1
        llama-server small.gguf
        down for 5s: not ready
        stopping: 3 open requests may finish first
    × e     down      wedged    1s           3       118      1    1
        llama-server small.gguf
        down for 5s: not ready
        wedged: its processes survive SIGKILL, nothing can be started
        → a reboot helps when that lasts: mainstay help troubleshooting
    × f     down      fenced    1s           3       118      1    1
        llama-server small.gguf
        down for 5s: not ready
        fenced: nothing is started on its GPU until that is good again
        → why: mainstay gpus
    ↻ g     down      backoff   1s           3       118      1    1
        llama-server small.gguf
        down for 5s: not ready
        starts again as soon as it may
        → its last lines: mainstay logs g; at once: mainstay start g
    ● h     degraded  ready     1d 1h        3       118      1    1
        llama-server small.gguf
        degraded for 5s: answered in 3.1 s
        → what it says: mainstay logs h
    "
    );
}

#[test]
fn the_headline_and_its_colour_say_who_serves() {
    let check = |serving: Option<&str>, expected: &str| {
        let tiers = vec![tier("best", Health::Down, "", None), tier("next", Health::Down, "", None)];
        let coloured = render(&status(serving, tiers), NOW, 80, true);
        assert_eq!(coloured.lines().next(), Some(expected));
    };
    check(Some("best"), "\x1b[1;32m●\x1b[0m \x1b[1mmainstay 0.1.0: best serves\x1b[0m");
    check(Some("next"), "\x1b[1;33m●\x1b[0m \x1b[1mmainstay 0.1.0: next serves in place of best\x1b[0m");
    check(None, "\x1b[1;31m●\x1b[0m \x1b[1mmainstay 0.1.0: no tier can answer\x1b[0m");
}

#[test]
fn what_is_above_the_table_says_where_to_look() {
    let picture = |failed: bool, state, problem: Option<&str>| {
        let tiers = vec![tier("best", Health::Down, "", None), tier("next", Health::Down, "", None)];
        let mut picture = status(Some("next"), tiers);
        let (tier, kind, cause) = ("best".to_owned(), "failover".to_owned(), "gpu-oom".to_owned());
        picture.incidents.extend(failed.then(|| OpenIncident { id: 7, tier, kind, opened: at(-65), cause }));
        picture.agent.state = state;
        picture.agent.config_problem = problem.map(str::to_owned);
        render(&picture, NOW, 80, false)
    };
    let hint = "  → what to do: mainstay help troubleshooting";
    let check = |failed, state, expected: bool| {
        let text = picture(failed, state, None);
        assert_eq!(text.lines().nth(1) == Some(hint), expected, "{text}");
    };
    // A start is no failure.
    check(false, AgentState::Serving, false);
    check(true, AgentState::Serving, true);
    check(true, AgentState::Draining, false);
    let incident = " Incident: 7 open for 1min 5s: failover of best, gpu-oom; → mainstay incident 7\n";
    let text = picture(true, AgentState::Serving, None);
    assert!(text.contains(incident), "{text}");
    let mut unkept = status(None, vec![]);
    unkept.agent.state_problem = Some("cannot use /s: Read-only file system".to_owned());
    let text = render(&unkept, NOW, 120, false);
    let why = "  History: incidents, events and mail are not kept: cannot use /s: Read-only file system\n";
    assert!(text.contains(why), "{text}");
    let text = picture(false, AgentState::Serving, Some("/m.toml:3:1: no such key"));
    assert!(
        text.contains(
            "  Problem: /m.toml:3:1: no such key\n           → all of it: mainstay check --config /etc/mainstay"
        ),
        "{text}"
    );
}

#[test]
fn the_advice_on_a_remote_tier_fits_what_is_wrong_with_it() {
    let check = |cause: Option<&str>, mainstay: bool, expected: &str| {
        let mut remote = tier("gpu2", Health::Down, "because", None);
        (remote.cause, remote.mainstay) = (cause.map(str::to_owned), mainstay);
        remote.url = Some("http://10.0.0.2:8000".to_owned());
        let text = table(vec![remote]);
        assert_eq!(
            text.lines().find_map(|line| line.trim_start().strip_prefix("→ ")).unwrap_or(""),
            expected,
            "{text}"
        );
    };
    check(None, false, "");
    check(Some("network"), true, "does this host reach it? curl -v http://10.0.0.2:8000");
    check(Some("hang"), false, "does it answer? curl -v http://10.0.0.2:8000");
    check(Some("auth-gated"), false, "check `api_key` of this tier, and the account at that server");
    check(Some("model-missing"), false, "check `model` of this tier: that server does not know the name");
    check(Some("bad-argument"), false, "check `url`, `health_path` and `model` of this tier");
    check(Some("unknown"), true, "that host says why: run `mainstay status` there");
    check(Some("unknown"), false, "its own log says why; what it answers: curl -v http://10.0.0.2:8000");
}

#[test]
fn one_is_no_plural_and_what_is_nearly_ready_has_a_time() {
    let mut picture = status(Some("best"), Vec::new());
    (picture.failover_seconds.count, picture.agent.poison_refused) = (1, 1);
    let text = render(&picture, NOW, 120, false);
    assert!(text.contains(" 1 request moved;"), "{text}");
    assert!(text.contains(" 1 request refused (422);"), "{text}");
    let known =
        Progress { stage: "loading".to_owned(), percent: Some(18), eta_s: Some(0), ..Progress::default() };
    assert_eq!(tier::progress(&known), "loading, 18 %, less than 1s left");
}

#[test]
fn where_nothing_is_open_nothing_is_waited_for() {
    let mut stopping = tier("a", Health::Down, "hang", Some(process(ProcessState::Stopping, -1)));
    stopping.traffic.in_flight = 0;
    let text = table(vec![stopping]);
    assert!(text.contains("    stopping: its processes are being ended\n"), "{text}");
}

#[test]
fn failed_checks_are_counted_once() {
    let check = |failures: u32, reason: &str, expected: &str| {
        let mut remote = tier("gpu2", Health::Down, reason, None);
        remote.check.failures = failures;
        let text = table(vec![remote]);
        assert!(text.contains(expected), "{text}");
    };
    check(4, "connection refused", "down for 5s: connection refused; 4 checks failed in a row\n");
    check(4, "4 checks failed: status 401", "down for 5s: 4 checks failed: status 401\n");
    check(1, "1 of 3 checks failed: timed out", "down for 5s: 1 of 3 checks failed: timed out\n");
}

#[test]
fn a_start_that_is_due_is_not_said_to_be_in_no_time() {
    let due = Process { next_start: Some(at(-2)), ..process(ProcessState::Backoff, -3) };
    let text = table(vec![tier("a", Health::Down, "waiting", Some(due))]);
    assert!(text.contains("starts again at any moment\n"), "{text}");
}

#[test]
fn colours_change_no_character_and_no_line_is_too_wide() {
    let long = "a-very-long-name-of-a-tier-and-more";
    let mut picture = status(None, vec![tier(long, Health::Down, &"why ".repeat(40), None)]);
    picture.agent.config_problem = Some("tier.model: no such key; did you mean `modle`? ".repeat(4));
    picture.agent.listen = vec!["127.0.0.1:8000".to_owned(); 9];
    let plain = render(&picture, NOW, 80, false);
    let coloured = render(&picture, NOW, 80, true);
    let codes = regex::Regex::new("\x1b\\[[0-9;]*m").expect("a good pattern");
    assert_eq!(codes.replace_all(&coloured, ""), plain);
    assert_ne!(coloured, plain);
    for line in plain.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let unlimited = render(&picture, NOW, 100_000, false);
    assert!(unlimited.contains(&"why ".repeat(40)), "nothing is cut where there is no width: {unlimited}");
}

#[test]
fn what_is_not_known_is_left_out() {
    let mut picture = status(Some("cpu"), vec![tier("cpu", Health::Healthy, "", None)]);
    picture.host = Host::default();
    picture.failover_seconds = Distribution::default();
    picture.agent.watchdog_s = None;
    let text = render(&picture, NOW, 80, false);
    for word in ["Host", "Failover", "watchdog", "Problem"] {
        assert!(!text.contains(word), "{word} in {text}");
    }
}

#[test]
fn one_line_tells_of_the_gpus_where_there_is_something_to_tell() {
    let gpu = |index, verdict, reason: &str| Gpu {
        index,
        uuid: None,
        pci: None,
        name: None,
        verdict,
        reason: reason.to_owned(),
        since: at(-5),
        temperature_c: None,
        memory_used: None,
        memory_total: None,
        utilization: None,
        power_w: None,
        throttle: None,
        throttle_share: None,
        ecc: None,
        xids: Vec::new(),
        processes: None,
    };
    let check = |state, gpus: Vec<Gpu>, expected: Option<&str>| {
        let mut picture = status(Some("a"), Vec::new());
        let (since, reason) = (Some(at(-75)), Some("because".to_owned()));
        picture.gpu_probe = GpuProbe { state, driver: None, since, reason };
        picture.gpus = gpus;
        let text = render(&picture, NOW, 80, false);
        let line = text.lines().find_map(|line| line.strip_prefix("     GPUs: "));
        assert_eq!(line, expected);
    };
    let good = || gpu(0, GpuVerdict::Ok, "nothing is wrong");
    let lost = || gpu(1, GpuVerdict::Unknown, "it fell off the bus");
    check(GpuProbeState::Off, vec![], None);
    check(GpuProbeState::Starting, vec![], None);
    check(GpuProbeState::Ok, vec![good(), good()], Some("2 ok"));
    check(GpuProbeState::Ok, vec![good(), lost()], Some("1 ok; GPU 1 unknown: it fell off the bus"));
    check(
        GpuProbeState::Ok,
        vec![lost(), lost()],
        Some("0 ok; GPU 1 unknown: it fell off the bus; 1 more: `mainstay gpus`"),
    );
    check(GpuProbeState::NoDriver, vec![], Some("no driver: because"));
    let long = "the driver's library cannot be loaded: libnvidia-ml.so.1: invalid ELF header of a file";
    let mut picture = status(Some("a"), Vec::new());
    let (state, reason) = (GpuProbeState::NoDriver, Some(long.to_owned()));
    picture.gpu_probe = GpuProbe { state, driver: None, since: Some(at(-75)), reason };
    let text = render(&picture, NOW, 80, false);
    assert!(text.contains("     GPUs: no driver; why: mainstay gpus\n") && !text.contains('…'), "{text}");
    check(GpuProbeState::Wedged, vec![lost()], Some("wedged for 1min 15s: because; → mainstay gpus"));
}

#[test]
fn mail_is_shown_only_when_it_does_not_get_through() {
    let said = |trouble: Option<&str>| {
        let mut status = status(Some("best"), vec![tier("best", Health::Healthy, "", None)]);
        let trouble_since = trouble.map(|_| at(-3600));
        let trouble = trouble.map(str::to_owned);
        status.mail = Some(Mail { waiting: 2, sent: 5, lost: 0, trouble, trouble_since });
        render(&status, NOW, 120, false)
    };
    let line = "     Mail: no mail was sent for 1h, 2 waiting; → mainstay alert test: connection refused\n";
    let text = said(Some("connection refused"));
    assert!(text.contains(line), "{text}");
    assert!(!said(None).contains("Mail"));
}

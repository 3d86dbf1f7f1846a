use super::*;
use crate::alert::record::{Line, Mail, Process};

fn post(kind: PostKind, ids: &[u64]) -> Post {
    Post { kind, ids: ids.to_vec(), more: 0 }
}

fn line(at: &str, kind: &str, text: &str) -> Line {
    Line { at: format!("2026-11-23T{at}Z"), seq: 1, kind: kind.to_owned(), text: text.to_owned() }
}

fn record() -> Record {
    Record {
        schema: 1,
        id: 17,
        host: "gpu1".to_owned(),
        tier: "primary".to_owned(),
        engine: "vllm".to_owned(),
        model: "meta-llama/Meta-Llama-3.1-8B-Instruct".to_owned(),
        kind: "failover".to_owned(),
        opened: "2026-11-23T03:12:04.123Z".to_owned(),
        to: Some("cpu".to_owned()),
        cause: "gpu-oom".to_owned(),
        evidence: Some("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.1 GiB".to_owned()),
        advice: Some("lower --gpu-memory-utilization or --max-model-len, or move what else uses the GPU away".to_owned()),
        run: Some(3),
        code: Some(1),
        action: Some("restart in 4 s".to_owned()),
        timeline: vec![
            line("03:12:04.123", "exit", "primary run 3 ended: gpu-oom (exit code 1)"),
            line("03:12:04.125", "failover", "primary -> cpu"),
        ],
        clients: Felt { moved: 3, cut: 1, ..Felt::default() },
        tiers: [("primary", "down, backoff", "restart in 4 s"), ("cpu", "serves", "answered in 9 ms")]
            .map(|(name, state, reason)| Standing {
                name: name.to_owned(),
                state: state.to_owned(),
                reason: reason.to_owned(),
            })
            .to_vec(),
        scene: Scene {
            at: Some("2026-11-23T03:12:04.200Z".to_owned()),
            last_lines: (1..=25).map(|n| format!("\u{1b}[31mERROR {n}\u{1b}[0m the engine says something that is much longer than the width of a mail, and stays whole")).collect(),
            memory_total: Some(64 << 30),
            memory_available: Some(3 << 30),
            load: Some(0.53),
            processes: vec![Process { pid: 4711, name: "VLLM::EngineCore".to_owned(), rss: 12 << 30 }],
            ..Scene::default()
        },
        mail: Mail { told: vec!["failover".to_owned()], ..Mail::default() },
        ..Record::default()
    }
}

fn over() -> Record {
    let mut record = record();
    record.closed = Some("2026-11-23T03:16:16.500Z".to_owned());
    record.lasted_s = Some(252.4);
    record.clients = Felt { moved: 5, cut: 1, weakened: 230, refused: 0 };
    record
}

fn subject(record: &Record, kind: PostKind) -> String {
    write("gpu1", &post(kind, &[17]), std::slice::from_ref(record)).subject
}

#[test]
fn a_failover_is_told_from_what_happened_to_where_to_look() {
    let text = write("gpu1", &post(PostKind::Alert, &[17]), &[record()]);
    assert_eq!(text.subject, "[ALERT] LLM failover: primary -> cpu (gpu1)");
    let logs: Vec<String> = (6..=25)
        .map(|n| format!("  \\x1b[31mERROR {n}\\x1b[0m the engine says something that is much longer than the width of a mail, and stays whole\n"))
        .collect();
    let expected = "\
primary failed, and cpu answers in its place.

From:      primary (vllm, meta-llama/Meta-Llama-3.1-8B-Instruct, run 3)
To:        cpu
When:      2026-11-23 03:12:04 UTC
Cause:     gpu-oom: GPU memory, at start or at run (exit code 1)
Evidence:  torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.1 GiB
Clients:   so far: 3 moved to another tier unseen, 1 cut in the middle of an
           answer
mainstay:  restart in 4 s
Action:    lower --gpu-memory-utilization or --max-model-len, or move what
           else uses the GPU away

The tiers, best first:
  primary: down, backoff, restart in 4 s
  cpu: serves, answered in 9 ms

The engine's last lines:
LOGS
The machine, 2026-11-23 03:12:04 UTC:
  3.0 GiB of 64.0 GiB memory available, load 0.5
  12.0 GiB for pid 4711, VLLM::EngineCore

What happened (UTC):
  03:12:04.123 exit      primary run 3 ended: gpu-oom (exit code 1)
  03:12:04.125 failover  primary -> cpu

To look further:
  mainstay incident 17
  mainstay status
  mainstay logs primary -n 200
  journalctl -t mainstay-primary
"
    .replace("LOGS\n", &(logs.concat() + "\n"));
    assert_eq!(text.body, expected);
}

#[test]
fn a_return_says_how_long_it_took_and_what_clients_felt() {
    let text = write("gpu1", &post(PostKind::Return, &[17]), &[over()]);
    assert_eq!(text.subject, "[OK] LLM return: cpu -> primary (gpu1)");
    let expected = "\
It is over: primary or a better tier answers again.

Lasted:    4 min 12 s
When:      2026-11-23 03:12:04 UTC to 2026-11-23 03:16:16 UTC
Worst:     failover of primary
Meanwhile: cpu answered
Clients:   5 moved to another tier unseen, 1 cut in the middle of an answer,
           230 answered weaker and marked so, 0 refused
Cause:     gpu-oom";
    assert!(text.body.starts_with(expected), "{}", text.body);
}

#[test]
fn subjects_are_those_of_the_help_page() {
    let page = include_str!("../../cli/help/alerts.md");
    let told = |kind: &str| {
        let mut record = record();
        record.mail.told = vec![kind.to_owned()];
        subject(&record, PostKind::Alert)
    };
    for subject in [
        told("failover"),
        told("held"),
        told("all-down"),
        subject(&record(), PostKind::Return),
        digest(&(1..=7).map(incident).collect::<Vec<_>>(), 0).subject,
    ] {
        assert!(page.contains(&subject), "{subject}");
    }
    // The news is what was told last, not the worst that was.
    let mut record = record();
    record.kind = "all-down".to_owned();
    assert_eq!(subject(&record, PostKind::Alert), "[ALERT] LLM failover: primary -> cpu (gpu1)");
    record.to = None;
    assert_eq!(subject(&record, PostKind::Return), "[OK] LLM return: primary (gpu1)");
}

#[test]
fn the_same_words_are_told_once() {
    let why = "2 requests open, no byte for 12 s, its counters stand still";
    let mut record = record();
    record.evidence = Some(why.to_owned());
    record.timeline = vec![line("03:12:04.123", "failover", &format!("primary -> cpu: {why}"))];
    record.tiers[0].reason = why.to_owned();
    (record.tiers[1].state, record.tiers[1].reason) = ("down, starting".into(), "starting".into());
    record.scene.last_lines = Vec::new();
    let body = write("gpu1", &post(PostKind::Alert, &[17]), &[record]).body;
    let flat = body.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(flat.matches("no byte for 12 s").count(), 1, "{body}");
    assert!(flat.contains("primary -> cpu: as above"), "{body}");
    assert!(body.contains("  cpu: down, starting\n"), "{body}");
}

#[test]
fn what_is_not_known_is_left_out_or_said() {
    let record = Record {
        id: 3,
        tier: "gpu2".to_owned(),
        engine: "remote".to_owned(),
        kind: "held".to_owned(),
        cause: "unknown".to_owned(),
        ..Record::default()
    };
    let body = write("h", &post(PostKind::Alert, &[3]), &[record]).body;
    for absent in ["Evidence", "The machine", "last lines:", "journalctl", "mainstay logs", "None"] {
        assert!(!body.contains(absent), "{absent}: {body}");
    }
    assert!(body.contains("Action:    nothing is known to do for this cause"), "{body}");
    assert!(body.contains("Clients:   so far: they noticed nothing"), "{body}");
    let lost = write("h", &post(PostKind::Alert, &[3]), &[]);
    assert!(lost.body.contains("Incident 3: its record could not be read"), "{}", lost.body);
}

#[test]
fn words_stay_within_the_width_and_no_line_holds_a_control_character() {
    let mut record = over();
    record.advice = Some("word ".repeat(200));
    record.action = Some("x\r\nBcc: everybody@example.org".to_owned());
    record.tier = "a\r\nBcc: x\u{202e}\u{200b}".to_owned();
    record.evidence = Some("\x1b]0;owned\x07\u{9b}\u{2066}\u{e0041}".to_owned());
    record.deterministic = Some(true);
    record.timeline =
        (0..50).map(|n| line("03:12:04.123", "health", &format!("{n} {}", "why ".repeat(40)))).collect();
    record.timeline_skipped = 100;
    for kind in [PostKind::Alert, PostKind::Return, PostKind::Digest] {
        let text = write("gpu1", &post(kind, &[17]), std::slice::from_ref(&record));
        assert!(!text.subject.contains(['\r', '\n']), "{:?}", text.subject);
        assert!(!text.body.chars().any(|c| c.is_control() && c != '\n'), "{kind:?}");
        let unseen = |c| "\u{202e}\u{200b}\u{2066}\u{e0041}".contains(c);
        assert!(!text.body.contains(unseen) && !text.subject.contains(unseen), "{kind:?}");
        assert!(text.subject.contains("\\u202e\\u200b"), "{}", text.subject);
        let raw = |line: &str| line.contains("ERROR") || line.starts_with("Evidence");
        let wide: Vec<&str> = text.body.lines().filter(|l| l.chars().count() > 76 && !raw(l)).collect();
        assert_eq!(wide, Vec::<&str>::new());
        assert!(
            kind == PostKind::Digest || text.body.contains("... 136 lines left out here"),
            "{}",
            text.body
        );
    }
}

fn incident(id: u64) -> Record {
    let mut record = over();
    record.id = id;
    record.opened = format!("2026-11-23T03:{:02}:{:02}.000Z", 12 + id / 60, id % 60);
    record.lasted_s = Some(10.0);
    record
}

fn digest(records: &[Record], more: u64) -> Text {
    let ids = records.iter().map(|record| record.id).collect();
    write("gpu1", &Post { kind: PostKind::Digest, ids, more }, records)
}

#[test]
fn a_digest_of_a_hundred_is_short_and_counts_right() {
    let mut records: Vec<Record> = (1..=98).map(incident).collect();
    records[97].closed = None;
    records[3].cause = "hang".to_owned();
    records[5].kind = "held".to_owned();
    for id in [99, 100] {
        records.push(Record {
            tier: "cpu".to_owned(),
            to: None,
            kind: "all-down".to_owned(),
            ..incident(id)
        });
    }
    // One has no record any more, and 30 were too many to name.
    let mut post = Post { kind: PostKind::Digest, ids: (1..=101).collect(), more: 30 };
    let text = write("gpu1", &post, &records);
    assert_eq!(text.subject, "[ALERT] LLM digest: 131 incidents since 03:12, no tier answered (gpu1)");
    let expected = "\
131 incidents since 2026-11-23 03:12:01 UTC, told in one mail because
at_most_every limits how many are sent.
1 of them not over yet.

cpu, 2 incidents:
  came to: all-down 2
  causes: gpu-oom 2
  99: 03:13:39 all-down, gpu-oom, over after 10 s
  100: 03:13:40 all-down, gpu-oom, over after 10 s

primary, 98 incidents:
  came to: failover 97, held 1
  causes: gpu-oom 97, hang 1
  1: 03:12:01 failover to cpu, gpu-oom, over after 10 s
  2: 03:12:02 failover to cpu, gpu-oom, over after 10 s
  3: 03:12:03 failover to cpu, gpu-oom, over after 10 s
  4: 03:12:04 failover to cpu, hang, over after 10 s
  ... 90 more between, 5 to 94
  95: 03:13:35 failover to cpu, gpu-oom, over after 10 s
  96: 03:13:36 failover to cpu, gpu-oom, over after 10 s
  97: 03:13:37 failover to cpu, gpu-oom, over after 10 s
  98: 03:13:38 failover to cpu, gpu-oom, not over

Not listed:
  31 more incidents without a name in this mail, of which 1 have no readable
    record any more

To look further:
  mainstay status
  mainstay incidents
  mainstay incident ID
";
    assert_eq!(text.body, expected);
    post.ids.truncate(1);
    post.more = 0;
    let one = write("gpu1", &post, &records[..1]);
    assert_eq!(one.subject, "[ALERT] LLM failover: primary -> cpu (gpu1)", "one is told whole");
    assert!(one.body.contains("Action") && one.body.contains("This mail had to wait"), "{}", one.body);
}

#[test]
fn durations_and_sizes_read_like_a_person_would_say_them() {
    for (seconds, expected) in [
        (0.0, "0.0 s"),
        (2.44, "2.4 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (252.4, "4 min 12 s"),
        (12_000.0, "3 h 20 min"),
        (183_600.0, "2 d 3 h"),
        (-1.0, "0.0 s"),
    ] {
        assert_eq!(duration(seconds), expected);
    }
    assert_eq!([bytes(2_048), bytes(5 << 20), bytes(3 << 29)], ["2 KiB", "5 MiB", "1.5 GiB"]);
}

/// The other tier went down too before the mail was written.
#[test]
fn a_failover_to_nobody_is_an_outage() {
    let gone = Record { to: None, kind: "failover".to_owned(), ..record() };
    let text = write("gpu1", &post(PostKind::Alert, &[17]), std::slice::from_ref(&gone));
    assert_eq!(text.subject, "[ALERT] LLM down: no tier answers (gpu1)");
    assert!(text.body.contains("No tier answers.") && text.body.contains("nobody"), "{}", text.body);
    assert!(!text.body.contains("in its place"), "{}", text.body);
}

#[test]
fn a_fallback_to_the_cpu_says_that_the_tier_answers() {
    let mut fallback = record();
    fallback.kind = "gpu".to_owned();
    fallback.cause = "cpu-fallback".to_owned();
    fallback.to = None;
    fallback.mail.told = vec!["gpu".to_owned()];
    let text = write("gpu1", &post(PostKind::Alert, &[17]), std::slice::from_ref(&fallback));
    assert_eq!(text.subject, "[ALERT] LLM on the CPU: primary (gpu1)");
    assert!(
        text.body.starts_with("primary was to use a GPU and runs on the CPU. It answers, but slowly.\n"),
        "{}",
        text.body
    );
    fallback.closed = Some("2026-11-23T03:16:16.500Z".to_owned());
    let text = write("gpu1", &post(PostKind::Return, &[17]), &[fallback]);
    assert!(text.body.starts_with("It is over: primary no longer runs on the CPU.\n"), "{}", text.body);
}

//! What engines print, on the agent's own output.
use super::rig::{Rig, tier};
use crate::support::until;
use mainstay::control::wire::ProcessState;
use std::fs;
use std::os::unix::fs::MetadataExt;

const QUICK: &str = "restart = { base = \"100ms\", max = \"200ms\" }\nstop_grace = \"1s\"";

/// Held after three runs: one that is ready for a moment counts otherwise.
const FAILS: &str = "\"exit_code\": 3, \"never_ready\": true";

fn start(agent: &str, env: &[(&str, &str)], knobs: &str) -> Rig {
    Rig::start_in(tempfile::tempdir().expect("a directory"), "", agent, &[tier("only", knobs, QUICK)], env)
}

#[test]
fn without_a_journal_engine_lines_are_on_stderr_behind_their_tiers_name() {
    let rig = start("", &[], &format!("{FAILS}, \"print_err\": [\"one\"], \"print\": [\"last words\"]"));
    rig.until_state("only", ProcessState::Held);
    until("each run's words are there", || {
        (rig.log().matches("only | last words\n").count() == 3).then_some(())
    });
    assert_eq!(rig.log().matches("only | one\n").count(), 3, "{}", rig.log());
}

#[test]
fn in_a_json_log_they_are_objects_too() {
    let rig = start("log_format = \"json\"", &[], r#""print": ["say \"hi\""]"#);
    rig.until_serving("only");
    until("the line is there", || {
        let log = rig.log();
        let lines = log
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("an object a line"));
        let said = lines.into_iter().find(|line| line["message"] == "say \"hi\"")?;
        assert_eq!(
            (said["tier"].as_str(), said["run"].as_u64(), said["stream"].as_str()),
            (Some("only"), Some(1), Some("stdout"))
        );
        said["timestamp"].as_str().map(str::to_owned)
    });
}

#[test]
fn they_can_be_left_out_and_are_under_the_journal() {
    let quiet = start("engine_log = false", &[], "\"print\": [\"one\"]");
    quiet.until_serving("only");
    let dir = tempfile::tempdir().expect("a directory");
    let log = fs::File::create(dir.path().join("agent.log")).and_then(|file| file.metadata()).expect("a log");
    let stream = format!("{}:{}", log.dev(), log.ino());
    let tiers = [tier("only", "\"print\": [\"one\"]", QUICK)];
    let journal = Rig::start_in(dir, "", "", &tiers, &[("JOURNAL_STREAM", &stream)]);
    journal.until_serving("only");
    let other = start("", &[("JOURNAL_STREAM", "1:2")], "\"print\": [\"one\"]");
    until("another's journal is none", || other.log().contains("only | one").then_some(()));
    for rig in [quiet, journal] {
        until("it says that it serves", || rig.log().contains("serving").then_some(()));
        assert!(!rig.log().contains("only |"), "{}", rig.log());
    }
}

/// A flood must neither fill the agent nor hide what it has to say itself. Seen to fail without the count in `Echo::take`.
#[test]
fn of_a_flood_a_bounded_part_is_passed_on_and_the_rest_counted() {
    let rig = start("", &[], "\"flood\": true");
    rig.until_serving("only");
    until("lines are said to be skipped", || {
        rig.log().contains("lines were skipped, see `mainstay logs only`").then_some(())
    });
    assert!(crate::support::process::rss_anon_kib(rig.pid()) < 12 * 1024);
    until("it says that it serves", || rig.log().contains("serving").then_some(()));
}

/// One line per change: tier, run, from, to, why.
/// The log, once these words are in it, in whole lines: status tells of a change before the log's thread has written it.
fn told(rig: &Rig, words: &str) -> String {
    until("the change is told", || Some(rig.log()).filter(|log| log.contains(words) && log.ends_with('\n')))
}

#[test]
fn each_change_of_state_is_one_line() {
    let text = start("", &[], FAILS);
    text.until_state("only", ProcessState::Held);
    let log = told(&text, "to=\"held\"");
    let line = log.lines().find(|line| line.contains("to=\"held\"")).expect("it was seen");
    for part in ["WARN held", "tier=\"only\"", "run=3", "from=\"", "why=\""] {
        assert!(line.contains(part), "{part} in {line}");
    }

    let json = start("log_format = \"json\"", &[], FAILS);
    json.until_state("only", ProcessState::Held);
    let log = told(&json, "\"to\":\"held\"");
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    let line = lines.iter().find(|line| line["to"] == "held").expect("it was seen");
    assert_eq!(
        (line["tier"].as_str(), line["run"].as_u64(), line["level"].as_str()),
        (Some("only"), Some(3), Some("WARN"))
    );
    assert!(line["from"].is_string() && line["why"].is_string() && line["timestamp"].is_string(), "{line}");
    let starts =
        |run: u64| lines.iter().filter(|line| line["run"] == run && line["to"] == "starting").count();
    assert_eq!((starts(1), starts(2), starts(3)), (1, 1, 1), "{log}");
}

//! Secrets, planted wherever one can be, and looked for wherever one could come out.
use super::rig::{Rig, tier};
use crate::support::haystack::Haystack;
use crate::support::{mainstay, until};
use mainstay::control::wire::ProcessState;
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const FILED: &str = "filed.4fT-secret value"; // in { file = ... }
const CREDITED: &str = "credited/9kQ+secret=="; // in { credential = ... }
const TYPED: &str = "tyPed9!w0rd"; // of a variable whose name tells
const INHERITED: &str = "inherited-Zz81-from-the-agent"; // the same, of the agent's own
const REMOTE: &str = "remote-key-77a1b2c3"; // another tier's
const ARGUED: &str = "argued-5511-by-flag"; // behind a flag
const UNKNOWN: &str = "hf_QwErTyUiOpAsDfGhJkLzXcVbNm012345"; // of nobody's configuration
const BORNE: &str = "bearer.of.9988.news"; // behind `Bearer`
const MAILED: &str = "mailed-0815 pass"; // the relay's
const IN_URL: &str = "p4ssw0rd-in-url"; // user:password@

const ALL: [&str; 10] = [FILED, CREDITED, TYPED, INHERITED, REMOTE, MAILED, ARGUED, UNKNOWN, BORNE, IN_URL];

/// Those that are blacked out wherever they stand; the others behind what announces them.
const KNOWN: [&str; 8] = [FILED, CREDITED, TYPED, INHERITED, REMOTE, MAILED, ARGUED, UNKNOWN];

/// Files of secrets, as an operator would keep them.
fn safe() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in [("filed", FILED), ("credited", CREDITED), ("remote", REMOTE), ("mailed", MAILED)] {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
    }
    dir
}

/// Two engines that say all that they know, the second with its last words, and a remote tier.
fn tiers(safe: &Path) -> Vec<String> {
    let said: Vec<String> = KNOWN.iter().map(|secret| format!("\"I know {secret}\"")).collect();
    let said = format!(
        r#""print_err": [{}, "asked with Authorization: Bearer {BORNE}", "{{\"token\": \"{FILED}\"}}", "GET http://me:{IN_URL}@hub/x?token={BORNE} failed"]"#,
        said.join(",")
    );
    let said_last = format!(r#"{said}, "print": ["error: invalid argument: --x={FILED}"], "exit_code": 1"#);
    let keys = format!(
        "args = [\"--hf-token\", \"{ARGUED}\"]\nrestart = {{ base = \"100ms\", max = \"200ms\" }}\n\
         env.HF_TOKEN = {{ file = \"{}\" }}\nenv.PLAIN = {{ credential = \"credited\" }}\nenv.DB_PASSWORD = \"{TYPED}\"",
        safe.join("filed").display()
    );
    let open =
        |tier: String| tier.replace("env = { FAKE_ENGINE", "env.FAKE_ENGINE").replace("}' }\n", "}'\n");
    let remote = safe.join("remote");
    vec![
        open(tier("first", &format!("{said}, \"confess\": true"), &keys)),
        open(tier("second", &said_last, &keys)),
        format!(
            "[[tier]]\nname = \"far\"\nengine = \"remote\"\nurl = \"http://127.0.0.1:9\"\napi_key = {{ file = \"{}\" }}\n",
            remote.display()
        ),
        // Nobody listens there: what is to be mailed stays in the outbox.
        "[alert.mail]\nrelay = \"smtp+starttls://127.0.0.1:9\"\nfrom = \"a@b.example\"\nto = [\"c@d.example\"]\n\
         username = \"u\"\npassword = { credential = \"mailed\" }\n"
            .to_owned(),
    ]
}

fn start(agent: &str, safe: &Path) -> Rig {
    let dir = tempfile::tempdir().expect("a directory");
    let credentials = safe.display().to_string();
    let env = [("CREDENTIALS_DIRECTORY", credentials.as_str()), ("UPSTREAM_API_KEY", INHERITED)];
    Rig::start_in(dir, "", agent, &tiers(safe), &env)
}

/// What the program prints about this agent.
fn printed(rig: &Rig, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(mainstay()).args(arguments).arg("--run-dir").arg(rig.run_dir()).output();
    let output = output.expect("the product runs");
    [output.stdout, output.stderr].concat()
}

/// Everything of ours that anybody could look at.
fn haystack(rig: &Rig) -> Haystack {
    let mut hay = Haystack::default();
    hay.add("the agent's log", rig.log());
    hay.add_files(&rig.run_dir());
    hay.add_files(&rig.state_dir());
    let (_, status) = rig.client().status().expect("the agent answers");
    hay.add("the status", status.to_string());
    for arguments in [
        &["logs", "first", "-n", "5000"][..],
        &["logs", "second", "-n", "5000"],
        &["status"],
        &["status", "--json"],
        &["events", "--json"],
        &["events"],
        &["incidents"],
        &["incident", "last"],
        &["incident", "last", "--json"],
    ] {
        hay.add(&arguments.join(" "), printed(rig, arguments));
    }
    let shim = rig.process("first").shim_pid.expect("it runs");
    hay.add_process("shim", shim);
    let cmdline = fs::read(format!("/proc/{}/cmdline", rig.pid())).expect("the agent lives");
    hay.add("cmdline of the agent", cmdline);
    hay
}

/// Incidents, events and a mail that waits are among what is searched. Seen to fail without each of these: the redactor of
/// `Sink`, that of the inbox; the spec's secrets; the forms.
fn a_planted_secret_is_found_nowhere(agent: &str) {
    let safe = safe();
    let rig = start(agent, safe.path());
    rig.until_serving("first");
    let held = rig.until_state("second", ProcessState::Held);
    // A wrong value is quoted in the problem, and the problem is shown.
    let wrong = fs::read_to_string(rig.config())
        .expect("the configuration")
        .replace("[agent]", &format!("[agent]\nlog = \"{TYPED}\""));
    fs::write(rig.config(), wrong).expect("a configuration");
    rig.signal(Signal::SIGHUP);
    let problem = until("the wrong file is told of", || rig.status().agent.config_problem);
    // An upstream that refuses what it is asked for is told of in the agent's log, in its own words.
    let refusal = format!(
        r#"{{\"error\": {{\"message\": \"model '{FILED}' not found\", \"type\": \"invalid_request_error\"}}}}"#
    );
    rig.turn("first", &format!(r#""status": 400, "error_body": "{refusal}""#));
    rig.chat();
    until("the refusal is logged", || rig.log().contains("refuses what it is asked for").then_some(()));
    // Only then has the log what the engines said.
    until("their output is passed on", || rig.log().contains("I was told").then_some(()));

    let outbox = rig.state_dir().join("outbox");
    until("a mail waits", || {
        let mut mails = Haystack::default();
        outbox.is_dir().then(|| mails.add_files(&outbox))?;
        mails.has("LLM held: second").then_some(())
    });

    let evidence = held.last_exit.and_then(|exit| exit.evidence).expect("a diagnosis");
    assert_eq!(evidence, "error: invalid argument: --x=[redacted]");
    assert!(problem.contains("[redacted]"), "{problem}");
    let hay = haystack(&rig);
    for needle in [
        "I know [redacted]",
        "HF_TOKEN=[redacted]",
        "http://[redacted]@hub/x?token=[redacted] failed",
        "PLAIN=[redacted]",
        "LLM held: second",
        "\"kind\":\"held\"",
    ] {
        assert!(hay.has(needle), "what was searched lacks {needle:?}:\n{}", rig.log());
    }
    let found = hay.finds(&ALL);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_planted_secret_is_found_nowhere_in_text() {
    a_planted_secret_is_found_nowhere("");
}

#[test]
fn a_planted_secret_is_found_nowhere_in_json() {
    a_planted_secret_is_found_nowhere("log_format = \"json\"");
}

/// A message about a wrong value may quote it. Seen to fail without the redactor in `cli/screen.rs`.
#[test]
fn check_shows_no_secret() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("c.toml");
    let remote =
        |name: &str, keys: &str| format!("[[tier]]\nname = \"{name}\"\nengine = \"remote\"\n{keys}\n");
    let text = [
        format!("[agent]\nrun_dir = \"/r\"\nstate_dir = \"/s\"\nlog = \"{UNKNOWN}\"\n"),
        format!(
            "[[tier]]\nname = \"a\"\nengine = \"vllm\"\nmodel = \"m\"\nargs = [\"--api-key={ARGUED}\"]\n"
        ),
        remote("b", &format!("url = \"ftp://me:{IN_URL}@host\"")),
        remote("c", &format!("url = \"me:{IN_URL}@host:80\"")),
        remote(
            "d",
            &format!("url = \"http://host\"\nhealth_path = \"x?token={BORNE}\"\napi_key = \"{REMOTE}\""),
        ),
    ];
    fs::write(&file, text.concat()).expect("a file");
    let output =
        Command::new(mainstay()).args(["check", "--config"]).arg(&file).output().expect("the product runs");
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.lines().count(), 6, "{said}");
    assert!(said.contains("has the flag --api-key; leave it out"), "our own words are shown: {said}");
    let mut hay = Haystack::default();
    hay.add("the problems", said.as_bytes());
    let found = hay.finds(&ALL);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

//! The race after a boot: what engines need comes later than the agent.
use super::rig::Rig;
use crate::support::{fake_engine, until};
use mainstay::clock;
use mainstay::control::wire::{Process, ProcessState};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

/// From the moment at which the cause is gone.
const READY_WITHIN: Duration = Duration::from_secs(15);
/// More starts in vain than any hold allows; so the pauses have grown, too.
const STARTS: u64 = 5;

/// A tier whose program is `command`, and what a start of it dies of.
struct Case {
    name: &'static str,
    engine: &'static str,
    command: String,
    keys: String,
    cause: &'static str,
}

impl Case {
    fn tier(&self) -> String {
        let Self { name, engine, command, keys, .. } = self;
        format!(
            "[[tier]]\nname = \"{name}\"\nengine = \"{engine}\"\nmodel = \"{name}-model\"\ngpus = []\n\
             command = [{command}]\nhealth = {{ interval = \"200ms\", timeout = \"1s\" }}\n{keys}\n"
        )
    }
}

/// A program that does `check` and becomes the engine when that has not ended it.
fn script(dir: &Path, name: &str, check: &str) -> String {
    let path = dir.join(name);
    let body = format!("#!/bin/sh\n{check}\nexec {} \"$@\"\n", fake_engine().display());
    fs::write(&path, body).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    format!("\"{}\"", path.display())
}

/// Ends with these words for as long as `file` is not there.
fn without(dir: &Path, file: &str, code: u8, words: &str) -> String {
    format!("[ -e {}/{file} ] || {{ echo '{words}' >&2; exit {code}; }}", dir.display())
}

/// No driver, no model, no name, a container's name in use, no program, and a port that this test holds.
fn cases(dir: &Path, port: u16) -> Vec<Case> {
    let case = |name, engine, command, cause| Case { name, engine, command, keys: String::new(), cause };
    let driver = "RuntimeError: Found no NVIDIA driver on your system.";
    let gguf = format!("gguf_init_from_file: failed to open GGUF file '{}/model'", dir.display());
    let name = "Could not resolve host: huggingface.co";
    let taken =
        "docker: Error response from daemon: Conflict. The container name \"/llm\" is already in use.";
    let docker = format!("{}\nshift 4", without(dir, "removed", 125, taken));
    let docker = script(dir, "docker", &docker) + ", \"run\", \"--name\", \"llm\", \"image\"";
    let holds_port = Case {
        keys: format!("port = {port}"),
        ..case("port", "llama-server", format!("\"{}\"", fake_engine().display()), "port-in-use")
    };
    vec![
        case("driver", "vllm", script(dir, "vllm", &without(dir, "driver", 1, driver)), "driver-missing"),
        case(
            "model",
            "llama-server",
            script(dir, "llama", &without(dir, "model", 1, &gguf)),
            "model-missing",
        ),
        case("name", "vllm", script(dir, "hub", &without(dir, "name", 1, name)), "network"),
        case("container", "vllm", docker, "port-in-use"),
        case("mount", "llama-server", format!("\"{}/mount/engine\"", dir.display()), "broken-install"),
        holds_port,
    ]
}

fn is_waiting(case: &Case, process: &Process) -> bool {
    assert_ne!(process.state, ProcessState::Held, "{}: {process:?}", case.name);
    assert_eq!(process.strikes, 0, "{}: {process:?}", case.name);
    process.run >= Some(STARTS) && process.state == ProcessState::Backoff
}

#[test]
fn what_comes_late_after_a_boot_is_waited_for_and_a_wrong_flag_is_held() {
    let dir = tempfile::tempdir().expect("a directory");
    let base = dir.path().to_owned();
    let held_port = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let cases = cases(&base, held_port.local_addr().expect("its address").port());
    let flag = Case {
        name: "flag",
        engine: "llama-server",
        command: format!("\"{}\"", fake_engine().display()),
        keys: "args = [\"--no-such-flag\"]".to_owned(),
        cause: "bad-argument",
    };
    let tiers: Vec<String> = cases.iter().chain([&flag]).map(Case::tier).collect();
    let rig = Rig::start_in(dir, "", "", &tiers, &[]);
    for case in &cases {
        let seen = rig.until_process("it was tried again and again", case.name, |process| {
            is_waiting(case, process).then(|| process.clone())
        });
        let exit = seen.last_exit.expect("it ended");
        assert_eq!(exit.cause, case.cause, "{}: {exit:?}", case.name);
        let reason = rig.tier(case.name).reason;
        assert!(reason.contains("no strike") || reason == "starting", "{}: {reason}", case.name);
    }
    let held = rig.process("flag");
    assert_eq!((held.state, held.run, held.strikes), (ProcessState::Held, Some(2), 2), "{held:?}");

    for file in ["driver", "model", "name", "removed"] {
        fs::write(base.join(file), "").expect("a file");
    }
    fs::create_dir(base.join("mount")).expect("a directory");
    symlink(fake_engine(), base.join("mount/engine")).expect("a link");
    drop(held_port);
    let gone = clock::now();
    for case in &cases {
        rig.until_state(case.name, ProcessState::Ready);
        let took = clock::now().since(gone);
        assert!(took <= READY_WITHIN, "{} was ready only after {took:?}", case.name);
    }
    until("the best tier serves", || (rig.status().serving.as_deref() == Some("driver")).then_some(()));
    assert_eq!(rig.process("flag").state, ProcessState::Held);
}

//! The unit as shipped, and what goes over the notification socket.
use mainstay::cli::exit::Exit;
use mainstay::heart::Heart;
use mainstay::systemd::{Notifier, Watchdog};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const UNIT: &str = include_str!("../../units/mainstay.service");
/// Keys that systemd before 254 does not know, and says so.
const LATER_THAN_252: &[&str] = &["RestartSteps", "RestartMaxDelaySec"];

/// `Section.Key` → value. A key that is set twice is a mistake in this unit.
fn settings() -> BTreeMap<String, String> {
    let mut section = String::new();
    let mut settings = BTreeMap::new();
    for line in UNIT.lines() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("neither key nor section: {line}"));
        let before = settings.insert(format!("{section}.{key}"), value.to_owned());
        assert_eq!(before, None, "{line} is there twice");
    }
    settings
}

#[test]
fn the_unit_says_what_the_design_decided_and_nothing_else() {
    let expected = [
        ("Unit.After", "network-online.target nss-lookup.target"),
        ("Unit.Description", "mainstay: keeps an LLM API answering (vLLM, Ollama, llama-server)"),
        ("Unit.StartLimitIntervalSec", "0"),
        ("Unit.Wants", "network-online.target"),
        ("Service.AmbientCapabilities", "CAP_SYSLOG"),
        ("Service.Delegate", "yes"),
        ("Service.ExecStart", "/usr/bin/mainstay run --config /etc/mainstay/mainstay.toml"),
        ("Service.KillMode", "mixed"),
        ("Service.KillSignal", "SIGTERM"),
        ("Service.LimitMEMLOCK", "infinity"),
        ("Service.LimitNOFILE", "524288"),
        ("Service.Nice", "-5"),
        ("Service.NoNewPrivileges", "yes"),
        ("Service.NotifyAccess", "main"),
        ("Service.OOMPolicy", "continue"),
        ("Service.OOMScoreAdjust", "-900"),
        ("Service.Restart", "always"),
        ("Service.RestartMaxDelaySec", "10s"),
        ("Service.RestartPreventExitStatus", "78"),
        ("Service.RestartSec", "100ms"),
        ("Service.RestartSteps", "6"),
        ("Service.RuntimeDirectory", "mainstay"),
        ("Service.RuntimeDirectoryMode", "0750"),
        ("Service.RuntimeDirectoryPreserve", "yes"),
        ("Service.StateDirectory", "mainstay"),
        ("Service.StateDirectoryMode", "0750"),
        ("Service.SupplementaryGroups", "video render"),
        ("Service.TasksMax", "infinity"),
        ("Service.TimeoutStopSec", "120"),
        ("Service.Type", "notify"),
        ("Service.UMask", "0027"),
        ("Service.User", "mainstay"),
        ("Service.WatchdogSec", "30"),
        ("Install.WantedBy", "multi-user.target"),
    ];
    let expected: BTreeMap<String, String> =
        expected.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let settings = settings();
    let keys = |of: &BTreeMap<String, String>| of.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(keys(&settings), keys(&expected));
    for (key, value) in &expected {
        assert_eq!(settings.get(key), Some(value), "{key}");
    }
}

#[test]
fn nothing_in_the_unit_deletes_files_from_under_engines_or_breaks_them() {
    for key in ["PrivateTmp", "DynamicUser", "RemoveIPC", "MemoryDenyWriteExecute", "ProtectHome"] {
        assert!(!settings().contains_key(&format!("Service.{key}")), "{key}");
    }
}

#[test]
fn the_exit_status_that_is_not_restarted_is_that_of_a_wrong_configuration() {
    let prevented = settings().get("Service.RestartPreventExitStatus").cloned();
    assert_eq!(prevented, Some((Exit::Misconfigured as u8).to_string()));
}

/// What `check` compares a stop with is what the unit says.
#[test]
fn check_tells_of_a_stop_that_does_not_fit_into_the_units_time() {
    let unit = settings().get("Service.TimeoutStopSec").cloned().expect("it is set");
    let allowed: u64 = unit.parse().expect("a number of seconds");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("mainstay.toml");
    let warned = |drain: u64, grace: u64| {
        let head = format!("[server]\ndrain = '{drain}s'\n[agent]\nrun_dir = '/r'\nstate_dir = '/s'\n");
        let tier = format!(
            "[[tier]]\nname = 'slow'\nengine = 'llama-server'\nmodel = 'm'\ncommand = ['/bin/sh']\nstop_grace = '{grace}s'\n"
        );
        std::fs::write(&file, head + &tier).expect("a configuration");
        let check =
            Command::new(env!("CARGO_BIN_EXE_mainstay")).args(["check", "--config"]).arg(&file).output();
        let check = check.expect("it runs");
        assert!(check.status.success(), "a warning is no problem");
        String::from_utf8_lossy(&check.stdout).lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(warned(allowed - 60, 50), [""; 0]);
    let told = warned(allowed - 60, 51);
    assert_eq!(told.len(), 1, "{told:?}");
    let [sum, drain, needs] = [allowed - 9, allowed - 60, allowed + 1];
    let numbers = format!(
        "a stop may take {sum} s (server.drain = {drain} s, then stop_grace = 51 s of tier \"slow\")"
    );
    assert!(told[0].contains(&numbers), "{told:?}");
    assert!(
        told[0].contains(&format!("allows TimeoutStopSec={allowed}: write TimeoutStopSec={needs} into")),
        "{told:?}"
    );
}

#[test]
fn systemd_itself_accepts_the_unit() {
    let dir = tempfile::tempdir().expect("a directory");
    let unit = dir.path().join("mainstay.service");
    // The program is not installed where tests run, and its absence is a complaint of its own.
    let text = UNIT.replace("/usr/bin/mainstay", env!("CARGO_BIN_EXE_mainstay"));
    std::fs::write(&unit, text).expect("a copy of the unit");
    let output = match Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output() {
        Ok(output) => output,
        Err(missing) => {
            eprintln!("skipped, the unit was only parsed: systemd-analyze: {missing}");
            return;
        }
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let ours = |line: &&str| line.contains("mainstay.service");
    let known = |line: &str| LATER_THAN_252.iter().any(|key| line.contains(&format!("'{key}'")));
    let complaints: Vec<&str> = said.lines().filter(ours).filter(|line| !known(line)).collect();
    assert_eq!(complaints, Vec::<&str>::new());
    assert!(output.status.success(), "{said}");
}

/// The next datagram, waiting at most 30 s for it.
fn heard(socket: &UnixDatagram) -> String {
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
    let mut text = [0; 512];
    let length = socket.recv(&mut text).expect("a datagram comes");
    String::from_utf8_lossy(&text[..length]).into_owned()
}

#[test]
fn the_watchdog_pings_again_and_again_while_hearts_beat() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let variable = OsString::from(&path);
    let notifier = Notifier::from_env(|name| (name == "NOTIFY_SOCKET").then(|| variable.clone()));
    let hearts: Vec<Arc<Heart>> = vec![Heart::new("policy"), Heart::new("control")];
    Watchdog::new(Duration::from_millis(400), notifier, hearts).start().expect("a thread");
    for _ in 0..3 {
        assert_eq!(heard(&socket), "WATCHDOG=1\n");
    }
}

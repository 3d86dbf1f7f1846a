//! The built program, as a shell would use it: what it prints, where, and with which exit status.
use crate::control::Agent;
use crate::support::until;
use mainstay::shim::ring::{Stream, Writer};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use tempfile::TempDir;

const MAINSTAY: &str = env!("CARGO_BIN_EXE_mainstay");
/// The account `nobody`.
const NOBODY: u32 = 65_534;

/// The program with nothing in its environment that says where an agent is.
fn mainstay(arguments: &[&str]) -> Command {
    program(MAINSTAY.as_ref(), arguments)
}

fn program(path: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(path);
    command.args(arguments).stdin(Stdio::null());
    for name in ["MAINSTAY_RUN_DIR", "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"] {
        command.env_remove(name);
    }
    command
}

/// Exit status, standard output, standard error.
fn run(mut command: Command) -> (i32, String, String) {
    let output = command.output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

fn in_dir(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = mainstay(arguments);
    command.env("MAINSTAY_RUN_DIR", dir);
    run(command)
}

/// A program that goes on until it is dropped, and its lines.
struct Running {
    child: Child,
    lines: Option<BufReader<ChildStdout>>,
}

impl Running {
    fn new(dir: &Path, arguments: &[&str]) -> Self {
        let mut command = mainstay(arguments);
        let mut child =
            command.arg("--run-dir").arg(dir).stdout(Stdio::piped()).spawn().expect("the program starts");
        let lines = child.stdout.take().map(BufReader::new);
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.as_mut().expect("it is still read").read_line(&mut line).expect("a line of text");
        line
    }

    /// Stops reading, and waits for the program's end.
    fn leave(&mut self) -> ExitStatus {
        drop(self.lines.take());
        until("the program has ended", || self.child.try_wait().expect("it is our child"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_wrong_command_line_is_status_2_and_asking_for_help_is_none() {
    for wrong in [
        vec![],
        vec!["fly"],
        vec!["run"],
        vec!["check"],
        vec!["status", "--yaml"],
        vec!["logs"],
        vec!["logs", "x", "-n", "many"],
        vec!["restart"],
        vec!["stop", "a", "b"],
        vec!["help", "falover"],
    ] {
        let (status, out, err) = run(mainstay(&wrong));
        assert_eq!((status, out.as_str()), (2, ""), "{wrong:?}: {err}");
        assert!(!err.is_empty(), "{wrong:?} is told why");
    }
    for (asked, part) in [
        (vec!["--help"], "Commands:"),
        (vec!["--version"], env!("CARGO_PKG_VERSION")),
        (vec!["help"], "failover"),
        (vec!["help", "failover"], "commit point"),
        (vec!["help", "clients"], "x-mainstay-tier"),
        (vec!["help", "status"], "--watch"),
    ] {
        let (status, out, err) = run(mainstay(&asked));
        assert_eq!((status, err.as_str()), (0, ""), "{asked:?}");
        assert!(out.contains(part), "{asked:?}: {out}");
    }
    let (_, _, err) = run(mainstay(&["help", "falover"]));
    assert!(err.contains(r#"did you mean "failover""#), "{err}");
}

#[test]
fn the_exit_status_of_status_says_who_serves() {
    for (serving, expected, headline) in [
        (Some("best"), 0, "best serves\n"),
        (Some("next"), 1, "next serves in place of best\n"),
        (None, 3, "no tier can answer\n"),
    ] {
        let agent = Agent::new(serving);
        let (status, out, err) = in_dir(agent.run_dir(), &["status"]);
        assert_eq!((status, err.as_str()), (expected, ""));
        assert!(out.contains(headline), "{out}");
        assert!(!out.contains('\x1b'), "no colour where there is no terminal: {out}");
        let (status, out, _) = in_dir(agent.run_dir(), &["status", "--json"]);
        assert_eq!(status, expected);
        let value: serde_json::Value = serde_json::from_str(&out).expect("JSON, and nothing else");
        assert_eq!(value["serving"].as_str(), serving);
        assert_eq!(value["schema"], 1);
    }
}

#[test]
fn the_runtime_directory_is_found_by_flag_before_variable() {
    let agent = Agent::new(Some("best"));
    let nobody = tempfile::tempdir().expect("a directory");
    let flag = agent.run_dir().display().to_string();
    let (status, _, err) = in_dir(nobody.path(), &["status", "--run-dir", &flag]);
    assert_eq!(status, 0, "{err}");
    let mut of_user = mainstay(&["status"]);
    of_user.env("RUNTIME_DIRECTORY", agent.run_dir());
    assert_eq!(run(of_user).0, 0);
}

#[test]
fn without_an_agent_everything_says_where_it_looked_and_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().display().to_string();
    for asked in [
        vec!["status"],
        vec!["status", "--json"],
        vec!["restart", "best"],
        vec!["start", "best"],
        vec!["stop", "best"],
    ] {
        let (status, out, err) = in_dir(dir.path(), &asked);
        assert_eq!((status, out.as_str()), (69, ""), "{asked:?}: {err}");
        assert!(err.contains(&place) && err.contains("--run-dir"), "{asked:?}: {err}");
    }
}

#[test]
fn commands_are_given_and_refusals_are_passed_on() {
    let agent = Agent::new(Some("best"));
    for (word, said) in
        [("restart", "restarting best\n"), ("start", "starting best\n"), ("stop", "stopping best\n")]
    {
        assert_eq!(in_dir(agent.run_dir(), &[word, "best"]), (0, said.to_owned(), String::new()));
    }
    let (status, _, err) = in_dir(agent.run_dir(), &["start", "next"]);
    assert_eq!((status, err.as_str()), (1, "mainstay: \"next\" is remote\n"));
    let (status, _, err) = in_dir(agent.run_dir(), &["stop", "worst"]);
    assert_eq!((status, err.as_str()), (1, "mainstay: there is no tier \"worst\"; there is: best, next\n"));
}

#[test]
fn rights_that_do_not_suffice_are_status_77() {
    let agent = Agent::new(Some("best"));
    // Files' rights mean nothing to root: then the program runs as somebody else, from where that account can read it.
    let root = rustix::process::geteuid().is_root();
    let copy = agent.run_dir().join("program");
    fs::copy(MAINSTAY, &copy).expect("a copy of the program");
    let open = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("rights can be set");
    };
    open(agent.run_dir(), 0o755);
    open(&copy, 0o755);
    let ask = |arguments: &[&str]| {
        let mut command = program(&copy, arguments);
        command.env("MAINSTAY_RUN_DIR", agent.run_dir());
        if root {
            command.uid(NOBODY).gid(NOBODY);
        }
        run(command)
    };
    if !root {
        open(&agent.run_dir().join("control.sock"), 0o000);
    }
    let (status, _, err) = ask(&["restart", "best"]);
    assert_eq!(status, 77, "{err}");
    assert!(err.contains("control.sock") && err.contains("root"), "{err}");
    let runs = agent.run_dir().join("runs");
    fs::create_dir(&runs).expect("a directory");
    open(&runs, 0o000);
    let (status, _, err) = ask(&["logs", "best"]);
    assert_eq!(status, 77, "{err}");
}

/// A run's log with these lines; the writer can go on.
fn log(dir: &Path, run: &str, lines: &[&str]) -> Writer {
    let place: PathBuf = dir.join("runs").join(run);
    fs::create_dir_all(&place).expect("a directory");
    let mut writer = Writer::create(&place.join("log")).expect("a log");
    add(&mut writer, lines);
    writer
}

fn add(writer: &mut Writer, lines: &[&str]) {
    for line in lines {
        writer.push(1250, Stream::Err, line.as_bytes());
    }
    writer.flush();
}

fn logs() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    log(dir.path(), "cpu-9", &["of run 9"]);
    log(dir.path(), "cpu-10", &["one", "two", "three"]);
    log(dir.path(), "cpu-2-11", &["of another tier"]);
    fs::create_dir_all(dir.path().join("runs/cpu-12")).expect("a run that has no log yet");
    dir
}

#[test]
fn logs_reach_back_over_restarts_and_end_with_the_newest_line() {
    let dir = logs();
    let time = "1970-01-01T00:00:01.250Z";
    let (status, out, _) = in_dir(dir.path(), &["logs", "cpu"]);
    let newest = format!("{time} one\n{time} two\n{time} three\n");
    assert_eq!((status, out), (0, format!("-- run 9 --\n{time} of run 9\n-- run 10 --\n{newest}")));
    let (_, out, _) = in_dir(dir.path(), &["logs", "cpu", "-n", "2"]);
    assert_eq!(out, format!("{time} two\n{time} three\n"));
    let (_, out, _) = in_dir(dir.path(), &["logs", "cpu-2", "-n", "9"]);
    assert_eq!(out, format!("{time} of another tier\n"));
    let (status, out, err) = in_dir(dir.path(), &["logs", "gpu"]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(err.contains("\"gpu\""), "{err}");
}

/// Seen to fail without `part`: a run's own note of it is the first thing that a flood overwrites.
#[test]
fn logs_say_what_a_run_has_dropped_and_overwritten() {
    let dir = logs();
    let mut writer = log(dir.path(), "cpu-13", &["first"]);
    writer.count_dropped(7);
    add(&mut writer, &["last"]);
    let (_, out, _) = in_dir(dir.path(), &["logs", "cpu", "-n", "1"]);
    let (note, last) = out.split_once('\n').expect("two lines");
    assert!(note.starts_with("-- lines of this run that were dropped") && note.ends_with(": 7 --"), "{out}");
    assert!(last.ends_with(" last\n") && !out.contains("first"), "{out}");

    add(&mut writer, &vec![["x"; 1000].concat().as_str(); 2000]);
    let (_, out, _) = in_dir(dir.path(), &["logs", "cpu", "-n", "100"]);
    assert!(!out.contains("overwritten") && out.lines().count() == 101, "{out}");
    let (_, out, _) = in_dir(dir.path(), &["logs", "cpu", "-n", "1500"]);
    let notes: Vec<&str> = out.lines().filter(|line| line.starts_with("-- ")).collect();
    assert!(notes.iter().any(|note| note.contains("older lines of this run were overwritten")), "{notes:?}");
}

#[test]
fn following_a_log_goes_on_into_the_next_run() {
    let dir = logs();
    let mut follower = Running::new(dir.path(), &["logs", "cpu", "-f", "-n", "1"]);
    assert!(follower.line().ends_with(" three\n"));
    let mut next = log(dir.path(), "cpu-12", &["first of run 12"]);
    assert_eq!(follower.line(), "-- run 12 --\n");
    assert!(follower.line().ends_with(" first of run 12\n"));
    add(&mut next, &["second"]);
    assert!(follower.line().ends_with(" second\n"));
}

#[test]
fn following_ends_when_its_reader_goes_though_nothing_more_is_written() {
    let dir = logs();
    let mut follower = Running::new(dir.path(), &["logs", "cpu", "-f", "-n", "1"]);
    assert!(follower.line().ends_with(" three\n"));
    assert!(follower.leave().success(), "a reader that goes is no failure");
}

#[test]
fn watching_goes_on_until_the_reader_goes() {
    let agent = Agent::new(Some("next"));
    let mut watcher = Running::new(agent.run_dir(), &["status", "--json", "--watch"]);
    for _ in 0..2 {
        let value: serde_json::Value = serde_json::from_str(&watcher.line()).expect("one status a line");
        assert_eq!(value["serving"], "next");
    }
    assert!(watcher.leave().success(), "a reader that goes is no failure");
}

#[test]
fn check_prints_every_problem_with_its_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("mainstay.toml");
    let name = file.display().to_string();
    let check = || run(mainstay(&["check", "--config", &name]));
    let (status, out, err) = check();
    assert_eq!((status, out.as_str()), (66, ""));
    assert!(err.contains(&name), "{err}");
    let good = "[[tier]]\nname = \"cpu\"\nengine = \"llama-server\"\nmodel = \"/m.gguf\"\n";
    let write = |text: &str| fs::write(&file, text).expect("a file");
    let places = format!("[agent]\nrun_dir = {:?}\nstate_dir = {:?}\n", dir.path(), dir.path());
    write(&format!("{places}{good}"));
    let (status, out, err) = check();
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(out.contains("cpu"), "{out}");
    write(&format!("{places}{good}colour = \"blue\"\nport = \"high\"\n"));
    let (status, out, err) = check();
    assert_eq!((status, out.as_str()), (78, ""));
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(lines.len(), 2, "{err}");
    assert!(
        lines[0].starts_with(&format!("{name}:8:")) && lines[1].starts_with(&format!("{name}:9:")),
        "{err}"
    );
}

#[test]
fn a_wrong_word_is_answered_with_what_would_be_right() {
    let (status, _, err) = run(mainstay(&["help", "nosuch"]));
    assert_eq!((status, err.matches("gpus").count()), (2, 1), "{err}");
    let (status, _, err) = run(mainstay(&["logs", "a", "-n", "x"]));
    assert!(status == 2 && err.contains("write a whole number, such as 100"), "{err}");
}

/// The file may be for another host: what is not here is told, and is no problem.
#[test]
fn check_warns_of_what_this_host_lacks() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("mainstay.toml");
    let check = |keys: &str| {
        let dirs = format!("[agent]\nrun_dir = {:?}\nstate_dir = {:?}\n", dir.path(), dir.path());
        let tier = "[[tier]]\nname = 'cpu'\nengine = 'llama-server'\n";
        fs::write(&file, format!("{dirs}{tier}{keys}\n")).expect("a configuration");
        let (status, out, err) = run(mainstay(&["check", "--config", &file.display().to_string()]));
        assert_eq!((status, err.as_str()), (0, ""));
        out.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(check("command = ['/bin/sh']\nmodel = '/bin/sh'\ndir = '/'"), [""; 0]);
    assert_eq!(
        check("command = ['/nonexist/llama']\nmodel = '/nonexist/tiny.gguf'\ndir = '/nonexist'"),
        [
            r#"warning: tier "cpu": the program "/nonexist/llama" of `command` is not on this host"#,
            r#"warning: tier "cpu": the directory "/nonexist" of `dir` is not on this host"#,
            r#"warning: tier "cpu": "/nonexist/tiny.gguf" of `model` is not on this host"#,
        ]
    );
    assert_eq!(
        check("command = ['nosuch']\nmodel = 'm'"),
        [r#"warning: tier "cpu": the program "nosuch" is not in PATH here: install it, or set `command`"#]
    );
}

/// `mainstay alert test` where nothing can be sent; with relays, see tests/clients/mail.py.
#[test]
fn alert_test_says_what_is_missing() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("c.toml");
    let name = file.display().to_string();
    let with = |text: &str| {
        let dirs = format!("[agent]\nrun_dir = '{0}/run'\nstate_dir = '{0}/state'\n", dir.path().display());
        let tier = "[[tier]]\nname = 'a'\nengine = 'vllm'\nmodel = 'm'\n";
        fs::write(&file, format!("{dirs}{tier}{text}")).expect("a configuration");
        run(mainstay(&["alert", "test", "--config", &name]))
    };
    let (status, out, err) = with("");
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(
        err.starts_with(&format!("mainstay: {name}: no mail is configured; write, for example:")),
        "{err}"
    );
    // The example is one.
    let example: Vec<&str> = err.lines().skip(1).map(str::trim).collect();
    assert_eq!(run(mainstay(&["check", "--config", &name])).0, 0);
    // Whom a password goes to is not seen in the file.
    let password = dir.path().join("password");
    fs::write(&password, "hunter2").expect("a file");
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).expect("rights can be set");
    let login = format!("\nusername = 'me'\npassword = {{ file = {password:?} }}\n");
    let local = |relay: &str| example.join("\n").replace("smtp://mail.internal:25", relay) + &login;
    with(&local("smtp://127.0.0.1:9"));
    let (status, out, _) = run(mainstay(&["check", "--config", &name]));
    assert!(status == 0 && out.contains("write ca = ") && out.contains("smtp+starttls://"), "{out}");
    with(&local("smtps://127.0.0.1:9"));
    let (_, out, _) = run(mainstay(&["check", "--config", &name]));
    assert!(!out.contains("write ca = "), "{out}");
    let (status, _, err) = with(&example.join("\n").replace("smtp://mail.internal:25", "mail.internal"));
    assert_eq!(status, 78, "{err}");
    assert!(err.contains("which has no smtp:// in front"), "{err}");
    let (status, _, err) = run(mainstay(&["alert", "test", "--config", "/no/such/file"]));
    assert_eq!(status, 66, "{err}");
    assert!(err.contains("name the configuration with --config FILE"), "{err}");
}

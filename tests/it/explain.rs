//! `mainstay explain` as a shell uses it: where the log comes from, what is printed, and the exit status.
use std::io::Write;
use std::process::{Command, Stdio};

/// Runs it with this standard input: exit status, standard output, standard error.
fn explain(arguments: &[&str], log: &[u8]) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .arg("explain")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // One that refuses its command line does not read.
    let _ = child.stdin.take().expect("a pipe").write_all(log);
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn json(arguments: &[&str], log: &[u8]) -> serde_json::Value {
    let (status, out, complaint) = explain(&[&["--json"], arguments].concat(), log);
    assert_eq!(status, Some(0), "{complaint}");
    serde_json::from_str(&out).expect("one JSON object")
}

const OOM: &[u8] =
    b"INFO 11-22 [x.py:1] fine\n\xff\xfe\n\nLoading:  50%|#####     |\rLoading: 100%|##########|\n\
    Nov 23 03:00:00 gpu1 mainstay-primary[123]: \x1b[31mtorch.OutOfMemoryError: CUDA out of memory.\x1b[0m\n";

#[test]
fn the_answer_is_what_the_contract_says() {
    let said = json(&[], OOM);
    let keys: Vec<&str> = said.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["cause", "evidence", "line", "deterministic", "action", "advice", "engine"]);
    assert_eq!(said["cause"], "gpu-oom");
    assert_eq!(said["line"], 5);
    let evidence = "Nov 23 03:00:00 gpu1 mainstay-primary[123]: torch.OutOfMemoryError: CUDA out of memory.";
    assert_eq!(said["evidence"], evidence);
    assert_eq!(said["engine"], serde_json::Value::Null, "nothing in these lines tells");
}

#[test]
fn a_log_is_read_from_a_file_or_the_standard_input() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs_write(&file, OOM);
    let path = file.path().to_str().expect("a path");
    assert_eq!(json(&[path], b""), json(&["-"], OOM));
    assert_eq!(json(&[], OOM), json(&["-"], OOM));
}

fn fs_write(file: &tempfile::NamedTempFile, bytes: &[u8]) {
    std::fs::write(file.path(), bytes).expect("a file that can be written");
}

#[test]
fn text_fits_eighty_columns_and_names_everything() {
    let (status, text, _) = explain(&["--exit", "137"], OOM);
    assert_eq!(status, Some(0));
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    for part in
        ["gpu-oom: GPU memory", "line 5:", "mainstay does", "what to do", "next time", "SIGKILL (128 + 9)"]
    {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn an_exit_is_taken_in_every_form() {
    for exit in ["SIGKILL", "kill", "-9", "137"] {
        assert_eq!(json(&["--exit", exit], b"fine\n")["cause"], "killed-from-outside", "{exit}");
    }
    assert_eq!(json(&["--exit", "0"], b"fine\n")["cause"], "none");
    assert_eq!(json(&["--exit", "1"], b"fine\n")["cause"], "unknown");
    assert_eq!(json(&["--exit", "2", "--engine", "vllm"], b"")["cause"], "bad-argument");
}

#[test]
fn what_is_wrong_has_its_exit_status() {
    assert_eq!(explain(&["/nowhere/engine.log"], b"").0, Some(66));
    assert_eq!(explain(&["/"], b"").0, Some(66), "a directory");
    for wrong in [["--exit", "256"], ["--exit", "SIGNOPE"], ["--exit", ""], ["--engine", "tgi"]] {
        let (status, _, complaint) = explain(&wrong, b"");
        assert_eq!(status, Some(2), "{wrong:?}");
        assert!(complaint.contains("it is "), "what would be right: {complaint}");
    }
}

#[test]
fn of_a_huge_log_the_end_counts_and_the_line_number_is_true() {
    let mut log = b"ModuleNotFoundError: No module named 'long ago'\n".to_vec();
    log.extend(b"INFO 11-22 [x.py:1] fine\n".repeat(100_000));
    log.extend_from_slice(b"OSError: [Errno 98] Address already in use\n");
    let said = json(&["--exit", "1"], &log);
    assert_eq!((&said["cause"], &said["line"]), (&"port-in-use".into(), &100_002.into()));
}

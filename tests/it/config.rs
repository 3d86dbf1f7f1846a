//! The configuration as an operator meets it: files in, a checked configuration or lines to act on out.
use mainstay::config::{self, Config, Environment, Refusal};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const REFERENCE: &str = include_str!("../../config/mainstay.toml");

/// As under systemd.
fn unit() -> Environment {
    Environment {
        runtime_directory: Some(PathBuf::from("/run/mainstay")),
        state_directory: Some(PathBuf::from("/var/lib/mainstay")),
        ..Environment::empty()
    }
}

fn parse(text: &str, environment: &Environment) -> Result<Config, String> {
    config::parse("mainstay.toml", text, environment).map_err(|problems| Refusal::Wrong(problems).to_string())
}

fn fixture(name: &str) -> Result<Config, Refusal> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config").join(name);
    config::read(&path, &unit())
}

/// What is said about a fixture, without the directory that this checkout happens to be in.
fn said(name: &str) -> String {
    let refusal = fixture(name).expect_err("the fixture is wrong");
    assert_eq!(refusal.exit_code(), 78);
    refusal.to_string().replace(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/config/"), "")
}

#[test]
fn eight_independent_errors_are_eight_lines_in_file_order() {
    let expected = r#"
eight-errors.toml:3:11: `listen` has "localhost:8000", a name, and only numeric addresses are listened on; write ADDRESS:PORT, such as "127.0.0.1:8000", "0.0.0.0:8000" or "[::1]:8000"
eight-errors.toml:4:1: unknown key `drian` in [server]; did you mean `drain`?
eight-errors.toml:5:12: `max_body` is "32MB", which is no size; write a whole number and KiB, MiB or GiB in quotes, such as "64KiB", "32MiB" or "8GiB"
eight-errors.toml:8:7: `log` is "verbose", which is none of the choices; write "error", "warn", "info" or "debug"
eight-errors.toml:14:8: `nice` is 30, which is out of range; write a whole number from -20 to 19
eight-errors.toml:15:40: `timeout` is an integer; write a whole number and ms, s, m or h in quotes, such as "250ms", "10s", "5m" or "2h"
eight-errors.toml:17:1: [[tier]] has no `url`; write url = "http://HOST:PORT"
eight-errors.toml:22:8: a tier above is named "primary" already; give each tier a name of its own
"#;
    assert_eq!(said("eight-errors.toml"), expected.trim());
}

#[test]
fn broken_toml_is_said_once_for_each_place_and_the_rest_is_checked() {
    let expected = r#"
broken.toml:3:9: a value without quotes; write text, durations and sizes in "…"
broken.toml:4:28: unclosed array; expected `]`
broken.toml:5:19: `max_connections` is 0, which is out of range; write a whole number from 1 to 1000000
broken.toml:7:7: unclosed table; expected `]`
broken.toml:11:10: a value without quotes; write text, durations and sizes in "…"
broken.toml:12:7: a key without a value; write it as key = value
broken.toml:13:15: invalid basic string; expected `"`
broken.toml:14:8: `nice` is 99, which is out of range; write a whole number from -20 to 19
broken.toml:16:1: [[tier]] has no `model`; write model = "…", the path of a .gguf file
broken.toml:19:1: `name` is given a second time; keep one of them
"#;
    assert_eq!(said("broken.toml"), expected.trim());
}

#[test]
fn a_file_that_cannot_be_read_is_another_refusal() {
    for name in ["no-such-file.toml", "."] {
        let refusal = fixture(name).expect_err("there is no such file");
        assert!(
            matches!(&refusal, Refusal::Unreadable(why) if why.contains("tests/fixtures/config")),
            "{refusal:?}"
        );
        assert_eq!(refusal.exit_code(), 66);
    }
}

#[test]
fn bytes_that_are_no_text_have_a_place_too() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = place.path().join("c.toml");
    for (bytes, expected) in [
        (b"a = 1\nb\xff = 2".to_vec(), ":2:2: this byte is not UTF-8; save the file as UTF-8 text"),
        (vec![b'#'; 2 << 20], ":1:1: the file is larger than 256 KiB; name the configuration file"),
    ] {
        std::fs::write(&path, bytes).expect("a file");
        let said = config::read(&path, &unit()).expect_err("it is no configuration").to_string();
        assert_eq!(said, format!("{}{expected}", path.display()));
    }
}

/// Each line of the reference that shows a default, with its number.
fn shown_defaults() -> Vec<(usize, &'static str)> {
    let key = |line: &str| line.split_once(" = ").is_some_and(|(key, _)| is_key(key));
    let bare =
        REFERENCE.lines().enumerate().filter_map(|(number, line)| Some((number, line.strip_prefix("# ")?)));
    bare.filter(|(_, line)| key(line)).collect()
}

/// The examples of the reference: one or several lines that stand together, with their numbers.
fn shown_examples() -> Vec<Vec<(usize, &'static str)>> {
    let bare = REFERENCE
        .lines()
        .enumerate()
        .filter_map(|(number, line)| Some((number, line.strip_prefix("#     ")?)));
    let lines: Vec<_> = bare.collect();
    lines.chunk_by(|(number, _), (next, _)| number + 1 == *next).map(<[_]>::to_vec).collect()
}

fn is_key(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit())
}

/// The reference with these lines taken out of their comments.
fn with_lines(lines: &[(usize, &str)]) -> String {
    let mut text: Vec<&str> = REFERENCE.lines().collect();
    for (number, line) in lines {
        text[*number] = line;
    }
    text.join("\n")
}

#[test]
fn the_reference_is_right_and_its_commented_lines_are_the_defaults() {
    let plain = parse(REFERENCE, &unit()).expect("the reference is right");
    let built: Vec<_> = shown_defaults();
    assert!(built.len() >= 35, "{} defaults are shown", built.len());
    for line in &built {
        assert_eq!(
            parse(&with_lines(&[*line]), &unit()).as_ref(),
            Ok(&plain),
            "line {}: {}",
            line.0 + 1,
            line.1
        );
    }
    assert_eq!(parse(&with_lines(&built), &unit()), Ok(plain));
}

#[test]
fn the_references_examples_are_right_too() {
    let place = tempfile::tempdir().expect("a temporary directory");
    for name in ["hf_token", "gpu2_key", "mail"] {
        std::fs::write(place.path().join(name), "secret\n").expect("a credential");
    }
    let environment = Environment { credentials_directory: Some(place.path().to_owned()), ..unit() };
    let plain = parse(REFERENCE, &environment).expect("the reference is right");
    let examples: Vec<_> = shown_examples();
    assert!(examples.len() >= 6, "{examples:?}");
    for lines in examples {
        let (number, first) = lines[0];
        let with_it = parse(&with_lines(&lines), &environment).expect(first);
        assert_ne!(with_it, plain, "line {}: {first} changes nothing", number + 1);
    }
}

#[test]
fn help_and_reference_name_the_same_keys() {
    let page = include_str!("../../src/cli/help/configuration.md");
    assert!(page.lines().all(|line| line.chars().count() <= 80), "the page is for 80 columns");
    let words: BTreeSet<&str> = page.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
    for (number, line) in REFERENCE.lines().enumerate() {
        let line = line.trim_start_matches(['#', ' ']);
        if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| is_key(key)) {
            assert!(words.contains(key), "the page does not name `{key}` of line {}", number + 1);
        }
    }
}

/// The built program, up to the refusal: nothing is started or written.
#[test]
fn a_runtime_directory_of_the_command_line_is_checked_like_a_configured_one() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = place.path().join("c.toml");
    let text = format!(
        "[agent]\nrun_dir = \"{0}/run\"\nstate_dir = \"{0}/state\"\n[[tier]]\nname = \"a\"\nengine = \"vllm\"\nmodel = \"m\"\n",
        place.path().display()
    );
    std::fs::write(&file, text).expect("a file");
    // Relative, and short enough until it is made absolute.
    let long = "d".repeat(100 - place.path().as_os_str().len());
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_mainstay"))
        .current_dir(place.path())
        .args(["run", "--run-dir", &long, "--config"])
        .arg(&file)
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--run-dir: the runtime directory's path is 101 bytes long"), "{said}");
    assert!(!place.path().join(&long).exists());
}

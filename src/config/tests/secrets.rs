//! Secrets: where they may be kept, and that nothing shows them.
use super::*;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

const SOURCES: &str = r#"write { file = "/…" } or { credential = "…" }"#;

/// A directory of secrets, which is also that of the credentials.
struct Safe(TempDir);

impl Safe {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    /// The path of a new file.
    fn keep(&self, name: &str, text: &[u8], mode: u32) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("its mode");
        path.display().to_string()
    }

    fn environment(&self) -> Environment {
        Environment { credentials_directory: Some(self.0.path().to_owned()), ..unit() }
    }

    /// What is said about an `api_key`.
    #[track_caller]
    fn check(&self, key: &str, expected: &str) {
        assert_eq!(
            said_in(&with_key(key), &self.environment()),
            format!("9:11: `api_key` {expected}"),
            "{key}"
        );
    }

    /// What is said about a file that an `api_key` names.
    #[track_caller]
    fn check_file(&self, path: &str, expected: &str) {
        let expected = format!("needs the file {path}, which {expected}; name a file that mainstay may read");
        self.check(&format!("{{ file = '{path}' }}"), &expected);
    }
}

fn with_key(key: &str) -> String {
    format!("{FIRST}[[tier]]\nname = 'b'\nengine = 'remote'\nurl = 'http://h'\napi_key = {key}\n")
}

#[test]
fn secrets_are_read_without_their_newline_and_never_printed() {
    let safe = Safe::new();
    let (unix, windows) = (safe.keep("unix", b"s3cret\n", 0o640), safe.keep("windows", b"s3cret\r\n", 0o600));
    safe.keep("given", b"s3cret", 0o644);
    for source in [
        format!("{{ file = '{unix}' }}"),
        format!("{{ file = '{windows}' }}"),
        "{ credential = 'given' }".to_owned(),
    ] {
        let config = parse("", &with_key(&source), &safe.environment()).expect(&source);
        let key =
            config.tiers[1].remote().and_then(|remote| remote.api_key.as_ref()?.known()).map(Secret::expose);
        assert_eq!(key, Some("s3cret"), "{source}");
        assert!(!format!("{config:?}").contains("s3cret"), "a secret was printed");
    }
}

#[test]
fn a_key_that_has_come_is_no_change_of_the_configuration() {
    let safe = Safe::new();
    let at = |name: &str| safe.0.path().join(name).display().to_string();
    let read = |text: &str| parse("", text, &safe.environment()).expect("the agent may start");
    let text = with_key(&format!("{{ file = '{}' }}", at("late")));
    let running = read(&text);
    assert!(running.says_the_same(&read(&text)));
    safe.keep("late", b"s3cret", 0o600);
    assert!(running.says_the_same(&read(&text)));
    assert!(!running.says_the_same(&read(&text.replace("http://h", "http://i"))));
    safe.keep("other", b"another", 0o600);
    let elsewhere = text.replace(&at("late"), &at("other"));
    assert!(!running.says_the_same(&read(&elsewhere)));
    assert!(!read(&text).says_the_same(&read(&elsewhere)), "one that was known has changed");
}

#[test]
fn variables_may_be_secrets_too() {
    let safe = Safe::new();
    let token = safe.keep("token", b"s3cret\n", 0o600);
    safe.keep("words", b"two words", 0o600);
    let text = format!(
        "{FIRST}env = {{ A = {{ file = '{token}' }}, B = {{ credential = 'words' }}, C = 'plain' }}\n"
    );
    let config = parse("", &text, &safe.environment()).expect("it is right");
    let env = &config.tiers[0].local().expect("a local tier").env;
    assert_eq!([&env["A"], &env["B"], &env["C"]].map(Secret::expose), ["s3cret", "two words", "plain"]);
    assert!(!format!("{config:?}").contains("s3cret"), "a secret was printed");
}

#[test]
fn files_that_everybody_reads_hold_no_secrets() {
    let safe = Safe::new();
    for mode in [0o644, 0o604, 0o444] {
        let open = safe.keep("open", b"s3cret", mode);
        let expected = format!("is kept in {open}, which everybody may read; chmod o-rwx {open}");
        safe.check(&format!("{{ file = '{open}' }}"), &expected);
        std::fs::remove_file(open).expect("the file");
    }
}

#[test]
fn files_without_a_secret_in_them_are_refused() {
    let safe = Safe::new();
    safe.check_file(&safe.keep("empty", b"\n", 0o600), "is empty");
    safe.check_file(&safe.keep("binary", b"\xff", 0o600), "is not UTF-8 text");
    safe.check_file(&safe.keep("nul", b"a\0b", 0o600), "holds a NUL byte");
    safe.check_file(&safe.keep("large", &[b'x'; 70_000], 0o600), "is larger than 64 KiB");
    safe.check_file(&safe.0.path().display().to_string(), "is no regular file");
    let missing = safe.0.path().join("missing").display().to_string();
    safe.check_file(&missing, "cannot be read (No such file or directory (os error 2))");
    // Opened in the plain way, a pipe that nobody writes to would hold the check up for ever.
    let pipe = safe.0.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a pipe");
    safe.check_file(&pipe.display().to_string(), "is no regular file");

    let spaced = safe.keep("spaced", b"two words", 0o600);
    let expected =
        "holds spaces or characters that no HTTP header can carry; keep just the key in there, on one line";
    safe.check(&format!("{{ file = '{spaced}' }}"), expected);
}

#[test]
fn credentials_come_from_the_unit() {
    let safe = Safe::new();
    safe.check(
        "{ credential = 'missing' }",
        "needs the credential `missing`, which cannot be read (No such file or directory (os error 2)); \
         add LoadCredential=missing:/… to the unit",
    );
    for name in ["../kept", "..", ""] {
        let remedy = "write the name that LoadCredential= in the unit gives it";
        safe.check(
            &format!("{{ credential = '{name}' }}"),
            &format!("names the credential \"{name}\"; {remedy}"),
        );
    }
    assert_eq!(
        said_in(&with_key("{ credential = 'kept' }"), &unit()),
        "9:11: `api_key` needs the credential `kept`, and $CREDENTIALS_DIRECTORY is not set; \
         run under a unit with LoadCredential=kept:/…, or write { file = \"/…\" }"
    );
}

#[test]
fn a_secret_has_one_source_outside_this_file() {
    let safe = Safe::new();
    for (key, expected) in [
        ("{ file = 'kept' }", "names the file \"kept\"; write an absolute path".to_owned()),
        ("{ env = 'X' }", format!("has the unknown source `env`; {SOURCES}")),
        ("{ file = 3 }", format!("names no source; {SOURCES}")),
        ("{}", format!("must name one source; {SOURCES}")),
        ("{ file = '/a', credential = 'b' }", format!("must name one source; {SOURCES}")),
        ("'s3cret'", format!("is written out; {SOURCES}, this file is no place for secrets")),
        ("3", format!("is an integer; {SOURCES}")),
    ] {
        safe.check(key, &expected);
    }
}

#[test]
fn a_variable_that_is_not_there_keeps_only_its_tier_waiting() {
    let safe = Safe::new();
    let late = safe.0.path().join("late").display().to_string();
    let text = |rest: &str| {
        format!("{FIRST}env = {{ A = {{ file = '{late}' }}, B = {{ credential = 'b' }} }}\n{rest}")
    };
    let config = parse("", &text(""), &safe.environment()).expect("the agent may start");
    let said: Vec<String> = config.pending.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains(&format!("`A` needs the file {late}, which cannot be read")), "{said:?}");
    assert!(said[1].contains("`B` needs the credential `b`, which cannot be read"), "{said:?}");
    let local = config.tiers[0].local().expect("a local tier");
    assert_eq!((local.env.len(), local.late_env.len()), (0, 2));
    let why = local.late_env["A"].look().expect_err("it is not there");
    assert!(why.starts_with(&format!("`A` needs the file {late}, which")), "{why}");
    safe.keep("late", b"two words\n", 0o600);
    assert_eq!(local.late_env["A"].look().expect("it is there").expose(), "two words");
    assert!(parse("", &text("nonsense = 1\n"), &safe.environment()).is_err(), "that passes by no mount");
}

#[test]
fn a_key_that_is_not_there_keeps_nothing_but_its_tier_waiting() {
    let safe = Safe::new();
    let late = safe.0.path().join("late");
    let config = parse("", &with_key(&format!("{{ file = '{}' }}", late.display())), &safe.environment());
    let config = config.expect("the agent may start");
    assert_eq!(config.pending.len(), 1);
    let key = config.tiers[1].remote().and_then(|remote| remote.api_key.clone()).expect("a key");
    let missing = key.missing().expect("it is not there");
    let why = missing.look().expect_err("nor is it now");
    assert!(why.starts_with(&format!("`api_key` needs the file {}, which", late.display())), "{why}");
    safe.keep("late", b"two words", 0o600);
    let why = missing.look().expect_err("it is no key");
    assert!(why.starts_with("`api_key` holds spaces"), "{why}");
    std::fs::remove_file(&late).expect("the file");
    safe.keep("late", b"s3cret\n", 0o600);
    assert_eq!(missing.look().expect("it is there").expose(), "s3cret");
    let wrong = format!("{}nonsense = 1\n", with_key("{ credential = 'nope' }"));
    assert_eq!(parse("", &wrong, &safe.environment()).expect_err("another key is unknown").len(), 2);
}

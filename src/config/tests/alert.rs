//! `[alert.mail]`.
use super::*;
use crate::policy::incident::{Gravity, LetterSettings};

const WHOLE: &str = "relay = 'smtp://mail.internal'\nfrom = 'a@b.example'\nto = ['c@d.example']\n";

/// The section with these keys on top of the required ones; lines are counted within it, from 5 on.
#[track_caller]
fn mail(lines: &str, expected: &str) {
    let said = said_in(&format!("[alert.mail]\n{WHOLE}{lines}\n{FIRST}"), &unit());
    assert_eq!(said, expected, "{lines}");
}

/// What is said about a relay.
#[track_caller]
fn relay(relay: &str, expected: &str) {
    let section = format!("[alert.mail]\nrelay = '{relay}'\nfrom = 'a@b.example'\nto = ['c@d.example']\n");
    assert_eq!(said_in(&format!("{section}{FIRST}"), &unit()), format!("2:9: `relay` {expected}"), "{relay}");
}

fn read(lines: &str) -> Mail {
    config(&format!("[alert.mail]\n{lines}\n{FIRST}")).mail.expect("mail is configured")
}

#[test]
fn nobody_is_mailed_by_default() {
    assert_eq!(config(FIRST).mail, None);
}

#[test]
fn what_is_not_written_has_the_contracts_defaults() {
    let mail = read(WHOLE);
    assert_eq!(mail.relay, Relay { security: Security::Offered, host: "mail.internal".to_owned(), port: 25 });
    assert_eq!((mail.login.clone(), mail.ca.clone()), (None, None));
    assert_eq!(
        mail.letters(),
        LetterSettings {
            on: vec![Gravity::Failover, Gravity::Held, Gravity::AllDown, Gravity::Gpu],
            on_return: true,
            at_most_every: Duration::from_secs(300),
        }
    );
    assert!(mail.on.contains(&Occasion::Gpu));
}

#[test]
fn relays_have_their_kinds_usual_port_or_their_own() {
    for (text, security, host, port) in [
        ("smtp://h", Security::Offered, "h", 25),
        ("smtp://h:2525/", Security::Offered, "h", 2525),
        ("smtp+starttls://h", Security::Required, "h", 587),
        ("smtps://h", Security::Wrapped, "h", 465),
        ("smtps://[::1]:1465", Security::Wrapped, "::1", 1465),
        ("smtp://10.0.0.7", Security::Offered, "10.0.0.7", 25),
    ] {
        let mail = read(&WHOLE.replace("smtp://mail.internal", text));
        assert_eq!(mail.relay, Relay { security, host: host.to_owned(), port }, "{text}");
    }
    let form =
        r#"write "smtp://HOST:PORT" (TLS when offered), "smtp+starttls://HOST:PORT" or "smtps://HOST:PORT""#;
    relay("mail.internal", &format!("is \"mail.internal\", which has no smtp:// in front; {form}"));
    relay("http://h", &format!("is \"http://h\", which is none of the kinds of relay; {form}"));
    relay("smtp://", &format!("is \"smtp://\", which names no host and port; {form}"));
    relay("smtp://h:0", &format!("is \"smtp://h:0\", whose port is not a number from 1 to 65535; {form}"));
    relay("smtp://h:", &format!("is \"smtp://h:\", whose port is not a number from 1 to 65535; {form}"));
    relay("smtp://h/x", &format!("is \"smtp://h/x\", which names no host and port; {form}"));
    relay(
        "smtp://h?tls=required",
        &format!("is \"smtp://h?tls=required\", which names no host and port; {form}"),
    );
    // Whatever else is wrong with it: a password in it is not shown.
    for text in ["smtp://me:s3cret@h", "imap://me:s3cret@h", "me:s3cret@h"] {
        relay(text, "holds a user name; write `username` and `password` instead");
    }
}

#[test]
fn addresses_are_checked() {
    let form = r#"write one such as "oncall@example.org" or "On call <oncall@example.org>""#;
    for good in ["root@localhost", "ops@gpu1", "On call <oncall@example.org>", "a+b@x-y.example"] {
        read(&WHOLE.replace("c@d.example", good));
    }
    for bad in ["nobody", "@b", "a@", "a b@c", "a@b, c@d", "", "a@b>\\r\\nBcc: <x@y"] {
        let lines = format!("relay = 'smtp://h'\nfrom = \"{bad}\"\nto = ['c@d.example']");
        let said = said_in(&format!("[alert.mail]\n{lines}\n{FIRST}"), &unit());
        assert!(said.starts_with("3:8: `from` is ") && said.ends_with(form), "{bad}: {said}");
    }
}

#[test]
fn lists_say_something_once() {
    mail("on = []", "5:6: `on` is empty; write at least one, such as [\"failover\", \"all-down\"]");
    mail("on = ['held', 'held']", "5:15: `on` has \"held\" twice; remove one of them");
    mail(
        "on = ['reboot']",
        "5:7: `on` has \"reboot\", which is none of the choices; \
         write \"failover\", \"return\", \"held\", \"all-down\" or \"gpu\"",
    );
    let none = "4:6: `to` is empty; write at least one, such as [\"oncall@example.org\"]";
    assert_eq!(
        said_in(&format!("[alert.mail]\n{}{FIRST}", WHOLE.replace("'c@d.example'", "")), &unit()),
        none
    );
    assert!(!read(&format!("{WHOLE}on = ['all-down']")).letters().on_return);
}

#[test]
fn what_is_needed_is_asked_for() {
    let said = said_in(&format!("[alert.mail]\n{FIRST}"), &unit());
    let missing =
        |key: &str, example: &str| format!("1:1: [alert.mail] has no `{key}`; write {key} = {example}");
    let expected = [
        missing("from", r#""mainstay@example.org""#),
        missing("relay", r#""smtp://mail.example.org""#),
        missing("to", r#"["oncall@example.org"]"#),
    ];
    assert_eq!(said, expected.join("\n"));
    check(
        &format!("alert = {{}}\n{FIRST}"),
        "1:9: [alert] has no `mail`; write a section [alert.mail] with relay, from and to",
    );
    mail(
        "cc = 'x'",
        "5:1: unknown key `cc` in [alert.mail]; remove it, known here: `at_most_every`, `ca`, `from`, `on`, `password`, `relay`, `to`, `username`",
    );
    mail(
        "ca = 'x.pem'",
        "5:6: `ca` is \"x.pem\", which is no absolute path; write a path that begins with /",
    );
    mail(
        "at_most_every = '0s'",
        "5:17: `at_most_every` is \"0s\", which is out of range; write a duration from \"1s\" to \"24h\"",
    );
}

#[test]
fn a_login_is_whole_and_its_password_is_kept_elsewhere() {
    mail(
        "username = 'me'",
        "5:12: `username` is given without `password`; write `password` too, as { credential = \"…\" }, or remove `username`",
    );
    let password = "`password` is written out; write { file = \"/…\" } or { credential = \"…\" }, this file is no place for secrets";
    mail("username = 'me'\npassword = 's3cret'", &format!("6:12: {password}"));
    let place = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(place.path().join("mail"), "s3cret, with spaces\n").expect("a credential");
    let environment = Environment { credentials_directory: Some(place.path().to_owned()), ..unit() };
    let text =
        |lines: &str| format!("[alert.mail]\n{WHOLE}{lines}password = {{ credential = 'mail' }}\n{FIRST}");
    let config = parse("", &text("username = 'me'\n"), &environment).expect("it is right");
    assert!(!format!("{config:?}").contains("s3cret"), "a secret was printed");
    let login = config.mail.and_then(|mail| mail.login).expect("a login");
    assert_eq!(
        (login.username.as_str(), login.password.known().map(Secret::expose)),
        ("me", Some("s3cret, with spaces"))
    );
    // One that is not there costs mail only, until it is.
    std::fs::remove_file(place.path().join("mail")).expect("the credential");
    let late = parse("", &text("username = 'me'\n"), &environment).expect("the agent may start");
    assert!(
        late.pending[0].to_string().contains("`password` needs the credential `mail`"),
        "{:?}",
        late.pending
    );
    let login = late.mail.and_then(|mail| mail.login).expect("a login");
    let missing = login.password.missing().expect("it is not there");
    std::fs::write(place.path().join("mail"), "s3cret\n").expect("a credential");
    assert_eq!(missing.look().expect("it is there now").expose(), "s3cret");
    assert_eq!(
        said_in(&text(""), &environment),
        "5:12: `password` is given without `username`; write `username`, or remove `password`"
    );
}

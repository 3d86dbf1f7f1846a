//! `[alert.mail]`: whom to mail, through which relay, and about what.
use super::address;
pub use super::address::{Relay, Security};
use super::secret::{self, Key};
use super::section::Section;
use super::value::{Given, Wrong, absolute_path, duration, one_of, text, words};
use crate::policy::incident::{Gravity, LetterSettings};
use lettre::message::Mailbox;
use std::path::PathBuf;
use std::time::Duration;

const EVERYTHING: [(&str, Occasion); 5] = [
    ("failover", Occasion::Failover),
    ("return", Occasion::Return),
    ("held", Occasion::Held),
    ("all-down", Occasion::AllDown),
    ("gpu", Occasion::Gpu),
];

#[derive(Clone, Debug, PartialEq)]
pub struct Mail {
    pub relay: Relay,
    pub from: Mailbox,
    /// Never empty.
    pub to: Vec<Mailbox>,
    pub login: Option<Login>,
    /// Certificates in PEM that count beside the system's, for a relay of an internal authority.
    pub ca: Option<PathBuf>,
    /// Never empty; each once.
    pub on: Vec<Occasion>,
    /// From one mail that opened an incident to the next.
    pub at_most_every: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub username: String,
    pub password: Key,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    Failover,
    Return,
    Held,
    AllDown,
    Gpu,
}

impl Mail {
    /// As policy needs to know it.
    pub fn letters(&self) -> LetterSettings {
        let gravity = |occasion: &Occasion| match occasion {
            Occasion::Failover => Some(Gravity::Failover),
            Occasion::Held => Some(Gravity::Held),
            Occasion::AllDown => Some(Gravity::AllDown),
            Occasion::Gpu => Some(Gravity::Gpu),
            Occasion::Return => None,
        };
        LetterSettings {
            on: self.on.iter().filter_map(gravity).collect(),
            on_return: self.on.contains(&Occasion::Return),
            at_most_every: self.at_most_every,
        }
    }
}

/// `None` where no mail is configured, or where what is configured is wrong.
pub(super) fn read(mut section: Section<'_>) -> Option<Mail> {
    let mail = section.table_if_given("mail", "[alert.mail]");
    if mail.is_none() && section.is_written() {
        section.report_missing("mail", "write a section [alert.mail] with relay, from and to");
    }
    section.finish();
    mail.and_then(read_mail)
}

fn read_mail(mut section: Section<'_>) -> Option<Mail> {
    for (key, example) in [
        ("relay", r#""smtp://mail.example.org""#),
        ("from", r#""mainstay@example.org""#),
        ("to", r#"["oncall@example.org"]"#),
    ] {
        if !section.has(key) {
            section.report_missing(key, format!("write {key} = {example}"));
        }
    }
    let relay = section.read("relay", address::relay);
    let from = section.read("from", mailbox);
    let to = distinct(&mut section, "to", r#"["oncall@example.org"]"#, mailbox, |to| to.email.to_string());
    let name = |occasion: &Occasion| {
        EVERYTHING.iter().find(|(_, it)| it == occasion).map_or("", |(name, _)| *name).to_owned()
    };
    let on = distinct(&mut section, "on", r#"["failover", "all-down"]"#, one_of(&EVERYTHING), name);
    let login = login(&mut section);
    let ca = section.read("ca", absolute_path);
    let at_most_every = section
        .read("at_most_every", duration(Duration::from_secs(1)..=Duration::from_secs(24 * 3600)))
        .unwrap_or(Duration::from_secs(300));
    section.finish();
    Some(Mail {
        relay: relay?,
        from: from?,
        to: to?,
        login,
        ca,
        on: on.unwrap_or_else(|| EVERYTHING.map(|(_, occasion)| occasion).to_vec()),
        at_most_every,
    })
}

/// Both or none: half of it is a slip that would show only when it is too late.
fn login(section: &mut Section<'_>) -> Option<Login> {
    let environment = section.context.environment;
    let username = section.read("username", words);
    let password = section.read("password", |given| secret::password(given, environment));
    if let Some(missing) = password.as_ref().and_then(Key::missing) {
        section.report_pending("password", &missing.lack.what, &missing.lack.remedy);
    }
    match (section.has("username"), section.has("password")) {
        (true, false) if section.is_whole() => {
            let remedy = "write `password` too, as { credential = \"…\" }, or remove `username`";
            section.report_at("username", "`username` is given without `password`", remedy);
        }
        (false, true) if section.is_whole() => {
            let remedy = "write `username`, or remove `password`";
            section.report_at("password", "`password` is given without `username`", remedy);
        }
        _ => {}
    }
    Some(Login { username: username?, password: password? })
}

/// `oncall@example.org` or `On call <oncall@example.org>`.
fn mailbox(given: &Given<'_>) -> Result<Mailbox, Wrong> {
    let remedy = r#"write one such as "oncall@example.org" or "On call <oncall@example.org>""#;
    let text = text(given)?;
    if text.chars().any(char::is_control) {
        return Err(given.wrong("which holds a control character", remedy));
    }
    text.trim().parse().map_err(|_| given.wrong("which is no mail address", remedy))
}

/// A list that is not empty and has nothing twice.
fn distinct<T>(
    section: &mut Section<'_>,
    key: &'static str,
    example: &str,
    parse: impl Fn(&Given<'_>) -> Result<T, Wrong>,
    name: impl Fn(&T) -> String,
) -> Option<Vec<T>> {
    let items = section.places(key, example, parse)?;
    if items.is_empty() {
        section.report_at(key, format!("`{key}` is empty"), format!("write at least one, such as {example}"));
        return None;
    }
    for (index, (at, item)) in items.iter().enumerate() {
        if items[..index].iter().any(|(_, earlier)| name(earlier) == name(item)) {
            let what = format!("`{key}` has \"{}\" twice", name(item));
            section.context.problems.add(*at, what, "remove one of them");
        }
    }
    Some(items.into_iter().map(|(_, item)| item).collect())
}

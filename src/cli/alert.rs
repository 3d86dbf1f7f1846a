//! `mainstay alert test`: one mail, now, and what came of each step.
use super::exit::Exit;
use super::screen::{complain, report, show};
use crate::agent::mail::{letterhead, relay};
use crate::alert::{Patience, Relay, Security, Stage, Trial, Trouble, send_test};
use crate::config::{self, Environment, Mail, Refusal};
use crate::control::client::Client;
use crate::redact::Redactor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the unit's configuration is.
const SYSTEM: &str = "/etc/mainstay/mainstay.toml";
const EXAMPLE: &str = r#"  [alert.mail]
  relay = "smtp://mail.internal:25"
  from = "mainstay@gpu1.example.org"
  to = ["oncall@example.org"]
"#;

/// The mail goes to the relay directly, past the agent and its outbox.
pub fn test(file: Option<&Path>, client: &Client) -> Exit {
    let file = file.map_or_else(|| in_force(client), Path::to_owned);
    let config = match config::read(&file, &Environment::of_process()) {
        Ok(config) => config,
        Err(Refusal::Unreadable(why)) => {
            complain(format_args!("{why}; name the configuration with --config FILE"));
            return Exit::Unreadable;
        }
        Err(wrong @ Refusal::Wrong(_)) => {
            report(wrong);
            return Exit::Misconfigured;
        }
    };
    let Some(mail) = config.mail else {
        complain(format_args!("{}: no mail is configured; write, for example:\n{EXAMPLE}", file.display()));
        return Exit::Failed;
    };
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let relay = relay(&mail, host, &Arc::new(Redactor::of_forms()));
    if let Err(exit) = show(format!("relay       {}\n", described(&relay))) {
        return exit;
    }
    let trial = send_test(&relay, &letterhead(&mail, host), Patience::default());
    let good = matches!(&trial.accepted, Ok((_, refused)) if refused.is_empty());
    match show(told(&relay, &mail, &trial)) {
        Err(exit) => exit,
        Ok(()) if good => Exit::Done,
        Ok(()) => Exit::Failed,
    }
}

/// The file that the agent runs with, else the one that the unit names.
fn in_force(client: &Client) -> PathBuf {
    client.status().map_or_else(|_| PathBuf::from(SYSTEM), |(status, _)| PathBuf::from(status.agent.config))
}

fn described(relay: &Relay) -> String {
    let kind = match (relay.security, relay.login.is_some()) {
        (Security::Offered, false) => "STARTTLS when it is offered",
        (Security::Offered, true) => "STARTTLS with a verified certificate, because a password is sent",
        (Security::Required, _) => "STARTTLS required",
        (Security::Wrapped, _) => "TLS from the first byte",
    };
    format!("{}:{}, {kind}", relay.host, relay.port)
}

/// A line for each step that was taken, and what to mend about the one that failed.
fn told(relay: &Relay, mail: &Mail, trial: &Trial) -> String {
    let mut lines = Vec::new();
    if let Some(encrypted) = trial.encrypted {
        lines.push("connected   yes".to_owned());
        lines.push(match (encrypted, relay.verifies()) {
            (true, true) => "TLS         yes (1.2 or newer), certificate verified".to_owned(),
            (true, false) => "TLS         yes (1.2 or newer), certificate not verified".to_owned(),
            (false, _) => "TLS         no: the mail goes in clear".to_owned(),
        });
        lines.push(match &relay.login {
            Some(login) => format!("login       accepted, as {}", login.username),
            None => "login       none configured".to_owned(),
        });
    }
    match &trial.accepted {
        Ok((reply, refused)) => {
            lines.push(format!("mail        taken by the relay: {reply}"));
            for to in mail.to.iter().map(|to| to.email.to_string()) {
                let trouble = refused.iter().find(|(receiver, _)| *receiver == to);
                lines.push(match trouble {
                    None => format!("to          {to}"),
                    Some((_, trouble)) => format!("NOT to      {to}: {trouble}\n{}", to_mend(trouble)),
                });
            }
            lines.push(
                "Whether it arrives is the relay's business from here on: look into the mailbox.".to_owned(),
            );
        }
        Err(trouble) => {
            let passed =
                matches!(trouble.stage, Stage::Tls | Stage::NoTls | Stage::Login | Stage::Certificates);
            if trial.encrypted.is_none() && passed {
                lines.push("connected   yes".to_owned());
            }
            lines.push(format!("FAILED      {trouble}"));
            lines.push(to_mend(trouble));
        }
    }
    lines.join("\n") + "\n"
}

fn to_mend(trouble: &Trouble) -> String {
    format!("to mend     {}", trouble.remedy())
}

//! `mainstay check --config FILE`: every problem of a configuration, and nothing else happens.
use super::exit::Exit;
use super::screen::{complain, report, show};
use crate::config::{self, Environment, Mail, Refusal, Security};
use std::path::Path;

/// Problems go to the standard error, one a line, so that editors and scripts can read them.
pub fn main(file: &Path) -> Exit {
    match config::read(file, &Environment::of_process()) {
        Ok(config) => {
            let names: Vec<&str> = config.tiers.iter().map(|tier| tier.name.as_str()).collect();
            let good = format!("{}: good; tiers, best first: {}\n", file.display(), names.join(", "));
            show(good + config.mail.as_ref().and_then(of_password).unwrap_or_default()).into()
        }
        Err(Refusal::Unreadable(why)) => {
            complain(format_args!("{why}; --config names a file that this account may read"));
            Exit::Unreadable
        }
        Err(wrong @ Refusal::Wrong(_)) => {
            report(wrong);
            Exit::Misconfigured
        }
    }
}

/// What is not seen in the file: smtp:// promises less than a password needs.
fn of_password(mail: &Mail) -> Option<&'static str> {
    let silent = mail.relay.security == Security::Offered && mail.login.is_some() && mail.ca.is_none();
    silent.then_some(
        "[alert.mail]: because of the password, the relay's certificate must be one that this host's authorities vouch for; \
         else write ca = \"/...\" with the relay's own authority. relay = \"smtp+starttls://...\" or \"smtps://...\" say the \
         same. To try it: mainstay alert test\n",
    )
}

//! `[alert.mail]` as the couriers need it, and what they tell as events.
use super::inbox::{News, Sender};
use crate::alert::{
    Courier, Ground, Letterhead, Login, MailTally, Outbox, Outcome, Pace, Password, Patience, Relay,
    Security, Tell,
};
use crate::clock;
use crate::config;
use crate::control::feed::Event;
use crate::control::wire;
use crate::redact::Redactor;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The relay to talk to. `host` is what this machine calls itself; `redactor` is to know a password that comes later.
pub fn relay(mail: &config::Mail, host: &str, redactor: &Arc<Redactor>) -> Relay {
    let config::Relay { security, host: relay_host, port } = &mail.relay;
    let password = |key: &config::Key| match key {
        config::Key::Known(password) => Password::Known(password.expose().to_owned()),
        config::Key::Missing(missing) => {
            let (missing, redactor) = (missing.clone(), Arc::clone(redactor));
            Password::Late(Arc::new(move || {
                let password = missing.look()?.expose().to_owned();
                redactor.learn(&password);
                Ok(password)
            }))
        }
    };
    let login = |login: &config::Login| Login {
        username: login.username.clone(),
        password: password(&login.password),
    };
    Relay {
        security: match security {
            config::Security::Offered => Security::Offered,
            config::Security::Required => Security::Required,
            config::Security::Wrapped => Security::Wrapped,
        },
        host: relay_host.clone(),
        port: *port,
        login: mail.login.as_ref().map(login),
        ca: mail.ca.clone(),
        hello: host.to_owned(),
    }
}

/// Who writes to whom.
pub fn letterhead(mail: &config::Mail, host: &str) -> Letterhead {
    Letterhead { host: host.to_owned(), from: mail.from.clone(), to: mail.to.clone() }
}

/// The outbox, for the clerk to fill, and the courier who empties it.
///
/// # Errors
/// When there is no thread to be had.
pub fn start(
    mail: &config::Mail,
    state_dir: &Path,
    ground: Ground,
    host: &str,
    redactor: &Arc<Redactor>,
    inbox: Sender,
) -> io::Result<(Outbox, Courier)> {
    let tell: Tell = Arc::new(move |outcome: &Outcome| {
        // Heard on threads that nobody may hold up; the log gets it at least.
        if !inbox.offer(News::Mail(outcome.clone())) {
            tracing::warn!("{outcome}");
        }
    });
    let known = Arc::clone(redactor);
    let redact = Arc::new(move |text: &str| known.text(text).into_owned());
    let outbox = Outbox::at(state_dir, ground, letterhead(mail, host), redact, tell);
    let courier =
        Courier::start(relay(mail, host, redactor), outbox.clone(), Patience::default(), Pace::default())?;
    Ok((outbox, courier))
}

/// How mail stands, as the loop hears of it.
#[derive(Debug)]
pub struct Standing {
    outbox: Outbox,
    tally: MailTally,
}

impl Standing {
    pub fn new(outbox: Outbox) -> Self {
        Self { outbox, tally: MailTally::default() }
    }

    pub fn note(&mut self, outcome: &Outcome) {
        self.tally.note(outcome, clock::wall_ms());
    }

    /// The state directory can be written again.
    pub fn note_freed(&mut self) {
        self.tally.note_freed();
    }

    pub fn on_the_wire(&self) -> wire::Mail {
        let MailTally { sent, lost, standstill, .. } = &self.tally;
        let waiting = self.outbox.waiting() as u64;
        // What was given up is counted; the relay has not been asked since.
        let standstill = standstill.as_ref().filter(|it| waiting > 0 || it.is_stuck);
        wire::Mail {
            waiting,
            sent: *sent,
            lost: *lost,
            trouble: standstill.map(|it| it.why.clone()),
            trouble_since: standstill.map(|it| clock::rfc3339(it.since_ms)),
        }
    }
}

/// `to` is what became of the mail: "sent", "deferred", "given-up", "dropped".
pub fn event(outcome: &Outcome) -> Event {
    Event {
        kind: "mail".to_owned(),
        to: Some(outcome.name().to_owned()),
        incident: outcome.mail().and_then(|mail| mail.ids.first().copied()),
        text: outcome.to_string(),
        ..Event::default()
    }
}

//! What went wrong with a relay: in which step, in whose words, and what would mend it.
use crate::printable;
use lettre::transport::smtp::Error;
use std::error::Error as _;
use std::fmt;
use std::io;

/// Characters of a relay's own words that are passed on.
const WORDS_MAX: usize = 300;

/// The steps of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its file is not there, or not good: nobody was asked.
    Password,
    Connect,
    Greeting,
    /// Our own ones, before any handshake.
    Certificates,
    Tls,
    /// It is needed, and not offered.
    NoTls,
    Login,
    Sender,
    Receiver,
    Message,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub stage: Stage,
    why: String,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The relay said no, and goes on listening.
    Refused { permanent: bool },
    /// There is nobody to talk to any more.
    Broken,
}

impl Trouble {
    pub(super) fn broken(stage: Stage, why: impl Into<String>) -> Self {
        Self { stage, why: why.into(), verdict: Verdict::Broken }
    }

    pub(super) fn refused(stage: Stage, why: impl Into<String>, permanent: bool) -> Self {
        Self { stage, why: why.into(), verdict: Verdict::Refused { permanent } }
    }

    pub(super) fn of(stage: Stage, error: &Error) -> Self {
        let mut words = error.to_string();
        let mut cause = error.source();
        let mut stage = stage;
        // The innermost words say what it is; those around it are "network error" and the like.
        while let Some(inner) = cause {
            words = inner.to_string();
            if inner
                .downcast_ref::<io::Error>()
                .is_some_and(|why| why.kind() == io::ErrorKind::ConnectionRefused)
            {
                stage = Stage::Connect;
            }
            cause = inner.source();
        }
        match error.status() {
            // 421: it says no, and hangs up.
            Some(code) if code.to_string() == "421" => Self::broken(stage, clipped(&format!("421 {words}"))),
            Some(code) => Self::refused(stage, clipped(&format!("{code} {words}")), error.is_permanent()),
            None if error.is_response() => {
                Self::broken(stage, clipped(&format!("its answer is no SMTP ({words})")))
            }
            None => Self::broken(stage, clipped(&words)),
        }
    }

    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.verdict, Verdict::Refused { .. })
    }

    pub(super) fn is_permanent(&self) -> bool {
        self.verdict == Verdict::Refused { permanent: true }
    }

    pub(super) fn about(mut self, receiver: &str) -> Self {
        self.why = format!("{receiver}: {}", self.why);
        self
    }

    /// Relays have been seen to repeat what they were sent: neither the password nor a coded word is passed on.
    pub(super) fn without(mut self, password: &str) -> Self {
        let coded = |word: &str| {
            word.len() > 20 && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
        };
        let shown =
            |word: &str| if coded(word) || word.ends_with('=') { "…".to_owned() } else { word.to_owned() };
        let words: Vec<String> = self.why.replace(password, "…").split(' ').map(shown).collect();
        self.why = words.join(" ");
        self
    }

    /// What would mend it.
    pub const fn remedy(&self) -> &'static str {
        match self.stage {
            Stage::Connect => {
                "is `relay` right, does the name resolve here, does the relay run, and does no firewall stand in between?"
            }
            Stage::Greeting => {
                "is this an SMTP port? Usual are 25 and 587 for smtp:// and smtp+starttls://, 465 for smtps://"
            }
            Stage::Certificates => "name a readable file of PEM certificates in `ca`, or remove the key",
            Stage::Tls => {
                "the certificate must be valid for the name in `relay`; name your own authority's certificate in `ca` (with a \
                 `password` smtp:// verifies as well); smtps:// is for port 465, smtp+starttls:// for 587"
            }
            Stage::NoTls => {
                "let the relay offer STARTTLS, or use smtps:// where it speaks TLS from the first byte; \
                 without `username`, smtp:// sends in clear"
            }
            Stage::Password => {
                "see to the file or credential of `password`; it is read again before each try"
            }
            Stage::Login => "check `username` and the file or credential of `password`",
            Stage::Sender => {
                "let the relay accept this host and the address in `from`, or give `username` and `password`"
            }
            Stage::Receiver => {
                "check the addresses in `to`, and whether the relay takes mail for them from this host"
            }
            Stage::Message => "the relay's own log says why",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.stage {
            Stage::Sender | Stage::Receiver if self.verdict == Verdict::Broken => "the relay broke off",
            Stage::Password => "there is no password for the relay",
            Stage::Connect => "cannot connect to the relay",
            Stage::Greeting => "the relay does not greet",
            Stage::Certificates => "the certificates cannot be read",
            Stage::Tls => "no TLS with the relay",
            Stage::NoTls => "no TLS",
            Stage::Login => "the login failed",
            Stage::Sender => "the relay refuses the sender",
            Stage::Receiver => "the relay refuses a receiver",
            Stage::Message => "the relay does not take the mail",
        };
        write!(f, "{step}: {}", self.why)
    }
}

/// One line of at most 300 characters.
pub(super) fn clipped(text: &str) -> String {
    printable::line(text.trim()).chars().take(WORDS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_that_repeats_the_login_gives_nothing_away() {
        let echo = "500 unknown: AUTH PLAIN AG1lAGh1bnRlcjIhaHVudGVyMg== or aHVudGVyMg== or hunter2, goodbye";
        let trouble = Trouble::refused(Stage::Login, echo, true).without("hunter2");
        assert_eq!(trouble.to_string(), "the login failed: 500 unknown: AUTH PLAIN … or … or …, goodbye");
        let usual = "535 5.7.8 Error: authentication failed: UGFzc3dvcmQ6";
        assert_eq!(
            Trouble::refused(Stage::Login, usual, true).without("hunter2").to_string(),
            format!("the login failed: {usual}")
        );
    }
}

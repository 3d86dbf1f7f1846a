//! Subject and text → the bytes of a mail, with its headers.
use lettre::Message;
use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, SinglePart};
use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, UNIX_EPOCH};

/// Who writes to whom.
#[derive(Clone, Debug)]
pub struct Letterhead {
    /// As it is called in subjects.
    pub host: String,
    pub from: Mailbox,
    pub to: Vec<Mailbox>,
}

/// A mail before it has headers: no line of it holds a control character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub subject: String,
    pub body: String,
}

/// Tells out-of-office robots and ticket systems not to answer (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// A new Message-ID. The same one goes out with every try, so that a receiver can tell a mail that came twice.
pub fn new_id(letterhead: &Letterhead, at_ms: i64) -> String {
    let chance = RandomState::new().hash_one(at_ms);
    format!("<{at_ms:x}.{chance:016x}.mainstay@{}>", letterhead.from.email.domain())
}

/// `answers` is the Message-ID that this mail continues. ASCII in CRLF lines, fit for any relay.
///
/// # Errors
/// When there is no receiver.
pub fn build(
    letterhead: &Letterhead,
    text: &Text,
    id: &str,
    answers: Option<&str>,
    at_ms: i64,
) -> Result<Vec<u8>, lettre::error::Error> {
    let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(at_ms).unwrap_or(0));
    let mut message = Message::builder()
        .from(letterhead.from.clone())
        .subject(text.subject.clone())
        .date(at)
        .message_id(Some(id.to_owned()))
        .header(AutoSubmitted);
    for to in &letterhead.to {
        message = message.to(to.clone());
    }
    if let Some(first) = answers {
        message = message.in_reply_to(first.to_owned()).references(first.to_owned());
    }
    Ok(message.singlepart(SinglePart::plain(text.body.clone()))?.formatted())
}

//! What became of a mail, for the log and for the `mail` event.
use super::post::PostKind;
use std::fmt;
use std::time::Duration;

/// Hears of every outcome, on the clerk's and on the courier's thread: must not wait for anything.
pub type Tell = std::sync::Arc<dyn Fn(&Outcome) + Send + Sync>;

/// Which mail it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub message_id: String,
    pub kind: PostKind,
    /// The incidents that it tells of.
    pub ids: Vec<u64>,
    pub subject: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The relay has it, and answers for it from now on.
    Sent { mail: Ticket, reply: String },
    /// This mail was not taken, or not for everybody; others may be.
    Refused { mail: Ticket, why: String, permanent: bool, again: Duration },
    /// No mail can be sent at the moment.
    Unreachable { why: String, waiting: usize, again: Duration },
    /// Not tried any more; kept in `outbox/failed`.
    GivenUp { mail: Ticket, why: String },
    /// The outbox was full, and this was the oldest mail in it.
    Dropped { mail: Ticket },
    /// The outbox itself cannot be read or written.
    Stuck { why: String },
}

impl Outcome {
    /// "sent", "deferred", "given-up", "dropped".
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Sent { .. } => "sent",
            Self::Refused { .. } | Self::Unreachable { .. } | Self::Stuck { .. } => "deferred",
            Self::GivenUp { .. } => "given-up",
            Self::Dropped { .. } => "dropped",
        }
    }

    /// `None` when it is about all of them.
    pub const fn mail(&self) -> Option<&Ticket> {
        match self {
            Self::Sent { mail, .. }
            | Self::Refused { mail, .. }
            | Self::GivenUp { mail, .. }
            | Self::Dropped { mail } => Some(mail),
            Self::Unreachable { .. } | Self::Stuck { .. } => None,
        }
    }

    /// Is there something for an operator to mend?
    pub const fn is_trouble(&self) -> bool {
        !matches!(self, Self::Sent { .. })
    }
}

/// One line for the log.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent { mail, reply } => write!(f, "mail sent: {} ({reply})", mail.subject),
            Self::Refused { mail, why, permanent: false, again } => {
                write!(f, "mail deferred: {}: {why}; next try in {} s", mail.subject, again.as_secs())
            }
            Self::Refused { mail, why, permanent: true, again } => write!(
                f,
                "MAIL REFUSED: {}: {why}; see `mainstay alert test` and `mainstay help alerts`; next try in {} s",
                mail.subject,
                again.as_secs()
            ),
            Self::Unreachable { why, waiting, again } => {
                write!(f, "no mail can be sent, {waiting} waiting: {why}; next try in {} s", again.as_secs())
            }
            Self::GivenUp { mail, why } => {
                write!(f, "MAIL GIVEN UP, kept in outbox/failed: {}: {why}", mail.subject)
            }
            Self::Dropped { mail } => write!(f, "MAIL DROPPED, the outbox is full: {}", mail.subject),
            Self::Stuck { why } => write!(f, "the outbox cannot be used: {why}"),
        }
    }
}

//! What the operator is told, and what is kept of it: incidents, events, mail.
//!
//! ```text
//!  agent's loop ──Job──► clerk (a thread) ──► incidents/*.json, events.jsonl, starts/*.json, outbox/
//!                                                  compose, message ────────────────────────────┘ │
//!                                                         courier (a thread) ◄────────────────────┘ ──relay (SMTP)──►
//! ```
//! Neither thread is ever waited for, so that a dead disk or relay slows nothing.
mod clerk;
mod compose;
mod courier;
mod journal;
mod message;
mod outbox;
mod outcome;
mod post;
mod record;
mod relay;
mod said;
mod schedule;
mod starts;
mod store;
mod tally;
#[cfg(test)]
mod tests;
mod trial;
mod trouble;

pub use clerk::{Clerk, Complain, Job, Look};
pub use courier::Courier;
pub use journal::Journal;
pub use message::Letterhead;
pub use outbox::{Outbox, Redact};
pub use outcome::{Outcome, Tell, Ticket};
pub use post::{Post, PostKind};
pub use record::{Felt, Line, Mail, Process, Record, Scene, Standing};
pub use relay::{Login, Password, Patience, Relay, Security};
pub use said::Said;
pub use schedule::Pace;
pub use starts::{STARTS_MAX, Start, Starts};
pub use store::{Ground, Store};
pub use tally::MailTally;
pub use trial::{Trial, send_test};
pub use trouble::{Stage, Trouble};

/// The value of [`Record::schema`].
pub use record::SCHEMA;

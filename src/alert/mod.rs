//! What the operator is told, and what is kept of it: incidents, events, mail.
//!
//! ```text
//!  agent's loop ──Job──► clerk (a thread) ──► incidents/*.json, events.jsonl, outbox/
//!                                                                               │
//!                                                         courier (a thread) ◄──┘ ──SMTP──► relay
//! ```
//! Neither thread is ever waited for, so that a dead disk or relay slows nothing.
mod clerk;
mod journal;
mod outbox;
mod record;
mod store;

pub use clerk::{Clerk, Complain, Job, Look};
pub use journal::Journal;
pub use outbox::{Outbox, Post, PostKind};
pub use record::{Felt, Line, Mail, Process, Record, Scene};
pub use store::Store;

/// The value of [`Record::schema`].
pub use record::SCHEMA;

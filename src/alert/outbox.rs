//! Mail that waits to be sent.
use super::record::Record;
use std::io;

/// One mail to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    pub kind: PostKind,
    /// The incidents that it tells of.
    pub ids: Vec<u64>,
    /// Incidents of a digest that are not named.
    pub more: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostKind {
    /// An incident has come to what its record says.
    Alert,
    Digest,
    /// It is over: the answer to the mail that told of it.
    Return,
}

#[derive(Debug)]
pub struct Outbox {}

impl Outbox {
    /// Writes the mail down; the Message-ID that answers refer to.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn put(&self, post: &Post, records: &[Record]) -> io::Result<String> {
        let _ = (post, records);
        Err(io::Error::other("no mail is configured"))
    }
}

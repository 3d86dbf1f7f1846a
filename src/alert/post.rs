//! A mail before it is written: about which incidents, and of what kind.
use serde::{Deserialize, Serialize};

/// One mail to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    pub kind: PostKind,
    /// The incidents that it tells of.
    pub ids: Vec<u64>,
    /// Incidents of a digest that are not named.
    pub more: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PostKind {
    /// An incident has come to what its record says.
    Alert,
    Digest,
    /// It is over: the answer to the mail that told of it.
    Return,
}

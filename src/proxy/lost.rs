//! Why an upstream gave no answer.

/// Why no answer came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Nobody listens.
    Refused,
    /// No connection within the tier's `connect` limit.
    ConnectTimeout,
    /// The address cannot be found or reached.
    Unreachable(String),
    /// This host has no descriptor or port left for a connection: the tier has not failed.
    Shortage(String),
    /// A *reused* connection ended before any byte of the answer: the engine had closed it, and nothing is known.
    Stale,
    /// The connection ended before the answer did.
    Reset,
    /// What came is not HTTP.
    Malformed(String),
    /// The request cannot be put into the engine's dialect.
    Untranslatable(String),
}

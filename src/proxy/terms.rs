//! What holds for a request from its head to the end of its answer.
use crate::kinds::Endpoint;
use std::time::Duration;

/// What does not change during a request.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub endpoint: Endpoint,
    /// As many choices were asked for, and as many come from a tier that weakens its answers.
    pub choices: usize,
    pub weakened_choices: usize,
    /// The client wants a stream, and if so with usage at its end.
    pub streaming: bool,
    pub include_usage: bool,
    /// The body is kept: the request may be sent again. Otherwise it may move only until it was sent.
    pub replay: bool,
    /// What an answer is called that an engine leaves nameless: `chatcmpl-…`, and when it was made, in seconds since
    /// 1970.
    pub answer_id: String,
    pub created: i64,
    /// From the request's head to the last byte of an answer that is no stream, or to the first content of a stream.
    pub timeout: Option<Duration>,
}

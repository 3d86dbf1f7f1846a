//! What the data plane may use, and how it is set up. Read once, at the start.
use crate::clock;
use crate::policy::Moment;
use std::time::Duration;

/// The configured limits of the endpoint.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest request body, in bytes.
    pub max_body: usize,
    /// Request bodies kept for another try, in bytes over all requests.
    pub replay_memory: usize,
    /// Longest time in which nothing of a request body comes.
    pub body_stall: Duration,
    /// Answers held back before their first content or in the middle of an event, in bytes over all requests. When they
    /// take more, they are handed on instead.
    pub held_answers: usize,
    /// Open client connections; one more is answered 503 and closed. Fewer where descriptors are short.
    pub max_connections: usize,
    /// The same of one client: an IPv4 address, or a /64 of IPv6.
    pub max_connections_per_client: usize,
    /// From a request's head to the last byte of an answer that is no stream, or to the first content of a stream. `None` is
    /// no limit.
    pub request_timeout: Option<Duration>,
    /// `Retry-After` when no tier can answer and nothing better is known.
    pub all_down_retry_after: Duration,
    /// Further paths that are handed to the first ready tier as they come.
    pub passthrough: Vec<String>,
    /// Header fields of clients that remote upstreams get beside the usual ones, in lower case.
    pub forward_headers: Vec<String>,
    /// Origins whose pages may call us; `"*"` is all of them.
    pub cors_origins: Vec<String>,
    /// Names of this endpoint, in lower case, beside addresses and `localhost`: a page's request must ask one of them.
    pub hosts: Vec<String>,
    /// A model name that nobody knows gets the default chain instead of 404.
    pub any_model: bool,
    /// For how many tiers descriptors are kept back.
    pub tiers: usize,
}

impl Limits {
    /// What is left of the time for the answer to a request that came `at`.
    pub(super) fn time_left(&self, at: Moment) -> Duration {
        self.request_timeout.map_or(Duration::MAX, |limit| (at + limit).since(clock::now()))
    }

    /// How long a client may take to send its request, and how long it may leave what it asked for unread. It is never
    /// without a limit: such a client would hold its place for ever.
    pub(super) fn client_time(&self) -> Duration {
        self.request_timeout.unwrap_or(CLIENT_TIME)
    }
}

/// `Limits::client_time` where `request_timeout` is no limit.
const CLIENT_TIME: Duration = Duration::from_secs(600);
/// A non-streaming answer up to this size is held whole before its first byte goes out, so that a death in its middle
/// still moves the request on.
pub const HELD_ANSWER_BYTES: usize = 8 << 20;
/// Who takes no more memory than this is served from a part that larger ones cannot use up.
pub(super) const SMALL_BYTES: usize = 64 << 10;
/// A client whose body stops coming for so long is given up.
pub const BODY_STALL: Duration = Duration::from_secs(30);
/// JSON of up to this size is parsed and printed where its request is served; larger one on threads of its own.
pub(super) const PARSED_HERE_BYTES: usize = 256 << 10;
/// What a stream may say before its first content (role chunks, pings); more than this is passed on as it is.
pub(super) const HELD_STREAM_BYTES: usize = 256 << 10;
/// A JSON body on a pass-through path up to this size is read whole, so that its model's name can be the tier's.
pub(super) const NAMED_BODY_BYTES: usize = 1 << 20;
/// One server-sent event or one NDJSON line. A longer one is taken for damage.
pub(super) const EVENT_BYTES: usize = 8 << 20;
/// An engine's error body.
pub(super) const ERROR_BYTES: usize = 1 << 20;
/// Request head of a client: line and fields together.
pub(super) const HEAD_BYTES: usize = 64 << 10;
/// How long a client may take to send a request head; also how long an idle connection is kept.
pub(super) const HEAD_TIME: Duration = Duration::from_secs(60);
/// `Retry-After` of an overload for which the engine named none.
pub(super) const OVERLOAD_RETRY_AFTER: Duration = Duration::from_secs(5);
/// How often a request that would leave its tier looks for another one that could take it.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// A tier that failed in a way that may pass at once is asked again after this.
pub(super) const AGAIN_AFTER: Duration = Duration::from_millis(100);

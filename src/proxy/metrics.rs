//! `GET /metrics`: the endpoint's door to figures that are made elsewhere.
use super::body::ReplyBody;
use super::reply::OwnError;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use hyper::Response;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

/// Makes the text of this moment; `None` when it cannot be had. It bounds its own time and memory.
pub type MetricsSource = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Option<Bytes>> + Send>> + Send + Sync>;

/// A source, and the type of what it gives.
pub struct Metrics {
    pub content_type: &'static str,
    pub source: MetricsSource,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metrics({})", self.content_type)
    }
}

impl Metrics {
    pub(super) async fn answer(&self) -> Response<ReplyBody> {
        let Some(text) = (self.source)().await else {
            return OwnError::overloaded(
                "The figures cannot be had now: too many ask, or the agent is ending",
            )
            .into_response();
        };
        let mut response = Response::new(ReplyBody::whole(text));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        response
    }
}
